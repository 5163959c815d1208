"""The payload of `atch`: bytes that belong to originals, named by the SHA-256 of the whole attachment."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from struct import Struct
from typing import ClassVar, Self

from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.limits import MAX_ATTACHMENT

_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class AttachmentPiece:
    """One chunk's share of an attachment."""

    sha256: str
    """Of the whole attachment: 64 lower-case hex digits."""
    total_bytes: int
    """Of the whole attachment, 0 to 2^40."""
    start: int
    """Where in it `data` begins."""
    data: bytes = field(repr=False)

    HEAD: ClassVar[Struct] = Struct("<32sQQ")

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.sha256):
            raise ArchiveError(Code.RECORD, f"attachment is {self.sha256[:80]!r}; 64 lower-case hex digits are needed")
        if not 0 <= self.total_bytes <= MAX_ATTACHMENT:
            raise ArchiveError(Code.LIMIT, f"an attachment of {self.total_bytes} bytes; {MAX_ATTACHMENT} are allowed")
        if not 0 <= self.start <= self.end <= self.total_bytes:
            got = f"bytes {self.start} to {self.end} of an attachment of {self.total_bytes}"
            raise ArchiveError(Code.LIMIT, f"a chunk holds {got}")

    @property
    def end(self) -> int:
        """Where in the attachment the next piece begins."""
        return self.start + len(self.data)

    def pack(self) -> bytes:
        """Return 48 bytes and the data."""
        return self.HEAD.pack(bytes.fromhex(self.sha256), self.total_bytes, self.start) + self.data

    @classmethod
    def unpack(cls, payload: bytes) -> Self:
        """Read a chunk's payload; the SHA-256 is of the whole, so it is not checked here."""
        sha256, total, start = cls.head(payload)
        return cls(sha256=sha256, total_bytes=total, start=start, data=payload[cls.HEAD.size :])

    @classmethod
    def head(cls, payload: bytes) -> tuple[str, int, int]:
        """Return SHA-256, length of the whole and start, from the payload's first 48 bytes; ranges unchecked."""
        if len(payload) < cls.HEAD.size:
            raise ArchiveError(Code.RECORD, f"an attachment of {len(payload)} bytes has no room for its head")
        sha256, total, start = cls.HEAD.unpack_from(payload)
        return sha256.hex(), total, start
