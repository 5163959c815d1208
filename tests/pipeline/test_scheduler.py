"""The engine on toy stages: the same graphs in one process and, in test_ray_executor, on real actors."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framefold.pipeline import spec
from framefold.pipeline.errors import FramefoldError, Interrupted, RunFailed, Transient
from framefold.pipeline.executor import LocalExecutor
from framefold.pipeline.item import Item
from framefold.pipeline.outcome import Outcome
from framefold.pipeline.policy import Policy
from framefold.pipeline.scheduler import Scheduler
from framefold.pipeline.stage import Emit, Hint, Options, Output, Refused, Row, Stage
from framefold.pipeline.testing import TOYS, Collect, Numbers

HASTY = Policy(back_off_seconds=0, drain_seconds=0)


def run(stages: Mapping[str, Any], run_dir: Path, extra: Mapping[str, type[Stage]] | None = None) -> Outcome:
    mapping = {"pipeline": "toys", "stages": stages}
    checked = spec.from_mapping("toys", mapping, extra_stages={**TOYS, **(extra or {})})
    return Scheduler(list(checked.graph), LocalExecutor(), seed=0, run_dir=run_dir, policy=HASTY).run()


def chain(path: Path, *middle: dict[str, Any], count: int = 6, **numbers: Any) -> dict[str, Any]:
    """Numbers, then the given stages one after the other, then a file."""
    stages: dict[str, Any] = {"numbers": {"stage": "numbers", "count": count, **numbers}}
    for index, stage in enumerate(middle):
        stages[f"n{index}"] = {"inputs": [list(stages)[-1]], **stage}
    stages["sink"] = {"stage": "collect", "inputs": [list(stages)[-1]], "path": str(path)}
    return stages


def values(path: Path) -> list[int]:
    return [int(line.split()[-1]) for line in path.read_text().splitlines()]


def test_a_chain_keeps_source_order_whatever_the_replicas_do(tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = run(chain(out, {"stage": "progressing", "replicas": 3}, {"stage": "double"}, count=20), tmp_path)
    assert values(out) == [2 * n for n in range(20)]
    assert outcome.exit_code == 0
    assert outcome.nodes["n1"].done == 20
    assert outcome.hints == [f"cat {out}"]
    assert [row.values["value"] for row in outcome.rows] == values(out)


def test_a_diamond_runs_each_stage_once_per_item(tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = run(
        {
            "numbers": {"stage": "numbers", "count": 8},
            "shared": {"stage": "double", "inputs": ["numbers"], "replicas": 2},
            "left": {"stage": "add", "inputs": ["shared"], "amount": 1},
            "right": {"stage": "add", "inputs": ["shared"], "amount": 100},
            "sink": {"stage": "collect", "inputs": ["left", "right"], "path": str(out)},
        },
        tmp_path,
    )
    assert outcome.nodes["shared"].done == 8
    assert sorted(values(out)) == sorted([2 * n + k for n in range(8) for k in (1, 100)])


def test_ports_divide_the_outputs_of_one_item(tmp_path: Path) -> None:
    even, odd = tmp_path / "even", tmp_path / "odd"
    run(
        {
            "numbers": {"stage": "numbers", "count": 4},
            "split": {"stage": "split", "inputs": ["numbers"], "parts": 3},
            "evens": {"stage": "collect", "inputs": ["split.even"], "path": str(even)},
            "odds": {"stage": "collect", "inputs": ["split.odd"], "path": str(odd)},
        },
        tmp_path,
    )
    everything = [m for n in range(4) for m in range(n, n + 3)]
    assert values(even) == [m for m in everything if m % 2 == 0]
    assert values(odd) == [m for m in everything if m % 2]


def test_what_was_held_back_is_flushed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(chain(out, {"stage": "hold_back"}, {"stage": "double"}), tmp_path)
    assert values(out) == [0, 2, 4, 6, 8, 10]


def test_an_item_that_fails_once_is_tried_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = run(chain(out, {"stage": "fail_once", "on": [1, 4]}), tmp_path)
    assert values(out) == list(range(6))
    assert outcome.exit_code == 0


def test_a_poison_item_is_set_aside_and_the_others_go_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = run(chain(out, {"stage": "fail_always", "on": [3], "retries": 1}), tmp_path)
    assert values(out) == [0, 1, 2, 4, 5]
    (letter,) = outcome.dead
    assert (letter.node, letter.label, letter.attempts, letter.error) == ("n0", "n3", 1, "ValueError")
    assert "attempt 0 of n3" in letter.message
    assert "misbehave" in letter.traceback
    assert outcome.exit_code == 3


def test_a_refused_input_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = run(chain(out, {"stage": "double"}, refuse=[2]), tmp_path)
    assert values(out) == [0, 2, 6, 8, 10]
    assert [(one.node, one.label) for one in outcome.refused] == [("numbers", "n2")]
    assert outcome.exit_code == 3


class Panic(Stage):
    """Raises what native code raises: no Exception."""

    accepts = int
    emits = {"out": int}

    def process(self, item: Item) -> Output:
        raise _Native("the coder gave up")
        yield


class _Native(BaseException):
    pass


def test_native_panics_do_not_take_the_engine_down(tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = run(chain(out, {"stage": "panic", "retries": 0}, count=2), tmp_path, {"panic": Panic})
    assert [letter.error for letter in outcome.dead] == ["_Native", "_Native"]


class Liar(Stage):
    """Gives something else than it declares."""

    accepts = int
    emits = {"out": int}

    def process(self, item: Item) -> Output:
        yield "text"


def test_a_payload_of_the_wrong_type_is_caught_where_it_is_made(tmp_path: Path) -> None:
    outcome = run(chain(tmp_path / "out", {"stage": "liar", "retries": 0}, count=1), tmp_path, {"liar": Liar})
    assert "n0.out gives int, got str" in outcome.dead[0].message


class HalfWay(Stage):
    """Fails after its first output, once: the retry must not hand that output on again."""

    accepts = int
    emits = {"out": int}

    def process(self, item: Item) -> Output:
        yield item.payload
        if item.attempt == 0:
            raise Transient("half way")
        yield item.payload + 100


def test_outputs_handed_on_before_a_failure_are_not_repeated(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(chain(out, {"stage": "half_way"}, count=3), tmp_path, {"half_way": HalfWay})
    assert values(out) == [0, 100, 1, 101, 2, 102]


class SourceThatStumbles(Numbers):
    """Fails in the middle, once per process."""

    stumbled = False

    def produce(self) -> Output:
        for number, output in enumerate(super().produce()):
            if number == 3 and not type(self).stumbled:
                type(self).stumbled = True
                raise OSError("the disk hiccuped")
            yield output


def test_a_source_is_taken_up_again_where_it_failed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    stages = chain(out, count=6)
    stages["numbers"]["stage"] = "stumbling"
    outcome = run(stages, tmp_path, {"stumbling": SourceThatStumbles})
    assert SourceThatStumbles.stumbled
    assert values(out) == list(range(6))
    assert outcome.exit_code == 0


class BrokenSetup(Stage):
    """Cannot start."""

    accepts = int
    emits = {"out": int}

    def setup(self, context: Any) -> None:
        raise RuntimeError("no such device")


def test_a_stage_that_cannot_start_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="n0 could not start: no such device"):
        run(chain(tmp_path / "out", {"stage": "broken"}), tmp_path, {"broken": BrokenSetup})


class ClosedSink(Collect):
    """Leaves a mark when closed; cannot finish."""

    def finish(self) -> Output:
        raise OSError("disk full")
        yield

    def close(self) -> None:
        self.config.path.with_suffix(".closed").touch()


def test_a_sink_that_cannot_finish_fails_the_run_and_is_closed(tmp_path: Path) -> None:
    stages = chain(tmp_path / "out")
    stages["sink"] |= {"stage": "closed", "retries": 0}
    with pytest.raises(RunFailed, match="sink could not finish: disk full"):
        run(stages, tmp_path, {"closed": ClosedSink})
    assert (tmp_path / "out.closed").exists()


class Keys(Stage):
    """Passes the unit key on in the place of the number."""

    accepts = int
    emits = {"out": str}

    def process(self, item: Item) -> Output:
        yield Emit(item.key)


def keys(tmp_path: Path, **numbers: Any) -> list[str]:
    out = tmp_path / f"keys{len(list(tmp_path.iterdir()))}"
    run(chain(out, {"stage": "add", **numbers}, {"stage": "keys"}, count=4), tmp_path, {"keys": Keys})
    return out.read_text().splitlines()


def test_unit_keys_depend_on_content_and_options_alone(tmp_path: Path) -> None:
    first = keys(tmp_path)
    assert len(set(first)) == 4
    assert keys(tmp_path) == first
    assert keys(tmp_path, replicas=3) == first
    assert not set(keys(tmp_path, amount=2)) & set(first)


class Talkative(Stage):
    """Says something, then fails: once, or always."""

    class Config(Options):
        always: bool = False

    accepts = int
    emits = {"out": int}

    def process(self, item: Item) -> Output:
        yield Row(item.label, {"attempt": item.attempt})
        yield Refused(f"part of {item.label}", "it is odd")
        yield Hint(f"cat {item.label}")
        if item.attempt == 0 or self.config.always:
            raise Transient("after all that")
        yield item.payload


@pytest.mark.parametrize(("always", "attempts"), [(False, [1, 1]), (True, [2, 2])])
def test_what_an_attempt_said_counts_only_if_it_was_the_last(tmp_path: Path, always: bool, attempts: list[int]) -> None:
    talkative = {"stage": "talkative", "always": always}
    outcome = run(chain(tmp_path / "out", talkative, count=2), tmp_path, {"talkative": Talkative})
    assert [row.values["attempt"] for row in outcome.rows if row.node == "n0"] == attempts
    assert [one.label for one in outcome.refused] == ["part of n0", "part of n1"]
    assert [hint for hint in outcome.hints if "cat n" in hint] == ["cat n0", "cat n1"]


def test_what_a_source_refused_before_it_stumbled_is_said_once(tmp_path: Path) -> None:
    SourceThatStumbles.stumbled = False
    stages = chain(tmp_path / "out", count=6, refuse=[1])
    stages["numbers"]["stage"] = "stumbling"
    outcome = run(stages, tmp_path, {"stumbling": SourceThatStumbles})
    assert SourceThatStumbles.stumbled
    assert [one.label for one in outcome.refused] == ["n1"]


def test_what_a_call_said_is_not_lost_with_the_run(tmp_path: Path) -> None:
    stages = chain(tmp_path / "out", {"stage": "double"}, refuse=[0])
    checked = spec.from_mapping("toys", {"stages": stages}, extra_stages=TOYS)
    scheduler = Scheduler(list(checked.graph), LocalExecutor(), seed=0, run_dir=tmp_path, watch=_stop_after_three)
    with pytest.raises(Interrupted):
        scheduler.run()
    assert [one.label for one in scheduler.outcome.refused] == ["n0"]


def _stop_after_three(outcome: Outcome) -> None:
    if outcome.nodes["n0"].done == 3:
        raise Interrupted(signal.SIGTERM)


class Tally(Stage):
    """Hands out one number per replica at the end, naming no identity."""

    accepts = int
    emits = {"out": int}

    def process(self, item: Item) -> None:
        return None

    def finish(self) -> Output:
        yield 1


def test_replicas_that_flush_give_items_with_keys_of_their_own(tmp_path: Path) -> None:
    out = tmp_path / "out"
    middle = ({"stage": "tally", "replicas": 3}, {"stage": "keys"})
    run(chain(out, *middle), tmp_path, {"tally": Tally, "keys": Keys})
    assert len(set(out.read_text().splitlines())) == 3


class Explains(Collect):
    """Knows why it cannot go on."""

    class Config(Collect.Config):
        at: str

    def setup(self, context: Any) -> None:
        if self.config.at == "setup":
            raise FramefoldError("the disk is full; free some of it")

    def finish(self) -> Output:
        raise FramefoldError("the disk is full; free some of it")
        yield


@pytest.mark.parametrize(("at", "what"), [("setup", "start"), ("finish", "finish")])
def test_a_stage_that_explains_itself_ends_the_run_without_a_traceback(tmp_path: Path, at: str, what: str) -> None:
    stages = chain(tmp_path / "out")
    stages["sink"] |= {"stage": "explains", "at": at}
    with pytest.raises(RunFailed) as caught:
        run(stages, tmp_path, {"explains": Explains})
    assert str(caught.value) == f"sink could not {what}: the disk is full; free some of it"


class CountLive(Stage):
    """Notes how many items were made but not yet taken by the sink."""

    class Config(Options):
        path: Path

    accepts = int
    stateful = True
    peak = 0
    made = 0
    taken = 0

    def process(self, item: Item) -> Output:
        CountLive.taken += 1
        CountLive.peak = max(CountLive.peak, CountLive.made - CountLive.taken)
        return iter(())


class CountedNumbers(Numbers):
    """Counts what it makes."""

    def produce(self) -> Output:
        for output in super().produce():
            CountLive.made += 1
            yield output


def test_what_is_in_flight_does_not_grow_with_the_source(tmp_path: Path) -> None:
    peaks = []
    for count in (60, 240):
        CountLive.peak = CountLive.made = CountLive.taken = 0
        stages = chain(tmp_path / "out", {"stage": "progressing", "steps": 5}, count=count)
        stages["numbers"]["stage"] = "counted"
        stages["sink"]["stage"] = "live"
        run(stages, tmp_path, {"counted": CountedNumbers, "live": CountLive})
        assert CountLive.taken == count
        peaks.append(CountLive.peak)
    assert peaks[0] == peaks[1] < 20


@settings(max_examples=25, deadline=None)
@given(
    replicas=st.integers(1, 3),
    parts=st.integers(0, 3),
    poison=st.sets(st.integers(0, 9)),
    fail_once=st.sets(st.integers(0, 9)),
)
def test_nothing_is_lost_or_doubled(
    tmp_path_factory: pytest.TempPathFactory, replicas: int, parts: int, poison: set[int], fail_once: set[int]
) -> None:
    folder = tmp_path_factory.mktemp("run")
    out = folder / "out"
    out.touch()
    outcome = run(
        {
            "numbers": {"stage": "numbers", "count": 10},
            "once": {"stage": "fail_once", "inputs": ["numbers"], "on": sorted(fail_once), "replicas": replicas},
            "always": {"stage": "fail_always", "inputs": ["once"], "on": sorted(poison), "retries": 1},
            "split": {"stage": "split", "inputs": ["always"], "parts": parts, "replicas": replicas},
            "sink": {"stage": "collect", "inputs": ["split.even", "split.odd"], "path": str(out)},
        },
        folder,
    )
    expected = Counter(m for n in range(10) if n not in poison for m in range(n, n + parts))
    assert Counter(values(out)) == expected
    assert {letter.label for letter in outcome.dead} == {f"n{n}" for n in poison}
