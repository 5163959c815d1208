"""What all codecs have in common whose network is overfitted to the clip (implicit neural representations).

A subclass says which sizes follow from a clip (`resolve`), what the network is (`build`) and how it learns
best (`plan`). This class fits, fine-tunes, and turns stored tensors back into frames.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from framefold.codecs.base import (
    Codec,
    CodecConfig,
    FitProgress,
    FitSettings,
    Fitting,
    Masks,
    RateSettings,
    RateTuning,
)
from framefold.codecs.clip import Clip, Frames, Span
from framefold.codecs.fit_state import Kind, own_state, state_of
from framefold.codecs.fitting import FitPlan, fit, tensors_of
from framefold.codecs.network import FittedNetwork, FloatTensor, SymbolTensors
from framefold.codecs.pixel_format import PixelFormat
from framefold.codecs.pruning.channels import ChannelGroup
from framefold.codecs.quantizing.calibration import calibrated
from framefold.codecs.quantizing.sensitivity import squared_gradients
from framefold.codecs.rate.rate_tuning import tune_for_rate
from framefold.codecs.sizing import (
    MAX_ACTIVATION_BYTES,
    MAX_PARAMETERS,
    NetworkCost,
    network_cost,
    network_parameters,
    width_for,
)
from framefold.codecs.stored_samples import drawn_frames
from framefold.codecs.warm_start import WarmStart

MAX_CLIP_BYTES = 2**33
"""Decoded frames of one span, held in memory at once."""
DECODE_BYTES = 2**28
"""On a GPU frames are decoded in batches whose activations stay near this size."""

ConfigT = TypeVar("ConfigT", bound=CodecConfig)
Shape = tuple[int, int, int, int]
"""(T, C, H, W)."""


class Scaffold(nn.Module, ABC):
    """What is fitted in the place of a network that cannot learn so well alone: it holds the network.

    Of the rest nothing is stored. `forward` is as the network's; all that changes is in the parameters.
    """

    network: nn.Module

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @abstractmethod
    def settle(self) -> None:
        """Leave in the network all that it needs to stand alone: called once, when the fit is over."""


class NetworkCodec(Codec, Generic[ConfigT]):
    """Base of the codecs that store a clip as the parameters of one network.

    The network's `forward(indices)` maps LongTensor (B,), 0..T-1, to float32 (B, C, H, W), about 0..1; `rows`
    and `columns` (slices) may follow if `plan` asks for a lattice. All its state is in its parameters.
    """

    config: ConfigT
    fixes_size: ClassVar[frozenset[str]] = frozenset({"size", "preset", "width"})
    """Options that decide the size if they are stated."""
    joint_weights: ClassVar[int] = 0
    """Networks of up to so many weights have a `curvature`."""

    @abstractmethod
    def resolve(self, config: ConfigT, span: Span) -> ConfigT:
        """Make every size explicit; what is explicit already stays. ValueError if that cannot be."""

    @abstractmethod
    def build(self, config: ConfigT, shape: Shape) -> nn.Module:
        """Make the untrained network of a resolved configuration, with torch's global random generator."""

    @abstractmethod
    def plan(self, config: ConfigT, shape: Shape) -> FitPlan:
        """Say how the network is fitted unless the user decides otherwise."""

    @property
    def states_size(self) -> bool:
        """Whether one of `fixes_size` was given a value, or there is no `width` to choose."""
        stated = self.config.model_fields_set & self.fixes_size
        return "width" not in type(self.config).model_fields or any(getattr(self.config, name) for name in stated)

    def sized(self, span: Span, parameters: float) -> Self:
        """Choose the width, 2 ... 512, whose parameter count is nearest, whatever the options say of the size."""
        if "width" not in type(self.config).model_fields:
            return self
        best = width_for(parameters, lambda width: self._parameters(width, span), smallest=2, largest=512)
        return type(self)(self._wide(best))

    def _parameters(self, width: int, span: Span) -> int:
        config = self.resolve(self._wide(width), span)
        return network_parameters(lambda: self.build(config, span.shape))

    def _wide(self, width: int) -> ConfigT:
        return self.config.model_copy(update={"width": width})

    def channel_groups(self, config: ConfigT, shape: Shape) -> Sequence[ChannelGroup]:
        """Say which channels the network of a resolved configuration could do without; by default none."""
        return ()

    def narrowed(self, config: ConfigT, sizes: Mapping[str, int]) -> ConfigT:
        """Give the configuration after a loss of channels: `sizes` has each size of `channel_groups` as it is then."""
        raise NotImplementedError(f"codec {self.name!r} names groups of channels but no configuration without them")

    def scaffold(self, config: ConfigT, module: nn.Module, clip: Clip) -> Scaffold | None:
        """Give what a fit from random weights trains in the network's place; by default None: the network itself."""
        return None

    def fit(self, clip: Clip, settings: FitSettings) -> Fitting:
        """Fit a network to the clip's frames; the same seed, steps and start give the same tensors."""
        config = self.resolve(self.config, clip.span)
        plan = self.plan(config, clip.span.shape).overridden(settings)
        self._weigh(config, clip.span)
        start = settings.start
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(settings.seed)
            module = self.build(config, clip.span.shape)
            scaffold = None if start else self.scaffold(config, module, clip)
        if start is not None:
            self._begin_from(start, config, module)
        kind = {**self._kind("fit", config), "start": start and start.fingerprint}
        plan = plan.within("network.") if scaffold else plan
        resume = own_state(settings.resume, kind)
        fitting = fit(scaffold or module, clip.frames, plan, pixels=clip.pixels, resume=resume)
        yield from _weighed(fitting, module, kind)
        if scaffold:
            scaffold.settle()
        return replace(self._network(clip, config, module), parent=start.network.parent if start else None)

    def _begin_from(self, start: WarmStart, config: ConfigT, module: nn.Module) -> None:
        parameters = dict(module.named_parameters())
        shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
        start.check(codec=self.name, config=config.model_dump(mode="json"), shapes=shapes)
        _load_tensors(module, {**tensors_of(module), **start.tensors})
        for name, parameter in parameters.items():
            parameter.requires_grad_(not start.holds(name))

    def finetune(self, network: FittedNetwork, masks: Masks, settings: FitSettings) -> Fitting:
        """Go on fitting `network` to its `target`; by default a tenth of a fit's steps and of its rate."""
        if network.target is None:
            raise ValueError(f"{network.span.label}: fine-tuning needs the pixels the network was fitted to")
        config, module = self.load(network)
        plan, kind = self.gentle_plan(network, settings), self._kind("finetune", config)
        resume = own_state(settings.resume, kind)
        target = network.target
        fitting = fit(module, target.frames, plan, pixels=target.pixels, masks=masks, resume=resume)
        yield from _weighed(fitting, module, kind)
        return replace(self._network(target, config, module), parent=network.parent)

    def tune_for_rate(self, network: FittedNetwork, rate: RateSettings, settings: FitSettings) -> RateTuning:
        """Let weights, steps and rounding learn together (see `rate_tuning`); by default a fifth of a fit's steps."""
        kind = self._kind("rate", self._explicit(network))
        return tune_for_rate(self, network, rate, settings, kind)

    def calibrate(self, symbols: SymbolTensors, settings: FitSettings) -> RateTuning:
        """See `calibration`; by default a tenth of a fit's steps."""
        return calibrated(self, symbols, settings)

    def sensitivity(self, network: FittedNetwork, *, device: str = "cpu") -> Mapping[str, FloatTensor]:
        """Measure it by back-propagating random signs through every frame."""
        config, module = self.load(network)
        lattice = self.plan(config, network.span.shape).lattice
        pixels = network.span.source.pixels
        return squared_gradients(module, network.span.frame_count, pixels=pixels, lattice=lattice, device=device)

    def has_curvature(self, network: FittedNetwork) -> bool:
        """Whether `curvature` gives one."""
        return sum(tensor.size for tensor in network.tensors.values()) <= self.joint_weights

    def gentle_plan(self, network: FittedNetwork, settings: FitSettings) -> FitPlan:
        """Say how a fitted network is tuned further: a tenth of a fit's steps and rate, unless `settings` differs."""
        plan = self.plan(self._explicit(network), network.span.shape)
        gentle = FitSettings(steps=max(1, (plan.steps or 1000) // 10), learning_rate=plan.learning_rate / 10)
        return plan.overridden(gentle).overridden(settings)

    def reconstruct(self, network: FittedNetwork, *, device: str = "cpu") -> Clip:
        """Draw the network's frames, (T, C, H, W) of the span's format; the same every time on one machine.

        ValueError names what in the configuration or the tensors does not fit the codec.
        """
        frames = self.draw(network, range(network.span.frame_count), device=device)
        return Clip(span=network.span, frames=frames)

    def draw(self, network: FittedNetwork, places: Sequence[int], *, device: str = "cpu") -> Frames:
        """Draw some of the frames, (n, C, H, W); a CPU gives each of them as it does among all, whatever the others."""
        config, module = self.load(network)
        module = module.to(device).eval()
        cost = self._weigh(config, network.span)
        pixels = network.span.source.pixels
        frames: Frames = np.empty((len(places), *network.span.shape[1:]), pixels.dtype)
        done = 0
        for indices in torch.split(torch.tensor(list(places)), _frames_at_once(cost, device)):
            frames[done : done + len(indices)] = _draw(module, indices.to(device), pixels)
            done += len(indices)
        return frames

    def _kind(self, work: Literal["fit", "finetune", "rate", "rate first"], config: ConfigT) -> Kind:
        return {"codec": self.name, "work": work, "config": config.model_dump(mode="json")}

    def _network(self, clip: Clip, config: ConfigT, module: nn.Module) -> FittedNetwork:
        return FittedNetwork(
            span=clip.span,
            codec=self.name,
            config=config.model_dump(mode="json"),
            tensors=tensors_of(module),
            target=clip,
        )

    def load(self, network: FittedNetwork) -> tuple[ConfigT, nn.Module]:
        """Give the network's own configuration (not this codec's) and its module, tensors in place."""
        if network.codec != self.name:
            label = network.span.label
            raise ValueError(f"{label}: a network of codec {network.codec!r} given to {self.name!r}")
        config = self._explicit(network)
        self._weigh(config, network.span)
        with torch.random.fork_rng(devices=()):
            module = self.build(config, network.span.shape)
        _load_tensors(module, network.tensors)
        return config, module

    def _explicit(self, network: FittedNetwork) -> ConfigT:
        config = cast(ConfigT, self.Config.model_validate(dict(network.config)))
        absent = sorted(config.model_dump(mode="json").keys() - network.config.keys())
        if absent or self.resolve(config, network.span) != config:
            raise ValueError(
                f"{network.span.label}: the stored options of codec {self.name!r} leave sizes open "
                f"({', '.join(absent) or 'some are null'}); a stored network states all of them"
            )
        return config

    def _weigh(self, config: ConfigT, span: Span) -> NetworkCost:
        """Measure what the network costs; ValueError if that is beyond the limits; nothing is allocated."""
        frames, _, height, width = span.shape
        frame_bytes = math.prod(span.shape) * span.source.pixels.dtype.itemsize
        cost = network_cost(lambda: self.build(config, span.shape))
        for what, value, limit in (
            ("parameters", cost.parameters, MAX_PARAMETERS),
            ("bytes of activations per frame", cost.activation_bytes, MAX_ACTIVATION_BYTES),
            ("bytes of frames in one span", frame_bytes, MAX_CLIP_BYTES),
        ):
            if value > limit:
                raise ValueError(
                    f"{self.name} at {width}x{height}, {frames} frames: {value} {what}, at most {limit} are "
                    "allowed; take a smaller size or shorter clips"
                )
        return cost


def _weighed(fitting: Iterator[FitProgress], module: nn.Module, kind: Kind) -> Iterator[FitProgress]:
    """Add to each progress what the network would take if it were stored as it is, and to its state its kind."""
    for progress in fitting:
        tensors = tensors_of(module).values()
        bits = sum(estimated_bits(tensor) for tensor in tensors)
        yield replace(progress, bits=bits, state=partial(state_of, progress, kind))


def estimated_bits(tensor: FloatTensor) -> float:
    """Order-0 entropy of the tensor at 8 bits per weight on one uniform grid, in bits: an estimate for display."""
    peak = float(np.abs(tensor).max(initial=0.0))
    if not 0 < peak < np.inf:
        return 0.0
    symbols = np.rint(tensor.ravel() * (127 / peak)).astype(np.int64) + 127
    counts = np.bincount(symbols)
    counts = counts[counts > 0]
    return float(np.sum(counts * np.log2(tensor.size / counts)))


def _frames_at_once(cost: NetworkCost, device: str) -> int:
    """How many frames are drawn together.

    On a CPU one: kernels round differently for other numbers of frames, so that a frame alone would not be the frame
    among others; and several took a third longer each. A GPU needs many to be busy.
    """
    return 1 if torch.device(device).type == "cpu" else max(1, DECODE_BYTES // max(1, cost.activation_bytes))


def _draw(module: nn.Module, indices: Tensor, pixels: PixelFormat) -> Frames:
    """Draw the frames of `indices`, (B, C, H, W), without a GPU's shortcuts in precision."""
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    with torch.inference_mode(), exact:
        return drawn_frames(module(indices), pixels)


def _load_tensors(module: nn.Module, tensors: Mapping[str, FloatTensor]) -> None:
    """Copy the tensors into the module; ValueError names those that are missing, unknown or do not fit."""
    parameters = dict(module.named_parameters())
    if missing := sorted(parameters.keys() - tensors.keys()):
        raise ValueError(f"the network lacks the tensors {missing}")
    if unknown := sorted(tensors.keys() - parameters.keys()):
        raise ValueError(f"the network has tensors {unknown}; the codec knows only {sorted(parameters)}")
    for name, parameter in parameters.items():
        _load_tensor(name, parameter, tensors[name])


def _load_tensor(name: str, parameter: nn.Parameter, stored: Any) -> None:
    value = np.asarray(stored)
    if value.shape != tuple(parameter.shape) or value.dtype != np.float32:
        expected = tuple(parameter.shape)
        raise ValueError(f"tensor {name!r} is {value.dtype} {value.shape}, but needs float32 {expected}")
    if not np.isfinite(value).all():
        raise ValueError(f"tensor {name!r} has values that are not finite")
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(np.array(value)))
