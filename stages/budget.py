"""How long a network is fitted, as stages are told it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Self

from pydantic import BaseModel, Field, model_validator

from framefold.codecs.base import Fitting
from framefold.codecs.network import FittedNetwork
from framefold.pipeline.stage import Progress


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


def reported(fitting: Fitting) -> Generator[Progress, None, FittedNetwork]:
    """Run a fit, turning its progress into the engine's; returns the network."""
    while True:
        try:
            step = next(fitting)
        except StopIteration as end:
            network: FittedNetwork = end.value
            return network
        values = {"psnr_db": step.psnr_db, "bits": step.bits}
        yield Progress(step.fraction, {name: value for name, value in values.items() if value is not None})
