"""A checked graph: nodes in topological order, each with its neighbours and a digest of all it depends on."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from framefold.pipeline.draft import Batch, Draft, Resources
from framefold.pipeline.joining import Join, Joining
from framefold.pipeline.stage import Options, Ports, PortType, Stage
from framefold.pipeline.wiring import UNNAMED_PORT, Wire, topological, type_names

__all__ = ["Edge", "Graph", "Join", "Node", "assemble", "count"]


@dataclass(frozen=True)
class Edge:
    """One end of a connection, seen from a node."""

    node: str
    """The node at the other end."""
    port: str
    """The output port, which is always the upstream node's."""
    name: str = ""
    """The join or side input's name, which is always the downstream node's; empty where inputs are merged."""


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
    """Merged, or joined where they have names: then in the order of the stage's `joins`."""
    sides: tuple[Edge, ...] = ()
    """In the order of the stage's `sides`."""
    consumers: tuple[Edge, ...] = ()
    """Who takes the outputs as items; side inputs are not among them."""
    replicas: int = 1
    """At the start, and at least."""
    max_replicas: int = 1
    resources: Resources = field(default_factory=Resources)
    retries: int = 2
    """How often an item is tried again after a transient error or a worker's death."""
    timeout: float | None = None
    """Seconds that one item may take."""
    stall_timeout: float | None = None
    """Seconds without a word from a call, before its worker is replaced."""
    batch: Batch | None = None
    durable: bool = False
    """Outputs are kept in the run folder, and a later run takes them from there."""
    join: Join | None = None
    """None where inputs are merged."""
    depth: int | None = None
    """How many numbers the `seq` of its outputs has; None if that varies."""
    digest: str
    """Hex SHA-256 over seed, stage and options: what the node does to an item, wherever that comes from."""
    lineage: str
    """Hex SHA-256 over seed, stage, options and the lineages upstream; not over how the node is run."""

    @property
    def is_source(self) -> bool:
        """Takes nothing."""
        return self.ports.is_source

    @property
    def is_sink(self) -> bool:
        """Gives nothing."""
        return not self.ports.emits

    @property
    def signature(self) -> str:
        """What it takes and gives: `Clip -> FittedNetwork`, `-> even: int, odd: int`, `a: int, b: str ->`."""
        accepts = {} if self.ports.accepts is None else {UNNAMED_PORT: self.ports.accepts}
        return f"{_ports_text(self.ports.joins or accepts)} -> {_ports_text(self.ports.emits)}".strip()


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
        return sum(len(node.inputs) + len(node.sides) for node in self)

    def describe(self) -> str:
        """One line for people: `7 nodes, 6 edges, 9 to 16 replicas, 2 CPUs and 1 to 8 GPUs set aside`."""
        amounts = (("CPU", self._asked(lambda node: node.resources.cpus or 0)), ("GPU", self._asked(_gpus)))
        aside = " and ".join(count(amount, name) for name, amount in amounts if any(amount))
        replicas = count(self._asked(lambda node: 1), "replica")
        parts = (count(len(self), "node"), count(self.edge_count, "edge"), replicas)
        return ", ".join((*parts, f"{aside} set aside")) if aside else ", ".join(parts)

    def _asked(self, each: Callable[[Node], float]) -> tuple[float, float]:
        """How much all replicas need, at least and at most."""
        least = sum(node.replicas * each(node) for node in self)
        return least, sum(node.max_replicas * each(node) for node in self)


