"""What can go wrong on a cluster, made to go wrong: real actors killed, real machines taken away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from framefold.pipeline import runner, spec
from framefold.pipeline.archive import ArchiveReader
from framefold.pipeline.errors import Interrupted, RunFailed
from framefold.pipeline.home import home_of
from framefold.pipeline.outcome import Outcome
from framefold.pipeline.placement import Reservation
from framefold.pipeline.policy import Policy
from framefold.pipeline.ray_executor import RayExecutor
from framefold.pipeline.scheduler import Scheduler
from framefold.pipeline.spec import CheckedPipeline
from framefold.pipeline.testing import TOYS

pytestmark = pytest.mark.ray

NUMBERS = {"stage": "numbers", "count": 8}


def check(tmp_path: Path, stages: Mapping[str, Any], **top: Any) -> CheckedPipeline:
    return spec.from_mapping("toys", {"run_dir": tmp_path / "run", **top, "stages": stages}, extra_stages=TOYS)


def run(checked: CheckedPipeline, address: str) -> Outcome:
    return runner.run(checked, Console(quiet=True), runner.Manner(address=address))


def run_watched(
    checked: CheckedPipeline, address: str, watch: Callable[[Outcome], None], policy: Policy | None = None
) -> Outcome:
    """Run with an eye on the outcome, for faults that come at a point of the run and not at a time."""
    demands = {
        node.name: (node.replicas, Reservation(node.resources.cpus or 0, node.resources.gpus, node.resources.labels))
        for node in checked.graph
    }
    with home_of(checked.run_dir) as home:
        scheduler = Scheduler(
            list(checked.graph),
            RayExecutor(demands, address=address),
            seed=0,
            run_dir=checked.run_dir,
            home=home,
            policy=policy,
            watch=watch,
        )
        return scheduler.run()


def gathered(folder: Path) -> list[int]:
    return sorted(int(path.read_text().split()[1]) for path in folder.iterdir() if path.name[0] != ".")


def chain(out: Path, *middle: Mapping[str, Any], source: Mapping[str, Any] = NUMBERS) -> dict[str, Any]:
    stages: dict[str, Any] = {"numbers": source}
    for number, stage in enumerate(middle):
        stages[f"n{number}"] = {"inputs": [list(stages)[-1]], **stage}
    return {**stages, "sink": {"stage": "gather", "inputs": [list(stages)[-1]], "path": str(out)}}


def test_a_worker_that_dies_during_an_item_or_after_its_output_costs_one_attempt(tmp_path: Path, address: str) -> None:
    out = tmp_path / "out"
    crash = {"stage": "crash", "on": [2]}
    outcome = run(check(tmp_path, chain(out, crash, {**crash, "after": True})), address)
    assert gathered(out) == list(range(8))
    assert [outcome.nodes[name].again for name in ("n0", "n1")] == [1, 1]
    assert [outcome.nodes[name].lost_workers for name in ("n0", "n1")] == [1, 1]
    assert (outcome.exit_code, outcome.restarts) == (0, 0)


def test_a_worker_that_dies_between_two_items_costs_nobody_an_attempt(tmp_path: Path, address: str) -> None:
    out, pids = tmp_path / "out", tmp_path / "pids"
    killed: list[int] = []

    def watch(outcome: Outcome) -> None:
        if outcome.nodes["n1"].done == 3 and not killed:
            killed.append(int((pids / "n1-0").read_text()))
            os.kill(killed[0], signal.SIGKILL)

    slow = {"stage": "slow", "seconds": 0.4}
    checked = check(tmp_path, chain(out, slow, {"stage": "crash", "pids": str(pids), "retries": 0}))
    outcome = run_watched(checked, address, watch)
    assert gathered(out) == list(range(8))
    assert killed
    assert (outcome.nodes["n1"].lost_workers, outcome.nodes["n1"].again, outcome.dead) == (1, 0, [])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"how": "exit"}, "its worker died"),
        ({"how": "segv"}, "its worker died"),
        ({"how": "hang", "timeout": 0.5}, "it took longer than timeout: 0.5 seconds"),
        ({"how": "hang", "stall_timeout": 0.5}, "not a word for stall_timeout: 0.5 seconds"),
    ],
)
def test_an_item_that_kills_its_worker_three_times_is_set_aside_alone(
    tmp_path: Path, address: str, options: dict[str, Any], says: str
) -> None:
    out = tmp_path / "out"
    poison = {"stage": "crash", "on": [5], "attempts": 99, "replicas": 2, **options}
    outcome = run(check(tmp_path, chain(out, poison)), address)
    assert gathered(out) == [0, 1, 2, 3, 4, 6, 7]
    (letter,) = outcome.dead
    assert (letter.node, letter.label, letter.error, letter.attempts) == ("n0", "n5", "WorkerDied", 3)
    assert says in letter.message
    assert outcome.nodes["n0"].again == 2
    assert outcome.exit_code == 3


def test_an_exception_sets_its_item_aside_at_once_with_what_a_replay_needs(tmp_path: Path, address: str) -> None:
    out = tmp_path / "out"
    outcome = run(check(tmp_path, chain(out, {"stage": "fail_always", "on": [3]})), address)
    assert gathered(out) == [0, 1, 2, 4, 5, 6, 7]
    (letter,) = outcome.dead
    assert (letter.error, letter.attempts) == ("ValueError", 1)
    assert letter.replay == f"pipeline replay {letter.folder}"
    assert sorted(path.name for path in Path(letter.folder).iterdir()) == ["input.pickle", "letter.json"]


def test_a_sink_and_a_source_that_die_begin_anew_and_nothing_comes_twice(tmp_path: Path, address: str) -> None:
    """`learn` holds what it has seen: with it, all of that is lost."""
    out, pids = tmp_path / "out", tmp_path / "pids"
    stages = {
        "numbers": NUMBERS,
        "held": {"stage": "hold_back", "inputs": ["numbers"]},
        "n": {"stage": "crash", "inputs": ["held"], "pids": str(pids)},
        "last": {"stage": "collect_once", "inputs": ["n"], "path": str(tmp_path / "once"), "at": "n4"},
        "sink": {"stage": "gather", "inputs": ["n"], "path": str(out)},
    }
    outcome = run(check(tmp_path, stages), address)
    assert gathered(out) == list(range(8))
    assert (tmp_path / "once").read_text().split() == [f"n{number}" for number in range(8)]
    assert (outcome.restarts, outcome.exit_code) == (1, 0)


def test_several_replicas_of_a_sink_that_commits_at_its_end_begin_anew_if_one_is_lost(
    tmp_path: Path, address: str
) -> None:
    last = {"stage": "collect_once", "inputs": ["numbers"], "path": str(tmp_path / "once"), "at": "n5"}
    stages = {"numbers": NUMBERS, "last": {**last, "apart": True, "replicas": 2}}
    outcome = run(check(tmp_path, stages), address)
    parts = [path.read_text().split() for path in tmp_path.glob("once.[0-9]")]
    assert sorted(label for part in parts for label in part) == [f"n{number}" for number in range(8)]
    assert (outcome.restarts, outcome.exit_code) == (1, 0)


def test_a_slow_sink_reaches_the_source(tmp_path: Path, address: str) -> None:
    """100 frames of 8 MiB through a store of 200 MiB: what is under way stays below the budget, on disk goes none."""
    frames = {"stage": "frames", "count": 100, "nbytes": 8 * 2**20}
    outcome = run(check(tmp_path, chain(tmp_path / "out", {"stage": "mean", "seconds": 0.02}, source=frames)), address)
    assert gathered(tmp_path / "out") == list(range(100))
    assert 8 * 2**20 < outcome.peak_bytes <= 0.6 * 200 * 2**20
    assert outcome.spilled_bytes == 0
    assert outcome.nodes["numbers"].timesheet.spent["blocked"] > 0


def wait_for_zone(cluster: Any, zone: str, *, there: bool) -> None:
    deadline = time.monotonic() + 60
    while there != any(node["Alive"] and node["Labels"].get("zone") == zone for node in _nodes()):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _nodes() -> list[dict[str, Any]]:
    import ray

    found: list[dict[str, Any]] = ray.nodes()
    return found


def diamond(out: Path, zone: str) -> dict[str, Any]:
    away = {"resources": {"labels": {"zone": zone}}}
    return {
        "numbers": {"stage": "numbers", "count": 30},
        "fill": {"stage": "fill", "inputs": ["numbers"], "nbytes": 2**20, "replicas": 2, **away},
        "left": {"stage": "mean", "inputs": ["fill"], "seconds": 0.05},
        "right": {"stage": "mean", "inputs": ["fill"], **away},
        "pair": {"stage": "pair", "inputs": {"left": "left", "right": "right"}},
        "sink": {"stage": "gather", "inputs": ["pair"], "path": str(out)},
    }


@pytest.mark.parametrize("spare", [True, False])
def test_a_machine_that_is_lost_in_a_diamond(tmp_path: Path, ray_cluster: Any, spare: bool) -> None:
    zone, out = f"spare-{spare}", tmp_path / "out"
    machines = [ray_cluster.add_node(num_cpus=2, object_store_memory=80 * 2**20, labels={"zone": zone})]
    try:

        def watch(outcome: Outcome) -> None:
            if outcome.nodes["sink"].done >= 5 and len(machines) == 1:
                lost = machines[0]
                machines.append(
                    ray_cluster.add_node(num_cpus=2, object_store_memory=80 * 2**20, labels={"zone": zone})
                    if spare
                    else lost
                )
                ray_cluster.remove_node(lost, allow_graceful=False)

        checked = check(tmp_path, diamond(out, zone))
        policy = Policy(drain_seconds=5, patience_seconds=60 if spare else 6)  # new workers take a while to start
        if spare:
            outcome = run_watched(checked, ray_cluster.address, watch, policy)
            assert gathered(out) == sorted(2 * number for number in range(30))
            assert (outcome.exit_code, outcome.dead) == (0, [])
        else:
            with pytest.raises(RunFailed, match=r"no worker came up for .*fill.*right"):
                run_watched(checked, ray_cluster.address, watch, policy)
            assert set(gathered(out)) < {2 * number for number in range(30)}
    finally:
        for machine in {id(one): one for one in machines}.values():
            if machine in ray_cluster.worker_nodes:
                ray_cluster.remove_node(machine)


def test_three_gpu_stages_share_one_gpu(tmp_path: Path, ray_cluster: Any) -> None:
    machine = ray_cluster.add_node(num_cpus=1, num_gpus=1)
    try:
        whole = {"stage": "add", "resources": {"gpus": 1}}
        checked = check(tmp_path, chain(tmp_path / "out", whole, whole, whole))
        with Console(record=True, width=300, quiet=False, file=open(os.devnull, "w")) as console:  # noqa: PTH123
            runner.run(checked, console, runner.Manner(address=ray_cluster.address))
        assert gathered(tmp_path / "out") == [number + 3 for number in range(8)]
        assert "3 replicas of n0, n1 and n2 ask for 3 GPUs and there is 1: each gets 0.33" in console.export_text()
    finally:
        ray_cluster.remove_node(machine)


def test_a_request_that_cannot_be_met_is_refused_before_any_actor_starts(tmp_path: Path, address: str) -> None:
    pids = tmp_path / "pids"
    impossible = {"stage": "crash", "pids": str(pids), "resources": {"labels": {"zone": "nowhere"}}}
    with pytest.raises(RunFailed, match=r"n0: a replica reserves .* on a machine labelled zone=nowhere"):
        run(check(tmp_path, chain(tmp_path / "out", impossible)), address)
    assert not pids.exists()


def test_replicas_come_where_items_wait_and_go_where_they_are_idle(tmp_path: Path, address: str) -> None:
    out = tmp_path / "out"
    elastic = {"stage": "slow", "seconds": 0.2, "replicas": {"min": 1, "max": 3}}
    outcome = run(check(tmp_path, chain(out, elastic, source={"stage": "numbers", "count": 60})), address)
    assert gathered(out) == list(range(60))
    assert outcome.nodes["n0"].timesheet.most_replicas == 3


def test_what_was_started_is_gone_afterwards(tmp_path: Path, address: str) -> None:
    """On a cluster of someone else's nothing may stay: no actor, no object."""
    import ray

    pids = tmp_path / "pids"
    run(check(tmp_path, chain(tmp_path / "out", {"stage": "crash", "pids": str(pids), "replicas": 3})), address)
    numbers = [int(path.read_text()) for path in pids.iterdir()]
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{number}").exists() for number in numbers):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert len(numbers) == 3
    assert not ray.is_initialized()


