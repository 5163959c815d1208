"""Which files a source reads, and what they are called: files, folders, globs, or a list of them."""

from __future__ import annotations

import glob
import hashlib
import logging
import os
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Annotated

from pydantic import Field

from framefold.codecs.clip import Span
from framefold.codecs.pixel_format import RGB
from framefold.pipeline.errors import RefusedInput
from framefold.stages.media_names import name_problem

_Entry = Annotated[str, Field(min_length=1)]
Paths = _Entry | Annotated[list[_Entry], Field(min_length=1)]
"""The option `path` of a source."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MediaFile:
    """One file of a run."""

    path: Path
    name: str
    """Unique within the run: the file's name; folders stand before it ("a/clip.mp4") where two are alike."""


def find_files(paths: Paths, suffixes: Sequence[str]) -> list[MediaFile]:
    """Every file that `paths` names, in the order of the list, sorted within a folder or a glob.

    A file or a glob is taken as it stands, whatever its suffix, so that what cannot be read is refused by
    name; a folder, searched with its subfolders, gives the files ending in `suffixes` and none that are
    hidden. A path that does not exist is kept, for the source to refuse it. A file named twice is read once.
    """
    found = [path for entry in _entries(paths) for path in _expand(entry, suffixes)]
    unique: dict[Path, Path] = {}
    for path in found:
        unique.setdefault(_absolute(path), path)
    return [MediaFile(path, name) for path, name in zip(unique.values(), _names(list(unique)), strict=True)]


def nothing_found(paths: Paths, suffixes: Sequence[str]) -> str | None:
    """Why `paths` gives a source nothing to read; None if at least one file is there."""
    if any(media.path.exists() for media in find_files(paths, suffixes)):
        return None
    looked = ", ".join(str(_absolute(Path(entry).expanduser())) for entry in _entries(paths))
    return (
        f"nothing found at {looked}; give an existing file, a glob, or a folder that holds files ending in "
        f"{' '.join(suffixes)} (a relative path starts at the current directory)"
    )


def _entries(paths: Paths) -> list[str]:
    return [paths] if isinstance(paths, str) else paths


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links, and a link has its own name


def _expand(entry: str, suffixes: Sequence[str]) -> list[Path]:
    path = Path(entry).expanduser()
    if path.is_dir():
        return _folder(path, suffixes)
    if path.exists() or not glob.has_magic(entry):
        return [path]
    matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207 - may be absolute
    files = [[match] if not match.is_dir() else _folder(match, suffixes) for match in matches]
    return [file for group in files for file in group]


def _folder(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    seen = [path for path in sorted(folder.rglob("*")) if not path.is_dir() and not _hidden(path, folder)]
    kept = [path for path in seen if path.suffix.lower() in suffixes]
    if len(kept) < len(seen):
        _log.info("%s: %d of %d files are of other kinds and left out", folder, len(seen) - len(kept), len(seen))
    return kept


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _names(paths: Sequence[Path]) -> list[str]:
    """Short names; those that several files share are told apart by their folders below the common one."""
    if not paths:
        return []
    root = os.path.commonpath([path.parent for path in paths])
    count = Counter(path.name for path in paths)
    return [path.name if count[path.name] == 1 else path.relative_to(root).as_posix() for path in paths]


def open_regular(media: MediaFile) -> BufferedReader:
    """Open the file for reading; RefusedInput says why it cannot be. Never waits on a pipe or a device."""
    problem = name_problem(media.name)
    if problem:
        raise RefusedInput(f"its name could not be given back: {problem}; rename the file")
    try:
        status = media.path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise RefusedInput("not a regular file")
        if status.st_size == 0:
            raise RefusedInput("the file is empty (0 bytes)")
        return media.path.open("rb")
    except OSError as error:
        raise RefusedInput(f"cannot be opened: {error.strerror}") from error


def sha256_and_size(file: BufferedReader) -> tuple[str, int]:
    """Hex SHA-256 and length in bytes of an open file, read in pieces."""
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    return digest, file.tell()


class Identities:
    """Names contents for unit keys: `<sha256>:<first frame>-<stop frame>`, the same in every run.

    Behind it stands the pixel format, if that is not 8-bit RGB: the same file may be coded in several.

    Two files of one run may hold the same bytes. The first keeps the plain identity; the others get their
    name behind it, for an equal key would make the second file vanish as a repetition of the first.
    """

    def __init__(self) -> None:
        self._owner: dict[str, str] = {}

    def of(self, span: Span) -> str:
        """Return the identity of a span of frames."""
        source = span.source
        plain = f"{source.sha256}:{span.first_frame}-{span.first_frame + span.frame_count}"
        plain += "" if source.pixels == RGB else f":{source.pixels.name}"
        owner = self._owner.setdefault(source.sha256, source.name)
        return plain if owner == source.name else f"{plain}:{source.name}"
