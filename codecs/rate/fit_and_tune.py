"""A fit whose last part is rate-aware: from pixels to symbols in one go.

A state is that of the part that is under way: `{part: "fit", run}`, or `{part: "tune", config, tensors, run}` with the
network that the first part gave.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from framefold.codecs.base import Codec, FitProgress, FitSettings, FitState, Fitting, RateSettings, RateTuning
from framefold.codecs.clip import Clip
from framefold.codecs.network import FittedNetwork, FloatTensor, SymbolTensors


@dataclass(frozen=True, kw_only=True)
class FitAndTune:
    """How a clip becomes symbols."""

    codec: Codec
    fit: Callable[[FitSettings], Fitting]
    """The first part."""
    clip: Clip
    rate: RateSettings
    share: float
    """Of the budget for the second part, 0..1."""

    def run(self, settings: FitSettings) -> RateTuning:
        """Fit, then tune; ValueError if `settings.resume` is the state of other work."""
        run: FitState | None = None
        match settings.resume:
            case None:
                pass
            case {"part": "tune", "config": dict(config), "tensors": dict(tensors), "run": run}:
                return (yield from self._tune(self._fitted(config, tensors, settings), settings, run))
            case {"part": "fit", "run": run}:
                pass
            case _:
                raise ValueError("the state to go on from is not one of a fit that ends rate-aware; fit from the start")
        first = replace(_shared(settings, 1 - self.share), resume=run)
        network = yield from _scaled(self.fit(first), 0.0, 1 - self.share, lambda run: {"part": "fit", "run": run})
        return (yield from self._tune(network, settings, None))

    def _tune(self, network: FittedNetwork, settings: FitSettings, run: FitState | None) -> RateTuning:
        second = replace(_shared(settings, self.share), resume=run, start=None, learning_rate=None)
        codec = self.codec.from_config(network.config)
        tuning = codec.tune_for_rate(network, self.rate, second)
        symbols: SymbolTensors = yield from _scaled(tuning, 1 - self.share, self.share, partial(_tune_state, network))
        return symbols

    def _fitted(
        self, config: Mapping[str, Any], tensors: Mapping[str, FloatTensor], settings: FitSettings
    ) -> FittedNetwork:
        return FittedNetwork(
            span=self.clip.span,
            codec=self.codec.name,
            config=config,
            tensors=tensors,
            target=self.clip,
            parent=settings.start.network.parent if settings.start else None,
        )


def _tune_state(network: FittedNetwork, run: FitState | None) -> FitState:
    return {"part": "tune", "config": dict(network.config), "tensors": dict(network.tensors), "run": run}


def _shared(settings: FitSettings, share: float) -> FitSettings:
    """The share of the budget, if there is one."""
    steps = None if settings.steps is None else max(1, round(share * settings.steps))
    seconds = None if settings.seconds is None else share * settings.seconds
    return replace(settings, steps=steps, seconds=seconds)


def _scaled(
    part: Generator[FitProgress, None, Any],
    begin: float,
    share: float,
    labelled: Callable[[FitState | None], FitState],
) -> Generator[FitProgress, None, Any]:
    """Progress of a part as that of the whole."""
    while True:
        try:
            progress = next(part)
        except StopIteration as end:
            return end.value
        state = partial(_labelled, labelled, progress.state) if progress.state else None
        yield replace(progress, fraction=begin + share * progress.fraction, state=state)


def _labelled(labelled: Callable[[FitState | None], FitState], state: Callable[[], FitState]) -> Mapping[str, Any]:
    return labelled(state())
