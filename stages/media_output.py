"""Results appear whole or not at all: they are written beside their place and moved there at the end.

The temporary names are the same each time and locked while somebody writes there, so that what a killed run left
behind is found and replaced, and two writers do not get into each other's way.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from framefold.pipeline.archive.lock import claim, is_at
from framefold.pipeline.errors import FramefoldError


def unwritable(target: Path) -> str | None:
    """Why `target` cannot be made where it is asked for; None if it can."""
    parent = target.absolute().parent
    ground = next(folder for folder in (parent, *parent.parents) if folder.exists())
    if not ground.is_dir():
        return f"{ground} is a file; a folder is needed there to write {target.name}"
    if not os.access(ground, os.W_OK | os.X_OK):
        return f"{ground} is not writable; name another place or change its permissions"
    return None


def folder_problem(target: Path, *, overwrite: bool) -> str | None:
    """Why `target` cannot become a folder of results; None if it can."""
    if target.exists() and not target.is_dir():
        return f"{target.absolute()} is a file; name a folder, or remove the file"
    if not overwrite and target.is_dir() and any(target.iterdir()):
        return f"{target.absolute()} is not empty; name another folder, empty it, or set overwrite: true"
    return unwritable(target)


def partial_path(target: Path, owner: str = "") -> Path:
    """Return the hidden name beside `target`, on the same file system, for what `owner` is writing."""
    return target.absolute().parent / ".".join(("", target.name, *filter(None, [owner]), "partial"))


class StagedFile:
    """One file on its way; what stood at `target` stays until `commit`. `Locked` if it has another writer."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = partial_path(target)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock: int | None = claim(self.path)
        os.ftruncate(self._lock, 0)

    def commit(self) -> None:
        """Put the finished file into its place."""
        sync(self.path)
        self.path.replace(self.target)
        sync(self.target.absolute().parent)
        self.discard()

    def discard(self) -> None:
        """Leave nothing behind; does nothing after `commit`."""
        lock, self._lock = self._lock, None
        if lock is not None:
            if is_at(lock, self.path):
                self.path.unlink()
            os.close(lock)


class StagedFolder:
    """A folder on its way. Sinks that share a `target` each have an `owner` name; `Locked` if two have the same."""

    def __init__(self, target: Path, owner: str = "") -> None:
        self.target = target
        self._folder = partial_path(target, owner)
        self._folder.mkdir(parents=True, exist_ok=True)
        self.path = self._folder / "content"
        """Where the content is to be written."""
        self._lock: int | None = claim(self._folder / "lock")
        try:
            shutil.rmtree(self.path, ignore_errors=True)
            self.path.mkdir()
        except BaseException:
            os.close(self._lock)
            raise

    def commit(self, *, overwrite: bool, content: Path | None = None) -> None:
        """Put what `content` holds (everything, by default) into `target`.

        A new or empty target takes it in one step. One that holds something by now, as when sinks share it,
        gets file by file what is here, but without `overwrite` only if no file there has one of these names.
        """
        content = content or self.path
        _sync_all(content)
        if self.target.exists() and not self.target.is_dir():
            raise FramefoldError(f"{self.target} is a file; name a folder, or remove the file")
        if self.target.is_dir() and any(self.target.iterdir()):
            if not overwrite:
                _refuse_conflicts(content, self.target)
            _merge(content, self.target)
        else:
            content.replace(self.target)
        sync(self.target.absolute().parent)
        self.discard()

    def discard(self) -> None:
        """Leave nothing behind; does nothing after `commit`."""
        lock, self._lock = self._lock, None
        if lock is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            (self._folder / "lock").unlink(missing_ok=True)  # not earlier: from now on somebody else may begin here
            with suppress(OSError):
                self._folder.rmdir()
            os.close(lock)


def sync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the medium."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync_all(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        sync(path)


def _refuse_conflicts(content: Path, target: Path) -> None:
    for path in sorted(content.rglob("*")):
        place = target / path.relative_to(content)
        if os.path.lexists(place) and not (path.is_dir() and place.is_dir() and not place.is_symlink()):
            raise FramefoldError(f"{place} is there already; name another folder, or set overwrite: true")


def _merge(content: Path, target: Path) -> None:
    for path in sorted(content.iterdir()):
        place = target / path.name
        if place.is_symlink():
            place.unlink()  # never write through a link to somewhere else
        if path.is_dir():
            place.mkdir(exist_ok=True)
            _merge(path, place)
        else:
            path.replace(place)
    sync(target)
