"""The log: what is worth a line, and that every line can be read."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefold.pipeline.dead_letters import LETTER, Morgue
from framefold.pipeline.event_log import EVERY_SECONDS, FLUSH_SECONDS, MOMENT_SECONDS, EventLog
from framefold.pipeline.events import Subject
from framefold.pipeline.graph import Node
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
from framefold.pipeline.stage import Ports, StageContext
from framefold.pipeline.testing import Double
from framefold.pipeline.worker import Blueprint

LETTERED = DeadLetter(
    "n", "double", "ab" * 32, "näme\udcff", 2, "ValueError", "bröken\udcfe", "Traceback\n  …", "f", "r"
)
LOGGED: list[Notice] = [
    ReplicaStarted("n", 0),
    ReplicaReady("n", 0),
    ReplicaGone("n", 0, "crash", "it died"),
    CallEnded("n", 0, "process", "x", seconds=MOMENT_SECONDS),
    CallEnded("n", 0, "process", "x", outcome="failed", why="because"),
    CallEnded("n", 0, "process", "x", outcome="again", why="because"),
    CallEnded("n", 0, "process", "x", outcome="stopped"),
    Reused("n", "x"),
    CheckpointWritten("n", "x", 9, 0.5),
    Refusal("n", "näme\udcff", "no video"),
    ResultRow("n", "x", {"psnr_db": 30.5, "bits": 7, "ok": True, "none": None}),
    HintGiven("cat x"),
    LETTERED,
    Restarted("lost"),
    Warned("look\nhere"),
    CallAdvanced("n", 0, 0.5, {"psnr_db": 28.0}),
    Gauged({"n": 3}, 100, 5),
]
LEFT_OUT: list[Notice] = [
    CallBegan("n", 0, "x"),
    CallBlocked("n", 0, True),
    GivenOut("n", 0, "x", 5, 5),
    CallEnded("n", 0, "process", "x", seconds=MOMENT_SECONDS / 2),
]


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def strict(line: str) -> dict[str, Any]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    answer: dict[str, Any] = json.loads(line, parse_constant=refuse)
    return answer


def log(path: Path, *notices: Notice, clock: Callable[[], float] | None = None) -> list[dict[str, Any]]:
    events = EventLog(path, clock or Clock())
    for notice in notices:
        events(notice)
    events.close()
    return [strict(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("notice", LOGGED, ids=lambda one: type(one).__name__)
def test_what_matters_is_logged_with_all_that_it_says(tmp_path: Path, notice: Notice) -> None:
    (line,) = log(tmp_path / "events.jsonl", notice)
    assert line == {"at_seconds": 0.0, "event": type(notice).__name__, **vars(notice)}


@pytest.mark.parametrize("notice", LEFT_OUT, ids=lambda one: type(one).__name__)
def test_what_others_say_anyway_is_left_out(tmp_path: Path, notice: Notice) -> None:
    assert log(tmp_path / "events.jsonl", notice) == []


def test_a_million_tiny_items_leave_a_short_log(tmp_path: Path) -> None:
    tiny: list[Notice] = [
        CallBegan("n", 0, "x"),
        GivenOut("n", 0, "x", 5, 5),
        CallEnded("n", 0, "process", "x", seconds=1e-4),
    ]
    assert log(tmp_path / "events.jsonl", ReplicaReady("n", 0), *tiny * 1000, Warned("end"))[1:] == [
        {"at_seconds": 0.0, "event": "Warned", "text": "end"}
    ]


def test_progress_is_thinned_out_for_each_replica_and_gauges_by_themselves(tmp_path: Path) -> None:
    clock = Clock()
    events = EventLog(tmp_path / "events.jsonl", clock)
    for second in range(25):
        clock.now = 1000.0 + second
        for replica in (("a", 0), ("a", 1), ("b", 0)):
            events(CallAdvanced(*replica, second / 25, {}))
        events(Gauged())
    events.close()
    lines = [strict(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    for who in (("a", 0), ("a", 1), ("b", 0), (None, None)):
        times = [line["at_seconds"] for line in lines if (line.get("node"), line.get("replica")) == who]
        assert times == [0, EVERY_SECONDS, 2 * EVERY_SECONDS]


def test_times_count_from_the_beginning_of_the_run(tmp_path: Path) -> None:
    clock = Clock()
    events = EventLog(tmp_path / "events.jsonl", clock)
    for seconds in (0, 0.25, 3600.12345):
        clock.now = 1000 + seconds
        events(Warned("now"))
    events.close()
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert [strict(line)["at_seconds"] for line in lines] == [0, 0.25, 3600.123]


def test_a_run_that_lives_can_be_followed(tmp_path: Path) -> None:
    clock = Clock()
    events = EventLog(tmp_path / "events.jsonl", clock)
    events(Warned("one"))
    clock.now += FLUSH_SECONDS
    events(Warned("two"))
    assert [strict(line)["text"] for line in (tmp_path / "events.jsonl").read_text().splitlines()] == ["one", "two"]
    events.close()


def test_the_log_of_the_run_before_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "run" / "events.jsonl"
    for run in ("first", "second", "third"):
        log(path, Warned(run))
    assert {one.name: strict(one.read_text())["text"] for one in path.parent.iterdir()} == {
        "events.jsonl": "third",
        "events.old.jsonl": "second",
    }


def test_infinite_and_odd_values_are_still_json(tmp_path: Path) -> None:
    values: Any = {"psnr_db": math.inf, "loss": math.nan, "low": -math.inf, "path": Path("a/b")}
    (row, progress) = log(
        tmp_path / "events.jsonl", ResultRow("n", "x", values), CallAdvanced("n", 0, math.nan, {"loss": math.inf})
    )
    assert row["values"] == {"psnr_db": "inf", "loss": "nan", "low": "-inf", "path": "a/b"}
    assert (progress["fraction"], progress["values"]) == ("nan", {"loss": "inf"})


@given(st.text(st.characters()), st.dictionaries(st.text(max_size=5), st.floats() | st.text() | st.none()))
def test_every_line_is_json_whatever_names_and_values_are(
    tmp_path_factory: pytest.TempPathFactory, name: str, values: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("log") / "events.jsonl"
    events = EventLog(path)
    events(Refusal("n", name, name))
    events(ResultRow("n", name, values))
    events.close()
    first, second = (strict(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1])
    assert (first["label"], first["reason"]) == (name, name)
    assert second["values"].keys() == values.keys()


def node() -> Node:
    return Node(
        name="n",
        stage="double",
        stage_class=Double,
        config=Double.Config(),
        ports=Ports(accepts=int, emits={"out": int}),
        digest="0" * 64,
        lineage="0" * 64,
    )


def test_a_letter_about_a_file_whose_name_is_no_text_can_be_written_and_read(tmp_path: Path) -> None:
    morgue = Morgue(tmp_path / "dead")
    folder = morgue.folder("n", LETTERED.key)
    blueprint = Blueprint("framefold.pipeline.testing:Double", "{}", StageContext("n"))
    morgue.write(folder, LETTERED, node(), blueprint, Subject(label=LETTERED.label, seq=(0, 3)))
    letter = strict((folder / LETTER).read_text(encoding="utf-8"))
    assert (letter["label"], letter["message"]) == (LETTERED.label, LETTERED.message)
    assert (letter["stage_class"], letter["config"]) == ("framefold.pipeline.testing:Double", {})
    assert [path.name for path in folder.iterdir()] == [LETTER]


def test_the_letters_of_the_run_before_are_kept_once(tmp_path: Path) -> None:
    morgue = Morgue(tmp_path / "dead")
    morgue.clear()
    assert list(tmp_path.iterdir()) == []
    for run in ("first", "second"):
        (tmp_path / "dead").mkdir()
        (tmp_path / "dead" / run).touch()
        morgue.clear()
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["dead.old", "dead.old/second"]
