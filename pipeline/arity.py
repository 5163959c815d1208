"""Whether a node is given what its stage takes: inputs in the right form, side inputs, engine words that suit it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from framefold.pipeline.draft import Draft
from framefold.pipeline.findings import Finding, did_you_mean, listed, nearest
from framefold.pipeline.stage import Ports, PortType
from framefold.pipeline.wiring import UNNAMED_PORT, fits, split, type_names

Drafts = Mapping[str, Draft]


def check(drafts: Drafts) -> Iterator[Finding]:
    """Every node by itself; the others serve as examples only."""
    for draft in drafts.values():
        yield from _replicas(draft)
        if draft.ports is not None:
            yield from _inputs(draft, draft.ports, drafts) if draft.inputs_read else ()
            yield from _sides(draft, draft.ports, drafts) if draft.sides_read else ()
            yield from _words(draft)


def _replicas(draft: Draft) -> Iterator[Finding]:
    spec = draft.spec
    least, most = spec.min_replicas, spec.max_replicas
    got = str(most) if least == most else f"{least} to {most}"
    at = ("stages", draft.name, "replicas")
    if most > 1 and draft.stage_class is not None and draft.stage_class.stateful:
        yield Finding(at, f"{spec.stage} sees all items in order, so it has 1 replica, got {got}")
    elif most > 1 and draft.is_source:
        remedy = "each would give all of it; divide what it reads over several nodes"
        yield Finding(at, f"{spec.stage} is a source, so it has 1 replica, got {got}: {remedy}")


def _words(draft: Draft) -> Iterator[Finding]:
    at = ("stages", draft.name)
    if draft.is_source and draft.spec.batch is not None:
        message = f"{draft.spec.stage} is a source and takes no items that could be batched; remove it"
        yield Finding((*at, "batch"), message, at_key=True)
    if draft.is_sink and draft.spec.store:
        yield Finding((*at, "store"), f"{draft.spec.stage} is a sink and gives nothing that could be kept; remove it")


def _inputs(draft: Draft, ports: Ports, drafts: Drafts) -> Iterator[Finding]:
    at, given = ("stages", draft.name, "inputs"), draft.spec.inputs
    if ports.is_source:
        if given:
            yield Finding(at, f"{draft.spec.stage} is a source and takes no inputs; remove them", at_key=True)
    elif ports.joins and given and isinstance(given, dict):
        yield from _names(draft, given, ports.joins, "inputs", drafts)
    elif ports.joins:
        joined = f"{draft.spec.stage} joins {_typed(ports.joins)}, item by item"
        yield Finding(at, f"{joined}; write inputs: {_form(ports.joins, list(given), drafts)}")
    elif ports.accepts is not None and not given:
        needed = f"{draft.spec.stage} needs inputs that give {type_names(ports.accepts)}"
        yield Finding(at, f"{needed}{_such_as(draft, ports.accepts, drafts)}; write inputs: [NODE]")
    elif isinstance(given, dict):
        merged = f"{draft.spec.stage} merges its inputs, which have no names"
        yield Finding(at, f"{merged}; write inputs: [{', '.join(given.values())}]")


def _sides(draft: Draft, ports: Ports, drafts: Drafts) -> Iterator[Finding]:
    at, given = ("stages", draft.name, "side_inputs"), draft.spec.side_inputs
    if given and not ports.sides:
        yield Finding(at, f"{draft.spec.stage} takes no side inputs; remove them", at_key=True)
    elif ports.sides and not given:
        needed = f"{draft.spec.stage} needs {_typed(ports.sides)} before its first item"
        yield Finding(at, f"{needed}; write side_inputs: {_form(ports.sides, [], drafts)}")
    else:
        yield from _names(draft, given, ports.sides, "side_inputs", drafts)


def _names(
    draft: Draft, given: Mapping[str, str], needed: Mapping[str, PortType], word: str, drafts: Drafts
) -> Iterator[Finding]:
    """Names that the stage does not know, and names that are missing, unless they were only misspelt."""
    at, stage = ("stages", draft.name, word), draft.spec.stage
    strange = [name for name in given if name not in needed]
    for name in strange:
        hint = did_you_mean(name, needed) or ";"
        yield Finding((*at, name), f"{stage} takes nothing by this name{hint} known: {listed(needed)}", at_key=True)
    meant = {nearest(name, needed) for name in strange}
    for name in needed:
        if name not in given and name not in meant:
            example = _such_as(draft, needed[name], drafts)
            yield Finding(at, f"{stage} needs {name} ({type_names(needed[name])}) too{example}; write {name}: NODE")


def _typed(ports: Mapping[str, PortType]) -> str:
    return listed([f"{name} ({type_names(kind)})" for name, kind in ports.items()])


def _form(needed: Mapping[str, PortType], given: list[str], drafts: Drafts) -> str:
    """`{network: fitted, original: clips}`, as far as what is given fits."""
    parts = []
    for name, kind in needed.items():
        fit = next((reference for reference in given if _fits(reference, kind, drafts)), "NODE")
        given = [reference for reference in given if reference != fit]
        parts.append(f"{name}: {fit}")
    return f"{{{', '.join(parts)}}}"


def _fits(reference: str, kind: PortType, drafts: Drafts) -> bool:
    node, port = split(reference)
    ports = drafts[node].ports if node in drafts else None
    return ports is not None and port in ports.emits and fits(ports.emits[port], kind)


def _such_as(draft: Draft, kind: PortType, drafts: Drafts) -> str:
    """`, such as frames or halves.odd`: outputs of other nodes that would do."""
    used = [reference.text for reference in draft.spec.references()]
    outputs = [output for other in drafts.values() if other is not draft for output in _outputs(other)]
    choices = [output for output in outputs if output not in used and _fits(output, kind, drafts)]
    return f", such as {listed(choices, last='or')}" if choices else ""


def _outputs(draft: Draft) -> Sequence[str]:
    ports: Collection[str] = draft.ports.emits if draft.ports is not None else ()
    return [draft.name if port == UNNAMED_PORT else f"{draft.name}.{port}" for port in ports]
