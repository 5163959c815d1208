"""What a file system knows of an original beside its bytes: its name, which may be no text, and when it was changed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import BufferedReader
from pathlib import Path

from framefold.codecs.clip import Source
from framefold.stages.media_files import MediaFile
from framefold.stages.media_names import beneath

_UNDECODABLE = re.compile("[\udc80-\udcff]")
"""What Python makes of bytes of a name that are no UTF-8."""
_SECOND = 10**9
_MAX_SECONDS = 10**12


def legible(name: str) -> str:
    """Return a name that UTF-8 can carry: of one that it cannot, each odd byte is shown as %E9, and each % as %25."""
    if not _UNDECODABLE.search(name):
        return name
    escaped = name.replace("%", "%25")
    return _UNDECODABLE.sub(lambda odd: f"%{ord(odd[0]) & 0xFF:02X}", escaped)


def name_bytes(name: str) -> str | None:
    """Return the name's own bytes in hex, for `Carried.name_bytes`, if they are no UTF-8; else None."""
    return os.fsencode(name).hex() if _UNDECODABLE.search(name) else None


def with_legible_names(files: Sequence[MediaFile]) -> Iterator[tuple[MediaFile, str | None]]:
    """Yield each file under a legible name, different from all others, with its `name_bytes`."""
    taken = {media.name for media in files}
    for media in files:
        raw = name_bytes(media.name)
        name = media.name if raw is None else _free(legible(media.name), taken)
        taken.add(name)
        yield replace(media, name=name), raw


def _free(name: str, taken: set[str]) -> str:
    candidates = (name, *(f"{name}-{number}" for number in range(2, len(taken) + 3)))
    return next(each for each in candidates if each not in taken)


def original_name(source: Source) -> str:
    """Return the name to write an original under, odd bytes and all; FramefoldError if it must not be written."""
    raw = source.carried.name_bytes
    name = source.name if raw is None else os.fsdecode(bytes.fromhex(raw))
    place_beneath(Path(), name)
    return name


def place_beneath(folder: Path, name: str) -> Path:
    """Where a name, odd bytes and all, lies under `folder`; FramefoldError if it would lie anywhere else."""
    beneath(folder, legible(name))
    return folder.joinpath(*name.split("/"))


def modified(file: BufferedReader) -> str | None:
    """Time of the last change of an open file as text, for `Carried.modified`; None if it is beyond all reason."""
    nanoseconds = os.fstat(file.fileno()).st_mtime_ns
    seconds, fraction = divmod(abs(nanoseconds), _SECOND)
    sign = "-" if nanoseconds < 0 else ""
    return f"{sign}{seconds}.{fraction:09d}" if seconds < _MAX_SECONDS else None


def restore_modified(path: Path, source: Source) -> str | None:
    """Give a written file its original's time of the last change, if that is known; say what was in the way."""
    text = source.carried.modified
    if text is None:
        return None
    nanoseconds = int(text.replace(".", ""))
    try:
        os.utime(path, ns=(nanoseconds, nanoseconds))
    except (OSError, OverflowError) as error:
        return f"its time {text}: {error}"
    return None
