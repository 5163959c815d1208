"""Who works on what next: credits, order and choice of replica, as pure functions of plain numbers.

Nothing here knows Ray, time or payloads, so every rule is tested by simulation. The rules:

* An output is admitted downstream only while each consumer has room (items and bytes); until then it is held
  at its producer, whose replica waits. So a slow sink reaches the source.
* A stateful node takes items in source order. Its queue never refuses, for the item it waits for may be
  behind; instead each source may be at most `window` items ahead of the oldest one still under way.
* Every other node takes the oldest item it has. It can always go on, by induction from the sinks up, so
  nothing deadlocks.
* An item that failed comes back with one more attempt; outputs that its earlier attempt already handed on
  are counted and not handed on twice.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from framefold.pipeline.item import Seq

Replica = tuple[str, int]
"""Node name and replica number."""

LAST = 2**62
"""First element of the sequence of anything handed out by `finish`."""


@dataclass(frozen=True)
class NodeShape:
    """What the rules need to know of a node."""

    name: str
    replicas: int = 1
    ordered: bool = False
    inputs: tuple[tuple[str, str], ...] = ()
    """(upstream node, port) pairs; empty for a source."""
    retries: int = 0
    queue_items: int | None = None
    """Waiting items before the node refuses; by default two per replica."""
    queue_bytes: int = 2**29

    @property
    def capacity(self) -> int:
        """Waiting items before the node refuses."""
        return self.queue_items or 2 * self.replicas


@dataclass(frozen=True)
class Entry:
    """An item as the rules see it."""

    seq: Seq
    ticket: Any = None
    """The engine's handle; never looked into."""
    nbytes: int = 0
    attempt: int = 0
    emitted: int = 0
    """Outputs that an earlier attempt already handed on."""


@dataclass(frozen=True)
class Work:
    """A call to make: `produce` and `finish` carry an entry that stands for the whole node."""

    replica: Replica
    kind: Literal["produce", "process", "finish"]
    entry: Entry


@dataclass
class _Call:
    work: Work
    emitted: int = 0

    @property
    def next_seq(self) -> Seq:
        return (*self.work.entry.seq, self.emitted)


@dataclass
class _Node:
    shape: NodeShape
    number: int
    consumers: dict[str, list[str]] = field(default_factory=dict)
    ancestors: list[str] = field(default_factory=list)
    waiting: list[Entry] = field(default_factory=list)
    idle: list[int] = field(default_factory=list)
    calls: dict[int, _Call] = field(default_factory=dict)
    to_finish: set[int] = field(default_factory=set)
    """Replicas whose last call (produce or finish) is still to be made."""
    again: dict[int, Entry] = field(default_factory=dict)
    """Last calls that failed and are tried again."""
    closed: bool = False

    @property
    def is_source(self) -> bool:
        return not self.shape.inputs


