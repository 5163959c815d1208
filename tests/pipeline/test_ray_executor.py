"""Real actors, real deaths. Each cluster takes about ten seconds to start, so few tests do much each."""

from __future__ import annotations

import importlib
import inspect
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import ObjectRefGenerator
from ray._private import worker
from ray.actor import ActorMethod
from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, RayActorError, RayError

from framefold.pipeline import spec
from framefold.pipeline.errors import Interrupted
from framefold.pipeline.outcome import Outcome
from framefold.pipeline.placement import Reservation
from framefold.pipeline.ray_executor import RayExecutor, _Actor
from framefold.pipeline.ray_metrics import RayMetrics
from framefold.pipeline.scheduler import Scheduler
from framefold.pipeline.stage import StageContext
from framefold.pipeline.testing import TOYS
from framefold.pipeline.worker import Blueprint


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
        _wait_for(lambda: list(tmp_path.glob(".x.fold.part")), process)
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
    """On a Ray of its own: its workers must be able to import the guard stages."""
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
    assert (letter.node, letter.label, letter.attempts, letter.error) == ("sending", "n2", 1, "TypeError")
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
    assert hasattr(worker, "_global_node")
    assert callable(worker.global_worker_stdstream_dispatcher.remove_handler)
    parameters = inspect.signature(ray.init).parameters
    assert "_system_config" in parameters or "kwargs" in parameters
    assert "_metrics_export_port" in parameters or "kwargs" in parameters


def test_what_is_no_actor_error_in_ray_is_known_to_be_a_death() -> None:
    """All of these end a worker, and only some are kinds of one another."""
    assert not issubclass(OutOfMemoryError, RayActorError)
    assert not issubclass(NodeDiedError, RayActorError)
    assert all(issubclass(kind, RayError) for kind in (OutOfMemoryError, NodeDiedError, RayActorError, ObjectLostError))


def _used_and_total_bytes() -> tuple[int, int]:
    """As Ray's memory monitor sees the machine."""
    utils = ray._private.utils
    return int(utils.get_used_memory()), int(utils.get_system_memory())


@pytest.mark.ray
def test_an_item_that_takes_all_memory_is_set_aside_with_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's monitor is told to act 2 GiB above what is used now; a Ray of our own, for that is set at its start."""
    used, total = _used_and_total_bytes()
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{(used + 2 * 2**30) / total:.4f}")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "50")
    out = tmp_path / "out"
    stages = {
        "numbers": {"stage": "numbers", "count": 4},
        "hog": {"stage": "crash", "how": "hog", "on": [2], "attempts": 99, "retries": 1, "inputs": ["numbers"]},
        "sink": {"stage": "gather", "inputs": ["hog"], "path": str(out)},
    }
    outcome = scheduler(stages, {}, tmp_path).run()
    (letter,) = outcome.dead
    assert (letter.label, letter.attempts) == ("n2", 2)
    assert letter.message.startswith("its worker ran out of memory: OutOfMemoryError")
    assert len(list(out.iterdir())) == 3


METRICS = "framefold_items_done_total", "framefold_items_waiting", "framefold_busy_seconds_total", "framefold_replicas"


@pytest.mark.ray
def test_prometheus_finds_figures_while_a_run_is_under_way(tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client", reason="Ray's exporter comes with ray[default]")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    stages = {
        "numbers": {"stage": "numbers", "count": 60},
        "slow": {"stage": "slow", "seconds": 0.25, "inputs": ["numbers"]},
        "sink": {"stage": "gather", "inputs": ["slow"], "path": str(tmp_path / "out")},
    }
    checked = spec.from_mapping("seen", {"stages": stages, "run_dir": tmp_path / "run"}, extra_stages=TOYS)
    seen: set[str] = set()

    def look(outcome: Outcome) -> None:
        if outcome.nodes["slow"].done % 10 == 9 and len(seen) < len(METRICS):
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
                text = page.read().decode()
                seen.update(name for name in METRICS if f"{name}{{" in text and 'node="slow"' in text)

    executor = RayExecutor({node.name: (1, Reservation()) for node in checked.graph}, metrics_port=port)
    Scheduler(list(checked.graph), executor, seed=0, run_dir=tmp_path, watch=look, listeners=[RayMetrics("seen")]).run()
    assert seen == set(METRICS)
