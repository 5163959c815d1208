"""What notices add up to: counters, seconds by state, restarts, and bounded memory."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefold.pipeline import outcome as outcome_module
from framefold.pipeline.errors import Interrupted, RunFailed, UsageError
from framefold.pipeline.events import Produced
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
from framefold.pipeline.outcome import Outcome, Running
from framefold.pipeline.tickets import Consumed, Ticket, child, joined
from framefold.pipeline.timesheet import State, Timesheet


class Clock:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def heard(*notices: Notice | float) -> Outcome:
    """Notices of the nodes `a` and `b`; a number is seconds that pass."""
    outcome, clock = Outcome.of(["a", "b"]), Clock()
    outcome.clock = clock
    for notice in notices:
        if isinstance(notice, int | float):
            clock.now += notice
        else:
            outcome.hear(notice)
    return outcome


def began(node: str = "a", replica: int = 0, label: str = "x", items: int = 1) -> CallBegan:
    return CallBegan(node, replica, label, items)


def ended(node: str = "a", replica: int = 0, kind: str = "process", **more: object) -> CallEnded:
    return CallEnded(node, replica, kind, "x", **more)  # type: ignore[arg-type]


def letter(node: str = "a", label: str = "x") -> DeadLetter:
    return DeadLetter(node, "toy", "0" * 64, label, 1, "ValueError", "broken", "")


def up(node: str = "a", replica: int = 0) -> tuple[Notice, Notice]:
    return ReplicaStarted(node, replica), ReplicaReady(node, replica)


def seconds(outcome: Outcome, node: str = "a") -> dict[str, float]:
    kinds: Sequence[State] = ("starting", "idle", "busy", "blocked")
    return {kind: outcome.nodes[node].timesheet.seconds(kind, outcome.at) for kind in kinds}


def test_nothing_heard_is_a_run_that_went_well() -> None:
    outcome = heard()
    assert (outcome.exit_code, outcome.reused) == (0, 0)
    assert seconds(outcome) == {"starting": 0, "idle": 0, "busy": 0, "blocked": 0}
    assert outcome.nodes["a"].timesheet.share("busy", outcome.at) == 0


def test_calls_count_items_time_and_attempts() -> None:
    node = heard(
        *up(),
        began(),
        ended(seconds=1.5, cpu_seconds=1.0),
        began(items=4),
        ended(items=4, seconds=2.0),
        began(),
        ended(outcome="again", seconds=0.25),
        ended(outcome="failed", seconds=0.25),
        ended(outcome="stopped"),
        ended(kind="receive", seconds=1.0),
        ended(kind="finish", seconds=1.0),
        ended(kind="produce", seconds=1.0),
    ).nodes["a"]
    assert (node.done, node.again, node.failed) == (5, 1, 0)
    assert (node.seconds, node.cpu_seconds) == (7.0, 1.0)
    assert node.running == {}


def test_outputs_and_payloads_under_way_are_counted() -> None:
    outcome = heard(GivenOut("a", 0, "x", 10, 10), GivenOut("a", 1, "y", 5, 15), GivenOut("b", 0, "z", 1, 6))
    assert [(node.given, node.given_bytes) for node in outcome.nodes.values()] == [(2, 15), (1, 1)]
    assert outcome.peak_bytes == 15


def test_gauges_show_what_waits_now_and_the_most_that_was_spilled() -> None:
    outcome = heard(Gauged({"a": 3, "b": 1}, 5, 100), Gauged({"a": 0}, 0, 20))
    assert [node.waiting for node in outcome.nodes.values()] == [0, 1]
    assert outcome.spilled_bytes == 100


def test_what_was_found_done_is_counted_over_all_nodes() -> None:
    outcome = heard(Reused("a", "x"), ended(), Reused("b", "x"), ended("b"), Reused("b", "y"), ended("b"))
    assert [(node.done, node.reused) for node in outcome.nodes.values()] == [(1, 1), (2, 2)]
    assert outcome.reused == 3


def test_what_was_set_aside_decides_the_exit_code() -> None:
    outcome = heard(Refusal("a", "x", "no video"), letter("b", "y"), letter("b", "z"))
    assert [node.failed for node in outcome.nodes.values()] == [0, 2]
    assert (outcome.set_aside, outcome.exit_code) == (3, 3)
    assert ([one.label for one in outcome.refused], [one.label for one in outcome.dead]) == (["x"], ["y", "z"])


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (RunFailed("no result"), 1, "no result"),
        (UsageError("wrong word"), 2, "wrong word"),
        (Interrupted(2), 130, "stopped by SIGINT"),
        (KeyboardInterrupt(), 1, "KeyboardInterrupt"),
    ],
)
def test_the_error_that_ended_the_run_counts_more_than_what_was_set_aside(
    error: BaseException, code: int, text: str
) -> None:
    outcome = heard(letter())
    outcome.ended_by(error)
    assert outcome.exit_code == outcome.as_dict("p")["exit_code"] == code
    assert text in outcome.error


# Time.


def test_seconds_go_to_the_state_that_a_replica_was_in() -> None:
    outcome = heard(
        ReplicaStarted("a", 0), 2, ReplicaReady("a", 0), 3, began(), 4, CallBlocked("a", 0, True), 5,
        CallBlocked("a", 0, False), 6, ended(), 7, Gauged(),
    )  # fmt: skip
    assert seconds(outcome) == {"starting": 2, "idle": 3 + 7, "busy": 4 + 6, "blocked": 5}
    assert outcome.nodes["a"].timesheet.share("busy", outcome.at) == pytest.approx(10 / 25)


def test_a_state_that_lasts_counts_up_to_the_last_notice_and_not_to_the_end_of_the_process() -> None:
    outcome = heard(*up(), began(), 4, Gauged(), 1000)
    assert seconds(outcome)["busy"] == 4
    assert outcome.as_dict("p")["stages"]["a"]["busy_seconds"] == 4


def test_replicas_add_up_and_those_that_are_gone_cost_nothing() -> None:
    outcome = heard(*up(), *up("a", 1), 10, ReplicaGone("a", 1), 5, *up("a", 2), began("a", 2), 1, Gauged())
    assert seconds(outcome) == {"starting": 0, "idle": 10 + 10 + 5 + 1, "busy": 1, "blocked": 0}
    timesheet = outcome.nodes["a"].timesheet
    assert (timesheet.replicas, timesheet.most_replicas, timesheet.state(1), timesheet.state(2)) == (
        2,
        2,
        "gone",
        "busy",
    )


def test_a_lost_worker_is_counted_and_its_call_is_over() -> None:
    outcome = heard(
        *up(), began(), 3, ReplicaGone("a", 0, "crash", "signal 9"), ended(outcome="again"), 5,
        ReplicaStarted("a", 0), 2, ReplicaReady("a", 0), 1, Gauged(),
    )  # fmt: skip
    node = outcome.nodes["a"]
    assert (node.lost_workers, node.again, node.running) == (1, 1, {})
    assert seconds(outcome) == {"starting": 2, "idle": 1, "busy": 3, "blocked": 0}
    assert heard(*up(), ReplicaGone("a", 0)).nodes["a"].lost_workers == 0, "it was let go"


def test_a_call_that_never_said_its_end_is_not_shown_when_its_replica_starts_anew() -> None:
    assert heard(*up(), began(), ReplicaStarted("a", 0)).nodes["a"].running == {}
    assert heard(*up(), began(), Restarted("lost")).nodes["a"].running == {}


def test_a_late_word_of_a_call_that_has_ended_is_no_mistake() -> None:
    outcome = heard(*up(), began(), ended(), CallAdvanced("a", 0, 0.5, {}), CheckpointWritten("a", "x", 9, 0.5))
    assert outcome.nodes["a"].running == {}


STATES: Sequence[State] = ("starting", "idle", "busy", "blocked", "gone")


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(STATES), st.integers(0, 9))))
def test_a_timesheet_accounts_for_every_second_of_every_replica(steps: list[tuple[int, State, int]]) -> None:
    timesheet, now, present, expected = Timesheet(), 0, set[int](), 0
    for replica, state, passed in steps:
        timesheet.switch(replica, state, now)
        present = present - {replica} if state == "gone" else present | {replica}
        assert (timesheet.replicas, timesheet.state(replica)) == (len(present), state)
        now += passed
        expected += passed * len(present)
    assert sum(timesheet.seconds(state, now) for state in STATES) == expected
    shares = [timesheet.share(state, now) for state in ("idle", "busy", "blocked")]
    assert sum(shares) == pytest.approx(1) or sum(shares) == 0


# Calls under way.


def test_what_is_under_way_says_how_far_it_is() -> None:
    running = heard(began(label="x"), CallAdvanced("a", 0, 0.25, {"psnr_db": 28.0})).nodes["a"].running[0]
    assert (running.label, running.fraction, running.values) == ("x", 0.25, {"psnr_db": 28.0})
    assert heard(began(items=3)).nodes["a"].running[0].label == "x and 2 more"


def test_time_left_is_told_from_the_part_done_since_the_beginning_or_the_checkpoint() -> None:
    fresh, resumed = Running("x", since=0.0), Running("x", since=0.0)
    assert fresh.seconds_left is None
    fresh.advance(0.01, {})
    fresh.advance(0.5, {})
    resumed.advance(0.75, {})
    assert resumed.seconds_left is None, "nothing is known of its pace"
    resumed.advance(0.875, {})
    assert fresh.seconds_left is not None
    assert resumed.seconds_left is not None
    assert resumed.seconds_left == pytest.approx(fresh.seconds_left, rel=0.01)


# Restarts.


def said() -> list[Notice]:
    """What a generation says again after a restart."""
    return [
        GivenOut("a", 0, "x", 5, 5),
        ResultRow("b", "x", {"bits": 1}),
        HintGiven("ls"),
        Refusal("a", "y", "no video"),
        Reused("b", "x"),
        ended("b"),
    ]


def test_after_a_restart_things_are_not_counted_twice() -> None:
    once, twice = heard(*said()), heard(*said(), Restarted("the source was lost"), *said())
    assert (twice.restarts, twice.warnings) == (1, ["the source was lost"])
    for part in ("rows", "hints", "refused", "set_aside", "exit_code", "reused", "peak_bytes"):
        assert getattr(twice, part) == getattr(once, part)
    for name, node in once.nodes.items():
        other = twice.nodes[name]
        assert (other.done, other.given, other.given_bytes) == (node.done, node.given, node.given_bytes)


def test_a_restart_forgets_nothing_that_is_not_said_again() -> None:
    outcome = heard(
        *up(), began(), 5, letter("a", "z"), ended(outcome="failed", seconds=5), ended(outcome="again"),
        Warned("careful"), *said(), Restarted("lost"), Gauged(),
    )  # fmt: skip
    assert (outcome.set_aside, outcome.exit_code, [one.label for one in outcome.dead]) == (1, 3, ["z"])
    node = outcome.nodes["a"]
    assert (node.failed, node.again, node.seconds) == (1, 1, 5)
    assert seconds(outcome)["busy"] == 5
    assert outcome.warnings == ["careful", "lost"]


# Bounds.


def test_memory_is_bounded_and_counts_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcome_module, "KEPT_ROWS", 3)
    many: list[Notice] = [ResultRow("b", "x", {}), Refusal("a", "x", "no"), letter()] * 5
    many += [HintGiven(f"ls {number % 5}") for number in range(10)]
    outcome = heard(*many)
    assert [len(part) for part in (outcome.rows, outcome.refused, outcome.dead, outcome.hints)] == [3, 3, 3, 3]
    assert (outcome.set_aside, outcome.nodes["a"].failed) == (10, 5)
    outcome = heard(*many, Restarted("lost"))
    assert (outcome.set_aside, len(outcome.refused)) == (5, 0), "all refusals will be said again, none is lost"
    assert heard(*many, Restarted("lost"), *[Refusal("a", "x", "no")] * 5).set_aside == 10


def test_the_report_is_plain_data() -> None:
    outcome = heard(*up(), began(), 1.23456, *said(), letter(), Warned("careful"), ended(seconds=1.23456))
    document = json.loads(json.dumps(outcome.as_dict("toys"), allow_nan=False))
    assert (document["pipeline"], document["exit_code"], document["error"]) == ("toys", 3, None)
    assert (document["set_aside_count"], document["restarts"]) == (2, 0)
    assert document["rows"] == [{"stage": "b", "label": "x", "bits": 1}]
    assert document["refused"] == [{"node": "a", "label": "y", "reason": "no video"}]
    assert document["set_aside"][0]["message"] == "broken"
    assert document["stages"]["a"] == {
        "done": 1,
        "reused": 0,
        "given": 1,
        "given_bytes": 5,
        "failed": 1,
        "tried_again": 0,
        "lost_workers": 0,
        "seconds": 1.235,
        "cpu_seconds": 0.0,
        "busy_seconds": 1.235,
        "blocked_seconds": 0.0,
        "idle_seconds": 0.0,
        "starting_seconds": 0.0,
    }


# Tickets: what the counted items are called.


def key(number: int) -> str:
    return f"{number:064x}"


@given(st.lists(st.integers(0, 2**256 - 1)))
def test_what_was_consumed_has_one_name_in_any_order(numbers: list[int]) -> None:
    shuffled = sorted(numbers, key=lambda number: (number * 7919) % 1013)
    one, other = Consumed(), Consumed()
    for number in numbers:
        one.add(key(number))
    for number in shuffled:
        other.add(key(number))
    assert one.key(0) == other.key(0)
    assert one.key(0) != one.key(1)


def test_the_same_item_twice_is_not_the_same_as_never() -> None:
    """Two branches of equal options give items of equal keys; merged, they must not cancel out."""

    def consumed(*numbers: int) -> str:
        one = Consumed()
        for number in numbers:
            one.add(key(number))
        return one.key(0)

    assert len({consumed(), consumed(5), consumed(5, 5), consumed(6, 6), consumed(5, 5, 5)}) == 5


def test_outputs_are_named_by_their_content_or_by_their_parent_and_number() -> None:
    parent = Ticket(key(1), "p", 2.0, ("handle",))
    named = Produced("out", "id", "own label", 5, 1.5, handle="h")
    unnamed = Produced("out", None, None, 5, 1.5, handle="h")
    ours, others = {"digest": "d", "lineage": "l"}, {"digest": "e", "lineage": "m"}
    assert child(parent, named, 0, **ours).key == child(Ticket(key(2), "q"), named, 7, **ours).key
    assert child(parent, named, 0, **ours).key != child(parent, named, 0, digest="d", lineage="m").key
    assert child(parent, unnamed, 0, **ours).key == child(parent, unnamed, 0, digest="d", lineage="m").key
    unlike = {child(parent, unnamed, n, **ours).key for n in (0, 1)} | {child(parent, unnamed, 0, **others).key}
    assert len(unlike) == 3
    other_port = Produced("odd", None, None, 5, 1.5)
    assert child(parent, unnamed, 0, **ours).key != child(parent, other_port, 0, **ours).key
    assert child(parent, unnamed, 0, **ours).label == "p"
    got = child(parent, named, 0, **ours)
    assert (got.label, got.seconds, got.handles) == ("own label", 3.5, ("h",))


def test_a_joined_item_does_not_depend_on_the_order_of_its_parts() -> None:
    left, right = Ticket(key(1), "l", 1.0, ("hl",)), Ticket(key(2), "r", 2.0, ("hr",))
    one = joined({"b": right, "a": left})
    assert one == joined({"a": left, "b": right})
    assert (one.label, one.seconds, one.handles, one.names) == ("l", 3.0, ("hl", "hr"), ("a", "b"))
    assert one.key != joined({"a": right, "b": left}).key