class Flow:
    """The state of a run; `shapes` in topological order."""

    def __init__(self, shapes: Sequence[NodeShape], *, window: int | None = None) -> None:
        self._nodes = {shape.name: _Node(shape, number) for number, shape in enumerate(shapes)}
        self._live: Counter[Seq] = Counter()
        self.window = window or 4 + 2 * sum(shape.replicas for shape in shapes)
        for node in self._nodes.values():
            self._link(node)

    def _link(self, node: _Node) -> None:
        replicas = range(node.shape.replicas)
        node.to_finish = {0} if node.is_source else set(replicas)
        upstream = dict.fromkeys(name for name, _ in node.shape.inputs)
        node.ancestors = list(dict.fromkeys(a for name in upstream for a in (name, *self._nodes[name].ancestors)))
        for name, port in node.shape.inputs:
            self._nodes[name].consumers.setdefault(port, []).append(node.shape.name)

    # What the engine asks.

    @property
    def complete(self) -> bool:
        """Every node is closed."""
        return all(node.closed for node in self._nodes.values())

    def room(self, replica: Replica, port: str) -> bool:
        """Whether the next output of this call may be admitted now."""
        node = self._nodes[replica[0]]
        call = node.calls[replica[1]]
        if call.emitted < call.work.entry.emitted:
            return True  # handed on by an earlier attempt: it will be dropped
        if node.is_source and self._ahead(node) >= self.window:
            return False
        return all(self._has_room(self._nodes[name]) for name in node.consumers.get(port, ()))

    def assignments(self) -> Iterator[Work]:
        """Every call that can start now; each is marked as running when it is handed out."""
        for node in self._nodes.values():
            while node.idle and (work := self._next_work(node)):
                node.idle.remove(work.replica[1])
                node.calls[work.replica[1]] = _Call(work)
                yield work
            self._close_if_done(node)

    def depth(self, name: str) -> int:
        """Items waiting at a node."""
        return len(self._nodes[name].waiting)

    # What the engine tells.

    def ready(self, replica: Replica) -> None:
        """A replica has answered and can be given work."""
        bisect.insort(self._nodes[replica[0]].idle, replica[1])

    def output(self, replica: Replica, port: str, ticket: Any, nbytes: int) -> tuple[Seq, bool]:
        """Admit one output; returns its place in source order, and False if it was handed on before."""
        node = self._nodes[replica[0]]
        call = node.calls[replica[1]]
        seq, repeated = call.next_seq, call.emitted < call.work.entry.emitted
        call.emitted += 1
        if not repeated:
            for name in node.consumers.get(port, ()):
                self._enqueue(self._nodes[name], Entry(seq, ticket, nbytes))
        return seq, not repeated

    def next_seq(self, replica: Replica) -> Seq:
        """The place in source order of this call's next output."""
        return self._nodes[replica[0]].calls[replica[1]].next_seq

    def done(self, replica: Replica) -> None:
        """The call ended well; the replica is free again."""
        self._retire(replica)
        self.ready(replica)

    def failed(self, replica: Replica, *, retry: bool = True, alive: bool = True) -> Entry | None:
        """The call failed: the entry to be set aside, or None if it was queued for another attempt."""
        node = self._nodes[replica[0]]
        call = node.calls[replica[1]]
        if alive:
            self.ready(replica)
        if not retry or call.work.entry.attempt >= node.shape.retries:
            self._retire(replica)
            return call.work.entry
        self._requeue(node, call, replica[1])
        return None

    # The rules.

    def _ahead(self, source: _Node) -> int:
        return sum(1 for root in self._live if root[0] == source.number)

    def _has_room(self, node: _Node) -> bool:
        if node.shape.ordered:
            return True
        used = sum(entry.nbytes for entry in node.waiting)
        return len(node.waiting) < node.shape.capacity and (not node.waiting or used < node.shape.queue_bytes)

    def _next_work(self, node: _Node) -> Work | None:
        name, number = node.shape.name, node.idle[0]
        if node.waiting and (not node.shape.ordered or node.waiting[0].seq < self._frontier(node)):
            return Work((name, number), "process", node.waiting.pop(0))
        last = next((i for i in node.idle if i in node.to_finish), None)
        if last is None or not self._drained(node):
            return None
        node.to_finish.remove(last)
        seq: Seq = (node.number,) if node.is_source else (LAST, node.number, last)
        return Work((name, last), "produce" if node.is_source else "finish", node.again.pop(last, Entry(seq)))

    def _drained(self, node: _Node) -> bool:
        """Nothing more will reach the node, and nothing it took is unfinished."""
        busy = any(call.work.kind == "process" for call in node.calls.values())
        return not node.waiting and not busy and all(self._nodes[name].closed for name, _ in node.shape.inputs)

    def _frontier(self, node: _Node) -> Seq:
        """No item before this place in source order can still come from upstream."""
        open_ancestors = [self._nodes[name] for name in node.ancestors if not self._nodes[name].closed]
        return min((place for ancestor in open_ancestors for place in self._pending(ancestor)), default=(LAST + 1,))

    def _pending(self, node: _Node) -> Iterator[Seq]:
        yield (node.number,) if node.is_source and not node.calls else (LAST, node.number)
        yield from (entry.seq for entry in node.waiting[:1])
        yield from (call.next_seq for call in node.calls.values())

    def _close_if_done(self, node: _Node) -> None:
        node.closed = node.closed or (not node.to_finish and not node.calls and self._drained(node))

    def _enqueue(self, node: _Node, entry: Entry) -> None:
        self._live[entry.seq[:2]] += 1
        bisect.insort(node.waiting, entry, key=lambda waiting: waiting.seq)

    def _retire(self, replica: Replica) -> None:
        call = self._nodes[replica[0]].calls.pop(replica[1])
        if call.work.kind == "process":
            self._forget(call.work.entry)

    def _forget(self, entry: Entry) -> None:
        root = entry.seq[:2]
        self._live[root] -= 1
        if not self._live[root]:
            del self._live[root]

    def _requeue(self, node: _Node, call: _Call, number: int) -> None:
        del node.calls[number]
        entry = call.work.entry
        again = replace(entry, attempt=entry.attempt + 1, emitted=max(entry.emitted, call.emitted))
        if call.work.kind == "process":
            bisect.insort(node.waiting, again, key=lambda waiting: waiting.seq)
        else:
            node.to_finish.add(number)
            node.again[number] = again
