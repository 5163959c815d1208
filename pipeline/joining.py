"""Which items belong together at a join, and whether side inputs can ever arrive.

Items belong together when they descend from one item of a common origin, the *fork*: the nearest node that all of
them have passed. An item's `seq` begins with its ancestors', so a length is enough to tell: that of the fork's
outputs, or one less where the ways leave the fork by different ports.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce

from framefold.pipeline.draft import Draft
from framefold.pipeline.findings import Finding, listed
from framefold.pipeline.wiring import Wire, topological, upstream

SOURCE_DEPTH = 2
"""A source's output has the `seq` (source, number)."""
JOINED_DEPTH = 2
"""What a node that joins adds to the numbers that its inputs share."""

_UNKNOWABLE = "so nothing tells which items belong together"
_OWN_SOURCE = "a source of its own: two nodes may read the same path"


@dataclass(frozen=True)
class Join:
    """Which items belong together at a node that joins."""

    fork: str
    """The node that all of them have passed."""
    length: int
    """They belong together when the first so many numbers of their `seq` are equal."""


@dataclass(frozen=True)
class Joining:
    """What is known of all joins of a file."""

    joins: Mapping[str, Join] = field(default_factory=dict)
    depths: Mapping[str, int] = field(default_factory=dict)
    """How long the `seq` of each node's outputs is; nodes for which it varies are left out."""
    findings: tuple[Finding, ...] = ()


def resolve(drafts: Mapping[str, Draft], wires: Sequence[Wire]) -> Joining:
    """Find the fork of every join. Nothing is said of a graph with cycles: `wiring` names them."""
    order = topological(drafts, wires)
    if len(order) < len(drafts):
        return Joining()
    ways = _Ways(drafts, order, [wire for wire in wires if not wire.side])
    findings = (*ways.findings, *_endless_waits(drafts, order, wires))
    return Joining(ways.joins, ways.depths, findings)


class _RefusedError(Exception):
    """Why items cannot be joined."""


class _Ways:
    """The ways of items through the graph, walked from the sources to the sinks."""

    def __init__(self, drafts: Mapping[str, Draft], order: Sequence[str], wires: Sequence[Wire]) -> None:
        self._wires = wires
        self._place = {name: number for number, name in enumerate(order)}
        self._incoming: defaultdict[str, list[Wire]] = defaultdict(list)
        for wire in wires:
            self._incoming[wire.target].append(wire)
        self._doubtful = {name for name in order if _is_doubtful(drafts[name], self._incoming[name])}
        """Nodes with mistakes of their own: what hangs on them is not judged."""
        self._nearest: dict[str, str | None] = {}
        """Of each node, the nearest one that all its items have passed: its immediate dominator."""
        self._blurred: dict[str, str] = {}
        """Of nodes with items that `seq` cannot tell apart, why."""
        self.joins: dict[str, Join] = {}
        self.depths: dict[str, int] = {}
        self.findings: list[Finding] = []
        for name in order:
            self._visit(name, self._incoming[name])

    def _visit(self, name: str, wires: list[Wire]) -> None:
        self._nearest[name] = self._common(wires)
        if not any(wire.name for wire in wires):
            self._merge(name, wires)
        elif not upstream({name}, self._wires) & self._doubtful:
            self._join(name, wires)

    def _join(self, name: str, wires: list[Wire]) -> None:
        try:
            self.joins[name] = join = self._joined(wires)
            self.depths[name] = join.length + JOINED_DEPTH
        except _RefusedError as error:
            self.findings.append(Finding(("stages", name, "inputs"), str(error)))
            self._doubtful.add(name)

    def _joined(self, wires: list[Wire]) -> Join:
        fork = self._common(wires)
        if fork is None:
            origin = f"{_sources(wires)} have no common origin, {_UNKNOWABLE}"
            raise _RefusedError(f"{origin}; join outputs that descend from one node")
        if fork in self._blurred:
            raise _RefusedError(f"{self._blurred[fork]}, {_UNKNOWABLE}; join before they are merged")
        ports = dict.fromkeys(way.port for wire in wires for way in self._way(wire, fork) if way.source == fork)
        if len(ports) == 1:
            return Join(fork, self.depths[fork])
        if not self._incoming[fork]:
            left = f"the source {fork!r} gives {listed(sorted(ports))} apart, {_UNKNOWABLE}"
            raise _RefusedError(f"{left}; let it give one output, which a stage after it divides")
        return Join(fork, self.depths[fork] - 1)

    def _merge(self, name: str, wires: list[Wire]) -> None:
        inherited = [self._blurred[wire.source] for wire in wires if wire.source in self._blurred]
        if reasons := inherited or list(itertools.islice(self._blurs(name, wires), 1)):
            self._blurred[name] = reasons[0]
        elif not wires:
            self.depths[name] = SOURCE_DEPTH
        elif wires[0].source in self.depths:
            self.depths[name] = self.depths[wires[0].source] + 1

    def _blurs(self, name: str, wires: list[Wire]) -> Iterator[str]:
        """Why the `seq` of what this node gives does not tell where it comes from."""
        for one, other in itertools.combinations(wires, 2):
            if self._are_twins(one, other):
                yield f"{name!r} merges {_sources([one, other])}, which descend from the same items"
        if len({self.depths.get(wire.source) for wire in wires}) > 1:
            yield f"{name!r} merges {_sources(wires)}, which are not equally far from their sources"

    def _are_twins(self, one: Wire, other: Wire) -> bool:
        """Whether descendants of one item may come by both wires under one `seq`: the ways part at one port."""
        fork = self._common([one, other])
        left, right = (_by_port(self._way(wire, fork)) for wire in (one, other))
        return any(len(left[port] | right[port]) > 1 for port in left.keys() & right.keys())

    def _way(self, last: Wire, fork: str | None) -> set[Wire]:
        """All wires between `fork`, or the sources, and the end of `last`."""
        found, ahead = set[Wire](), [last]
        while ahead:
            wire = ahead.pop()
            if wire not in found:
                found.add(wire)
                ahead += self._incoming[wire.source] if wire.source != fork else []
        return found

    def _common(self, wires: Sequence[Wire]) -> str | None:
        """The nearest node that all that comes by these wires has passed."""
        sources: list[str | None] = [wire.source for wire in wires]
        return reduce(self._meet, sources) if sources else None

    def _meet(self, one: str | None, other: str | None) -> str | None:
        while one != other:
            if one is None or other is None:
                return None
            if self._place[one] > self._place[other]:
                one = self._nearest[one]
            else:
                other = self._nearest[other]
        return one


