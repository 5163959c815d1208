"""How long a network is fitted, as stages are told it; and a fit as a stage runs it, from where it was left."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Self

from pydantic import BaseModel, Field, model_validator

from framefold.codecs.base import FitProgress, FitSettings, FitState, Fitting
from framefold.codecs.network import FittedNetwork
from framefold.pipeline.stage import Progress

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


class Target(BaseModel, frozen=True, extra="forbid"):
    """When a fit may stop early."""

    psnr_db: float = Field(gt=0, le=100, description="stop once the network reaches it")


def progress_of(step: FitProgress) -> Progress:
    """A fit's progress as the engine's."""
    values = {"psnr_db": step.psnr_db, "bits": step.bits}
    return Progress(step.fraction, {name: value for name, value in values.items() if value is not None}, step.state)


def reported(
    fitting: Fitting, told: Callable[[FitProgress], Progress] = progress_of
) -> Generator[Progress, None, FittedNetwork]:
    """Run a fit, turning its progress into the engine's; returns the network."""
    while True:
        try:
            step = next(fitting)
        except StopIteration as end:
            network: FittedNetwork = end.value
            return network
        yield told(step)


def resumed(
    start: Callable[[FitSettings], Fitting], settings: FitSettings, state: FitState | None, label: str
) -> Fitting:
    """Go on with the fit of `label` from `state`; begin anew, with a warning, if there is one but it does not fit."""
    if state is not None:
        fitting = start(replace(settings, resume=state))
        try:
            first = next(fitting)
        except ValueError as error:
            _log.warning("%s: the half-done fit cannot be gone on with, it begins anew: %s", label, error)
        except StopIteration as end:  # it was all but done
            network: FittedNetwork = end.value
            return network
        else:
            yield first
            return (yield from fitting)
    return (yield from start(settings))
