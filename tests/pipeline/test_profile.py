"""The profile: which node held the run up, and what to change about it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from framefold.pipeline import spec
from framefold.pipeline.executor import LocalExecutor
from framefold.pipeline.graph import Graph
from framefold.pipeline.notices import CallBegan, CallBlocked, CallEnded, Gauged, Notice, ReplicaReady, ReplicaStarted
from framefold.pipeline.outcome import Outcome
from framefold.pipeline.profile import advice, print_profile, shares
from framefold.pipeline.scheduler import Scheduler
from framefold.pipeline.testing import TOYS

STAGES: Mapping[str, Any] = {
    "numbers": {"stage": "numbers", "count": 8},
    "work": {"stage": "double", "inputs": ["numbers"], "replicas": 2},
    "sink": {"stage": "collect", "inputs": ["work"], "path": "never-written"},
}


def graph_of(stages: Mapping[str, Any] = STAGES) -> Graph:
    return spec.from_mapping("toys", {"pipeline": "toys", "stages": stages}, extra_stages=TOYS).graph


def outcome_of(**times: tuple[float, float]) -> Outcome:
    """Ten seconds in which each node was busy and blocked for so many, idle for the rest."""
    outcome = Outcome.of(["numbers", "work", "sink"])
    notices: list[tuple[float, Notice]] = [(10, Gauged())]
    for name, (busy, blocked) in times.items():
        for replica in range(2 if name == "work" else 1):
            notices += [
                (0, ReplicaStarted(name, replica)),
                (0, ReplicaReady(name, replica)),
                (0, CallBegan(name, replica, "x")),
                (busy, CallBlocked(name, replica, True)),
                (busy + blocked, CallEnded(name, replica, "process", "x", items=5, seconds=busy)),
            ]
    for at, notice in sorted(notices, key=lambda pair: pair[0]):
        outcome.clock = lambda at=at: 500 + at  # type: ignore[misc]
        outcome.hear(notice)
    return outcome


def test_shares_are_parts_of_the_time_since_the_replicas_were_ready() -> None:
    numbers, work, sink = shares(outcome_of(numbers=(1, 6), work=(9, 0), sink=(0.5, 0)))
    assert (numbers.busy, numbers.blocked, numbers.idle) == pytest.approx((0.1, 0.6, 0.3))
    assert (work.name, work.replicas, work.items, work.busy) == ("work", 2, 10, 0.9)
    assert work.seconds_per_item == pytest.approx(1.8)
    assert sink.idle == pytest.approx(0.95)


def test_a_busy_node_is_named_with_who_waited_for_it_and_gets_more_replicas() -> None:
    assert advice(outcome_of(numbers=(1, 8), work=(9.5, 0), sink=(1, 0)), graph_of()) == (
        "work was busy 95% of the time; numbers waited for it: give it more replicas (replicas: 4) or more cores, or "
        "less to do"
    )


def test_a_busy_sink_in_order_is_given_less_to_do() -> None:
    text = advice(outcome_of(numbers=(1, 8), work=(2, 7), sink=(9, 0)), graph_of())
    assert text.startswith("sink was busy 90% of the time; numbers and work waited for it: it takes items in order")
    assert "replicas:" not in text


def test_a_busy_source_is_divided() -> None:
    assert advice(outcome_of(numbers=(10, 0), work=(2, 0), sink=(1, 0)), graph_of()) == (
        "numbers was busy 100% of the time: it is a source, which has one replica: divide its path over several nodes"
    )


def test_only_those_before_a_node_wait_for_it() -> None:
    text = advice(outcome_of(numbers=(9, 0), work=(1, 8), sink=(1, 0)), graph_of())
    assert text.startswith("numbers was busy 90% of the time: "), "work is behind it and waits for something else"


def test_where_memory_ran_out_that_is_said_first() -> None:
    outcome = outcome_of(numbers=(1, 8), work=(9.5, 0), sink=(1, 0))
    outcome.hear(Gauged({}, 0, 3 * 2**20))
    assert advice(outcome, graph_of()).startswith("3 MiB were moved to disk: give Ray a larger object store")


@pytest.mark.parametrize("times", [{}, {"numbers": (1, 0), "work": (2, 0), "sink": (6.9, 0)}], ids=["none", "idle"])
def test_where_no_node_is_busy_none_is_blamed(times: dict[str, tuple[float, float]]) -> None:
    assert advice(outcome_of(**times), graph_of()).startswith("no node was busy all the time")


def printed(outcome: Outcome, graph: Graph) -> str:
    console = Console(file=io.StringIO(), width=120)
    print_profile(console, outcome, graph)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table_has_a_row_for_each_node_and_the_advice_below() -> None:
    outcome = outcome_of(numbers=(1, 8), work=(9.5, 0), sink=(1, 0))
    outcome.peak_bytes = 5 * 2**20
    lines = printed(outcome, graph_of()).splitlines()
    assert [line.split()[1] for line in lines if line.startswith("│")] == ["numbers", "work", "sink"]
    (work,) = (line for line in lines if line.startswith("│ work"))
    assert [word for word in work.split() if word != "│"] == ["work", "2", "95%", "0%", "5%", "10", "1.9"]
    assert "at most 5 MiB of payloads under way, 0 MiB moved to disk" in lines
    assert lines[-1] == f"bottleneck: {advice(outcome, graph_of())}"


def test_a_real_run_names_its_slow_node(tmp_path: Path) -> None:
    graph = graph_of(
        {
            "numbers": {"stage": "numbers", "count": 12},
            "quick": {"stage": "double", "inputs": ["numbers"]},
            "slow": {"stage": "slow", "inputs": ["quick"], "seconds": 0.03},
            "sink": {"stage": "collect", "inputs": ["slow"], "path": str(tmp_path / "out")},
        }
    )
    outcome = Scheduler(list(graph), LocalExecutor(), seed=0, run_dir=tmp_path).run()
    slow = next(share for share in shares(outcome) if share.name == "slow")
    assert slow.items == 12
    assert slow.seconds_per_item >= 0.03
    assert "slow was busy" in printed(outcome, graph)
    assert "give it more replicas (replicas: 2)" in advice(outcome, graph)
