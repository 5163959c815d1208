"""How each node's replicas spend their time: busy, blocked, idle or starting."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Literal

State = Literal["starting", "idle", "busy", "blocked", "gone"]


@dataclass
class Timesheet:
    """Replica-seconds of one node, by state; times are the caller's."""

    spent: defaultdict[State, float] = field(default_factory=lambda: defaultdict(float))
    most_replicas: int = 0
    """At the same time."""
    _since: dict[int, tuple[State, float]] = field(default_factory=dict)

    def switch(self, replica: int, state: State, now: float) -> None:
        """From now on the replica is in this state."""
        before = self._since.pop(replica, None)
        if before is not None:
            self.spent[before[0]] += now - before[1]
        if state != "gone":
            self._since[replica] = (state, now)
            self.most_replicas = max(self.most_replicas, len(self._since))

    def state(self, replica: int) -> State:
        """What a replica is at."""
        return self._since[replica][0] if replica in self._since else "gone"

    def seconds(self, state: State, now: float) -> float:
        """Replica-seconds in a state so far."""
        return self.spent[state] + sum(now - since for kind, since in self._since.values() if kind == state)

    def share(self, state: State, now: float) -> float:
        """Part of the time since the replicas were ready, 0..1."""
        kinds: tuple[State, ...] = ("idle", "busy", "blocked")
        total = sum(self.seconds(kind, now) for kind in kinds)
        return self.seconds(state, now) / total if total else 0.0

    @property
    def replicas(self) -> int:
        """How many there are now."""
        return len(self._since)


class Lasting:
    """How long something has been so without a break, by name."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def lasted(self, name: str, now: float, so: bool) -> float:
        """Seconds for which it has been so; 0 if it is not."""
        if not so:
            self._since.pop(name, None)
            return 0.0
        return now - self._since.setdefault(name, now)