def _is_doubtful(draft: Draft, wires: Sequence[Wire]) -> bool:
    given = [reference for reference in draft.spec.references() if not reference.side]
    is_connected = len(wires) == len(given) and (bool(wires) or draft.is_source)
    return draft.ports is None or not draft.inputs_read or not is_connected


def _by_port(wires: set[Wire]) -> Mapping[tuple[str, str], set[Wire]]:
    ports: defaultdict[tuple[str, str], set[Wire]] = defaultdict(set)
    for wire in wires:
        ports[wire.source, wire.port].add(wire)
    return ports


def _sources(wires: Sequence[Wire]) -> str:
    return listed(list(dict.fromkeys(wire.source for wire in wires)))


def _is_stateful(draft: Draft) -> bool:
    return draft.stage_class is not None and draft.stage_class.stateful


def _endless_waits(drafts: Mapping[str, Draft], order: Sequence[str], wires: Sequence[Wire]) -> Iterator[Finding]:
    """Side inputs that never come, because what they are made of is held up by the items that wait for them."""
    main = [wire for wire in wires if not wire.side]
    sides = [wire for name in order for wire in wires if wire.side and wire.target == name]
    held = {
        wire.target: upstream([other.source for other in main if other.target == wire.target], main) for wire in sides
    }
    needed = {wire: upstream([wire.source], wires) for wire in sides}
    endless = [wire for wire in sides if needed[wire] & held[wire.target]]
    for wire in endless:
        nearest = max(needed[wire] & held[wire.target], key=order.index)
        both = f"{wire.name} comes from {nearest}, as do the items of {wire.target}, which wait for it"
        yield Finding(wire.path, f"{both}; give it {_OWN_SOURCE}")
    pairs = [
        (one, other)
        for one, other in itertools.combinations([wire for wire in sides if wire not in endless], 2)
        if needed[one] & held[other.target] and needed[other] & held[one.target]
    ]
    for one, other in pairs:
        a, b = one.target, other.target
        both = f"{a} waits for items that {b} holds up, and {b} for items that {a} holds up"
        yield Finding(one.path, f"{both}; give one side input {_OWN_SOURCE}")
    told = {*endless, *itertools.chain(*pairs)}
    late = [wire for wire in sides if wire not in told and _is_stateful(drafts[wire.source])]
    for wire in late:
        yield from _out_of_order(wire, needed[wire], [name for name in order if _is_stateful(drafts[name])], main)


def _out_of_order(
    wire: Wire, needed: Collection[str], stateful: Sequence[str], main: Sequence[Wire]
) -> Iterator[Finding]:
    """Where a stage that keeps order waits for items that wait for what its other items are held up for."""
    for name in stateful:
        before = upstream([name], main)
        shared = [other for other in needed if other in before]
        if wire.target in before and shared:
            both = f"{name} takes items in order, those of {shared[0]} and those that wait at {wire.target}"
            yield Finding(wire.path, f"{both} for all that {shared[0]} gives; give {wire.name} {_OWN_SOURCE}")
            return
