"""The rules of flow, run against a simulated cluster: random graphs, durations and failures."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framefold.pipeline.flow import Flow, NodeShape, Work


@dataclass
class Simulation:
    """Replicas that take random time, fail at random, and hand out a random number of outputs per item."""

    shapes: list[NodeShape]
    items: int
    seed: int
    window: int | None = None
    fail: float = 0.0
    seen: dict[str, list[tuple[int, ...]]] = field(default_factory=lambda: defaultdict(list))
    dead: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    most_waiting: Counter[str] = field(default_factory=Counter)

    def fanout(self, node: str, seq: tuple[int, ...]) -> int:
        """Outputs of one item: the same at every attempt, as for a real stage."""
        return random.Random(f"{self.seed}{node}{seq}").choice([0, 1, 1, 1, 2, 3])

    def run(self) -> Flow:
        rng = random.Random(self.seed)
        flow = Flow(self.shapes, window=self.window)
        for shape in self.shapes:
            for replica in range(shape.replicas):
                flow.ready((shape.name, replica))
        running: list[tuple[Work, int]] = []
        for _ in range(100_000):
            running += [(work, 0) for work in flow.assignments()]
            if flow.complete:
                return flow
            self._step(flow, running, rng)
            for shape in self.shapes:
                depth = flow.depth(shape.name)
                self.most_waiting[shape.name] = max(self.most_waiting[shape.name], depth)
        raise AssertionError(f"no end: {running}")

    def _step(self, flow: Flow, running: list[tuple[Work, int]], rng: random.Random) -> None:
        assert running, "nothing runs and the run is not complete: deadlock"
        movable = [pair for pair in running if self._can_move(flow, *pair)]
        assert movable, f"every call is held back: deadlock in {running}"
        work, given_out = pair = rng.choice(movable)
        running.remove(pair)
        if rng.random() < self.fail:
            if entry := flow.failed(work.replica):
                self.dead.append((work.replica[0], entry.seq))
        elif given_out < self._outputs(work):
            flow.output(work.replica, "out", None, 1)
            running.append((work, given_out + 1))
        else:
            self.seen[work.replica[0]].append(work.entry.seq)
            flow.done(work.replica)

    def _outputs(self, work: Work) -> int:
        if work.kind == "process":
            return self.fanout(work.replica[0], work.entry.seq)
        return self.items if work.kind == "produce" else 1

    def _can_move(self, flow: Flow, work: Work, given_out: int) -> bool:
        return given_out >= self._outputs(work) or flow.room(work.replica, "out")

    def expected(self) -> dict[str, list[tuple[int, ...]]]:
        """What each node must see: every output of each upstream node, once."""
        seen: dict[str, list[tuple[int, ...]]] = {}
        for number, shape in enumerate(self.shapes):
            if not shape.inputs:
                seen[shape.name] = [(number,)]
                continue
            took = [out for name, _ in shape.inputs for out in self._emitted(name, seen[name])]
            flushes = [(2**62, number, replica) for replica in range(shape.replicas)]
            seen[shape.name] = sorted(took) + flushes
        return seen

    def _emitted(self, name: str, took: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        counts = [(seq, self._count(name, seq)) for seq in took]
        return [(*seq, index) for seq, count in counts for index in range(count)]

    def _count(self, name: str, seq: tuple[int, ...]) -> int:
        if len(seq) == 1:
            return self.items
        return 1 if seq[0] == 2**62 and len(seq) == 3 else self.fanout(name, seq)


@st.composite
def graphs(draw: st.DrawFn) -> list[NodeShape]:
    sources = draw(st.integers(1, 2))
    shapes = [NodeShape(f"s{i}", retries=50) for i in range(sources)]
    for i in range(draw(st.integers(1, 5))):
        upstream = draw(st.lists(st.sampled_from([s.name for s in shapes]), min_size=1, max_size=2, unique=True))
        ordered = draw(st.booleans())
        replicas = 1 if ordered else draw(st.integers(1, 3))
        inputs = tuple((name, "out") for name in upstream)
        shapes.append(NodeShape(f"n{i}", replicas=replicas, ordered=ordered, inputs=inputs, retries=50))
    return shapes


@settings(max_examples=150, deadline=None)
@given(graphs(), st.integers(0, 12), st.integers(0, 10**6), st.sampled_from([None, 1, 3]), st.sampled_from([0, 0.1]))
def test_no_item_is_lost_doubled_or_stuck(
    shapes: list[NodeShape], items: int, seed: int, window: int | None, fail: float
) -> None:
    simulation = Simulation(shapes, items, seed, window, fail)
    simulation.run()
    assert not simulation.dead
    for name, expected in simulation.expected().items():
        assert sorted(simulation.seen[name]) == sorted(expected)


@settings(max_examples=100, deadline=None)
@given(graphs(), st.integers(0, 12), st.integers(0, 10**6))
def test_order_and_bounds_hold(shapes: list[NodeShape], items: int, seed: int) -> None:
    simulation = Simulation(shapes, items, seed, fail=0.05)
    simulation.run()
    for shape in shapes:
        if shape.ordered:
            assert simulation.seen[shape.name] == sorted(simulation.seen[shape.name])
        elif shape.inputs:
            retried = shape.replicas  # an item that comes back may stand beside a full queue
            assert simulation.most_waiting[shape.name] <= shape.capacity + retried


def test_a_slow_sink_holds_the_source() -> None:
    flow = Flow([NodeShape("numbers"), NodeShape("sink", inputs=(("numbers", "out"),))])
    flow.ready(("numbers", 0))
    (work,) = flow.assignments()
    admitted = 0
    while flow.room(work.replica, "out"):
        flow.output(work.replica, "out", None, 1)
        admitted += 1
    assert admitted == 2


def test_bytes_bound_a_queue_but_one_item_always_passes() -> None:
    sink = NodeShape("sink", inputs=(("numbers", "out"),), queue_items=100, queue_bytes=10)
    flow = Flow([NodeShape("numbers"), sink], window=100)
    flow.ready(("numbers", 0))
    (work,) = flow.assignments()
    flow.output(work.replica, "out", None, 1000)
    assert not flow.room(work.replica, "out")
    flow.ready(("sink", 0))
    next(iter(flow.assignments()))
    assert flow.room(work.replica, "out")


def test_a_poison_item_is_given_up_after_its_retries_and_its_siblings_go_on() -> None:
    flow = Flow([NodeShape("numbers"), NodeShape("sink", inputs=(("numbers", "out"),), retries=2)])
    flow.ready(("numbers", 0))
    flow.ready(("sink", 0))
    (source,) = flow.assignments()
    flow.output(source.replica, "out", "poison", 1)
    flow.output(source.replica, "out", "good", 1)
    flow.done(source.replica)
    attempts = []
    while not flow.complete:
        for work in flow.assignments():
            if work.entry.ticket == "poison":
                attempts.append(work.entry.attempt)
                given_up = flow.failed(work.replica)
            else:
                flow.done(work.replica)
    assert attempts == [0, 1, 2]
    assert given_up is not None
    assert given_up.ticket == "poison"


@pytest.mark.parametrize("alive", [True, False])
def test_an_item_outlives_its_worker(alive: bool) -> None:
    flow = Flow([NodeShape("numbers"), NodeShape("double", inputs=(("numbers", "out"),), retries=1)])
    flow.ready(("numbers", 0))
    flow.ready(("double", 0))
    (source,) = flow.assignments()
    flow.output(source.replica, "out", "item", 1)
    (work,) = flow.assignments()
    assert flow.failed(work.replica, alive=alive) is None
    again = list(flow.assignments())
    if not alive:
        assert not again
        flow.ready(work.replica)
        again = list(flow.assignments())
    assert [(w.entry.ticket, w.entry.attempt) for w in again] == [("item", 1)]
