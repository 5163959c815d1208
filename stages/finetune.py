"""finetune: let a network learn with its bits in the loss, and quantize it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from pydantic import Field

from framefold.codecs.base import RateSettings
from framefold.codecs.network import FittedNetwork, SymbolTensors
from framefold.codecs.rate.targets import RateTarget
from framefold.pipeline.item import Item
from framefold.pipeline.keepsake import DamagedKeepsake
from framefold.pipeline.stage import Options, Output, Stage, StageContext
from framefold.stages.budget import Budget, reported, resumed, settings_of
from framefold.stages.codec_choice import codec_of


class FinetuneConfig(Options, frozen=True):
    """Options of `finetune`."""

    budget: Budget | None = Field(default=None, description="{steps: n} or {seconds: n}; else a fifth of a fit's steps")
    target: RateTarget | None = Field(
        default=None,
        description="{bpp: x}, {bytes: n}, {bits_per_weight: x} or {psnr_db: x} of each clip's or picture's stream; "
        "else bits are spent until more would hardly better the picture",
    )
    learning_rate: float | None = Field(default=None, gt=0, le=1, description="of the weights; else a fifth of a fit's")


class Finetune(Stage):
    """Tune a fitted network with the bits of its weights in the loss: smaller and better than quantizing alone.

    Weights that are zero stay so. The state of half-done work is that of the codec's tuning.
    """

    Config = FinetuneConfig
    config: FinetuneConfig
    accepts = FittedNetwork
    emits = {"out": SymbolTensors}
    shared = frozenset({"target"})
    durable = True

    def setup(self, context: StageContext) -> None:
        """Fix seed, device and budget."""
        self._settings = settings_of(self.config.budget, context, learning_rate=self.config.learning_rate)

    def process(self, item: Item) -> Iterator[Output]:
        """Weights, steps and rounding learn together; the integers come out."""
        network: FittedNetwork = item.payload
        codec = codec_of(network.codec, network.config)
        start = partial(codec.tune_for_rate, network, RateSettings(target=self.config.target))
        yield (yield from reported(resumed(start, self._settings, item.checkpoint, network.span.label)))

    def packed(self, payload: SymbolTensors) -> SymbolTensors:
        """The symbols without pixels: the input has them."""
        return replace(payload, target=None)

    def restored(self, item: Item, kept: SymbolTensors) -> SymbolTensors:
        """The symbols with the pixels of the input; DamagedKeepsake if those are of another span."""
        given: FittedNetwork = item.payload
        if given.span != kept.span:
            raise DamagedKeepsake(f"{item.label} is {given.span.label}, kept symbols are of {kept.span.label}")
        return replace(kept, target=given.target)
