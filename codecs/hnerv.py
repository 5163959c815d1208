"""HNeRV: a clip as small maps, one per frame, and a decoder that they share.

Chen, Gwilliam, Lim, Shrivastava: HNeRV: A Hybrid Neural Representation for Videos (CVPR 2023), section 3.
See `HNerv` for the network and for what differs from the paper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from framefold.codecs.base import CodecConfig
from framefold.codecs.blocks import TimeGrid, UpBlock, begin_evenly, up_group
from framefold.codecs.clip import Clip, Span
from framefold.codecs.convnext import ConvNextEncoder
from framefold.codecs.fitting import FitPlan
from framefold.codecs.inr import NetworkCodec, Scaffold, Shape
from framefold.codecs.pruning.channels import ChannelGroup, Places
from framefold.codecs.sizing import base_grid, frame_strides, network_parameters, width_for
from framefold.codecs.stored_samples import on_device

PARAMETERS_PER_PIXEL = {"S": 0.026, "M": 0.052, "L": 0.103}
"""Those of `nerv`, to compare like with like; the paper has 0.0032 ... 0.028: 0.35 ... 3 M, 132 frames of 1280x640."""
SHORT_SIDE = 2
"""Height of the paper's embeddings, 2x4."""
EMBEDDING_WIDTH = 16
MAX_BLOCKS = 5
NARROWING = 1.2
"""Channels before a block over those after it: r of section 3 ..."""
LEAST_WIDTH = 12
"""... but no fewer channels than these, unless `width` itself is smaller."""
ENCODER_WIDTH = 64
"""Channels of the encoder's maps, but for the last: part of the fit, not of the network."""

_Channels = Annotated[int, Field(ge=1, le=2048)]
_Stride = Annotated[int, Field(ge=1, le=8)]
_Kernel = Literal[1, 3, 5, 7]

KERNELS: tuple[_Kernel, ...] = (1, 3, *(5,) * 12)
"""Of the blocks, as many as there are."""


class HNervConfig(CodecConfig):
    """Options of `hnerv`. What is None follows from the frame size; a stored network states all of it."""

    size: Literal["S", "M", "L"] = Field(
        "S",
        description="parameters per pixel of the clip, embeddings included: S 0.026, M 0.052, L 0.103",
    )
    width: _Channels | None = Field(None, description="channels before the first block; overrides `size`")
    embedding_width: _Channels = Field(EMBEDDING_WIDTH, description="channels of the embeddings")
    strides: Annotated[tuple[_Stride, ...], Field(min_length=1, max_length=14)] | None = Field(
        None, description="up-sampling factor of each block; by default from embeddings about 2 high, in 5 blocks"
    )
    kernels: Annotated[tuple[_Kernel, ...], Field(min_length=1, max_length=14)] | None = Field(
        None, description="convolution kernel of each block; by default 1, 3, then 5"
    )
    block_widths: Annotated[tuple[_Channels, ...], Field(min_length=1, max_length=14)] | None = Field(
        None, description="channels after each block; by default `width`, 1.2 times fewer each time, at least 12"
    )


class HNervNetwork(nn.Module):
    """The network of `HNerv`; every size comes from a resolved configuration."""

    def __init__(self, config: HNervConfig, shape: Shape) -> None:
        super().__init__()
        frames, outputs, self.height, self.width = shape
        width, strides, kernels, block_widths = _sizes(config)
        grid = base_grid(self.height, self.width, strides)
        self.embeddings = TimeGrid(frames, frames, config.embedding_width, *grid)
        self.stem = nn.Sequential(nn.Conv2d(config.embedding_width, width, 1), nn.GELU())
        inputs = (width, *block_widths)
        blocks = zip(inputs, block_widths, strides, kernels, strict=False)
        self.blocks = nn.Sequential(*(UpBlock(*sizes, nn.GELU()) for sizes in blocks))
        self.head = nn.Conv2d(block_widths[-1], outputs, 3, padding=1)
        self.apply(begin_evenly)  # 1 dB more after ten epochs
        nn.init.normal_(self.embeddings.maps)  # where no encoder fills them in they begin as large as one makes them

    def forward(self, indices: Tensor) -> Tensor:
        """LongTensor (B,) -> (B, C, H, W), 0..1."""
        return self.decode(self.embeddings(indices))

    def decode(self, embeddings: Tensor) -> Tensor:
        """(B, embedding_width, h, w) -> (B, C, H, W), 0..1."""
        picture: Tensor = self.head(self.blocks(self.stem(embeddings))).sigmoid()
        return picture[:, :, : self.height, : self.width]


