"""Compare a sealed archive with its tag files: whether the bag still holds what it held when it was sealed."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.newcomer import sha256_of
from framefold.pipeline.archive.verify import Finding

BAGIT, INFO, MANIFEST, TAGS = "bagit.txt", "bag-info.txt", "manifest-sha256.txt", "tagmanifest-sha256.txt"
DECLARATION = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"

_MAX_MANIFEST = 64 * 2**20
_LINE = re.compile("([0-9a-f]{64})  (.+)")
_PLAIN = re.compile(r"[^\x00-\x1f%\\\x7f\ud800-\udfff]+")
"""Names that every program spells alike in a manifest."""


def is_sealed(folder: Path) -> bool:
    """Whether there are tag files, right or wrong."""
    return any(os.path.lexists(folder / name) for name in (BAGIT, MANIFEST, TAGS))


def check_bag(folder: Path) -> tuple[Finding, ...]:
    """Compare a sealed folder with its tag files: F028 for each difference. Nothing for one that is not sealed."""
    if not is_sealed(folder):
        return ()
    try:
        with system(folder):
            return tuple(map(_finding, _differences(folder)))
    except ArchiveError as error:
        if error.code != Code.BAG:
            raise
        return (Finding.of(error),)


def payload_of(folder: Path) -> list[str]:
    """All files below `data`, by names relative to the bag, sorted."""
    return sorted(f"data/{name}" for name in _below(folder / "data"))


def tag_files_of(folder: Path) -> list[str]:
    """All files outside `data` and `open`, but for the list of them."""
    names = (name for name in _below(folder) if name.split("/", 1)[0] not in ("data", "open"))
    return sorted(name for name in names if name != TAGS)


def _below(folder: Path) -> Iterator[str]:
    """Names of all files, relative; F028 for what is no regular file or has a name that manifests spell in two ways."""
    for parent, folders, names in os.walk(folder, onerror=_fail):
        for name in (*folders, *names):
            path = Path(parent, name)
            relative, mode = path.relative_to(folder).as_posix(), path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or not _PLAIN.fullmatch(relative):
                message = f"{relative!r} is no regular file, or its name has control characters, % or backslashes"
                raise ArchiveError(Code.BAG, f"{message}: take it out of the archive", archive=str(folder))
            if stat.S_ISREG(mode):
                yield relative


def _fail(error: OSError) -> None:
    raise error


@contextmanager
def system(folder: Path) -> Iterator[None]:
    """Turn what the system refuses inside into F018."""
    try:
        yield
    except OSError as error:
        raise ArchiveError(Code.IO, f"cannot seal or check the archive: {error}", archive=str(folder)) from error


def _differences(folder: Path) -> Iterator[str]:
    if not (folder / BAGIT).is_file() or (folder / BAGIT).read_bytes() != DECLARATION:
        yield f"{BAGIT} is missing or does not declare a bag of version 1.0 in UTF-8"
    yield from _compared(folder, TAGS, tag_files_of(folder))
    payload = payload_of(folder)
    yield from _compared(folder, MANIFEST, payload)
    yield from _oxum_differences(folder, payload)


def _compared(folder: Path, manifest: str, names: list[str]) -> Iterator[str]:
    try:
        listed = _read_manifest(folder / manifest)
    except (OSError, ValueError) as error:
        yield f"{manifest} cannot be read: {error}"
        return
    for name in sorted(listed.keys() - set(names)):
        yield f"{manifest} lists {name!r:.200}, which is not there"
    for name in names:
        if name not in listed:
            yield f"{name} is not in {manifest}: the archive has grown since it was sealed"
        elif listed[name] != sha256_of(folder / name):
            yield f"{name} has another SHA-256 than {manifest} says"


def _read_manifest(path: Path) -> dict[str, str]:
    if path.stat().st_size > _MAX_MANIFEST:
        raise ValueError(f"more than {_MAX_MANIFEST} bytes")
    *lines, rest = path.read_bytes().decode().split("\n")
    matches = [_LINE.fullmatch(line) for line in lines]
    listed = {match[2]: match[1] for match in matches if match}
    if len(listed) != len(lines) or rest:
        raise ValueError("not one line for each file, of a SHA-256, two spaces and a name")
    return listed


def _oxum_differences(folder: Path, payload: list[str]) -> Iterator[str]:
    path = folder / INFO
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() and path.stat().st_size < 2**20 else ""
    said = re.findall(r"^Payload-Oxum:\s*(\S+)\s*$", text, re.MULTILINE)
    there = f"{sum((folder / name).stat().st_size for name in payload)}.{len(payload)}"
    if said != [there]:
        yield f"{INFO} says Payload-Oxum {' and '.join(said) or 'nowhere'}; {there} is there"


def _finding(message: str) -> Finding:
    return Finding(code=Code.BAG, chunk=None, offset=None, message=message)
