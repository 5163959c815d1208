"""What `archive_sink` says of a unit and of the whole archive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, Self

from pydantic import BaseModel, Field, ValidationError

from framefold.codecs.clip import Source, Span
from framefold.codecs.rest import Attachment, Packets


class Quality(BaseModel, frozen=True, extra="forbid", strict=True, allow_inf_nan=False):
    """What is stored of a unit's measurement."""

    psnr_db: float = Field(ge=0, le=100)
    ms_ssim: float = Field(ge=-1, le=1)
    frames_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    frames_levels: str = Field(pattern="^([0-9a-f]{8}){1,4}$")
    encode_seconds: float = Field(ge=0)

    @classmethod
    def known(cls, document: Any) -> Self | None:
        """A document from a file that anybody may have made; None if it is not what is stored here."""
        try:
            return cls.model_validate(document)
        except ValidationError:
            return None


def columns(span: Span, size: int, quality: Quality | None) -> dict[str, Any]:
    """The columns that a clip and the whole archive share."""
    frames, _, height, width = span.shape
    return {
        "frames": frames,
        "psnr_db": quality.psnr_db if quality else None,
        "bytes": size,
        "bits_per_pixel": round(8 * size / (frames * height * width), 5),
    }


class Totals:
    """Sums over the archive."""

    def __init__(self) -> None:
        self.frames = self._pixels = 0
        self._psnr: list[tuple[int, float]] = []
        self._kinds: set[str] = set()
        self._sources: dict[str, Source] = {}
        self._rest: set[str] = set()
        """Attachments, and tracks as `name:position`, that came."""
        self.rest_bytes = 0
        self.base_bytes = 0
        """Of networks that units build on, with their chunks' headers."""

    def add(self, span: Span, quality: Quality | None) -> None:
        """Count one unit."""
        self.frames += span.frame_count
        self._pixels += span.frame_count * span.source.width * span.source.height
        self._kinds.add(span.source.kind)
        self._sources[span.source.name] = span.source
        if quality:
            self._psnr.append((span.frame_count, quality.psnr_db))

    def add_rest(self, rest: Attachment | Packets) -> None:
        """Count what is carried beside the pictures."""
        self._rest.add(rest.sha256 if isinstance(rest, Attachment) else _track(rest.source, rest.track))
        self.rest_bytes += rest.nbytes

    def columns(self, size: int) -> dict[str, Any]:
        """PSNR is the mean over all frames; bytes are those on disk, beside those of the originals' whole files."""
        measured = sum(frames for frames, _ in self._psnr)
        mean = sum(frames * value for frames, value in self._psnr) / measured if measured else None
        return {
            "frames": self.frames,
            "psnr_db": mean and round(mean, 4),
            "bytes": size,
            "bits_per_pixel": round(8 * size / self._pixels, 5),
            "original_bytes": sum(source.size_bytes for source in self._sources.values()),
        }

    def left_out(self) -> Iterator[str]:
        """Name what the originals hold, as far as it is known, and what did not come."""
        for source in self._sources.values():
            carried = source.carried
            lacking = (one for place, one in enumerate(carried.tracks) if self._lacks(source, place))
            tracks = (f"{one.kind} track {one.index}" for one in lacking)
            others = (f"{one.kind} {one.name}".strip() for one in carried.attachments if one.sha256 not in self._rest)
            missing = [*tracks, *others]
            if missing:
                yield f"{source.name}: {', '.join(missing)}"

    def _lacks(self, source: Source, place: int) -> bool:
        return bool(source.carried.tracks[place].packets) and _track(source, place) not in self._rest

    def example_output(self, archive: str) -> PurePath:
        """A fitting output for `pipeline decode`."""
        name = PurePath(archive.rstrip("/"))
        return name.with_suffix(".mp4") if self._kinds == {"video"} else name.with_suffix("")


def _track(source: Source, place: int) -> str:
    return f"{source.name}:{place}"
