"""grayscale: colour becomes luma."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from framefold.codecs.clip import Clip
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Options, Output, PortType, Stage

LUMA: Mapping[str, tuple[float, float, float]] = {
    "bt601": (0.299, 0.587, 0.114),
    "bt709": (0.2126, 0.7152, 0.0722),
}
"""Weights of R, G and B in luma; they add up to 1, so grey stays as it is."""


class GrayscaleConfig(Options, frozen=True):
    """Options of `grayscale`."""

    matrix: Literal["bt601", "bt709"] = Field(default="bt709", description="whose weights of R, G and B")


class Grayscale(Stage):
    """Replace the three channels of every frame by its luma.

    Of YUV that is Y alone, and U and V become colourless; `matrix` then says nothing.
    """

    Config = GrayscaleConfig
    config: GrayscaleConfig
    accepts: ClassVar[PortType | None] = Clip
    emits: ClassVar[Mapping[str, PortType]] = {"out": Clip}

    def process(self, item: Item) -> Iterator[Output]:
        """One clip of the same span for each clip."""
        clip: Clip = item.payload
        frames = clip.frames.copy()
        if clip.pixels.model == "yuv":
            frames[:, 1:3] = (clip.pixels.peak + 1) // 2
        elif clip.pixels.model == "rgb":
            weights = np.array(LUMA[self.config.matrix], np.float32)
            luma = np.einsum("tchw,c->thw", clip.frames[:, :3], weights)  # (T, H, W), 0..peak
            frames[:, :3] = np.rint(luma)[:, None]
        yield replace(clip, frames=frames)
