"""A pipeline file, or the same as plain data, becomes a checked pipeline; the only reader of YAML.

Every mistake is reported at once: what the YAML says, the engine's words, each stage's own options, the
connections, and what a look at the machine shows.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from framefold.pipeline import arity, joining, registry, shared_options, wiring
from framefold.pipeline.document import Document
from framefold.pipeline.draft import Draft, NodeSpec
from framefold.pipeline.errors import Problem, SpecError
from framefold.pipeline.findings import Finding, shown
from framefold.pipeline.graph import Graph, assemble
from framefold.pipeline.node_check import Extra, check_node
from framefold.pipeline.option_errors import findings, known_names
from framefold.pipeline.overrides import apply
from framefold.pipeline.stage import Options, Stage
from framefold.pipeline.yaml_loader import read_file

_NODE_NAME = re.compile(r"[a-z][a-z0-9_]*")
_PIPELINE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")
_PLACE = re.compile(r":(\d+):(\d+)$")


class Header(Options):
    """What a pipeline file says beside its stages."""

    pipeline: Annotated[str, Field(pattern=_PIPELINE_NAME, max_length=100, description="name of the pipeline")]
    seed: int = Field(default=0, ge=0, lt=2**63, description="of everything random")
    run_dir: Path | None = Field(default=None, description="for reports and checkpoints; out/NAME.run by default")
    fail_fast: bool = Field(default=False, description="end the run at the first item that is set aside")
    checkpoint_seconds: float = Field(
        default=60, gt=0, allow_inf_nan=False, description="between two checkpoints of an item that takes long"
    )
    drain_seconds: float = Field(
        default=30, ge=0, allow_inf_nan=False, description="for the items under way, when the run is asked to stop"
    )
    stages: dict[str, Any]


_TOP_LEVEL = tuple(word for word in Header.model_fields if word != "stages")


class PipelineSpec(BaseModel, frozen=True):
    """A pipeline file, resolved: defaults, overrides and variables filled in."""

    pipeline: str
    seed: int
    run_dir: Path
    fail_fast: bool
    checkpoint_seconds: float
    drain_seconds: float
    stages: Mapping[str, NodeSpec]


@dataclass(frozen=True, kw_only=True)
class CheckedPipeline:
    """A pipeline that can run as far as can be told beforehand."""

    file: str
    """Where it was read from, as the user named it."""
    spec: PipelineSpec
    graph: Graph
    warnings: tuple[Problem, ...] = ()
    """What looks odd, but is allowed."""

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self.spec.pipeline

    @property
    def seed(self) -> int:
        """The seed of everything random."""
        return self.spec.seed

    @property
    def run_dir(self) -> Path:
        """Where reports and checkpoints go."""
        return self.spec.run_dir

    @property
    def fail_fast(self) -> bool:
        """Whether the first item that is set aside ends the run."""
        return self.spec.fail_fast

    @property
    def checkpoint_seconds(self) -> float:
        """Seconds between two checkpoints of an item that takes long."""
        return self.spec.checkpoint_seconds

    @property
    def drain_seconds(self) -> float:
        """Seconds for the items under way, when the run is asked to stop."""
        return self.spec.drain_seconds


def load(
    path: str | Path, overrides: Sequence[str] = (), *, extra_stages: Extra = None, preflight: bool = True
) -> CheckedPipeline:
    """Read and check a pipeline file; overrides look like `fit.codec.size=M`. SpecError with all mistakes.

    Without `preflight` the file alone is checked, not whether what it names is on this machine.
    """
    return _check(read_file(Path(path)), overrides, extra_stages, preflight=preflight)


def from_mapping(
    name: str, mapping: Mapping[str, Any], overrides: Sequence[str] = (), *, extra_stages: Extra = None
) -> CheckedPipeline:
    """Check a pipeline built in code in the same way; `mapping` is what the file would hold.

    `name` stands for the file in messages, and is the pipeline's name unless the mapping gives one. Paths in
    the mapping may be `pathlib.Path`s. TypeError for values that no file could hold.
    """
    pipeline = _UNFIT.sub("-", name).strip("-._") or "pipeline"
    data = json.loads(json.dumps({"pipeline": pipeline, **mapping}, default=os.fspath, allow_nan=False))
    return _check(Document(name=name, data=data), overrides, extra_stages)


def _check(document: Document, overrides: Sequence[str], extra: Extra, *, preflight: bool = True) -> CheckedPipeline:
    shared = shared_options.names_in(document.data, extra) if overrides else ()
    document = apply(document, overrides, top_level=_TOP_LEVEL, shared=shared)
    beside = _beside_header(document.data)
    nodes = [
        check_node(name, body, extra, shared=beside, preflight=preflight)
        for name, body in _stages(document.data).items()
    ]
    drafts = {node.draft.name: node.draft for node in nodes}
    header, found = _header(document.data, extra, [draft.stage_class for draft in drafts.values()])
    found += shared_options.merged(finding for node in nodes for finding in node.findings)
    wires = wiring.connect(drafts)
    joined = joining.resolve(drafts, wires.wires)
    if drafts:
        found += [*arity.check(drafts), *joined.findings]
        found += wiring.check(drafts, wires, functools.cache(lambda: registry.loadable_stages(extra)))
    problems = [mistake.problem for mistake in document.mistakes] + _problems(document, found)
    if problems or header is None:
        raise SpecError(sorted(problems, key=_line_and_column))
    spec = _resolved(header, drafts)
    return CheckedPipeline(
        file=document.name,
        spec=spec,
        graph=assemble(spec.pipeline, spec.seed, drafts, wires.wires, joined),
        warnings=tuple(_problems(document, wiring.unused_ports(drafts, wires.wires))),
    )


def _beside_header(data: Any) -> dict[str, Any]:
    """What stands at the top and is no word of the engine."""
    return {key: data[key] for key in data if key not in Header.model_fields} if isinstance(data, dict) else {}


def _header(data: Any, extra: Extra, classes: Sequence[type[Stage] | None]) -> tuple[Header | None, list[Finding]]:
    """Read the engine's words; what stands beside them must be an option that the stages share."""
    if not isinstance(data, dict):
        return None, [Finding((), f"expected `pipeline: NAME` and `stages:`, got {shown(data)}")]
    found = [
        Finding(("stages", name), f"{shown(name)} is no name for a node; use a-z, 0-9 and _, a letter first", True)
        for name in _stages(data)
        if not _NODE_NAME.fullmatch(name)
    ]
    if data.get("stages") == {}:
        found.append(Finding(("stages",), "is empty; add nodes, such as `frames: {stage: video_source, path: in.mp4}`"))
    beside = _beside_header(data)
    shared = shared_options.names(classes, extra) if beside else frozenset()
    found += (unclaimed := list(shared_options.unclaimed(beside.keys() - shared, extra)))
    taken = shared.union(*(finding.path for finding in unclaimed))
    try:
        words = {key: value for key, value in data.items() if key not in taken}
        return Header.model_validate_json(json.dumps(words), strict=True), found
    except ValidationError as error:
        return None, found + findings(error, data, lambda path: [*known_names(Header, path), *shared])


def _stages(data: Any) -> dict[str, Any]:
    stages = data.get("stages") if isinstance(data, dict) else None
    return stages if isinstance(stages, dict) else {}


def _resolved(header: Header, drafts: Mapping[str, Draft]) -> PipelineSpec:
    return PipelineSpec(
        pipeline=header.pipeline,
        seed=header.seed,
        run_dir=header.run_dir or Path("out") / f"{header.pipeline}.run",
        fail_fast=header.fail_fast,
        checkpoint_seconds=header.checkpoint_seconds,
        drain_seconds=header.drain_seconds,
        stages={name: draft.spec for name, draft in drafts.items()},
    )


def _problems(document: Document, found: Iterable[Finding]) -> list[Problem]:
    """Tie findings to their places; those about values that could not even be read are left out."""
    return [
        document.problem(finding.path, finding.message, key=finding.at_key)
        for finding in found
        if not document.is_spoiled(finding.path)
    ]


def _line_and_column(problem: Problem) -> tuple[int, int]:
    place = _PLACE.search(problem.where)
    return (int(place[1]), int(place[2])) if place else (0, 0)
