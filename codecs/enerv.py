"""E-NeRV: a clip as one network in which the places of the picture and the time go separate ways at first.

Li, Wang, Pi, Xu, Mei, Liu: E-NeRV: Expedite Neural Video Representation with Disentangled Spatial-Temporal Context
(ECCV 2022), section 3. See `ENerv` for the network and for what differs from the paper.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from framefold.codecs.attention import TransformerBlock
from framefold.codecs.base import CodecConfig
from framefold.codecs.blocks import UpBlock, positional_encoding, up_group
from framefold.codecs.clip import Span
from framefold.codecs.fitting import FitPlan
from framefold.codecs.inr import NetworkCodec, Shape
from framefold.codecs.pruning.channels import ChannelGroup, Places
from framefold.codecs.sizing import base_grid, frame_strides, network_parameters, width_for

PARAMETERS_PER_PIXEL = {"S": 0.026, "M": 0.052, "L": 0.103}
"""Those of `nerv`; L is the paper's network, 12.5 M parameters on 132 frames of 1280x720."""
SHORT_SIDE = 9
"""Height of the paper's base grid, 9x16."""
PAPER_WIDTH = 196
"""Channels of the paper's base grid ..."""
PAPER_SIZES = {"stem_width": 512, "token_width": 256, "head_width": 64, "hidden_width": 128, "branch_width": 128}
"""... and the sizes beside it, which shrink with it but never grow."""
EXPANSION = 3
"""Channels after the first block, in those of the base grid."""
MIDDLE = 4
"""Channels of the base grid, in those in the middle of the first block."""
PAPER_FLOOR = 96
"""Least channels after a block, at `PAPER_WIDTH` and above."""
HEADS = 8
"""Of the second transformer block; the first has one."""
NORM_EPSILON = 1e-5

_Channels = Annotated[int, Field(ge=1, le=2048)]
_Stride = Annotated[int, Field(ge=1, le=8)]


class ENervConfig(CodecConfig):
    """Options of `enerv`. What is None follows from the frame size; a stored network states all of it."""

    size: Literal["S", "M", "L"] = Field(
        "S",
        description="parameters per pixel of the clip: S 0.026, M 0.052, L 0.103, the last as in the paper on 720p",
    )
    width: _Channels | None = Field(None, description="channels of the base grid; overrides `size`")
    stem_width: _Channels | None = Field(None, description="hidden features of the time stem; by default 2.6 widths")
    token_width: _Channels | None = Field(None, description="features of a place and of the time; 1.3 widths")
    head_width: _Channels | None = Field(None, description="features of each attention head; by default width / 3")
    hidden_width: _Channels | None = Field(None, description="hidden features of a transformer block; 0.65 widths")
    branch_width: _Channels | None = Field(None, description="features of the time branch; by default 0.65 widths")
    middle_width: _Channels | None = Field(None, description="channels inside the first block; by default width / 4")
    block_widths: Annotated[tuple[_Channels, ...], Field(min_length=1, max_length=14)] | None = Field(
        None,
        description="channels after each block; by default 3 widths, then halved, at least 96 or half a width",
    )
    strides: Annotated[tuple[_Stride, ...], Field(min_length=1, max_length=14)] | None = Field(
        None, description="up-sampling factor of each block; by default from a base grid about 9 high"
    )
    encoding_base: float = Field(1.25, gt=1, le=2, description="b of the positional encodings")
    encoding_levels: int = Field(80, ge=1, le=80, description="l of the positional encodings")


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    """A resolved configuration."""

    width: int
    stem_width: int
    token_width: int
    head_width: int
    hidden_width: int
    branch_width: int
    middle_width: int
    block_widths: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def inputs(self) -> tuple[int, ...]:
        """Channels before each block."""
        return (self.width, *self.block_widths[:-1])


