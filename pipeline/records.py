"""What is written down of a run's work, and what earlier runs wrote: the ledger as the scheduler asks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from framefold.pipeline.calls import Call
from framefold.pipeline.events import Produced, Subject
from framefold.pipeline.graph import Node
from framefold.pipeline.home import Home
from framefold.pipeline.item import unit_key
from framefold.pipeline.ledger import Saying
from framefold.pipeline.shape import Kind
from framefold.pipeline.tickets import Ticket


def work_key(node: Node, ticket: Ticket, sides: Mapping[str, Ticket]) -> str:
    """Names the work of a node on an item: all that it depends on, and nothing else.

    The item's key tells of everything before; the node's lineage would tell of ways that the item never came.
    """
    return unit_key(with_sides(node.digest, sides), f"work {ticket.key}")


def with_sides(digest: str, sides: Mapping[str, Ticket]) -> str:
    """What a node is, and what it was given before its first item."""
    text = "\n".join(f"{name} {side.key}" for name, side in sorted(sides.items()))
    return unit_key(digest, text) if text else digest


class Records:
    """Of one run; without a folder nothing is written and nothing was done."""

    def __init__(self, home: Home | None) -> None:
        self._home = home
        self._checkpoints = home.state.checkpointed() if home else set[str]()
        """Work keys of half-done work that is on disk."""

    def is_done(self, node: Node, key: str) -> bool:
        """Whether an item need not be given to the node again."""
        lasts = keeps(node, "process") or _commits(node)
        return lasts and self._home is not None and key in self._home.ledger

    def kept(self, node: Node, kind: Kind, keys: Sequence[str]) -> tuple[Produced, ...] | None:
        """The outputs of a call, if they are on disk."""
        if self._home is None or not keeps(node, kind) or len(keys) > 1:
            return None
        done = self._home.ledger.done(keys[0])
        return done.outputs if done else None

    def said(self, key: str) -> tuple[Saying, ...]:
        """What work said when it was done: it belongs to this run's report as well."""
        done = self._home.ledger.done(key) if self._home else None
        return done.said if done else ()

    def checkpointed(self, call: Call) -> None:
        """Half-done work has come to be on disk."""
        self._checkpoints.add(call.task.work_key)

    def commit(self, node: Node, call: Call) -> None:
        """Each item is done, with all its outputs; only then does its checkpoint go."""
        if self._home is None or call.work.kind not in ("process", "finish"):
            return
        gave_nothing = call.work.kind == "finish" and not call.outputs
        if not gave_nothing and (keeps(node, call.work.kind) or (_commits(node) and call.work.kind == "process")):
            for index, subject in enumerate(call.task.subjects):
                self._home.ledger.add(*_line(node, call, index, subject))
        if call.task.work_key in self._checkpoints:
            self._checkpoints.discard(call.task.work_key)
            self._home.state.checkpoint(node.name, call.task.work_key).unlink(missing_ok=True)

    def forget(self, key: str) -> None:
        """What was kept is damaged."""
        if self._home is not None:
            self._home.ledger.forget(key)


def keeps(node: Node, kind: Kind) -> bool:
    """Whether what such a call gives is kept. Of a stateful node only its end is: it has to see every item again."""
    return node.durable and (kind == "finish" or (kind == "process" and not node.stage_class.stateful))


def _commits(node: Node) -> bool:
    return node.is_sink and node.stage_class.commits == "item"


def _line(
    node: Node, call: Call, index: int, subject: Subject
) -> tuple[str, str, str, Sequence[Produced], Sequence[Saying]]:
    outputs = [replace(output, index=0) for output in call.outputs if output.index == index]
    return subject.work_key, node.name, subject.label, outputs, call.said if index == 0 else ()
