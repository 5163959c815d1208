"""Workers killed and machines taken away at random: each item ends in the sink or among the dead letters, once.

A run is drawn from its seed: the graph (a diamond of six nodes and more), which items are poison, and what is
killed after how many notices of the scheduler. Which process is hit is left to chance, as in life.

    make chaos                                 200 seeds
    FRAMEFOLD_CHAOS_RUNS=1000 make chaos       so many
    FRAMEFOLD_CHAOS_SEED=17 make chaos         one of them again
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from framefold.pipeline import spec
from framefold.pipeline.dead_letters import LETTER
from framefold.pipeline.errors import RunFailed
from framefold.pipeline.event_log import EventLog
from framefold.pipeline.home import home_of
from framefold.pipeline.notices import CallBegan, CallEnded, GivenOut, Notice, ReplicaGone, ReplicaReady, ReplicaStarted
from framefold.pipeline.outcome import Outcome
from framefold.pipeline.placement import Reservation
from framefold.pipeline.policy import Policy
from framefold.pipeline.scheduler import Scheduler
from framefold.pipeline.spec import CheckedPipeline
from framefold.pipeline.testing import TOYS

pytestmark = pytest.mark.ray

COUNT = 200
HANG_SECONDS = 300.0
"""A run takes about ten; what takes so long hangs."""
PATIENCE_SECONDS = 60.0
"""For a cluster that takes a quarter of a minute to notice a loss, on cores that others use as well."""
SHORT = (6, 9, 10, 37)
"""Together they have every trait but the one that is too slow, see below."""
TOO_SLOW = {"machine: no spare"}
"""Two runs, and a wait between them."""
MACHINE = {"num_cpus": 2, "object_store_memory": 80 * 2**20}


def seeds() -> tuple[int, ...]:
    one, runs = os.environ.get("FRAMEFOLD_CHAOS_SEED"), os.environ.get("FRAMEFOLD_CHAOS_RUNS")
    return (int(one),) if one else tuple(range(int(runs))) if runs else SHORT


# What a run is.


@dataclass(frozen=True)
class Fault:
    """What comes after the n-th notice of a kind."""

    notice: type[Any]
    number: int
    kills: int = 1
    """Workers; 0: the machine is lost."""


@dataclass
class Plan:
    """A graph, what is expected of it, and what happens to it."""

    seed: int
    stages: dict[str, Any] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    poison: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Label to node and error of the dead letter."""
    refused: list[str] = field(default_factory=list)
    offset: int = 0
    """What a model adds to each number."""
    traits: set[str] = field(default_factory=set)

    @property
    def retries(self) -> int:
        """So that an innocent item gets through that is hit by every fault, and then fails once by itself."""
        return 1 + sum(max(1, fault.kills) for fault in self.faults)

    @property
    def zone(self) -> str:
        return f"chaos-{self.seed}"

    @property
    def expected(self) -> dict[str, int]:
        aside = {*self.poison, *self.refused}
        return {f"n{number}": 2 * number + self.offset for number in range(COUNT) if f"n{number}" not in aside}