def assemble(pipeline: str, seed: int, drafts: Mapping[str, Draft], wires: Sequence[Wire], joining: Joining) -> Graph:
    """Put together drafts that no check found fault with."""
    nodes: dict[str, Node] = {}
    incoming: defaultdict[str, list[Wire]] = defaultdict(list)
    consumers: defaultdict[str, list[Edge]] = defaultdict(list)
    for wire in wires:
        incoming[wire.target].append(wire)
        if not wire.side:
            consumers[wire.source].append(Edge(wire.target, wire.port, wire.name))
    for name in topological(drafts, wires):
        draft, (inputs, sides) = drafts[name], _edges(drafts[name], incoming[name])
        nodes[name] = replace(
            _node(
                draft,
                digest=_digest(_facts(draft, seed)),
                lineage=_lineage(draft, seed, _traced(inputs, nodes), _traced(sides, nodes)),
            ),
            inputs=inputs,
            sides=sides,
            consumers=tuple(consumers[name]),
            join=joining.joins.get(name),
            depth=joining.depths.get(name),
        )
    return Graph(pipeline=pipeline, seed=seed, nodes=nodes)


def _edges(draft: Draft, wires: Sequence[Wire]) -> tuple[tuple[Edge, ...], tuple[Edge, ...]]:
    """Inputs and side inputs; those with names in the order in which the stage declares them."""
    ports = draft.ports or Ports()
    place = {name: number for number, name in enumerate((*ports.joins, *ports.sides))}
    in_order = sorted(wires, key=lambda wire: place.get(wire.name, 0) if wire.name else 0)
    inputs = tuple(Edge(wire.source, wire.port, wire.name) for wire in in_order if not wire.side)
    return inputs, tuple(Edge(wire.source, wire.port, wire.name) for wire in in_order if wire.side)


def _node(draft: Draft, *, digest: str, lineage: str) -> Node:
    if draft.stage_class is None or draft.ports is None:
        raise ValueError(f"{draft.name} was not read completely; check the drafts before assembling them")
    return Node(
        name=draft.name,
        stage=draft.spec.stage,
        stage_class=draft.stage_class,
        config=draft.config,
        ports=draft.ports,
        replicas=draft.spec.min_replicas,
        max_replicas=draft.spec.max_replicas,
        resources=draft.spec.resources,
        retries=draft.spec.retries,
        timeout=draft.spec.timeout,
        stall_timeout=draft.spec.stall_timeout,
        batch=draft.spec.batch,
        durable=draft.stage_class.durable if draft.spec.store is None else draft.spec.store,
        digest=digest,
        lineage=lineage,
    )


_Traced = Sequence[tuple[str, str, str]]
"""Lineage, port and name of each edge."""


def _traced(edges: Sequence[Edge], nodes: Mapping[str, Node]) -> _Traced:
    return [(nodes[edge.node].lineage, edge.port, edge.name) for edge in edges]


def _facts(draft: Draft, seed: int) -> dict[str, Any]:
    """What a node is by itself."""
    locators = draft.stage_class.locators if draft.stage_class else ()
    options = draft.config.model_dump(mode="json", exclude=set(locators))
    return {"seed": seed, "stage": draft.spec.stage, "options": options}


def _lineage(draft: Draft, seed: int, inputs: _Traced, sides: _Traced) -> str:
    facts = _facts(draft, seed)
    facts["inputs"] = [[lineage, port, name] if name else [lineage, port] for lineage, port, name in _by_name(inputs)]
    if sides:  # a fact only where there is one: keys in archives depend on this digest
        facts["sides"] = [list(side) for side in _by_name(sides)]
    return _digest(facts)


def _digest(facts: Mapping[str, Any]) -> str:
    canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _by_name(edges: _Traced) -> _Traced:
    """Merged inputs stay in the order of the file; those with names have none."""
    return sorted(edges, key=lambda edge: edge[2])


def _ports_text(ports: Mapping[str, PortType]) -> str:
    kinds = {port: type_names(kind) for port, kind in ports.items()}
    return ", ".join(kind if port == UNNAMED_PORT else f"{port}: {kind}" for port, kind in kinds.items())


def _gpus(node: Node) -> float:
    return node.resources.gpus


def count(number: float | tuple[float, float], noun: str) -> str:
    """`1 node`, `7 nodes`, `1 to 8 nodes`."""
    least, most = number if isinstance(number, tuple) else (number, number)
    amount = f"{least:g}" if least == most else f"{least:g} to {most:g}"
    return f"{amount} {noun}{'' if most == 1 else 's'}"
