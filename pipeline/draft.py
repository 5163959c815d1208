"""A node as written: each option checked by itself, nothing connected yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import Field, field_validator

from framefold.pipeline.stage import Options, Ports, Stage


class Resources(Options):
    """What one replica of a node is granted."""

    cpus: float | None = Field(
        default=None, gt=0, description="cores set aside, and as many threads; by default none, and one thread"
    )
    gpus: float = Field(default=0, ge=0, description="GPUs; a fraction shares one")

    @field_validator("gpus")
    @classmethod
    def _whole_above_one(cls, gpus: float) -> float:
        if gpus > 1 and not gpus.is_integer():
            raise ValueError(f"{gpus} is neither a share of one GPU nor a whole number of them; round it")
        return gpus


class EngineWords(Options):
    """What the engine reads of a node; every other key is an option of its stage."""

    stage: str
    inputs: tuple[str, ...] = Field(default=(), description="`node` or `node.port`, one per edge")
    replicas: int = Field(default=1, ge=1, description="copies that work side by side")
    resources: Resources = Resources()
    retries: int = Field(default=2, ge=0, le=10, description="further attempts after an item's first failure")


class NodeSpec(EngineWords):
    """One node as written, overrides and variables filled in."""

    options: dict[str, Any] = Field(default={}, description="the stage's own options, plain JSON values")


@dataclass(frozen=True, kw_only=True)
class Draft:
    """One entry under `stages:`, as far as it could be read."""

    name: str
    spec: NodeSpec
    """What could be read; the defaults stand in for words that were refused."""
    stage_class: type[Stage] | None = None
    """None if there is no such stage."""
    config: Any = None
    """The stage's own `Config`; None if its options were refused."""
    ports: Ports | None = None
    """None if they are unknown, for one of the reasons above."""
    inputs_read: bool = True
    """False if `inputs` could not be read."""

    @property
    def is_source(self) -> bool:
        """Known to take nothing."""
        return self.ports is not None and self.ports.accepts is None

    @property
    def is_sink(self) -> bool:
        """Known to give nothing."""
        return self.ports is not None and not self.ports.emits
