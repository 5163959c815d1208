"""What can be wrong with an archive: numbered, because scripts and archivists refer to the numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from framefold.pipeline.errors import FramefoldError


class Code(StrEnum):
    """A number is a promise: it never changes its meaning and is never used again."""

    CANNOT_OPEN = "F001"
    NOT_AN_ARCHIVE = "F002"
    UNSUPPORTED = "F003"
    FILE_HEADER = "F004"
    FOOTER = "F005"
    INDEX = "F006"
    LAYOUT = "F007"
    CHUNK_HEADER = "F008"
    DISAGREES = "F009"
    PAYLOAD = "F010"
    DIGEST = "F011"
    PADDING = "F012"
    UNKNOWN_CRITICAL = "F013"
    LIMIT = "F014"
    JSON = "F015"
    RECORD = "F016"
    NO_SUCH = "F017"
    IO = "F018"
    MISUSE = "F019"
    FOREIGN_BYTES = "F020"
    CUT = "F021"
    LOCKED = "F022"
    COMMIT = "F023"
    CHAIN = "F024"
    SHARD_MISSING = "F025"
    SHARD_DIGEST = "F026"
    NOT_EXCLUSIVE = "F027"
    BAG = "F028"
    PARITY = "F029"
    FRAMES_DIFFER = "F030"
    QUALITY_DIFFERS = "F031"
    ORIGINAL_DIFFERS = "F032"
    INFLATE = "F033"
    LOST = "F034"
    COPY = "F035"
    MISSING = "F036"


_COPY = "fetch the file again or restore it from another copy"
_STRANGE = "no writer of framefold makes such a file: do not trust it, ask where it came from"
REMEDY = {
    Code.CANNOT_OPEN: "check the path and the permissions",
    Code.NOT_AN_ARCHIVE: "give a file that `pipeline run` wrote; if it is one, " + _COPY,
    Code.UNSUPPORTED: "read it with a newer framefold",
    Code.FILE_HEADER: "the chunks may be whole: see the other findings of `pipeline verify`; " + _COPY,
    Code.FOOTER: "the file was cut, or its writing never finished; " + _COPY,
    Code.INDEX: "the chunks may be whole: see the other findings of `pipeline verify`; " + _COPY,
    Code.LAYOUT: _STRANGE,
    Code.CHUNK_HEADER: _COPY,
    Code.DISAGREES: _COPY,
    Code.PAYLOAD: _COPY,
    Code.DIGEST: _COPY,
    Code.PADDING: _COPY,
    Code.UNKNOWN_CRITICAL: "read it with a newer framefold",
    Code.LIMIT: "nothing was read beyond the limit; " + _STRANGE,
    Code.JSON: "use JSON objects without repeated keys, NaN, infinities or integers above 2^53 - 1",
    Code.RECORD: "give a value that is allowed; if it was read from a file, " + _STRANGE,
    Code.NO_SUCH: "`pipeline info` lists what the archive holds",
    Code.IO: "free space or repair the medium, then try again; an archive already there is untouched",
    Code.MISUSE: "open a new one",
    Code.FOREIGN_BYTES: _COPY,
    Code.CUT: _COPY,
    Code.LOCKED: "wait until the other writer has ended, or end it, or write to another path",
    Code.COMMIT: "older commits are still read; " + _COPY,
    Code.CHAIN: "older commits are still read; " + _COPY,
    Code.SHARD_MISSING: "the other shards are read; restore this one from another copy, or `pipeline repair`",
    Code.SHARD_DIGEST: "`pipeline verify` names the damaged chunks; restore the shard, or `pipeline repair`",
    Code.NOT_EXCLUSIVE: "write a single file there, or choose a file system or store with exclusive creation",
    Code.BAG: "if the archive has grown since, `pipeline seal` it again; else " + _COPY,
    Code.PARITY: _COPY,
    Code.FRAMES_DIFFER: "decode it on the kind of machine that wrote it; if every chunk is whole, report the codec",
    Code.QUALITY_DIFFERS: "decode it on the kind of machine that wrote it; if every chunk is whole, report the codec",
    Code.ORIGINAL_DIFFERS: "give the original that was archived; `pipeline info --json` has its SHA-256",
    Code.INFLATE: _COPY,
    Code.LOST: _COPY,
    Code.COPY: "`pipeline verify` tells which of the two is damaged; " + _COPY,
    Code.MISSING: "wire the source's port `rest` into archive_sink to keep it, or " + _COPY,
}


class ArchiveError(FramefoldError):
    """An archive, or a part of one, cannot be read or written as asked."""

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        archive: str | None = None,
        chunk: str | None = None,
        offset: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.archive = archive
        self.chunk = chunk
        """Id of the chunk concerned, if one is."""
        self.offset = offset
        """Byte offset in the file at which the thing concerned begins."""

    @property
    def remedy(self) -> str:
        """What to do next."""
        return REMEDY[self.code]

    def __str__(self) -> str:
        place = " ".join(
            part
            for part in (
                self.archive or "",
                f"chunk {self.chunk}" if self.chunk else "",
                f"at byte {self.offset}" if self.offset is not None else "",
            )
            if part
        )
        return f"{self.code} {place + ': ' if place else ''}{self.message}; {self.remedy}"

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.code, self.message), dict(self.__dict__))


@contextmanager
def located(*, archive: str | None = None, chunk: str | None = None, offset: int | None = None) -> Iterator[None]:
    """Let an `ArchiveError` from inside say where it happened; what it knows already stays."""
    try:
        yield
    except ArchiveError as error:
        error.archive = archive if error.archive is None else error.archive
        error.chunk = chunk if error.chunk is None else error.chunk
        error.offset = offset if error.offset is None else error.offset
        raise
