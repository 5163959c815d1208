"""What a run leaves behind of an item, and the work on it done again: `pipeline replay`, `run --save-inputs`."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from framefold.pipeline import cli, keepsake, registry, replay
from framefold.pipeline.errors import FramefoldError, UsageError
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Options, Output, PortType, Stage, StageContext
from framefold.pipeline.testing import TOYS, Model


class Grumpy(Stage):
    """Joins two numbers, knows a model, and fails for the sums in `on`."""

    class Config(Options):
        """Which sums."""

        on: tuple[int, ...] = ()

    joins: ClassVar[Mapping[str, PortType]] = {"left": int, "right": int}
    sides: ClassVar[Mapping[str, PortType]] = {"model": Model}
    emits: ClassVar[Mapping[str, PortType]] = {"out": int}

    def setup(self, context: StageContext) -> None:
        self._context = context

    def receive(self, name: str, payload: Any) -> None:
        self._model = payload

    def process(self, item: Item) -> Iterator[Output]:
        total = item.payload["left"] + item.payload["right"]
        if total in self.config.on:
            raise ValueError(f"{total} is not to my taste, on {self._context.gpus:g} GPUs")
        yield total + self._model.total


class Odd(Stage):
    """Raises what is no Exception, as native code does."""

    accepts = int
    emits: ClassVar[Mapping[str, PortType]] = {"out": int}

    def process(self, item: Item) -> Iterator[Output]:
        yield item.payload
        raise BaseException("a panic")


class Unkeepable(Stage):
    """Gives what cannot be pickled."""

    accepts = int
    emits: ClassVar[Mapping[str, PortType]] = {"out": object}

    def process(self, item: Item) -> Iterator[Output]:
        yield lambda: item


EXTRA = {**TOYS, "grumpy": Grumpy, "odd": Odd, "unkeepable": Unkeepable}

FILE = """\
pipeline: toy
run_dir: {run_dir}
stages:
  nums: {{stage: numbers, count: 4}}
  twice: {{stage: double, inputs: [nums]}}
  others: {{stage: numbers, count: 3}}
  model: {{stage: learn, inputs: [others]}}
  both: {{stage: grumpy, inputs: {{left: nums, right: twice}}, side_inputs: {{model: model}}, on: [6]}}
  picky: {{stage: fail_always, inputs: [both], on: [12]}}
  steps: {{stage: steps, inputs: [nums]}}
  out: {{stage: gather, inputs: [picky, steps], path: {run_dir}/out}}
"""
"""both gets 0, 3, 6 and 9 and gives 3, 6 fails, 12, and picky fails for that one."""


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy stages as if a distribution registered them."""
    entries = {
        name: registry.Entry(
            name=name, kind="stage", value=f"{stage.__module__}:{stage.__name__}", distributions=("toys",)
        )
        for name, stage in EXTRA.items()
    }
    monkeypatch.setattr(registry, "stages", lambda: entries)


@pytest.fixture
def pipeline_file(tmp_path: Path, registered: None) -> Path:
    path = tmp_path / "p.yaml"
    path.write_text(FILE.format(run_dir=tmp_path / "run"))
    return path


