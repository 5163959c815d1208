"""How long a network is fitted, as stages are told it; and a fit as a stage runs it, from where it was left."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any, Self, TypeVar

from pydantic import BaseModel, Field, model_validator

from framefold.codecs.base import FitProgress, FitSettings, FitState
from framefold.codecs.network import FittedNetwork, SymbolTensors
from framefold.pipeline.stage import Progress, StageContext
from framefold.stages.device import device_of

NetworkT = TypeVar("NetworkT", bound=FittedNetwork | SymbolTensors)

_log = logging.getLogger(__name__)


class Budget(BaseModel, frozen=True, extra="forbid"):
    """Either a number of optimiser steps (reproducible) or seconds of wall-clock time (predictable)."""

    steps: int | None = Field(default=None, ge=1, le=10_000_000)
    seconds: float | None = Field(default=None, gt=0, le=30 * 86_400)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.steps is None) == (self.seconds is None):
            raise ValueError("give either steps or seconds, as in {steps: 2000} or {seconds: 60}")
        return self


def settings_of(budget: Budget | None, context: StageContext, **others: Any) -> FitSettings:
    """Settings of a fit under this budget, with the node's seed and device; None leaves the length to the codec."""
    return FitSettings(
        steps=budget.steps if budget else None,
        seconds=budget.seconds if budget else None,
        seed=context.seed,
        device=device_of(context),
        **others,
    )


def progress_of(step: FitProgress) -> Progress:
    """A fit's progress as the engine's."""
    values = {"psnr_db": step.psnr_db, "bits": step.bits}
    return Progress(step.fraction, {name: value for name, value in values.items() if value is not None}, step.state)


def reported(
    fitting: Generator[FitProgress, None, NetworkT], told: Callable[[FitProgress], Progress] = progress_of
) -> Generator[Progress, None, NetworkT]:
    """Run a fit, turning its progress into the engine's; returns the network."""
    while True:
        try:
            step = next(fitting)
        except StopIteration as end:
            network: NetworkT = end.value
            return network
        yield told(step)


def resumed(
    start: Callable[[FitSettings], Generator[FitProgress, None, NetworkT]],
    settings: FitSettings,
    state: FitState | None,
    label: str,
) -> Generator[FitProgress, None, NetworkT]:
    """Go on with the fit of `label` from `state`; begin anew, with a warning, if there is one but it does not fit."""
    if state is not None:
        fitting = start(replace(settings, resume=state))
        try:
            first = next(fitting)
        except ValueError as error:
            _log.warning("%s: the half-done fit cannot be gone on with, it begins anew: %s", label, error)
        except StopIteration as end:  # it was all but done
            network: NetworkT = end.value
            return network
        else:
            yield first
            return (yield from fitting)
    return (yield from start(settings))
