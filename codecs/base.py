"""The contract of a codec: pixels in, a network out; a network in, pixels out.

A codec's name in an archive is a promise: the same configuration means the same network, and every later
reader decodes it. To change what a name means, take a new name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from framefold.codecs.clip import Clip, Frames, ImageBatch, Span
from framefold.codecs.network import FittedNetwork, FloatTensor, SymbolTensors
from framefold.codecs.rate.targets import RateTarget
from framefold.codecs.warm_start import WarmStart

if TYPE_CHECKING:
    from framefold.codecs.quantizing.curvature import Matrix
    from framefold.codecs.stream.contexts import ContextRule

Loss = Literal["l2", "l1", "l1_ssim"]

FitState = Mapping[str, Any]
"""A half-done fit as plain data: dicts, lists, numpy arrays, numbers, strings, bytes. Only its codec reads it."""


class CodecConfig(BaseModel, frozen=True, extra="forbid"):
    """Base of every codec's `Config`: frozen, unknown options are refused."""


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How long and how a network is fitted; None leaves the choice to the codec."""

    steps: int | None = None
    """Optimiser steps; None with `seconds` None means the codec's default."""
    seconds: float | None = None
    """Wall-clock budget of the fit, instead of steps."""
    target_psnr_db: float | None = None
    """Stop early once the fitted network reaches this PSNR."""
    learning_rate: float | None = None
    loss: Loss | None = None
    seed: int = 0
    device: str = "cpu"
    start: WarmStart | None = field(default=None, repr=False, compare=False)
    """Begin from a stored network instead of random weights."""
    resume: FitState | None = field(default=None, repr=False, compare=False)
    """Go on from what `FitProgress.state` gave in an earlier fit of the same frames under the same settings."""


@dataclass(frozen=True, kw_only=True)
class FitProgress:
    """Where a running fit stands."""

    fraction: float
    """0..1 of the budget."""
    step: int
    psnr_db: float | None = None
    """Estimated from the training loss; the reported figure is measured on decoded frames."""
    bits: float | None = None
    """What the network would take at 8 bits per weight and order-0 coding: an estimate of the size to come."""
    state: Callable[[], FitState] | None = field(default=None, repr=False, compare=False)
    """Copies all that decides the rest of the fit, as it stands before the next progress is asked for; None for a
    codec that cannot go on from where it was."""


@dataclass(frozen=True, kw_only=True)
class RateSettings:
    """What rate-aware tuning aims at."""

    target: RateTarget | None = None
    """None: bits are spent until more of them would hardly better the picture."""
    bit_price: float | None = None
    """What one more bit per pixel has to better the mean squared error by, in squared levels of 255."""

    def price(self, span: Span) -> float | None:
        """What one more bit of the span's stream has to better it by, samples 0..1; None if nothing was said."""
        frames, _, height, width = span.shape
        return self.bit_price and self.bit_price / (255.0**2 * frames * height * width)


Fitting = Generator[FitProgress, None, FittedNetwork]
"""A fit under way: iterate for progress, its return value is the network."""

RateTuning = Generator[FitProgress, None, SymbolTensors]
"""Rate-aware tuning under way: its return value is the quantized network."""

Masks = Mapping[str, npt.NDArray[np.bool_]]
"""Per tensor: True where a weight may be non-zero."""


