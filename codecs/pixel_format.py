"""How pictures are stored: what their channels mean, how many bits a sample has, which channels are coarser.

Frames travel as one array (T, C, H, W) with every channel at full size, whatever the format: where several pixels share
a chroma sample, it stands at each of them. So frames are cut, joined and batched in one way, and the stored planes come
back exactly: every so many rows and columns, beginning with the first. What is counted, in losses and in PSNR, is the
stored sample, once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field, model_validator

Samples = npt.NDArray[np.uint8 | np.uint16]

SUBSAMPLINGS = {(1, 1): "444", (1, 2): "422", (2, 2): "420", (2, 1): "440", (1, 4): "411", (4, 4): "410"}
"""(rows, columns) of pixels that share a chroma sample, and what that is called."""


class Plane(NamedTuple):
    """Channels that are stored alike."""

    channels: slice
    rows: int
    """of pixels that share a sample; fewer at the lower border of a picture whose height they do not divide."""
    columns: int


class PixelFormat(BaseModel, frozen=True, extra="forbid"):
    """What the channels of a picture are; by default 8-bit RGB."""

    model: Literal["rgb", "yuv", "gray"] = Field(default="rgb", description="R, G, B; Y, U, V; or grey alone")
    depth: Literal[8, 9, 10, 12, 14, 16] = Field(default=8, description="bits of a sample")
    chroma: tuple[Literal[1, 2, 4], Literal[1, 2, 4]] = Field(
        default=(1, 1), description="rows and columns of pixels that share a sample of U and of V"
    )
    alpha: bool = Field(default=False, description="opacity, as stored, is the last channel")

    @model_validator(mode="after")
    def _known_layout(self) -> Self:
        if self.chroma not in SUBSAMPLINGS or (self.chroma != (1, 1) and self.model != "yuv"):
            raise ValueError(f"{self.model} with chroma {self.chroma}; known, of yuv alone: {[*SUBSAMPLINGS]}")
        if self.alpha and self.model == "gray":
            raise ValueError("gray with alpha; the alpha of a picture is kept apart")
        return self

    @property
    def name(self) -> str:
        """Short, and another one for each format: `rgb`, `gray16`, `yuv420p10`, `yuva444p`."""
        depth = "" if self.depth == 8 else str(self.depth)
        layout = f"{SUBSAMPLINGS[self.chroma]}p" if self.model == "yuv" else ""
        return f"{self.model}{'a' * self.alpha}{layout}{depth}"

    @property
    def channels(self) -> int:
        """Alpha included."""
        return (1 if self.model == "gray" else 3) + self.alpha

    @property
    def dtype(self) -> np.dtype[np.uint8] | np.dtype[np.uint16]:
        """Of the frames."""
        return np.dtype(np.uint8) if self.depth == 8 else np.dtype(np.uint16)

    @property
    def peak(self) -> int:
        """The largest sample."""
        return int(2**self.depth - 1)

    @property
    def planes(self) -> tuple[Plane, ...]:
        """The channels in order, those that are stored alike together."""
        if self.chroma == (1, 1):
            return (Plane(slice(None), 1, 1),)
        own = (Plane(slice(0, 1), 1, 1), Plane(slice(1, 3), *self.chroma))
        return (*own, Plane(slice(3, 4), 1, 1)) if self.alpha else own

    def shares(self, height: int, width: int) -> list[float]:
        """Of each of `planes` its part of a frame's stored samples; they sum up to 1."""
        counts = [
            len(range(self.channels)[plane.channels]) * -(-height // plane.rows) * -(-width // plane.columns)
            for plane in self.planes
        ]
        return [count / math.fsum(counts) for count in counts]

    def stored(self, frames: Samples) -> Iterator[Samples]:
        """Views of (…, C, H, W), one for each of `planes`: every stored sample once."""
        for plane in self.planes:
            yield frames[..., plane.channels, :: plane.rows, :: plane.columns]

    def spread(self, planes: Sequence[Samples], height: int, width: int) -> Samples:
        """Make (…, C, H, W) of what `stored` gives."""
        pairs = zip(planes, self.planes, strict=True)
        return np.concatenate([_repeated(samples, plane, height, width) for samples, plane in pairs], axis=-3)


def _repeated(samples: Samples, plane: Plane, height: int, width: int) -> Samples:
    if plane.rows > 1:
        samples = samples.repeat(plane.rows, -2)[..., :height, :]
    return samples.repeat(plane.columns, -1)[..., :width] if plane.columns > 1 else samples


RGB = PixelFormat()
"""8 bits: what is meant wherever nothing is said."""
RGB_16 = PixelFormat(depth=16)
GRAY, GRAY_16 = PixelFormat(model="gray"), PixelFormat(model="gray", depth=16)
