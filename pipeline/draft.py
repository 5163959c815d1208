"""A node as written: each option checked by itself, nothing connected yet."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field, field_validator, model_validator

from framefold.pipeline.findings import KeyPath, shown
from framefold.pipeline.stage import Options, Ports, Stage

MAX_REPLICAS = 1000

_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_LABEL_PREFIX = re.compile(rf"{_LABEL.pattern}(\.{_LABEL.pattern})*")
_LABEL_PREFIX_CHARACTERS = 253
_LABEL_RULE = "use letters, digits and . _ - (at most 63, a letter or digit at both ends)"


def _label(text: str) -> str:
    if not _LABEL.fullmatch(text):
        raise ValueError(f"{text!r} is no label; {_LABEL_RULE}")
    return text


def _label_key(text: str) -> str:
    prefix, slash, name = text.rpartition("/")
    if slash and (len(prefix) > _LABEL_PREFIX_CHARACTERS or not _LABEL_PREFIX.fullmatch(prefix)):
        raise ValueError(f"{text!r} is no label's name; what stands before the / is a domain, such as example.com")
    if not _LABEL.fullmatch(name):
        raise ValueError(f"{text!r} is no label's name; {_LABEL_RULE}")
    return text


Labels = dict[Annotated[str, AfterValidator(_label_key)], Annotated[str, AfterValidator(_label)]]
"""As machines of a cluster carry them: `{tier: gpu}`."""


class Resources(Options):
    """What one replica of a node is granted."""

    cpus: float | None = Field(
        default=None, gt=0, description="cores set aside, and as many threads; by default none, and one thread"
    )
    gpus: float = Field(default=0, ge=0, description="GPUs; a fraction shares one")
    labels: Labels = Field(default={}, description="labels of the machines that will do")

    @field_validator("gpus")
    @classmethod
    def _whole_above_one(cls, gpus: float) -> float:
        if gpus > 1 and not gpus.is_integer():
            raise ValueError(f"{gpus} is neither a share of one GPU nor a whole number of them; round it")
        return gpus


@dataclass(frozen=True)
class Reference:
    """One output that a node names as its input."""

    path: KeyPath
    """Where it stands, below the node."""
    text: str
    """`node` or `node.port`."""
    name: str = ""
    """Of the join or side input; empty where inputs are merged."""
    side: bool = False


class Replicas(Options):
    """Between how many copies a node may have: it grows where items wait and shrinks where replicas idle."""

    min: int = Field(default=1, ge=1, le=MAX_REPLICAS)
    max: int = Field(ge=1, le=MAX_REPLICAS)

    @model_validator(mode="after")
    def _in_order(self) -> Replicas:
        if self.max < self.min:
            raise ValueError(f"max is {self.max}, which is less than min, {self.min}; swap them")
        return self


class Batch(Options):
    """How many items one call of `process_batch` takes."""

    items: int = Field(ge=1, description="at most so many")
    wait_seconds: float = Field(
        default=0.1, ge=0, allow_inf_nan=False, description="how long a batch that is not full waits for more"
    )


_Seconds = Annotated[float | None, Field(gt=0, allow_inf_nan=False)]


class EngineWords(Options):
    """What the engine reads of a node; every other key is an option of its stage."""

    stage: str
    inputs: tuple[str, ...] | dict[str, str] = Field(
        default=(), description="`node` or `node.port`: a list is merged, a mapping is joined item by item"
    )
    side_inputs: dict[str, str] = Field(default={}, description="what each replica gets once, before its first item")
    replicas: Annotated[int, Field(ge=1, le=MAX_REPLICAS)] | Replicas = Field(
        default=1, description="copies that work side by side"
    )
    resources: Resources = Resources()
    retries: int = Field(
        default=2, ge=0, le=10, description="further attempts after a transient error or a worker's death"
    )
    timeout: _Seconds = Field(default=None, description="seconds that one item may take")
    stall_timeout: _Seconds = Field(
        default=None, description="seconds without a word from a call, before its worker is replaced"
    )
    batch: Batch | None = Field(default=None, description="hand several items at once to `process_batch`")
    store: bool | None = Field(
        default=None, description="keep the outputs in the run folder for later runs; by default the stage decides"
    )

    @field_validator("side_inputs", mode="before")
    @classmethod
    def _by_name(cls, side_inputs: Any) -> Any:
        if not isinstance(side_inputs, dict):
            raise ValueError(f"expected a mapping, got {shown(side_inputs)}; write {{NAME: NODE}}")
        return side_inputs

    @property
    def min_replicas(self) -> int:
        """Copies at the start, and at least."""
        return self.replicas.min if isinstance(self.replicas, Replicas) else self.replicas

    @property
    def max_replicas(self) -> int:
        """Copies at most."""
        return self.replicas.max if isinstance(self.replicas, Replicas) else self.replicas

    def references(self) -> Iterator[Reference]:
        """Yield what stands in `inputs`, then what stands in `side_inputs`."""
        if isinstance(self.inputs, dict):
            yield from (Reference(("inputs", name), text, name) for name, text in self.inputs.items())
        else:
            yield from (Reference(("inputs", number), text) for number, text in enumerate(self.inputs))
        yield from (Reference(("side_inputs", name), text, name, True) for name, text in self.side_inputs.items())


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
    sides_read: bool = True
    """False if `side_inputs` could not be read."""

    @property
    def is_source(self) -> bool:
        """Known to take nothing."""
        return self.ports is not None and self.ports.is_source

    @property
    def is_sink(self) -> bool:
        """Known to give nothing."""
        return self.ports is not None and not self.ports.emits