def test_a_run_that_is_told_to_stop_leaves_checkpoints_and_the_next_goes_on_from_them(
    tmp_path: Path, address: str
) -> None:
    """Steps are counted: none is done twice, on whatever worker."""
    log, out = tmp_path / "log", tmp_path / "out"
    steps = {"stage": "steps", "steps": 20, "seconds": 0.1, "log": str(log), "replicas": 2}
    stages = chain(out, steps, source={"stage": "numbers", "count": 2})

    def stop(outcome: Outcome) -> None:
        if any(one.fraction >= 0.25 for one in outcome.nodes["n0"].running.values()):
            raise Interrupted(signal.SIGTERM)

    with pytest.raises(Interrupted):
        run_watched(check(tmp_path, stages), address, stop)
    before = log.read_text().splitlines()
    assert 0 < len(before) < 40
    outcome = run(check(tmp_path, stages), address)
    assert gathered(out) == [0, 1]
    assert sorted(log.read_text().splitlines()) == sorted(f"n{n} {step}" for n in range(2) for step in range(20))
    assert outcome.exit_code == 0


PICTURES = Path(__file__).parents[2] / "examples" / "images"


def encoded(tmp_path: Path, name: str, manner: runner.Manner, **fitted: Any) -> dict[str, bytes]:
    """Unit key to payload of a small real archive."""
    path = tmp_path / f"{name}.fold"
    stages = {
        "pictures": {"stage": "image_source", "path": [str(one) for one in sorted(PICTURES.glob("*.png"))[:2]]},
        "fitted": {"stage": "fit", "inputs": ["pictures"], "codec": {"name": "coin"}, "budget": {"steps": 3}, **fitted},
        "symbols": {"stage": "quantize", "inputs": ["fitted"]},
        "bits": {"stage": "entropy_encode", "inputs": ["symbols"], **fitted},
        "archive": {"stage": "archive_sink", "inputs": ["bits"], "path": str(path), "measure": False},
    }
    mapping = {"run_dir": str(tmp_path / name), "stages": stages}
    runner.run(spec.from_mapping("same", mapping), Console(quiet=True), manner)
    with ArchiveReader.open(path) as reader:
        units = [reader.read_unit(unit.id) for unit in reader.units]
        return {unit.key: bytes(unit.payload) for unit in units}