class FactorisedUpBlock(nn.Module):
    """A NeRV block of few parameters: it grows with few channels and only then gets many (section 3).

    (B, inputs, h, w) -> (B, outputs, h * stride, w * stride).
    """

    def __init__(self, inputs: int, middle: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.up = UpBlock(inputs, middle, stride, 3, nn.Identity())
        self.conv = nn.Conv2d(middle, outputs, 3, padding=1)
        self.activation = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """Grow, then widen."""
        out: Tensor = self.activation(self.conv(self.up(x)))
        return out


class TimedNorm(nn.Module):
    """Instance normalisation whose scale and shift are functions of the time (section 3).

    (B, channels, h, w), (B, features) -> (B, channels, h, w).
    """

    def __init__(self, features: int, channels: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(features, 2 * channels)
        with torch.no_grad():
            self.modulation.bias.copy_(torch.tensor([1.0, 0.0]).repeat_interleave(channels))

    def forward(self, x: Tensor, times: Tensor) -> Tensor:
        """Each channel of each frame gets mean 0 and variance 1, then what the time gives it."""
        variance, mean = torch.var_mean(x, dim=(2, 3), correction=0, keepdim=True)
        scale, shift = self.modulation(times)[:, :, None, None].chunk(2, dim=1)
        modulated: Tensor = (x - mean) * (variance + NORM_EPSILON).rsqrt() * scale + shift
        return modulated


class ENervNetwork(nn.Module):
    """The network of `ENerv`; every size comes from a resolved configuration."""

    def __init__(self, config: ENervConfig, shape: Shape) -> None:
        super().__init__()
        frames, outputs, self.height, self.width = shape
        sizes = _sizes(config)
        base, levels = config.encoding_base, config.encoding_levels
        times = positional_encoding(frames, base, levels)
        places = _encoded_places(*base_grid(self.height, self.width, sizes.strides), base, levels)
        self.register_buffer("times", times, persistent=False)
        self.register_buffer("places", places, persistent=False)
        self.stem = _perceptron(times.shape[1], sizes.stem_width, sizes.token_width)
        self.tokens = nn.Sequential(nn.Conv2d(places.shape[1], sizes.token_width, 1), nn.GELU())
        self.space = TransformerBlock(sizes.token_width, 1, sizes.head_width, sizes.hidden_width)
        self.fusion = TransformerBlock(sizes.token_width, HEADS, sizes.head_width, sizes.hidden_width)
        self.grid = nn.Conv2d(sizes.token_width, sizes.width, 1)
        self.branch = _perceptron(times.shape[1], sizes.branch_width, sizes.branch_width)
        self.norms = nn.ModuleList(TimedNorm(sizes.branch_width, channels) for channels in sizes.inputs)
        self.blocks = nn.ModuleList(_blocks(sizes))
        self.head = nn.Conv2d(sizes.block_widths[-1], outputs, 1)

    def forward(self, indices: Tensor) -> Tensor:
        """LongTensor (B,) -> (B, C, H, W), 0..1."""
        times = self.get_buffer("times")[indices]
        places = self.space(self.tokens(self.get_buffer("places")))
        x = self.grid(self.fusion(places * self.stem(times)[:, :, None, None]))
        branch = self.branch(times)
        for norm, block in zip(self.norms, self.blocks, strict=True):
            x = block(norm(x, branch))
        picture: Tensor = self.head(x).sigmoid()
        return picture[:, :, : self.height, : self.width]


class ENerv(NetworkCodec[ENervConfig]):
    """E-NeRV: places, told once, times a vector of the frame's time -> up-sampling blocks that the time modulates.

    ```
    indices (B,)
      | times         encoding of i / T as in `nerv`                        (B, 2 l)
      |-- stem        Linear, GELU, Linear, GELU                            (B, token_width)
      |-- branch      Linear, GELU, Linear, GELU                            (B, branch_width)

    places            encodings of y / h and x / w                          (1, 4 l, h, w)
      | tokens        Linear, GELU                                          (1, token_width, h, w)
      | space         transformer block, 1 head                             (1, token_width, h, w)
      | * stem        each frame its own multiple of each feature           (B, token_width, h, w)
      | fusion        transformer block, 8 heads                            (B, token_width, h, w)
      | grid          Linear                                                (B, width, h, w)
      | norms[0]      to mean 0, variance 1; scale and shift: Linear of branch
      | blocks[0]     conv 3x3 to middle_width, pixel shuffle strides[0],
      |               conv 3x3, GELU                                        (B, block_widths[0], h', w')
      | norms[i]      as before
      | blocks[i]     conv 3x3, pixel shuffle strides[i], GELU              (B, block_widths[i], h'', w'')
      |   ...                                                               (B, block_widths[-1], h P, w P)
      | head          conv 1x1, sigmoid, crop                               (B, C, H, W)
    ```
    P is the product of the strides, h = ceil(H / P), w = ceil(W / P). Linear layers of places are convolutions 1x1.

    Differences from the paper. Any frame size, and widths that shrink in proportion, as `nerv` has it; with `width` 196
    on 720p it is the paper's network. Time is i / T as in NeRV, not i / (T - 1). Scales of the norms begin at 1. Fitted
    with L2, a higher rate and Adam's beta2 0.95, for short fits (the paper: L1 and SSIM, 5e-4, 0.999).
    """

    name: ClassVar[str] = "enerv"
    Config = ENervConfig
    bits_per_weight: ClassVar[float] = 2.5

    def resolve(self, config: ENervConfig, span: Span) -> ENervConfig:
        """Strides from the frame size, then the width whose parameter count is nearest to the size's."""
        _, _, height, width = span.shape
        config = config.model_copy(update={"strides": config.strides or frame_strides(height, width, SHORT_SIDE)})
        if config.width is not None:
            return _widened(config, config.width)
        target = PARAMETERS_PER_PIXEL[config.size] * span.frame_count * height * width
        best = width_for(target, lambda n: self._count(_widened(config, n), span.shape), smallest=2, largest=512)
        return _widened(config, best)

    def build(self, config: ENervConfig, shape: Shape) -> nn.Module:
        """Make the network, untrained."""
        return ENervNetwork(config, shape)

    def plan(self, config: ENervConfig, shape: Shape) -> FitPlan:
        """150 epochs of single frames; networks above 400,000, on which the rate was not tuned, get a lower one."""
        rate = 3e-3 * min(1.0, 400_000 / self._count(config, shape)) ** 0.5
        return FitPlan(steps=150 * shape[0], learning_rate=rate, betas=(0.5, 0.95), clip_norm=0.02)

    def channel_groups(self, config: ENervConfig, shape: Shape) -> Sequence[ChannelGroup]:
        """Features inside the time stem and the transformer blocks, channels of the grid and of the blocks."""
        sizes = _sizes(config)
        return (
            _hidden_group("stem_width", "stem", sizes.stem_width),
            _hidden_group("hidden_width", "space.perceptron", sizes.hidden_width),
            _hidden_group("hidden_width", "fusion.perceptron", sizes.hidden_width),
            up_group("middle_width", "blocks.0.up", sizes.middle_width, sizes.strides[0], _reader("blocks.0.conv")),
            *_map_groups(sizes),
        )

    def narrowed(self, config: ENervConfig, sizes: Mapping[str, int]) -> ENervConfig:
        """State the new sizes; what the places and the time share stays, and so do the strides."""
        own = {name: sizes[name] for name in ("width", "stem_width", "hidden_width", "middle_width")}
        block_widths = tuple(sizes[f"block_widths.{i}"] for i in range(len(config.strides or ())))
        return config.model_copy(update={**own, "block_widths": block_widths})

    def _count(self, config: ENervConfig, shape: Shape) -> int:
        return network_parameters(lambda: self.build(config, shape))


def _perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs), nn.GELU())


