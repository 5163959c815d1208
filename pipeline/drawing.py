"""A graph for people: as text for the terminal, for Graphviz (`dot -Tsvg`) and for Mermaid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from framefold.pipeline.findings import listed
from framefold.pipeline.graph import Edge, Graph, Node, count
from framefold.pipeline.wiring import UNNAMED_PORT, type_names


def text(graph: Graph) -> str:
    """Draw chains downwards, forks to the right; a node with several inputs stands under the last one."""
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
    return "\n".join([*lines, "}"]) + "\n"


def mermaid(graph: Graph) -> str:
    """Write the graph as a Mermaid flowchart."""
    ids = {name: f"n{number}" for number, name in enumerate(graph.order)}  # some names are words of Mermaid
    lines = ["flowchart LR"]
    lines += [f'  {ids[node.name]}["{node.name}<br/>{_entities(_runs_as(node))}"]' for node in graph]
    for node in graph:
        for edge in node.inputs:
            lines.append(f'  {ids[edge.node]} -->|"{_entities(_carries(graph, edge))}"| {ids[node.name]}')
    return "\n".join(lines) + "\n"


class _Pen:
    """Draws every node once."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._undrawn = Counter({node.name: len(node.inputs) for node in graph})
        self._name_width = max(len(node.name) for node in graph)
        self._stage_width = max(len(node.stage) for node in graph)

    def draw(self, node: Node, margin: str, head: str) -> Iterator[str]:
        """Yield the node's line behind `head`, and behind `margin` all that hangs below it."""
        yield head + self._line(node)
        branches = list(self._branches(node))
        while len(branches) == 1 and isinstance(follower := branches[0][1], Node):
            yield f"{margin}│ {branches[0][0]}".rstrip()
            yield margin + self._line(follower)
            branches = list(self._branches(follower))
        for number, (label, branch) in enumerate(branches, start=1):
            twig, inner = ("└─ ", "   ") if number == len(branches) else ("├─ ", "│  ")
            if isinstance(branch, Node):
                yield from self.draw(branch, margin + inner, f"{margin}{twig}{label}")
            else:
                yield f"{margin}{twig}{label}{branch} (below)"

    def _branches(self, node: Node) -> Iterator[tuple[str, Node | str]]:
        """Yield each branch's label and its consumer: only the name while other inputs of it are to come."""
        for name, edges in Counter(edge.node for edge in node.consumers).items():
            self._undrawn[name] -= edges
            ports = [edge.port for edge in node.consumers if edge.node == name and edge.port != UNNAMED_PORT]
            label = f"{listed(ports)}: " if ports else ""
            yield label, name if self._undrawn[name] else self._graph[name]

    def _line(self, node: Node) -> str:
        name, stage = node.name.ljust(self._name_width), node.stage.ljust(self._stage_width)
        return f"{name}  {stage}  {node.signature}  ({_placement(node)})"


def _placement(node: Node) -> str:
    """`2 replicas`, or `2 replicas x 1 CPU, 0.5 GPU` where something is set aside for each."""
    amounts = (("CPU", node.resources.cpus), ("GPU", node.resources.gpus))
    each = ", ".join(f"{amount:g} {name}" for name, amount in amounts if amount)
    return count(node.replicas, "replica") + (f" x {each}" if each else "")


def _runs_as(node: Node) -> str:
    return f"{node.stage}, {_placement(node)}"


def _carries(graph: Graph, edge: Edge) -> str:
    kind = type_names(graph[edge.node].ports.emits[edge.port])
    return kind if edge.port == UNNAMED_PORT else f"{edge.port}: {kind}"


def _quoted(*lines: str) -> str:
    """Write a Graphviz string of one or more lines."""
    return '"' + "\\n".join(line.replace('"', '\\"') for line in lines) + '"'


def _entities(label: str) -> str:
    """Escape text for a quoted Mermaid label."""
    return label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
