"""Who works on what next: credits, order, joins, batches and retries, as pure functions of plain numbers.

Nothing here knows Ray, clocks or payloads (the time is handed in), so every rule is tested by simulation:

* An output is admitted downstream only while each consumer has room (items and bytes), and while all that is
  under way fits the byte budget of the run; until then it is held at its producer, whose replica waits. So a
  slow sink reaches the source. The budget gives way only where nothing downstream is at work that could free it.
* A stateful node takes items in source order. Its queue never refuses, for the item it waits for may be
  behind; instead each source may be at most `window` items ahead of the oldest one still under way.
* Every other node takes the oldest item it has. It can always go on, by induction from the sinks up, so
  nothing deadlocks.
* A join takes a group when nothing of the group is under way between fork and join (`join_buffer`).
* A node with side inputs takes nothing before each replica has received each side input.
* An item that failed comes back with one more attempt; outputs that its earlier attempt already handed on
  are counted and not handed on twice. Items that failed together as a batch come back one by one, uncharged.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from framefold.pipeline.item import Seq
from framefold.pipeline.join_buffer import JoinBuffer
from framefold.pipeline.shape import LAST, Entry, Feed, Kind, Load, NodeShape, Parcel, Replica, Unjoined, Work


@dataclass
class _Call:
    work: Work
    emitted: list[int]
    """Outputs so far, for each entry."""

    def next_seqs(self) -> Iterator[Seq]:
        return ((*entry.seq, count) for entry, count in zip(self.work.entries, self.emitted, strict=True))


@dataclass
class _Node:
    shape: NodeShape
    number: int
    consumers: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """Port to (node, name of its join input)."""
    side_consumers: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    ancestors: list[str] = field(default_factory=list)
    descendants: list[str] = field(default_factory=list)
    joins: list[str] = field(default_factory=list)
    """Joins whose groups are under way while they are here."""
    buffer: JoinBuffer | None = None
    waiting: list[Entry] = field(default_factory=list)
    replicas: set[int] = field(default_factory=set)
    idle: list[int] = field(default_factory=list)
    calls: dict[int, _Call] = field(default_factory=dict)
    to_finish: set[int] = field(default_factory=set)
    """Replicas whose last call (produce or finish) is still to be made."""
    finished: bool = False
    """At least one replica made its last call."""
    leaving: set[int] = field(default_factory=set)
    again: dict[tuple[int, str], Entry] = field(default_factory=dict)
    """Calls that failed and are tried again by that replica: for a side input, or the last one (no name)."""
    last_calls: Counter[int] = field(default_factory=Counter)
    """How many each replica number has begun: a replica that is let go leaves its number to another."""
    last_length: int = 2
    side_values: dict[str, Entry] = field(default_factory=dict)
    to_receive: dict[int, list[str]] = field(default_factory=dict)
    closed: bool = False

    @property
    def is_source(self) -> bool:
        return not self.shape.inputs

    @property
    def capacity(self) -> int:
        return self.shape.queue_items or 2 * max(len(self.replicas), 1) * self.shape.batch_items

    def last_seq(self, replica: int) -> Seq:
        """The place of a replica's last call, behind all items, and as deep as theirs: joins count on that."""
        padding = (0,) * (self.last_length - 2)
        return (LAST, self.number << 40 | self.last_calls[replica] << 20 | replica, *padding)


