"""Real actors, real deaths. Each cluster takes about ten seconds to start, so few tests do much each."""

from __future__ import annotations

import importlib
import inspect
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray import ObjectRefGenerator
from ray.actor import ActorMethod

from framefold.pipeline import spec
from framefold.pipeline.errors import Interrupted, RunFailed
from framefold.pipeline.outcome import Outcome
from framefold.pipeline.ray_executor import RayExecutor, Reservation, _Actor, misfit, shortfall
from framefold.pipeline.scheduler import Scheduler
from framefold.pipeline.stage import StageContext
from framefold.pipeline.testing import TOYS
from framefold.pipeline.worker import Blueprint


@pytest.mark.ray
def test_workers_that_die_cost_nothing_but_time_and_a_poison_item_only_itself(tmp_path: Path) -> None:
    out = tmp_path / "out"
    stages = {
        "numbers": {"stage": "numbers", "count": 12, "refuse": [11]},
        "split": {"stage": "split", "inputs": ["numbers"], "parts": 2, "replicas": 2},
        "once": {"stage": "crash", "inputs": ["split.even", "split.odd"], "on": [4], "replicas": 2},
        "poison": {"stage": "crash", "inputs": ["once"], "on": [9], "attempts": 99},
        "error": {"stage": "fail_always", "inputs": ["poison"], "on": [2], "retries": 1},
        "sink": {"stage": "collect", "inputs": ["error"], "path": str(out)},
    }
    checked = spec.from_mapping("deaths", {"stages": stages}, extra_stages=TOYS)
    executor = RayExecutor({node.name: (node.replicas, Reservation()) for node in checked.graph})
    outcome = Scheduler(list(checked.graph), executor, seed=0, run_dir=tmp_path).run()
    got = [int(line.split()[-1]) for line in out.read_text().splitlines()]
    expected = [m for n in range(11) for m in (n, n + 1)]
    assert got == [m for m in expected if m not in (9, 2)]
    died = [letter for letter in outcome.dead if letter.node == "poison"]
    assert [(letter.error, letter.attempts) for letter in died] == [("WorkerDied", 3)] * 2
    assert all("ActorDiedError" in letter.message for letter in died)
    raised = [letter for letter in outcome.dead if letter.node == "error"]
    assert [letter.error for letter in raised] == ["ValueError"] * 2
    assert [one.label for one in outcome.refused] == ["n11"]


