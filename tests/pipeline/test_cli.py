import json
import os
import subprocess
import sys

import pytest

from framefold.pipeline import cli, registry
from framefold.pipeline.cli import screen
from framefold.pipeline.errors import FramefoldError, SpecError
from framefold.pipeline.outcome import Outcome, ResultRow
from framefold.pipeline.progress import print_results
from framefold.pipeline.testing import TOYS

GOOD = """\
pipeline: toy
stages:
  nums: {stage: numbers, count: 8}
  halves: {stage: split, inputs: [nums]}
  out: {stage: collect, inputs: [halves.odd], path: out.txt}
"""

OF_COLLECT = "batch, inputs, path, replicas, resources, retries, side_inputs, stage, stall_timeout, store and timeout"


@pytest.fixture
def toys(monkeypatch):
    """The toy stages as if a distribution registered them, and one that is broken."""
    entries = {
        name: registry.Entry(
            name=name,
            kind="stage",
            value=f"framefold.pipeline.testing:{stage.__name__}",
            distributions=("toys",),
        )
        for name, stage in TOYS.items()
    }
    broken = registry.Entry(name="broken", kind="stage", value="no_such_module:X", distributions=("toys",))
    monkeypatch.setattr(registry, "stages", lambda: {**entries, "broken": broken})
    monkeypatch.setattr(registry, "codecs", dict)


@pytest.fixture
def good(tmp_path, toys):
    path = tmp_path / "p.yaml"
    path.write_text(GOOD)
    return str(path)


def test_check_says_ok_and_warns(good, capsys):
    assert cli.main(["check", good]) == 0
    out, err = capsys.readouterr()
    assert out == "ok: 3 nodes, 2 edges, 3 replicas\n"
    assert err == f"{good}:4:3: stages.halves: nobody takes halves.even; what goes there is dropped (warning)\n"


