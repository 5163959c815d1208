"""One call under way, as the scheduler remembers it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from framefold.pipeline.events import Event, Hinted, Produced, Reported, SetAside, Task
from framefold.pipeline.notices import CallEnded
from framefold.pipeline.shape import Replica, Work
from framefold.pipeline.tickets import Ticket


@dataclass
class Call:
    """What was asked of a replica, and what has come of it so far."""

    work: Work
    tickets: tuple[Ticket, ...]
    task: Task
    began: float
    heard: float
    """When it last said anything."""
    inbox: deque[Event] = field(default_factory=deque)
    """Events behind an output that cannot be admitted yet."""
    blocked_since: float | None = None
    blocked_seconds: float = 0.0
    said: list[SetAside | Reported | Hinted] = field(default_factory=list)
    """Passed on only when the call ends well: one that is tried again says it again."""
    outputs: list[Produced] = field(default_factory=list)
    """All of them, without handles, for the ledger."""

    @property
    def replica(self) -> Replica:
        """Who is at it."""
        return self.work.replica

    @property
    def label(self) -> str:
        """What it is at, for people."""
        return self.tickets[0].label

    def hold(self, now: float) -> None:
        """Its next output has to wait."""
        self.blocked_since = now

    def release(self, now: float) -> None:
        """It need not wait any more."""
        if self.blocked_since is not None:
            self.blocked_seconds += now - self.blocked_since
            self.heard = now
        self.blocked_since = None

    def seconds(self, now: float) -> float:
        """Time it has had, what it waited for room apart."""
        waiting = now - self.blocked_since if self.blocked_since is not None else 0.0
        return now - self.began - self.blocked_seconds - waiting

    def silent_seconds(self, now: float) -> float:
        """Time since it last said anything; none while it may not speak."""
        return 0.0 if self.blocked_since is not None else now - self.heard


def ending(call: Call, outcome: str, seconds: float = 0.0, cpu_seconds: float = 0.0, why: str = "") -> CallEnded:
    """Tells that a call is over."""
    items = len(call.tickets)
    return CallEnded(*call.replica, call.work.kind, call.label, items, seconds, cpu_seconds, outcome, why)
