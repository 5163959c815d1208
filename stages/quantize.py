"""quantize: weights become integers."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from functools import partial
from typing import Literal, Self

from pydantic import Field, field_serializer, model_validator

from framefold.codecs.base import FitSettings
from framefold.codecs.network import FittedNetwork, SymbolTensors
from framefold.codecs.quantizing.allocation import Allocation, Rounding
from framefold.codecs.quantizing.quantize import quantize
from framefold.codecs.rate.targets import RateTarget
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Options, Output, Progress, Stage, StageContext
from framefold.stages.budget import Budget, reported
from framefold.stages.codec_choice import codec_of
from framefold.stages.device import device_of
from framefold.stages.targeting import quantized_to

Precision = Literal["equal", "mixed"]


class QuantizeConfig(Options, frozen=True):
    """Options of `quantize`. Those that older versions had not are left out of keys where they say nothing new."""

    bits: float = Field(
        default=8.0,
        ge=1,
        le=16,
        description="per weight: 2 .. 8, whole, vectors and the smallest tensors get a few more; "
        "with `precision: mixed` the mean, about",
    )
    granularity: Literal["tensor", "channel"] = Field(
        default="channel", description="one step per tensor or channel, where precision is equal"
    )
    precision: Precision = Field(
        default="equal",
        exclude_if=lambda precision: precision == "equal",
        description="mixed: steps follow from how much each tensor, row and column moves the picture",
    )
    rounding: Rounding | None = Field(
        default=None,
        exclude_if=lambda rounding: rounding is None,
        description="nearest; rate: near ties go to the cheaper symbol; trellis: dependent quantization, 8 states; "
        "joint: all weights together, for siren and coin of up to 4,096 weights, else rate; by default joint with "
        "mixed precision, the only one that has a choice",
    )
    target: RateTarget | None = Field(
        default=None,
        exclude_if=lambda target: target is None,
        description="{bpp: x}, {bytes: n}, {bits_per_weight: x} or {psnr_db: x} of each clip's or picture's stream, "
        "instead of bits; implies mixed precision",
    )
    calibrate: Budget | None = Field(
        default=None,
        exclude_if=lambda budget: budget is None,
        description="tune biases and other vectors for so long, once the weights are rounded",
    )

    @field_serializer("bits")
    def _whole_if_whole(self, bits: float) -> int | float:
        """Keys of units are those of before there were fractions."""
        return int(bits) if bits.is_integer() else bits

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.is_mixed and not (self.bits.is_integer() and 2 <= self.bits <= 8):
            raise ValueError(
                f"bits is {self.bits:g}; with equal precision 2, 3, … 8 are allowed, else set precision: mixed"
            )
        if not self.is_mixed and self.rounding not in (None, "nearest"):
            raise ValueError(f"rounding: {self.rounding} goes with precision: mixed, or with a target")
        return self

    @property
    def is_mixed(self) -> bool:
        """Whether steps follow from sensitivity."""
        return self.precision == "mixed" or self.target is not None


class Quantize(Stage):
    """Round a network's weights to integers on uniform grids."""

    Config = QuantizeConfig
    config: QuantizeConfig
    accepts = FittedNetwork
    emits = {"out": SymbolTensors}
    shared = frozenset({"target"})

    def setup(self, context: StageContext) -> None:
        """Fix seed and device."""
        self._device, self._seed = device_of(context), context.seed

    def process(self, item: Item) -> Iterator[Output]:
        """The only lossy step after the fit; zero stays zero."""
        network: FittedNetwork = item.payload
        symbols = (yield from self._mixed(network)) if self.config.is_mixed else self._equal(network)
        if self.config.calibrate:
            symbols = yield from self._calibrated(symbols, self.config.calibrate)
        yield symbols

    def _equal(self, network: FittedNetwork) -> SymbolTensors:
        return quantize(network, bits=int(self.config.bits), granularity=self.config.granularity)

    def _mixed(self, network: FittedNetwork) -> Generator[Progress, None, SymbolTensors]:
        codec = codec_of(network.codec, network.config)
        rounding = None if self.config.rounding == "joint" else self.config.rounding
        if network.target is None:
            allocation = Allocation.of(network, None)
        else:
            allocation = Allocation.measured(codec, network, jointly=rounding is None, device=self._device)
        at = partial(allocation.at, rounding=rounding or allocation.best_rounding)
        if self.config.target is None:
            return at(allocation.fineness_at(self.config.bits * allocation.weights))
        start = None if network.target is None else allocation.fineness_for
        return (
            yield from quantized_to(
                network,
                self.config.target,
                at,
                fineness_for=start,
                fineness_at=allocation.fineness_at,
                device=self._device,
            )
        )

    def _calibrated(self, symbols: SymbolTensors, budget: Budget) -> Generator[Progress, None, SymbolTensors]:
        settings = FitSettings(steps=budget.steps, seconds=budget.seconds, seed=self._seed, device=self._device)
        return (yield from reported(codec_of(symbols.codec, symbols.config).calibrate(symbols, settings)))
