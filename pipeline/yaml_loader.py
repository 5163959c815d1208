"""A strict reader of YAML files: plain data, and the line and column of every value.

It composes with PyYAML's safe loader and builds the values itself, because PyYAML's own constructors read
`5e-4` as text, `no` as False and `22:30` as 1350, and keep the last of two equal keys. Whatever is refused is
collected, so that one reading reports every mistake; only a syntax error ends it at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from framefold.pipeline.errors import Problem, SpecError
from framefold.pipeline.findings import KeyPath, dotted, shown
from framefold.pipeline.yaml_scalars import BadScalarError, substituted, typed

MAX_BYTES = 2**20
MAX_DEPTH = 64
MAX_NODES = 100_000
"""After aliases are written out: a few lines of aliases to aliases can stand for billions of values."""

_UNTAGGED = ""


@dataclass(frozen=True)
class Place:
    """Where a value stands."""

    entry: str
    """Where its key begins, or the list item itself: `pipeline.yaml:12:5`."""
    value: str
    """Where a scalar begins; for a list or a mapping the same as `entry`."""


@dataclass(frozen=True)
class Mistake:
    """A problem together with the value it belongs to."""

    path: KeyPath
    problem: Problem
    spoils: bool = True
    """The value could not be read and stands as None: what later checks say about it is noise."""


@dataclass(frozen=True, kw_only=True)
class Document:
    """What was read: plain data with places."""

    name: str
    """The file as the user named it."""
    data: Any
    """dict, list, str, int, float, bool or None, all the way down."""
    places: Mapping[KeyPath, Place] = field(repr=False, default_factory=dict)
    mistakes: tuple[Mistake, ...] = ()

    def where(self, path: KeyPath, *, key: bool = False) -> str:
        """`pipeline.yaml:12:5` for the value at `path`, or for the nearest enclosing one that has a place.

        A list or a mapping is found at its key; `key=True` asks for the key of a scalar too.
        """
        for length in range(len(path), -1, -1):
            if place := self.places.get(path[:length]):
                return place.entry if key or length < len(path) else place.value
        return self.name

    def is_spoiled(self, path: KeyPath) -> bool:
        """Whether the value at `path`, or one around it, could not be read."""
        return any(bad.spoils and bad.path == path[: len(bad.path)] for bad in self.mistakes)

    def problem(self, path: KeyPath, message: str, *, key: bool = False) -> Problem:
        """A problem of the value at `path`, with its place."""
        return Problem(self.where(path, key=key), dotted(path), message)

    def checked(self) -> Document:
        """The document itself. SpecError with all its problems if there are any."""
        if self.mistakes:
            raise SpecError([mistake.problem for mistake in self.mistakes])
        return self


def read_file(path: Path, *, environment: Mapping[str, str] | None = None) -> Document:
    """Read a YAML file; what is wrong with single values is in the document's `mistakes`.

    SpecError where there is no document at all: no file, no UTF-8, a syntax error, nothing in it.
    """
    return read_text(_text_of(path), name=str(path), environment=environment)


def read_text(text: str, *, name: str, environment: Mapping[str, str] | None = None) -> Document:
    """The same for YAML text; `environment` is the process's own by default."""
    root = _compose(text, name)
    if root is None:
        _fail(name, "is empty; a pipeline file begins with `pipeline: NAME` and lists its `stages:`")
    builder = _Builder(name, os.environ if environment is None else environment)
    data = builder.build(root, (), builder.at(root))
    return Document(name=name, data=data, places=builder.places, mistakes=tuple(builder.mistakes))


def read_value(text: str, *, name: str, environment: Mapping[str, str] | None = None) -> Any:
    """A single value by the same rules, for the command line; nothing is None. SpecError with all problems."""
    return read_text(text, name=name, environment=environment).checked().data if text.strip() else None


def _fail(where: str, message: str) -> NoReturn:
    raise SpecError([Problem(where, "", message)])


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        _fail(str(path), "no such file; give the path of a pipeline file, such as pipeline.yaml")
    except IsADirectoryError:
        _fail(str(path), "is a directory; name the pipeline file in it")
    except OSError as error:
        _fail(str(path), f"cannot be read: {error.strerror or error}")
    if len(raw) > MAX_BYTES:
        _fail(str(path), f"is larger than {MAX_BYTES} bytes; is it a pipeline file?")
    return _decoded(raw, path)


