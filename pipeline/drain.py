"""The end of a generation, or of a run before its end: calls under way keep what they have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from framefold.pipeline.calls import Call, ending
from framefold.pipeline.events import (
    Checkpointed,
    Died,
    Event,
    Failed,
    Finished,
    Hinted,
    Produced,
    Ready,
    Reported,
    SetAside,
    Stopped,
)
from framefold.pipeline.executor import Executor
from framefold.pipeline.graph import Node
from framefold.pipeline.notices import CheckpointWritten, Listener
from framefold.pipeline.pool import Pool
from framefold.pipeline.records import Records
from framefold.pipeline.shape import Replica

POLL_SECONDS = 0.2


class Drain:
    """Follows calls to their end without handing anything on: those that end well are done, the others stop."""

    def __init__(
        self, nodes: Mapping[str, Node], executor: Executor, pool: Pool, records: Records, tell: Listener
    ) -> None:
        self._nodes, self._executor, self._pool = nodes, executor, pool
        self._records, self._tell = records, tell
        self._left: dict[Replica, Call] = {}

    def run(self, calls: Mapping[Replica, Call], seconds: float, clock: Callable[[], float]) -> set[Replica]:
        """Ask calls to stop, and wait so long; returns the replicas that are still at work then."""
        deadline = clock() + seconds
        self._left = dict(calls)
        for call in calls.values():
            for event in call.inbox:
                self._receive(call.replica, event)
        if self._left:
            self._executor.stop_soon(list(self._left))
        while self._left and clock() < deadline:
            for replica, event in self._executor.poll((), POLL_SECONDS):
                self._receive(replica, event)
        return set(self._left)

    def _receive(self, replica: Replica, event: Event) -> None:
        if replica in self._left:
            self._hear(self._left[replica], event)
        elif isinstance(event, Ready):
            self._pool.came_up(replica)
        elif isinstance(event, Died):
            self._pool.died(replica, event)

    def _hear(self, call: Call, event: Event) -> None:
        match event:
            case Produced():
                call.outputs.append(replace(event, handle=None))
            case SetAside() | Reported() | Hinted():
                call.said.append(event)
            case Checkpointed(nbytes, fraction):
                self._records.checkpointed(call)
                self._tell(CheckpointWritten(call.replica[0], call.label, nbytes, fraction))
            case Finished(seconds, cpu_seconds):
                if call.task.kept is None:
                    self._records.commit(self._nodes[call.replica[0]], call)
                self._close(call, "done", seconds, cpu_seconds)
            case Stopped() | Failed():
                self._close(call, "stopped")
            case Died():
                self._close(call, "stopped")
                self._pool.died(call.replica, event)

    def _close(self, call: Call, outcome: str, seconds: float = 0.0, cpu_seconds: float = 0.0) -> None:
        self._left.pop(call.replica, None)
        self._tell(ending(call, outcome, seconds, cpu_seconds))
