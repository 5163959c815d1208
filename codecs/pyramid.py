"""Pyramid: a clip as feature grids at every resolution and frame rate, most of them all but empty, and a small decoder.

The latents are those of Cool-Chic and C3 (Kim, Bauer, Theis, Schwarz, Dupont: C3: High-Performance and Low-Complexity
Neural Compression from a Single Image or Video, CVPR 2024, sections 3.1 and 3.3), the way they meet the picture is
nearer to HiNeRV's (Kwan, Gao, Zhang, Gower, Bull, NeurIPS 2023, section 3.2). See `Pyramid` for what differs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from framefold.codecs.base import CodecConfig, FitSettings, RateSettings, RateTuning
from framefold.codecs.blocks import TimeGrid
from framefold.codecs.clip import Clip, Span
from framefold.codecs.fitting import FitPlan
from framefold.codecs.gridnerv import Grid
from framefold.codecs.inr import NetworkCodec, Shape
from framefold.codecs.rate.rate_first import RateFirstFit

SHORT_SIDE = 13
"""Height of the coarsest grid that the levels aim at."""
SCALES = {"S": 1.0, "M": 1.5, "L": 2.0}
"""Widths of the decoder, relative to S."""
GRIDS: tuple[tuple[tuple[float, int], ...], ...] = (
    ((0, 1),),
    ((0, 4),),
    ((1 / 8, 2), (1 / 32, 2)),
    ((1 / 2, 3), (1 / 8, 2)),
)
"""Per level, from the frame's own resolution to an eighth of it: (nodes per frame, at least one; channels)."""
COARSEST_GRIDS: tuple[tuple[float, int], ...] = ((1, 6), (1 / 2, 2))
WIDTHS = (16, 20, 24)
"""Channels at a half, a quarter, and coarser resolutions."""
BOTTLENECKS = (8, 16, 24)
"""Channels that come up to them from the next coarser level."""

_Channels = Annotated[int, Field(ge=1, le=512)]
_PerLevel = Annotated[tuple[_Channels, ...], Field(min_length=1, max_length=10)]
_Grids = Annotated[tuple[Grid, ...], Field(max_length=8)]


class PyramidConfig(CodecConfig):
    """Options of `pyramid`. What is None follows from the clip; a stored network states all of it."""

    size: Literal["S", "M", "L"] = Field("S", description="of the decoder: widths are 1, 1.5 and 2 times those of S")
    widths: _PerLevel | None = Field(None, description="channels per level, from the coarsest to half resolution")
    bottlenecks: _PerLevel | None = Field(
        None, description="channels that come up to each level but the coarsest, and to the head: as many as `widths`"
    )
    grids: Annotated[tuple[_Grids, ...], Field(min_length=2, max_length=11)] | None = Field(
        None, description="per level, and at full resolution, the grids (nodes, channels)"
    )


class Sizes(NamedTuple):
    """What a resolved configuration states."""

    widths: tuple[int, ...]
    bottlenecks: tuple[int, ...]
    grids: tuple[tuple[Grid, ...], ...]


