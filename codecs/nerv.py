"""NeRV: a clip as one convolutional network of the frame's number.

Chen, He, Wang, Ren, Lim, Shrivastava: NeRV: Neural Representations for Videos (NeurIPS 2021), section 3.1
and appendix A.1. See `Nerv` for the network and for what differs from the paper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from framefold.codecs.base import CodecConfig
from framefold.codecs.blocks import UpBlock, begin_evenly, positional_encoding, up_group
from framefold.codecs.clip import Span
from framefold.codecs.fitting import FitPlan
from framefold.codecs.inr import NetworkCodec, Shape
from framefold.codecs.pruning.channels import ChannelGroup, Places
from framefold.codecs.sizing import base_grid, frame_strides, network_parameters, width_for

PARAMETERS_PER_PIXEL = {"S": 0.026, "M": 0.052, "L": 0.103}
"""The paper's 3.2, 6.3 and 12.5 M parameters on 132 frames of 1280x720."""
SHORT_SIDE = 9
"""Height of the paper's base grid, 9x16."""
STEM_PER_WIDTH = 512 / 26
FLOOR_PER_WIDTH = 96 / 26
"""Stem and lower width of the paper's smallest network, in units of its `width` 26."""
LEAN_STEM_PER_WIDTH, LEAN_FIRST_PER_WIDTH, LEAN_FLOOR_PER_WIDTH = 24 / 7, 10 / 7, 3 / 7
"""Stem, first block and lower width of the lean shape: few channels where the picture is large and a step is dear."""

_Channels = Annotated[int, Field(ge=1, le=2048)]
_Stride = Annotated[int, Field(ge=1, le=8)]


class NervConfig(CodecConfig):
    """Options of `nerv`. What is None follows from the frame size; a stored network states all of it."""

    size: Literal["S", "M", "L"] = Field(
        "S",
        description="parameters per pixel of the clip: S 0.026, M 0.052, L 0.103, as in the paper on 720p",
    )
    shape: Literal["paper", "lean"] = Field(
        "paper",
        exclude_if=lambda shape: shape == "paper",
        description="how widths follow from `width`; lean: less stem and fewer channels at the end, for small pictures",
    )
    width: _Channels | None = Field(None, description="channels of the base grid; overrides `size`")
    stem_width: _Channels | None = Field(
        None, description="hidden features of the stem; by default about 20 widths, lean 3.4"
    )
    block_widths: Annotated[tuple[_Channels, ...], Field(min_length=1, max_length=14)] | None = Field(
        None,
        description="channels after each block; by default `width`, halved, at least 96 or 3.7 widths; "
        "lean 1.4 widths, halved, at least 0.4",
    )
    strides: Annotated[tuple[_Stride, ...], Field(min_length=1, max_length=14)] | None = Field(
        None, description="up-sampling factor of each block; by default from a base grid about 9 high"
    )
    encoding_base: float = Field(1.25, gt=1, le=2, description="b of the positional encoding")
    encoding_levels: int = Field(80, ge=1, le=80, description="l of the positional encoding")


class NervNetwork(nn.Module):
    """The network of `Nerv`; every size comes from a resolved configuration."""

    def __init__(self, config: NervConfig, shape: Shape) -> None:
        super().__init__()
        frames, outputs, self.height, self.width = shape
        width, stem_width, strides, block_widths = _sizes(config)
        self.grid = (width, *base_grid(self.height, self.width, strides))
        encoding = positional_encoding(frames, config.encoding_base, config.encoding_levels)
        self.register_buffer("encoding", encoding, persistent=False)
        self.stem = nn.Sequential(
            nn.Linear(encoding.shape[1], stem_width),
            nn.GELU(),
            nn.Linear(stem_width, math.prod(self.grid)),
            nn.GELU(),
        )
        inputs = (width, *block_widths)
        self.blocks = nn.Sequential(
            *(UpBlock(*sizes, 3, nn.GELU()) for sizes in zip(inputs, block_widths, strides, strict=False))
        )
        self.head = nn.Conv2d(block_widths[-1], outputs, 1)
        self.apply(begin_evenly)  # 2 dB more after twelve epochs; the stem is better off as torch begins

    def forward(self, indices: Tensor) -> Tensor:
        """LongTensor (B,) -> (B, C, H, W), 0..1."""
        grid = self.stem(self.get_buffer("encoding")[indices]).unflatten(1, self.grid)
        picture: Tensor = self.head(self.blocks(grid)).sigmoid()
        return picture[:, :, : self.height, : self.width]