class Flow:
    """The state of a run; `shapes` in topological order."""

    def __init__(
        self, shapes: Sequence[NodeShape], *, window: int | None = None, budget_bytes: int | None = None
    ) -> None:
        self._nodes = {shape.name: _Node(shape, number) for number, shape in enumerate(shapes)}
        self._live: Counter[Seq] = Counter()
        self._roots: Counter[int] = Counter()
        self._window, self._budget = window, budget_bytes
        self.bytes_under_way = 0
        self._unjoined: list[Unjoined] = []
        for node in self._nodes.values():
            self._link(node)
        for node in self._nodes.values():
            self._mark_region(node)

    def _link(self, node: _Node) -> None:
        shape = node.shape
        node.replicas = set(shape.numbers or range(shape.replicas))
        node.last_length = max(2, (shape.depth or 3) - 1)
        upstream = dict.fromkeys(feed.node for feed in shape.inputs)
        node.ancestors = list(dict.fromkeys(a for name in upstream for a in (name, *self._nodes[name].ancestors)))
        for name in node.ancestors:
            self._nodes[name].descendants.append(shape.name)
        for feed in shape.inputs:
            self._nodes[feed.node].consumers.setdefault(feed.port, []).append((shape.name, feed.name))
        for feed in shape.sides:
            self._nodes[feed.node].side_consumers.setdefault(feed.port, []).append((shape.name, feed.name))
        if shape.join_length is not None:
            node.buffer = JoinBuffer(shape.name, [feed.name for feed in shape.inputs], shape.join_length)

    def _mark_region(self, join: _Node) -> None:
        """Nodes between a join and its fork hold items of its groups."""
        if join.shape.join_length is None:
            return
        for node in (self._nodes[name] for name in join.ancestors):
            if join.shape.join_fork in (node.shape.name, *node.ancestors):
                node.joins.append(join.shape.name)
                if node.shape.depth is None:  # deep enough to tell its last calls apart
                    node.last_length = max(node.last_length, join.shape.join_length)

    # What the engine asks.

    @property
    def window(self) -> int:
        """Items that a source may be ahead of the oldest one under way."""
        return self._window or 4 + 2 * sum(len(node.replicas) * node.shape.batch_items for node in self._nodes.values())

    @property
    def complete(self) -> bool:
        """Every node is closed."""
        return all(node.closed for node in self._nodes.values())

    def closed(self, name: str) -> bool:
        """Nothing will come from this node any more."""
        return self._nodes[name].closed

    def room(self, replica: Replica, port: str, nbytes: int = 0, index: int = 0) -> bool:
        """Whether the next output of this call, for its entry `index`, may be admitted now."""
        node = self._nodes[replica[0]]
        call = node.calls[replica[1]]
        if call.emitted[index] < call.work.entries[index].emitted:
            return True  # handed on by an earlier attempt: it will be dropped
        if node.is_source and self._roots[node.number] >= self.window:
            return False
        consumers = node.consumers.get(port, ())
        return self._affordable(node, nbytes) and all(self._has_room(self._nodes[name]) for name, _ in consumers)

    def assignments(self, now: float = 0.0) -> Iterator[Work]:
        """Every call that can start now; each is marked as running when it is handed out."""
        for node in self._nodes.values():
            while not node.closed and node.idle and (work := self._next_work(node, now)):
                node.idle.remove(work.replica[1])
                node.calls[work.replica[1]] = _Call(work, [0] * len(work.entries))
                yield work
            self._close_if_done(node)

    def barren_sides(self) -> list[tuple[str, Feed]]:
        """Nodes whose items wait for a side input that will not come any more."""
        return [
            (node.shape.name, feed)
            for node in self._nodes.values()
            for feed in node.shape.sides
            if node.waiting and feed.name not in node.side_values and self._nodes[feed.node].closed
        ]

    def unjoined(self) -> list[Unjoined]:
        """Groups that have come to their end incomplete since this was last asked."""
        found, self._unjoined = self._unjoined, []
        return found

    def load(self, name: str) -> Load:
        """How busy a node is."""
        node = self._nodes[name]
        started = len(node.idle) + len(node.calls)
        return Load(
            waiting=len(node.waiting),
            busy=len(node.calls),
            idle=len(node.idle),
            starting=len(node.replicas) - started,
        )

    def depth(self, name: str) -> int:
        """Items waiting at a node, those that wait for partners too."""
        node = self._nodes[name]
        return len(node.waiting) + (len(node.buffer) if node.buffer else 0)

    # What the engine tells.

    def ready(self, replica: Replica) -> None:
        """A replica has answered and can be given work."""
        node = self._nodes[replica[0]]
        bisect.insort(node.idle, replica[1])
        node.to_receive[replica[1]] = [feed.name for feed in node.shape.sides]
        if self._owes_last_call(node, replica[1]):
            node.to_finish.add(replica[1])

    def add_replica(self, name: str) -> Replica:
        """One more replica is being started."""
        node = self._nodes[name]
        number = next(n for n in range(len(node.replicas) + 1) if n not in node.replicas)
        node.replicas.add(number)
        return name, number

    def retire_replica(self, name: str) -> Replica | None:
        """Let an idle replica make its last call and go; None if none can be spared."""
        node = self._nodes[name]
        spare = [number for number in node.idle if number not in node.leaving]
        if not spare or len(node.replicas) - len(node.leaving) < 2:
            return None
        node.leaving.add(spare[-1])
        return name, spare[-1]

    def output(
        self, replica: Replica, port: str, ticket: Any, nbytes: int, *, index: int = 0, now: float = 0.0
    ) -> tuple[Seq, bool]:
        """Admit one output; returns its place in source order, and False if it was handed on before."""
        node = self._nodes[replica[0]]
        call = node.calls[replica[1]]
        entry = call.work.entries[index]
        seq, repeated = (*entry.seq, call.emitted[index]), call.emitted[index] < entry.emitted
        call.emitted[index] += 1
        if not repeated:
            via = (*entry.via, node.number)
            self._hand_on(node, port, Entry(seq, ticket, (Parcel(nbytes),), since=now, via=via))
        return seq, not repeated

    def emitted(self, replica: Replica, index: int = 0) -> int:
        """How many outputs this call has made for one of its entries."""
        return self._nodes[replica[0]].calls[replica[1]].emitted[index]

    def done(self, replica: Replica) -> bool:
        """The call ended well; the replica is free again. False if it leaves now."""
        node = self._nodes[replica[0]]
        call = self._retire(replica)
        if call.work.kind in ("finish", "produce"):
            node.finished = True
            if replica[1] in node.leaving:
                node.leaving.discard(replica[1])
                node.replicas.discard(replica[1])
                return False
        bisect.insort(node.idle, replica[1])
        return True

    def failed(
        self, replica: Replica, *, retry: bool = True, alive: bool = True, not_before: float = 0.0
    ) -> Entry | None:
        """The call did not end well: it comes back, or its entry is given up and returned."""
        node = self._nodes[replica[0]]
        call = node.calls[replica[1]]
        if alive:
            bisect.insort(node.idle, replica[1])
        else:
            self.lost(replica)
        if len(call.work.entries) > 1:
            self._requeue_alone(node, call, replica[1])
            return None
        if not retry or call.work.entry.attempt >= node.shape.retries:
            self._retire(replica)
            node.finished = node.finished or call.work.kind in ("finish", "produce")
            if call.work.kind == "finish" and replica[1] in node.leaving:
                self._stay(node, replica[1])
            return call.work.entry
        self._requeue(node, call, replica[1], not_before=not_before)
        return None

    def postpone(self, replica: Replica, *, alive: bool = True) -> None:
        """The call comes back as it was: nobody is to blame."""
        node = self._nodes[replica[0]]
        call = node.calls[replica[1]]
        if alive:
            bisect.insort(node.idle, replica[1])
        else:
            self.lost(replica)
        if call.work.kind == "process":
            del node.calls[replica[1]]
            for entry, emitted in zip(call.work.entries, call.emitted, strict=True):
                again = replace(entry, emitted=max(entry.emitted, emitted))
                bisect.insort(node.waiting, again, key=lambda waiting: waiting.place)
        else:
            self._requeue(node, call, replica[1], charge=0)

    def lost(self, replica: Replica) -> None:
        """The replica is gone; it may be replaced and become ready again."""
        node = self._nodes[replica[0]]
        if replica[1] in node.idle:
            node.idle.remove(replica[1])
        node.leaving.discard(replica[1])  # what it held is gone; its successor is one like the others
        if not node.is_source and (replica[1], "") not in node.again:
            node.to_finish.discard(replica[1])

    # The rules.

    def _affordable(self, node: _Node, nbytes: int) -> bool:
        if self._budget is None or self.bytes_under_way + nbytes <= self._budget:
            return True
        return not any(self._nodes[name].calls for name in node.descendants)

    def _has_room(self, node: _Node) -> bool:
        if node.shape.ordered or node.buffer is not None:
            return True
        used = sum(entry.nbytes for entry in node.waiting)
        return len(node.waiting) < node.capacity and (not node.waiting or used < node.shape.queue_bytes)

    def _next_work(self, node: _Node, now: float) -> Work | None:
        return self._side_work(node, now) or self._process_work(node, now) or self._last_work(node, now)

    def _side_work(self, node: _Node, now: float) -> Work | None:
        for number in node.idle:
            for name in node.to_receive.get(number, ()):
                entry = node.again.get((number, name), node.side_values.get(name))
                if entry is not None and entry.not_before <= now:
                    node.again.pop((number, name), None)
                    node.to_receive[number].remove(name)
                    return Work((node.shape.name, number), "receive", (entry,), side=name)
        return None

    def _process_work(self, node: _Node, now: float) -> Work | None:
        number = next((n for n in node.idle if not node.to_receive.get(n) and n not in node.leaving), None)
        if number is None:
            return None
        entries = self._taken(node, now)
        for entry in entries:
            node.waiting.remove(entry)
        return Work((node.shape.name, number), "process", tuple(entries)) if entries else None

    def _taken(self, node: _Node, now: float) -> list[Entry]:
        """The entries of the next call: the oldest one, or a batch; none if they have to wait."""
        eligible = self._eligible(node, now)
        first = next(eligible, None)
        if first is None:
            return []
        if node.shape.batch_items == 1 or first.alone:
            return [first]
        batch = [first]
        for entry in eligible:
            if entry.alone or len(batch) == node.shape.batch_items:
                break
            batch.append(entry)
        waited = now - min(entry.since for entry in batch) >= node.shape.batch_seconds
        return batch if len(batch) == node.shape.batch_items or waited or self._fed(node) else []

    def _eligible(self, node: _Node, now: float) -> Iterator[Entry]:
        """Entries that could be taken now, the oldest first."""
        if not node.shape.ordered:
            yield from (entry for entry in node.waiting if entry.not_before <= now)
            return
        frontier = self._frontier(node) if node.waiting else ()
        for entry in node.waiting:
            if entry.seq >= frontier or entry.not_before > now:
                return
            yield entry

    def _last_work(self, node: _Node, now: float) -> Work | None:
        drained = self._drained(node)
        for number in node.idle:
            again = node.again.get((number, ""))
            if number in node.to_finish and (drained or number in node.leaving):
                if again is not None and again.not_before > now:
                    continue
                node.to_finish.remove(number)
                node.again.pop((number, ""), None)
                kind: Kind = "produce" if node.is_source else "finish"
                return Work((node.shape.name, number), kind, (again or self._last_entry(node, number),))
        return None

    def _last_entry(self, node: _Node, number: int) -> Entry:
        """Stands for a replica's last call; groups that it gives something to wait for all of it."""
        if node.is_source:
            return Entry((node.number,))
        node.last_calls[number] += 1
        entry = Entry(node.last_seq(number))
        for join in node.joins:
            self._buffer(join).enter(entry.seq)
        return entry

    def _owes_last_call(self, node: _Node, number: int) -> bool:
        """Whether a replica has something to hand out; not one that comes when the others have made theirs."""
        if node.is_source:
            return not node.finished and not node.calls
        return not node.finished or (number, "") in node.again or not self._drained(node)

    def _stay(self, node: _Node, number: int) -> None:
        """A replica that was to leave, but could not hand out what it held, works on."""
        node.leaving.discard(number)
        if self._owes_last_call(node, number):
            node.to_finish.add(number)

    def _fed(self, node: _Node) -> bool:
        """Nothing more will reach the node."""
        return all(self._nodes[feed.node].closed for feed in node.shape.inputs)

    def _drained(self, node: _Node) -> bool:
        """Nothing more will reach the node, and nothing it took is unfinished."""
        if node.is_source:
            return not any(node.to_receive.values())
        busy = any(call.work.kind == "process" for call in node.calls.values())
        return not node.waiting and not busy and not node.buffer and self._fed(node)

    def _frontier(self, node: _Node) -> Seq:
        """No item before this place in source order can still come from upstream."""
        open_ancestors = [self._nodes[name] for name in node.ancestors if not self._nodes[name].closed]
        places = [place for ancestor in open_ancestors for place in self._pending(ancestor)]
        if node.buffer and (group := node.buffer.first()) is not None:
            places.append(group)
        return min(places, default=(LAST + 1,))

    def _pending(self, node: _Node) -> Iterator[Seq]:
        calls = [call for call in node.calls.values() if call.work.kind != "receive"]
        yield (node.number,) if node.is_source and not calls else (LAST, node.number << 40)
        yield from (entry.seq for entry in node.waiting[:1])
        yield from (seq for call in calls for seq in call.next_seqs())
        if node.buffer and (group := node.buffer.first()) is not None:
            yield group

    def _close_if_done(self, node: _Node) -> None:
        over = node.finished and not node.to_finish and not node.calls
        node.closed = node.closed or (over and (node.is_source or self._drained(node)))

    def _hand_on(self, node: _Node, port: str, entry: Entry) -> None:
        touched = []
        for name, join_input in node.consumers.get(port, ()):
            consumer = self._nodes[name]
            self._hold(entry)
            if consumer.buffer is None:
                self._enqueue(consumer, entry)
            else:
                consumer.buffer.arrive(join_input, entry)
                touched.append(consumer)
        for consumer in touched:
            self._settle(consumer, entry.seq)
        for name, side in node.side_consumers.get(port, ()):
            self._give_side(self._nodes[name], side, entry)

    def _give_side(self, node: _Node, side: str, entry: Entry) -> None:
        if side in node.side_values:
            raise SecondSide(node.shape.name, side)
        node.side_values[side] = entry

    def _hold(self, entry: Entry) -> None:
        self._add_live(entry.seq, 1)
        self._hold_parcels(entry.parcels)

    def _hold_parcels(self, parcels: Iterable[Parcel]) -> None:
        for parcel in parcels:
            self.bytes_under_way += 0 if parcel.holders else parcel.nbytes
            parcel.holders += 1

    def _let_go(self, entry: Entry) -> None:
        self._add_live(entry.seq, -1)
        for parcel in entry.parcels:
            parcel.holders -= 1
            self.bytes_under_way -= 0 if parcel.holders else parcel.nbytes

    def _add_live(self, seq: Seq, change: int) -> None:
        root = seq[:2]
        before = self._live[root]
        self._live[root] = before + change
        self._roots[root[0]] += (before == 0) - (before + change == 0)
        if not self._live[root]:
            del self._live[root]

    def _enqueue(self, node: _Node, entry: Entry) -> None:
        bisect.insort(node.waiting, entry, key=lambda waiting: waiting.place)
        for join in node.joins:
            self._buffer(join).enter(entry.seq)

    def _settle(self, join: _Node, seq: Seq) -> None:
        settled = self._buffer(join.shape.name).settle(seq)
        if settled is None:
            return
        for entry in settled.joined:
            self._hold(entry)
            self._enqueue(join, entry)
        for part in settled.parts:  # only now, so that what is held on to never counts as gone
            self._let_go(part)
        if settled.unjoined:
            self._unjoined.append(settled.unjoined)

    def _buffer(self, join: str) -> JoinBuffer:
        buffer = self._nodes[join].buffer
        if buffer is None:
            raise ValueError(f"{join} joins nothing")
        return buffer

    def _retire(self, replica: Replica) -> _Call:
        node = self._nodes[replica[0]]
        call = node.calls.pop(replica[1])
        for entry in call.work.entries:
            if call.work.kind == "process":
                self._let_go(entry)
            if call.work.kind in ("process", "finish"):
                self._leave(node, entry)
        return call

    def _leave(self, node: _Node, entry: Entry) -> None:
        for join in node.joins:
            self._buffer(join).leave(entry.seq)
            self._settle(self._nodes[join], entry.seq)

    def _requeue(self, node: _Node, call: _Call, number: int, *, charge: int = 1, not_before: float = 0.0) -> None:
        del node.calls[number]
        entry = call.work.entry
        emitted = max(entry.emitted, call.emitted[0])
        again = replace(entry, attempt=entry.attempt + charge, emitted=emitted, not_before=not_before)
        if call.work.kind == "process":
            bisect.insort(node.waiting, again, key=lambda waiting: waiting.place)
        elif call.work.kind == "receive":
            node.to_receive.setdefault(number, []).append(call.work.side)
            node.again[number, call.work.side] = again
        else:
            node.to_finish.add(number)
            node.again[number, ""] = again

    def _requeue_alone(self, node: _Node, call: _Call, number: int) -> None:
        del node.calls[number]
        for entry, emitted in zip(call.work.entries, call.emitted, strict=True):
            again = replace(entry, alone=True, emitted=max(entry.emitted, emitted))
            bisect.insort(node.waiting, again, key=lambda waiting: waiting.place)


class SecondSide(Exception):
    """A side input came twice."""

    def __init__(self, node: str, side: str) -> None:
        super().__init__(node, side)
        self.node, self.side = node, side
