"""The stored networks on which units of an archive build, each read once for many units."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from framefold.pipeline.archive import ArchiveReader
from framefold.pipeline.archive.errors import ArchiveError, Code

MAX_BASE_BYTES = 2**28
"""As for a unit's own bytes. An attachment may be far larger, and this one is held in memory."""
_KEPT = 4
"""Units come source by source, and most often all of them build on the same network."""


class Bases:
    """Streams by SHA-256, each checked against it."""

    def __init__(self, reader: ArchiveReader) -> None:
        self._reader = reader
        self._read: OrderedDict[str, bytes] = OrderedDict()

    def of(self, needs: Sequence[str]) -> bytes | None:
        """The stream that a unit needs, None if none; `ArchiveError` names one that is damaged or not there."""
        if len(needs) > 1:
            names = ", ".join(needs)
            raise ArchiveError(Code.UNSUPPORTED, f"it builds on {len(needs)} networks, one is known: {names}")
        return self._base(needs[0]) if needs else None

    def _base(self, sha256: str) -> bytes:
        if sha256 not in self._read:
            self._read[sha256] = self._checked(sha256)
            if len(self._read) > _KEPT:
                self._read.popitem(last=False)
        self._read.move_to_end(sha256)
        return self._read[sha256]

    def _checked(self, sha256: str) -> bytes:
        what = f"the network that it builds on, attachment {sha256},"
        size = self._reader.attachments.get(sha256)
        if size is None:
            damage = "; ".join(str(error) for error in self._reader.attachment_damage[:1])
            why = f"cannot be read: {damage}" if damage else "is not in the archive"
            raise ArchiveError(Code.MISSING, f"{what} {why}")
        if size > MAX_BASE_BYTES:
            raise ArchiveError(Code.LIMIT, f"{what} has {size} bytes; {MAX_BASE_BYTES} are allowed")
        try:
            return self._reader.read_attachment(sha256)
        except ArchiveError as error:
            raise ArchiveError(error.code, f"{what} cannot be read: {error.message}", chunk=error.chunk) from error
