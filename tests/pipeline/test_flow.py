"""The rules of flow, run against a simulated cluster: random graphs, durations, failures, deaths and replicas."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framefold.pipeline.flow import Flow, SecondSide
from framefold.pipeline.item import Seq
from framefold.pipeline.shape import LAST, Entry, Feed, NodeShape, Replica, Work

# What is simulated.


@dataclass(frozen=True)
class Plan:
    """A node: its shape, and how its stage behaves."""

    shape: NodeShape
    fans: tuple[int, ...] = (1,)
    """Numbers of outputs that an item may have."""
    ends: tuple[int, ...] = (0,)
    """Numbers of outputs that a last call may have."""
    ports: tuple[str, ...] = ("out",)
    """Outputs go to them in turn."""
    gives_side: bool = False

    @property
    def name(self) -> str:
        return self.shape.name

    @property
    def scales(self) -> bool:
        return bool(self.shape.inputs) and not self.shape.ordered and not self.gives_side


@dataclass(frozen=True)
class Trouble:
    """How likely a call ends in which way, and what befalls idle replicas."""

    bad: float = 0.0
    """Share of the items that can never be done; half of them kill their worker."""
    transient: float = 0.0
    dies: float = 0.0
    postponed: float = 0.0
    lost_idle: int = 0
    """Times that an idle replica is lost."""
    scaling: int = 0
    """Times that a replica is added or retired."""


ROUGH = Trouble(bad=0.08, transient=0.08, dies=0.08, postponed=0.05, lost_idle=4, scaling=8)
SIZES = (0, 1, 10, 1000)
TIMES = (0.0, 0.25, 0.5, 1.0, 8.0)
"""Binary fractions: sums of them are exact."""


Place = tuple[Seq, tuple[int, ...]]
"""In source order, and the nodes it came by."""
Output = tuple[Place, str, str]
"""Its name, and its port."""


@dataclass
class Running:
    """A call of the simulated cluster."""

    work: Work
    outputs: list[tuple[int, str]]
    """Entry index and port of those still to come."""
    end: str
    at: float


@dataclass(frozen=True)
class Queued:
    """An item as it should be waiting."""

    seq: Seq
    nbytes: int
    since: float
    not_before: float = 0.0


@dataclass
class Simulation:
    """A cluster that keeps its own books and compares them with those of `Flow` at every step."""

    plans: Sequence[Plan]
    items: int
    seed: int
    """Of what stages do: the same at every attempt, as for real stages."""
    luck: int
    """Of how long calls take and what goes wrong."""
    trouble: Trouble = field(default_factory=Trouble)
    window: int | None = None
    budget: int | None = None

    def __post_init__(self) -> None:
        self.plan = {plan.name: plan for plan in self.plans}
        self.flow = Flow([plan.shape for plan in self.plans], window=self.window, budget_bytes=self.budget)
        self.rng = random.Random(self.luck)
        self.now = 0.0
        self.running: list[Running] = []
        self.agenda: list[tuple[float, int, str, Replica]] = []
        self.ticks = itertools.count()
        self.replicas = {plan.name: set(range(plan.shape.replicas)) for plan in self.plans}
        self.idle: set[Replica] = set()
        self.leaving: set[Replica] = set()
        self.received: defaultdict[Replica, set[str]] = defaultdict(set)
        self.unflushed: set[Replica] = set()
        """Replicas that did something since their last call."""
        self.flushed: set[Replica] = set()
        self.lives: Counter[Replica] = Counter()
        self.done: dict[str, Counter[str]] = {plan.name: Counter() for plan in self.plans}
        self.order: defaultdict[str, list[Place]] = defaultdict(list)
        self.pairs: set[tuple[str, Seq, str]] = set()
        self.last_calls: defaultdict[str, list[tuple[Place, str]]] = defaultdict(list)
        self.unjoined: list[tuple[str, Seq, tuple[tuple[str, tuple[str, ...]], ...]]] = []
        self.charged: Counter[tuple[str, str]] = Counter()
        self.emitted: Counter[tuple[str, str]] = Counter()
        self.alone: set[tuple[str, str]] = set()
        self.queued: dict[str, dict[str, Queued]] = {plan.name: {} for plan in self.plans}
        self.held: Counter[str] = Counter()
        """Consumers that are not done with an output, by its name."""
        self.size: dict[str, int] = {}
        self.root: dict[str, Seq] = {}
        self.feeds = [(feed, plan.shape) for plan in self.plans for feed in plan.shape.inputs]
        self.below = _descendants(self.plans)

    # What the stages do.

    def ports_of(self, node: str, ticket: str) -> tuple[list[str], str]:
        """The ports of all outputs of a call for one ticket, and its end if nothing goes wrong by chance."""
        plan, rng = self.plan[node], random.Random(f"{self.seed}/{node}/{ticket}")
        fans = (self.items,) if ticket == node else plan.ends if ticket.startswith(f"{node}!") else plan.fans
        ports = [plan.ports[k % len(plan.ports)] for k in range(rng.choice(fans))]
        if plan.gives_side or rng.random() >= self.trouble.bad:
            return ports, "done"
        return ports[: rng.randint(0, len(ports))], rng.choice(["bad", "poison"])

    def bytes_of(self, ticket: str) -> int:
        return random.Random(f"{self.seed}/{ticket}").choice(SIZES)

    def ticket(self, work: Work, entry: Entry) -> str:
        """The name of what is worked on."""
        if work.kind == "process":
            return _named(entry.ticket)
        node, number = work.replica
        last = f"{node}!{number}.{self.lives[work.replica]}"
        return {"produce": node, "finish": last, "receive": f"{node}?{number}{work.side}"}[work.kind]

    # The cluster.

    def run(self) -> Simulation:
        for plan in self.plans:
            for number in range(plan.shape.replicas):
                self._later("ready", (plan.name, number))
        for _ in range(self.trouble.lost_idle):
            self._later("lose", (self.rng.choice(self.plans).name, 0), 20.0)
        for _ in range(self.trouble.scaling if any(plan.scales for plan in self.plans) else 0):
            node = self.rng.choice([plan.name for plan in self.plans if plan.scales])
            self._later(self.rng.choice(["add", "retire"]), (node, 0), 20.0)
        for _ in range(100_000):
            if self._step():
                self._check_end()
                return self
        raise AssertionError(f"no end: {self.running}")

    def _step(self) -> bool:
        for work in self.flow.assignments(self.now):
            self._begin(work)
        self._check_nothing_left_lying()
        if self.flow.complete:
            return True
        if not self._move():
            self._wait()
        return False

    def _later(self, what: str, whom: Replica, within: float = 1.0) -> None:
        at = self.now + self.rng.choice([0.0, 0.0, 0.25, 0.5, 1.0]) * within
        heapq.heappush(self.agenda, (at, next(self.ticks), what, whom))

    def _look_at(self, at: float) -> None:
        heapq.heappush(self.agenda, (at, next(self.ticks), "look", ("", 0)))

    def _move(self) -> bool:
        """One or more calls that are due do their next thing; False if none can."""
        due = [call for call in self.running if call.at <= self.now]
        self.rng.shuffle(due)
        moved = False
        for call in due:
            moved = self._act(call) or moved
            if moved and self.rng.random() < 0.5:
                break
        return moved

    def _wait(self) -> None:
        times = [call.at for call in self.running if call.at > self.now] + [entry[0] for entry in self.agenda[:1]]
        assert times, f"deadlock: nothing can move and nothing is to come; {self.running}"
        self.now = max(self.now, min(times))
        while self.agenda and self.agenda[0][0] <= self.now:
            _, _, what, (node, number) = heapq.heappop(self.agenda)
            if what != "look":
                getattr(self, f"_{what}")(node, number)

    def _ready(self, node: str, number: int) -> None:
        self.idle.add((node, number))
        self.received[node, number] = set()
        self.flow.ready((node, number))

    def _lose(self, node: str, _: int) -> None:
        """An idle replica dies and is started again; a retiring one stays after all."""
        gone = [one for one in sorted(self.idle) if one[0] == node]
        if gone:
            replica = self.rng.choice(gone)
            self.idle.discard(replica)
            self._dead(replica)
            self.flow.lost(replica)
            self._later("ready", replica)

    def _dead(self, replica: Replica) -> None:
        self.leaving.discard(replica)
        self.unflushed.discard(replica)

    def _add(self, node: str, _: int) -> None:
        replica = self.flow.add_replica(node)
        assert replica[0] == node
        assert replica[1] not in self.replicas[node]
        self.replicas[node].add(replica[1])
        self._later("ready", replica)

    def _retire(self, node: str, _: int) -> None:
        staying = {one for one in self.replicas[node] if (node, one) not in self.leaving}
        replica = self.flow.retire_replica(node)
        if replica is None:
            assert len(staying) < 2 or not any((node, one) in self.idle for one in staying)
        else:
            assert replica in self.idle
            assert replica[1] in staying
            assert len(staying) >= 2
            self.leaving.add(replica)

    # Calls.

    def _begin(self, work: Work) -> None:
        node = work.replica[0]
        assert work.replica in self.idle, f"{work.replica} was given work and is not idle"
        assert not self.flow.closed(node)
        self.idle.discard(work.replica)
        tickets = [self.ticket(work, entry) for entry in work.entries]
        if work.kind == "process":
            self._check_items(work, tickets)
        elif work.kind == "receive":
            self._check_side(work)
        elif work.kind == "finish":
            self._check_last(work)
        for entry, ticket in zip(work.entries, tickets, strict=True):
            assert entry.attempt == self.charged[node, ticket]
            assert entry.not_before <= self.now
        outputs, end = self._fate(work, tickets)
        self.running.append(Running(work, outputs, end, self.now + self.rng.choice(TIMES)))

    def _fate(self, work: Work, tickets: list[str]) -> tuple[list[tuple[int, str]], str]:
        node, rng, trouble = work.replica[0], self.rng, self.trouble
        fates = [self.ports_of(node, ticket) for ticket in tickets] if work.kind != "receive" else [([], "done")]
        outputs = [(index, port) for index, (ports, _) in enumerate(fates) for port in ports]
        end = next((end for _, end in fates if end != "done"), "done")
        may_fail = len(tickets) > 1 or work.entry.attempt < self.plan[node].shape.retries
        chance = rng.random()
        for fault, share in [
            ("postponed", trouble.postponed),
            ("transient", trouble.transient),
            ("dies", trouble.dies),
        ]:
            if chance < share and (may_fail or fault == "postponed"):
                return outputs[: rng.randint(0, len(outputs))], fault
            chance -= share
        return outputs, end

    def _act(self, call: Running) -> bool:
        """The next output, or the end; False if the output has to wait."""
        if not call.outputs:
            self.running.remove(call)
            self._end(call)
            return True
        index, port = call.outputs[0]
        replica, entry = call.work.replica, call.work.entries[index]
        parent = self.ticket(call.work, entry)
        number = self.flow.emitted(replica, index)
        ticket = f"{parent}>{replica[0]}.{number}"
        fresh = number >= self.emitted[replica[0], parent]
        if not self.flow.room(replica, port, self.bytes_of(ticket), index):
            assert fresh, "an output that will be dropped had to wait"
            return False
        call.outputs.pop(0)
        call.at = self.now + self.rng.choice(TIMES)
        if fresh:
            self._check_room(replica[0], port, ticket)
        got = self.flow.output(replica, port, ticket, self.bytes_of(ticket), index=index, now=self.now)
        assert got == ((*entry.seq, number), fresh)
        if fresh:
            self.emitted[replica[0], parent] += 1
            self._admitted(replica[0], port, ticket, got[0])
        self._check_books()
        return True

    def _admitted(self, node: str, port: str, ticket: str, seq: Seq) -> None:
        self.size[ticket], self.root[ticket] = self.bytes_of(ticket), seq[:2]
        for feed, shape in self.feeds:
            if (feed.node, feed.port) == (node, port):
                self.held[ticket] += 1
                if shape.join_length is None:
                    self.queued[shape.name][ticket] = Queued(seq, self.size[ticket], self.now)
                if shape.batch_seconds:
                    self._look_at(self.now + shape.batch_seconds)
        roots = {root for name, root in self.root.items() if self.held[name] > 0 and root[0] == seq[0]}
        if not self.plan[node].shape.inputs:
            assert len(roots) <= self.flow.window

    def _end(self, call: Running) -> None:
        work, tickets = call.work, [self.ticket(call.work, entry) for entry in call.work.entries]
        if call.end == "done":
            self._done(work, tickets)
        elif call.end == "postponed":
            self._back(work, tickets)
            alive = self.rng.random() < 0.7
            self._replaced(work, alive=alive)
            self.flow.postpone(work.replica, alive=alive)
        else:
            self._failed(call, tickets)
        self._check_books()

    def _done(self, work: Work, tickets: list[str]) -> None:
        replica = work.replica
        for entry, ticket in zip(work.entries, tickets, strict=True):
            self._settled(work, entry, ticket)
        leaves = work.kind == "finish" and replica in self.leaving
        assert self.flow.done(replica) is not leaves
        if leaves:
            self.leaving.discard(replica)
            self.flushed.discard(replica)
            self.replicas[replica[0]].discard(replica[1])
        else:
            self.idle.add(replica)

    def _settled(self, work: Work, entry: Entry, ticket: str) -> None:
        """Done, or given up: either way for ever."""
        node = work.replica[0]
        self.done[node][ticket] += work.kind == "process"
        if work.kind == "receive":
            self.received[work.replica].add(work.side)
            del self.charged[node, ticket]
        elif work.kind == "process":
            self.unflushed.add(work.replica)
            self.order[node].append(entry.place)
            if self.plan[node].shape.join_length is not None:
                self.pairs.add((node, entry.seq, ticket))
            for part in entry.ticket.values() if isinstance(entry.ticket, dict) else [ticket]:
                self.held[part] -= 1
        else:
            self.last_calls[node].append(((entry.seq, ()), ticket))
            self.unflushed.discard(work.replica)
            self.flushed.add(work.replica)
            self.lives[work.replica] += 1

    def _failed(self, call: Running, tickets: list[str]) -> None:
        work, node = call.work, call.work.replica[0]
        alive, retry = call.end not in ("dies", "poison"), call.end != "bad"
        wait = self.rng.choice(TIMES) if call.end == "transient" else 0.0
        given_up = len(tickets) == 1 and (not retry or work.entry.attempt >= self.plan[node].shape.retries)
        stays = given_up and work.kind == "finish" and work.replica in self.leaving
        if given_up:
            self._settled(work, work.entry, tickets[0])
        elif len(tickets) == 1:
            self.charged[node, tickets[0]] += 1
            self._back(work, tickets, self.now + wait)
        else:
            self.alone |= {(node, ticket) for ticket in tickets}
            self._back(work, tickets)
        self._replaced(work, alive=alive)
        got = self.flow.failed(work.replica, retry=retry, alive=alive, not_before=self.now + wait)
        assert (got is None) is not given_up
        assert not given_up or got is work.entry
        if stays:  # it could not say what it held, so it is not let go
            self.leaving.discard(work.replica)
            self.flushed.discard(work.replica)

    def _replaced(self, work: Work, *, alive: bool) -> None:
        """A worker that died comes back, or never, where another one of the node can do its work."""
        replica, (node, number) = work.replica, work.replica
        if alive:
            self.idle.add(replica)
            return
        self._dead(replica)
        calls = {call.work.replica for call in self.running}
        others = [one for one in self.replicas[node] - {number} if (node, one) in (self.idle | calls) - self.leaving]
        spare = work.kind == "process" and others and not self.trouble.lost_idle and not self.trouble.scaling
        if not spare or self.rng.random() < 0.5:
            self._later("ready", replica)

    def _back(self, work: Work, tickets: list[str], not_before: float = 0.0) -> None:
        """It waits again."""
        self._look_at(max(not_before, self.now))
        shape = self.plan[work.replica[0]].shape
        if work.kind == "process" and shape.join_length is None:
            for entry, ticket in zip(work.entries, tickets, strict=True):
                again = Queued(entry.seq, self.size[ticket], entry.since, not_before)
                self.queued[shape.name][ticket] = again
        if shape.batch_seconds:
            self._look_at(self.now + shape.batch_seconds)

    # What must hold.

    def _check_items(self, work: Work, tickets: list[str]) -> None:
        node, shape = work.replica[0], self.plan[work.replica[0]].shape
        assert work.replica not in self.leaving
        assert self.received[work.replica] == {feed.name for feed in shape.sides}
        assert len(tickets) <= shape.batch_items
        assert len(tickets) == 1 or not any((node, ticket) in self.alone for ticket in tickets)
        assert [entry.seq for entry in work.entries] == sorted(entry.seq for entry in work.entries)
        if shape.join_length is not None:
            return
        if not shape.ordered:
            eligible = [item.seq for item in self.queued[node].values() if item.not_before <= self.now]
            assert work.entry.seq == min(eligible)
        taken = [self.queued[node].pop(ticket) for ticket in tickets]
        if len(tickets) < shape.batch_items and (node, tickets[0]) not in self.alone:
            waited = any(self.now - item.since >= shape.batch_seconds for item in taken)
            assert waited or all(self.flow.closed(feed.node) for feed in shape.inputs)

    def _check_side(self, work: Work) -> None:
        (feed,) = [feed for feed in self.plan[work.replica[0]].shape.sides if feed.name == work.side]
        assert work.side not in self.received[work.replica]
        assert work.entry.ticket.startswith(f"{feed.node}!")
        assert len(work.entries) == 1

    def _check_last(self, work: Work) -> None:
        node, shape = work.replica[0], self.plan[work.replica[0]].shape
        assert work.replica not in self.flushed or work.replica in self.unflushed
        if work.replica not in self.leaving:
            assert all(self.flow.closed(feed.node) for feed in shape.inputs)
            assert not self.queued[node]
            assert not any(call.work.replica[0] == node and call.work.kind == "process" for call in self.running)

    def _check_room(self, node: str, port: str, ticket: str) -> None:
        """Before an output is admitted: there is room for it."""
        busy = {call.work.replica[0] for call in self.running}
        if self.budget is not None and busy & self.below[node]:
            assert self.flow.bytes_under_way + self.bytes_of(ticket) <= self.budget
        for feed, shape in self.feeds:
            if (feed.node, feed.port) == (node, port) and not shape.ordered and shape.join_length is None:
                queue = self.queued[shape.name].values()
                default = 2 * len(self.replicas[shape.name]) * shape.batch_items
                assert len(queue) < (shape.queue_items or default)
                assert not queue or sum(item.nbytes for item in queue) < shape.queue_bytes

    def _check_books(self) -> None:
        for found in self.flow.unjoined():
            left = {name: tuple(_named(entry.ticket) for entry in entries) for name, entries in found.entries.items()}
            self.unjoined.append((found.node, found.seq, tuple(sorted(left.items()))))
            for ticket in itertools.chain(*left.values()):
                self.held[ticket] -= 1
        held = [ticket for ticket, count in self.held.items() if count > 0]
        assert min(self.held.values(), default=0) >= 0
        assert self.flow.bytes_under_way == sum(self.size[ticket] for ticket in held)

    def _check_nothing_left_lying(self) -> None:
        """No replica stands idle beside an item that it could take."""
        for plan in self.plans:
            shape = plan.shape
            load = self.flow.load(plan.name)
            assert load.idle == sum(one[0] == plan.name for one in self.idle)
            assert load.starting == len(self.replicas[plan.name]) - load.idle - load.busy
            if shape.join_length is None:
                assert load.waiting == len(self.queued[plan.name]) == self.flow.depth(plan.name)
            free = [one for one in self.idle - self.leaving if one[0] == plan.name and self._has_sides(one)]
            if free and not shape.ordered and shape.batch_items == 1:
                assert not [item for item in self.queued[plan.name].values() if item.not_before <= self.now]

    def _has_sides(self, replica: Replica) -> bool:
        return len(self.received[replica]) == len(self.plan[replica[0]].shape.sides)

    def _check_end(self) -> None:
        assert not self.running, "the run is over and calls are under way"
        assert not self.unflushed, "a replica that did something made no last call"
        assert all(self.last_calls[plan.name] for plan in self.plans), "a node made no last call"
        assert self.flow.bytes_under_way == 0
        assert not self.flow._live
        assert not +self.flow._roots
        assert list(self.flow.assignments(self.now + 1000)) == []
        for plan in self.plans:
            buffer = self.flow._nodes[plan.name].buffer
            assert buffer is None or (len(buffer) == 0 and not buffer._under_way)
            if plan.shape.ordered:
                assert self.order[plan.name] == sorted(self.order[plan.name])

    # What every node must see.

    def expected(self) -> tuple[dict[str, Counter[str]], Counter[Any]]:
        """Every output of each upstream node, once; and the groups that cannot be whole."""
        outputs: dict[str, list[Output]] = {}
        seen: dict[str, Counter[str]] = {}
        unjoined: Counter[Any] = Counter()
        for plan in self.plans:
            took, left = self._takes(plan.shape, outputs)
            unjoined.update(left)
            seen[plan.name] = Counter(ticket for _, ticket in took)
            calls = [*took, *self.last_calls[plan.name]]
            outputs[plan.name] = [one for place, ticket in calls for one in self._gives(plan.name, place, ticket)]
        return seen, unjoined

    def _gives(self, node: str, place: Place, ticket: str) -> Iterator[Output]:
        (seq, via), number = place, list(self.plan).index(node)
        for k, port in enumerate(self.ports_of(node, ticket)[0]):
            yield ((*seq, k), (*via, number)), f"{ticket}>{node}.{k}", port

    def _takes(
        self, shape: NodeShape, outputs: Mapping[str, Sequence[Output]]
    ) -> tuple[list[tuple[Place, str]], list[Any]]:
        came = [
            (feed.name, place, ticket)
            for feed in shape.inputs
            for place, ticket, port in outputs[feed.node]
            if port == feed.port
        ]
        if shape.join_length is None:
            return [(place, ticket) for _, place, ticket in came], []
        groups: defaultdict[Seq, dict[str, list[str]]] = defaultdict(lambda: {feed.name: [] for feed in shape.inputs})
        for name, (seq, _), ticket in sorted(came):
            groups[seq[: shape.join_length]][name].append(ticket)
        took: list[tuple[Place, str]] = []
        left: list[Any] = []
        for group, columns in groups.items():
            whole = min(map(len, columns.values()))
            joined = [_named({name: column[k] for name, column in columns.items()}) for k in range(whole)]
            took += [(((*group, k), ()), ticket) for k, ticket in enumerate(joined)]
            rest = {name: tuple(column[whole:]) for name, column in columns.items() if column[whole:]}
            if rest:
                left.append((shape.name, group, tuple(sorted(rest.items()))))
        return took, left


def _named(ticket: Any) -> str:
    if isinstance(ticket, dict):
        return "(" + "+".join(f"{name}={ticket[name]}" for name in sorted(ticket)) + ")"
    return str(ticket)


def _descendants(plans: Sequence[Plan]) -> dict[str, set[str]]:
    below: dict[str, set[str]] = {plan.name: set() for plan in plans}
    for plan in reversed(plans):
        for feed in plan.shape.inputs:
            below[feed.node] |= {plan.name} | below[plan.name]
    return below


# Random graphs.


class Builder:
    """Adds nodes one after another, and knows which items belong together where a join is to be."""

    def __init__(self) -> None:
        self.plans: list[Plan] = []
        self._passed: dict[str, set[str]] = {}
        """Nodes that all items of a node have passed, itself too: its dominators."""
        self._depth: dict[str, int | None] = {}
        self._ways: dict[str, Counter[tuple[str, str, int]]] = {}
        """Ways from an output to what a node gives, by length: two of one length, and `seq` is not unique."""

    @property
    def names(self) -> list[str]:
        return [plan.name for plan in self.plans]

    def ports(self, name: str) -> tuple[str, ...]:
        return next(plan.ports for plan in self.plans if plan.name == name)

    def add(self, plan: Plan) -> None:
        """A source, or a node that merges."""
        feeds = plan.shape.inputs
        depths = {self._depth[feed.node] for feed in feeds} or {1}
        depth = next(iter(depths))
        self._depth[plan.name] = depth + 1 if depth and len(depths) == 1 else None
        self._ways[plan.name] = sum((self._through(feed) for feed in feeds), Counter())
        self._put(plan)

    def join(self, plan: Plan) -> bool:
        """A node that joins, if that can be."""
        feeds = plan.shape.inputs
        fork = self._fork(feeds)
        depth = self._depth[fork] if fork else None
        if fork is None or depth is None or max(self._ways[fork].values(), default=0) > 1:
            return False
        ports = {feed.port for feed in self._edges(feeds, fork) if feed.node == fork}
        if len(ports) > 1 and not self._ways[fork]:
            return False
        length = depth if len(ports) == 1 else depth - 1
        self._depth[plan.name] = length + 2
        ways = self._through(Feed(fork, next(iter(ports)))) if len(ports) == 1 else self._ways[fork]
        self._ways[plan.name] = Counter({(node, port, hops + 1): count for (node, port, hops), count in ways.items()})
        self._put(replace(plan, shape=replace(plan.shape, join_length=length, join_fork=fork)))
        return True

    def _put(self, plan: Plan) -> None:
        above = [self._passed[feed.node] for feed in plan.shape.inputs]
        self._passed[plan.name] = {plan.name} | (set.intersection(*above) if above else set())
        self.plans.append(replace(plan, shape=replace(plan.shape, depth=self._depth[plan.name])))

    def _through(self, feed: Feed) -> Counter[tuple[str, str, int]]:
        ways = {(node, port, hops + 1): count for (node, port, hops), count in self._ways[feed.node].items()}
        return Counter({**ways, (feed.node, feed.port, 1): 1})

    def _fork(self, feeds: Sequence[Feed]) -> str | None:
        common = set.intersection(*(self._passed[feed.node] for feed in feeds))
        return max(common, key=self.names.index, default=None)

    def _edges(self, feeds: Sequence[Feed], fork: str) -> set[Feed]:
        found, ahead = set[Feed](), list(feeds)
        while ahead:
            feed = ahead.pop()
            if feed not in found:
                found.add(feed)
                above = next(plan for plan in self.plans if plan.name == feed.node)
                ahead += above.shape.inputs if feed.node != fork else ()
        return found


FANS = [(1,), (1,), (2,), (0, 1, 1, 2, 3)]
ENDS = [(0,), (0,), (1,), (0, 1, 2)]


@st.composite
def nodes(draw: st.DrawFn, name: str, inputs: tuple[Feed, ...]) -> Plan:
    ordered = draw(st.sampled_from([False, False, True]))
    shape = NodeShape(
        name,
        replicas=1 if ordered else draw(st.integers(1, 3)),
        ordered=ordered,
        inputs=inputs,
        retries=draw(st.integers(0, 3)),
        queue_items=draw(st.sampled_from([None, None, 1, 3])),
        queue_bytes=draw(st.sampled_from([2**28, 1, 500])),
        batch_items=draw(st.sampled_from([1, 1, 2, 4])),
        batch_seconds=draw(st.sampled_from([0.0, 0.25, 4.0])),
    )
    ports = draw(st.sampled_from([("out",), ("out",), ("a", "b")]))
    fans = draw(st.sampled_from(FANS if len(ports) == 1 else [(2,), (2,), (0, 1, 2, 3, 4)]))
    return Plan(shape, fans=fans, ends=draw(st.sampled_from(ENDS)), ports=ports)


@st.composite
def graphs(draw: st.DrawFn) -> list[Plan]:
    build = Builder()
    side = draw(st.sampled_from([False, False, True]))
    if side:
        build.add(Plan(NodeShape("t")))
        build.add(Plan(NodeShape("u", inputs=(Feed("t"),), retries=2), fans=(0,), ends=(1,), gives_side=True))
    for i in range(draw(st.integers(1, 2))):
        build.add(Plan(NodeShape(f"s{i}", retries=2)))
    main = [name for name in build.names if name[0] == "s"]
    for i in range(draw(st.integers(1, 4))):
        upstream = draw(st.sampled_from(main))
        kind = draw(st.sampled_from(["chain", "merge", "diamond", "diamond", "join"]))
        if kind == "diamond":  # one way may be straight
            ways = [f"n{i}l", f"n{i}r"][: draw(st.integers(1, 2))]
            for way in ways:
                build.add(draw(nodes(way, (Feed(upstream, draw(st.sampled_from(build.ports(upstream)))),))))
            main += ways
            upstream, kind, other = ways[0], "join", ways[1] if len(ways) == 2 else upstream
        else:
            other = draw(st.sampled_from(main))
        feeds = [Feed(one, draw(st.sampled_from(build.ports(one)))) for one in (upstream, other)]
        if kind == "chain" or feeds[0] == feeds[1]:
            feeds = feeds[:1]
        named = tuple(replace(feed, name=name) for feed, name in zip(feeds, ["x", "y"], strict=False))
        if kind != "join" or len(feeds) < 2 or not build.join(draw(nodes(f"n{i}", named))):
            build.add(draw(nodes(f"n{i}", tuple(feeds))))
        main.append(f"n{i}")
    if not side:
        return build.plans
    if draw(st.booleans()):  # what feeds the side may go elsewhere too
        build.add(Plan(NodeShape("k", inputs=(Feed("t"), Feed(main[0])))))
    takers = draw(st.sets(st.sampled_from(main), min_size=1, max_size=2))
    feed = (Feed("u", name="model"),)
    return [
        replace(plan, shape=replace(plan.shape, sides=feed)) if plan.name in takers else plan for plan in build.plans
    ]


TROUBLES = st.sampled_from(
    [
        Trouble(),
        Trouble(transient=0.2),
        Trouble(dies=0.2),
        Trouble(bad=0.15),
        Trouble(postponed=0.15, transient=0.05),
        Trouble(lost_idle=10),
        Trouble(scaling=16),
        ROUGH,
    ]
)
SEEDS = st.integers(0, 10**6)
SIMULATIONS = st.builds(
    Simulation,
    plans=graphs(),
    items=st.integers(0, 7),
    seed=SEEDS,
    luck=SEEDS,
    trouble=TROUBLES,
    window=st.sampled_from([None, 1, 2, 7]),
    budget=st.sampled_from([None, 1, 30, 3000, 10**9]),
)


@settings(max_examples=400, deadline=None)
@given(SIMULATIONS)
def test_no_item_is_lost_doubled_or_stuck(simulation: Simulation) -> None:
    simulation.run()
    seen, unjoined = simulation.expected()
    assert simulation.done == seen
    assert Counter(simulation.unjoined) == unjoined


@settings(max_examples=60, deadline=None)
@given(graphs(), st.integers(1, 6), SEEDS, st.lists(SEEDS, min_size=3, max_size=3), st.sampled_from([0.0, 0.15]))
def test_what_is_joined_does_not_depend_on_who_is_faster(
    plans: list[Plan], items: int, seed: int, lucks: list[int], bad: float
) -> None:
    # how many replicas come in time to make a last call is up to luck
    plans = [replace(plan, ends=(0,)) if plan.shape.replicas > 1 else plan for plan in plans]
    runs = [Simulation(plans, items, seed, luck, Trouble(bad=bad, transient=0.1)).run() for luck in lucks]
    assert runs[0].pairs == runs[1].pairs == runs[2].pairs
    assert set(runs[0].unjoined) == set(runs[1].unjoined) == set(runs[2].unjoined)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), SEEDS, SEEDS, st.sampled_from([Trouble(), Trouble(transient=0.2), ROUGH]))
def test_nested_diamonds_are_whole(items: int, seed: int, luck: int, trouble: Trouble) -> None:
    """The outer ways part at the ports of one node, an inner join lies on one of them, and twins on the other."""
    build = Builder()
    build.add(Plan(NodeShape("s", retries=2)))
    build.add(Plan(NodeShape("fork", 2, inputs=(Feed("s"),), retries=2), fans=(2, 4), ends=(2,), ports=("a", "b")))
    for name, port in [("l", "a"), ("r", "a"), ("up", "b"), ("down", "b")]:
        build.add(Plan(NodeShape(name, 2, inputs=(Feed("fork", port),), retries=1), fans=(1, 1, 2), ends=(0, 1)))
    inner = NodeShape("inner", inputs=(Feed("l", name="x"), Feed("r", name="y")), batch_items=2, batch_seconds=1.0)
    assert build.join(Plan(inner, ends=(1,)))
    build.add(Plan(NodeShape("twins", 2, inputs=(Feed("up"), Feed("down")))))
    assert build.join(Plan(NodeShape("outer", ordered=True, inputs=(Feed("inner", name="x"), Feed("twins", name="y")))))
    ran = Simulation(build.plans, items, seed, luck, trouble).run()
    seen, unjoined = ran.expected()
    assert ran.done == seen
    assert Counter(ran.unjoined) == unjoined
    assert trouble is ROUGH or ran.pairs


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), SEEDS, SEEDS)
def test_last_calls_between_a_fork_and_a_join_are_joined_as_well(items: int, seed: int, luck: int) -> None:
    """Also those of a node that merges what has come by ways of different lengths."""
    build = Builder()
    for name, above in {"s": "", "p": "s", "fork": "p", "a": "fork", "m": "a fork", "l": "m", "r": "m fork"}.items():
        feeds = tuple(Feed(one) for one in above.split())
        build.add(Plan(NodeShape(name, inputs=feeds), ends=(2,) if name == "m" else (0,)))
    assert build.join(Plan(NodeShape("both", inputs=(Feed("l", name="x"), Feed("r", name="y")))))
    ran = Simulation(build.plans, items, seed, luck).run()
    seen, unjoined = ran.expected()
    assert ran.done == seen
    assert Counter(ran.unjoined) == unjoined
    assert sum(seq[0] == LAST for _, seq, _ in ran.pairs) == 2


# The rules one by one.


def started(*shapes: NodeShape, **options: Any) -> Flow:
    """All replicas are ready."""
    flow = Flow(shapes, **options)
    for shape in shapes:
        for number in range(shape.replicas):
            flow.ready((shape.name, number))
    return flow


def calls(flow: Flow, now: float = 0.0) -> dict[Replica, Work]:
    return {work.replica: work for work in flow.assignments(now)}


def give(flow: Flow, replica: Replica, *tickets: str, port: str = "out", now: float = 0.0) -> None:
    for ticket in tickets:
        assert flow.room(replica, port, 1)
        flow.output(replica, port, ticket, 1, now=now)


def tickets(work: Work) -> list[Any]:
    return [entry.ticket for entry in work.entries]


S, SINK = ("s", 0), ("sink", 0)


def sink(**options: Any) -> NodeShape:
    return NodeShape("sink", inputs=(Feed("s"),), **options)


def test_a_slow_sink_holds_the_source() -> None:
    flow = started(NodeShape("s"), sink())
    calls(flow)
    admitted = 0
    while flow.room(S, "out"):
        give(flow, S, "item")
        calls(flow)
        admitted += 1
    assert admitted == 3  # one is worked on, two wait
    flow.done(SINK)
    calls(flow)
    assert flow.room(S, "out")


def test_bytes_bound_a_queue_but_one_item_always_passes() -> None:
    flow = Flow([NodeShape("s"), sink(queue_items=100, queue_bytes=10)], window=100)
    flow.ready(S)
    calls(flow)
    assert flow.room(S, "out", 1000)
    flow.output(S, "out", "item", 1000)
    assert not flow.room(S, "out")
    flow.ready(SINK)
    calls(flow)
    assert flow.room(S, "out")


def test_the_budget_of_the_run_gives_way_only_where_nothing_downstream_could_free_it() -> None:
    flow = started(NodeShape("s"), sink(queue_items=100), window=100, budget_bytes=10)
    calls(flow)
    flow.output(S, "out", "large", 100)
    assert flow.room(S, "out", 1)  # nobody is at work yet
    calls(flow)
    assert not flow.room(S, "out", 0)
    flow.done(SINK)
    assert flow.bytes_under_way == 0
    assert flow.room(S, "out", 11)
    flow.output(S, "out", "small", 4)
    calls(flow)
    assert flow.room(S, "out", 6)
    assert not flow.room(S, "out", 7)


def test_bytes_count_once_however_many_hold_them() -> None:
    other = NodeShape("other", inputs=(Feed("s"),))
    flow = started(NodeShape("s"), sink(), other)
    calls(flow)
    flow.output(S, "out", "item", 7)
    flow.output(S, "nobody", "item", 9)
    assert flow.bytes_under_way == 7
    calls(flow)
    flow.done(SINK)
    assert flow.bytes_under_way == 7
    flow.done(("other", 0))
    assert flow.bytes_under_way == 0


def test_a_source_is_only_a_window_ahead_of_the_oldest_item_under_way() -> None:
    flow = started(NodeShape("s"), sink(queue_items=100), window=3)
    calls(flow)
    give(flow, S, "a", "b", "c")
    assert not flow.room(S, "out")
    calls(flow)
    assert not flow.room(S, "out")
    flow.done(SINK)
    assert flow.room(S, "out")


def test_the_oldest_item_comes_first_whoever_was_faster() -> None:
    fork = NodeShape("fork", replicas=2, inputs=(Feed("s"),))
    last = NodeShape("last", inputs=(Feed("fork"),))
    flow = started(NodeShape("s"), fork, last)
    calls(flow)
    give(flow, S, "old", "new")
    calls(flow)
    give(flow, ("fork", 1), "from new")
    give(flow, ("fork", 0), "from old")
    assert tickets(calls(flow)["last", 0]) == ["from old"]


def test_an_ordered_node_waits_for_the_item_that_is_slow_and_for_one_that_is_tried_again() -> None:
    fork = NodeShape("fork", replicas=2, inputs=(Feed("s"),), retries=1)
    flow = started(NodeShape("s"), fork, NodeShape("last", ordered=True, inputs=(Feed("fork"),)))
    calls(flow)
    give(flow, S, "old", "new")
    calls(flow)
    give(flow, ("fork", 1), "from new")
    flow.done(("fork", 1))
    assert calls(flow) == {}
    flow.failed(("fork", 0), not_before=5.0)
    assert calls(flow, 4.0) == {}
    assert list(calls(flow, 5.0)) == [("fork", 0)]
    give(flow, ("fork", 0), "from old")
    assert tickets(calls(flow, 5.0)["last", 0]) == ["from old"]


def test_an_ordered_node_waits_for_what_a_node_may_still_hold_back() -> None:
    slow, quick = (NodeShape(name, inputs=(Feed("s"),)) for name in ("slow", "quick"))
    last = NodeShape("last", ordered=True, inputs=(Feed("slow"), Feed("quick")))
    flow = Flow([NodeShape("s"), slow, quick, last])
    for replica in [S, ("quick", 0), ("last", 0)]:
        flow.ready(replica)
    calls(flow)
    flow.done(S)
    calls(flow)
    give(flow, ("quick", 0), "second")
    flow.done(("quick", 0))
    assert calls(flow) == {}
    flow.ready(("slow", 0))
    calls(flow)
    give(flow, ("slow", 0), "first")
    flow.done(("slow", 0))
    assert tickets(calls(flow)["last", 0]) == ["first"]


def test_a_poison_item_is_given_up_after_its_retries_and_its_siblings_go_on() -> None:
    flow = started(NodeShape("s"), sink(retries=2))
    calls(flow)
    give(flow, S, "poison", "good")
    flow.done(S)
    attempts, done, given_up = [], [], []
    while not flow.complete:
        for work in flow.assignments():
            if work.entry.ticket == "poison":
                attempts.append(work.entry.attempt)
                given_up.append(flow.failed(work.replica))
            else:
                done.append(work.entry.ticket)
                flow.done(work.replica)
    assert attempts == [0, 1, 2]
    assert [entry and entry.ticket for entry in given_up] == [None, None, "poison"]
    assert done == ["good", None]  # the last call has no ticket


def test_an_item_error_is_not_tried_again() -> None:
    flow = started(NodeShape("s"), sink(retries=2))
    calls(flow)
    give(flow, S, "item")
    calls(flow)
    given_up = flow.failed(SINK, retry=False)
    assert given_up is not None
    assert given_up.ticket == "item"
    assert calls(flow) == {}


@pytest.mark.parametrize("alive", [True, False])
def test_an_item_outlives_its_worker(alive: bool) -> None:
    flow = started(NodeShape("s"), sink(retries=1))
    calls(flow)
    give(flow, S, "item")
    calls(flow)
    assert flow.failed(SINK, alive=alive) is None
    again = calls(flow)
    if not alive:
        assert again == {}
        flow.ready(SINK)
        again = calls(flow)
    assert [(work.entry.ticket, work.entry.attempt) for work in again.values()] == [("item", 1)]


def test_what_an_earlier_attempt_handed_on_is_not_handed_on_twice() -> None:
    flow = started(NodeShape("s"), NodeShape("n", inputs=(Feed("s"),), retries=1), sink())
    calls(flow)
    give(flow, S, "item")
    calls(flow)
    got = [flow.output(("n", 0), "out", "a", 1)]
    flow.failed(("n", 0))
    calls(flow)
    got += [flow.output(("n", 0), "out", name, 1) for name in "ab"]
    assert got == [((0, 0, 0), True), ((0, 0, 0), False), ((0, 0, 1), True)]


def test_a_postponed_call_is_not_charged_whatever_it_is() -> None:
    trained = NodeShape("u", inputs=(Feed("t"),))
    flow = started(NodeShape("t"), trained, NodeShape("s"), sink(sides=(Feed("u", name="model"),)))
    calls(flow)
    give(flow, S, "item")
    flow.done(S)
    flow.done(("t", 0))
    seen = []
    for name in ("u", "sink", "sink", "sink"):
        (first,) = (work for work in calls(flow).values() if work.replica[0] == name)
        flow.postpone(first.replica)
        (again,) = (work for work in calls(flow).values() if work.replica[0] == name)
        assert again.entry.attempt == first.entry.attempt == 0
        seen.append(again.kind)
        if name == "u":
            give(flow, ("u", 0), "model")
        flow.done(again.replica)
    calls(flow)
    assert seen == ["finish", "receive", "process", "finish"]
    assert flow.complete


def test_a_last_call_waits_before_it_is_tried_again() -> None:
    flow = started(NodeShape("s", retries=1), sink(retries=1))
    calls(flow)
    flow.failed(S, not_before=3.0)
    assert calls(flow, 2.0) == {}
    assert [work.kind for work in calls(flow, 3.0).values()] == ["produce"]
    flow.done(S)
    calls(flow, 3.0)
    flow.failed(SINK, not_before=7.0)
    assert calls(flow, 6.0) == {}
    assert [work.kind for work in calls(flow, 7.0).values()] == ["finish"]


def test_a_failed_side_input_is_charged_to_the_replica_that_failed() -> None:
    taker = NodeShape("sink", 2, inputs=(Feed("s"),), sides=(Feed("t", name="model"),), retries=1)
    flow = Flow([NodeShape("t"), NodeShape("s"), taker])
    for replica in [("t", 0), S, SINK]:
        flow.ready(replica)
    calls(flow)
    give(flow, ("t", 0), "model")
    calls(flow)
    flow.failed(SINK, not_before=2.0)
    assert calls(flow, 1.0) == {}
    flow.ready(("sink", 1))
    assert [work.entry.attempt for work in calls(flow, 2.0).values()] == [1, 0]


# Batches.


def test_a_batch_is_taken_when_it_is_full() -> None:
    flow = started(NodeShape("s"), sink(batch_items=2, batch_seconds=60.0))
    calls(flow)
    give(flow, S, "a")
    assert calls(flow) == {}
    give(flow, S, "b", "c")
    assert tickets(calls(flow)[SINK]) == ["a", "b"]


def test_a_batch_waits_no_longer_than_it_may() -> None:
    flow = started(NodeShape("s"), sink(batch_items=4, batch_seconds=2.0))
    calls(flow)
    give(flow, S, "a", now=10.0)
    give(flow, S, "b", now=11.5)
    assert calls(flow, 11.75) == {}
    assert tickets(calls(flow, 12.0)[SINK]) == ["a", "b"]


def test_a_batch_does_not_wait_when_nothing_more_can_come() -> None:
    flow = started(NodeShape("s"), sink(batch_items=4, batch_seconds=60.0))
    calls(flow)
    give(flow, S, "a", "b")
    assert calls(flow) == {}
    flow.done(S)
    assert tickets(calls(flow)[SINK]) == ["a", "b"]


@pytest.mark.parametrize("alive", [True, False])
def test_items_that_failed_together_come_back_alone_and_uncharged(alive: bool) -> None:
    flow = started(NodeShape("s"), sink(batch_items=3))
    calls(flow)
    give(flow, S, "a", "b", "c", "d")
    assert tickets(calls(flow)[SINK]) == ["a", "b", "c"]
    assert flow.failed(SINK, retry=False, alive=alive) is None
    if not alive:
        flow.ready(SINK)
    taken = []
    while work := calls(flow).get(SINK):
        taken.append([(entry.ticket, entry.attempt) for entry in work.entries])
        flow.done(SINK)
    assert taken == [[("a", 0)], [("b", 0)], [("c", 0)], [("d", 0)]]


# Replicas come and go.


def test_a_retiring_replica_makes_its_last_call_and_leaves() -> None:
    flow = started(NodeShape("s"), sink(replicas=2))
    calls(flow)
    assert flow.retire_replica("sink") == ("sink", 1)
    assert flow.retire_replica("sink") is None  # one has to stay
    give(flow, S, "a", "b")
    begun = calls(flow)
    assert {replica: work.kind for replica, work in begun.items()} == {SINK: "process", ("sink", 1): "finish"}
    assert flow.done(("sink", 1)) is False
    assert flow.done(SINK) is True
    assert list(calls(flow)) == [SINK]
    assert flow.load("sink").starting == 0


def test_a_busy_replica_is_not_spared() -> None:
    flow = started(NodeShape("s"), sink(replicas=2))
    calls(flow)
    give(flow, S, "a", "b")
    calls(flow)
    assert flow.retire_replica("sink") is None


def test_last_calls_of_two_that_had_the_same_number_have_places_of_their_own() -> None:
    flow = started(NodeShape("s"), NodeShape("n", 2, inputs=(Feed("s"),)), NodeShape("last", inputs=(Feed("n"),)))
    calls(flow)
    places = []
    for _ in range(2):
        assert flow.retire_replica("n") == ("n", 1)
        assert calls(flow)["n", 1].kind == "finish"
        places.append(flow.output(("n", 1), "out", "left over", 1)[0])
        flow.done(("n", 1))
        assert flow.add_replica("n") == ("n", 1)
        flow.ready(("n", 1))
    assert places[0] < places[1]
    assert all(place[0] == LAST for place in places)


def test_a_retiring_replica_that_is_lost_stays_after_all() -> None:
    flow = started(NodeShape("s"), sink(replicas=2))
    calls(flow)
    flow.retire_replica("sink")
    flow.lost(("sink", 1))
    assert flow.load("sink").starting == 1
    assert flow.add_replica("sink") == ("sink", 2)
    flow.ready(("sink", 1))
    give(flow, S, "a", "b")
    assert [work.kind for work in calls(flow).values()] == ["process", "process"]


def test_a_retiring_replica_that_could_not_hand_out_what_it_held_works_on() -> None:
    flow = started(NodeShape("s"), sink(replicas=2))
    calls(flow)
    flow.retire_replica("sink")
    calls(flow)
    assert flow.failed(("sink", 1)) is not None
    give(flow, S, "a", "b")
    assert [work.kind for work in calls(flow).values()] == ["process", "process"]
    for replica in [S, SINK, ("sink", 1)]:
        flow.done(replica)
    assert [work.kind for work in calls(flow).values()] == ["finish", "finish"]


def test_a_late_replica_helps() -> None:
    flow = started(NodeShape("s"), sink())
    calls(flow)
    give(flow, S, "a")
    calls(flow)
    give(flow, S, "b")
    flow.ready(flow.add_replica("sink"))
    assert tickets(calls(flow)["sink", 1]) == ["b"]


def test_a_replica_that_comes_when_the_others_are_through_has_nothing_to_do() -> None:
    flow = Flow([NodeShape("s"), sink(replicas=3)])
    for replica in [S, SINK, ("sink", 1)]:
        flow.ready(replica)
    calls(flow)
    flow.done(S)
    assert [work.kind for work in calls(flow).values()] == ["finish", "finish"]
    flow.done(SINK)
    flow.lost(SINK)
    flow.ready(SINK)
    assert calls(flow) == {}
    flow.done(("sink", 1))
    assert calls(flow) == {}
    assert flow.complete
    flow.ready(("sink", 2))
    assert calls(flow) == {}


def test_load_and_depth_count_what_waits() -> None:
    flow = Flow([NodeShape("s"), sink(replicas=3)])
    flow.ready(S)
    flow.ready(SINK)
    calls(flow)
    give(flow, S, "a", "b", "c")
    calls(flow)
    flow.ready(("sink", 1))
    load = flow.load("sink")
    assert (load.waiting, load.busy, load.idle, load.starting) == (2, 1, 1, 1)
    assert flow.depth("sink") == 2


# Side inputs.


def test_every_replica_receives_its_side_input_before_its_first_item() -> None:
    flow = started(NodeShape("t"), NodeShape("s"), sink(replicas=2, sides=(Feed("t", name="model"),)))
    calls(flow)
    give(flow, S, "a", "b")
    assert calls(flow) == {}
    give(flow, ("t", 0), "model")
    begun = calls(flow)
    assert {(work.kind, work.side, work.entry.ticket) for work in begun.values()} == {("receive", "model", "model")}
    flow.done(SINK)
    assert tickets(calls(flow)[SINK]) == ["a"]


def test_a_side_input_comes_only_once() -> None:
    flow = started(NodeShape("t"), NodeShape("s"), sink(sides=(Feed("t", name="model"),)))
    calls(flow)
    give(flow, ("t", 0), "model")
    with pytest.raises(SecondSide) as caught:
        flow.output(("t", 0), "out", "another", 1)
    assert (caught.value.node, caught.value.side) == ("sink", "model")


def test_a_side_input_that_comes_when_all_is_over_is_not_handed_over() -> None:
    flow = started(NodeShape("t"), NodeShape("s"), sink(sides=(Feed("t", name="model"),)))
    calls(flow)
    flow.done(S)
    assert [work.kind for work in calls(flow).values()] == ["finish"]
    flow.done(SINK)
    calls(flow)
    give(flow, ("t", 0), "model")
    flow.done(("t", 0))
    assert calls(flow) == {}
    assert flow.complete


def test_a_source_that_still_receives_its_side_input_is_waited_for() -> None:
    trained = NodeShape("u", inputs=(Feed("t"),))
    first = NodeShape("first", sides=(Feed("u", name="model"),))
    last = NodeShape("last", ordered=True, inputs=(Feed("first"), Feed("s")))
    flow = started(NodeShape("t"), trained, first, NodeShape("s"), last)
    calls(flow)
    flow.done(("t", 0))
    calls(flow)
    give(flow, S, "second")
    assert calls(flow) == {}
    give(flow, ("u", 0), "model")
    assert [work.kind for work in calls(flow).values()] == ["receive"]
    flow.done(("first", 0))
    assert [work.kind for work in calls(flow).values()] == ["produce"]
    give(flow, ("first", 0), "first")
    assert tickets(calls(flow)["last", 0]) == ["first"]


# Joins.


def diamond(**options: Any) -> Flow:
    """Two ways from a source to a join."""
    ways = [NodeShape(name, inputs=(Feed("s"),), depth=3, **options) for name in ("left", "right")]
    inputs = (Feed("left", name="x"), Feed("right", name="y"))
    both = NodeShape("both", inputs=inputs, join_length=2, join_fork="s", depth=4, batch_items=2, batch_seconds=2.0)
    return started(NodeShape("s", depth=2), *ways, both)


LEFT, RIGHT, BOTH = ("left", 0), ("right", 0), ("both", 0)


def test_items_that_descend_from_one_are_joined_and_wait_from_then_on() -> None:
    flow = diamond()
    calls(flow)
    give(flow, S, "a")
    calls(flow)
    give(flow, LEFT, "la", now=10.0)
    flow.done(LEFT)
    assert flow.depth("both") == 1
    give(flow, RIGHT, "ra", now=20.0)
    assert calls(flow, 20.0) == {}
    flow.done(RIGHT)
    assert flow.depth("both") == 1
    assert calls(flow, 21.0) == {}
    assert tickets(calls(flow, 22.0)[BOTH]) == [{"x": "la", "y": "ra"}]


def test_a_join_refuses_nothing() -> None:
    inputs = (Feed("s", name="x"), Feed("s", name="y"))
    both = NodeShape("both", inputs=inputs, join_length=2, join_fork="s", queue_items=1, queue_bytes=1)
    flow = Flow([NodeShape("s", depth=2), both], window=9)
    flow.ready(S)
    calls(flow)
    give(flow, S, *"abcdefghi")
    assert flow.load("both").waiting == 9
    assert not flow.room(S, "out")  # for the window


def test_an_ordered_node_waits_for_a_group_that_waits() -> None:
    ways = [NodeShape(name, inputs=(Feed("s"),), depth=3) for name in ("left", "right", "x")]
    inputs = (Feed("left", name="x"), Feed("right", name="y"))
    both = NodeShape("both", inputs=inputs, join_length=2, join_fork="s", depth=4)
    other = NodeShape("other", inputs=(Feed("x"),), depth=4)
    last = NodeShape("last", ordered=True, inputs=(Feed("both"), Feed("other")), depth=5)
    flow = started(NodeShape("s", depth=2), *ways, both, other, last)
    calls(flow)
    give(flow, S, "a")
    calls(flow)
    give(flow, ("x", 0), "x")
    flow.done(("x", 0))
    give(flow, RIGHT, "r")
    flow.done(RIGHT)
    calls(flow)
    give(flow, ("other", 0), "o0", "o1")
    flow.done(("other", 0))
    give(flow, LEFT, "l")  # and perhaps another one
    assert calls(flow) == {}
    flow.done(LEFT)
    calls(flow)
    give(flow, BOTH, "b0")
    flow.done(BOTH)
    taken: list[Any] = []
    while (work := calls(flow).get(("last", 0))) and len(taken) < 3:
        taken += tickets(work)
        flow.done(("last", 0))
    assert taken == ["o0", "b0", "o1"]


def test_what_finds_no_partner_is_named_once() -> None:
    flow = diamond()
    calls(flow)
    give(flow, S, "a")
    calls(flow)
    give(flow, LEFT, "l0", "l1")
    flow.done(LEFT)
    give(flow, RIGHT, "r0")
    assert flow.unjoined() == []
    flow.done(RIGHT)
    (left,) = flow.unjoined()
    assert (left.node, left.seq) == ("both", (0, 0))
    assert {name: [entry.ticket for entry in entries] for name, entries in left.entries.items()} == {"x": ["l1"]}
    assert flow.unjoined() == []
    assert flow.bytes_under_way == 2


def test_a_group_waits_for_an_item_that_is_tried_again_and_not_for_one_that_is_given_up() -> None:
    flow = diamond(retries=1)
    calls(flow)
    give(flow, S, "a")
    calls(flow)
    give(flow, LEFT, "la")
    flow.done(LEFT)
    flow.failed(RIGHT)
    assert flow.unjoined() == []
    calls(flow)
    flow.failed(RIGHT)
    assert [left.seq for left in flow.unjoined()] == [(0, 0)]


def test_what_a_last_call_gives_is_joined_when_the_call_is_over() -> None:
    fork = NodeShape("fork", inputs=(Feed("s"),), depth=3)
    inputs = (Feed("fork", "a", "x"), Feed("fork", "b", "y"))
    flow = started(NodeShape("s", depth=2), fork, NodeShape("both", inputs=inputs, join_length=2, join_fork="fork"))
    calls(flow)
    flow.done(S)
    calls(flow)
    give(flow, ("fork", 0), "left", port="a")
    give(flow, ("fork", 0), "right", port="b")
    assert flow.unjoined() == []
    flow.done(("fork", 0))
    assert tickets(calls(flow)[BOTH]) == [{"x": "left", "y": "right"}]


@pytest.mark.parametrize("faster", [0, 1])
def test_twins_that_are_merged_again_keep_their_order(faster: int) -> None:
    ways = [NodeShape(name, inputs=(Feed("s"),), depth=3) for name in ("left", "right")]
    merged = NodeShape("merged", 2, inputs=(Feed("left"), Feed("right")), depth=4)
    inputs = (Feed("merged", name="x"), Feed("s", name="y"))
    both = NodeShape("both", inputs=inputs, join_length=2, join_fork="s", depth=4)
    flow = started(NodeShape("s", depth=2), *ways, merged, both)
    calls(flow)
    give(flow, S, "a")
    calls(flow)
    for name in [("left", "right"), ("right", "left")][faster]:
        give(flow, (name, 0), name)
        flow.done((name, 0))
        (work,) = calls(flow).values()
        give(flow, work.replica, work.entry.ticket)
    for number in range(2):
        flow.done(("merged", number))
    assert tickets(calls(flow)[BOTH]) == [{"x": "left", "y": "a"}]
