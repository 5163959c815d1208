"""What a damaged file does not give back any more, in the words of its user: frames, times and names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any

from framefold.pipeline.archive.documents import Document
from framefold.pipeline.archive.records import (
    ATTACHMENT,
    CODEC,
    MANIFEST,
    PACK,
    PACKETS,
    QUALITY,
    SOURCE,
    TABLE,
    UNIT,
    ChunkHeader,
    IndexEntry,
    chunk_id,
)

WHAT = {
    UNIT: "frames",
    PACK: "pictures",
    TABLE: "pictures",
    PACKETS: "packets",
    ATTACHMENT: "attachment",
    SOURCE: "source",
    CODEC: "codec",
    QUALITY: "measurement",
    MANIFEST: "manifest",
}


@dataclass(frozen=True, kw_only=True)
class Loss:
    """One thing that is lost."""

    what: str
    """`frames`, `pictures`, `packets`, `attachment`, `source`, `codec`, `measurement`, `manifest`, `shard`, `end` of
    the file, or `unknown`."""
    why: str
    chunk: str | None = None
    """Id in the damaged file; `?000005` if the type is lost too."""
    source: str | None = None
    """Name of the original, if it is known."""
    first_frame: int | None = None
    items: int | None = None
    """Frames, pictures or packets."""
    start_seconds: float | None = None
    end_seconds: float | None = None
    key: str | None = field(default=None, repr=False)
    """Of the unit: it may be whole in another file."""

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {name: value for name, value in asdict(self).items() if name != "key"}

    def __str__(self) -> str:
        count = f"{self.items} " if self.items is not None and self.first_frame is None else ""
        parts = ["picture" if count == "1 " and self.what == "pictures" else f"{count}{self.what}"]
        if self.first_frame is not None and self.items is not None:
            parts.append(f"{self.first_frame}-{self.first_frame + self.items - 1}")
        if self.source is not None:
            parts.append(_safe(self.source) if parts == ["picture"] else f"of {_safe(self.source)}")
        if self.start_seconds is not None or self.end_seconds is not None:
            start, end = (_clock(second) for second in (self.start_seconds, self.end_seconds))
            parts.append(f"from {start} to {end}")
        return f"{' '.join(parts)}{f' ({self.chunk})' if self.chunk else ''}: {self.why}"


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Consecutive frames of a source that are there."""

    first_frame: int
    frames: int
    t0: int
    duration: int
    """Ticks."""


class Sources:
    """What is known of the originals, by their numbers in the damaged file."""

    def __init__(self) -> None:
        self.documents: dict[int, Document] = {}

    def name(self, number: int) -> str | None:
        """File name."""
        name = self.documents.get(number, {}).get("name")
        return name if isinstance(name, str) else None

    def is_image(self, number: int) -> bool:
        """Whether it is a single picture, which has neither frames nor times."""
        return self.documents.get(number, {}).get("kind") == "image"

    def seconds(self, number: int, ticks: int, track: int | None = None) -> float | None:
        """A time of the source's own clock, or one of its tracks', in seconds."""
        document: Any = self.documents.get(number, {})
        if track is not None:
            tracks = document.get("tracks")
            document = tracks[track] if isinstance(tracks, list) and track < len(tracks) else {}
        base = document.get("time_base") if isinstance(document, Mapping) else None
        if not isinstance(base, list) or len(base) != 2 or not all(type(part) is int and part > 0 for part in base):
            return None
        return float(ticks * Fraction(*base))


def loss_of(
    about: IndexEntry | ChunkHeader | None,
    number: int,
    sources: Sources,
    why: str,
    *,
    key: str | None = None,
    first_item: int | None = None,
) -> Loss:
    """Describe a chunk that is lost by what is left of its description; `first_item` if that does not tell it."""
    if about is None:
        return Loss(what="unknown", chunk=f"?{number:06d}", why=why)
    name = chunk_id(about.kind, number)
    if about.kind not in (UNIT, PACKETS):
        items = about.items if about.kind == PACK else None
        return Loss(what=WHAT.get(about.kind, "unknown"), chunk=name, why=why, items=items)
    if about.kind == UNIT and sources.is_image(about.stream):
        return Loss(what="pictures", chunk=name, why=why, source=sources.name(about.stream), items=1, key=key)
    item = about.first_item if isinstance(about, IndexEntry) else first_item
    track = item if about.kind == PACKETS else None
    is_timed = about.kind == UNIT or track is not None
    times = (about.t0, about.t0 + about.duration)
    start, end = (sources.seconds(about.stream, time, track) if is_timed else None for time in times)
    return Loss(
        what=WHAT[about.kind],
        chunk=name,
        why=why,
        source=sources.name(about.stream),
        first_frame=item if about.kind == UNIT else None,
        items=about.items,
        start_seconds=start,
        end_seconds=end,
        key=key,
    )


def gaps(found: Mapping[int, Sequence[Stretch]], sources: Sources) -> Iterator[Loss]:
    """Frames of each source before and between those that are there: what is lost must be among them."""
    for number, stretches in found.items():
        if sources.is_image(number):
            continue
        frame, end = 0, None
        for one in sorted(stretches, key=lambda one: one.first_frame):
            if one.first_frame > frame:
                yield Loss(
                    what="frames",
                    why="no chunk with them was found",
                    source=sources.name(number),
                    first_frame=frame,
                    items=one.first_frame - frame,
                    start_seconds=end,
                    end_seconds=sources.seconds(number, one.t0),
                )
            frame, end = max(frame, one.first_frame + one.frames), sources.seconds(number, one.t0 + one.duration)


def _clock(seconds: float | None) -> str:
    return "?" if seconds is None else f"{seconds:.3f} s"


def _safe(text: str) -> str:
    """Rid a stranger's text of the control characters that would steer a terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
