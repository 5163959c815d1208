"""The contract of a codec: pixels in, a network out; a network in, pixels out.

A codec's name in an archive is a promise: the same configuration means the same network, and every later
reader decodes it. To change what a name means, take a new name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from framefold.codecs.clip import Clip, ImageBatch
from framefold.codecs.network import FittedNetwork

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


Fitting = Generator[FitProgress, None, FittedNetwork]
"""A fit under way: iterate for progress, its return value is the network."""

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

    def __init__(self, config: Any = None) -> None:
        self.config = config if config is not None else self.Config()

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """From plain JSON values, as an archive holds them; ValueError names what does not fit."""
        return cls(cls.Config.model_validate(dict(config)))

    @abstractmethod
    def fit(self, clip: Clip, settings: FitSettings) -> Fitting:
        """Fit a network to the clip's frames (T, 3, H, W); ValueError if `settings.resume` is of another fit."""

    @abstractmethod
    def finetune(self, network: FittedNetwork, masks: Masks, settings: FitSettings) -> Fitting:
        """Go on fitting `network` to its `target`, weights outside the masks held at zero.

        ValueError if `settings.resume` is not the state of such a fine-tuning.
        """

    @abstractmethod
    def reconstruct(self, network: FittedNetwork, *, device: str = "cpu") -> Clip:
        """The decoded frames: (T, 3, H, W) uint8."""