class Codec(ABC):
    """One way to turn pixels into a network and back.

    A fit that gives its state can be gone on with, later or elsewhere: under a budget in steps, on the same
    machine, the network is that of an uninterrupted fit, bit for bit. A codec that fits in several phases puts
    into the state which one it is in. Its first progress should come before the first long step: a request to
    stop is heard at a progress only.
    """

    name: ClassVar[str]
    """As registered under the entry points `framefold.codecs`."""
    Config: ClassVar[type[CodecConfig]] = CodecConfig
    accepts: ClassVar[type[Clip] | type[ImageBatch]] = Clip
    """What a pipeline may feed it; `fit` itself always sees one `Clip` (a picture is a one-frame clip)."""

    bits_per_weight: ClassVar[float] = 4.0
    """Of a stream: with so many, about, its bytes give the best picture; for choosing the size from the bytes."""

    def __init__(self, config: Any = None) -> None:
        self.config = config if config is not None else self.Config()

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """From plain JSON values, as an archive holds them; ValueError names what does not fit."""
        return cls(cls.Config.model_validate(dict(config)))

    @property
    def states_size(self) -> bool:
        """Whether the options as they were written decide how large the network is; else a target may choose."""
        return True

    def sized(self, span: Span, parameters: float) -> Self:
        """Give this codec with a network of about so many parameters for the span; itself where it has but one size."""
        return self

    @abstractmethod
    def fit(self, clip: Clip, settings: FitSettings) -> Fitting:
        """Fit a network to the clip's frames (T, C, H, W).

        ValueError if `settings.resume` is of another fit, or `settings.start` a network of another kind. A codec that
        cannot begin from one leaves the network's `parent` empty.
        """

    @abstractmethod
    def finetune(self, network: FittedNetwork, masks: Masks, settings: FitSettings) -> Fitting:
        """Go on fitting `network` to its `target`, weights outside the masks held at zero.

        ValueError if `settings.resume` is not the state of such a fine-tuning.
        """

    def tune_for_rate(self, network: FittedNetwork, rate: RateSettings, settings: FitSettings) -> RateTuning:
        """Tune `network` to its `target` pixels with the bits of its weights in the loss, and quantize it.

        Weights that are exactly zero stay so; the symbols' `outcome` says how the rate's target was met. ValueError
        from a codec that cannot, for a network without pixels, and if `settings.resume` is of other work.
        """
        raise ValueError(f"codec {self.name!r} has no rate-aware tuning; use the stage quantize")

    def fit_for_rate(self, clip: Clip, rate: RateSettings, settings: FitSettings) -> RateTuning | None:
        """Fit the clip with bits in the loss from the first step on; None from a codec that learns them afterwards."""
        return None

    def calibrate(self, symbols: SymbolTensors, settings: FitSettings) -> RateTuning:
        """Tune biases and other vectors to the network's `target` while all other symbols stay as they are.

        ValueError from a codec that cannot, and for a network without pixels.
        """
        raise ValueError(f"codec {self.name!r} has no calibration; leave the option calibrate away")

    def sensitivity(self, network: FittedNetwork, *, device: str = "cpu") -> Mapping[str, FloatTensor] | None:
        """Per weight h >= 0: small errors d of the weights raise the frames' mean squared error by sum(h * d**2).

        Float32 of the weights' shapes, samples on the scale 0..1. None from a codec that cannot say.
        """
        return None

    def curvature(self, network: FittedNetwork, *, device: str = "cpu") -> Matrix | None:
        """The same for errors that go together: the mean squared error rises by d' C d; float64 (n, n).

        All weights of all tensors, in their order, flat. None where nobody can say: most networks are too large.
        """
        return None

    def context_rule(self, name: str, shape: tuple[int, ...]) -> ContextRule | None:
        """Say how the symbols of one of the codec's tensors foretell each other; None leaves that to the coder.

        A stored stream is decoded with the rule that the codec gives then: it is a part of the codec's promise.
        """
        return None

    def draw(self, network: FittedNetwork, places: Sequence[int], *, device: str = "cpu") -> Frames:
        """Draw some of the frames, (n, C, H, W), by their places 0 .. T - 1: as `reconstruct` draws them among all."""
        return self.reconstruct(network, device=device).frames[list(places)]

    @abstractmethod
    def reconstruct(self, network: FittedNetwork, *, device: str = "cpu") -> Clip:
        """The decoded frames: (T, C, H, W) in the pixel format of the span's source."""