def test_the_same_pipeline_gives_the_same_bytes_wherever_it_runs(tmp_path: Path, ray_cluster: Any) -> None:
    here = encoded(tmp_path, "here", runner.Manner(local=True))
    one = encoded(tmp_path, "one", runner.Manner(address=ray_cluster.address), replicas=2)
    machines = [ray_cluster.add_node(num_cpus=1, labels={"zone": "third"}) for _ in range(2)]
    try:
        away = {"replicas": 2, "resources": {"cpus": 1, "labels": {"zone": "third"}}}
        with pytest.raises(RunFailed, match=r"4 cpus|fitted|bits"):  # four replicas of a core each, on two such cores
            encoded(tmp_path, "many", runner.Manner(address=ray_cluster.address), **away)
        away["replicas"] = 1
        three = encoded(tmp_path, "three", runner.Manner(address=ray_cluster.address), **away)
    finally:
        for machine in machines:
            ray_cluster.remove_node(machine)
    assert here
    assert here == one == three


ENGINE_ALONE = """
import os, sys
from rich.console import Console
from framefold.pipeline import runner, spec
from framefold.pipeline.testing import TOYS
stages = {
    "numbers": {"stage": "frames", "count": 500, "nbytes": 2**20},
    "slow": {"stage": "mean", "seconds": 0.05, "inputs": ["numbers"]},
    "sink": {"stage": "collect", "inputs": ["slow"], "path": sys.argv[1]},
}
checked = spec.from_mapping("alone", {"run_dir": sys.argv[2], "stages": stages}, extra_stages=TOYS)
runner.run(checked, Console(quiet=True))
"""


def _sessions_processes(pid: int) -> set[int]:
    """All processes below one."""
    found: set[int] = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, path.read_text().split()):
            found |= {child, *_sessions_processes(child)}
    return found


def _command_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_driver_that_is_killed_leaves_no_process_and_no_shared_memory(tmp_path: Path) -> None:
    """With a Ray of its own: what it started has to notice by itself.

    Ray's two agents are left out: they look whether they are still needed once a minute, and then end too.
    """
    shared = Path("/dev/shm")  # noqa: S108 - read only
    before = set(shared.iterdir())
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", ENGINE_ALONE, str(out), str(tmp_path / "run")])
    deadline = time.monotonic() + 120
    while not (out.exists() and out.read_text()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    started = {pid for pid in _sessions_processes(process.pid) if b"Agent" not in _command_of(pid)}
    process.kill()
    process.wait()
    while any(map(_is_alive, started)) or set(shared.iterdir()) - before:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert len(started) > 3
