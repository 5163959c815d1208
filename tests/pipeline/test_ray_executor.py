"""Real actors, real deaths. Each cluster takes about ten seconds to start, so few tests do much each."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from ray import ObjectRefGenerator
from ray.actor import ActorMethod

from framefold.pipeline import spec
from framefold.pipeline.errors import RunFailed
from framefold.pipeline.ray_executor import RayExecutor, Reservation, shortfall
from framefold.pipeline.scheduler import Scheduler
from framefold.pipeline.testing import TOYS


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


@pytest.mark.ray
def test_an_impossible_reservation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="reserve 3 gpus in total, the cluster has 0"):
        RayExecutor({"fit": (3, Reservation(cpus=1, gpus=1))})


def test_the_private_names_of_ray_that_are_used_are_still_there() -> None:
    assert "_generator_backpressure_num_objects" in inspect.signature(ActorMethod._remote).parameters
    assert hasattr(ObjectRefGenerator, "__next__")
