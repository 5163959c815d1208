"""The operating system's side of writing: every call by which an archive changes a file system, in one place."""

from __future__ import annotations

import errno
import os
from pathlib import Path


class Disk:
    """These calls as methods, so that a test can count, record or fail each; all raise OSError as the system does.

    Nothing here is done twice or tried again: what to do after a failure is for the callers to decide.
    """

    def open(self, path: Path, flags: int) -> int:
        """Open a file; with O_CREAT it gets the permissions that the user's umask leaves."""
        return os.open(path, flags | os.O_CLOEXEC, 0o666)

    def create(self, path: Path) -> int:
        """Make an empty file under a name that nothing has, to write and to read back."""
        return self.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW)

    def write(self, fd: int, data: bytes | bytearray, offset: int) -> None:
        """Write all of `data`, however many calls that takes."""
        view = memoryview(data)
        while view:
            written = self.pwrite(fd, view, offset)
            if written < 1:
                raise OSError(errno.EIO, "the system took none of the bytes")
            view, offset = view[written:], offset + written

    def pwrite(self, fd: int, data: memoryview, offset: int) -> int:
        """Write some of `data`; how many bytes, perhaps not all."""
        return os.pwrite(fd, data, offset)

    def truncate(self, fd: int, size: int) -> None:
        """Cut a file to `size` bytes."""
        os.ftruncate(fd, size)

    def sync(self, fd: int) -> None:
        """Wait until a file's bytes and its length are on the medium."""
        os.fdatasync(fd)

    def close(self, fd: int) -> None:
        """Let go of a file."""
        os.close(fd)

    def link(self, source: Path, name: Path) -> None:
        """Give a file a second name, which must not exist."""
        os.link(source, name, follow_symlinks=False)

    def replace(self, source: Path, name: Path) -> None:
        """Rename a file; one that has the name already is gone."""
        os.replace(source, name)  # noqa: PTH105 - all calls of this class look alike

    def unlink(self, path: Path) -> None:
        """Remove a name; nothing happens if it is gone already."""
        path.unlink(missing_ok=True)

    def mkdir(self, path: Path) -> None:
        """Make a folder; nothing happens if it is there already."""
        path.mkdir(exist_ok=True)

    def sync_folder(self, path: Path) -> None:
        """Wait until a folder's names are on the medium."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        except OSError as error:
            if error.errno != errno.EINVAL:  # some network file systems keep names safe by themselves and say so
                raise
        finally:
            os.close(fd)


DISK = Disk()
"""The real one."""
