"""What a check found, and the sentences it is told in: got, allowed, the nearest name, the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

KeyPath = tuple[str | int, ...]
"""Keys and indices from the top of a document down to one value."""

SHOWN_CHARACTERS = 60
LISTED_NAMES = 50


@dataclass(frozen=True)
class Finding:
    """One mistake, not yet tied to a line of a file."""

    path: KeyPath
    message: str
    at_key: bool = False
    """Point at the key rather than at its value: the key itself is wrong."""
    option_of: tuple[str, ...] = ()
    """Of an option that stages share: the nodes that have it and find fault with it."""

    def under(self, *parent: str | int) -> Finding:
        """Return the same finding, its path seen from further up."""
        return replace(self, path=(*parent, *self.path))


def dotted(path: KeyPath) -> str:
    """`stages.fitted.inputs.0`: the same spelling that `--set` understands."""
    return ".".join(map(str, path))


def shown(value: Any) -> str:
    """Return a value as it would stand in YAML, cut short; containers are only named."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case dict():
            return "a mapping"
        case list():
            return "a list"
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"


def listed(names: Collection[str], *, last: str = "and") -> str:
    """Return `a, b and c`, or `none`; long lists are cut."""
    *first, final = list(names) or ["none"]
    if len(first) > LISTED_NAMES:
        first, final = first[:LISTED_NAMES], f"{len(first) + 1 - LISTED_NAMES} more"
    return f"{', '.join(first)} {last} {final}" if first else final


def nearest(name: str, known: Collection[str]) -> str | None:
    """Return the known name that was probably meant."""
    by_folded = {other.casefold(): other for other in known}
    close = difflib.get_close_matches(name.casefold(), by_folded, n=1)
    return by_folded[close[0]] if close else None


def did_you_mean(name: str, known: Collection[str]) -> str:
    """`, did you mean 'x'?` or nothing."""
    guess = nearest(name, known)
    return f", did you mean {guess!r}?" if guess is not None else ""


def unknown(kind: str, name: str, known: Sequence[str]) -> str:
    """`unknown stage 'segmnt', did you mean 'segment'? Known: …`."""
    guess = did_you_mean(name, known)
    return f"unknown {kind} {shown(name)}{guess or ';'} known: {listed(sorted(known))}"
