"""Plain data out of composed YAML nodes, with the place of every value and every mistake on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn, cast

import yaml

from framefold.pipeline.document import Mistake, Place
from framefold.pipeline.errors import Problem, SpecError
from framefold.pipeline.findings import KeyPath, dotted, shown
from framefold.pipeline.yaml_scalars import BadScalarError, substituted, typed

MAX_DEPTH = 64
MAX_NODES = 100_000
"""After aliases are written out: a few lines of aliases to aliases can stand for billions of values."""

UNTAGGED = ""
"""The tag of a node without an explicit one."""


def fail(where: str, message: str) -> NoReturn:
    """Give up: there is no document."""
    raise SpecError([Problem(where, "", message)])


def place(name: str, mark: Any) -> str:
    """Format a PyYAML mark: `pipeline.yaml:12:5`."""
    return f"{name}:{mark.line + 1}:{mark.column + 1}"


MERGE_KEY = "merge keys (<<) are not supported; write the options out"


class Builder:
    """Turns composed nodes into plain data, taking notes of places and mistakes."""

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        self._name, self._environment = name, environment
        self._count = 0
        self.places: dict[KeyPath, Place] = {}
        self.mistakes: list[Mistake] = []

    def at(self, node: yaml.Node) -> str:
        """Where the node begins."""
        return place(self._name, node.start_mark)

    def build(self, node: yaml.Node, path: KeyPath, entry: str) -> Any:
        """Build the value of `node`, which belongs at `path`."""
        self._bound(node, path)
        is_scalar = isinstance(node, yaml.ScalarNode)
        self.places[path] = Place(entry, self.at(node) if is_scalar else entry)
        if node.tag != UNTAGGED:
            return self._spoiled(node, path, f"tag {_tag(node)} is not allowed; remove it (quotes make a value text)")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, i), self.at(item)) for i, item in enumerate(node.value)]
        return self._mapping(cast("yaml.MappingNode", node), path)  # YAML has no fourth kind

    def _bound(self, node: yaml.Node, path: KeyPath) -> None:
        self._count += 1
        if self._count > MAX_NODES:
            fail(self.at(node), f"stands for more than {MAX_NODES} values once aliases (*name) are written out")
        if len(path) >= MAX_DEPTH:
            fail(
                self.at(node),
                f"nested more than {MAX_DEPTH} levels deep once aliases (*name) are written out",
            )

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        try:
            text = substituted(node.value, self._environment)
            return typed(text) if node.style is None else text
        except BadScalarError as error:
            return self._spoiled(node, path, str(error))

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        data: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, path)
            if key is None:
                continue
            if key in data:
                self._repeated(key_node, (*path, key), lines[key])
                continue
            lines[key] = key_node.start_mark.line + 1
            data[key] = self.build(value_node, (*path, key), self.at(key_node))
        return data

    def _key(self, node: yaml.Node, path: KeyPath) -> str | None:
        """Return the key's text; None, and a mistake, if it is none."""
        objection = _objection(node)
        if objection is None:
            return str(node.value)
        problem = Problem(self.at(node), dotted(path), objection)
        self.mistakes.append(Mistake(path, problem, spoils=objection == MERGE_KEY))
        return None

    def _repeated(self, node: yaml.Node, path: KeyPath, first_line: int) -> None:
        line = node.start_mark.line + 1
        message = f"key {shown(path[-1])} on line {line} already stands on line {first_line}; keep one of them"
        self.mistakes.append(Mistake(path, Problem(self.at(node), dotted(path), message), spoils=False))

    def _spoiled(self, node: yaml.Node, path: KeyPath, message: str) -> None:
        self.mistakes.append(Mistake(path, Problem(self.at(node), dotted(path), message)))


def _typed_or_text(text: str) -> Any:
    try:
        return typed(text)
    except BadScalarError:
        return text


def _tag(node: yaml.Node) -> str:
    return str(node.tag).replace("tag:yaml.org,2002:", "!!")


def _objection(node: yaml.Node) -> str | None:
    """Why a node is no key; None if it is one."""
    if not isinstance(node, yaml.ScalarNode):
        return "a list or mapping as a key; keys are names"
    if node.tag != UNTAGGED:
        return f"tag {_tag(node)} is not allowed; remove it"
    if node.style is None and node.value == "<<":
        return MERGE_KEY
    key = node.value if node.style is not None else _typed_or_text(node.value)
    return None if isinstance(key, str) else f"key {shown(key)} is not text; keys are names, quote it if it is one"
