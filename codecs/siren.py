"""SIREN: a picture as a perceptron with sine activations from pixel position to colour.

Sitzmann, Martel, Bergman, Lindell, Wetzstein: Implicit Neural Representations with Periodic Activation
Functions (NeurIPS 2020), section 3. See `Siren` for the network and for what differs from the paper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar, Literal, TypeVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from framefold.codecs.base import CodecConfig
from framefold.codecs.clip import Clip, ImageBatch, Span
from framefold.codecs.fitting import FitPlan
from framefold.codecs.inr import NetworkCodec, Shape
from framefold.codecs.network import FittedNetwork
from framefold.codecs.pixel_format import PixelFormat
from framefold.codecs.pruning.channels import ChannelGroup, Places
from framefold.codecs.quantizing.curvature import MAX_WEIGHTS, Matrix, gauss_newton, spread_points
from framefold.codecs.sizing import network_parameters, width_for

PARAMETERS_PER_PIXEL = {"S": 0.05, "M": 0.1, "L": 0.2}
DEPTH = 5
POINTS_PER_STEP = 2048
"""Pixels that one step looks at, about: small enough for the cache, large enough for a steady gradient."""
POINTS_PER_PASS = 2**16
"""Pixels evaluated at a time when a picture is drawn."""


class SineConfig(CodecConfig):
    """The sizes of a `SirenNetwork`; a stored network states all of them."""

    width: int | None = Field(None, ge=2, le=1024, description="features of every hidden layer")
    depth: int | None = Field(None, ge=1, le=32, description="sine layers, the first included")
    first_frequency: float = Field(30.0, gt=0, le=1000, description="w0 of the first layer")
    frequency: float = Field(30.0, gt=0, le=1000, description="w0 of the other sine layers")


class SirenConfig(SineConfig):
    """Options of `siren`. What is None follows from the picture's size; a stored network states all of it."""

    size: Literal["S", "M", "L"] = Field(
        "M",
        description="parameters per pixel of the picture: S 0.05, M 0.1, L 0.2; overridden by `width`",
    )


