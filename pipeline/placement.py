"""Where replicas go: what each reserves, whether the machines can hold it, and how GPUs are shared. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from framefold.pipeline.errors import RunFailed
from framefold.pipeline.findings import listed

LEAST_SHARE = 0.0001
"""Of a GPU; Ray counts no finer."""
_TINY = 1e-6


@dataclass(frozen=True)
class Reservation:
    """What is set aside for one replica."""

    cpus: float = 0
    gpus: float = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    """The machine must carry all of them."""


@dataclass(frozen=True)
class Machine:
    """One machine of the cluster."""

    cpus: float = 0
    gpus: float = 0
    labels: Mapping[str, str] = field(default_factory=dict)

    def holds(self, one: Reservation) -> bool:
        """Whether a replica could be here, were the machine empty."""
        labelled = all(self.labels.get(name) == value for name, value in one.labels.items())
        return labelled and one.cpus <= self.cpus and one.gpus <= self.gpus


Demands = Mapping[str, tuple[int, Reservation]]
"""Node to the number of its replicas and what each of them reserves."""


@dataclass(frozen=True)
class Plan:
    """What will be asked of the cluster."""

    demands: Demands
    notes: tuple[str, ...] = ()
    """Decisions that the user should know of."""


def plan(demands: Demands, machines: Collection[Machine]) -> Plan:
    """Decide what each replica gets; RunFailed, with every reason, where the machines cannot hold them.

    Ray itself would wait for ever without a word.
    """
    shared = share_gpus(demands, machines)
    problems = [*shortfalls(shared.demands, machines), *misfits(shared.demands, machines)]
    problems = problems or homeless(shared.demands, machines)
    if problems:
        raise RunFailed("\n".join(problems))
    return shared


def share_gpus(demands: Demands, machines: Collection[Machine]) -> Plan:
    """Where replicas that ask for at most one GPU find no place side by side, they take turns on each GPU."""
    asking = {name: demand for name, demand in demands.items() if demand[1].gpus}
    gpus = int(sum(machine.gpus for machine in machines))
    if not gpus or any(one.gpus > 1 for _, one in asking.values()) or not homeless(asking, machines):
        return Plan(demands)
    replicas = sum(count for count, _ in asking.values())
    together = -(-replicas // gpus)
    while together <= replicas:
        share = max(int(100 / together) / 100, LEAST_SHARE)
        changed = {name: (count, replace(one, gpus=share)) for name, (count, one) in asking.items()}
        if not homeless(changed, machines):
            return Plan({**demands, **changed}, (_shared(asking, replicas, gpus, share),))
        together *= 2
    return Plan(demands)  # it is not for want of GPUs


def _shared(asking: Demands, replicas: int, gpus: int, share: float) -> str:
    total = sum(count * one.gpus for count, one in asking.values())
    return (
        f"{replicas} replicas of {listed(list(asking))} ask for {total:g} GPUs and there {_are(gpus)}: each gets "
        f"{share:g} of one and they share its memory; set `resources: {{gpus: …}}` or `replicas` to decide otherwise"
    )


def homeless(demands: Demands, machines: Collection[Machine]) -> list[str]:
    """Which nodes have replicas that find no place beside the others, put down one by one in the order of the file."""
    places = [_Place(machine) for machine in machines]
    return [
        f"{name}: {lacking} of {count} replicas find no place beside the others, each with {_described(one)} on one "
        "machine: lower `replicas` or `resources`, or run on a larger cluster (--address)"
        for name, (count, one) in demands.items()
        if (lacking := sum(not any(place.takes(one) for place in places) for _ in range(count)))
    ]


class _Place:
    """What is still free on one machine; a share of a GPU lies on one GPU, where the least is left that will do."""

    def __init__(self, machine: Machine) -> None:
        self._machine, self._cpus, self._gpus = machine, machine.cpus, [1.0] * int(machine.gpus)

    def takes(self, one: Reservation) -> bool:
        """Put a replica here if there is room."""
        found = sorted((free, number) for number, free in enumerate(self._gpus) if free >= min(one.gpus, 1) - _TINY)
        needed = math.ceil(one.gpus)
        if not self._machine.holds(one) or one.cpus > self._cpus + _TINY or len(found) < needed:
            return False
        self._cpus -= one.cpus
        for _, number in found[:needed]:
            self._gpus[number] -= min(one.gpus, 1)
        return True


def shortfalls(demands: Demands, machines: Collection[Machine]) -> list[str]:
    """What the cluster lacks in total."""
    asked = {
        "cpus": (sum(count * one.cpus for count, one in demands.values()), sum(m.cpus for m in machines)),
        "gpus": (sum(count * one.gpus for count, one in demands.values()), sum(m.gpus for m in machines)),
    }
    return [
        f"the stages reserve {wanted:g} {name} in total, the cluster has {there:g}: lower `replicas` or "
        f"`resources: {{{name}: …}}`, use a fraction, or run on a larger cluster (--address)"
        for name, (wanted, there) in asked.items()
        if wanted > there + _TINY
    ]


def misfits(demands: Demands, machines: Collection[Machine]) -> list[str]:
    """Which nodes have replicas that no single machine can hold."""
    return [
        f"{name}: a replica reserves {_described(one)}, which no machine of the cluster has: lower its `resources`"
        + (", or start a machine with these labels" if one.labels else "")
        for name, (_, one) in demands.items()
        if not any(machine.holds(one) for machine in machines)
    ]


def _described(one: Reservation) -> str:
    text = f"{one.cpus:g} cpus and {one.gpus:g} gpus"
    labels = ", ".join(f"{name}={value}" for name, value in one.labels.items())
    return f"{text} on a machine labelled {labels}" if labels else text


def _are(gpus: int) -> str:
    return "is 1" if gpus == 1 else f"are {gpus}"
