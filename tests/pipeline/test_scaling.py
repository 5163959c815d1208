"""How many replicas a node should have."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framefold.pipeline import spec
from framefold.pipeline.graph import Node
from framefold.pipeline.scaling import IDLE_SECONDS, PRESSED_SECONDS, Scaler, change
from framefold.pipeline.shape import Load
from framefold.pipeline.testing import TOYS


def wanted(
    *,
    waiting: int = 0,
    busy: int = 0,
    idle: int = 0,
    starting: int = 0,
    places: int = 99,
    most: int = 8,
    least: int = 1,
) -> int:
    """After the same has been so for long."""
    load = Load(waiting=waiting, busy=busy, idle=idle, starting=starting)
    return change(
        load, least=least, most=most, pressed_seconds=PRESSED_SECONDS, idle_seconds=IDLE_SECONDS, places=places
    )


def test_as_many_are_started_as_items_wait() -> None:
    assert wanted(waiting=3, busy=2) == 3


def test_never_more_than_allowed() -> None:
    assert wanted(waiting=50, busy=2) == 6
    assert wanted(waiting=50, busy=8) == 0


@pytest.mark.parametrize("places", [0, 1, 2])
def test_never_more_than_the_machine_holds(places: int) -> None:
    assert wanted(waiting=50, busy=2, places=places) == places


def test_no_places_is_no_reason_to_let_one_go() -> None:
    assert wanted(waiting=50, busy=2, places=-1) == 0
    assert wanted(waiting=50, busy=9) == 0


def test_none_is_started_while_another_one_could_take_the_items() -> None:
    assert wanted(waiting=3, busy=2, idle=1) == 0
    assert wanted(waiting=3, busy=2, starting=1) == 0


@pytest.mark.parametrize(("seconds", "by"), [(0.0, 0), (PRESSED_SECONDS - 0.25, 0), (PRESSED_SECONDS, 1)])
def test_items_have_to_wait_a_while(seconds: float, by: int) -> None:
    load = Load(waiting=1, busy=1, idle=0, starting=0)
    assert change(load, least=1, most=8, pressed_seconds=seconds, idle_seconds=0.0, places=9) == by


@pytest.mark.parametrize(("seconds", "by"), [(0.0, 0), (IDLE_SECONDS - 0.25, 0), (IDLE_SECONDS, -1)])
def test_a_replica_that_has_been_idle_for_long_goes(seconds: float, by: int) -> None:
    load = Load(waiting=0, busy=1, idle=3, starting=0)
    assert change(load, least=1, most=8, pressed_seconds=0.0, idle_seconds=seconds, places=9) == by


def test_as_many_stay_as_there_should_be_at_least() -> None:
    assert wanted(idle=2, busy=1, least=3) == 0
    assert wanted(idle=2, busy=2, least=3) == -1


COUNTS = st.integers(0, 5)


@settings(deadline=None)
@given(st.builds(Load, waiting=COUNTS, busy=COUNTS, idle=COUNTS, starting=COUNTS), COUNTS, COUNTS, st.integers(0, 9))
def test_the_range_holds(load: Load, least: int, more: int, places: int) -> None:
    now, most = load.busy + load.idle + load.starting, least + more
    by = change(load, least=least, most=most, pressed_seconds=60.0, idle_seconds=60.0, places=places)
    assert -1 <= by <= min(load.waiting, places)
    if least <= now <= most:
        assert least <= now + by <= most
    if by:
        assert bool(load.idle) is (by < 0)
        assert bool(load.waiting) is (by > 0)


@settings(deadline=None)
@given(COUNTS, st.integers(1, 8))
def test_a_steady_load_comes_to_rest(items: int, most: int) -> None:
    """Grown for what waits, a node is not made smaller before that is done."""
    busy = 1
    while by := wanted(waiting=max(0, items - busy), busy=min(items, busy), idle=max(0, busy - items), most=most):
        assert 0 < by <= most - busy
        busy += by
    assert busy == max(1, min(items, most))


PRESSED = Load(waiting=1, busy=1, idle=0, starting=0)
SLACK = Load(waiting=0, busy=0, idle=3, starting=0)
EVEN = Load(waiting=0, busy=1, idle=0, starting=0)


@pytest.fixture
def nodes() -> list[Node]:
    """Two that may have 1 to 8 replicas."""
    replicas = {"replicas": {"min": 1, "max": 8}}
    stages = {
        "nums": {"stage": "numbers"},
        "one": {"stage": "add", "inputs": ["nums"], **replicas},
        "other": {"stage": "add", "inputs": ["one"], **replicas},
        "out": {"stage": "collect", "inputs": ["other"], "path": "o"},
    }
    graph = spec.from_mapping("p", {"stages": stages}, extra_stages=TOYS).graph
    return [graph["one"], graph["other"]]


def test_only_what_lasts_without_a_break_counts(nodes: list[Node]) -> None:
    scaler, (one, other) = Scaler(), nodes
    seen = [(0.0, PRESSED), (0.75, EVEN), (1.0, PRESSED), (1.75, PRESSED), (2.0, PRESSED)]
    assert [scaler.change(one, load, 9, now) for now, load in seen] == [0, 0, 0, 0, 1]
    assert scaler.change(other, PRESSED, 9, 2.0) == 0


def test_one_replica_after_another_goes(nodes: list[Node]) -> None:
    scaler, (one, _) = Scaler(), nodes
    moments = [0.0, IDLE_SECONDS, IDLE_SECONDS + 1, 2 * IDLE_SECONDS, 2 * IDLE_SECONDS + 1]
    assert [scaler.change(one, SLACK, 9, now) for now in moments] == [0, -1, 0, 0, -1]
