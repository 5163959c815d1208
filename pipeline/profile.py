"""What held a run up, and what to change: the node whose replicas were never free, told in words.

Busy is a replica from the beginning of a call to its end. In one process (`--local`) calls take turns, so that while
one works the others are busy too; of several busy nodes the one that worked the longest is therefore to blame.
"""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from framefold.pipeline.graph import Graph, Node
from framefold.pipeline.outcome import Outcome
from framefold.pipeline.timesheet import State

BUSY = 0.7
"""Share of its replicas' time from which on a node counts as the bottleneck."""
HELD = 0.3
"""Share of the time in which a node's output found no room, from which on it counts as held up."""


@dataclass(frozen=True)
class Share:
    """How one node spent its time, as parts of 1."""

    name: str
    replicas: int
    busy: float
    blocked: float
    idle: float
    items: int
    worked_seconds: float
    """Inside the stage, over all replicas and calls that have ended."""

    @property
    def seconds_per_item(self) -> float:
        """Working time; 0 before anything is done."""
        return self.worked_seconds / self.items if self.items else 0.0


def shares(outcome: Outcome) -> list[Share]:
    """Every node, in order."""
    found = []
    for name, node in outcome.nodes.items():
        times: list[State] = ["busy", "blocked", "idle"]
        busy, blocked, idle = (node.timesheet.share(state, outcome.at) for state in times)
        items = node.done or node.given
        found.append(Share(name, node.timesheet.most_replicas, busy, blocked, idle, items, node.seconds))
    return found


def advice(outcome: Outcome, graph: Graph) -> str:
    """The bottleneck and the change that would help."""
    found = shares(outcome)
    busy = [share for share in found if share.busy >= BUSY]
    slowest = max(busy, key=lambda share: (share.worked_seconds / share.replicas, share.busy), default=None)
    if outcome.spilled_bytes:
        mib = outcome.spilled_bytes / 2**20
        return f"{mib:.0f} MiB were moved to disk: give Ray a larger object store, or make clips or batches smaller"
    if slowest is None:
        return "no node was busy all the time: the run is short, or waits for its source or for workers to start"
    node = graph[slowest.name]
    upstream = _upstream(graph, node)
    held = [share.name for share in found if share.blocked > HELD and share.name in upstream]
    waits = f"; {' and '.join(held)} waited for it" if held else ""
    return f"{slowest.name} was busy {slowest.busy:.0%} of the time{waits}: {_remedy(node, slowest)}"


def _upstream(graph: Graph, node: Node) -> set[str]:
    """Names of all that a node's input comes from."""
    found = {edge.node for edge in (*node.inputs, *node.sides)}
    return found.union(*(_upstream(graph, graph[name]) for name in found))


def _remedy(node: Node, share: Share) -> str:
    if node.is_source:
        return "it is a source, which has one replica: divide its path over several nodes"
    if node.stage_class.stateful:
        return "it takes items in order, so it has one replica: give it less to do, or divide its work over nodes"
    return f"give it more replicas (replicas: {2 * share.replicas}) or more cores, or less to do"


def print_profile(console: Console, outcome: Outcome, graph: Graph) -> None:
    """The table and the advice."""
    table = Table(title="profile", title_justify="left")
    table.add_column("stage")
    for heading in ("replicas", "busy", "blocked", "idle", "items", "s per item"):
        table.add_column(heading, justify="right")
    for share in shares(outcome):
        times = (f"{share.busy:.0%}", f"{share.blocked:.0%}", f"{share.idle:.0%}")
        table.add_row(share.name, str(share.replicas), *times, f"{share.items:,}", f"{share.seconds_per_item:.4g}")
    console.print(table)
    peak = f"at most {outcome.peak_bytes / 2**20:.0f} MiB of payloads under way"
    console.print(f"{peak}, {outcome.spilled_bytes / 2**20:.0f} MiB moved to disk")
    console.print(f"bottleneck: {advice(outcome, graph)}", soft_wrap=True)
