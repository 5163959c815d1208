"""A folder of a file system as a store: written beside, flushed, then linked to a name that must not exist."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from framefold.pipeline.archive.disk import DISK, Disk
from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.files import pread_exactly
from framefold.pipeline.archive.layout import OPEN, TEMPORARY_SUFFIX
from framefold.pipeline.archive.stores.base import NotThere, Stored, StoredFile, check_name, check_range

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}
_PIECE = 2**20


class LocalStore:
    """Files below `root`. Works on network file systems too: no lock is needed, and no file is replaced."""

    def __init__(self, root: str | os.PathLike[str], *, disk: Disk = DISK) -> None:
        self.root, self._disk = Path(root), disk
        self._safe_folders: set[Path] = set()

    @property
    def url(self) -> str:
        """The folder's path."""
        return str(self.root)

    def path(self, name: str) -> Path:
        """Where a file lies."""
        return self.root / check_name(name)

    def read(self, name: str, start: int, length: int) -> bytes:
        """As `Store.read`."""
        with self._opened(name) as (fd, size):
            check_range(start, length, size)
            return pread_exactly(fd, length, start)

    def tail(self, name: str, length: int) -> tuple[bytes, int]:
        """As `Store.tail`."""
        with self._opened(name) as (fd, size):
            length = min(length, size)
            return pread_exactly(fd, length, size - length), size

    def open(self, name: str) -> StoredFile:
        """As `Store.open`; no descriptor is held, for an archive may have more shards than a process may have files."""
        return StoredFile.of(self, name)

    def list(self, folder: str) -> Iterator[Stored]:
        """As `Store.list`; links are not followed."""
        try:
            for parent, _, names in os.walk(self.root / check_name(folder.rstrip("/")), onerror=_unless_gone):
                yield from self._regular(Path(parent), names)
        except OSError as error:
            raise self._failed("list", folder, error) from error

    def _regular(self, parent: Path, names: Sequence[str]) -> Iterator[Stored]:
        for path in (parent / name for name in names):
            with suppress(FileNotFoundError):  # removed since it was listed
                status = path.lstat()
                if stat.S_ISREG(status.st_mode):
                    yield Stored(path.relative_to(self.root).as_posix(), status.st_size, status.st_mtime)

    def create(self, name: str, data: bytes | Path) -> bool:
        """As `Store.create`; a local file that is given gets a second name, so it must not be written any more."""
        final = self.path(name)
        try:
            self.have_folder(final.parent)
            with self._flushed(data, final) as source:
                won = self._link(source, final)
            self._disk.sync_folder(final.parent)
        except OSError as error:
            raise self._failed("create", name, error) from error
        return won

    def delete(self, name: str) -> None:
        """As `Store.delete`."""
        try:
            self._disk.unlink(self.path(name))
        except OSError as error:
            raise self._failed("remove", name, error) from error

    def have_folder(self, folder: Path) -> None:
        """Make a folder at or below the root, so that it survives a power cut."""
        if folder in self._safe_folders:
            return
        is_ours = self.root in folder.parents
        if is_ours or not folder.is_dir():
            self.have_folder(folder.parent)
            self._disk.mkdir(folder)
            self._disk.sync_folder(folder.parent)  # even if it is there: whoever made it may not have come so far
        self._safe_folders.add(folder)

    @contextmanager
    def _flushed(self, data: bytes | Path, final: Path) -> Iterator[Path]:
        """A file with these bytes on the medium, on the same file system as `final`."""
        if isinstance(data, Path) and data.stat().st_dev == final.parent.stat().st_dev:
            fd = self._disk.open(data, os.O_RDONLY)
            try:
                self._disk.sync(fd)
            finally:
                self._disk.close(fd)
            yield data
            return
        self.have_folder(self.root / OPEN)
        temporary = self.root / OPEN / f"{os.urandom(16).hex()}{TEMPORARY_SUFFIX}"
        try:
            self._write(temporary, data)
            yield temporary
        finally:
            self._disk.unlink(temporary)

    def _write(self, path: Path, data: bytes | Path) -> None:
        fd = self._disk.create(path)
        try:
            offset = 0
            for piece in [data] if isinstance(data, bytes) else _pieces(data):
                self._disk.write(fd, piece, offset)
                offset += len(piece)
            self._disk.sync(fd)
        finally:
            self._disk.close(fd)

    def _link(self, source: Path, final: Path) -> bool:
        try:
            self._disk.link(source, final)
        except FileExistsError:
            # A network file system may have done it, lost its answer, and tried again.
            return os.path.samestat(source.lstat(), final.lstat())
        except OSError as error:
            if error.errno in _NO_LINKS:
                message = f"the file system has no hard links: {error}"
                raise ArchiveError(Code.NOT_EXCLUSIVE, message, archive=self.url) from error
            raise
        return True

    @contextmanager
    def _opened(self, name: str) -> Iterator[tuple[int, int]]:
        """Descriptor and size of a regular file."""
        try:
            fd = os.open(self.path(name), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotThere(Code.CANNOT_OPEN, f"there is no {name}", archive=self.url) from error
        except OSError as error:
            raise ArchiveError(Code.CANNOT_OPEN, f"cannot open {name}: {error}", archive=self.url) from error
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise ArchiveError(Code.CANNOT_OPEN, f"{name} is no regular file", archive=self.url)
            yield fd, status.st_size
        finally:
            os.close(fd)

    def _failed(self, what: str, name: str, error: Exception) -> ArchiveError:
        return ArchiveError(Code.IO, f"cannot {what} {name}: {error}", archive=self.url)


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece
