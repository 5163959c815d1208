"""The operating system's side: exact reads, whole writes, and a file that takes its name all at once."""

from __future__ import annotations

import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.limits import TAIL


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


class OutputFile:
    """A file under a temporary name, `.{name}.{8 hex}.part` beside its final one, until it is published."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError(f"{path} is a folder")
            self.fd = os.open(self.part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except (OSError, ValueError) as error:
            raise self._failed("begin", error) from error

    def write(self, data: bytes, offset: int) -> None:
        """Write all of `data`, the new end of the file; after a failure the file ends at `offset`."""
        try:
            self._write_all(data, offset)
        except OSError as error:
            self.cut(offset)
            raise self._failed("write", error) from error

    def _write_all(self, data: bytes, offset: int) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self.fd, view, offset)
            view, offset = view[written:], offset + written

    def cut(self, end: int) -> None:
        """Forget everything from `end` on."""
        try:
            os.ftruncate(self.fd, end)
        except OSError:
            # Harmless: the next write begins at `end` all the same, and `publish` cuts again.
            return

    def publish(self, end: int) -> None:
        """Flush the first `end` bytes to the medium and take the final name, in one step."""
        try:
            os.ftruncate(self.fd, end)
            os.fsync(self.fd)
            self.part.replace(self.path)
        except OSError as error:
            raise self._failed("publish", error) from error

    def sync_folder(self) -> None:
        """Make the new name survive a power cut."""
        try:
            fd = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise self._failed("flush the folder of", error) from error

    def discard(self) -> None:
        """Close the file and remove its temporary name, if it still has it."""
        os.close(self.fd)
        self.part.unlink(missing_ok=True)

    def _failed(self, what: str, error: Exception) -> ArchiveError:
        return ArchiveError(Code.IO, f"cannot {what} the archive: {error}", archive=str(self.path))
