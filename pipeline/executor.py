"""Where replicas run: the seam between the scheduler and Ray, or one process.

An executor starts replicas, passes calls to them and hands their events over. It decides nothing.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from framefold.pipeline.events import Cause, Died, Event, Failed, Finished, Produced, Ready, Stopped, Task
from framefold.pipeline.shape import Replica
from framefold.pipeline.worker import Blueprint, Worker, pin_threads, save_input

_log = logging.getLogger(__name__)


class Executor(Protocol):
    """The scheduler's view of a machine."""

    notes: Sequence[str]
    """Decisions about placement that the user should know of."""

    def start(self, blueprints: Mapping[Replica, Blueprint]) -> None:
        """Begin to start replicas; each answers with `Ready`, `Failed` or `Died`."""

    def restart(self, replica: Replica) -> None:
        """Replace a replica, dead or alive, by a fresh one."""

    def release(self, replica: Replica) -> None:
        """Close a replica that is idle, and let it go."""

    def kill(self, replica: Replica, cause: Cause, message: str) -> None:
        """End a replica at once; its call answers with `Died` of this cause."""

    def submit(self, replica: Replica, task: Task, handles: Sequence[Any]) -> None:
        """Begin a call; at most one at a time per replica."""

    def poll(self, held: Collection[Replica], timeout: float) -> list[tuple[Replica, Event]]:
        """Events that have come, in order for each replica, none of the `held` ones; waits for the first."""

    def stop_soon(self, replicas: Collection[Replica]) -> None:
        """Ask calls to keep their state and end with `Stopped` at their next progress."""

    def resume_work(self, replicas: Collection[Replica]) -> None:
        """Calls from now on run to their end again."""

    def save(self, path: Path, handles: Sequence[Any], names: Sequence[str]) -> None:
        """Write an input to disk, so that it can be replayed; best effort, in the background."""

    def stacks(self, replica: Replica) -> str:
        """What a replica is at, as text; empty if it does not say."""

    def budget_bytes(self) -> int | None:
        """How many bytes of payloads may be under way; None for no bound."""

    def spilled_bytes(self) -> int:
        """How much has gone from memory to disk since the start."""

    def gpus_of(self, node: str, asked: float) -> float:
        """What part of the GPUs that a replica asked for it gets."""

    def is_starting(self, replica: Replica) -> bool:
        """Whether it has been asked for and not answered yet."""

    def places_left(self, node: str) -> int:
        """How many more replicas of a node the machine could hold now."""

    def stop(self) -> None:
        """Close every replica and free everything; safe to call twice."""


class LocalExecutor:
    """Everything in this process and thread, one step of one call at a time: for breakpoints and tests.

    Calls take turns at each event they yield, so the order of events is the same in every run. What does not
    yield cannot be interrupted: `kill` takes effect at the call's next event.
    """

    def __init__(self) -> None:
        self.notes: Sequence[str] = ()
        self._blueprints: dict[Replica, Blueprint] = {}
        self._workers: dict[Replica, Worker] = {}
        self._streams: dict[Replica, Iterator[Any]] = {}
        self._answers: deque[tuple[Replica, Event]] = deque()

    def start(self, blueprints: Mapping[Replica, Blueprint]) -> None:
        """Set every replica up at once; they share the process, and so the largest share of cores."""
        self._blueprints.update(blueprints)
        pin_threads(max(blueprint.context.cpus for blueprint in self._blueprints.values()))
        for replica in blueprints:
            self.restart(replica)

    def restart(self, replica: Replica) -> None:
        """A fresh stage in the place of the old one."""
        self.release(replica)
        worker = self._workers[replica] = Worker(self._blueprints[replica])
        self._answers.append((replica, worker.setup() or Ready()))

    def release(self, replica: Replica) -> None:
        """Close the stage."""
        self._streams.pop(replica, None)
        self._answers = deque(answer for answer in self._answers if answer[0] != replica)
        if replica in self._workers:
            self._workers.pop(replica).close()

    def kill(self, replica: Replica, cause: Cause, message: str) -> None:
        """Drop the call where it is."""
        self.release(replica)
        self._answers.append((replica, Died(message, cause)))

    def submit(self, replica: Replica, task: Task, handles: Sequence[Any]) -> None:
        """Queue the call; it advances whenever it is polled."""
        self._streams[replica] = self._workers[replica].run(task, handles)

    def poll(self, held: Collection[Replica], timeout: float) -> list[tuple[Replica, Event]]:
        """Advance each call by one event."""
        answers = list(self._answers)
        self._answers.clear()
        return answers + [(replica, self._advance(replica)) for replica in list(self._streams) if replica not in held]

    def _advance(self, replica: Replica) -> Event:
        event: Event | None = next(self._streams[replica], None)
        if isinstance(event, Produced):
            return attached(event, next(self._streams[replica]))
        if event is None or isinstance(event, Finished | Stopped | Failed):
            del self._streams[replica]
        return event or Died("the call ended without saying how")

    def stop_soon(self, replicas: Collection[Replica]) -> None:
        """Calls end at their next progress."""
        for replica in replicas:
            self._workers[replica].stop_soon()

    def resume_work(self, replicas: Collection[Replica]) -> None:
        """And now they do not."""
        for replica in replicas:
            self._workers[replica].resume_work()

    def save(self, path: Path, handles: Sequence[Any], names: Sequence[str]) -> None:
        """Write it now; what cannot be written is not worth the run."""
        try:
            save_input(path, handles, names)
        except Exception as error:
            _log.warning("%s could not be written: %s", path, error)

    def stacks(self, replica: Replica) -> str:
        """The stack of this thread, which is all there is."""
        return "".join(traceback.format_stack(sys._getframe()))

    def budget_bytes(self) -> int | None:
        """Whatever memory there is."""
        return None

    def spilled_bytes(self) -> int:
        """Nothing is moved to disk here."""
        return 0

    def gpus_of(self, node: str, asked: float) -> float:
        """As asked: all of it is this process."""
        return asked

    def is_starting(self, replica: Replica) -> bool:
        """Its answer has not been fetched."""
        return any(one == replica for one, _ in self._answers)

    def places_left(self, node: str) -> int:
        """Replicas cost nothing here, and gain nothing."""
        return 1

    def stop(self) -> None:
        """Close every stage."""
        self._streams.clear()
        while self._workers:
            self._workers.popitem()[1].close()


def attached(event: Produced, handle: Any) -> Produced:
    """The event with its payload's handle."""
    return Produced(
        event.port, event.identity, event.label, event.nbytes, event.seconds, event.index, event.kept, handle
    )
