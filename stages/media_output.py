"""Results appear whole or not at all: they are written beside their place and moved there at the end."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

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


def partial_path(target: Path) -> Path:
    """Return a fresh hidden name beside `target`, on the same file system; parent folders are made."""
    target.absolute().parent.mkdir(parents=True, exist_ok=True)
    return target.absolute().parent / f".{target.name}.{secrets.token_hex(6)}.partial"


class StagedFile:
    """One file on its way; what stood at `target` stays until `commit`."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = partial_path(target)

    def commit(self) -> None:
        """Put the finished file into its place."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        self.path.replace(self.target)

    def discard(self) -> None:
        """Leave nothing behind; does nothing after `commit`."""
        self.path.unlink(missing_ok=True)


class StagedFolder:
    """A folder on its way."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = partial_path(target)
        self.path.mkdir()

    def commit(self, *, overwrite: bool, content: Path | None = None) -> None:
        """Put what `content` holds (everything, by default) into `target`.

        A new or empty target takes it in one step. One that holds something by now, as when sinks share it,
        gets file by file what is here, but without `overwrite` only if no file there has one of these names.
        """
        content = content or self.path
        if self.target.exists() and not self.target.is_dir():
            raise FramefoldError(f"{self.target} is a file; name a folder, or remove the file")
        if self.target.is_dir() and any(self.target.iterdir()):
            if not overwrite:
                _refuse_conflicts(content, self.target)
            _merge(content, self.target)
        else:
            content.replace(self.target)
        self.discard()

    def discard(self) -> None:
        """Leave nothing behind; does nothing after `commit`."""
        shutil.rmtree(self.path, ignore_errors=True)


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
