"""What a running call tells the scheduler, as plain data: one protocol for every executor.

A call's stream is `Started`, then any of the middle ones, then exactly one `Finished` or `Failed`. A stream
that ends without either means that the worker died. After `Produced` the executor attaches the payload's
handle, so that the scheduler moves payloads without ever opening them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


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
class Produced:
    """One output."""

    port: str
    identity: str | None
    label: str | None
    nbytes: int
    seconds: float
    """Working time on this output: since the call's output before, or its beginning."""
    handle: Any = None
    """Where the payload is: the object itself, or a Ray reference."""


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
class Failed:
    """The call raised."""

    error: str
    """Class name of the exception."""
    message: str
    traceback: str
    retry: bool = True
    """False where another attempt cannot help."""


@dataclass(frozen=True)
class Died:
    """The worker is gone."""

    cause: str


Event = Ready | Started | Advanced | Produced | SetAside | Reported | Hinted | Finished | Failed | Died


@dataclass(frozen=True)
class Task:
    """One call of a replica, without its payload."""

    kind: str
    """`produce`, `process` or `finish`."""
    key: str = ""
    label: str = ""
    seq: tuple[int, ...] = field(default=())
    attempt: int = 0
    seconds: float = 0.0
