"""From what a network draws to the samples that a picture stores: the one place where the two meet.

A network draws every channel at full size. Where pixels share a chroma sample, the sample is the mean of what was drawn
at them. Nothing else knows of subsampling: fits, sensitivity and decoding see stored samples, each once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from framefold.codecs.clip import Frames
from framefold.codecs.pixel_format import PixelFormat, Plane

AtSomePixels = tuple[slice, slice]
"""Rows and columns of a lattice, which sees no whole cells of chroma."""


def on_device(frames: Frames, device: torch.device | str = "cpu") -> Tensor:
    """Give frames as a tensor that every device can index: uint8, or int32 for uint16."""
    # A clip from shared memory is read-only, which torch cannot express: it gets its own copy.
    return torch.from_numpy(np.array(frames, dtype=np.uint8 if frames.dtype == np.uint8 else np.int32)).to(device)


def stored_of(drawn: Tensor, pixels: PixelFormat, *, is_lattice: bool = False) -> list[Tensor]:
    """Part drawn pictures (B, C, H, W) into their planes' samples; those of a lattice stay as they were drawn."""
    parts = [drawn[:, plane.channels] for plane in pixels.planes]
    return parts if is_lattice else [_mean(*pair) for pair in zip(parts, pixels.planes, strict=True)]


def _mean(drawn: Tensor, plane: Plane) -> Tensor:
    """Mean over the cells; those at the lower and right border may be smaller."""
    if plane.rows == plane.columns == 1:
        return drawn
    return functional.avg_pool2d(drawn, (plane.rows, plane.columns), ceil_mode=True)


def targets_of(
    frames: Tensor, indices: Tensor, pixels: PixelFormat, lattice: AtSomePixels | None = None
) -> list[Tensor]:
    """Samples, 0..1, float32, of some of the frames (T, C, H, W): what `stored_of` is compared with."""
    return [
        frames[:, plane.channels, rows, columns][indices].float().div_(pixels.peak)
        for plane in pixels.planes
        for rows, columns in [lattice or (slice(None, None, plane.rows), slice(None, None, plane.columns))]
    ]


def drawn_frames(drawn: Tensor, pixels: PixelFormat) -> Frames:
    """Round drawn pictures (B, C, H, W), about 0..1, to what is stored; give it as frames (B, C, H, W)."""
    planes = [_levels(samples, pixels) for samples in stored_of(drawn.float(), pixels)]
    return planes[0] if len(planes) == 1 else pixels.spread(planes, *drawn.shape[2:])


def _levels(samples: Tensor, pixels: PixelFormat) -> Frames:
    levels = samples.mul(pixels.peak).round_().clamp_(0, pixels.peak)
    levels = levels.to(torch.uint8 if pixels.depth == 8 else torch.int32)
    array: Frames = levels.cpu().numpy().astype(pixels.dtype, copy=False)
    return array


def weighed(parts: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """Mean over all stored samples of what was found plane by plane; a single plane's is given back as it is."""
    if len(parts) == 1:
        return parts[0]
    return torch.stack([share * part for share, part in zip(shares, parts, strict=True)]).sum()
