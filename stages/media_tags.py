"""Metadata of a media file: as much of it as may travel with every clip, and all the rest in one attachment."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from framefold.codecs.carried import Carried, Chapter
from framefold.pipeline.errors import RefusedInput

MAX_CHAPTERS = 4096
_MAX_PAIRS, _MAX_TEXT = 256, 4096
_ROOM = 2**17
"""Characters of all texts of one file together, each pair counted with some more."""
_PAIR_COST = 16
_MAX_TICK = 2**53 - 1
_LONGEST = 2**31
"""Seconds."""

Tags = tuple[tuple[str, str], ...]

CONTAINER_ONLY = frozenset(("major_brand", "minor_version", "compatible_brands", "encoder"))
"""Of the file: names of the one that was read, which would be false of another."""
CODING_ONLY = ("encoder", "vendor_id", "duration", "bps", "number_of_", "_statistics_")
"""Beginnings of names that speak of how the original's pictures are coded."""
FILE_ONLY = frozenset(("filename", "mimetype"))


class TagKeeper:
    """Takes names and values from everywhere in a file; nothing is cut off.

    What is too long, too much, or no UTF-8 (then the bytes in hex) is written into one JSON list.
    """

    def __init__(self) -> None:
        self._room = _ROOM
        self._elsewhere: list[dict[str, str]] = []

    def keep(self, place: str, metadata: Mapping[str, str]) -> Tags:
        """Return what fits; `place` says for people whose metadata they are."""
        kept: list[tuple[str, str]] = []
        for name, value in metadata.items():
            pair = (_legible(name), _legible(value))
            cost = sum(map(len, pair)) + _PAIR_COST
            fits = len(kept) < _MAX_PAIRS and max(map(len, pair)) <= _MAX_TEXT and cost <= self._room
            if fits:
                kept.append(pair)
                self._room -= cost
            if not fits or pair != (name, value):
                self.put_elsewhere(place, {name: value})
        return tuple(kept)

    def put_elsewhere(self, place: str, metadata: Mapping[str, str]) -> None:
        """Keep what has no other place."""
        for name, value in metadata.items():
            self._elsewhere.append({"of": place, **_spelled("name", name), **_spelled("value", value)})

    def text(self, place: str, value: object) -> str:
        """Return a single text, as `keep` does; nothing becomes an empty one."""
        kept = self.keep(place, {"": str(value)}) if value else ()
        return kept[0][1] if kept else ""

    def elsewhere(self) -> bytes | None:
        """Return the JSON list of what did not fit, if there is anything."""
        return json.dumps(self._elsewhere, ensure_ascii=False, indent=0).encode() if self._elsewhere else None


def _legible(text: str) -> str:
    """Bytes that are no UTF-8 arrive as lone surrogates, which no JSON holds."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _spelled(key: str, text: str) -> dict[str, str]:
    raw = text.encode("utf-8", "surrogateescape")
    return {key: text} if _legible(text) == text else {f"{key}_hex": raw.hex()}


def chapters_of(entries: Sequence[Mapping[str, Any]], tags: TagKeeper) -> tuple[Chapter, ...]:
    """Describe what PyAV calls chapters; RefusedInput if they are too many."""
    if len(entries) > MAX_CHAPTERS:
        raise RefusedInput(f"{len(entries)} chapters; at most {MAX_CHAPTERS} (MAX_CHAPTERS) are allowed")
    chapters = (_chapter(number, entry, tags) for number, entry in enumerate(entries))
    return tuple(chapter for chapter in chapters if chapter)


def _chapter(number: int, entry: Mapping[str, Any], tags: TagKeeper) -> Chapter | None:
    base = entry["time_base"]
    if not base or base <= 0 or max(abs(entry["start"]), abs(entry["end"])) > _MAX_TICK:
        tags.put_elsewhere(f"chapter {number}", {**entry["metadata"], "start": str(entry["start"])})
        return None
    return Chapter(
        start=entry["start"],
        end=entry["end"],
        time_base=(base.numerator, base.denominator),
        metadata=tags.keep(f"chapter {number}", entry["metadata"]),
    )


def chapters_for(chapters: Sequence[Chapter]) -> list[dict[str, Any]]:
    """Return chapters as PyAV takes them, but those that no container does."""
    return [
        {
            "id": number,
            "start": chapter.start,
            "end": chapter.end,
            "time_base": Fraction(*chapter.time_base),
            "metadata": dict(chapter.metadata),
        }
        for number, chapter in enumerate(filter(_is_sound, chapters), start=1)
    ]


def _is_sound(chapter: Chapter) -> bool:
    fine_enough = max(chapter.time_base) < 2**31
    return fine_enough and 0 <= chapter.start <= chapter.end and chapter.end * Fraction(*chapter.time_base) < _LONGEST


def container_tags(carried: Carried) -> dict[str, str]:
    """Return the metadata that a new container of the same content should have."""
    return {name: value for name, value in carried.metadata if name.casefold() not in CONTAINER_ONLY}


def picture_tags(carried: Carried) -> dict[str, str]:
    """Return the metadata that a new coding of the same pictures should have."""
    return titled(pair for pair in carried.track_metadata if not pair[0].casefold().startswith(CODING_ONLY))


def titled(tags: Iterator[tuple[str, str]] | Tags) -> dict[str, str]:
    """Return a track's metadata; MP4 calls a track's title its name."""
    given = {name: value for name, value in tags if name not in FILE_ONLY}
    if "name" in given and "title" not in given:
        given["title"] = given.pop("name")
    return given
