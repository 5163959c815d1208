"""mean_image: a clip as one small grid of colours, stretched over the frame.

About the smallest codec there can be, and a whole one: fitted, pruned, quantized, coded and decoded like any
other. What moves is lost; a still shot survives as a blurred picture.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from framefold.codecs.base import Codec, CodecConfig, FitProgress, FitSettings, Fitting, Masks
from framefold.codecs.clip import Clip, Span
from framefold.codecs.network import FittedNetwork
from framefold.codecs.stored_samples import drawn_frames

GRID = "grid"
"""Name of the only tensor."""
FINETUNE_STEPS = 50

Matrix = npt.NDArray[np.float64]


class MeanImageConfig(CodecConfig, frozen=True):
    """Options of `mean_image`; with the frame's size they say all that a decoder needs."""

    pixels_per_cell: int = Field(default=8, ge=2, le=256, description="side of the square that one grid cell covers")


class MeanImage(Codec):
    """One grid per clip: the same picture for all its frames.

    ```
    grid (C, h, w)                        h = ceil(H / pixels_per_cell), w likewise; about 0..1
      | rows @ grid @ columns.T           bilinear, (H, h) and (W, w)
    picture (C, H, W)                     shown T times
    ```
    The picture nearest to all frames at once is the one nearest to their mean. `rows` and `columns` have full
    rank, so their pseudo-inverses give the grid of least squared error without any training.
    """

    name: ClassVar[str] = "mean_image"
    Config = MeanImageConfig
    config: MeanImageConfig

    def fit(self, clip: Clip, settings: FitSettings) -> Fitting:
        """Solve for the grid; there is nothing to spend a budget on."""
        rows, columns = self._stretch(clip.span)
        grid = np.linalg.pinv(rows) @ mean_picture(clip) @ np.linalg.pinv(columns).T
        yield FitProgress(fraction=1.0, step=1)
        return self._network(clip, grid)

    def finetune(self, network: FittedNetwork, masks: Masks, settings: FitSettings) -> Fitting:
        """Gradient descent on the cells that the mask leaves, in steps short enough never to overshoot."""
        if network.target is None:
            raise ValueError(f"{network.span.label}: fine-tuning needs the pixels the network was fitted to")
        rows, columns = self._stretch(network.span)
        mean, mask = mean_picture(network.target), masks[GRID]
        grid = np.where(mask, network.tensors[GRID], 0.0)
        rate = float((np.linalg.norm(rows, 2) * np.linalg.norm(columns, 2)) ** -2)
        steps = settings.steps or FINETUNE_STEPS
        for step in range(steps):
            error = rows @ grid @ columns.T - mean
            grid -= rate * mask * (rows.T @ error @ columns)
            yield FitProgress(fraction=(step + 1) / steps, step=step + 1)
        return self._network(network.target, grid)

    def reconstruct(self, network: FittedNetwork, *, device: str = "cpu") -> Clip:
        """The picture, as often as the clip has frames. ValueError for tensors that are not this codec's."""
        rows, columns = self._stretch(network.span)
        expected = {GRID: (network.span.shape[1], rows.shape[1], columns.shape[1])}
        if (found := {name: tensor.shape for name, tensor in network.tensors.items()}) != expected:
            raise ValueError(f"{network.span.label}: {self.name} stores {expected}, the network has {found}")
        picture = rows @ network.tensors[GRID] @ columns.T
        frame = drawn_frames(torch.from_numpy(picture)[None], network.span.source.pixels)
        return Clip(span=network.span, frames=np.broadcast_to(frame, network.span.shape))

    def _stretch(self, span: Span) -> tuple[Matrix, Matrix]:
        cell = self.config.pixels_per_cell
        return bilinear(span.source.height, cell), bilinear(span.source.width, cell)

    def _network(self, clip: Clip, grid: Matrix) -> FittedNetwork:
        config = self.config.model_dump(mode="json")
        tensors = {GRID: grid.astype(np.float32)}
        return FittedNetwork(span=clip.span, codec=self.name, config=config, tensors=tensors, target=clip)


def mean_picture(clip: Clip) -> Matrix:
    """The mean of the clip's frames, float64 (C, H, W), 0..1."""
    mean: Matrix = clip.frames.mean(axis=0, dtype=np.float64)
    return mean / clip.pixels.peak


def bilinear(pixels: int, pixels_per_cell: int) -> Matrix:
    """The matrix (pixels, cells) that stretches cells over pixels, centre to centre; rows add up to 1."""
    cells = math.ceil(pixels / pixels_per_cell)
    places = np.clip((np.arange(pixels) + 0.5) * cells / pixels - 0.5, 0, cells - 1)
    return np.maximum(0.0, 1.0 - np.abs(places[:, None] - np.arange(cells)))
