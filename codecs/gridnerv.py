"""GridNeRV: feature grids over time at several resolutions, drawn by a small NeRV decoder.

The grids are those of Lee, Rho, Ko, Park: FFNeRV: Flow-Guided Frame-Wise Neural Representations for Videos
(ACM Multimedia 2023, arXiv 2212.12294), its multi-resolution temporal grids; the decoder's blocks are NeRV's.
See `GridNerv` for what differs from both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from framefold.codecs.base import CodecConfig
from framefold.codecs.blocks import TimeGrid, UpBlock, up_group
from framefold.codecs.clip import Span
from framefold.codecs.fitting import FitPlan
from framefold.codecs.inr import NetworkCodec, Shape
from framefold.codecs.pruning.channels import ChannelGroup, Places
from framefold.codecs.sizing import base_grid, frame_strides, network_parameters, width_for

PARAMETERS_PER_LINE = {"S": 19.6, "M": 39.0, "L": 78.0}
"""Parameters per frame and per square root of its pixels: detail grows slower than the area it fills."""
SHORT_SIDE = 11
"""Height of the coarsest grid that the default strides aim at."""
REFERENCE_WIDTH = 24
"""The width at which the channels of `GRIDS` were tuned."""


class Grid(NamedTuple):
    """One temporal grid."""

    nodes: Annotated[int, Field(ge=1, le=65_536, description="moments in time")]
    channels: Annotated[int, Field(ge=1, le=1024, description="features")]


GRIDS: tuple[tuple[tuple[float, int], ...], ...] = (
    ((1, 3), (1 / 4, 3)),
    ((1 / 4, 2), (1 / 12, 4)),
    ((1 / 12, 2),),
    ((1 / 24, 1),),
)
"""Per block, coarse to fine: (nodes per frame, channels at `REFERENCE_WIDTH`). Finer blocks have none."""

_Channels = Annotated[int, Field(ge=1, le=2048)]
_Stride = Annotated[int, Field(ge=1, le=8)]
_Kernel = Literal[1, 3, 5]


class GridNervConfig(CodecConfig):
    """Options of `gridnerv`. What is None follows from the frame size; a stored network states all of it."""

    size: Literal["S", "M", "L"] = Field(
        "S", description="parameters per frame and square root of its pixels: S 19.6, M 39, L 78"
    )
    width: _Channels | None = Field(None, description="channels after the first block; overrides `size`")
    strides: Annotated[tuple[_Stride, ...], Field(min_length=1, max_length=14)] | None = Field(
        None, description="up-sampling factor of each block; by default from a coarsest grid about 11 high"
    )
    block_widths: Annotated[tuple[_Channels, ...], Field(max_length=13)] | None = Field(
        None,
        description="channels after each block but the last (colours); by default from `width` to 2/3 of it",
    )
    kernels: Annotated[tuple[_Kernel, ...], Field(min_length=1, max_length=14)] | None = Field(
        None, description="convolution kernel of each block; by default 3"
    )
    grids: Annotated[tuple[Annotated[tuple[Grid, ...], Field(max_length=8)], ...], Field(max_length=14)] | None = Field(
        None,
        description="per block the grids (nodes, channels) that join its input; by default `GRIDS`",
    )


class GridNervNetwork(nn.Module):
    """The network of `GridNerv`; every size comes from a resolved configuration."""

    def __init__(self, config: GridNervConfig, shape: Shape) -> None:
        super().__init__()
        frames, colours, self.height, self.width = shape
        strides, block_widths, kernels, grids = _sizes(config)
        height, width = base_grid(self.height, self.width, strides)
        outputs = (*block_widths, colours)
        self.grids, self.blocks = nn.ModuleList(), nn.ModuleList()
        channels = 0
        for i, stride in enumerate(strides):
            self.grids.append(nn.ModuleList(TimeGrid(frames, *grid, height, width) for grid in grids[i]))
            channels += sum(grid.channels for grid in grids[i])
            activation = nn.GELU() if i < len(strides) - 1 else nn.Identity()
            self.blocks.append(UpBlock(channels, outputs[i], stride, kernels[i], activation))
            channels, height, width = outputs[i], height * stride, width * stride

    def forward(self, indices: Tensor) -> Tensor:
        """LongTensor (B,) -> (B, C, H, W), about 0..1."""
        features: list[Tensor] = []
        for grids, block in zip(self.grids, self.blocks, strict=True):
            features += [grid(indices) for grid in grids.children()]
            features = [block(torch.cat(features, 1))]
        return features[0][:, :, : self.height, : self.width] + 0.5


class GridNerv(NetworkCodec[GridNervConfig]):
    """Temporal grids at every resolution into a NeRV decoder: the better picture at the same size.

    ```
    indices (B,)
      | grids[0]      hat-weighted sums of (nodes, channels, h, w) maps     (B, sum of channels, h, w)
      | blocks[0]     conv, pixel shuffle strides[0], GELU                  (B, block_widths[0], h', w')
    features
      | grids[1]      appended as further channels                          (B, block_widths[0] + ..., h', w')
      | blocks[1]     ...
      | blocks[-1]    conv, pixel shuffle strides[-1]                       (B, C, h P, w P)
      | + 0.5, crop                                                         (B, C, H, W)
    ```
    P is the product of the strides, h = ceil(H / P), w = ceil(W / P).

    Differences from FFNeRV. Grids not only at the coarsest resolution but at the finer ones too, there with
    ever fewer nodes in time: still detail is stored once, motion coarsely. No flows and no neighbouring
    frames, so a frame costs one pass. Plain convolutions instead of grouped ones.

    Differences from NeRV. No encoding of time, no MLP, no sigmoid; and no head at full resolution, which costs
    more time than it gives: the last block gives the channels itself.
    """

    name: ClassVar[str] = "gridnerv"
    Config = GridNervConfig
    bits_per_weight: ClassVar[float] = 3.0

    def resolve(self, config: GridNervConfig, span: Span) -> GridNervConfig:
        """Strides from the frame size, then the width whose parameter count is nearest to the size's."""
        frames, _, height, width = span.shape
        strides = config.strides or frame_strides(height, width, SHORT_SIDE)
        config = config.model_copy(update={"strides": strides, "kernels": config.kernels or (3,) * len(strides)})
        if config.width is None:
            target = PARAMETERS_PER_LINE[config.size] * frames * (height * width) ** 0.5
            best = width_for(
                target,
                lambda n: self._count(_widened(config, n, frames), span.shape),
                smallest=4,
                largest=512,
            )
            return _widened(config, best, frames)
        return _widened(config, config.width, frames)

    def build(self, config: GridNervConfig, shape: Shape) -> nn.Module:
        """Make the network, untrained."""
        return GridNervNetwork(config, shape)

    def plan(self, config: GridNervConfig, shape: Shape) -> FitPlan:
        """150 epochs of single frames; the grids learn faster than the convolutions that they feed."""
        return FitPlan(steps=150 * shape[0], learning_rate=1e-2, rate_factors={"grids.": 4.0}, betas=(0.9, 0.95))

    def channel_groups(self, config: GridNervConfig, shape: Shape) -> Sequence[ChannelGroup]:
        """Channels after each block but the last, and those of each grid; a block reads its grids last."""
        strides, block_widths, _, grids = _sizes(config)
        groups: list[ChannelGroup] = []
        for i, (width, stride) in enumerate(zip(block_widths, strides, strict=False)):
            groups.append(up_group(f"block_widths.{i}", f"blocks.{i}", width, stride, _reader(i + 1, 0)))
        for i, inputs in enumerate((0, *block_widths)):
            groups += _grid_groups(i, inputs, grids[i])
        return groups

    def narrowed(self, config: GridNervConfig, sizes: Mapping[str, int]) -> GridNervConfig:
        """State the new sizes; strides, kernels and the grids' moments stay."""
        strides, block_widths, _, grids = _sizes(config)
        narrow = tuple(sizes[f"block_widths.{i}"] for i in range(len(block_widths)))
        update = {
            "width": narrow[0] if narrow else config.width,
            "block_widths": narrow,
            "grids": tuple(
                tuple(Grid(grid.nodes, sizes[f"grids.{i}.{j}"]) for j, grid in enumerate(grids[i]))
                for i in range(len(strides))
            ),
        }
        return config.model_copy(update=update)

    def _count(self, config: GridNervConfig, shape: Shape) -> int:
        return network_parameters(lambda: self.build(config, shape))


