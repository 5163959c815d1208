"""One replica by itself: what stages may return, what they get to hear, and which time counts."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest

from framefold.pipeline.events import Failed, Finished, Produced, Started, Task
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Output, Stage, StageContext
from framefold.pipeline.worker import Blueprint, Worker


class Plain(Stage):
    """Yields nothing: its methods return, as any function without a `yield` does."""

    accepts = int
    emits = {"out": int}
    gives: Any = None

    def produce(self) -> Any:
        return self.gives

    def process(self, item: Item) -> Any:
        return self.gives

    def finish(self) -> Any:
        return self.gives


class Returns(Plain):
    gives = 7


class Lists(Plain):
    gives = (1, 2)


class Unclosable(Plain):
    def close(self) -> None:
        raise OSError("gone already")


class ThreeNumbers(Stage):
    emits = {"out": int}

    def produce(self) -> Iterator[Output]:
        yield from range(3)


def working(stage_class: type[Stage]) -> Worker:
    made = Worker(Blueprint(f"{__name__}:{stage_class.__name__}", "{}", StageContext("node")))
    assert made.setup() is None
    return made


@pytest.mark.parametrize("kind", ["produce", "process", "finish"])
def test_a_method_that_gives_nothing_may_return_none(kind: str) -> None:
    first, last = working(Plain).run(Task(kind), [1])
    assert (type(first), type(last)) == (Started, Finished)


@pytest.mark.parametrize("kind", ["produce", "process", "finish"])
def test_a_method_that_returns_instead_of_yielding_is_told(kind: str) -> None:
    *_, last = working(Returns).run(Task(kind), [1])
    assert isinstance(last, Failed)
    assert last.message == f"node: {kind} returned int; let it yield what it gives"


def test_a_list_will_do() -> None:
    events = list(working(Lists).run(Task("process"), [1]))
    assert [event for event in events if isinstance(event, int)] == [1, 2]


def test_a_stage_that_cannot_be_closed_does_not_end_the_run(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        working(Unclosable).close()
    assert "node could not be closed" in caplog.text
    assert "gone already" in caplog.text


def test_pauses_do_not_count_and_each_output_has_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "process_time", lambda: now[0] / 2)

    class Stepping(ThreeNumbers):
        def produce(self) -> Iterator[Output]:
            for number in super().produce():
                now[0] += 2
                yield number

    stepping = working(ThreeNumbers)
    stepping._stage = Stepping(None)
    produced, finished = [], None
    for event in stepping.run(Task("produce"), None):
        now[0] += 1000  # held back by a slow consumer
        produced += [event.seconds] if isinstance(event, Produced) else []
        finished = event
    assert produced == [2, 2, 2]
    assert finished == Finished(6, 3)
