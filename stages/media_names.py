"""Names that may be written to disk: an archive's names are a stranger's, so each is checked before use.

The rules are those of OCFL 1.1 for logical paths and what Windows forbids, so that an archive made on one
machine can be exported on every other. Sources apply them too: a file whose name could not be given back is
refused when it comes in, not years later when it should go out.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from framefold.pipeline.errors import FramefoldError

MAX_NAME_BYTES = 255
"""Of one component, encoded as UTF-8: the limit of ext4, XFS, APFS and NTFS."""

_RESERVED = re.compile(r"^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?$", re.IGNORECASE)
_DRIVE = re.compile(r"^[A-Za-z]:")


def name_problem(name: str) -> str | None:
    """Say what keeps `name` ("a.png", "holiday/a.png") from being written under a folder; None if nothing."""
    if not name.isprintable():
        return "it holds a control character or one that UTF-8 cannot carry"
    if "\\" in name:
        return "it holds a backslash"
    if name.startswith("/") or _DRIVE.match(name):
        return "it is an absolute path"
    return next((problem for part in name.split("/") if (problem := _part_problem(part))), None)


def _part_problem(part: str) -> str | None:
    if part in ("", ".", ".."):
        return f"its part {part!r} does not name anything beneath the folder"
    if len(part.encode()) > MAX_NAME_BYTES:
        return f"its part {part[:20]!r}... is longer than {MAX_NAME_BYTES} bytes"
    if _RESERVED.match(part):
        return f"{part!r} is a reserved device name on Windows"
    if part.endswith((".", " ")):
        return f"{part!r} ends in a dot or a blank, which Windows drops"
    return None


def beneath(folder: Path, name: str) -> Path:
    """Where `name` lies under `folder`; FramefoldError if it would lie anywhere else."""
    problem = name_problem(name)
    if problem:
        raise FramefoldError(
            f"the name {name!r} is not written to disk: {problem}; "
            "allowed are relative names with '/' between their parts"
        )
    return folder.joinpath(*name.split("/"))


def picture_names(names: list[str]) -> list[str]:
    """Return the names under which pictures are written as PNG, in the same order, all different.

    `a.png` stays; `a.jpg` becomes `a.png`, or `a.jpg.png` where that would meet another picture. Compared
    without regard to case, as on macOS and Windows. A name that comes twice gets a number: `a-2.png`.
    """
    short = [name if _is_png(name) else _stem(name) + ".png" for name in names]
    wanted = Counter(name.casefold() for name in short)
    taken: set[str] = set()
    result = [""] * len(names)
    for index in sorted(range(len(names)), key=lambda i: not _is_png(names[i])):  # PNG names choose first: they stay
        alone = _is_png(names[index]) or wanted[short[index].casefold()] == 1
        result[index] = _free(short[index] if alone else names[index] + ".png", taken)
        taken.add(result[index].casefold())
    return result


def _free(name: str, taken: set[str]) -> str:
    candidate, number = name, 1
    while candidate.casefold() in taken:
        number += 1
        candidate = f"{_stem(name)}-{number}.png"
    return candidate


def _is_png(name: str) -> bool:
    return name.casefold().endswith(".png")


def _stem(name: str) -> str:
    folder, slash, last = name.rpartition("/")
    return folder + slash + (last.rpartition(".")[0] or last)
