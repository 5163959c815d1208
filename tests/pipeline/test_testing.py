from dataclasses import dataclass

import numpy as np
import pytest
from pydantic import ValidationError

from framefold.pipeline.errors import Transient
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Emit, Options, Progress, Refused, Stage
from framefold.pipeline.testing import (
    TOYS,
    Add,
    Collect,
    Crash,
    Double,
    FailAlways,
    FailOnce,
    HoldBack,
    Numbers,
    Progressing,
    Slow,
    Spell,
    Split,
    check_stage,
)


@pytest.mark.parametrize(
    ("stage", "config", "items", "payloads"),
    [
        (Numbers, {"count": 3}, [], [0, 1, 2]),
        (Numbers, {"count": 4, "refuse": [1, 2]}, [], [0, 3]),
        (Double, {}, [1, 5], [2, 10]),
        (Add, {"amount": -2}, [1], [-1]),
        (Split, {"parts": 3}, [4, 7], [4, 5, 6, 7, 8, 9]),
        (Spell, {}, [1], ["1"]),
        (Crash, {"on": [3]}, [1, 2], [1, 2]),
        (FailAlways, {"on": [3]}, [1, 2], [1, 2]),
        (Slow, {"seconds": 0}, [1], [1]),
        (HoldBack, {}, [3, 1, 2], [3, 1, 2]),
        (Progressing, {"steps": 3}, [8], [8]),
    ],
)
def test_toys_pass_the_suite(stage, config, items, payloads):
    assert check_stage(stage, config, items) == payloads


def test_the_sink_appends_a_line_per_item(tmp_path):
    path = tmp_path / "lines.txt"
    assert check_stage(Collect, {"path": str(path)}, [5, "six"]) == []
    assert path.read_text() == "item 0 5\nitem 1 six\n" * 2


def test_numbers_name_what_they_refuse():
    outputs = list(Numbers(Numbers.Config(count=2, refuse=(0,))).produce())
    assert outputs == [Refused("n0", "asked to refuse it"), Emit(1, identity="1", label="n1")]


def item(payload, attempt=0):
    return Item(key="k", label="n", seq=(0, 0), payload=payload, attempt=attempt)


def test_failures_come_when_asked_for():
    once, always = FailOnce(FailOnce.Config(on=(1,))), FailAlways(FailAlways.Config(on=(1,)))
    with pytest.raises(Transient, match="first attempt"):
        list(once.process(item(1)))
    assert list(once.process(item(1, attempt=1))) == [1]
    for attempt in range(3):
        with pytest.raises(ValueError, match=f"attempt {attempt}"):
            list(always.process(item(1, attempt=attempt)))


def test_a_crash_leaves_without_a_word(monkeypatch):
    codes = []
    monkeypatch.setattr("os._exit", codes.append)
    crash = Crash(Crash.Config(on=(1,), attempts=2))
    for attempt in range(3):
        list(crash.process(item(1, attempt=attempt)))
    assert codes == [17, 17]


def test_progress_comes_before_the_number():
    assert list(Progressing(Progressing.Config(steps=2)).process(item(4))) == [
        Progress(0.5, {"step": 1}),
        Progress(1.0, {"step": 2}),
        4,
    ]


def test_toys_are_named_like_their_classes():
    assert {name.replace("_", "") for name in TOYS} == {stage.__name__.lower() for stage in TOYS.values()}


@dataclass(frozen=True)
class Picture:
    pixels: np.ndarray


def made(process, **attributes):
    return type("Made", (Stage,), {"accepts": int, "emits": {"out": Picture}, "process": process, **attributes})


def test_the_suite_compares_arrays_by_value():
    stage = made(lambda self, item: iter([Picture(np.arange(item.payload))]))
    (picture,) = check_stage(stage, {}, [3])
    assert picture.pixels.tolist() == [0, 1, 2]


class Sloppy(Options, extra="ignore"):
    """Does not refuse unknown options."""


class Greedy(Options):
    """Has an option that the engine would take."""

    replicas: int = 1


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (made(lambda self, item: iter([3])), "emits int on 'out', which it declares otherwise"),
        (
            made(lambda self, item: iter([Emit(3, port="side")])),
            "emits on 'side', which is none of its ports",
        ),
        (made(lambda self, item: iter([Progress(1.5)])), "progress of 1.5"),
        (made(lambda self, item: iter([Picture(np.random.default_rng().random(9))])), "emits something else"),
        (made(lambda self, item: iter(()), Config=Sloppy), "accepts unknown options"),
        (made(lambda self, item: iter(()), Config=Greedy), "uses words of the engine: replicas"),
    ],
)
def test_the_suite_finds_what_is_wrong(stage, message):
    with pytest.raises(AssertionError, match=message):
        check_stage(stage, {}, [1])


def test_the_suite_finds_a_close_that_needs_setup():
    def close(self):
        self.file.close()

    with pytest.raises(AttributeError, match="file"):
        check_stage(made(lambda self, item: iter(()), close=close), {}, [])


def test_the_suite_refuses_wrong_options_like_a_pipeline_would():
    with pytest.raises(ValidationError):
        check_stage(Add, {"amount": "1"}, [1])