@pytest.mark.ray
def test_a_terminated_run_leaves_no_half_written_archive(tmp_path: Path) -> None:
    """SIGTERM while a fit is under way: the sink's temporary file goes, and so do all processes."""
    pipeline = tmp_path / "p.yaml"
    clip = Path(__file__).parents[2] / "examples" / "bunny.mp4"
    pipeline.write_text(
        textwrap.dedent(f"""
        pipeline: killed
        run_dir: {tmp_path / "run"}
        stages:
          frames: {{stage: video_source, path: {clip}}}
          fitted: {{stage: fit, inputs: [frames], codec: {{name: gridnerv}}, budget: {{seconds: 600}}}}
          symbols: {{stage: quantize, inputs: [fitted]}}
          bits: {{stage: entropy_encode, inputs: [symbols]}}
          archive: {{stage: archive_sink, inputs: [bits], path: {tmp_path / "x.fold"}}}
        """)
    )
    command = [sys.executable, "-m", "framefold.pipeline.cli", "run", str(pipeline)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        _wait_for(lambda: list(tmp_path.glob(".x.fold.*.part")), process)
        actors = _descendants(process.pid)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert not list(tmp_path.glob("*.fold*"))
    assert not list(tmp_path.glob(".x.fold*"))
    assert actors
    _wait_for(lambda: not any(_alive(pid) for pid in actors), None)


GUARD = """
import threading, time
from pathlib import Path
from framefold.pipeline.stage import Options, Progress, Stage

class Sending(Stage):
    accepts = int
    emits = {"out": object}

    def process(self, item):
        yield threading.Lock() if item.payload == 2 else item.payload

class Guard(Stage):
    class Config(Options):
        path: Path

    accepts = int
    stateful = True

    def setup(self, context):
        self.config.path.touch()

    def process(self, item):
        self.config.path.with_suffix(".busy").touch()
        while True:
            time.sleep(0.05)
            yield Progress(0.5)

    def close(self):
        self.config.path.unlink()
"""


@pytest.fixture
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module of stages that workers can import too."""
    (tmp_path / "guard_stages.py").write_text(GUARD)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    yield importlib.import_module("guard_stages")
    del sys.modules["guard_stages"]


def scheduler(stages: dict[str, Any], extra: dict[str, Any], tmp_path: Path, **options: Any) -> Scheduler:
    checked = spec.from_mapping("guarded", {"stages": stages}, extra_stages={**TOYS, **extra})
    executor = RayExecutor({node.name: (node.replicas, Reservation()) for node in checked.graph})
    return Scheduler(list(checked.graph), executor, seed=0, run_dir=tmp_path, **options)


@pytest.mark.ray
def test_a_stage_that_is_busy_when_the_run_is_stopped_still_lets_go(tmp_path: Path, guard: Any) -> None:
    held = tmp_path / "half-written"
    stages = {
        "numbers": {"stage": "numbers"},
        "sink": {"stage": "guard", "inputs": ["numbers"], "path": str(held)},
    }

    def stop(outcome: Outcome) -> None:
        if held.with_suffix(".busy").exists():
            assert held.exists()
            raise Interrupted(signal.SIGTERM)

    with pytest.raises(Interrupted):
        scheduler(stages, {"guard": guard.Guard}, tmp_path, watch=stop).run()
    assert held.with_suffix(".busy").exists()
    assert not held.exists()


@pytest.mark.ray
def test_a_payload_that_cannot_be_sent_costs_only_its_item_and_names_who_made_it(tmp_path: Path, guard: Any) -> None:
    out = tmp_path / "out"
    stages = {
        "numbers": {"stage": "numbers", "count": 4},
        "sending": {"stage": "sending", "inputs": ["numbers"], "retries": 1},
        "sink": {"stage": "collect", "inputs": ["sending"], "path": str(out)},
    }
    outcome = scheduler(stages, {"sending": guard.Sending}, tmp_path).run()
    assert [int(line.split()[-1]) for line in out.read_text().splitlines()] == [0, 1, 3]
    (letter,) = outcome.dead
    assert (letter.node, letter.label, letter.attempts, letter.error) == ("sending", "n2", 2, "TypeError")
    assert "could not be sent between workers: cannot pickle" in letter.message


def _wait_for(condition: object, process: subprocess.Popen[str] | None, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert process is None or process.poll() is None, "the run ended before the condition held"
        assert time.monotonic() < deadline, "the condition did not come to hold"
        time.sleep(0.1)


def _descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *_descendants(child)]
    return found


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_cluster_that_is_too_small_is_named_before_anything_starts() -> None:
    asked = [(4, Reservation(cpus=2)), (1, Reservation(gpus=0.5))]
    text = shortfall(asked, {"CPU": 4.0})
    assert "8 cpus in total, the cluster has 4" in text
    assert "0.5 gpus in total, the cluster has 0" in text
    assert shortfall(asked, {"CPU": 8.0, "GPU": 1.0}) == ""


def test_a_replica_that_fits_on_no_single_machine_is_named() -> None:
    asked = {"fit": (1, Reservation(cpus=3, gpus=1)), "sink": (1, Reservation())}
    text = misfit(asked, [{"CPU": 8.0}, {"CPU": 2.0, "GPU": 1.0}])
    assert text.startswith("fit: a replica reserves 3 cpus and 1 gpus")
    assert "sink" not in text
    assert misfit(asked, [{"CPU": 3.0, "GPU": 1.0}]) == ""


@pytest.mark.ray
def test_an_impossible_reservation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="reserve 3 gpus in total, the cluster has 0"):
        RayExecutor({"fit": (3, Reservation(cpus=1, gpus=1))})


def test_an_actor_works_in_the_users_folder_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blueprint = Blueprint("framefold.pipeline.testing:Numbers", "{}", StageContext("numbers"))
    monkeypatch.chdir("/")
    _Actor(blueprint, tmp_path / "not on this machine")
    assert Path.cwd() == Path("/")
    _Actor(blueprint, tmp_path)
    assert Path.cwd() == tmp_path


def test_the_private_names_of_ray_that_are_used_are_still_there() -> None:
    assert "_generator_backpressure_num_objects" in inspect.signature(ActorMethod._remote).parameters
    assert hasattr(ObjectRefGenerator, "__next__")
