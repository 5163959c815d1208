"""A run as it stands: what the notices add up to. The terminal and the report read it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from framefold.pipeline.errors import EXIT_DONE, EXIT_FAILED, EXIT_PARTIAL, FramefoldError
from framefold.pipeline.notices import (
    CallAdvanced,
    CallBegan,
    CallBlocked,
    CallEnded,
    CheckpointWritten,
    DeadLetter,
    Gauged,
    GivenOut,
    HintGiven,
    Notice,
    Refusal,
    ReplicaGone,
    ReplicaReady,
    ReplicaStarted,
    Restarted,
    ResultRow,
    Reused,
    Warned,
)
from framefold.pipeline.timesheet import State, Timesheet

KEPT_ROWS = 10_000
"""Rows, refusals and dead letters held in memory; the log has all of them."""


@dataclass
class Running:
    """One call under way."""

    label: str
    fraction: float = 0.0
    values: Mapping[str, float] = field(default_factory=dict)
    since: float = field(default_factory=time.monotonic)
    first_fraction: float | None = None
    """Where it stood when it first said so: a call that goes on from a checkpoint does not begin at 0."""

    def advance(self, fraction: float, values: Mapping[str, float]) -> None:
        """Take note of progress."""
        if self.first_fraction is None or fraction < self.first_fraction:
            self.first_fraction = fraction if fraction > 0.05 else 0.0
        self.fraction, self.values = fraction, values

    @property
    def seconds_left(self) -> float | None:
        """At the pace so far; None before anything is known."""
        done = self.fraction - (self.first_fraction or 0.0)
        if done <= 0:
            return None
        return (time.monotonic() - self.since) / done * (1 - self.fraction)


@dataclass
class NodeState:
    """One node's counters."""

    done: int = 0
    """Items taken and finished, those included whose work was found done."""
    reused: int = 0
    """Items whose work was found done."""
    given: int = 0
    """Outputs handed on."""
    given_bytes: int = 0
    failed: int = 0
    """Items set aside."""
    again: int = 0
    """Attempts that failed and were followed by another."""
    lost_workers: int = 0
    waiting: int = 0
    """Items in front of it."""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    running: dict[int, Running] = field(default_factory=dict)
    timesheet: Timesheet = field(default_factory=Timesheet)


