"""What happens in a run, as one stream of plain data: the terminal, the log, the report and metrics read it.

The scheduler makes these; whoever wants to know listens. Nothing here refers to a payload.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Values = Mapping[str, str | int | float | bool | None]


@dataclass(frozen=True)
class ReplicaStarted:
    """A replica is being started."""

    node: str
    replica: int


@dataclass(frozen=True)
class ReplicaReady:
    """It is set up."""

    node: str
    replica: int


@dataclass(frozen=True)
class ReplicaGone:
    """It is no more: let go because it was idle, or lost."""

    node: str
    replica: int
    cause: str = ""
    """Empty if it was let go; else `crash`, `out_of_memory`, `node_lost`, `timeout` or `stalled`."""
    message: str = ""


@dataclass(frozen=True)
class CallBegan:
    """A replica was given work."""

    node: str
    replica: int
    label: str
    items: int = 1
    attempt: int = 0


@dataclass(frozen=True)
class CallAdvanced:
    """How far it is."""

    node: str
    replica: int
    fraction: float
    values: Mapping[str, float]


@dataclass(frozen=True)
class CallBlocked:
    """Its output waits for room downstream, or does not any more."""

    node: str
    replica: int
    blocked: bool


@dataclass(frozen=True)
class CallEnded:
    """The replica is free again."""

    node: str
    replica: int
    kind: str
    label: str
    items: int = 1
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    outcome: str = "done"
    """`done`, `failed`, `again` (will be tried again) or `stopped`."""
    why: str = ""


@dataclass(frozen=True)
class GivenOut:
    """An output was handed on."""

    node: str
    replica: int
    label: str
    nbytes: int
    waiting: int
    """Bytes of payloads under way, this one included."""


@dataclass(frozen=True)
class Reused:
    """Work on an item was found done, by an earlier run or before a restart."""

    node: str
    label: str


@dataclass(frozen=True)
class CheckpointWritten:
    """Half-done work is on disk."""

    node: str
    label: str
    nbytes: int
    fraction: float


@dataclass(frozen=True)
class Refusal:
    """An input that a stage set aside by name."""

    node: str
    label: str
    reason: str


@dataclass(frozen=True)
class ResultRow:
    """A line of the result table."""

    node: str
    label: str
    values: Values


@dataclass(frozen=True)
class HintGiven:
    """A command worth typing next."""

    command: str


@dataclass(frozen=True)
class DeadLetter:
    """An item that was tried and set aside while the run went on."""

    node: str
    stage: str
    key: str
    label: str
    attempts: int
    error: str
    message: str
    traceback: str
    folder: str = ""
    """Where its input is kept; empty if it had none."""
    replay: str = ""
    """The command that does its work again."""


@dataclass(frozen=True)
class Restarted:
    """The sources begin anew, what is done is taken from the ledger."""

    why: str


@dataclass(frozen=True)
class Warned:
    """Something the user should know."""

    text: str


@dataclass(frozen=True)
class Gauged:
    """Figures that are looked at now and then."""

    waiting: Mapping[str, int] = field(default_factory=dict)
    """Items that wait, for each node."""
    bytes_under_way: int = 0
    spilled_bytes: int = 0


Notice = (
    ReplicaStarted
    | ReplicaReady
    | ReplicaGone
    | CallBegan
    | CallAdvanced
    | CallBlocked
    | CallEnded
    | GivenOut
    | Reused
    | CheckpointWritten
    | Refusal
    | ResultRow
    | HintGiven
    | DeadLetter
    | Restarted
    | Warned
    | Gauged
)

Listener = Callable[[Notice], None]
