"""`check_stage` on the toys, and on stages that are wrong in just one way each."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from pydantic import BaseModel, Field, model_serializer

from framefold.codecs.stream import bitstream
from framefold.pipeline import keepsake
from framefold.pipeline.item import Item
from framefold.pipeline.sameness import same
from framefold.pipeline.stage import Emit, Options, Output, PortType, Progress, Stage
from framefold.pipeline.testing import Gather, Learn, Model, Numbers, Offset, Pair, Steps, Together, check_stage

ROOT = Path(__file__).parents[2]
INTS: Mapping[str, PortType] = {"out": int}


class Sum(Stage):
    """The sum of an array, in two halves: a stage of every kind, and right. The wrong ones derive from it."""

    accepts = np.ndarray
    emits: ClassVar[Mapping[str, PortType]] = {"out": np.ndarray}
    durable = True

    def process(self, item: Item) -> Iterator[Output]:
        half = len(item.payload) // 2
        kept = item.checkpoint
        if kept is None:
            kept = {"total": item.payload[:half].sum(), "done": 1}
            yield Progress(0.5, state=lambda: dict(kept))
        yield Progress(1.0, state=lambda: {"total": kept["total"], "done": 1})
        yield np.array([kept["total"] + item.payload[half:].sum()])

    def process_batch(self, items: Sequence[Item]) -> Iterator[tuple[Item, Output]]:
        for item in reversed(items):
            yield from ((item, output) for output in self.process(item))

    def packed(self, payload: Any) -> Any:
        return int(payload[0])

    def restored(self, item: Item, kept: Any) -> Any:
        return np.array([kept])


PAIR = {"left": 1, "right": 2}
ARRAYS = [np.arange(6), np.arange(9) * 3]


def wrong(base: type[Stage], **attributes: Any) -> type[Stage]:
    """A stage that is as `base`, but for what is given."""
    return type("Wrong", (base,), attributes)


def refused(message: str, stage: type[Stage], config: dict[str, Any], items: Sequence[Any], **options: Any) -> None:
    with pytest.raises(AssertionError) as caught:
        check_stage(stage, config, items, **options)
    assert message in str(caught.value)


# Stages that are right


def test_a_stage_of_every_kind_passes() -> None:
    assert [payload.tolist() for payload in check_stage(Sum, {}, ARRAYS)] == [[15], [108]]


@pytest.mark.parametrize(
    ("stage", "config", "items", "options", "payloads"),
    [
        (Steps, {"steps": 5}, [3, 4], {}, [3, 4]),
        (Steps, {"steps": 1}, [3], {}, [3]),
        (Pair, {}, [{"left": 1, "right": 2}, {"left": 3, "right": 4}], {}, [3, 7]),
        (Offset, {}, [1, 2], {"sides": {"model": Model(10)}}, [11, 12]),
        (Learn, {}, [1, 2], {}, [Model(3)]),
        (Together, {}, [1, 2], {"batches_alike": False}, [1001, 2001]),
        (Together, {}, [], {}, []),
    ],
)
def test_toys_pass(
    *, stage: type[Stage], config: dict[str, Any], items: list[Any], options: dict[str, Any], payloads: list[Any]
) -> None:
    assert check_stage(stage, config, items, **options) == payloads


def test_a_sink_that_commits_passes(tmp_path: Path) -> None:
    assert check_stage(Gather, {"path": str(tmp_path / "out")}, [5, "six"]) == []
    assert sorted(path.read_text() for path in (tmp_path / "out").iterdir()) == ["item 0 5", "item 1 six"]


# Options


class Inside(BaseModel, frozen=True, extra="allow"):
    """Writes out what it was not given."""

    name: str

    @model_serializer
    def _in_full(self) -> dict[str, Any]:
        return {"width": 8, "name": self.name}


class Chosen(Options):
    inside: Inside


class Forgetful(Options):
    amount: int = Field(default=1, exclude=True)


def test_options_that_write_out_their_defaults_survive() -> None:
    assert check_stage(wrong(Pair, Config=Chosen), {"inside": {"name": "x"}}, [PAIR]) == [3]


def test_options_that_get_lost_on_the_way_to_a_worker_are_found() -> None:
    refused("Wrong.Config does not survive JSON", wrong(Pair, Config=Forgetful), {"amount": 2}, [PAIR])


# What it is given


@pytest.mark.parametrize(
    ("stage", "items", "sides", "message"),
    [
        (Offset, [1], {}, "Offset needs sides by the names model, got {}"),
        (Offset, [1], {"modell": Model(1)}, "Offset needs sides by the names model, got {modell}"),
        (Offset, [1], {"model": 3}, "Offset takes Model as model, got int"),
        (Offset, ["1"], {"model": Model(1)}, "Offset takes int as item, got str"),
        (Pair, [3], {}, "Pair needs item 0 as a payload by the names left and right, got int"),
        (Pair, [{"left": 1}], {}, "Pair needs item 0 as a payload by the names left and right, got {left}"),
        (Pair, [{"left": 1, "right": "2"}], {}, "Pair takes int as right, got str"),
        (Numbers, [1], {}, "Numbers is a source and takes no items; leave them out, or declare `accepts`"),
        (wrong(Pair, accepts=int), [1], {}, "Wrong both accepts items and joins them; declare one of the two"),
        (
            wrong(Offset, receive=Stage.receive),
            [1],
            {"model": Model(1)},
            "Wrong declares side inputs; write `receive`, which takes them",
        ),
    ],
)
def test_what_it_is_given_is_checked(
    *, stage: type[Stage], items: list[Any], sides: dict[str, Any], message: str
) -> None:
    refused(message, stage, {}, items, sides=sides)


def test_a_method_has_to_yield() -> None:
    refused("Wrong returns int; let it yield what it gives", wrong(Pair, process=lambda self, item: 3), {}, [PAIR])
    assert check_stage(wrong(Pair, process=lambda self, item: None), {}, [PAIR]) == []


def test_side_inputs_reach_every_replica() -> None:
    """A class that remembers its model would pass with one replica only."""
    received: list[Stage] = []

    def receive(self: Any, name: str, payload: Any) -> None:
        received.append(self)
        self._model = payload

    check_stage(wrong(Offset, receive=receive, durable=True), {}, [1], sides={"model": Model(1)})
    assert len(received) == len(set(received)) > 2


# Batches


def mixed_up(self: Any, items: Sequence[Item]) -> Iterator[tuple[Item, Output]]:
    for item, other in zip(items, reversed(items), strict=True):
        yield from ((item, output) for output in self.process(other))


def strange(self: Any, items: Sequence[Item]) -> Iterator[tuple[Item, Output]]:
    for item in items:
        yield replace(item, key="f" * 64), item.payload


def another(self: Any, items: Sequence[Item]) -> Iterator[tuple[Item, Output]]:
    for item in items:
        yield item, item.payload


@pytest.mark.parametrize(
    ("process_batch", "message"),
    [
        (mixed_up, "Wrong.process_batch gives something else for several items than for each alone; keep them apart"),
        (strange, "Wrong.process_batch gives outputs with items that it was not given; yield (item, output)"),
        (another, "Wrong.process and process_batch give different things for one item; write one with the other"),
    ],
)
def test_a_batch_that_gives_something_else_is_found(process_batch: Callable[..., Any], message: str) -> None:
    refused(message, wrong(Sum, process_batch=process_batch), {}, ARRAYS)


# What is kept


def test_outputs_that_cannot_be_kept_are_found() -> None:
    stage = wrong(Sum, packed=lambda self, payload: lambda: payload)
    refused("Wrong: what `packed` gives cannot be written: ", stage, {}, ARRAYS)
    stage = wrong(Sum, packed=lambda self, payload: Tensor(1.0))
    refused("Wrong: what `packed` gives cannot be read back: ", stage, {}, ARRAYS)


def test_outputs_that_are_restored_otherwise_are_found() -> None:
    message = "Wrong: an output is another one after `packed` and `restored`; `packed` may leave out only"
    refused(message, wrong(Sum, restored=lambda self, item, kept: np.array([kept + 1])), {}, ARRAYS)
    refused(message, wrong(Sum, restored=lambda self, item, kept: np.array([float(kept)])), {}, ARRAYS)
    assert check_stage(wrong(Sum, durable=False, restored=None), {}, ARRAYS)


def test_what_a_replica_only_remembers_is_not_restored() -> None:
    def packed(self: Any, payload: Any) -> Any:
        self.remembered = payload

    stage = wrong(Sum, packed=packed, restored=lambda self, item, kept: self.remembered)
    with pytest.raises(AttributeError, match="remembered"):
        check_stage(stage, {}, ARRAYS)


def test_what_a_durable_stage_gives_at_its_end_has_no_item() -> None:
    def restored(self: Any, item: Item, kept: Any) -> Any:
        assert item.payload is None
        return kept

    assert check_stage(wrong(Learn, restored=restored), {}, [1, 2]) == [Model(3)]


# Checkpoints


def stepwise(next_state: Callable[[int, int], Any], begin: Callable[[Any], tuple[int, int]]) -> type[Stage]:
    """Adds up 1, 2, … n in n steps; `next_state` gives the state, `begin` reads it."""

    def process(self: Any, item: Item) -> Iterator[Output]:
        done, total = begin(item.checkpoint)
        for step in range(done + 1, item.payload + 1):
            total += step
            yield Progress(step / item.payload, state=lambda step=step, total=total: next_state(step, total))
        yield total

    return type("Wrong", (Stage,), {"accepts": int, "emits": INTS, "process": process})


def test_work_that_goes_on_passes() -> None:
    stage = stepwise(lambda step, total: (step, total), lambda state: state or (0, 0))
    assert check_stage(stage, {}, [3, 10]) == [6, 55]


def test_a_state_that_lacks_something_is_found() -> None:
    stage = stepwise(lambda step, total: step, lambda state: (state or 0, 0))
    message = "Wrong: going on from its state at 10% emits something else than uninterrupted work; put into Progress"
    refused(message, stage, {}, [10])
    assert check_stage(stage, {}, [10], resumable=False) == [55]


def test_a_state_that_is_not_taken_up_is_found() -> None:
    stage = stepwise(lambda step, total: (step, total), lambda state: (0, 0))
    refused("Wrong is given its state at 75%, and then has done 25%; take up item.checkpoint", stage, {}, [4])


def test_a_state_whose_making_changes_the_work_is_found() -> None:
    def process(self: Any, item: Item) -> Iterator[Output]:
        done: list[int] = []
        for step in range(item.payload):
            done.append(step)
            yield Progress(step / item.payload, state=done.pop)
        yield sum(done)

    stage = type("Wrong", (Stage,), {"accepts": int, "emits": INTS, "process": process})
    refused("Wrong: a second replica emits something else", stage, {}, [4, 4])


def test_states_that_cannot_be_written_or_read_back_are_found() -> None:
    stage = stepwise(lambda step, total: iter([step]), lambda state: (0, 0))
    refused("Wrong: what Progress.state gives cannot be", stage, {}, [3], resumable=False)


def test_outputs_before_the_checkpoint_have_to_come_again() -> None:
    def process(self: Any, item: Item) -> Iterator[Output]:
        for step in range(item.checkpoint or 0, item.payload):
            yield step
            yield Progress((step + 1) / item.payload, state=lambda step=step: step + 1)

    stage = type("Wrong", (Stage,), {"accepts": int, "emits": INTS, "process": process})
    refused("and emit again what had been emitted", stage, {}, [3])


def test_a_stateful_stage_goes_on_after_the_items_before() -> None:
    class Running(Stage):
        """The sum so far."""

        accepts = int
        emits: ClassVar[Mapping[str, PortType]] = INTS
        stateful = True
        total = 0

        def process(self, item: Item) -> Iterator[Output]:
            if item.checkpoint is None:
                yield Progress(0.5, state=lambda: "half")
            self.total += item.payload
            yield self.total

    assert check_stage(Running, {}, [1, 2, 3]) == [1, 3, 6]


def test_few_states_are_taken_of_many() -> None:
    taken: list[int] = []
    stage = stepwise(lambda step, total: taken.append(step) or (step, total), lambda state: state or (0, 0))
    check_stage(stage, {}, [1000])
    assert taken == [1, 501, 1000]


# Sinks that commit


class _To(Options):
    path: Path


class Appends(Stage):
    """Writes a line more each time."""

    Config = _To
    accepts = int
    commits: ClassVar[Literal["item", "end"]] = "item"

    def process(self, item: Item) -> Iterator[Output]:
        with self.config.path.open("a") as file:
            file.write(f"{item.payload}\n")
        return iter(())


class Late(Stage):
    """Writes everything at its end."""

    Config = _To
    accepts = int
    commits: ClassVar[Literal["item", "end"]] = "item"

    def setup(self, context: Any) -> None:
        self._lines: list[str] = []

    def process(self, item: Item) -> Iterator[Output]:
        self._lines.append(str(item.payload))
        return iter(())

    def finish(self) -> Iterator[Output]:
        self.config.path.write_text("\n".join(self._lines))
        return iter(())


def test_a_sink_that_is_not_safe_to_repeat_is_found(tmp_path: Path) -> None:
    config = {"path": str(tmp_path / "out")}
    refused("Appends is not safe to repeat: the same items again leave something else", Appends, config, [1, 2])
    assert check_stage(wrong(Appends, commits="end"), config, [1, 2]) == []


def test_a_sink_that_commits_at_its_end_only_is_found(tmp_path: Path) -> None:
    config = {"path": str(tmp_path / "out")}
    refused("Late says commits='item', but leaves nothing before `finish`; write each item", Late, config, [1])
    (tmp_path / "out").unlink()
    assert check_stage(wrong(Late, commits="end"), config, [1]) == []


def test_a_sink_without_files_says_what_it_left() -> None:
    shelf: list[int] = []

    def process(self: Any, item: Item) -> Iterator[Output]:
        shelf.append(item.payload)
        return iter(())

    stage = type("Wrong", (Stage,), {"accepts": int, "commits": "item", "process": process})
    refused("Wrong commits each item, but none of its options is a Path; pass written=", stage, {}, [1])
    refused("Wrong is not safe to repeat", stage, {}, [1], written=lambda: list(shelf))
    assert check_stage(stage, {}, [1], written=lambda: set(shelf)) == []


# Equality


@dataclass(frozen=True)
class Picture:
    pixels: np.ndarray[Any, Any]


class Tensor:
    """What torch's does: an array on request, and a comparison without a truth value."""

    def __init__(self, *values: float) -> None:
        self._values = np.array(values)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray[Any, Any]:
        return self._values

    def __eq__(self, other: object) -> Any:
        return self._values == np.asarray(other)

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (np.array([1, 2]), np.array([1, 2]), True),
        (np.array([1, 2]), np.array([1.0, 2.0]), False),
        (np.array([np.nan]), np.array([np.nan]), True),
        (np.array(["a"]), np.array(["a"]), True),
        (Tensor(1, 2), Tensor(1, 2), True),
        (Tensor(1, 2), Tensor(1, 3), False),
        (Picture(np.ones(2)), Picture(np.ones(2)), True),
        (Picture(np.ones(2)), Picture(np.zeros(2)), False),
        ({"a": [np.ones(2)]}, {"a": [np.ones(2)]}, True),
        ({"a": 1}, {"b": 1}, False),
        ((1, 2), [1, 2], False),
        ([1], [1, 2], False),
        (1, True, False),
    ],
)
def test_payloads_are_compared_by_value(*, one: Any, other: Any, alike: bool) -> None:
    assert same(one, other) is alike