def _reader(block: int, start: int) -> Places:
    """Where a block reads the channels from `start` on."""
    return Places(f"blocks.{block}.conv.weight", 1, start=start, bias=f"blocks.{block}.conv.bias")


def _grid_groups(block: int, start: int, grids: Sequence[Grid]) -> Iterator[ChannelGroup]:
    for j, grid in enumerate(grids):
        name = f"grids.{block}.{j}"
        maps = Places(f"{name}.maps", 1)
        yield ChannelGroup(
            size=name, channels=grid.channels, layer=name, made_by=(maps,), read_by=_reader(block, start)
        )
        start += grid.channels


def _widened(config: GridNervConfig, width: int, frames: int) -> GridNervConfig:
    """Fill in everything that follows from `width`."""
    blocks = len(config.strides or ())
    narrowing = [1 - i / (3 * max(1, blocks - 2)) for i in range(blocks - 1)]
    widths = tuple(max(3, round(width * factor)) for factor in narrowing)
    update = {
        "width": width,
        "block_widths": widths if config.block_widths is None else config.block_widths,
        "grids": _default_grids(width, blocks, frames) if config.grids is None else config.grids,
    }
    return config.model_copy(update=update)


def _default_grids(width: int, blocks: int, frames: int) -> tuple[tuple[Grid, ...], ...]:
    def scaled(grids: Sequence[tuple[float, int]]) -> tuple[Grid, ...]:
        return tuple(
            Grid(max(1, round(nodes * frames)), max(1, round(channels * width / REFERENCE_WIDTH)))
            for nodes, channels in grids
        )

    return tuple(scaled(GRIDS[i]) if i < len(GRIDS) else () for i in range(blocks))


def _sizes(
    config: GridNervConfig,
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[tuple[Grid, ...], ...]]:
    """Strides, block widths, kernels, grids, all there; ValueError if they do not go together."""
    strides, widths, kernels, grids = config.strides, config.block_widths, config.kernels, config.grids
    if strides is None or widths is None or kernels is None or grids is None:
        raise ValueError(f"gridnerv: sizes are still open in {config!r}; resolve the configuration first")
    if not len(strides) == len(widths) + 1 == len(kernels) == len(grids) or not grids[0]:
        raise ValueError(
            f"gridnerv: {len(strides)} strides, {len(widths)} block_widths, {len(kernels)} kernels, "
            f"{len(grids)} lists of grids; needed: one of each per block, no width for the last, "
            "grids for the first"
        )
    return strides, widths, kernels, grids
