"""One node by itself: the engine's words, the stage, its options, and what a look at the machine shows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from framefold.pipeline import registry
from framefold.pipeline.draft import Draft, EngineWords, NodeSpec
from framefold.pipeline.errors import FramefoldError
from framefold.pipeline.findings import Finding, KeyPath, shown
from framefold.pipeline.option_errors import findings, known_names
from framefold.pipeline.stage import Ports, Stage

Extra = Mapping[str, type[Stage]] | None
"""Stage classes that no distribution registers, by name."""

T = TypeVar("T")


@dataclass(frozen=True)
class NodeCheck:
    """A draft and what is wrong with it."""

    draft: Draft
    findings: tuple[Finding, ...]
    """Paths begin at the top of the file."""


def check_node(
    name: str, body: Any, extra: Extra = None, *, shared: Mapping[str, Any] | None = None, preflight: bool = True
) -> NodeCheck:
    """Read what stands under `stages: {name: …}`, as far as it can be read; `preflight` looks at the machine too.

    `shared` are options at the top of the file: the node has those that its stage shares and that it does not state.
    """
    check = _Check(name, body if isinstance(body, dict) else {}, shared or {}, extra, preflight=preflight)
    if not isinstance(body, dict):
        check.note((), f"expected a mapping such as {{stage: segment, inputs: [frames]}}, got {shown(body)}")
        unread = Draft(name=name, spec=NodeSpec(stage=""), inputs_read=False, sides_read=False)
        return NodeCheck(unread, tuple(check.found))
    return NodeCheck(check.draft(), tuple(check.found))


class _Check:
    """The steps, each of which notes its findings and lets the next ones go on."""

    def __init__(
        self, name: str, body: dict[str, Any], shared: Mapping[str, Any], extra: Extra, *, preflight: bool
    ) -> None:
        self._name, self._shared, self._extra, self._preflight = name, shared, extra, preflight
        self._inherited: frozenset[str] = frozenset()
        self._words = {key: value for key, value in body.items() if key in EngineWords.model_fields}
        self._options = {key: value for key, value in body.items() if key not in EngineWords.model_fields}
        self.found: list[Finding] = []

    def note(self, path: KeyPath, message: str) -> None:
        """Keep a finding; `path` begins below the node."""
        self.found.append(self._placed(Finding(path, message)))

    def _placed(self, finding: Finding) -> Finding:
        """Where the value was written: a shared option stands at the top of the file."""
        if finding.path and finding.path[0] in self._inherited:
            return replace(finding, option_of=(self._name,))
        return finding.under("stages", self._name)

    def draft(self) -> Draft:
        """All steps in order."""
        refused = self._refused_words()
        stage_class = None if "stage" in refused else self._stage_class(self._words["stage"])
        self._inherit(stage_class)
        spec = NodeSpec.model_validate_json(json.dumps(self._readable(refused)), strict=True)
        config = self._config(stage_class) if stage_class else None
        if stage_class and config is not None:
            stage_class = self._specialized(stage_class, config)
        return Draft(
            name=self._name,
            spec=spec,
            stage_class=stage_class,
            config=config,
            ports=self._ports(stage_class, config) if stage_class else None,
            inputs_read="inputs" not in refused,
            sides_read="side_inputs" not in refused,
        )

    def _refused_words(self) -> set[str | int]:
        try:
            EngineWords.model_validate_json(json.dumps(self._words), strict=True)
        except ValidationError as error:
            self._note_all(error, self._words, EngineWords)
            return {detail["loc"][0] for detail in error.errors()}
        return set()

    def _readable(self, refused: set[str | int]) -> dict[str, Any]:
        words = {key: value for key, value in self._words.items() if key not in refused}
        return {"stage": "", **words, "options": self._options}

    def _inherit(self, stage_class: type[Stage] | None) -> None:
        """Add the shared options that the node does not state itself."""
        wanted = stage_class.shared & stage_class.Config.model_fields.keys() if stage_class else frozenset()
        inherited = {name: value for name, value in self._shared.items() if name in wanted - self._options.keys()}
        self._inherited = frozenset(inherited)
        self._options |= inherited

    def _stage_class(self, stage: str) -> type[Stage] | None:
        try:
            return registry.load_stage(stage, self._extra)
        except registry.PluginError as error:
            self.note(("stage",), str(error))
            return None

    def _config(self, stage_class: type[Stage]) -> Any:
        for name in EngineWords.model_fields.keys() & stage_class.Config.model_fields.keys():
            message = f"{stage_class.__name__} has an option {name!r}, which is a word of the engine"
            self.note(("stage",), f"{message}; ask the stage's author to rename it")
        try:
            config = stage_class.Config.model_validate_json(json.dumps(self._options), strict=True)
        except ValidationError as error:
            self._note_all(error, self._options, stage_class.Config)
            return None
        except FramefoldError as error:
            self.note((), str(error))
            return None
        except Exception as error:  # a validator of a plugin may raise anything
            self.note((), _fault(stage_class, "Config", error))
            return None
        if self._preflight:
            for option, message in self._ask(stage_class, "preflight", lambda: stage_class.preflight(config)) or ():
                self.note(_path_of(option), message)
        return config

    def _specialized(self, stage_class: type[Stage], config: Any) -> type[Stage]:
        return self._ask(stage_class, "specialized", lambda: stage_class.specialized(config)) or stage_class

    def _ports(self, stage_class: type[Stage], config: Any) -> Ports | None:
        """Ports under these options; where the options were refused, the ones that no option changes."""
        ports = self._declared_ports(stage_class, config)
        if ports is not None and ports.joins and ports.accepts is not None:
            message = f"{stage_class.__name__} both accepts items and joins them; ask the stage's author to choose"
            self.note(("stage",), message)
            return None
        return ports

    def _declared_ports(self, stage_class: type[Stage], config: Any) -> Ports | None:
        if config is not None:
            return self._ask(stage_class, "ports", lambda: stage_class.ports(config))
        overridden = "ports" in {name for kind in stage_class.__mro__ if kind is not Stage for name in vars(kind)}
        if overridden:
            return None
        return Ports(stage_class.accepts, stage_class.emits, stage_class.joins, stage_class.sides)

    def _ask(self, stage_class: type[Stage], hook: str, answer: Callable[[], T]) -> T | None:
        try:
            return answer()
        except FramefoldError as error:
            self.note((), str(error))
        except Exception as error:  # the hook is a plugin's code
            self.note((), _fault(stage_class, hook, error))
        return None

    def _note_all(self, error: ValidationError, data: Mapping[str, Any], model: type[BaseModel]) -> None:
        def known(path: KeyPath) -> Sequence[str]:
            return _known(model, data, path)

        self.found += [self._placed(finding) for finding in findings(error, data, known)]


def _known(model: type[BaseModel], data: Mapping[str, Any], path: KeyPath) -> list[str]:
    """Option names allowed at `path`: a node's own with the engine's words, a codec's with its name."""
    names = known_names(model, path)
    if not path:
        return [*EngineWords.model_fields, *(name for name in names if name not in EngineWords.model_fields)]
    return list(dict.fromkeys(names + _codec_options(data["codec"]))) if path == ("codec",) else names


def _codec_options(codec: Any) -> list[str]:
    try:
        return ["name", *registry.load_codec(codec["name"]).Config.model_fields]
    except (registry.PluginError, LookupError, TypeError, AttributeError):
        return []


def _path_of(option: str) -> KeyPath:
    return tuple(int(step) if step.isdecimal() else step for step in option.split(".") if step)


def _fault(stage_class: type[Stage], hook: str, error: Exception) -> str:
    cause = f"{type(error).__name__}: {error}"
    return f"{stage_class.__name__}.{hook} failed with {cause}; report it to the stage's author"