def test_labels_and_identities_count_too() -> None:
    names = iter("abcdefgh")
    process = wrong(Pair, process=lambda self, item: iter([Emit(1, label=next(names))]))
    refused("Wrong: a second replica emits something else for the same items; draw random", process, {}, [PAIR])


# The guide


def guide(language: str) -> str:
    """The blocks of a language under "Adding a stage"."""
    section = (ROOT / "CONTRIBUTING.md").read_text().partition("## Adding a stage")[2].partition("\n## ")[0]
    return "\n".join(re.findall(rf"^```{language}\n(.*?)^```", section, re.DOTALL | re.MULTILINE))


def test_the_guides_python_runs() -> None:
    exec(compile(guide("python"), "CONTRIBUTING.md", "exec"), {})  # noqa: S102 - it is ours


@pytest.mark.slow
def test_the_guides_commands_run(tmp_path: Path) -> None:
    """In a folder like ours, as a shell expands them; a dead letter's name stands in capitals and is left out."""
    for name in ("pipeline.yaml", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    run, replayed = (line for line in guide("sh").split("\n") if line and "RUN_DIR" not in line)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    for command in (run, replayed):
        ended = subprocess.run(
            ["sh", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count("gives  out: bunny.mp4[") == 2
    outputs = [output["payload"] for output in keepsake.read(tmp_path / "out" / "symbols.pickle")]
    for output in outputs:
        weights = sum(tensor.symbols.size for tensor in output.tensors.values())
        assert 8 * len(bitstream.encode(output)) / weights == pytest.approx(3, rel=0.03)
