"""A checked graph: nodes in topological order, each with its neighbours and a digest of all it depends on."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from framefold.pipeline.draft import Draft, Resources
from framefold.pipeline.stage import Options, Ports, Stage
from framefold.pipeline.wiring import Wire, topological, type_names


@dataclass(frozen=True)
class Edge:
    """One end of a connection, seen from a node."""

    node: str
    """The node at the other end."""
    port: str
    """The output port, which is always the upstream node's."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """One stage with its options, in its place."""

    name: str
    stage: str
    """The stage's registered name."""
    stage_class: type[Stage]
    config: Options
    ports: Ports
    inputs: tuple[Edge, ...] = ()
    consumers: tuple[Edge, ...] = ()
    replicas: int = 1
    resources: Resources = field(default_factory=Resources)
    retries: int = 2
    """How often an item is tried again after its first failure."""
    lineage: str
    """Hex SHA-256 over seed, stage, options and the lineages upstream; not over how the node is run."""

    @property
    def is_source(self) -> bool:
        """Takes nothing."""
        return self.ports.accepts is None

    @property
    def is_sink(self) -> bool:
        """Gives nothing."""
        return not self.ports.emits

    @property
    def signature(self) -> str:
        """What it takes and gives: `Clip -> FittedNetwork`, `-> even: int, odd: int`, `Bitstream ->`."""
        takes = "" if self.ports.accepts is None else type_names(self.ports.accepts)
        gives = ", ".join(_port_text(port, type_names(kind)) for port, kind in self.ports.emits.items())
        return f"{takes} -> {gives}".strip()


@dataclass(frozen=True, kw_only=True)
class Graph:
    """The nodes of one pipeline."""

    pipeline: str
    seed: int
    nodes: Mapping[str, Node]
    """By name, upstream before downstream."""

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    def __len__(self) -> int:
        return len(self.nodes)

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    @property
    def order(self) -> tuple[str, ...]:
        """Node names, upstream before downstream."""
        return tuple(self.nodes)

    @property
    def edge_count(self) -> int:
        """How many connections there are."""
        return sum(len(node.inputs) for node in self)

    def describe(self) -> str:
        """One line for people: `7 nodes, 6 edges, 9 replicas, 2 CPUs and 1 GPU set aside`."""
        replicas = sum(node.replicas for node in self)
        cpus = sum(node.replicas * (node.resources.cpus or 0) for node in self)
        gpus = sum(node.replicas * node.resources.gpus for node in self)
        aside = " and ".join(count(amount, name) for amount, name in ((cpus, "CPU"), (gpus, "GPU")) if amount)
        parts = (count(len(self), "node"), count(self.edge_count, "edge"), count(replicas, "replica"))
        return ", ".join((*parts, f"{aside} set aside")) if aside else ", ".join(parts)


def assemble(pipeline: str, seed: int, drafts: Mapping[str, Draft], wires: Sequence[Wire]) -> Graph:
    """Put together drafts that `wiring.check` found no fault with."""
    nodes: dict[str, Node] = {}
    inputs: defaultdict[str, list[Edge]] = defaultdict(list)
    consumers: defaultdict[str, list[Edge]] = defaultdict(list)
    for wire in wires:
        inputs[wire.target].append(Edge(wire.source, wire.port))
        consumers[wire.source].append(Edge(wire.target, wire.port))
    for name in topological(drafts, wires):
        upstream = [(nodes[edge.node].lineage, edge.port) for edge in inputs[name]]
        lineage = _lineage(drafts[name], seed, upstream)
        nodes[name] = _node(drafts[name], tuple(inputs[name]), tuple(consumers[name]), lineage=lineage)
    return Graph(pipeline=pipeline, seed=seed, nodes=nodes)


def _node(draft: Draft, inputs: tuple[Edge, ...], consumers: tuple[Edge, ...], *, lineage: str) -> Node:
    if draft.stage_class is None or draft.ports is None:
        raise ValueError(f"{draft.name} was not read completely; check the drafts before assembling them")
    return Node(
        name=draft.name,
        stage=draft.spec.stage,
        stage_class=draft.stage_class,
        config=draft.config,
        ports=draft.ports,
        inputs=inputs,
        consumers=consumers,
        replicas=draft.spec.replicas,
        resources=draft.spec.resources,
        retries=draft.spec.retries,
        lineage=lineage,
    )


def _lineage(draft: Draft, seed: int, upstream: Sequence[tuple[str, str]]) -> str:
    locators = draft.stage_class.locators if draft.stage_class else ()
    facts: dict[str, Any] = {
        "seed": seed,
        "stage": draft.spec.stage,
        "options": draft.config.model_dump(mode="json", exclude=set(locators)),
        "inputs": [list(edge) for edge in upstream],
    }
    canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _port_text(port: str, kind: str) -> str:
    return kind if port == "out" else f"{port}: {kind}"


def count(number: float, noun: str) -> str:
    """`1 node`, `7 nodes`."""
    return f"{number:g} {noun}{'' if number == 1 else 's'}"