def _encoded_places(height: int, width: int, base: float, levels: int) -> Tensor:
    """(1, 4 * levels, height, width) float32: the encodings of y / height and of x / width."""
    down = positional_encoding(height, base, levels)[:, None].expand(-1, width, -1)
    across = positional_encoding(width, base, levels)[None].expand(height, -1, -1)
    return torch.cat((down, across), 2).permute(2, 0, 1)[None].contiguous()


def _blocks(sizes: _Sizes) -> Iterator[nn.Module]:
    yield FactorisedUpBlock(sizes.width, sizes.middle_width, sizes.block_widths[0], sizes.strides[0])
    for triple in zip(sizes.inputs[1:], sizes.block_widths[1:], sizes.strides[1:], strict=True):
        yield UpBlock(*triple, 3, nn.GELU())


def _reader(layer: str) -> Places:
    return Places(f"{layer}.weight", 1, bias=f"{layer}.bias")


def _rows(layer: str, *, per: int = 1, start: int = 0) -> tuple[Places, Places]:
    return Places(f"{layer}.weight", per=per, start=start), Places(f"{layer}.bias", per=per, start=start)


def _hidden_group(size: str, perceptron: str, channels: int) -> ChannelGroup:
    return ChannelGroup(
        size=size,
        channels=channels,
        layer=f"{perceptron}.1",
        made_by=_rows(f"{perceptron}.0"),
        read_by=_reader(f"{perceptron}.2"),
    )


