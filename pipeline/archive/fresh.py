"""A file that is written beside its name and takes it when it is whole; until then nothing is seen there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from framefold.pipeline.archive.disk import DISK, Disk
from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.layout import TEMPORARY_SUFFIX


class Fresh:
    """The file under its temporary name."""

    def __init__(self, fd: int, part: Path, disk: Disk) -> None:
        self.fd, self.part, self._disk = fd, part, disk
        """Descriptor, to read back from, and where the file lies for now."""

    def write(self, data: bytes, offset: int) -> None:
        """Write all of `data` at `offset`."""
        self._disk.write(self.fd, data, offset)


@contextmanager
def fresh_file(path: Path, *, replace: bool = False, scratch: Path | None = None, disk: Disk = DISK) -> Iterator[Fresh]:
    """Give a file to write; it is called `path` when the block ends, and is gone if that raises.

    Until then it lies in the folder `scratch`, of the same file system, or else beside `path`. A file that has the name
    already is F018 unless it is to be replaced; so is whatever the system refuses.
    """
    mark = os.urandom(16).hex()
    part = scratch / f"{mark}{TEMPORARY_SUFFIX}" if scratch else path.with_name(f".{path.name}.{mark[:8]}.new")
    try:
        fd = disk.create(part)
    except (OSError, ValueError) as error:
        raise _failed(path, error) from error
    try:
        yield Fresh(fd, part, disk)
        disk.sync(fd)
        _name(part, path, replace=replace, disk=disk)
        disk.sync_folder(path.parent)
    except OSError as error:
        raise _failed(path, error) from error
    finally:
        disk.close(fd)
        with suppress(OSError):  # what was wrong has been said
            disk.unlink(part)


@contextmanager
def scratch_file(folder: Path, *, disk: Disk = DISK) -> Iterator[Fresh]:
    """Give a file to write that is gone when the block ends; it may have got another name until then."""
    part = folder / f"{os.urandom(16).hex()}{TEMPORARY_SUFFIX}"
    try:
        fd = disk.create(part)
    except OSError as error:
        raise _failed(part, error) from error
    try:
        yield Fresh(fd, part, disk)
    except OSError as error:
        raise _failed(part, error) from error
    finally:
        disk.close(fd)
        with suppress(OSError):
            disk.unlink(part)


def _name(part: Path, path: Path, *, replace: bool, disk: Disk) -> None:
    if replace:
        return disk.replace(part, path)
    try:
        return disk.link(part, path)
    except OSError:
        if os.path.lexists(path):
            raise
        return disk.replace(part, path)  # a file system without links, such as a memory card's


def _failed(path: Path, error: Exception) -> ArchiveError:
    return ArchiveError(Code.IO, f"cannot write {path.name}: {error}", archive=str(path))