class TaughtNetwork(Scaffold):
    """The network while it is fitted: its embeddings are what an encoder makes of the frames."""

    network: HNervNetwork

    def __init__(self, network: HNervNetwork, strides: Sequence[int], clip: Clip) -> None:
        super().__init__(network)
        _, channels, height, width = network.embeddings.maps.shape
        self.encoder = ConvNextEncoder(
            strides, (*(ENCODER_WIDTH for _ in strides[1:]), channels), inputs=clip.pixels.channels
        )
        product = math.prod(strides)
        self.padding = (0, width * product - network.width, 0, height * product - network.height)
        self.peak = clip.pixels.peak
        self.register_buffer("frames", on_device(clip.frames), persistent=False)

    def forward(self, indices: Tensor) -> Tensor:
        """LongTensor (B,) -> (B, C, H, W), 0..1."""
        return self.network.decode(self._encoded(indices))

    def settle(self) -> None:
        """Store every frame's embedding in the network."""
        maps = self.network.embeddings.maps
        with torch.no_grad():
            for indices in torch.split(torch.arange(len(maps), device=maps.device), 1):
                maps[indices] = self._encoded(indices)

    def _encoded(self, indices: Tensor) -> Tensor:
        """(B, embedding_width, h, w) of frames that repeat their border until all strides divide them."""
        pictures = self.get_buffer("frames")[indices].float().div_(self.peak)
        embeddings: Tensor = self.encoder(functional.pad(pictures, self.padding, mode="replicate"))
        return embeddings


class HNerv(NetworkCodec[HNervConfig]):
    """HNeRV: frame number -> its own stored map -> up-sampling blocks, ever wider kernels -> frame.

    ```
    indices (B,)
      | embeddings    of each frame its own map                             (B, embedding_width, h, w)
      | stem          conv 1x1, GELU                                        (B, width, h, w)
      | blocks[i]     conv kernels[i], pixel shuffle strides[i], GELU       (B, block_widths[i], h', w')
      |   ...                                                               (B, block_widths[-1], h P, w P)
      | head          conv 3x3, sigmoid, crop                               (B, C, H, W)
    ```
    P is the product of the strides, h = ceil(H / P), w = ceil(W / P).

    The embeddings are parameters like any other once the fit is over. While it lasts they are what an encoder makes of
    the frames (`TaughtNetwork`), so that similar frames get similar ones:
    ```
    frames[indices] (B, C, H, W)
      | padding       border repeated                                       (B, C, h P, w P)
      | encoder       per stride a conv that goes by it, ConvNeXt block     (B, 64, h P / strides[0], ...)
      |   ...                                                               (B, embedding_width, h, w)
    embeddings        into the stem; at the end into the network
    ```
    A fit that begins from a stored network has no encoder: embeddings learn as they are, as in fine-tuning.

    Differences from the paper. Any frame size: strides follow from it, as many as in the paper and the same on its
    sizes, and the result is cropped. Sigmoid where the authors' program has (tanh + 1) / 2, the same function at twice
    the slope. A GELU follows the stem. Single frames, weights that begin evenly, a higher rate and Adam's betas 0.5
    and 0.95, for short fits (the paper: pairs, 1e-3, 0.9 and 0.999). Rounding is other stages' work; the paper has 6
    bits for embeddings and 8 for weights.
    """

    name: ClassVar[str] = "hnerv"
    Config = HNervConfig
    bits_per_weight: ClassVar[float] = 2.5

    def resolve(self, config: HNervConfig, span: Span) -> HNervConfig:
        """Strides from the frame size, then the width whose parameter count is nearest to the size's."""
        _, _, height, width = span.shape
        strides = config.strides or paper_strides(height, width)
        kernels = config.kernels or KERNELS[: len(strides)]
        config = config.model_copy(update={"strides": strides, "kernels": kernels})
        if config.width is not None:
            return _widened(config, config.width)
        target = PARAMETERS_PER_PIXEL[config.size] * span.frame_count * height * width
        best = width_for(target, lambda n: self._count(_widened(config, n), span.shape), smallest=2, largest=512)
        return _widened(config, best)

    def build(self, config: HNervConfig, shape: Shape) -> HNervNetwork:
        """Make the network, untrained."""
        return HNervNetwork(config, shape)

    def scaffold(self, config: HNervConfig, module: nn.Module, clip: Clip) -> Scaffold:
        """Make the encoder, and what joins it and the network."""
        return TaughtNetwork(cast(HNervNetwork, module), config.strides or (), clip)

    def plan(self, config: HNervConfig, shape: Shape) -> FitPlan:
        """150 epochs of single frames; networks above 300,000, on which the rate was not tuned, get a lower one.

        At twice the rate a network of 22,000 died: one flat colour for ever. Gradients cut short gave 1 dB.
        """
        rate = 2e-3 * min(1.0, 300_000 / self._count(config, shape)) ** 0.5
        return FitPlan(steps=150 * shape[0], learning_rate=rate, betas=(0.5, 0.95), clip_norm=0.02)

    def channel_groups(self, config: HNervConfig, shape: Shape) -> Sequence[ChannelGroup]:
        """Channels of the embeddings, of the stem, and after each block."""
        width, strides, _, block_widths = _sizes(config)
        readers = [Places(f"{name}.weight", 1, bias=f"{name}.bias") for name in _readers(len(strides))]
        maps = (Places("embeddings.maps", 1),)
        stem = (Places("stem.0.weight"), Places("stem.0.bias"))
        return (
            ChannelGroup(
                size="embedding_width",
                channels=config.embedding_width,
                layer="embeddings",
                made_by=maps,
                read_by=readers[0],
            ),
            ChannelGroup(size="width", channels=width, layer="stem", made_by=stem, read_by=readers[1]),
            *(
                up_group(f"block_widths.{i}", f"blocks.{i}", block_widths[i], stride, readers[i + 2])
                for i, stride in enumerate(strides)
            ),
        )

    def narrowed(self, config: HNervConfig, sizes: Mapping[str, int]) -> HNervConfig:
        """State the new sizes; strides and kernels stay."""
        block_widths = tuple(sizes[f"block_widths.{i}"] for i in range(len(config.strides or ())))
        own = {name: sizes[name] for name in ("width", "embedding_width")}
        return config.model_copy(update={**own, "block_widths": block_widths})

    def _count(self, config: HNervConfig, shape: Shape) -> int:
        return network_parameters(lambda: self.build(config, shape))