def _map_groups(sizes: _Sizes) -> Iterator[ChannelGroup]:
    """Channels of the grid and of each block's output; a norm has a scale and a shift for each that it is given."""
    blocks = len(sizes.strides)
    readers = ["blocks.0.up.conv", *(f"blocks.{i}.conv" for i in range(1, blocks)), "head"]
    makers = [_rows("grid"), _rows("blocks.0.conv")]
    makers += [_rows(f"blocks.{i}.conv", per=sizes.strides[i] ** 2) for i in range(1, blocks)]
    names = ["width", *(f"block_widths.{i}" for i in range(blocks))]
    for i, channels in enumerate((*sizes.inputs, sizes.block_widths[-1])):
        modulation = f"norms.{i}.modulation"
        scaled = (*_rows(modulation), *_rows(modulation, start=channels)) if i < blocks else ()
        yield ChannelGroup(
            size=names[i],
            channels=channels,
            layer=f"norms.{i}" if i < blocks else f"blocks.{i - 1}",
            made_by=(*makers[i], *scaled),
            read_by=_reader(readers[i]),
        )


def _widened(config: ENervConfig, width: int) -> ENervConfig:
    """Fill in everything that follows from `width`."""
    share = min(1.0, width / PAPER_WIDTH)
    floor = max(1, round(PAPER_FLOOR * share))
    halved = (EXPANSION * width >> i for i in range(len(config.strides or ())))
    beside = {name: getattr(config, name) or max(1, round(size * share)) for name, size in PAPER_SIZES.items()}
    update = {
        "width": width,
        **beside,
        "middle_width": config.middle_width or max(1, width // MIDDLE),
        "block_widths": config.block_widths or tuple(max(floor, each) for each in halved),
    }
    return config.model_copy(update=update)


def _sizes(config: ENervConfig) -> _Sizes:
    """All sizes; ValueError if one is open or they do not go together."""
    sizes = {name: getattr(config, name) for name in _Sizes.__dataclass_fields__}
    if None in sizes.values():
        raise ValueError(f"enerv: sizes are still open in {config!r}; resolve the configuration first")
    if len(sizes["strides"]) != len(sizes["block_widths"]):
        raise ValueError(
            f"enerv: {len(sizes['strides'])} strides, {len(sizes['block_widths'])} block_widths: one per block"
        )
    return _Sizes(**sizes)
