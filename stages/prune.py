"""prune: set the smallest weights to zero and let the others recover."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from pydantic import Field

from framefold.codecs.base import FitSettings
from framefold.codecs.network import FittedNetwork
from framefold.codecs.prune import apply_masks, magnitude_masks
from framefold.pipeline.item import Item
from framefold.pipeline.keepsake import DamagedKeepsake
from framefold.pipeline.stage import Options, Output, Stage, StageContext
from framefold.stages.budget import Budget, reported, resumed
from framefold.stages.codec_choice import codec_of
from framefold.stages.device import device_of


class PruneConfig(Options, frozen=True):
    """Options of `prune`."""

    keep: float = Field(default=0.85, gt=0, le=1, description="share of the weights that stay")
    finetune: Budget | None = Field(default=Budget(steps=100), description="afterwards; null for none")
    learning_rate: float | None = Field(default=None, gt=0, le=1, description="of the fine-tuning")


class Prune(Stage):
    """Set the smallest weights of a network to zero, then fine-tune the rest."""

    Config = PruneConfig
    config: PruneConfig
    accepts = FittedNetwork
    emits = {"out": FittedNetwork}
    durable = True

    def setup(self, context: StageContext) -> None:
        """Fix seed, device and budget."""
        budget = self.config.finetune
        self._settings = FitSettings(
            steps=budget.steps if budget else None,
            seconds=budget.seconds if budget else None,
            learning_rate=self.config.learning_rate,
            seed=context.seed,
            device=device_of(context),
        )

    def process(self, item: Item) -> Iterator[Output]:
        """Global magnitude pruning over all weight tensors; vectors such as biases are kept.

        The state of half-done work is that of the codec's fine-tuning.
        """
        network: FittedNetwork = item.payload
        masks = magnitude_masks(network.tensors, self.config.keep)
        network = apply_masks(network, masks)
        if self.config.finetune and network.target is not None:
            codec = codec_of(network.codec, network.config)
            start = partial(codec.finetune, network, masks)
            network = yield from reported(resumed(start, self._settings, item.checkpoint, network.span.label))
        yield network

    def packed(self, payload: FittedNetwork) -> FittedNetwork:
        """The network without its pixels: the input has them."""
        return replace(payload, target=None)

    def restored(self, item: Item, kept: FittedNetwork) -> FittedNetwork:
        """The network with the pixels of the input; DamagedKeepsake if those are of another span."""
        given: FittedNetwork = item.payload
        if given.span != kept.span:
            raise DamagedKeepsake(f"{item.label} is {given.span.label}, a kept network is of {kept.span.label}")
        return replace(kept, target=given.target)