class Draw:
    """Draws a plan from a seed."""

    def __init__(self, seed: int, out: Path) -> None:
        self.random, self.out = random.Random(seed), out
        self.plan = Plan(seed)
        self.numbers = self.random.sample(range(COUNT), COUNT)

    def __call__(self) -> Plan:
        machine = self.pick("machine", "kept", "spare", "late spare", "no spare", "anywhere")
        self.graph()
        self.place(machine)
        self.faults(machine)
        for stage in self.plan.stages.values():
            stage["retries"] = self.plan.retries
        return self.plan

    def pick(self, kind: str, *choices: str) -> str:
        choice = self.random.choice(choices)
        self.plan.traits.add(f"{kind}: {choice}")
        return choice

    def graph(self) -> None:
        stages = self.plan.stages
        refused = self.numbers[:2] if self.pick("source", "refuses", "gives all") == "refuses" else []
        self.plan.refused = [f"n{number}" for number in refused]
        stages["numbers"] = {"stage": "numbers", "count": COUNT, "refuse": refused}
        self.chain("trunk", "numbers", "crash", "fail_always", "crash once", "hold_back")
        stages["fill"] = {"stage": "fill", "inputs": [self.last], "nbytes": 100_000, "replicas": 2}
        stages["left"] = {"stage": "mean", "inputs": ["fill"]}
        self.chain("branch", "left", "crash", "fail_always", "steps", "fail_once")
        stages["right"] = {"stage": "mean", "inputs": ["fill"], **self.right()}
        stages["pair"] = {"stage": "pair", "inputs": {"left": self.last, "right": "right"}}
        self.chain("end", "pair", "none", "hold_back", "offset")
        stages["sink"] = {"stage": "gather", "inputs": [self.last], "path": str(self.out / "sink"), "replicas": 2}
        if self.pick("second sink", "none", "collect_once") == "collect_once":
            label = f"n{self.numbers[-1]}"
            stages["once"] = {"stage": "collect_once", "inputs": ["pair"], "path": str(self.out / "once"), "at": label}

    def chain(self, name: str, after: str, *choices: str) -> None:
        """A stage behind another one, or none."""
        self.last = after
        choice = self.pick(name, *choices)
        if choice != "none":
            self.plan.stages[name] = {"inputs": [after], **getattr(self, choice.replace(" ", "_"))(name)}
            self.last = name

    def right(self) -> dict[str, Any]:
        batch = {"items": 4, "wait_seconds": 0.05}
        ways: dict[str, dict[str, Any]] = {
            "two": {"replicas": 2},
            "elastic": {"replicas": {"min": 1, "max": 3}, "seconds": 0.02},
            "batches": {"batch": batch, "replicas": 2},
        }
        return ways[self.pick("right", *ways)]

    def some(self, count: int) -> list[int]:
        taken = {*self.plan.poison, *self.plan.refused}
        return self.random.sample([number for number in range(COUNT) if f"n{number}" not in taken], count)

    def crash(self, name: str) -> dict[str, Any]:
        (poison,) = self.some(1)
        self.plan.poison[f"n{poison}"] = (name, "WorkerDied")
        return {"stage": "crash", "on": [poison], "attempts": 99, "replicas": self.random.choice([1, 2])}

    def crash_once(self, name: str) -> dict[str, Any]:
        """Nobody's fault: an item whose worker dies once, its output given or not."""
        return {"stage": "crash", "on": self.some(2), "after": self.random.random() < 0.5}

    def fail_always(self, name: str) -> dict[str, Any]:
        poison = self.some(3)
        self.plan.poison |= {f"n{number}": (name, "ValueError") for number in poison}
        return {"stage": "fail_always", "on": poison}

    def fail_once(self, name: str) -> dict[str, Any]:
        return {"stage": "fail_once", "on": self.some(5), "replicas": 2}

    def hold_back(self, name: str) -> dict[str, Any]:
        return {"stage": "hold_back"}

    def offset(self, name: str) -> dict[str, Any]:
        """Waits for a model, which each of its workers is given anew."""
        self.plan.stages["lessons"] = {"stage": "numbers", "count": 4}
        self.plan.stages["model"] = {"stage": "learn", "inputs": ["lessons"]}
        self.plan.offset = sum(range(4))
        return {"stage": "offset", "side_inputs": {"model": "model"}, "replicas": 2}

    def steps(self, name: str) -> dict[str, Any]:
        return {"stage": "steps", "steps": 3}

    def place(self, machine: str) -> None:
        """What is on the machine that will be lost."""
        if machine == "anywhere":
            for stage in self.plan.stages.values():
                stage["resources"] = {"cpus": 0.5}
        elif machine != "kept":
            names = [name for name in self.plan.stages if name not in ("sink", "once")]
            for name in {*self.random.sample(names, self.random.choice([1, 2, 3])), "fill"}:
                self.plan.stages[name]["resources"] = {"labels": {"zone": self.plan.zone}}

    def faults(self, machine: str) -> None:
        kinds = ((CallBegan, 900), (CallEnded, 900), (GivenOut, 900), (ReplicaReady, 9), (ReplicaGone, 3))
        for number in range(self.random.choice([2, 3, 4])):
            notice, most = self.random.choice(kinds if number else kinds[:-1])
            fault = Fault(notice, self.random.randint(1, most), self.random.choice([1, 1, 1, 2]))
            self.plan.faults.append(fault)
        if machine != "kept":
            self.plan.faults.append(Fault(CallEnded, self.random.randint(50, 900), kills=0))