class PyramidDecoder(nn.Module):
    """What turns the grids' features into a picture; see `Pyramid`."""

    def __init__(self, sizes: Sizes, channels: int) -> None:
        super().__init__()
        self.squeezes, self.convs = nn.ModuleList(), nn.ModuleList()
        inputs = 0
        for level, width in enumerate(sizes.widths):
            own = sum(grid.channels for grid in sizes.grids[level])
            if level == len(sizes.widths) - 1:
                own += 4 * sum(grid.channels for grid in sizes.grids[-1])
            self.convs.append(nn.Conv2d(inputs + own, width, 3, padding=1))
            inputs = sizes.bottlenecks[level]
            self.squeezes.append(nn.Conv2d(width, inputs, 1) if inputs != width else nn.Identity())
        self.head = nn.Conv2d(inputs, 4 * channels, 3, padding=1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Per level one tensor (B, its grids' channels, h, w), the last at full resolution -> (B, C, h P, w P)."""
        *levels, finest = features
        levels[-1] = torch.cat((levels[-1], nn.functional.pixel_unshuffle(finest, 2)), 1)
        x = None
        for own, conv, squeeze in zip(levels, self.convs, self.squeezes, strict=True):
            inputs = own if x is None else torch.cat((_twice_as_large(x), own), 1)
            x = squeeze(nn.functional.leaky_relu(conv(inputs), 0.1))
        return nn.functional.pixel_shuffle(self.head(x), 2) + 0.5


class PyramidNetwork(nn.Module):
    """The network of `Pyramid`; every size comes from a resolved configuration."""

    def __init__(self, config: PyramidConfig, shape: Shape) -> None:
        super().__init__()
        frames, channels, self.height, self.width = shape
        sizes = _sizes(config)
        levels = len(sizes.widths)
        height, width = (-(-side // 2**levels) for side in (self.height, self.width))
        self.grids = nn.ModuleList(
            nn.ModuleList(TimeGrid(frames, *grid, height << level, width << level) for grid in grids)
            for level, grids in enumerate(sizes.grids)
        )
        self.decoder = PyramidDecoder(sizes, channels)

    def forward(self, indices: Tensor) -> Tensor:
        """LongTensor (B,) -> (B, C, H, W), about 0..1."""
        features = [torch.cat([grid(indices) for grid in grids.children()], 1) for grids in self.grids]
        return self.crop(self.decoder(features))

    def time_grids(self) -> list[list[TimeGrid]]:
        """Per level, coarse to fine, its grids."""
        return [[grid for grid in grids.children() if isinstance(grid, TimeGrid)] for grids in self.grids]

    def crop(self, picture: Tensor) -> Tensor:
        """Leave away what the coarsest grid covers beyond the frame."""
        return picture[:, :, : self.height, : self.width]


class Pyramid(NetworkCodec[PyramidConfig]):
    """Quantized latents at every resolution and frame rate, learned together with what they will take.

    ```
    indices (B,)
      | grids[0]      hat-weighted sums of (nodes, channels, h, w) maps     (B, channels, h, w)
      | convs[0]      3x3, leaky ReLU; squeezes[0] 1x1, if it narrows       (B, bottlenecks[0], h, w)
      | up            bilinear                                              (B, bottlenecks[0], 2 h, 2 w)
      | grids[1]      appended as further channels
      | convs[1], squeezes[1], up, ...                                      (B, bottlenecks[-1], h P / 2, w P / 2)
      | head          3x3, pixel shuffle 2, + 0.5, crop                     (B, C, H, W)
    ```
    P is 2 to the number of levels, h = ceil(H / P), w = ceil(W / P). The grids of the last level join it together
    with those at full resolution, four of whose places become four channels.

    With `rate` (see `rate_first`) latents and weights are rounded from the first step on, and their bits are in
    the loss: then a grid costs what it holds, and most of it is zero. What moves is stored coarsely and often, what
    stands still finely and once.

    Differences from C3. Grids of their own frame rates, not halved together with the resolution; a decoder that
    works at the grids' resolutions instead of one at full resolution alone; no network that foretells the latents'
    distribution: what codes them looks at neighbours in integer arithmetic.
    From HiNeRV: no blocks at full resolution, and grids at fine levels store latents proper.
    """

    name: ClassVar[str] = "pyramid"
    Config = PyramidConfig
    bits_per_weight: ClassVar[float] = 0.2

    def resolve(self, config: PyramidConfig, span: Span) -> PyramidConfig:
        """As many levels as the frame's smaller side asks for; the widths from `size`."""
        frames, _, height, width = span.shape
        stated = next((len(each) for each in (config.widths, config.bottlenecks) if each is not None), None)
        levels = stated or max(1, min(10, round(math.log2(min(height, width) / SHORT_SIDE))))
        scale = SCALES[config.size]
        update = {
            "widths": config.widths or _from_fine(WIDTHS, levels, scale),
            "bottlenecks": config.bottlenecks or _bottlenecks(levels, scale),
            "grids": config.grids or _default_grids(levels, frames),
        }
        return config.model_copy(update=update)

    def build(self, config: PyramidConfig, shape: Shape) -> PyramidNetwork:
        """Make the network, untrained."""
        return PyramidNetwork(config, shape)

    def plan(self, config: PyramidConfig, shape: Shape) -> FitPlan:
        """150 epochs of single frames."""
        return FitPlan(steps=150 * shape[0], learning_rate=4e-3, rate_factors={"grids.": 4.0}, betas=(0.9, 0.99))

    def fit_for_rate(self, clip: Clip, rate: RateSettings, settings: FitSettings) -> RateTuning:
        """Fit with rounded latents and their bits in the loss from the first step on."""
        config = self.resolve(self.config, clip.span)
        self._weigh(config, clip.span)
        start = RateFirstFit(codec=self, config=config, clip=clip, rate=rate, kind=self._kind("rate first", config))
        return start.run(settings)


def _twice_as_large(x: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C, 2 h, 2 w), bilinear."""
    return nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _from_fine(values: Sequence[int], levels: int, scale: float) -> tuple[int, ...]:
    """Values per level, coarse to fine, of a table that begins at half resolution and goes on with its last."""
    return tuple(max(2, round(scale * values[min(level, len(values) - 1)])) for level in reversed(range(levels)))


def _bottlenecks(levels: int, scale: float) -> tuple[int, ...]:
    """What comes up from each level: the table says what arrives; the head gets all of the finest."""
    arriving = _from_fine(BOTTLENECKS, levels, scale)
    return (*arriving[1:], max(2, round(scale * WIDTHS[0])))


def _default_grids(levels: int, frames: int) -> tuple[tuple[Grid, ...], ...]:
    def scaled(grids: Sequence[tuple[float, int]]) -> tuple[Grid, ...]:
        return tuple(Grid(max(1, round(nodes * frames)), channels) for nodes, channels in grids)

    finer = [GRIDS[min(level, len(GRIDS) - 1)] for level in reversed(range(levels))]
    return (scaled(COARSEST_GRIDS), *(scaled(grids) for grids in finer))


def _sizes(config: PyramidConfig) -> Sizes:
    """Widths, bottlenecks, grids, all there; ValueError if they do not go together."""
    widths, bottlenecks, grids = config.widths, config.bottlenecks, config.grids
    if widths is None or bottlenecks is None or grids is None:
        raise ValueError(f"pyramid: sizes are still open in {config!r}; resolve the configuration first")
    if not len(widths) == len(bottlenecks) == len(grids) - 1 or not all(grids):
        raise ValueError(
            f"pyramid: {len(widths)} widths, {len(bottlenecks)} bottlenecks, grids at {len(grids)} resolutions, "
            f"{sum(map(bool, grids))} of them with any; needed are as many widths as bottlenecks, and one resolution "
            "more, each with a grid"
        )
    return Sizes(widths, bottlenecks, grids)