def test_check_prints_every_problem_and_leaves_with_2(good, capsys):
    assert cli.main(["check", good, "--set", "nums.count=x", "--set", "out.pth=1"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "--set nums.count=x: stages.nums.count: expected a whole number, got 'x'",
        f"--set out.pth=1: stages.out.pth: unknown option, did you mean 'path'? known: {OF_COLLECT}",
        "2 problems; nothing was started",
    ]


def test_check_json(good, capsys):
    assert cli.main(["check", good, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["ok"], answer["pipeline"], answer["edges"], answer["problems"]) == (True, "toy", 2, [])
    assert [node["name"] for node in answer["nodes"]] == ["nums", "halves", "out"]
    assert answer["warnings"][0]["path"] == "stages.halves"
    assert cli.main(["check", good, "--json", "--set", "nums.count=x"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is False
    assert answer["problems"] == [
        {
            "where": "--set nums.count=x",
            "path": "stages.nums.count",
            "message": "expected a whole number, got 'x'",
        }
    ]


def test_a_missing_file_is_one_line_and_2(tmp_path, capsys):
    assert cli.main(["check", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml: no such file" in capsys.readouterr().err


@pytest.mark.parametrize(("form", "word"), [("text", "halves  split"), ("dot", "digraph"), ("mermaid", "flowchart")])
def test_graph_draws(good, capsys, form, word):
    assert cli.main(["graph", good, "--format", form]) == 0
    assert word in capsys.readouterr().out


def test_plugins_lists_everything_even_broken_ones(toys, capsys):
    assert cli.main(["plugins"]) == 0
    out = capsys.readouterr().out
    assert "numbers" in out
    assert "options: count, refuse" in out
    assert "no_such_module" in out


def test_plugins_json(toys, capsys):
    assert cli.main(["plugins", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    stages = {stage["name"]: stage for stage in answer["stages"]}
    assert answer["codecs"] == []
    assert set(stages) == {*TOYS, "broken"}
    assert stages["split"]["emits"] == {"even": ["int"], "odd": ["int"]}
    assert stages["collect"]["accepts"] == ["int", "str"]
    assert stages["numbers"]["options"]["properties"]["count"]["minimum"] == 0
    assert stages["numbers"]["summary"] == "The source 0, 1, … count - 1."
    assert "No module named 'no_such_module'" in stages["broken"]["error"]


@pytest.mark.parametrize(
    "arguments", [[], ["frob"], ["check"], ["graph", "x", "--format", "png"], ["check", "x", "--frob"]]
)
def test_wrong_usage_leaves_with_2(arguments, capsys):
    assert cli.main(arguments) == 2
    assert "usage: pipeline" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["check", "--help"], ["--version"]])
def test_help_and_version_leave_with_0(arguments, capsys):
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (FramefoldError("the disk is full"), 1, "pipeline: the disk is full\n"),
        (SpecError([]), 2, "\n0 problems; nothing was started\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_every_way_to_end_has_its_exit_code(good, monkeypatch, capsys, *, error, code, message):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr("framefold.pipeline.spec.load", fail)
    assert cli.main(["check", good]) == code
    assert capsys.readouterr().err == message


def test_a_reader_that_leaves_is_no_error():
    """`pipeline plugins | head -1`: the pipe breaks before everything is written."""
    script = (
        "from framefold.pipeline import cli, registry; registry.stages = registry.codecs = dict;"
        "raise SystemExit(cli.main(['plugins', '--json']))"
    )
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False, text=True)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_help_waits_for_nothing_heavy():
    script = (
        "import sys; from framefold.pipeline.cli import main; assert main([sys.argv[1], '--help']) == 0;"
        "heavy = {'torch', 'ray', 'pydantic', 'yaml', 'av', 'rich'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    for command in ("check", "graph", "plugins"):
        subprocess.run([sys.executable, "-c", script, command], check=True, stdout=subprocess.DEVNULL)


def test_checking_a_pipeline_needs_no_ray_and_no_torch(good):
    script = (
        "import sys; from framefold.pipeline import spec; from framefold.pipeline.testing import TOYS;"
        "spec.load(sys.argv[1], extra_stages=TOYS); heavy = {'torch', 'ray', 'av'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script, good], check=True)


def test_run_prints_the_warnings_too(good, tmp_path, capsys):
    arguments = ["--set", f"out.path={tmp_path / 'out.txt'}", "--set", f"run_dir={tmp_path / 'run'}"]
    assert cli.main(["run", good, "--local", *arguments]) == 0
    warning = f"{good}:4:3: stages.halves: nobody takes halves.even; what goes there is dropped (warning)\n"
    assert capsys.readouterr().err == warning


def test_what_the_machine_refuses_is_one_line_and_1(good, monkeypatch, capsys):
    def fail(*arguments, **options):
        raise PermissionError(13, "Permission denied", "/out")

    monkeypatch.setattr("framefold.pipeline.spec.load", fail)
    assert cli.main(["check", good]) == 1
    assert capsys.readouterr().err == "pipeline: [Errno 13] Permission denied: '/out'\n"


def test_rays_client_is_refused_for_it_cannot_stream(good, tmp_path, capsys):
    run_dir = f"run_dir={tmp_path / 'run'}"
    assert cli.main(["run", good, "--address", "ray://nowhere:10001", "--set", run_dir]) == 2
    assert "run on a node of the cluster with auto" in capsys.readouterr().err


def test_tables_are_not_folded_in_a_pipe(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    outcome = Outcome.of(["archive"])
    label = "a_rather_long_name_of_a_film_with_everything_in_it.mp4[1000:1024]"
    outcome.rows.append(ResultRow("archive", label, {f"column_{n}": 10**n for n in range(6)}))
    print_results(screen.console(), outcome)
    assert any(label in line and "100,000" in line for line in capsys.readouterr().out.splitlines())
    monkeypatch.setenv("COLUMNS", "70")
    assert screen.console().width == 70
