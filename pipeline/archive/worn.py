"""A file on a medium that may be failing: what cannot be read any more is read as zeros, and the rest is read.

For callers who have checksums, and so find out what is missing.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Self

from framefold.pipeline.archive.errors import ArchiveError, Code

_SECTOR = 4096


class WornFile:
    """An open file, as `Readable`, but it can always be read."""

    def __init__(self, fd: int, path: str, size: int) -> None:
        self.fd, self.path, self.size = fd, path, size
        """Descriptor, name for messages, and bytes when it was opened."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a regular file; F001 if that is not possible."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as error:
            raise ArchiveError(Code.CANNOT_OPEN, f"cannot open: {error}", archive=str(path)) from error
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise ArchiveError(Code.CANNOT_OPEN, "not a regular file", archive=str(path))
        return cls(fd, str(path), status.st_size)

    @classmethod
    def empty(cls, path: Path) -> Self:
        """Stand in for a file that is gone."""
        return cls(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), str(path), 0)

    def read(self, offset: int, length: int, piece: int = _SECTOR) -> bytes:
        """Read `length` bytes; zeros for what lies behind the end, and for each `piece` bytes that cannot be read."""
        try:
            return self._read(offset, length)
        except OSError:
            pieces = range(offset, offset + length, piece)
            return b"".join(self._read_or_zeros(at, min(piece, offset + length - at)) for at in pieces)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_or_zeros(self, offset: int, length: int) -> bytes:
        try:
            return self._read(offset, length)
        except OSError:
            return bytes(length)

    def _read(self, offset: int, length: int) -> bytes:
        found = bytearray()
        while len(found) < length:
            piece = os.pread(self.fd, length - len(found), offset + len(found))
            if not piece:
                return bytes(found.ljust(length, b"\0"))
            found += piece
        return bytes(found)
