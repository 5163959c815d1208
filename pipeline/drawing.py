"""A graph for people: as text for the terminal, for Graphviz (`dot -Tsvg`) and for Mermaid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from framefold.pipeline.findings import listed
from framefold.pipeline.graph import Edge, Graph, Node
from framefold.pipeline.wiring import UNNAMED_PORT, type_names


def text(graph: Graph) -> str:
    """Draw chains downwards and forks to the right; a node with several inputs stands under the last of them."""
    lines = [f"{graph.pipeline}: {graph.describe()}", ""]
    pen = _Pen(graph)
    for node in graph:
        if node.is_source:
            lines += [*pen.draw(node, ""), ""]
    return "\n".join(lines).rstrip() + "\n"


def dot(graph: Graph) -> str:
    """Write the graph in Graphviz' language."""
    lines = [f'digraph "{graph.pipeline}" {{', "  rankdir=LR;", "  node [shape=box];"]
    lines += [f'  {_quoted(node.name)} [label="{node.name}\\n{_escaped(_runs_as(node))}"];' for node in graph]
    for node in graph:
        for edge in node.inputs:
            label = _escaped(_carries(graph, edge))
            lines.append(f'  {_quoted(edge.node)} -> {_quoted(node.name)} [label="{label}"];')
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
        self._waiting = Counter({node.name: len(node.inputs) for node in graph})
        self._widths = max(map(len, graph.order)), max(len(node.stage) for node in graph)

    def draw(self, node: Node, margin: str) -> Iterator[str]:
        """Yield the node's line, and all that hangs below it."""
        stack: list[tuple[Node, str, str]] = [(node, margin, margin)]
        while stack:
            node, margin, head = stack.pop()
            yield head + self._line(node)
            branches = list(self._branches(node))
            if len(branches) == 1 and isinstance(branches[0], Node):
                yield f"{margin}│"
                stack.append((branches[0], margin, margin))
                continue
            for number, branch in enumerate(branches):
                last = number == len(branches) - 1
                stack.append
        return
