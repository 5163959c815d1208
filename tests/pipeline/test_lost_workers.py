"""What the death of a worker or a machine costs the items that were there: one attempt, or none."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from framefold.pipeline import spec
from framefold.pipeline.errors import RunFailed
from framefold.pipeline.events import Died, Event, Produced, Task
from framefold.pipeline.executor import Executor, LocalExecutor
from framefold.pipeline.outcome import Outcome
from framefold.pipeline.scheduler import Scheduler
from framefold.pipeline.shape import Replica
from framefold.pipeline.testing import TOYS
from framefold.pipeline.worker import Blueprint

REPLICAS = 6
Fate = Callable[[Replica, Task, int], str]
"""The machine with which a call of `n` is lost, empty if it is not, by its replica, task, and that one's life."""


class Machines(LocalExecutor):
    """A machine that is gone is noticed only by those who give it work."""

    def __init__(self, fate: Fate) -> None:
        super().__init__()
        self._fate = fate
        self._lives: dict[Replica, int] = {}

    def start(self, blueprints: Mapping[Replica, Blueprint]) -> None:
        self._lives.update(dict.fromkeys(blueprints, -1))
        super().start(blueprints)

    def restart(self, replica: Replica) -> None:
        self._lives[replica] += 1
        super().restart(replica)

    def submit(self, replica: Replica, task: Task, handles: Sequence[Any]) -> None:
        is_item = replica[0] == "n" and task.kind == "process"
        machine = self._fate(replica, task, self._lives[replica]) if is_item else ""
        if machine:
            self._answers.append((replica, Died("it does not answer", "node_lost", machine)))
        else:
            super().submit(replica, task, handles)


class Leaving(LocalExecutor):
    """Each worker of `n` dies when it is done with an item, and before it is heard of."""

    def poll(self, held: Collection[Replica], timeout: float) -> list[tuple[Replica, Event]]:
        return [pair for answer in super().poll(held, timeout) for pair in self._and_its_end(*answer)]

    def _and_its_end(self, replica: Replica, event: Event) -> list[tuple[Replica, Event]]:
        if replica[0] != "n" or not isinstance(event, Produced):
            return [(replica, event)]
        rest = [event, self._advance(replica), Died("it left")]
        self.release(replica)
        return [(replica, one) for one in rest]


class Mortal(LocalExecutor):
    """The source's worker dies after so many outputs, in each of its lives."""

    def __init__(self, lives: Iterator[int]) -> None:
        super().__init__()
        self._lives, self._left = lives, 0

    def submit(self, replica: Replica, task: Task, handles: Sequence[Any]) -> None:
        if task.kind == "produce":
            self._left = next(self._lives)
        super().submit(replica, task, handles)

    def poll(self, held: Collection[Replica], timeout: float) -> list[tuple[Replica, Event]]:
        answers = super().poll(held, timeout)
        self._left -= sum(replica[0] == "numbers" and isinstance(event, Produced) for replica, event in answers)
        if self._left == 0 and ("numbers", 0) in self._streams:
            self.kill(("numbers", 0), "crash", "it left")
        return answers


def run(tmp_path: Path, executor: Executor, *, retries: int, replicas: int = REPLICAS) -> Outcome:
    stages: dict[str, Any] = {
        "numbers": {"stage": "numbers", "count": 8},
        "n": {"stage": "double", "inputs": ["numbers"], "replicas": replicas, "retries": retries},
        "late": {"stage": "progressing", "inputs": ["n"], "steps": 20},
        "sink": {"stage": "collect", "inputs": ["late"], "path": str(tmp_path / "out")},
    }
    checked = spec.from_mapping("toys", {"stages": stages}, extra_stages=TOYS)
    return Scheduler(list(checked.graph), executor, seed=0, run_dir=tmp_path).run()


def test_a_worker_that_dies_while_the_end_of_its_call_waits_for_room_costs_nobody_an_attempt(tmp_path: Path) -> None:
    outcome = run(tmp_path, Leaving(), retries=0, replicas=2)
    assert (outcome.dead, outcome.nodes["n"].again) == ([], 0)
    assert outcome.nodes["n"].timesheet.spent["blocked"] > 0
    assert outcome.nodes["sink"].done == 8
    assert outcome.nodes["n"].lost_workers == 8


def test_a_source_whose_worker_dies_now_and_then_is_taken_up_again_each_time(tmp_path: Path) -> None:
    outcome = run(tmp_path, Mortal(iter([1, 2, 3, 5, 7, 9])), retries=2)
    assert outcome.restarts == outcome.nodes["numbers"].lost_workers == 5
    assert (outcome.nodes["sink"].done, outcome.dead) == (8, [])


def test_a_source_that_never_gets_further_ends_the_run(tmp_path: Path) -> None:
    executor = Mortal(itertools.repeat(3))
    with pytest.raises(RunFailed, match="numbers could not produce: its worker died"):
        run(tmp_path, executor, retries=2)


def test_an_item_that_meets_several_replicas_of_a_lost_machine_is_charged_once(tmp_path: Path) -> None:
    met: dict[str, int] = {}

    def fate(replica: Replica, task: Task, life: int) -> str:
        met[task.subjects[0].label] = met.get(task.subjects[0].label, 0) + (life == 0)
        return "" if life else "lost"

    outcome = run(tmp_path, Machines(fate), retries=1)
    assert outcome.dead == []
    assert outcome.nodes["sink"].done == 8
    assert max(met.values()) > 1
    assert outcome.nodes["n"].lost_workers == REPLICAS


def test_an_item_that_takes_one_machine_after_the_other_is_set_aside(tmp_path: Path) -> None:
    lost: list[str] = []

    def fate(replica: Replica, task: Task, life: int) -> str:
        if task.subjects[0].label != "n3":
            return ""
        lost.append(f"machine {len(lost)}")
        return lost[-1]

    outcome = run(tmp_path, Machines(fate), retries=2)
    (letter,) = outcome.dead
    assert (letter.label, letter.attempts, letter.error) == ("n3", 3, "WorkerDied")
    assert "its machine was lost" in letter.message
    assert (len(lost), outcome.nodes["sink"].done) == (3, 7)


def test_a_machine_that_is_called_lost_again_and_again_does_not_save_an_item(tmp_path: Path) -> None:
    """It cannot be: a new replica came up there. So it is the item."""

    def fate(replica: Replica, task: Task, life: int) -> str:
        return "still there" if task.subjects[0].label == "n3" else ""

    outcome = run(tmp_path, Machines(fate), retries=2)
    assert [(letter.label, letter.attempts) for letter in outcome.dead] == [("n3", 3)]
    assert outcome.nodes["sink"].done == 7
    assert outcome.nodes["n"].lost_workers <= 3 + REPLICAS
