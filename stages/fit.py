"""fit: overfit a network to each clip or picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pydantic import Field

from framefold.codecs.base import FitSettings, Loss
from framefold.codecs.clip import Clip, ImageBatch
from framefold.codecs.network import FittedNetwork
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Options, Output, Ports, Stage, StageContext
from framefold.stages.budget import Budget, Target, reported
from framefold.stages.codec_choice import CodecChoice
from framefold.stages.device import device_of


class FitConfig(Options, frozen=True):
    """Options of `fit`."""

    codec: CodecChoice = Field(description="{name: nerv, …}: a codec and its own options")
    budget: Budget | None = Field(default=None, description="{steps: n} or {seconds: n}; else the codec's default")
    target: Target | None = Field(default=None, description="{psnr_db: x}: stop early once reached")
    learning_rate: float | None = Field(default=None, gt=0, le=1, description="else tuned by the codec")
    loss: Loss | None = Field(default=None, description="else the codec's")


class Fit(Stage):
    """Overfit a neural network to each clip or picture."""

    Config = FitConfig
    config: FitConfig
    accepts = Clip | ImageBatch
    emits = {"out": FittedNetwork}

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
        """One network per clip, one per picture of a batch."""
        for clip in clips_of(item.payload):
            network = yield from reported(self._codec.fit(clip, self._settings))
            yield network


def clips_of(payload: Clip | ImageBatch) -> Iterable[Clip]:
    """What is fitted one by one: the clip itself, or each picture as a one-frame clip."""
    return [payload] if isinstance(payload, Clip) else payload