class Nerv(NetworkCodec[NervConfig]):
    """NeRV: frame number -> positional encoding -> MLP -> up-sampling blocks -> frame.

    ```
    indices (B,)
      | encoding      sin, cos of b^k pi t, t = i / T, k = 0 ... l-1        (B, 2 l)
      | stem          Linear, GELU, Linear, GELU                            (B, width * h * w)
    grid                                                                    (B, width, h, w)
      | blocks[i]     conv 3x3, pixel shuffle strides[i], GELU              (B, block_widths[i], h', w')
      |   ...                                                               (B, block_widths[-1], h P, w P)
      | head          conv 1x1, sigmoid, crop                               (B, C, H, W)
    ```
    P is the product of the strides, h = ceil(H / P), w = ceil(W / P).

    Differences from the paper. Any frame size: the strides follow from it (`sizing.frame_strides`) and the
    result is cropped, where the paper knows 720p and 1080p. `stem_width` and the least of `block_widths`
    shrink with `width` below 26 (the paper keeps 512 and 96, more than a short small clip can pay). In the lean
    `shape` the last blocks, which cost nearly all the time of a step, are narrower than the grid, not wider: 3 dB
    more at the same parameters and seconds on 16 frames of 320x180. Sigmoid
    where the authors' program has (tanh + 1) / 2, the same function at twice the slope. Convolutions that begin evenly;
    fitted with L2, a higher rate, gradients cut short and Adam's beta2 0.95, for short fits (the paper: L1 and SSIM,
    5e-4, 0.999).
    """

    name: ClassVar[str] = "nerv"
    Config = NervConfig
    bits_per_weight: ClassVar[float] = 2.5

    def resolve(self, config: NervConfig, span: Span) -> NervConfig:
        """Strides from the frame size, then the width whose parameter count is nearest to the size's."""
        _, _, height, width = span.shape
        strides = config.strides or frame_strides(height, width, SHORT_SIDE)
        config = config.model_copy(update={"strides": strides})
        if config.width is None:
            target = PARAMETERS_PER_PIXEL[config.size] * span.frame_count * height * width
            best = width_for(target, lambda n: self._count(_widened(config, n), span.shape), smallest=2, largest=256)
            return _widened(config, best)
        return _widened(config, config.width)

    def build(self, config: NervConfig, shape: Shape) -> nn.Module:
        """Make the network, untrained."""
        return NervNetwork(config, shape)

    def plan(self, config: NervConfig, shape: Shape) -> FitPlan:
        """150 epochs of single frames; networks above 700,000, on which the rate was not tuned, get a lower one.

        At twice the rate 1.4 dB are lost. Gradients cut short gave 0.8 dB, beta1 0.5 instead of 0.7 0.3 dB.
        """
        rate = 1e-2 * min(1.0, 700_000 / self._count(config, shape)) ** 0.5
        return FitPlan(steps=150 * shape[0], learning_rate=rate, betas=(0.5, 0.95), clip_norm=0.02)

    def channel_groups(self, config: NervConfig, shape: Shape) -> Sequence[ChannelGroup]:
        """Features of the stem, channels of the grid, channels after each block."""
        width, stem_width, strides, block_widths = _sizes(config)
        positions = math.prod(base_grid(*shape[2:], strides))
        readers = [Places(f"{name}.weight", 1, bias=f"{name}.bias") for name in _readers(len(strides))]
        stem = ChannelGroup(
            size="stem_width",
            channels=stem_width,
            layer="stem.1",
            made_by=(Places("stem.0.weight"), Places("stem.0.bias")),
            read_by=Places("stem.2.weight", 1, bias="stem.2.bias"),
        )
        grid = ChannelGroup(
            size="width",
            channels=width,
            layer="stem.3",
            made_by=(Places("stem.2.weight", per=positions), Places("stem.2.bias", per=positions)),
            read_by=readers[0],
        )
        after = (
            up_group(f"block_widths.{i}", f"blocks.{i}", block_widths[i], stride, readers[i + 1])
            for i, stride in enumerate(strides)
        )
        return (stem, grid, *after)

    def narrowed(self, config: NervConfig, sizes: Mapping[str, int]) -> NervConfig:
        """State the new sizes; the strides stay."""
        block_widths = tuple(sizes[f"block_widths.{i}"] for i in range(len(config.strides or ())))
        update = {"width": sizes["width"], "stem_width": sizes["stem_width"], "block_widths": block_widths}
        return config.model_copy(update=update)

    def _count(self, config: NervConfig, shape: Shape) -> int:
        return network_parameters(lambda: self.build(config, shape))


def _readers(blocks: int) -> list[str]:
    """What reads the grid and then each block."""
    return [*(f"blocks.{i}.conv" for i in range(blocks)), "head"]


def _widened(config: NervConfig, width: int) -> NervConfig:
    """Fill in everything that follows from `width`."""
    stem_width, block_widths = (_lean if config.shape == "lean" else _as_in_the_paper)(width, len(config.strides or ()))
    return config.model_copy(
        update={
            "width": width,
            "stem_width": config.stem_width or stem_width,
            "block_widths": config.block_widths or block_widths,
        }
    )


def _as_in_the_paper(width: int, blocks: int) -> tuple[int, tuple[int, ...]]:
    """Stem width and block widths."""
    floor = max(1, min(96, round(FLOOR_PER_WIDTH * width)))
    halved = (width, *(max(floor, width >> i) for i in range(1, blocks)))
    return max(1, min(512, round(STEM_PER_WIDTH * width))), halved


def _lean(width: int, blocks: int) -> tuple[int, tuple[int, ...]]:
    """Stem width and block widths."""
    halved = (max(LEAN_FLOOR_PER_WIDTH, LEAN_FIRST_PER_WIDTH / 2**i) for i in range(blocks))
    return max(1, round(LEAN_STEM_PER_WIDTH * width)), tuple(max(1, round(factor * width)) for factor in halved)


def _sizes(config: NervConfig) -> tuple[int, int, tuple[int, ...], tuple[int, ...]]:
    """Width, stem width, strides, block widths, all there; ValueError if they do not go together."""
    if config.width is None or config.stem_width is None or config.strides is None or config.block_widths is None:
        raise ValueError(f"nerv: sizes are still open in {config!r}; resolve the configuration first")
    if len(config.strides) != len(config.block_widths):
        raise ValueError(f"nerv: {len(config.strides)} strides, {len(config.block_widths)} block_widths: one per block")
    return config.width, config.stem_width, config.strides, config.block_widths
