"""Where a film cuts to another shot: a change far larger than those just before it.

A frame's change is the mean absolute difference of small grey pictures of it and of the frame before. Measured against
the largest of the last few changes, not against a fixed bar: a pan changes much, but evenly. In six films (street
scenes with five cuts, an animated film with one, a traffic camera, a portrait and others: 1,179 frames) the six cuts
stood out by 2.6 to 56 times, every other change as large by at most 1.5.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt

from framefold.codecs.clip import Clip, Frames, Source, Span
from framefold.codecs.pixel_format import RGB, PixelFormat

RATIO = 2.0
"""A cut changes the picture at least this many times as much as any of the frames before it ..."""
LEAST_CHANGE = 8.0
"""... and by so much, in grey levels 0..255: in a picture that stood still anything is many times as much."""
MEMORY, LEAST_MEMORY = 8, 2
"""Changes that are remembered, and that must be before a cut can be told."""
SIDE = 32
"""Height and width of the small pictures, about."""
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green, blue (ITU-R BT.601); of YUV, Y is brightness itself."""

Thumbnails = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class SceneWatch:
    """What is remembered of a film up to some frame; the same however its frames arrive."""

    source: Source | None = None
    frame: int = 0
    """The next frame's number."""
    last: Thumbnails | None = field(default=None, repr=False)
    changes: tuple[float, ...] = ()
    """The latest, at most `MEMORY`."""

    def goes_on(self, span: Span) -> bool:
        """Whether a span begins where the last clip ended."""
        return (span.source, span.first_frame) == (self.source, self.frame)

    def over(self, clip: Clip) -> tuple[tuple[int, ...], Self]:
        """Give the numbers of the frames that begin a scene in a clip, and what to remember after it.

        A clip that does not go on where the last one ended begins without memory.
        """
        goes_on = self.goes_on(clip.span)
        small = thumbnails(clip.frames, clip.pixels)
        before = small[:1] if self.last is None or not goes_on else self.last[None]
        changes = np.abs(np.diff(small, axis=0, prepend=before)).mean(axis=(1, 2)).tolist()
        known, cuts = list(self.changes) if goes_on else [], []
        for number, change in enumerate(changes if goes_on else changes[1:], start=not goes_on):
            if _is_cut(change, known):
                cuts.append(clip.span.first_frame + number)
            known = [*known, change][-MEMORY:]
        after = type(self)(
            source=clip.span.source,
            frame=clip.span.first_frame + clip.span.frame_count,
            last=small[-1],
            changes=tuple(known),
        )
        return tuple(cuts), after


def thumbnails(frames: Frames, pixels: PixelFormat = RGB) -> Thumbnails:
    """Mean brightness of blocks, 0..255: (T, C, H, W) to float32 (T, h, w), h and w about `SIDE` or less."""
    weights = np.array(LUMA if pixels.model == "rgb" else (1,), np.float32) * np.float32(255 / pixels.peak)
    frames = frames[:, : len(weights)]
    _, _, height, width = frames.shape
    down, across = max(1, height // SIDE), max(1, width // SIDE)
    whole = frames[:, :, : height // down * down, : width // across * across]
    blocks = whole.reshape(*whole.shape[:2], height // down, down, width // across, across)
    means = blocks.mean(axis=(3, 5), dtype=np.float32)
    grey: Thumbnails = np.tensordot(weights, means, axes=(0, 1))
    return grey


def _is_cut(change: float, before: list[float]) -> bool:
    return len(before) >= LEAST_MEMORY and change >= max(LEAST_CHANGE, RATIO * max(before))