# What happens to it.


class Killer:
    """Listens to a run, and strikes where the plan says."""

    def __init__(self, plan: Plan, cluster: Any) -> None:
        self.plan, self.cluster = plan, cluster
        self.random = random.Random(-1 - plan.seed)
        self.heard: Counter[type[Any]] = Counter()
        self.ahead = list(plan.faults)
        self.struck: list[str] = []
        self.there: set[tuple[str, int]] = set()
        self.machines: list[Any] = []
        self.raylets = raylets(cluster)
        self.began = time.monotonic()

    def hear(self, notice: Notice) -> None:
        self.follow(notice)
        self.heard[type(notice)] += 1
        due = [fault for fault in self.ahead if self.heard[fault.notice] >= fault.number]
        self.ahead = [fault for fault in self.ahead if fault not in due]
        for fault in due:
            at = f"{fault.notice.__name__} {self.heard[fault.notice]}"
            self.struck += [f"{at}: {what}" for what in (self.kill(fault.kills) if fault.kills else self.lose())]

    def follow(self, notice: Notice) -> None:
        """A replica goes once."""
        if isinstance(notice, ReplicaStarted):
            self.there.add((notice.node, notice.replica))
        elif isinstance(notice, ReplicaGone):
            assert (notice.node, notice.replica) in self.there, notice
            self.there.remove((notice.node, notice.replica))

    def watch(self, outcome: Outcome) -> None:
        if time.monotonic() - self.began > HANG_SECONDS:
            raise AssertionError("it hangs")

    def kill(self, count: int) -> Iterator[str]:
        living = sorted(actors(raylets(self.cluster)).items())
        for pid, title in self.random.sample(living, min(count, len(living))):
            os.kill(pid, signal.SIGKILL)
            yield f"killed {title} {pid}"

    def add_machine(self) -> None:
        self.machines.append(self.cluster.add_node(**MACHINE, labels={"zone": self.plan.zone}))
        self.raylets |= raylets(self.cluster)

    def lose(self) -> Iterator[str]:
        lost = self.machines[0]
        if "machine: spare" in self.plan.traits:
            self.add_machine()
        self.machines.remove(lost)
        self.cluster.remove_node(lost, allow_graceful=False)
        if "machine: late spare" in self.plan.traits:
            self.add_machine()
        yield "lost a machine"

    def clear(self) -> None:
        for machine in self.machines:
            self.cluster.remove_node(machine)


def raylets(cluster: Any) -> set[int]:
    return {node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes()}