@pytest.fixture
def run_dir(pipeline_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A run that set two items aside."""
    assert cli.main(["run", str(pipeline_file), "--local"]) == 3
    capsys.readouterr()
    return tmp_path / "run"


def dead(run_dir: Path, node: str) -> Path:
    (folder,) = (run_dir / "dead").glob(f"{node}-*")
    return folder


def rewrite(folder: Path, **changes: Any) -> None:
    letter = json.loads((folder / "letter.json").read_text())
    (folder / "letter.json").write_text(json.dumps({**letter, **changes}))


def replayed(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str]:
    code = cli.main(["replay", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


# Dead letters


def test_the_work_fails_again_with_its_traceback(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = replayed(capsys, dead(run_dir, "picky"))
    assert code == 1
    lines = text.splitlines()
    assert lines[0] == "picky: n3 (stage fail_always, attempt 1)"
    assert lines[1] == "  then:  ValueError: attempt 0 of n3"
    assert "Traceback (most recent call last):" in lines
    assert any("in misbehave" in line for line in lines)
    assert lines[-1].startswith("  failed: ValueError: attempt 0 of n3, after 0 outputs")


def test_an_option_that_mends_it_is_tried(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = replayed(capsys, dead(run_dir, "picky"), "--set", "on=[13]")
    assert code == 0
    assert "  gives  out: n3, int, 28 bytes" in text.splitlines()
    assert "done:  1 output in" in text


def test_joined_and_side_inputs_come_back(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = dead(run_dir, "both")
    assert sorted(path.name for path in folder.iterdir()) == ["input.pickle", "letter.json", "side-model.pickle"]
    assert keepsake.read(folder / "input.pickle") == {"left": 2, "right": 4}
    assert "6 is not to my taste, on 0.5 GPUs" in replayed(capsys, folder, "--gpus", "0.5")[1]
    kept = folder / "kept.pickle"
    assert replayed(capsys, folder, "--set", "on=[]", "--keep", kept)[0] == 0
    (output,) = keepsake.read(kept)
    assert output == {"folder": str(folder), "port": "out", "label": "n2", "payload": 9}


def test_the_printed_command_is_the_one_that_works(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (letter,) = [
        one for one in json.loads((run_dir / "report.json").read_text())["set_aside"] if one["node"] == "picky"
    ]
    program, command, folder = letter["replay"].split()
    assert (program, command) == ("pipeline", "replay")
    assert cli.main([command, folder]) == 1
    assert "attempt 0 of n3" in capsys.readouterr().out


def test_json_tells_the_same(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = replayed(capsys, dead(run_dir, "both"), "--json")
    (answer,) = json.loads(text)["replays"]
    assert code == 1
    assert (answer["node"], answer["label"], answer["ok"], answer["outputs"]) == ("both", "n2", False, [])
    assert answer["error"]["error"] == "ValueError"
    assert "in process" in answer["error"]["traceback"]
    code, text = replayed(capsys, dead(run_dir, "both"), "--json", "--set", "on=[]")
    (answer,) = json.loads(text)["replays"]
    assert (code, answer["ok"], answer["error"]) == (0, True, None)
    assert answer["outputs"] == [{"port": "out", "label": "n2", "type": "int", "nbytes": 28}]


def test_the_debugger_starts_where_it_failed(
    run_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("p total * 1000\nq\n"))
    code, text = replayed(capsys, dead(run_dir, "both"), "--pdb")
    assert code == 1
    assert "6000" in text


def test_what_is_no_exception_is_caught_too(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = dead(run_dir, "picky")
    rewrite(folder, stage="odd", config={})
    code, text = replayed(capsys, folder)
    assert code == 1
    assert "failed: BaseException: a panic, after 1 output in" in text
    assert "note:  odd is " in text
    assert "it was framefold.pipeline.testing:FailAlways when the letter was written" in text


def test_outputs_that_cannot_be_kept_are_an_error(run_dir: Path, tmp_path: Path) -> None:
    folder = dead(run_dir, "picky")
    rewrite(folder, stage="unkeepable", config={})
    with pytest.raises(FramefoldError, match="outputs cannot be pickled"):
        cli._dispatch(["replay", str(folder), "--keep", str(tmp_path / "kept.pickle")])


# Saved inputs


def test_every_input_of_a_node_is_saved_and_replayed(
    pipeline_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", str(pipeline_file), "--local", "--save-inputs", "both", "--save-inputs", "steps"]
    assert cli.main(command) == 3
    capsys.readouterr()
    folders = sorted((tmp_path / "run" / "inputs").iterdir())
    assert [folder.name.partition("-")[0] for folder in folders] == ["both"] * 4 + ["steps"] * 4
    inputs = [keepsake.read(folder / "input.pickle") for folder in folders[:4]]
    assert sorted(one["left"] for one in inputs) == [0, 1, 2, 3]
    code, text = replayed(capsys, *folders[:4])
    assert code == 1
    assert text.count("done:") == 3
    assert text.count("failed:") == 1
    assert "then:" not in text
    code, text = replayed(capsys, *folders[4:], "--set", "amount=5", "--keep", tmp_path / "kept")
    assert code == 0
    assert [line.strip() for line in text.splitlines() if "%" in line][:4] == [
        "25%   step 1",
        "50%   step 2",
        "75%   step 3",
        "100%   step 4",
    ]
    assert sorted(output["payload"] for output in keepsake.read(tmp_path / "kept")) == [5, 6, 7, 8]


def test_inputs_are_saved_though_their_work_is_done(pipeline_file: Path, tmp_path: Path) -> None:
    assert cli.main(["run", str(pipeline_file), "--local"]) == 3
    assert not (tmp_path / "run" / "inputs").exists()
    for _ in range(2):
        assert cli.main(["run", str(pipeline_file), "--local", "--save-inputs", "out"]) == 3
        assert len(list((tmp_path / "run" / "inputs").iterdir())) == 6
    assert len(list((tmp_path / "run" / "inputs.old").iterdir())) == 6
    folder = next((tmp_path / "run" / "inputs").iterdir())
    letter = json.loads((folder / "letter.json").read_text())
    assert (letter["error"], letter["attempts"], letter["replay"]) == ("", 0, f"pipeline replay {folder}")


def test_a_batch_is_saved_item_by_item(tmp_path: Path, registered: None) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(
        f"{{pipeline: toy, run_dir: {tmp_path}/run, stages: {{nums: {{stage: numbers, count: 3}}, "
        "all: {stage: together, inputs: [nums], batch: {items: 3}}, "
        f"out: {{stage: collect, inputs: [all], path: {tmp_path}/out}}}}}}"
    )
    assert cli.main(["run", str(path), "--local", "--save-inputs", "all"]) == 0
    saved = [keepsake.read(folder / "input.pickle") for folder in (tmp_path / "run" / "inputs").iterdir()]
    assert sorted(saved) == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bth", "--save-inputs: unknown node 'bth', did you mean 'both'? known: both, model, out, picky, steps and"),
        ("nums", "--save-inputs nums: it is a source and has no inputs; name "),
    ],
)
def test_a_node_without_inputs_is_refused_before_anything_starts(
    pipeline_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    assert cli.main(["run", str(pipeline_file), "--local", "--save-inputs", name]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_resume_command_saves_them_again(pipeline_file: Path) -> None:
    from framefold.pipeline.cli.run import _again

    args = cli._parser(["run"]).parse_args(["run", "p.yaml", "--save-inputs", "both", "--local"])
    assert _again(args) == ["pipeline", "run", "p.yaml", "--save-inputs", "both", "--local"]


# What cannot be replayed


def test_no_folder_and_no_letter_are_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replayed(capsys, tmp_path / "none")[0] == 2
    code, text = replayed(capsys, tmp_path)
    assert code == 2
    assert "letter.json: No such file or directory; give a folder that a run left" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": "fail_alway"}, "letter.json: stage: unknown stage 'fail_alway', did you mean 'fail_always'?"),
        ({"stage": "numbers", "config": {}}, "numbers is a source, which takes no items"),
        ({"stage": "pair", "config": {}}, "pair joins left and right; at the time none; install that version"),
        ({"stage": "offset", "config": {}}, "offset takes as side inputs model; at the time none"),
        ({"config": {"no": 1}}, "letter.json: no: unknown option; known: "),
        ({"config": {"on": "x"}}, "letter.json: on: expected a list, got 'x'"),
        ({"config": []}, "letter.json: config: expected a mapping, got a list"),
        ({"cpus": 1e9}, "letter.json: cpus: should be less than or equal to 1024"),
        ({"node": "../x"}, "letter.json: node: "),
        ({"key": "no"}, "letter.json: key: "),
        ({"seed": "1"}, "letter.json: seed: expected a whole number, got '1'"),
    ],
)
def test_a_letter_is_checked(
    run_dir: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], message: str
) -> None:
    folder = dead(run_dir, "picky")
    rewrite(folder, **changes)
    code, text = replayed(capsys, folder)
    assert code == 2
    assert message in text


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": NaN}', "\xff", "[" * 10**5])
def test_a_damaged_letter_is_usage(run_dir: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    folder = dead(run_dir, "picky")
    (folder / "letter.json").write_text(text, encoding="latin-1")
    code, told = replayed(capsys, folder)
    assert code == 2
    assert str(folder / "letter.json") in told


def test_a_letter_of_any_size_is_not_read(
    run_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "MAX_LETTER_BYTES", 100)
    assert "is larger than 100 bytes, so it is no letter" in replayed(capsys, dead(run_dir, "picky"))[1]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("on=x", "--set on=x: on: expected a list, got 'x'"),
        ("no=1", "--set no=1: no: unknown option; known: "),
        ("on", "--set on: has no value; write --set OPTION=VALUE"),
        ("on=[1", "--set on=[1"),
        ("replicas=2", "--set replicas=2: replicas is for a run; here only options of fail_always count: on"),
        ("stage=double", "--set stage=double: stage is for a run"),
    ],
)
def test_an_override_is_checked(run_dir: Path, capsys: pytest.CaptureFixture[str], override: str, message: str) -> None:
    code, text = replayed(capsys, dead(run_dir, "picky"), "--set", override)
    assert code == 2
    assert message in text


@pytest.mark.parametrize("gpus", ["-1", "many", "nan", "inf"])
def test_gpus_are_a_number(tmp_path: Path, capsys: pytest.CaptureFixture[str], gpus: str) -> None:
    code, text = replayed(capsys, tmp_path, f"--gpus={gpus}")
    assert code == 2
    assert f"expected a number of GPUs, such as 0, 0.5 or 1, got '{gpus}'" in text


def test_one_folder_that_cannot_be_replayed_keeps_all_from_starting(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = replayed(capsys, dead(run_dir, "picky"), run_dir / "none")
    assert code == 2
    assert "Traceback" not in text


class Trap:
    """Runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._path),)


