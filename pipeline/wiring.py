"""How nodes connect: references resolved to edges, and everything that can be wrong with them."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from framefold.pipeline.draft import Draft, Reference
from framefold.pipeline.findings import Finding, KeyPath, did_you_mean, listed, nearest
from framefold.pipeline.stage import Ports, PortType, Stage, types_of

UNNAMED_PORT = "out"
MAX_BRIDGE = 3
"""Stages in a row that are suggested to stand between two that do not fit."""
MAX_CYCLES = 20
"""Named in one go."""

StageClasses = Callable[[], Mapping[str, type[Stage]]]
"""All stages that could be suggested; asked for only after a mistake, because it imports them."""


@dataclass(frozen=True)
class Wire:
    """One resolved reference: output `port` of node `source` feeds node `target`."""

    source: str
    port: str
    target: str
    path: KeyPath = field(compare=False)
    """Where the reference stands."""
    name: str = ""
    """Of the join or side input; empty where inputs are merged."""
    side: bool = False
    """The target is given one payload before its first item."""


@dataclass(frozen=True)
class Wiring:
    """All references of a file, resolved as far as possible."""

    wires: tuple[Wire, ...]
    findings: tuple[Finding, ...]
    guessed: frozenset[str]
    """Nodes that an unresolved reference probably meant."""


def connect(drafts: Mapping[str, Draft]) -> Wiring:
    """Resolve every input and side input of every node."""
    wires: list[Wire] = []
    findings: list[Finding] = []
    guessed: set[str] = set()
    for draft in drafts.values():
        for reference in draft.spec.references():
            found = _resolve(drafts, reference, draft.name)
            if isinstance(found, Wire):
                findings += _repeated(found, wires, reference.text)
                wires.append(found)
            else:
                findings.append(found)
                guessed.update(_meant(reference.text, drafts))
    return Wiring(tuple(dict.fromkeys(wires)), tuple(findings), frozenset(guessed))


def check(drafts: Mapping[str, Draft], wiring: Wiring, stage_classes: StageClasses) -> Iterator[Finding]:
    """Every mistake in how the nodes stand together."""
    yield from wiring.findings
    for wire in wiring.wires:
        yield from _types(wire, drafts, stage_classes)
    yield from _cycles(drafts, wiring.wires)
    yield from _ends(drafts, wiring)


def unused_ports(drafts: Mapping[str, Draft], wires: Sequence[Wire]) -> Iterator[Finding]:
    """Ports that nobody takes, of nodes of which another port is taken: allowed, but worth a word."""
    taken = {(wire.source, wire.port) for wire in wires}
    for draft in drafts.values():
        ports = [] if draft.ports is None else list(draft.ports.emits)
        left = [f"{draft.name}.{port}" for port in ports if (draft.name, port) not in taken]
        if left and len(left) < len(ports):
            yield Finding(("stages", draft.name), f"nobody takes {listed(left)}; what goes there is dropped")


def type_names(port: PortType) -> str:
    """`Clip or ImageBatch`."""
    return listed([kind.__name__ for kind in types_of(port)], last="or")


def fits(emitted: PortType, accepted: PortType) -> bool:
    """Whether something that leaves by one port may be welcome at the other."""
    return any(
        issubclass(given, taken) or issubclass(taken, given)
        for given in types_of(emitted)
        for taken in types_of(accepted)
    )


def topological(names: Iterable[str], wires: Sequence[Wire]) -> list[str]:
    """Upstream before downstream, otherwise in the order given; nodes on or after a cycle are left out."""
    place = {name: number for number, name in enumerate(names)}
    missing = Counter(wire.target for wire in wires)
    downstream: defaultdict[str, list[str]] = defaultdict(list)
    for wire in wires:
        downstream[wire.source].append(wire.target)
    ready = [(number, name) for name, number in place.items() if not missing[name]]
    order: list[str] = []
    while ready:
        order.append(heapq.heappop(ready)[1])
        for target in downstream[order[-1]]:
            missing[target] -= 1
            if not missing[target]:
                heapq.heappush(ready, (place[target], target))
    return order


def upstream(names: Iterable[str], wires: Iterable[Wire]) -> set[str]:
    """The nodes that something reaches `names` from, and those themselves."""
    sources: defaultdict[str, list[str]] = defaultdict(list)
    for wire in wires:
        sources[wire.target].append(wire.source)
    found, ahead = set[str](), list(names)
    while ahead:
        name = ahead.pop()
        ahead += sources[name] if name not in found else []
        found.add(name)
    return found


def _resolve(drafts: Mapping[str, Draft], reference: Reference, target: str) -> Wire | Finding:
    name, port = split(reference.text)
    path = ("stages", target, *reference.path)
    if name not in drafts:
        others = [other for other in drafts if other != target]
        guess = did_you_mean(name, others) or ";"
        return Finding(path, f"there is no node {name!r}{guess} nodes: {listed(others)}")
    ports = drafts[name].ports
    if ports is None or port in ports.emits:
        return Wire(name, port, target, path, reference.name, reference.side)
    return Finding(path, _no_port(name, port if "." in reference.text else None, list(ports.emits)))


def split(reference: str) -> tuple[str, str]:
    """The node and the port that a reference names."""
    name, dot, port = reference.partition(".")
    return name, port if dot else UNNAMED_PORT


def _repeated(last: Wire, before: Sequence[Wire], reference: str) -> Iterator[Finding]:
    """Whether a wire brings the same items to the same node as one before it."""
    for wire in before:
        same = (wire.source, wire.port, wire.target) == (last.source, last.port, last.target)
        if not same or wire.side or last.side:
            continue
        if wire.name == last.name:
            yield Finding(last.path, f"{reference!r} is named twice; every item would come twice")
        else:
            both = f"{wire.name} and {last.name}"
            yield Finding(last.path, f"{reference!r} is named twice, as {both}; name another output for one of them")
        return


def _no_port(name: str, port: str | None, ports: list[str]) -> str:
    if not ports:
        return f"{name!r} is a sink and gives nothing; take the output of the node before it"
    choices = listed([name if other == UNNAMED_PORT else f"{name}.{other}" for other in ports], last="or")
    if port is None:
        return f"{name!r} has named outputs; write {choices}"
    return f"{name!r} has no output {port!r}{did_you_mean(port, ports) or ';'} write {choices}"


def _meant(reference: str, drafts: Mapping[str, Draft]) -> Iterator[str]:
    name = reference.partition(".")[0]
    guess = nearest(name, drafts)
    if guess is not None:
        yield guess


def _types(wire: Wire, drafts: Mapping[str, Draft], stage_classes: StageClasses) -> Iterator[Finding]:
    source, target = drafts[wire.source], drafts[wire.target]
    if source is target or source.ports is None or target.ports is None:
        return
    emitted, accepted = source.ports.emits[wire.port], _accepted(wire, target.ports)
    if accepted is None or fits(emitted, accepted):
        return
    bridge = _bridge(emitted, accepted, stage_classes())
    remedy = f"put {' -> '.join(bridge)} between them" if bridge else "no stage turns one into the other"
    given = f"{wire.source} ({source.spec.stage}) gives {type_names(emitted)}"
    into = f"{wire.target}.{wire.name}" if wire.name else wire.target
    taken = f"{into} ({target.spec.stage}) takes {type_names(accepted)}"
    yield Finding(wire.path, f"{given}, but {taken}; {remedy}")


def _accepted(wire: Wire, ports: Ports) -> PortType | None:
    """What the target takes by this wire; None if it takes nothing so, which `arity` explains."""
    if wire.side:
        return ports.sides.get(wire.name)
    return ports.joins.get(wire.name) if ports.joins or wire.name else ports.accepts


def _bridge(emitted: PortType, accepted: PortType, classes: Mapping[str, type[Stage]]) -> list[str]:
    """Find the shortest chain of stages from one type to the other; empty if there is none."""
    chains: deque[tuple[PortType, list[str]]] = deque([(emitted, [])])
    seen: set[PortType] = {emitted}
    while chains:
        kind, chain = chains.popleft()
        for name, out in _steps(kind, classes) if len(chain) < MAX_BRIDGE else ():
            if fits(out, accepted):
                return [*chain, name]
            if out not in seen:
                seen.add(out)
                chains.append((out, [*chain, name]))
    return []


def _steps(kind: PortType, classes: Mapping[str, type[Stage]]) -> Iterator[tuple[str, PortType]]:
    for name, stage_class in classes.items():
        if stage_class.accepts is not None and fits(kind, stage_class.accepts):
            yield from ((name, out) for out in stage_class.emits.values())


def _cycles(drafts: Mapping[str, Draft], wires: Sequence[Wire]) -> Iterator[Finding]:
    """Name cycles one by one, each time going on without the ones found."""
    for _ in range(MAX_CYCLES):
        stuck = set(drafts).difference(topological(drafts, wires))
        if not stuck:
            return
        upstream = {wire.target: wire for wire in wires if wire.source in stuck}
        loop = _loop(next(name for name in drafts if name in stuck), upstream)
        yield _cycle(loop, upstream)
        wires = [wire for wire in wires if wire.source not in loop]


def _loop(name: str, upstream: Mapping[str, Wire]) -> list[str]:
    """Walk upstream from a node that has no order: that ends in a cycle, given against the flow."""
    trail: dict[str, None] = {}
    while name not in trail:
        trail[name] = None
        name = upstream[name].source
    names = list(trail)
    return names[names.index(name) :]


def _cycle(loop: list[str], upstream: Mapping[str, Wire]) -> Finding:
    path = upstream[loop[0]].path
    if len(loop) == 1:
        return Finding(path, f"{loop[0]!r} takes its own output; name another node")
    forward = [loop[0], *reversed(loop)]
    return Finding(path, f"the nodes {' -> '.join(forward)} form a cycle; items could never leave it")


def _ends(drafts: Mapping[str, Draft], wiring: Wiring) -> Iterator[Finding]:
    """Check that there is a source and a sink, and that every output is taken."""
    if any(draft.ports is None or not draft.inputs_read for draft in drafts.values()):
        return
    if not any(draft.is_source for draft in drafts.values()):
        reached = f"no source: nothing would ever reach {listed(drafts)}"
        yield Finding(("stages",), f"{reached}; begin with a stage that takes no inputs")
    taken = {wire.source for wire in wiring.wires} | wiring.guessed
    loose = [name for name, draft in drafts.items() if not draft.is_sink and name not in taken]
    sinks = {name for name, draft in drafts.items() if draft.is_sink}
    if loose and not sinks:
        yield Finding(("stages",), f"no sink: the output of {listed(loose)} is never kept; end with one that writes it")
        return
    kept = upstream(sinks | wiring.guessed, wiring.wires) if loose else set[str]()
    for name in loose:
        idle = upstream({name}, wiring.wires) - kept - {name}
        yield Finding(("stages", name), _untaken([other for other in drafts if other in idle]))


def _untaken(idle: list[str]) -> str:
    """`idle` are the nodes that work for this one only."""
    too = f", and {listed(idle)} {'works' if len(idle) == 1 else 'work'} for it alone" if idle else ""
    return f"nobody takes its output{too}; name it in the inputs of another node, or remove it"
