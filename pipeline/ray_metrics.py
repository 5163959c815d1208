"""Figures for Prometheus, through Ray's own exporter: what it shows of a cluster is on the same page.

Ray puts `ray_` in front of each name. Labels: `pipeline` and `node`.
"""

from __future__ import annotations

from collections.abc import Mapping

from ray.util.metrics import Counter, Gauge

from framefold.pipeline.notices import (
    CallAdvanced,
    CallBlocked,
    CallEnded,
    DeadLetter,
    Gauged,
    GivenOut,
    Notice,
    Refusal,
    ReplicaGone,
    ReplicaReady,
    Restarted,
    Reused,
)

_COUNTERS = {
    "items_done": "items that a node took and finished",
    "items_reused": "items whose work was found done",
    "items_given": "outputs handed on",
    "bytes_given": "bytes of the outputs handed on",
    "set_aside": "items and inputs set aside",
    "tried_again": "attempts that failed and were followed by another",
    "workers_lost": "workers that died or were stopped",
    "busy_seconds": "working time of the calls that ended",
    "restarts": "generations begun anew",
}
_GAUGES = {
    "items_waiting": "items in front of a node",
    "replicas": "workers that are up",
    "replicas_blocked": "workers whose output waits for room downstream",
    "progress": "of the call that was heard of last, 0 to 1",
    "bytes_under_way": "bytes of payloads between stages",
    "spilled_bytes": "bytes that Ray moved from memory to disk, at most",
}


class RayMetrics:
    """Listens, and counts."""

    def __init__(self, pipeline: str) -> None:
        tags = ("pipeline", "node")
        names = {**_COUNTERS, **_GAUGES}
        self._metrics: Mapping[str, Counter | Gauge] = {
            name: (Counter if name in _COUNTERS else Gauge)(f"framefold_{name}", description=text, tag_keys=tags)
            for name, text in names.items()
        }
        for metric in self._metrics.values():
            metric.set_default_tags({"pipeline": pipeline, "node": ""})
        self._up: dict[str, set[int]] = {}
        self._blocked: dict[str, set[int]] = {}

    def __call__(self, notice: Notice) -> None:
        """Count one notice."""
        match notice:
            case CallEnded(node, seconds=seconds, outcome=outcome, kind=kind, items=items):
                self._add("busy_seconds", node, seconds)
                self._add("items_done", node, items if outcome == "done" and kind == "process" else 0)
                self._add("tried_again", node, outcome == "again")
            case GivenOut(node, nbytes=nbytes):
                self._add("items_given", node, 1)
                self._add("bytes_given", node, nbytes)
            case Reused(node):
                self._add("items_reused", node, 1)
            case DeadLetter(node) | Refusal(node):
                self._add("set_aside", node, 1)
            case Restarted():
                self._add("restarts", "", 1)
            case CallAdvanced(node, fraction=fraction):
                self._set("progress", node, fraction)
            case ReplicaReady(node, replica):
                self._crowd("replicas", self._up, node, replica, there=True)
            case ReplicaGone(node, replica, cause):
                self._crowd("replicas", self._up, node, replica, there=False)
                self._crowd("replicas_blocked", self._blocked, node, replica, there=False)
                self._add("workers_lost", node, bool(cause))
            case CallBlocked(node, replica, blocked):
                self._crowd("replicas_blocked", self._blocked, node, replica, there=blocked)
            case Gauged():
                self._gauge(notice)
            case _:
                pass

    def _gauge(self, notice: Gauged) -> None:
        for node, waiting in notice.waiting.items():
            self._set("items_waiting", node, waiting)
        self._set("bytes_under_way", "", notice.bytes_under_way)
        self._set("spilled_bytes", "", notice.spilled_bytes)

    def _crowd(self, name: str, crowds: dict[str, set[int]], node: str, replica: int, *, there: bool) -> None:
        crowd = crowds.setdefault(node, set())
        (crowd.add if there else crowd.discard)(replica)
        self._set(name, node, len(crowd))

    def _add(self, name: str, node: str, amount: float) -> None:
        metric = self._metrics[name]
        if amount > 0 and isinstance(metric, Counter):
            metric.inc(amount, tags={"node": node})

    def _set(self, name: str, node: str, value: float) -> None:
        metric = self._metrics[name]
        if isinstance(metric, Gauge):
            metric.set(value, tags={"node": node})