def test_a_strangers_payload_runs_nothing(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, sprung = dead(run_dir, "picky"), run_dir / "sprung"
    keepsake.write(folder / "input.pickle", Trap(sprung))
    code, text = replayed(capsys, folder)
    assert code == 2
    assert str(folder / "input.pickle") in text
    assert not sprung.exists()


def test_a_strangers_letter_imports_nothing(
    run_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sprung = tmp_path / "sprung"
    (tmp_path / "strangers_module.py").write_text(f"import os\nos.mkdir({str(sprung)!r})\n")
    monkeypatch.syspath_prepend(tmp_path)
    folder = dead(run_dir, "picky")
    rewrite(folder, stage="strangers_module", stage_class="strangers_module:Stage")
    assert replayed(capsys, folder)[0] == 2
    rewrite(folder, stage="fail_always", stage_class="strangers_module:Stage")
    assert replayed(capsys, folder)[0] == 1
    assert not sprung.exists()


def test_a_strangers_text_does_not_steer_the_terminal(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = dead(run_dir, "picky")
    rewrite(folder, label="\x1b[2Jn3", message="\x07")
    text = replayed(capsys, folder)[1]
    assert text.startswith("picky: \\x1b[2Jn3 ")
    assert "\x1b" not in text
    assert "\x07" not in text


@pytest.mark.parametrize(
    ("node", "name", "payload", "message"),
    [
        ("picky", "input.pickle", None, "input.pickle is not there: it could not be written, or was deleted"),
        ("both", "side-model.pickle", None, "side-model.pickle is not there"),
        ("both", "input.pickle", {"left": 1}, "input.pickle is damaged: it should hold left and right, by name"),
        ("both", "input.pickle", 3, "input.pickle is damaged: it should hold left and right, by name"),
    ],
)
def test_a_missing_or_damaged_payload_is_usage(
    run_dir: Path, capsys: pytest.CaptureFixture[str], *, node: str, name: str, payload: Any, message: str
) -> None:
    path = dead(run_dir, node) / name
    path.unlink()
    if payload is not None:
        keepsake.write(path, payload)
    code, text = replayed(capsys, path.parent)
    assert code == 2
    assert message in text


# The notes, and code that calls it


@pytest.mark.parametrize(
    ("stage", "config", "changes", "note"),
    [
        ("hold_back", {}, {}, "hold_back remembers what it has seen, and here it has seen nothing before this item"),
        ("gather", {"path": "x"}, {}, "gather is a sink, and writes where its options say: --set lets it write else"),
        ("double", {}, {"error": "WorkerDied"}, "its worker died of this item, so this process may die too"),
    ],
)
def test_what_differs_from_the_run_is_said(
    run_dir: Path, stage: str, config: dict[str, Any], changes: dict[str, Any], note: str
) -> None:
    folder = dead(run_dir, "picky")
    rewrite(folder, stage=stage, config=config, stage_class="", **changes)
    notes = replay.opened(folder).notes
    assert len(notes) == 1
    assert notes[0].startswith(note)


def test_stages_that_nobody_registers_are_given_by_the_caller(tmp_path: Path, run_dir: Path) -> None:
    folder = dead(run_dir, "picky")
    rewrite(folder, stage="mine", config={})
    with pytest.raises(UsageError, match="unknown stage 'mine'"):
        replay.opened(folder)
    heard: list[Any] = []
    case = replay.opened(folder, extra={"mine": TOYS["double"]})
    result = replay.perform(case, lambda event, payload: heard.append(payload))
    assert result.error is None
    assert 24 in heard


def test_listeners_that_fail_are_not_taken_for_the_stage(run_dir: Path) -> None:
    def hear(event: Any, payload: Any) -> None:
        raise BrokenPipeError

    case = replay.opened(dead(run_dir, "picky"), ["on=[]"])
    with pytest.raises(BrokenPipeError):
        replay.perform(case, hear)
