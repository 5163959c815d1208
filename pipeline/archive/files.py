"""The operating system's side of reading: exact reads by offset, and never of what is no file."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import Protocol, Self

from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.limits import TAIL


class Readable(Protocol):
    """Bytes read by offset: a local file, or an object in a store."""

    @property
    def path(self) -> str:
        """Names it in messages."""

    @property
    def size(self) -> int:
        """Bytes."""

    def read(self, offset: int, length: int) -> bytes:
        """Read exactly `length` bytes; ArchiveError F021 if they are not there, F018 if the system fails."""

    def close(self) -> None:
        """Let go of it."""


@dataclass(frozen=True)
class InputFile:
    """An open file, read by offset; safe to share between threads."""

    fd: int
    path: str
    size: int
    """Bytes, when it was opened."""
    tail: bytes = b""
    """The file's last bytes, already read."""

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a regular file and read its tail."""
        name = os.fspath(path)
        try:
            # Without O_NONBLOCK, opening a FIFO would wait for a writer.
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as error:
            raise ArchiveError(Code.CANNOT_OPEN, f"cannot open: {error}", archive=name) from error
        try:
            return cls._of(fd, name)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def _of(cls, fd: int, name: str) -> Self:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ArchiveError(Code.CANNOT_OPEN, "not a regular file", archive=name)
        length = min(status.st_size, TAIL)
        tail = cls(fd, name, status.st_size).read(status.st_size - length, length)
        return cls(fd, name, status.st_size, tail)

    def read(self, offset: int, length: int) -> bytes:
        """Read exactly `length` bytes; the caller has checked `length` against its limit."""
        if offset + length > self.size:
            missing = offset + length - self.size
            raise ArchiveError(Code.CUT, f"{missing} of {length} bytes are missing: the file ends at {self.size}")
        start = offset - (self.size - len(self.tail))
        if start >= 0:
            return self.tail[start : start + length]
        return pread_exactly(self.fd, length, offset)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Ahead:
    """A file of which everything from `start` on was read in one piece."""

    file: Readable
    start: int
    data: bytes = field(repr=False)

    @classmethod
    def of(cls, file: Readable, start: int) -> Ahead:
        """Read from `start` to the end."""
        return cls(file, start, file.read(start, file.size - start))

    @property
    def path(self) -> str:
        """Names it in messages."""
        return self.file.path

    @property
    def size(self) -> int:
        """Bytes."""
        return self.file.size

    def read(self, offset: int, length: int) -> bytes:
        """As `Readable.read`."""
        at = offset - self.start
        inside = at >= 0 and offset + length <= self.size
        return self.data[at : at + length] if inside else self.file.read(offset, length)

    def close(self) -> None:
        """Let go of it."""
        self.file.close()


def pread_exactly(fd: int, length: int, offset: int) -> bytes:
    """Read `length` bytes from `offset`, however many calls that takes."""
    pieces = []
    while length:
        try:
            piece = os.pread(fd, length, offset)
        except OSError as error:
            raise ArchiveError(Code.IO, f"cannot read: {error}", offset=offset) from error
        if not piece:
            raise ArchiveError(Code.CUT, f"the file ends at {offset}, {length} bytes early", offset=offset)
        pieces.append(piece)
        offset, length = offset + len(piece), length - len(piece)
    return b"".join(pieces)