@dataclass
class Outcome:
    """The run as it stands."""

    nodes: dict[str, NodeState]
    rows: list[ResultRow] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    restarts: int = 0
    set_aside: int = 0
    """Refusals and dead letters, also those beyond the ones held here."""
    peak_bytes: int = 0
    """The most that payloads under way took."""
    spilled_bytes: int = 0
    seconds: float = 0.0
    error: str = ""
    """Why the run ended before its end, if it did."""
    error_code: int = EXIT_DONE
    clock: Callable[[], float] = time.monotonic
    at: float = 0.0
    """The clock at the last notice; the last one of a run is a gauge, so what is closed after it does not count."""

    @classmethod
    def of(cls, names: Sequence[str]) -> Outcome:
        """Nothing done yet."""
        return cls({name: NodeState() for name in names})

    @property
    def exit_code(self) -> int:
        """0, or 3 when something was set aside, or that of the error which ended the run."""
        return self.error_code or (EXIT_PARTIAL if self.set_aside else EXIT_DONE)

    @property
    def reused(self) -> int:
        """Items whose work was found done, over all nodes."""
        return sum(node.reused for node in self.nodes.values())

    def ended_by(self, error: BaseException) -> None:
        """Take note that the run did not come to its end."""
        self.error = str(error) or type(error).__name__
        self.error_code = error.exit_code if isinstance(error, FramefoldError) else EXIT_FAILED

    def hear(self, notice: Notice) -> None:
        """Add one notice to the picture."""
        self.at = self.clock()
        match notice:
            case ReplicaStarted() | ReplicaReady() | ReplicaGone():
                self._replica(notice)
            case CallBegan() | CallAdvanced() | CallBlocked() | CallEnded():
                self._call(notice)
            case GivenOut(node, nbytes=nbytes, waiting=waiting):
                self.nodes[node].given += 1
                self.nodes[node].given_bytes += nbytes
                self.peak_bytes = max(self.peak_bytes, waiting)
            case Reused(node):
                self.nodes[node].reused += 1
            case Gauged():
                self._gauge(notice)
            case HintGiven(command):
                if command not in self.hints:  # replicas of one sink say the same
                    _keep(self.hints, command)
            case Restarted(why):
                self.restarts += 1
                self.warnings.append(why)
                self._begin_again()
            case Warned(text):
                self.warnings.append(text)
            case ResultRow():
                _keep(self.rows, notice)
            case Refusal() | DeadLetter():
                self._aside(notice)
            case CheckpointWritten():
                pass

    def _begin_again(self) -> None:
        """All that was said and counted will be said and counted again; what was given up stays so."""
        for kept in (self.rows, self.refused, self.hints):
            kept.clear()
        for node in self.nodes.values():
            node.done = node.reused = node.given = node.given_bytes = 0
            node.running.clear()
        self.set_aside = sum(node.failed for node in self.nodes.values())

    def _aside(self, notice: Refusal | DeadLetter) -> None:
        self.set_aside += 1
        if isinstance(notice, Refusal):
            _keep(self.refused, notice)
        else:
            self.nodes[notice.node].failed += 1
            _keep(self.dead, notice)

    def _replica(self, notice: ReplicaStarted | ReplicaReady | ReplicaGone) -> None:
        node, now = self.nodes[notice.node], self.at
        match notice:
            case ReplicaStarted():
                node.timesheet.switch(notice.replica, "starting", now)
                node.running.pop(notice.replica, None)
            case ReplicaReady():
                node.timesheet.switch(notice.replica, "idle", now)
            case ReplicaGone(cause=cause):
                node.timesheet.switch(notice.replica, "gone", now)
                node.running.pop(notice.replica, None)
                node.lost_workers += bool(cause)

    def _call(self, notice: CallBegan | CallAdvanced | CallBlocked | CallEnded) -> None:
        node, now = self.nodes[notice.node], self.at
        match notice:
            case CallBegan(label=label, items=items):
                node.running[notice.replica] = Running(label if items == 1 else f"{label} and {items - 1} more")
                node.timesheet.switch(notice.replica, "busy", now)
            case CallAdvanced(fraction=fraction, values=values):
                if notice.replica in node.running:
                    node.running[notice.replica].advance(fraction, values)
            case CallBlocked(blocked=blocked):
                node.timesheet.switch(notice.replica, "blocked" if blocked else "busy", now)
            case CallEnded():
                node.running.pop(notice.replica, None)
                if node.timesheet.state(notice.replica) != "gone":
                    node.timesheet.switch(notice.replica, "idle", now)
                self._count(node, notice)

    def _count(self, node: NodeState, notice: CallEnded) -> None:
        node.seconds += notice.seconds
        node.cpu_seconds += notice.cpu_seconds
        node.again += notice.outcome == "again"
        if notice.outcome == "done" and notice.kind == "process":
            node.done += notice.items

    def _gauge(self, notice: Gauged) -> None:
        for name, waiting in notice.waiting.items():
            self.nodes[name].waiting = waiting
        self.spilled_bytes = max(self.spilled_bytes, notice.spilled_bytes)

    def as_dict(self, pipeline: str) -> dict[str, Any]:
        """The content of `report.json`."""
        return {
            "pipeline": pipeline,
            "exit_code": self.exit_code,
            "error": self.error or None,
            "seconds": round(self.seconds, 3),
            "restarts": self.restarts,
            "peak_bytes_under_way": self.peak_bytes,
            "spilled_bytes": self.spilled_bytes,
            "stages": {name: _counters(node, self.at) for name, node in self.nodes.items()},
            "rows": [{"stage": row.node, "label": row.label, **row.values} for row in self.rows],
            "refused": [asdict(refusal) for refusal in self.refused],
            "set_aside": [asdict(letter) for letter in self.dead],
            "set_aside_count": self.set_aside,
            "warnings": self.warnings,
        }


def _keep(kept: list[Any], notice: Any) -> None:
    if len(kept) < KEPT_ROWS:
        kept.append(notice)


def _counters(node: NodeState, now: float) -> dict[str, Any]:
    states: tuple[State, ...] = ("busy", "blocked", "idle", "starting")
    times = {f"{state}_seconds": node.timesheet.seconds(state, now) for state in states}
    return {
        "done": node.done,
        "reused": node.reused,
        "given": node.given,
        "given_bytes": node.given_bytes,
        "failed": node.failed,
        "tried_again": node.again,
        "lost_workers": node.lost_workers,
        "seconds": round(node.seconds, 3),
        "cpu_seconds": round(node.cpu_seconds, 3),
        **{name: round(seconds, 3) for name, seconds in times.items()},
    }
