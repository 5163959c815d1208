"""A graph for people: as text for the terminal, for Graphviz (`dot -Tsvg`) and for Mermaid."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from framefold.pipeline.findings import listed
from framefold.pipeline.graph import Edge, Graph, Node, count
from framefold.pipeline.wiring import UNNAMED_PORT, type_names


def text(graph: Graph) -> str:
    """Draw chains downwards, forks to the right; a node with several inputs stands under the last one.

    Side inputs are dashed, and named again in the line of the node that waits for them.
    """
    lines = [f"{graph.pipeline}: {graph.describe()}", ""]
    pen = _Pen(graph)
    for node in graph:
        if node.is_source:
            lines += [*pen.draw(node, "", ""), ""]
    return "\n".join(lines).rstrip() + "\n"


def dot(graph: Graph) -> str:
    """Write the graph in Graphviz' language."""
    lines = [f"digraph {_quoted(graph.pipeline)} {{", "  rankdir=LR;", "  node [shape=box];"]
    lines += [f"  {_quoted(node.name)} [label={_quoted(node.name, _runs_as(node))}];" for node in graph]
    for node in graph:
        for edge in node.inputs:
            ends = f"{_quoted(edge.node)} -> {_quoted(node.name)}"
            lines.append(f"  {ends} [label={_quoted(_carries(graph, edge))}];")
        for edge in node.sides:
            ends = f"{_quoted(edge.node)} -> {_quoted(node.name)}"
            lines.append(f"  {ends} [label={_quoted(_carries(graph, edge))}, style=dashed];")
    return "\n".join([*lines, "}"]) + "\n"


def mermaid(graph: Graph) -> str:
    """Write the graph as a Mermaid flowchart."""
    ids = {name: f"n{number}" for number, name in enumerate(graph.order)}  # some names are words of Mermaid
    lines = ["flowchart LR"]
    lines += [f'  {ids[node.name]}["{node.name}<br/>{_entities(_runs_as(node))}"]' for node in graph]
    for node in graph:
        for edge in node.inputs:
            lines.append(f'  {ids[edge.node]} -->|"{_entities(_carries(graph, edge))}"| {ids[node.name]}')
        for edge in node.sides:
            lines.append(f'  {ids[edge.node]} -.->|"{_entities(_carries(graph, edge))}"| {ids[node.name]}')
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class _Branch:
    """What hangs below a node."""

    label: str
    consumer: str
    edges: int
    """How many of the consumer's inputs come this way; 0 for its side inputs."""


class _Pen:
    """Draws every node once."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._undrawn = Counter({node.name: len(node.inputs) for node in graph})
        self._name_width = max(len(node.name) for node in graph)
        self._stage_width = max(len(node.stage) for node in graph)
        self._sides: defaultdict[str, list[tuple[Edge, str]]] = defaultdict(list)
        for node in graph:
            for edge in node.sides:
                self._sides[edge.node].append((edge, node.name))

    def draw(self, node: Node, margin: str, head: str) -> Iterator[str]:
        """Yield the node's line behind `head`, and behind `margin` all that hangs below it."""
        yield head + self._line(node)
        branches = self._branches(node)
        while len(branches) == 1 and self._completes(branches[0]):
            follower = self._graph[branches[0].consumer]
            yield f"{margin}│ {branches[0].label}".rstrip()
            yield margin + self._line(follower)
            branches = self._branches(follower)
        for number, branch in enumerate(branches, start=1):
            corner, inner = ("└", "   ") if number == len(branches) else ("├", "│  ")
            yield from self._hang(branch, margin + corner, margin + inner)

    def _hang(self, branch: _Branch, corner: str, margin: str) -> Iterator[str]:
        """Draw the consumer, or only name it while other inputs of it are to come."""
        if not branch.edges:
            yield f"{corner}╌ {branch.label}{branch.consumer} (side input)"
        elif self._completes(branch):
            yield from self.draw(self._graph[branch.consumer], margin, f"{corner}─ {branch.label}")
        else:
            self._undrawn[branch.consumer] -= branch.edges
            yield f"{corner}─ {branch.label}{branch.consumer} (below)"

    def _completes(self, branch: _Branch) -> bool:
        """Whether this is the last of the consumer's inputs to be drawn."""
        return branch.edges == self._undrawn[branch.consumer] > 0

    def _branches(self, node: Node) -> list[_Branch]:
        branches = [_Branch(f"{_way(edge)}: ", consumer, 0) for edge, consumer in self._sides[node.name]]
        for name, edges in Counter(edge.node for edge in node.consumers).items():
            ways = [way for edge in node.consumers if edge.node == name and (way := _way(edge))]
            branches.append(_Branch(f"{listed(ways)}: " if ways else "", name, edges))
        return branches

    def _line(self, node: Node) -> str:
        name, stage = node.name.ljust(self._name_width), node.stage.ljust(self._stage_width)
        sides = "".join(f", {edge.name} from {_output(edge)}" for edge in node.sides)
        return f"{name}  {stage}  {node.signature}  ({_placement(node)}{sides})"


def _placement(node: Node) -> str:
    """`2 replicas`, or `1 to 8 replicas x 1 CPU, 0.5 GPU` where something is set aside for each."""
    amounts = (("CPU", node.resources.cpus), ("GPU", node.resources.gpus))
    each = ", ".join(f"{amount:g} {name}" for name, amount in amounts if amount)
    return count((node.replicas, node.max_replicas), "replica") + (f" x {each}" if each else "")


def _runs_as(node: Node) -> str:
    return f"{node.stage}, {_placement(node)}"


def _carries(graph: Graph, edge: Edge) -> str:
    kind, way = type_names(graph[edge.node].ports.emits[edge.port]), _way(edge)
    return f"{way}: {kind}" if way else kind


def _way(edge: Edge) -> str:
    """The names of an edge: `odd`, `as original`, `odd as original`, or nothing."""
    port = "" if edge.port == UNNAMED_PORT else edge.port
    return f"{port} as {edge.name}".strip() if edge.name else port


def _output(edge: Edge) -> str:
    return edge.node if edge.port == UNNAMED_PORT else f"{edge.node}.{edge.port}"


def _quoted(*lines: str) -> str:
    """Write a Graphviz string of one or more lines."""
    return '"' + "\\n".join(line.replace('"', '\\"') for line in lines) + '"'


def _entities(label: str) -> str:
    """Escape text for a quoted Mermaid label."""
    return label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