def actors(of_raylets: set[int]) -> dict[int, str]:
    """Process numbers and titles of the actors of some machines."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes().split(b"\0")[0].decode()
            if title.startswith("ray::_Actor") and raylet_of(folder) in of_raylets:
                found[int(folder.name)] = title
        except OSError:  # it is gone
            continue
    return found


def raylet_of(folder: Path) -> int:
    environment = dict(line.partition(b"=")[::2] for line in (folder / "environ").read_bytes().split(b"\0"))
    return int(environment.get(b"RAY_RAYLET_PID", 0))


# The runs.


def run(checked: CheckedPipeline, address: str, killer: Killer, patience: float = PATIENCE_SECONDS) -> Outcome:
    from framefold.pipeline.ray_executor import RayExecutor

    demands = {
        node.name: (node.replicas, Reservation(node.resources.cpus or 0, node.resources.gpus, node.resources.labels))
        for node in checked.graph
    }
    log = EventLog(checked.run_dir / "events.jsonl")
    with home_of(checked.run_dir) as home:
        scheduler = Scheduler(
            list(checked.graph),
            RayExecutor(demands, address=address),
            seed=checked.seed,
            run_dir=checked.run_dir,
            home=home,
            policy=Policy(drain_seconds=5, patience_seconds=patience, back_off_seconds=0.1),
            watch=killer.watch,
            listeners=[log, killer.hear],
        )
        try:
            return scheduler.run()
        finally:
            log.close()


def run_to_the_end(checked: CheckedPipeline, address: str, killer: Killer) -> Outcome:
    if "machine: no spare" not in killer.plan.traits:
        return run(checked, address, killer)
    with pytest.raises(RunFailed, match="no worker came up"):
        run(checked, address, killer, patience=PATIENCE_SECONDS / 3)
    killer.add_machine()
    return run(checked, address, killer)


@pytest.mark.parametrize("seed", seeds())
def test_every_item_ends_in_one_place_whatever_dies(tmp_path: Path, ray_cluster: Any, seed: int) -> None:
    plan = Draw(seed, tmp_path)()
    stages: Mapping[str, Any] = plan.stages
    checked = spec.from_mapping("chaos", {"run_dir": tmp_path / "run", "stages": stages}, extra_stages=TOYS)
    killer = Killer(plan, ray_cluster)
    try:
        if "machine: kept" not in plan.traits:
            killer.add_machine()
        outcome = run_to_the_end(checked, ray_cluster.address, killer)
        check_places(plan, tmp_path, outcome)
        check_nothing_is_left(killer.raylets)
    except BaseException as error:
        error.add_note(f"seed {seed}: {sorted(plan.traits)}")
        error.add_note("\n".join([f"struck so far, see {checked.run_dir}:", *killer.struck]))
        raise
    finally:
        killer.clear()
    assert killer.struck


def check_places(plan: Plan, out: Path, outcome: Outcome) -> None:
    lines = [path.read_text().split() for path in (out / "sink").iterdir() if path.name[0] != "."]
    assert in_order((label, int(value)) for label, value in lines) == in_order(plan.expected.items())
    assert in_order((letter.label, (letter.node, letter.error)) for letter in outcome.dead) == in_order(
        plan.poison.items()
    )
    assert {letter.attempts for letter in outcome.dead if letter.error == "WorkerDied"} <= {plan.retries + 1}
    assert {path.parent for path in (out / "run" / "dead").glob(f"*/{LETTER}")} == {
        Path(letter.folder) for letter in outcome.dead
    }
    assert sorted(refusal.label for refusal in outcome.refused) == sorted(plan.refused)
    if "once" in plan.stages:
        assert (out / "once").read_text().split() == list(plan.expected)
    check_counters(plan, outcome)


def check_counters(plan: Plan, outcome: Outcome) -> None:
    aside = len(plan.poison) + len(plan.refused)
    assert in_order((row.label, row.values["value"]) for row in outcome.rows) == in_order(plan.expected.items())
    assert outcome.nodes["sink"].done == len(plan.expected) == COUNT - aside
    assert outcome.set_aside == aside
    assert {name: node.failed for name, node in outcome.nodes.items() if node.failed} == Counter(
        node for node, _ in plan.poison.values()
    )


def check_nothing_is_left(of_raylets: set[int]) -> None:
    deadline = time.monotonic() + 30
    while left := actors(of_raylets):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def in_order(pairs: Any) -> list[Any]:
    return sorted(pairs)


def test_the_short_set_has_every_trait(tmp_path: Path) -> None:
    every = set[str]().union(*(Draw(seed, tmp_path)().traits for seed in range(200)))
    assert set[str]().union(*(Draw(seed, tmp_path)().traits for seed in SHORT)) == every - TOO_SLOW
