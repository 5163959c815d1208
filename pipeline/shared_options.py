"""Options that stand once at the top of a pipeline file, for every stage that shares them (`Stage.shared`).

The engine does not know what they mean: a node whose stage shares an option, and which does not state it, is checked
as if it stood there. To state it as `null` in a node is to have none there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from framefold.pipeline import registry
from framefold.pipeline.findings import Finding, listed
from framefold.pipeline.stage import Stage

Extra = Mapping[str, type[Stage]] | None
"""Stage classes that no distribution registers, by name."""


def names(classes: Iterable[type[Stage] | None], extra: Extra) -> frozenset[str]:
    """Name the options that these stages share; None is a stage that is not known, and could be any."""
    known = list(classes)
    sharing = [stage for stage in known if stage is not None]
    if len(sharing) < len(known):
        sharing += registry.loadable_stages(extra).values()
    return frozenset().union(*(stage.shared for stage in sharing))


def names_in(data: Any, extra: Extra) -> frozenset[str]:
    """Name the options that the stages of a file share, before the file is checked."""
    nodes = data.get("stages") if isinstance(data, dict) else None
    bodies = nodes.values() if isinstance(nodes, dict) else ()
    written = {str(body.get("stage")) for body in bodies if isinstance(body, dict)}
    return names((_loaded(stage, extra) for stage in sorted(written)), extra)


def _loaded(stage: str, extra: Extra) -> type[Stage] | None:
    try:
        return registry.load_stage(stage, extra)
    except registry.PluginError:
        return None


def unclaimed(keys: Collection[str], extra: Extra) -> Iterator[Finding]:
    """Find fault with options at the top which no stage of the file shares, but others do."""
    for key in keys:
        sharing = sorted(name for name, stage in registry.loadable_stages(extra).items() if key in stage.shared)
        if sharing:
            yield Finding((key,), f"no stage of this file has this option; stages that do: {listed(sharing)}", True)


def merged(found: Iterable[Finding]) -> list[Finding]:
    """Say once what several nodes find wrong with an option that they share, and which nodes do."""
    nodes: defaultdict[Finding, list[str]] = defaultdict(list)
    for finding in found:
        nodes[replace(finding, option_of=())] += finding.option_of
    return [_told(finding, owners) for finding, owners in nodes.items()]


def _told(finding: Finding, owners: Collection[str]) -> Finding:
    return replace(finding, message=f"{finding.message} (an option of {listed(owners)})") if owners else finding
