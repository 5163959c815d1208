"""Which of an archive's sources is meant by a name or a number."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from framefold.pipeline.archive.contents import SourceEntry
from framefold.pipeline.archive.errors import ArchiveError, Code


def chosen_source(sources: Sequence[SourceEntry], wanted: str | int) -> SourceEntry:
    """The one source of this name or, if none is called so, of this number; F017 says what there is instead."""
    named = [source for source in sources if source.name == wanted]
    if len(named) > 1:
        numbers = ", ".join(str(source.number) for source in named)
        raise ArchiveError(Code.NO_SUCH, f"{len(named)} sources are called {wanted!r}; give one's number: {numbers}")
    number = int(wanted) if str(wanted).isascii() and str(wanted).isdigit() and len(str(wanted)) < 10 else -1
    if not named and 0 <= number < len(sources):
        return sources[number]
    if not named:
        raise ArchiveError(Code.NO_SUCH, f"there is no source {wanted!r:.80}; {_instead(sources, str(wanted))}")
    return named[0]


def _instead(sources: Sequence[SourceEntry], wanted: str) -> str:
    names = [source.name for source in sources]
    near = difflib.get_close_matches(wanted, names[:1000], n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    shown = ", ".join(f"{number} {name!r}" for number, name in enumerate(names[:5]))
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{hint}there {'are' if names else 'is none'} {shown}{more}".rstrip()
