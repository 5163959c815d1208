"""What a running call tells the scheduler, as plain data: one protocol for every executor.

A call's stream is `Started`, then any of the middle ones, then exactly one `Finished` or `Failed`. A stream
that ends without either means that the worker died. After `Produced` the executor attaches the payload's
handle, so that the scheduler moves payloads without ever opening them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Cause = Literal["crash", "out_of_memory", "node_lost", "timeout", "stalled"]
"""Why a worker is gone."""


@dataclass(frozen=True)
class Ready:
    """A replica is set up and waits for work."""


@dataclass(frozen=True)
class Started:
    """The call has begun."""


@dataclass(frozen=True)
class Advanced:
    """How far it is."""

    fraction: float
    values: Mapping[str, float]


@dataclass(frozen=True)
class Checkpointed:
    """The work so far is on disk; another attempt goes on from here."""

    nbytes: int
    fraction: float


@dataclass(frozen=True)
class Kept:
    """An output on disk."""

    file: str
    """Relative to the folder of what is kept."""
    sha256: str


@dataclass(frozen=True)
class Produced:
    """One output."""

    port: str
    identity: str | None
    label: str | None
    nbytes: int
    seconds: float
    """Working time on this output: since the call's output before, or its beginning."""
    index: int = 0
    """Which item of the batch it belongs to."""
    kept: Kept | None = None
    """Where it is kept, if its node keeps outputs."""
    handle: Any = None
    """Where the payload is: the object itself, its few bytes, or a Ray reference."""


@dataclass(frozen=True)
class SetAside:
    """An input that the stage refused by name."""

    label: str
    reason: str


@dataclass(frozen=True)
class Reported:
    """A line of the result table."""

    label: str
    values: Mapping[str, str | int | float | bool | None]


@dataclass(frozen=True)
class Hinted:
    """A command worth typing next."""

    command: str


@dataclass(frozen=True)
class Finished:
    """The call ended well."""

    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Stopped:
    """The call gave up where it was because it was asked to; what it had done is in its checkpoint."""


@dataclass(frozen=True)
class Failed:
    """The call raised."""

    error: str
    """Class name of the exception."""
    message: str
    traceback: str
    kind: Literal["item", "transient", "final", "input_lost", "keepsake"] = "item"
    """`item`: the same would happen again; `transient`: try again later; `final`: worded for people, try no
    more; `input_lost`: what it should work on is gone; `keepsake`: what was kept on disk is damaged."""


@dataclass(frozen=True)
class Died:
    """The worker is gone."""

    message: str
    cause: Cause = "crash"
    machine: str = ""
    """Where it was, if that is known."""


Event = (
    Ready
    | Started
    | Advanced
    | Checkpointed
    | Produced
    | SetAside
    | Reported
    | Hinted
    | Finished
    | Stopped
    | Failed
    | Died
)


@dataclass(frozen=True)
class Subject:
    """One item of a call, without its payload."""

    key: str = ""
    label: str = ""
    seq: tuple[int, ...] = field(default=())
    attempt: int = 0
    seconds: float = 0.0
    work_key: str = ""
    """Names the work of this node on this item: the node with all it depends on, and the item."""
    names: tuple[str, ...] = ()
    """Of a joined item: the payloads that follow one another are those of these inputs."""


@dataclass(frozen=True)
class Task:
    """One call of a replica, without its payloads."""

    kind: str
    """`produce`, `receive`, `process` or `finish`."""
    subjects: tuple[Subject, ...] = (Subject(),)
    """More than one for a batch."""
    side: str = ""
    """The name under which `receive` hands over its payload."""
    work_key: str = ""
    """Names the work of the whole call, for its checkpoint."""
    kept: tuple[Produced, ...] | None = None
    """The outputs, if this work was done before and they are still on disk."""
