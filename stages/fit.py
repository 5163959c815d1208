"""fit: overfit a network to each clip or picture."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from pydantic import Field

from framefold.codecs.base import FitProgress, FitSettings, FitState, Loss
from framefold.codecs.clip import Clip, ImageBatch
from framefold.codecs.network import FittedNetwork
from framefold.pipeline.item import Item
from framefold.pipeline.keepsake import DamagedKeepsake
from framefold.pipeline.stage import Options, Output, Ports, Progress, Stage, StageContext
from framefold.stages.budget import Budget, Target, progress_of, reported, resumed
from framefold.stages.codec_choice import CodecChoice
from framefold.stages.device import device_of

STATE_VERSION = 1

_log = logging.getLogger(__name__)


class FitConfig(Options, frozen=True):
    """Options of `fit`."""

    codec: CodecChoice = Field(description="{name: nerv, …}: a codec and its own options")
    budget: Budget | None = Field(default=None, description="{steps: n} or {seconds: n}; else the codec's default")
    target: Target | None = Field(default=None, description="{psnr_db: x}: stop early once reached")
    learning_rate: float | None = Field(default=None, gt=0, le=1, description="else tuned by the codec")
    loss: Loss | None = Field(default=None, description="else the codec's")


class Fit(Stage):
    """Overfit a neural network to each clip or picture.

    The state of half-done work is `{version, done, fit}`: the networks of the item's first pictures, without
    pixels, and the codec's state of the fit of the next one.
    """

    Config = FitConfig
    config: FitConfig
    accepts = Clip | ImageBatch
    emits = {"out": FittedNetwork}
    durable = True

    @classmethod
    def ports(cls, config: FitConfig) -> Ports:
        """What the chosen codec takes."""
        return Ports(accepts=config.codec.codec_class.accepts, emits=cls.emits)

    def setup(self, context: StageContext) -> None:
        """Build the codec and fix seed and device."""
        self._codec = self.config.codec.build()
        budget, target = self.config.budget or None, self.config.target
        self._settings = FitSettings(
            steps=budget.steps if budget else None,
            seconds=budget.seconds if budget else None,
            target_psnr_db=target.psnr_db if target else None,
            learning_rate=self.config.learning_rate,
            loss=self.config.loss,
            seed=context.seed,
            device=device_of(context),
        )

    def process(self, item: Item) -> Iterator[Output]:
        """One network per clip, one per picture of a batch; those that a checkpoint holds are not fitted again."""
        clips = clips_of(item.payload)
        done, state = half_done(item, clips)
        for network in done:
            yield self.restored(item, network)
        for clip in clips[len(done) :]:
            told = partial(_told, tuple(done), len(clips))
            fitting = resumed(partial(self._codec.fit, clip), self._settings, state, clip.span.label)
            network = yield from reported(fitting, told)
            yield network
            state = None
            done.append(self.packed(network))

    def packed(self, payload: FittedNetwork) -> FittedNetwork:
        """The network without its pixels: the input has them."""
        return replace(payload, target=None)

    def restored(self, item: Item, kept: FittedNetwork) -> FittedNetwork:
        """The network with its pixels; DamagedKeepsake if the input has none of its span."""
        for clip in clips_of(item.payload):
            if clip.span == kept.span:
                return replace(kept, target=clip)
        raise DamagedKeepsake(f"{item.label} holds no {kept.span.label}, to which a kept network was fitted")


def clips_of(payload: Clip | ImageBatch) -> Sequence[Clip]:
    """What is fitted one by one: the clip itself, or each picture as a one-frame clip."""
    return (payload,) if isinstance(payload, Clip) else payload.pictures


def half_done(item: Item, clips: Sequence[Clip]) -> tuple[list[FittedNetwork], FitState | None]:
    """What the item's checkpoint holds: networks of its first clips, and the state of the next one's fit.

    Nothing, with a warning, if it was made for other clips.
    """
    match item.checkpoint:
        case None:
            return [], None
        case {"version": version, "done": [*done], "fit": state} if version == STATE_VERSION and _are_of(done, clips):
            return done, state
    _log.warning("%s: its checkpoint is of another version or of other clips; the fit begins anew", item.label)
    return [], None


def _are_of(networks: Sequence[Any], clips: Sequence[Clip]) -> bool:
    spans = [network.span if isinstance(network, FittedNetwork) else None for network in networks]
    return len(spans) < len(clips) and spans == [clip.span for clip in clips[: len(spans)]]


def _told(done: Sequence[FittedNetwork], count: int, step: FitProgress) -> Progress:
    """Progress of one picture's fit as that of the item."""
    progress = progress_of(step)
    state = partial(_state, done, step) if done or step.state else None
    return replace(progress, fraction=(len(done) + progress.fraction) / count, state=state)


def _state(done: Sequence[FittedNetwork], step: FitProgress) -> dict[str, Any]:
    return {"version": STATE_VERSION, "done": list(done), "fit": step.state() if step.state else None}