class SineLayer(nn.Linear):
    """`sin(frequency * (W x + b))`, (N, inputs) -> (N, outputs), initialised as in section 3.2."""

    def __init__(self, inputs: int, outputs: int, frequency: float, *, first: bool) -> None:
        super().__init__(inputs, outputs)
        self.frequency = frequency
        nn.init.uniform_(self.weight, -1, 1)
        with torch.no_grad():
            self.weight *= 1 / inputs if first else math.sqrt(6 / inputs) / frequency

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs) -> (N, outputs), -1..1."""
        return torch.addmm(self.bias, x, self.weight.t(), beta=self.frequency, alpha=self.frequency).sin()


class SirenNetwork(nn.Module):
    """The network of `Siren` and of `coin.Coin`; every size comes from a resolved configuration."""

    def __init__(self, config: SineConfig, shape: Shape) -> None:
        super().__init__()
        if config.width is None or config.depth is None:
            raise ValueError(f"siren: sizes are still open in {config!r}; resolve the configuration first")
        _, colours, self.height, self.width = shape
        self.register_buffer("y", torch.linspace(-1, 1, self.height), persistent=False)
        self.register_buffer("x", torch.linspace(-1, 1, self.width), persistent=False)
        first = SineLayer(2, config.width, config.first_frequency, first=True)
        others = (SineLayer(config.width, config.width, config.frequency, first=False) for _ in range(config.depth - 1))
        self.layers = nn.Sequential(first, *others)
        self.head = nn.Linear(config.width, colours)
        nn.init.uniform_(self.head.weight, -1, 1)
        with torch.no_grad():
            self.head.weight *= math.sqrt(6 / config.width) / config.frequency
            self.head.bias.fill_(0.5)

    def forward(self, indices: Tensor, rows: slice = slice(None), columns: slice = slice(None)) -> Tensor:
        """LongTensor (B,) of zeros -> (B, C, h, w), about 0..1: the pixels of `rows` and `columns`."""
        points = self.points(rows, columns)
        passes = (points.flatten(0, 1),) if self.training else torch.split(points.flatten(0, 1), POINTS_PER_PASS)
        colours = torch.cat([self.colours(part) for part in passes])
        return colours.t().view(1, -1, *points.shape[:2]).expand(len(indices), -1, -1, -1)

    def points(self, rows: slice = slice(None), columns: slice = slice(None)) -> Tensor:
        """Positions x, y of the pixels of `rows` and `columns`, -1..1: (h, w, 2)."""
        y, x = torch.meshgrid(self.get_buffer("y")[rows], self.get_buffer("x")[columns], indexing="ij")
        return torch.stack((x, y), 2)

    def colours(self, points: Tensor) -> Tensor:
        """(N, 2), x and y of -1..1 -> (N, C), about 0..1."""
        colours: Tensor = self.head(self.layers(points))
        return colours


class _AtOnePoint(nn.Module):
    """(2,) -> (C,)."""

    def __init__(self, network: SirenNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, point: Tensor) -> Tensor:
        return self.network.colours(point[None])[0]


SineConfigT = TypeVar("SineConfigT", bound=SineConfig)


class SineCodec(NetworkCodec[SineConfigT]):
    """What `Siren` and `coin.Coin` have in common: all but the choice of sizes."""

    accepts: ClassVar[type[Clip] | type[ImageBatch]] = ImageBatch
    bits_per_weight: ClassVar[float] = 6.0
    joint_weights: ClassVar[int] = MAX_WEIGHTS

    def build(self, config: SineConfigT, shape: Shape) -> nn.Module:
        """Make the network, untrained."""
        return SirenNetwork(config, shape)

    def plan(self, config: SineConfigT, shape: Shape) -> FitPlan:
        """4,000 steps on lattices of the picture."""
        return sine_plan(config, shape)

    def channel_groups(self, config: SineConfigT, shape: Shape) -> Sequence[ChannelGroup]:
        """Features of the sine layers."""
        return sine_groups(config)

    def narrowed(self, config: SineConfigT, sizes: Mapping[str, int]) -> SineConfigT:
        """State the new width."""
        return config.model_copy(update={"width": sizes["width"]})

    def curvature(self, network: FittedNetwork, *, device: str = "cpu") -> Matrix | None:
        """Measure it at points spread over the picture, for networks of up to `MAX_WEIGHTS`."""
        if not self.has_curvature(network):
            return None
        _, module = self.load(network)
        one = _AtOnePoint(cast(SirenNetwork, module.to(device)))
        weights = _weights(network.span.source.pixels, device)

        def colour(parameters: Mapping[str, Tensor], point: Tensor) -> Tensor:
            seen: Tensor = functional_call(one, dict(parameters), (point,))
            return seen if weights is None else weights * seen

        parameters = {f"network.{name}": module.get_parameter(name) for name in network.tensors}
        count, channels = sum(parameter.numel() for parameter in parameters.values()), network.span.shape[1]
        return gauss_newton(
            colour, parameters, spread_points(one.network.points().flatten(0, 1), count, channels=channels)
        )


def _weights(pixels: PixelFormat, device: str) -> Tensor | None:
    """(C,): by what channels are multiplied so that each stored sample counts once in a mean of squares; None for 1."""
    if pixels.chroma == (1, 1):
        return None
    shares = torch.ones(pixels.channels)
    for plane in pixels.planes:
        shares[plane.channels] = 1 / (plane.rows * plane.columns)
    return (shares / shares.mean()).sqrt().to(device)


class Siren(SineCodec[SirenConfig]):
    """SIREN: pixel position -> sine layers -> colour; one network per picture.

    ```
    points (N, 2)     x, y of each pixel, -1..1
      | layers[0]     sin(first_frequency * (W p + b))      (N, width)
      | layers[i]     sin(frequency * (W h + b))            (N, width)     depth - 1 times
      | head          W h + b                               (N, C)         R, G, B or others, about 0..1
    ```
    Differences from the paper. Colours 0..1 with 0.5 as the head's first bias, not -1..1. Each step looks at
    a coarse lattice of pixels from a random offset, about 2,048 of them, instead of the whole picture: eight
    times as many steps and 3 dB more on a 192x128 photograph in the same 12 seconds of one core. Adam with a
    higher rate that falls to zero (paper: 1e-4, constant).
    """

    name: ClassVar[str] = "siren"
    Config = SirenConfig

    def resolve(self, config: SirenConfig, span: Span) -> SirenConfig:
        """Choose the width whose parameter count is nearest to the size's."""
        one_picture(self.name, span)
        config = config.model_copy(update={"depth": config.depth or DEPTH})
        if config.width is not None:
            return config
        target = PARAMETERS_PER_PIXEL[config.size] * span.source.height * span.source.width
        best = width_for(target, lambda n: self._count(config, n, span.shape), smallest=4, largest=512)
        return config.model_copy(update={"width": best})

    def _count(self, config: SirenConfig, width: int, shape: Shape) -> int:
        sized = config.model_copy(update={"width": width})
        return network_parameters(lambda: self.build(sized, shape))


def sine_plan(config: SineConfig, shape: Shape) -> FitPlan:
    """Say how a sine network is fitted to a picture of this shape.

    The rate falls with depth times width: from about 0.9 / (depth * width) on, networks were seen to die in
    their first steps and to give one flat colour ever after.
    """
    if config.depth is None or config.width is None:
        raise ValueError(f"siren: sizes are still open in {config!r}; resolve the configuration first")
    _, _, height, width = shape
    lattice = max(1, min(height, width, round(math.sqrt(height * width / POINTS_PER_STEP))))
    rate = min(3e-3, 0.5 / (config.depth * config.width))
    return FitPlan(steps=4000, learning_rate=rate, lattice=lattice, warm_up=0.05)


def sine_groups(config: SineConfig) -> tuple[ChannelGroup, ...]:
    """Give the features of each sine layer; one width counts them all, so all layers lose equally many."""
    if config.depth is None or config.width is None:
        raise ValueError(f"siren: sizes are still open in {config!r}; resolve the configuration first")
    names = [*(f"layers.{i}" for i in range(config.depth)), "head"]
    return tuple(
        ChannelGroup(
            size="width",
            channels=config.width,
            layer=name,
            made_by=(Places(f"{name}.weight"), Places(f"{name}.bias")),
            read_by=Places(f"{reader}.weight", 1, bias=f"{reader}.bias"),
            least=2,
        )
        for name, reader in pairwise(names)
    )


def one_picture(codec: str, span: Span) -> None:
    """ValueError unless the span is a single frame."""
    if span.frame_count != 1:
        raise ValueError(
            f"{span.label}: {codec} stores one picture per network, got {span.frame_count} frames; "
            "set frames_per_clip: 1 or take a video codec such as gridnerv"
        )
