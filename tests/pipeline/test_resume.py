"""Going on after an interruption: runs are really killed, at every point that matters, and have to end the same.

The runs are children of `killed_runs.py`; all share one folder, since its name is among the options of some toys.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from framefold.pipeline.events import Produced, Reported
from framefold.pipeline.ledger import Ledger

KILLED_RUNS = Path(__file__).parent.parent / "killed_runs.py"

Fault = dict[str, Any]


def kill(point: str, number: int, when: str = "before", by: signal.Signals = signal.SIGKILL) -> Fault:
    """What comes over a run at the n-th call at a point."""
    return {"point": point, "number": number, "when": when, "signal": by}


class Lab:
    """A folder in which pipelines run, and what can be read there afterwards."""

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        self.folder, self._process = folder, process
        self.stages: dict[str, dict[str, Any]] = {}
        self.top: dict[str, Any] = {}

    def ask(self, **job: Any) -> dict[str, int | None]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        answer: dict[str, int | None] = json.loads(self._process.stdout.readline())
        return answer

    def start(self, *faults: Fault, **manner: Any) -> dict[str, int | None]:
        """Run until it ends or stops."""
        pipeline = {"run_dir": str(self.run_dir), "checkpoint_seconds": 1e6, **self.top, "stages": self.stages}
        return self.ask(pipeline=pipeline, faults=faults, manner=manner, output=str(self.folder / "output"))

    def run(self, *faults: Fault, **manner: Any) -> int:
        """Run to the end; the exit code, or the signal below 0."""
        ended = self.start(*faults, **manner)["ended"]
        assert ended is not None
        assert ended != 70, self.output
        return ended

    def clean(self) -> None:
        """As if nothing had ever run."""
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    @property
    def run_dir(self) -> Path:
        return self.folder / "run"

    @property
    def state(self) -> Path:
        return self.run_dir / "state"

    @property
    def output(self) -> str:
        return (self.folder / "output").read_text()

    @property
    def sink(self) -> dict[str, str]:
        """Each file of the sink's folder, by the key of its item."""
        return {path.name: path.read_text() for path in (self.folder / "out").glob("[!.]*")}

    @property
    def report(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads((self.run_dir / "report.json").read_text())
        return answer

    @property
    def rows(self) -> list[tuple[str, int]]:
        return sorted((row["label"], row["value"]) for row in self.report["rows"])

    def counts(self, what: str) -> dict[str, int]:
        """`done` or `reused` of each node that has any."""
        return {name: node[what] for name, node in self.report["stages"].items() if node[what]}

    @property
    def steps(self) -> list[str]:
        """`label step` for each step that `steps` ever made."""
        return self._lines("steps")

    @property
    def taken(self) -> list[str]:
        """The key of each item that the sink was ever given."""
        return self._lines("taken")

    def _lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def committed(self, node: str) -> list[dict[str, Any]]:
        """The sound lines of a node in all ledgers, read without the ledger's own code."""
        paths = sorted((self.state / "ledger").glob("*.jsonl"))
        raw_lines = [raw for path in paths for raw in path.read_bytes().splitlines(keepends=True)]
        sound = [raw for raw in raw_lines if raw[-1:] == b"\n" and int(raw[:8], 16) == zlib.crc32(raw[9:-1])]
        return [line for line in map(json.loads, (raw[9:] for raw in sound)) if line.get("node") == node]

    def checkpoints(self) -> list[Path]:
        return sorted(self.state.glob("checkpoints/*/*.pickle"))


@pytest.fixture(scope="module")
def process() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(KILLED_RUNS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        yield running


@pytest.fixture
def lab(tmp_path: Path, process: subprocess.Popen[str]) -> Lab:
    return Lab(tmp_path, process)


@pytest.fixture
def everything(lab: Lab) -> Lab:
    """Work that is kept, a fan-out, a diamond, a side input that is learned, and a sink that commits each item."""
    lab.stages = {
        "numbers": {"stage": "numbers", "count": 3},
        "lessons": {"stage": "numbers", "count": 2},
        "learned": {"stage": "learn", "inputs": ["lessons"]},
        "worked": {"stage": "steps", "steps": 2, "log": str(lab.folder / "steps"), "inputs": ["numbers"]},
        "divided": {"stage": "split", "parts": 3, "inputs": ["worked"]},
        "shifted": {"stage": "offset", "inputs": ["divided.even"], "side_inputs": {"model": "learned"}},
        "left": {"stage": "double", "inputs": ["worked"]},
        "right": {"stage": "add", "inputs": ["worked"]},
        "paired": {"stage": "pair", "inputs": {"left": "left", "right": "right"}},
        "sink": tally(lab, "shifted", "divided.odd", "paired"),
    }
    return lab


@pytest.fixture
def chain(lab: Lab) -> Lab:
    """Three items, four steps each."""
    lab.stages = {
        "numbers": {"stage": "numbers", "count": 3},
        "worked": {"stage": "steps", "steps": 4, "log": str(lab.folder / "steps"), "inputs": ["numbers"]},
        "sink": tally(lab, "worked"),
    }
    return lab


def tally(lab: Lab, *inputs: str) -> dict[str, Any]:
    return {"stage": "tally", "inputs": inputs, "path": str(lab.folder / "out"), "log": str(lab.folder / "taken")}


class Whole:
    """What an uninterrupted run leaves, to compare with."""

    def __init__(self, lab: Lab) -> None:
        assert lab.run() == 0, lab.output
        self.sink, self.rows, self.done = lab.sink, lab.rows, lab.counts("done")
        self.writes = sum(len(lab.committed(name)) for name in lab.stages)
        self.steps = Counter(lab.steps)
        assert sorted(lab.taken) == sorted(self.sink)
        lab.clean()

    def compare(self, lab: Lab) -> None:
        """The same content, once each, and a report of the whole."""
        assert lab.sink == self.sink
        assert lab.rows == self.rows
        assert lab.counts("done") == self.done


def resume(lab: Lab, whole: Whole) -> None:
    """Run again to the end: all is there, and nothing that was committed is done again."""
    steps, taken = len(lab.steps), len(lab.taken)
    labels = {line["label"] for line in lab.committed("worked")}
    in_sink = len(lab.committed("sink"))
    assert lab.run() == 0, lab.output
    whole.compare(lab)
    expected = {step: times for step, times in whole.steps.items() if step.split()[0] not in labels}
    assert Counter(lab.steps[steps:]) == expected
    assert len(lab.taken) - taken == len(whole.sink) - in_sink
    assert lab.counts("reused").get("sink", 0) == in_sink


# Killed at every point.


@pytest.mark.parametrize(
    ("point", "when"),
    [
        ("ledger", "before"),
        ("ledger", "torn"),
        ("ledger", "after"),
        ("rename", "before"),
        ("output", "before"),
        ("step", "after"),
    ],
)
def test_killed_at_any_point_it_goes_on_to_the_same_end(everything: Lab, point: str, when: str) -> None:
    whole = Whole(everything)
    for number in count(1):
        if everything.run(kill(point, number, when)) == 0:
            break
        resume(everything, whole)
        everything.clean()
    calls = number - 1
    if point == "ledger":
        assert calls == whole.writes
    assert calls >= {"ledger": 15, "rename": 15, "output": 30, "step": 6}[point]


@pytest.mark.parametrize(("number", "when"), [(2, "before"), (2, "torn"), (1, "after"), (2, "after")])
def test_killed_over_and_over_each_run_brings_it_nearer_to_the_end(everything: Lab, number: int, when: str) -> None:
    whole = Whole(everything)
    steps: Counter[str] = Counter()
    ends = [-signal.SIGKILL]
    while ends[-1] == -signal.SIGKILL and len(ends) <= whole.writes + 2:
        committed = {line["label"] for line in everything.committed("worked")}
        before = len(everything.steps)
        ends.append(everything.run(kill("ledger", number, when)))
        assert not committed & {step.split()[0] for step in everything.steps[before:]}
        steps += Counter(everything.steps[before:])
    assert ends[-1] == 0
    assert len(ends) >= whole.writes // number
    assert steps == Counter(everything.steps)
    whole.compare(everything)


def test_killed_twice_at_any_two_writes(everything: Lab) -> None:
    whole = Whole(everything)
    for first in range(1, whole.writes + 1, 4):
        for second in count(1, 3):
            assert everything.run(kill("ledger", first, "torn")) == -signal.SIGKILL
            ended = everything.run(kill("ledger", second, "before"))
            if ended == 0:
                break
            resume(everything, whole)
            everything.clean()
        everything.clean()


def test_a_fan_out_interrupted_between_its_children_loses_and_doubles_none(lab: Lab) -> None:
    lab.stages = {
        "numbers": {"stage": "numbers", "count": 1},
        "divided": {"stage": "split", "parts": 4, "store": True, "inputs": ["numbers"]},
        "sink": tally(lab, "divided.even", "divided.odd"),
    }
    whole = Whole(lab)
    assert len(whole.sink) == 4
    halves = []
    for number in count(1):
        if lab.run(kill("output", number)) == 0:
            break
        halves.append((len(lab.committed("divided")), len(lab.committed("sink"))))
        resume(lab, whole)
        lab.clean()
    assert any(parent == 0 and 0 < children < 4 for parent, children in halves)


def test_a_stage_that_needs_every_item_sees_every_item_again(lab: Lab) -> None:
    lab.stages = {
        "numbers": {"stage": "numbers", "count": 3},
        "held": {"stage": "hold_back", "store": True, "inputs": ["numbers"]},
        "sink": tally(lab, "held"),
    }
    whole = Whole(lab)
    for number in count(1):
        if lab.run(kill("ledger", number, "after")) == 0:
            break
        resume(lab, whole)
        lab.clean()
    assert number - 1 == 1 + 3  # the end of `held` is one piece of work, then come the three items


def test_what_work_said_is_in_the_report_of_every_run_that_reuses_it(chain: Lab) -> None:
    chain.stages["worked"] |= {"stage": "telling", "steps": 1}
    assert chain.run() == 3
    rows, refused = chain.rows, chain.report["refused"]
    assert (len(rows), [one["label"] for one in refused]) == (6, ["n0's tail", "n1's tail", "n2's tail"])
    for number in count(1):
        chain.clean()
        if chain.run(kill("ledger", number)) == 3:
            break
        assert chain.run() == 3
        assert (chain.rows, sorted(one["label"] for one in chain.report["refused"])) == (
            rows,
            [one["label"] for one in refused],
        )
    assert number - 1 >= 3 + 3
    assert chain.run() == 3
    assert chain.counts("reused") == {"worked": 3, "sink": 3}
    assert (chain.rows, chain.report["refused"]) == (rows, refused)


# What is on disk, damaged.


def test_a_ledger_that_is_cut_or_changed_anywhere_loses_that_line_and_no_other(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for number in range(3):
        outputs = [Produced("out", f"i{number}", "é", 8, 0.5)]
        ledger.add(f"{number:064x}", "fit", f"n{number}", outputs, [Reported(f"n{number}", {"bits": number})])
    ledger.close()
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    last = len(whole) - whole[:-1].rindex(b"\n") - 1
    for size in range(len(whole) - last, len(whole)):
        path.write_bytes(whole[:size])
        assert [f"{number:064x}" in Ledger(tmp_path) for number in range(3)] == [True, True, False]
    for place in range(len(whole) - last, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert [f"{number:064x}" in Ledger(tmp_path) for number in range(3)] == [True, True, False]
    path.write_bytes(whole)
    assert Ledger(tmp_path).done(f"{2:064x}") == ledger.done(f"{2:064x}")


@pytest.mark.parametrize("damage", [b"\n", b"no line at all\n", b"\xff\xfe\x00\n", b"00000000 {}\n", b"0 []\n"])
def test_a_line_of_a_ledger_that_is_damaged_costs_its_own_item(chain: Lab, damage: bytes) -> None:
    whole = Whole(chain)
    assert chain.run() == 0
    (path,) = (chain.state / "ledger").iterdir()
    lines = path.read_bytes().splitlines(keepends=True)
    (place,) = (n for n, line in enumerate(lines) if b'"worked"' in line and b'"n1"' in line)
    path.write_bytes(b"".join([*lines[:place], damage, *lines[place + 1 :]]))
    steps = len(chain.steps)
    assert chain.run() == 0
    whole.compare(chain)
    assert chain.steps[steps:] == [f"n1 {step}" for step in range(4)]


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3] + b"\x07" + path.read_bytes()[-2:])


@pytest.mark.parametrize("damage", [remove, empty, cut, flip])
def test_a_kept_output_that_is_damaged_costs_its_own_item_and_says_so(
    everything: Lab, damage: Callable[[Path], None]
) -> None:
    whole = Whole(everything)
    assert everything.run() == 0
    (line,) = (line for line in everything.committed("worked") if line["label"] == "n1")
    damage(everything.state / "kept" / line["outputs"][0]["kept"]["file"])
    steps, taken = everything.steps, everything.taken
    assert everything.run() == 0
    whole.compare(everything)
    assert everything.steps[len(steps) :] == ["n1 0", "n1 1"]
    assert everything.taken == taken
    assert everything.counts("reused") == {"worked": 2, "learned": 1, "sink": 12}
    (warning,) = everything.report["warnings"]
    assert warning.endswith("n1 is done again by worked")
    assert everything.run() == 0
    assert everything.counts("reused") == {"worked": 3, "learned": 1, "sink": 12}
    assert everything.report["warnings"] == []


def test_a_kept_output_that_is_damaged_once_more_after_a_kill(everything: Lab) -> None:
    whole = Whole(everything)
    for number in range(1, 5):
        assert everything.run() == 0
        for path in everything.state.glob("kept/worked/*"):
            cut(path)
        assert everything.run(kill("ledger", number, "after")) == -signal.SIGKILL
        assert everything.run() == 0
        whole.compare(everything)
        everything.clean()


def test_a_model_that_is_damaged_is_learned_again_from_all_its_items(everything: Lab) -> None:
    whole = Whole(everything)
    for number in count(1):
        assert everything.run(kill("ledger", number, "after")) == -signal.SIGKILL
        if everything.committed("learned"):
            break
        everything.clean()
    (model,) = everything.state.glob("kept/learned/*")
    cut(model)
    assert everything.run() == 0
    whole.compare(everything)
    assert any("done again by learned" in warning for warning in everything.report["warnings"])


# What a change of the file costs.


def test_the_same_again_does_nothing_again(everything: Lab) -> None:
    whole = Whole(everything)
    assert everything.run() == 0
    steps, taken = everything.steps, everything.taken
    assert everything.run() == 0
    whole.compare(everything)
    assert (everything.steps, everything.taken) == (steps, taken)
    assert everything.counts("reused") == {"worked": 3, "learned": 1, "sink": 12}
    assert "reused 16" in everything.output


@pytest.mark.parametrize(
    ("node", "option", "value", "reused"),
    [
        ("right", "amount", 5, {"worked": 3, "learned": 1, "sink": 9}),
        ("worked", "amount", 5, {"learned": 1}),
        ("lessons", "count", 4, {"worked": 3, "sink": 7}),
        ("divided", "parts", 4, {"worked": 3, "learned": 1, "sink": 3}),
        ("numbers", "count", 4, {"learned": 1}),
    ],
)
def test_a_changed_option_redoes_what_depends_on_it_and_nothing_else(
    everything: Lab, node: str, option: str, value: int, reused: dict[str, int]
) -> None:
    assert everything.run() == 0
    everything.stages[node][option] = value
    steps, taken = len(everything.steps), len(everything.taken)
    assert everything.run() == 0
    assert everything.counts("reused") == reused
    items = everything.counts("done")
    assert len(everything.steps) - steps == 2 * (items["worked"] - reused.get("worked", 0))
    assert len(everything.taken) - taken == items["sink"] - reused.get("sink", 0)
    rows, files = everything.rows, everything.sink
    everything.clean()
    whole = Whole(everything)
    assert whole.rows == rows
    assert whole.sink.items() <= files.items()


def test_an_option_that_is_changed_back_finds_its_work_again(everything: Lab) -> None:
    assert everything.run() == 0
    everything.stages["worked"]["amount"] = 5
    assert everything.run() == 0
    everything.stages["worked"]["amount"] = 0
    assert everything.run() == 0
    assert everything.counts("reused") == {"worked": 3, "learned": 1, "sink": 12}


@pytest.mark.parametrize(
    "words",
    [
        {"replicas": 3},
        {"retries": 0, "timeout": 100, "stall_timeout": 50},
        {"resources": {"cpus": 2}},
        {"batch": {"items": 2, "wait_seconds": 0}},
    ],
)
def test_how_a_node_is_run_does_not_make_it_another(everything: Lab, words: Mapping[str, Any]) -> None:
    whole = Whole(everything)
    assert everything.run(kill("ledger", 12, "after")) == -signal.SIGKILL
    for name in ("worked", "shifted", "left", "paired", "sink"):
        everything.stages[name] |= words
    everything.top = {"checkpoint_seconds": 5, "drain_seconds": 5, "fail_fast": True}
    resume(everything, whole)


def test_another_seed_is_another_work(chain: Lab) -> None:
    assert chain.run() == 0
    chain.top["seed"] = 1
    assert chain.run() == 0
    assert chain.counts("reused") == {}


# A run folder of its own.


def test_fresh_does_all_again_and_deletes_nothing(everything: Lab) -> None:
    whole = Whole(everything)
    assert everything.run() == 0
    before = {path.relative_to(everything.state): path.read_bytes() for path in files(everything.state)}
    assert everything.run(fresh=True) == 0
    whole.compare(everything)
    assert everything.counts("reused") == {}
    assert Counter(everything.steps) == whole.steps + whole.steps
    assert Counter(everything.taken) == Counter([*whole.sink, *whole.sink])
    apart = everything.run_dir / "state.1"
    assert {path.relative_to(apart): path.read_bytes() for path in files(apart)} == before
    assert str(apart) in everything.output
    assert everything.run(fresh=True) == 0
    assert (everything.run_dir / "state.2").is_dir()
    assert everything.run() == 0
    assert everything.counts("reused") == {"worked": 3, "learned": 1, "sink": 12}


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_fresh_where_nothing_has_run_sets_nothing_apart(chain: Lab) -> None:
    assert chain.run(fresh=True) == 0
    assert not list(chain.run_dir.glob("state.*"))


def test_a_run_folder_can_be_moved(everything: Lab) -> None:
    whole = Whole(everything)
    assert everything.run(kill("ledger", 10)) == -signal.SIGKILL
    everything.run_dir.rename(everything.folder / "moved")
    (everything.folder / "run").symlink_to("moved")
    resume(everything, whole)


def test_two_runs_in_one_folder_are_refused_while_both_live(chain: Lab) -> None:
    whole = Whole(chain)
    first = chain.start(kill("step", 3, by=signal.SIGSTOP))["stopped"]
    assert chain.run() == 2
    assert f"in use by another run (process {first}); wait for it, stop it, or name another folder" in chain.output
    assert chain.ask(wake=first) == {"ended": 0, "stopped": None}
    whole.compare(chain)
    assert Counter(chain.steps) == whole.steps
    assert chain.run() == 0


# Half-done work.


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_drained_run_leaves_what_is_half_done_and_the_next_one_makes_no_step_twice(chain: Lab, replicas: int) -> None:
    chain.stages["worked"]["replicas"] = replicas
    whole = Whole(chain)
    half_done = []
    for number in range(1, 13):
        assert chain.run(kill("step", number, "after", signal.SIGTERM)) == 128 + signal.SIGTERM
        assert chain.report["exit_code"] == 128 + signal.SIGTERM
        begun = {step.split()[0] for step in chain.steps} - {line["label"] for line in chain.committed("worked")}
        assert len(chain.checkpoints()) == len(begun)
        half_done.append(len(begun))
        assert chain.run() == 0
        whole.compare(chain)
        assert Counter(chain.steps) == whole.steps
        assert chain.checkpoints() == []
        chain.clean()
    assert max(half_done) == replicas


def test_without_time_to_drain_the_work_under_way_begins_anew(chain: Lab) -> None:
    whole = Whole(chain)
    chain.top = {"drain_seconds": 0}
    assert chain.run(kill("step", 6, "after", signal.SIGTERM)) == 128 + signal.SIGTERM
    assert chain.checkpoints() == []
    resume(chain, whole)
    assert Counter(chain.steps) - whole.steps == Counter(["n1 0", "n1 1"])


def test_killed_between_checkpoints_it_goes_on_from_the_last_one(chain: Lab) -> None:
    whole = Whole(chain)
    chain.top = {"checkpoint_seconds": 1e-9}
    for number in range(1, 13):
        assert chain.run(kill("step", number)) == -signal.SIGKILL
        assert len(chain.checkpoints()) == (number % 4 != 1)
        assert chain.run(kill("step", 1, "after")) == -signal.SIGKILL
        assert chain.run() == 0
        whole.compare(chain)
        (twice,) = Counter(chain.steps) - whole.steps  # the one whose checkpoint was still to be written
        assert twice == chain.steps[number - 1]
        assert chain.checkpoints() == []
        chain.clean()


@pytest.mark.parametrize("damage", [remove, empty, cut, flip])
def test_a_checkpoint_that_is_damaged_costs_its_own_item(chain: Lab, damage: Callable[[Path], None]) -> None:
    whole = Whole(chain)
    assert chain.run(kill("step", 6, "after", signal.SIGTERM)) == 128 + signal.SIGTERM
    (path,) = chain.checkpoints()
    damage(path)
    assert chain.run() == 0
    whole.compare(chain)
    assert Counter(chain.steps) - whole.steps == Counter(["n1 0", "n1 1"])
    assert ("the work on n1 begins anew" in chain.output) == (damage is not remove)
    assert chain.checkpoints() == []


def test_a_checkpoint_of_other_options_is_not_gone_on_with(chain: Lab) -> None:
    assert chain.run(kill("step", 6, "after", signal.SIGTERM)) == 128 + signal.SIGTERM
    chain.stages["worked"]["amount"] = 1
    steps = len(chain.steps)
    assert chain.run() == 0
    assert len(chain.steps) - steps == 12


def test_a_batch_that_is_interrupted_begins_anew_and_what_is_done_stays_done(chain: Lab) -> None:
    chain.stages["worked"]["batch"] = {"items": 2, "wait_seconds": 0}
    whole = Whole(chain)
    for number in count(1):
        if chain.run(kill("ledger", number, "after")) == 0:
            break
        resume(chain, whole)
        chain.clean()


# How a run is told to end.


def test_a_second_signal_ends_a_drain_at_once(chain: Lab) -> None:
    whole = Whole(chain)
    again = kill("rename", 1, "before", signal.SIGTERM)  # while it writes the checkpoint
    assert chain.run(kill("step", 2, "after", signal.SIGTERM), again) == -signal.SIGTERM
    assert chain.checkpoints() == []
    assert not (chain.run_dir / "report.json").exists()
    resume(chain, whole)


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_every_signal_that_asks_to_stop_leaves_a_run_that_can_go_on(everything: Lab, by: signal.Signals) -> None:
    whole = Whole(everything)
    for number in range(1, 33, 6):
        assert everything.run(kill("output", number, "after", by)) == 128 + by
        assert everything.run() == 0
        whole.compare(everything)
        assert Counter(everything.steps) == whole.steps
        everything.clean()


def test_fail_fast_ends_the_run_and_keeps_what_is_done(chain: Lab) -> None:
    chain.stages["picky"] = {"stage": "fail_always", "on": [1], "inputs": ["worked"]}
    chain.stages["sink"] |= {"inputs": ["picky"]}
    chain.top = {"fail_fast": True}
    assert chain.run() == 1
    assert "n1 was set aside by picky: ValueError: attempt 0 of n1 (fail_fast is set)" in chain.output
    assert chain.report["error"].endswith("(fail_fast is set)")
    assert [letter["label"] for letter in chain.report["set_aside"]] == ["n1"]
    assert len(chain.steps) < 12
    chain.top = {}
    assert chain.run() == 3
    assert [row["label"] for row in chain.report["rows"]] == ["n0", "n2"]
    assert [letter["label"] for letter in chain.report["set_aside"]] == ["n1"]
    assert len(set(chain.steps)) == len(chain.steps) == 12
    assert len(chain.taken) == 2
