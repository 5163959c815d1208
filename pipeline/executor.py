"""Where replicas run: the seam between the scheduler and Ray, or one process.

An executor starts replicas, passes calls to them and hands their events over. It decides nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Protocol

from framefold.pipeline.events import Died, Event, Failed, Finished, Produced, Ready, Task
from framefold.pipeline.flow import Replica
from framefold.pipeline.worker import Blueprint, Worker, pin_threads


class Executor(Protocol):
    """The scheduler's view of a machine."""

    def start(self, blueprints: Mapping[Replica, Blueprint]) -> None:
        """Begin to start every replica; each answers with `Ready` or `Failed`."""

    def restart(self, replica: Replica) -> None:
        """Replace a replica that died."""

    def submit(self, replica: Replica, task: Task, handle: Any) -> None:
        """Begin a call; at most one at a time per replica."""

    def poll(self, held: Collection[Replica], timeout: float) -> list[tuple[Replica, Event]]:
        """Events that have come, at most one per replica, none of the `held` ones; waits for the first."""

    def stop(self) -> None:
        """Close every replica and free everything; safe to call twice."""


class LocalExecutor:
    """Everything in this process and thread, one step of one call at a time: for breakpoints and tests.

    Calls take turns at each event they yield, so the order of events is the same in every run.
    """

    def __init__(self) -> None:
        self._blueprints: dict[Replica, Blueprint] = {}
        self._workers: dict[Replica, Worker] = {}
        self._streams: dict[Replica, Iterator[Any]] = {}
        self._answers: deque[tuple[Replica, Event]] = deque()

    def start(self, blueprints: Mapping[Replica, Blueprint]) -> None:
        """Set every replica up at once; they share the process, and so the largest share of cores."""
        self._blueprints.update(blueprints)
        pin_threads(max(blueprint.context.cpus for blueprint in blueprints.values()))
        for replica in blueprints:
            self.restart(replica)

    def restart(self, replica: Replica) -> None:
        """A fresh stage in the place of the old one."""
        worker = self._workers[replica] = Worker(self._blueprints[replica])
        self._answers.append((replica, worker.setup() or Ready()))

    def submit(self, replica: Replica, task: Task, handle: Any) -> None:
        """Queue the call; it advances whenever it is polled."""
        self._streams[replica] = self._workers[replica].run(task, handle)

    def poll(self, held: Collection[Replica], timeout: float) -> list[tuple[Replica, Event]]:
        """Advance each call by one event."""
        answers = list(self._answers)
        self._answers.clear()
        return answers + [(replica, self._advance(replica)) for replica in list(self._streams) if replica not in held]

    def _advance(self, replica: Replica) -> Event:
        event: Event | None = next(self._streams[replica], None)
        if isinstance(event, Produced):
            payload = next(self._streams[replica])
            return Produced(event.port, event.identity, event.label, event.nbytes, event.seconds, payload)
        if event is None or isinstance(event, Finished | Failed):
            del self._streams[replica]
        return event or Died("the call ended without saying how")

    def stop(self) -> None:
        """Close every stage."""
        self._streams.clear()
        while self._workers:
            self._workers.popitem()[1].close()
