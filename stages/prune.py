"""prune: take the weights away that the picture needs least, and let the others recover."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from framefold.codecs.base import Codec, FitSettings, Fitting, Masks
from framefold.codecs.inr import NetworkCodec
from framefold.codecs.network import FittedNetwork
from framefold.codecs.pruning.gated_pruning import gate_pruned
from framefold.codecs.pruning.narrowing import without_channels
from framefold.codecs.pruning.prune import (
    Scores,
    apply_masks,
    magnitude_scores,
    masks_of,
    sensitivity_scores,
    size_normalised_scores,
)
from framefold.pipeline.item import Item
from framefold.pipeline.keepsake import DamagedKeepsake
from framefold.pipeline.stage import Options, Output, Stage, StageContext
from framefold.stages.budget import Budget, reported, resumed, settings_of
from framefold.stages.codec_choice import codec_of

Method = Literal["magnitude", "size_normalised", "sensitivity", "channels", "l0"]


class PruneConfig(Options, frozen=True):
    """Options of `prune`."""

    method: Method = Field(
        default="magnitude",
        exclude_if=lambda method: method == "magnitude",  # keys of units are those of before there were others
        description="zeros by magnitude, size_normalised magnitude, measured sensitivity, or gates that learn (l0); or "
        "whole channels away, for a really smaller network",
    )
    keep: float = Field(default=0.85, gt=0, le=1, description="share of the weights that stay")
    finetune: Budget | None = Field(
        default=Budget(steps=100), description="afterwards; null for none; of l0: gates learn for 3/4 of it"
    )
    learning_rate: float | None = Field(default=None, gt=0, le=1, description="of the fine-tuning")
    gates: Literal["weight", "row"] | None = Field(
        default=None,
        exclude_if=lambda gates: gates is None,
        description="of l0: one for each weight, by default, or for each row of a weight tensor",
    )

    @field_validator("finetune")
    @classmethod
    def _gates_learn(cls, finetune: Budget | None, info: ValidationInfo) -> Budget | None:
        if finetune is None and info.data.get("method") == "l0":
            raise ValueError("method l0 learns its gates while it fine-tunes: give {steps: 2000} or {seconds: 60}")
        return finetune

    @field_validator("gates")
    @classmethod
    def _gates_belong_to_l0(cls, gates: str | None, info: ValidationInfo) -> str | None:
        if gates is not None and info.data.get("method", "l0") != "l0":
            raise ValueError(f"method {info.data['method']} has no gates: set method: l0, or leave gates away")
        return gates


class Prune(Stage):
    """Set the weights that matter least to zero, or take whole channels away, then fine-tune the rest.

    Zeros are coded like other symbols: where they are is paid for in every figure of the bytes.
    """

    Config = PruneConfig
    config: PruneConfig
    accepts = FittedNetwork
    emits = {"out": FittedNetwork}
    durable = True

    def setup(self, context: StageContext) -> None:
        """Fix seed, device and budget."""
        self._settings = settings_of(self.config.finetune, context, learning_rate=self.config.learning_rate)

    def process(self, item: Item) -> Iterator[Output]:
        """Prune over all weight tensors of the network; vectors such as biases go with their channels only.

        The state of half-done work is that of the codec's fine-tuning, or of `gated_pruning`. ValueError if the codec
        or the network has not what the method needs.
        """
        network: FittedNetwork = item.payload
        codec = codec_of(network.codec, network.config)
        if self.config.method != "l0" and (self.config.finetune is None or network.target is None):
            yield self._cut(codec, network)[0]
            return
        start = self._start(codec, network)
        yield (yield from reported(resumed(start, self._settings, item.checkpoint, network.span.label)))

    def _start(self, codec: Codec, network: FittedNetwork) -> Callable[[FitSettings], Fitting]:
        if self.config.method == "l0":
            rows = self.config.gates == "row"
            return partial(gate_pruned, self._able(codec), network, self.config.keep, rows=rows)
        return partial(codec.finetune, *self._cut(codec, network))

    def _cut(self, codec: Codec, network: FittedNetwork) -> tuple[FittedNetwork, Masks]:
        """The network without what goes, and what has to stay zero in it."""
        keep, device = self.config.keep, self._settings.device
        if self.config.method == "channels":
            return without_channels(self._able(codec), network, keep, device=device), {}
        masks = masks_of(network.tensors, self._scores(codec, network), keep)
        return apply_masks(network, masks), masks

    def _scores(self, codec: Codec, network: FittedNetwork) -> Scores:
        if self.config.method == "magnitude":
            return magnitude_scores(network.tensors)
        if self.config.method == "size_normalised":
            return size_normalised_scores(network.tensors)
        sensitivity = codec.sensitivity(network, device=self._settings.device)
        if sensitivity is None:
            raise ValueError(f"codec {codec.name!r} measures no sensitivity; set method: size_normalised")
        return sensitivity_scores(network.tensors, sensitivity)

    def _able(self, codec: Codec) -> NetworkCodec[Any]:
        if not isinstance(codec, NetworkCodec):
            raise ValueError(
                f"codec {codec.name!r} is no NetworkCodec, which method {self.config.method} works on; "
                "set method: magnitude or size_normalised"
            )
        return codec

    def packed(self, payload: FittedNetwork) -> FittedNetwork:
        """The network without its pixels: the input has them."""
        return replace(payload, target=None)

    def restored(self, item: Item, kept: FittedNetwork) -> FittedNetwork:
        """The network with the pixels of the input; DamagedKeepsake if those are of another span."""
        given: FittedNetwork = item.payload
        if given.span != kept.span:
            raise DamagedKeepsake(f"{item.label} is {given.span.label}, a kept network is of {kept.span.label}")
        return replace(kept, target=given.target)