def _decoded(raw: bytes, path: Path) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        _fail(f"{path}:{line}:{column}", f"byte 0x{raw[error.start]:02x} is not UTF-8; save the file as UTF-8")


class _Composer(yaml.SafeLoader):
    """PyYAML's composer, bounded in depth; plain scalars keep their text, tags only what was written."""

    depth = 0

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        """No implicit types: `_Builder` decides."""
        return _UNTAGGED

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Count the depth, for the composer recurses."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(
                problem=f"nested more than {MAX_DEPTH} levels deep", problem_mark=self.peek_event().start_mark
            )
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _compose(text: str, name: str) -> yaml.Node | None:
    try:
        loader = _Composer(text)
        root = loader.get_node() if loader.check_node() else None
        if root is not None and loader.check_node():
            mark = loader.peek_event().start_mark
            _fail(_at(name, mark), "a second document begins here; put each pipeline into a file of its own")
    except yaml.reader.ReaderError as error:
        _fail(_position(text, error.position, name), f"character U+{ord(error.character):04X} is not allowed in YAML")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        _fail(_at(name, mark) if mark else name, _syntax_message(error, text))
    return root


def _syntax_message(error: yaml.MarkedYAMLError, text: str) -> str:
    parts = [part for part in (error.context, error.problem) if part]
    line = text.split("\n")[error.problem_mark.line] if error.problem_mark else ""
    hint = ""
    if "'\\t'" in parts[-1]:
        hint = "; indent with spaces"
    elif "${" in line:
        hint = "; inside { } or [ ] a ${NAME} must be quoted"
    return f"not valid YAML: {', '.join(parts)}{hint}"


def _at(name: str, mark: Any) -> str:
    return f"{name}:{mark.line + 1}:{mark.column + 1}"


def _position(text: str, offset: int, name: str) -> str:
    before = text[:offset]
    return f"{name}:{before.count(chr(10)) + 1}:{offset - before.rfind(chr(10))}"


class _Builder:
    """Turns composed nodes into plain data, taking notes of places and mistakes."""

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        self._name, self._environment = name, environment
        self._count = 0
        self.places: dict[KeyPath, Place] = {}
        self.mistakes: list[Mistake] = []

    def at(self, node: yaml.Node) -> str:
        """Where the node begins."""
        return _at(self._name, node.start_mark)

    def build(self, node: yaml.Node, path: KeyPath, entry: str) -> Any:
        """The value of `node`, which belongs at `path`."""
        self._bound(node, path)
        is_scalar = isinstance(node, yaml.ScalarNode)
        self.places[path] = Place(entry, self.at(node) if is_scalar else entry)
        if node.tag != _UNTAGGED:
            return self._spoiled(node, path, f"tag {_tag(node)} is not allowed; remove it (quotes make a value text)")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, i), self.at(item)) for i, item in enumerate(node.value)]
        return self._mapping(node, path)

    def _bound(self, node: yaml.Node, path: KeyPath) -> None:
        self._count += 1
        if self._count > MAX_NODES:
            _fail(self.at(node), f"stands for more than {MAX_NODES} values once aliases (*name) are written out")
        if len(path) >= MAX_DEPTH:
            _fail(self.at(node), f"nested more than {MAX_DEPTH} levels deep once aliases (*name) are written out")

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
        """The key's text; None, and a mistake, if it is none."""
        if not isinstance(node, yaml.ScalarNode):
            return self._bad_key(node, path, "a list or mapping as a key; keys are names")
        if node.tag != _UNTAGGED:
            return self._bad_key(node, path, f"tag {_tag(node)} is not allowed; remove it")
        if node.style is not None:
            return str(node.value)
        if node.value == "<<":
            return self._bad_key(node, path, "merge keys (<<) are not supported; write the options out", spoils=True)
        if isinstance(key := _typed_or_text(node.value), str):
            return key
        return self._bad_key(node, path, f"key {shown(key)} is not text; keys are names, quote it if it is one")

    def _bad_key(self, node: yaml.Node, path: KeyPath, message: str, *, spoils: bool = False) -> None:
        self.mistakes.append(Mistake(path, Problem(self.at(node), dotted(path), message), spoils))

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
