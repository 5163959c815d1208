"""The pictures that travel: where they come from (`Source`), which of them (`Span`), and their pixels.

`Source` and `Span` are written into archives, so a reader validates them field by field and a stranger's
file cannot smuggle in a size or a time base that later code would trip over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, Field, model_validator

from framefold.codecs.carried import Carried
from framefold.codecs.pixel_format import RGB, PixelFormat, Samples

Frames = Samples
"""(T, C, H, W) or (C, H, W), 0..peak of the format: see `pixel_format`."""

MAX_SIDE = 32_768
MAX_PIXELS = 2**28
MAX_TICK = 2**53 - 1  # what JSON can carry exactly

_Ticks = Annotated[int, Field(ge=-MAX_TICK, le=MAX_TICK)]
_Rational = tuple[Annotated[int, Field(ge=1, le=MAX_TICK)], Annotated[int, Field(ge=1, le=MAX_TICK)]]


class ColorTags(BaseModel, frozen=True):
    """Colour description of the original, as code points of ISO/IEC 23091-2; 2 and 0 mean unspecified."""

    primaries: int = Field(default=2, ge=0, le=255)
    transfer: int = Field(default=2, ge=0, le=255)
    matrix: int = Field(default=2, ge=0, le=255)
    range: int = Field(default=0, ge=0, le=2, description="0 unspecified, 1 limited, 2 full")


class Source(BaseModel, frozen=True):
    """One original file: what must be known to give it back under its name and size."""

    name: str = Field(min_length=1, max_length=1024, description="file name; folders before it where names repeat")
    kind: Literal["video", "image"]
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="of the original file's bytes")
    size_bytes: int = Field(ge=0, le=MAX_TICK)
    width: int = Field(ge=1, le=MAX_SIDE, description="pixels, as displayed before rotation")
    height: int = Field(ge=1, le=MAX_SIDE)
    time_base: _Rational = Field(default=(1, 1), description="seconds per tick as numerator, denominator")
    frame_rate: _Rational | None = Field(default=None, description="nominal frames per second, if known")
    color: ColorTags = ColorTags()
    carried: Carried = Carried()
    pixels: PixelFormat = Field(default=RGB, exclude_if=lambda pixels: pixels == RGB, description="of coded frames")

    def __setstate__(self, state: dict[Any, Any]) -> None:
        state["__dict__"].setdefault("pixels", RGB)  # pickled when there was but one format
        super().__setstate__(state)

    @model_validator(mode="after")
    def _bounded_area(self) -> Self:
        if self.width * self.height > MAX_PIXELS:
            raise ValueError(f"{self.width}x{self.height} is more than {MAX_PIXELS} pixels")
        return self


class Span(BaseModel, frozen=True):
    """Consecutive frames of one source: the frames `first_frame ... first_frame + len(pts) - 1`."""

    source: Source
    first_frame: int = Field(default=0, ge=0, le=MAX_TICK)
    pts: tuple[_Ticks, ...] = Field(min_length=1, max_length=65_536, description="presentation times, in ticks")
    duration_ticks: int = Field(default=1, ge=0, le=MAX_TICK, description="how long the last frame stands")

    @property
    def frame_count(self) -> int:
        """How many frames the span covers."""
        return len(self.pts)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(T, C, H, W) of the frames that the span describes."""
        return (len(self.pts), self.source.pixels.channels, self.source.height, self.source.width)

    @property
    def label(self) -> str:
        """The span's name for people: `bunny.mp4[0:24]`, or just the name of a still picture."""
        if self.source.kind == "image":
            return self.source.name
        return f"{self.source.name}[{self.first_frame}:{self.first_frame + len(self.pts)}]"

    def part(self, start: int, stop: int) -> Span:
        """The frames `start ... stop - 1` of this span (counted from its own beginning)."""
        last = self.pts[stop] - self.pts[stop - 1] if stop < len(self.pts) else self.duration_ticks
        return Span(
            source=self.source,
            first_frame=self.first_frame + start,
            pts=self.pts[start:stop],
            duration_ticks=max(last, 0),
        )


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Consecutive frames coded together; a still picture is a clip of one frame."""

    span: Span
    frames: Frames = field(repr=False)
    """(T, C, H, W), uint8 or, of more than 8 bits, uint16; may be a read-only view of shared memory.

    Every channel has full size: a sample of subsampled chroma stands at each pixel that shares it (`pixel_format`).
    """

    def __post_init__(self) -> None:
        dtype = self.pixels.dtype
        if self.frames.dtype != dtype or self.frames.shape != self.span.shape:
            raise ValueError(
                f"{self.span.label}: frames are {self.frames.dtype} {self.frames.shape}, "
                f"the span says {dtype} {self.span.shape}"
            )

    @property
    def pixels(self) -> PixelFormat:
        """What the channels are."""
        return self.span.source.pixels

    @property
    def nbytes(self) -> int:
        """Bytes of pixels."""
        return self.frames.nbytes

    def part(self, start: int, stop: int) -> Clip:
        """The frames `start ... stop - 1` of this clip, counted from its own beginning; a view, no copy."""
        return Clip(span=self.span.part(start, stop), frames=self.frames[start:stop])


def join(pieces: Sequence[Clip]) -> Clip:
    """Consecutive clips of one source as one; a single one is given back as it is."""
    if len(pieces) == 1:
        return pieces[0]
    span = Span(
        source=pieces[0].span.source,
        first_frame=pieces[0].span.first_frame,
        pts=tuple(pts for piece in pieces for pts in piece.span.pts),
        duration_ticks=pieces[-1].span.duration_ticks,
    )
    return Clip(span=span, frames=np.concatenate([piece.frames for piece in pieces]))


@dataclass(frozen=True, kw_only=True)
class ImageBatch:
    """Pictures without order, each of its own size."""

    pictures: tuple[Clip, ...]
    """One-frame clips whose source is an image."""

    def __post_init__(self) -> None:
        for picture in self.pictures:
            if picture.span.source.kind != "image" or picture.span.frame_count != 1:
                raise ValueError(f"{picture.span.label} is not a single picture; put it into a Clip instead")

    @property
    def label(self) -> str:
        """The first picture's name, and how many more there are."""
        more = f" +{len(self.pictures) - 1}" if len(self.pictures) > 1 else ""
        return f"{self.pictures[0].span.label}{more}" if self.pictures else "no pictures"

    def __iter__(self) -> Iterator[Clip]:
        return iter(self.pictures)

    @property
    def nbytes(self) -> int:
        """Bytes of pixels."""
        return sum(picture.nbytes for picture in self.pictures)