def paper_strides(height: int, width: int) -> tuple[int, ...]:
    """Up-sampling factors from embeddings about 2 high: pairs of 2 become a 4 until at most 5 factors are left.

    5, 4, 4, 2, 2 for 640x1280; 5, 4, 3, 2, 2 for 480x960; 5, 4, 4, 3, 2 for 960x1920: as in the paper.
    """
    strides = list(frame_strides(height, width, SHORT_SIDE))
    while len(strides) > MAX_BLOCKS and strides.count(2) > 1:
        strides.remove(2)
        strides[strides.index(2)] = 4
    return tuple(sorted(strides, reverse=True))


def _readers(blocks: int) -> list[str]:
    """What reads the embeddings, the stem, and then each block."""
    return ["stem.0", *(f"blocks.{i}.conv" for i in range(blocks)), "head"]


def _widened(config: HNervConfig, width: int) -> HNervConfig:
    """Fill in everything that follows from `width`."""
    widths, least = [width], min(LEAST_WIDTH, width)
    for _ in config.strides or ():
        widths.append(max(least, round(widths[-1] / NARROWING)))
    return config.model_copy(update={"width": width, "block_widths": config.block_widths or tuple(widths[1:])})


def _sizes(config: HNervConfig) -> tuple[int, tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Width, strides, kernels, block widths, all there; ValueError if they do not go together."""
    width, strides, kernels, widths = config.width, config.strides, config.kernels, config.block_widths
    if width is None or strides is None or kernels is None or widths is None:
        raise ValueError(f"hnerv: sizes are still open in {config!r}; resolve the configuration first")
    if not len(strides) == len(kernels) == len(widths):
        raise ValueError(
            f"hnerv: {len(strides)} strides, {len(kernels)} kernels, {len(widths)} block_widths: one of each per block"
        )
    return width, strides, kernels, widths
