"""A strict reader of YAML files: plain data, and the line and column of every value.

It composes with PyYAML's safe loader and builds the values itself, because PyYAML's own constructors read
`5e-4` as text, `no` as False and `22:30` as 1350, and keep the last of two equal keys. Whatever is refused is
collected, so that one reading reports every mistake; only a syntax error ends it at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from framefold.pipeline.document import Document
from framefold.pipeline.yaml_builder import MAX_DEPTH, UNTAGGED, Builder, fail, place

MAX_BYTES = 2**20


def read_file(path: Path, *, environment: Mapping[str, str] | None = None) -> Document:
    """Read a YAML file; what is wrong with single values is in the document's `mistakes`.

    SpecError where there is no document at all: no file, no UTF-8, a syntax error, nothing in it.
    """
    return read_text(_text_of(path), name=str(path), environment=environment)


def read_text(text: str, *, name: str, environment: Mapping[str, str] | None = None) -> Document:
    """Read YAML text in the same way; `environment` is the process's own by default."""
    root = _compose(text, name)
    if root is None:
        fail(name, "is empty; a pipeline file begins with `pipeline: NAME` and lists its `stages:`")
    builder = Builder(name, os.environ if environment is None else environment)
    data = builder.build(root, (), builder.at(root))
    return Document(name=name, data=data, places=builder.places, mistakes=tuple(builder.mistakes))


def read_value(text: str, *, name: str, environment: Mapping[str, str] | None = None) -> Any:
    """Read a single value by the same rules, for the command line; no text is None. SpecError as above."""
    return read_text(text, name=name, environment=environment).checked().data if text.strip() else None


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        fail(str(path), "no such file; give the path of a pipeline file, such as pipeline.yaml")
    except IsADirectoryError:
        fail(str(path), "is a directory; name the pipeline file in it")
    except OSError as error:
        fail(str(path), f"cannot be read: {error.strerror or error}")
    if len(raw) > MAX_BYTES:
        fail(str(path), f"is larger than {MAX_BYTES} bytes; is it a pipeline file?")
    return _decoded(raw, path)


def _decoded(raw: bytes, path: Path) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        fail(f"{path}:{line}:{column}", f"byte 0x{raw[error.start]:02x} is not UTF-8; save the file as UTF-8")


class _Composer(yaml.SafeLoader):
    """PyYAML's composer, bounded in depth; plain scalars keep their text, tags only what was written."""

    depth = 0

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        """No implicit types: `Builder` decides."""
        return UNTAGGED

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Count the depth, for the composer recurses."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(
                problem=f"nested more than {MAX_DEPTH} levels deep",
                problem_mark=self.peek_event().start_mark,  # type: ignore[no-untyped-call]  # PyYAML's stubs lack it
            )
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _compose(text: str, name: str) -> yaml.Node | None:
    try:
        loader = _Composer(text)
        root = loader.get_node() if loader.check_node() else None
        if root is not None and loader.check_node():
            mark = loader.peek_event().start_mark  # type: ignore[no-untyped-call]  # PyYAML's stubs lack it
            fail(place(name, mark), "a second document begins here; put each pipeline into a file of its own")
    except yaml.reader.ReaderError as error:
        fail(
            _position(text, error.position, name),
            f"character U+{ord(text[error.position]):04X} is not allowed in YAML",
        )
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        fail(place(name, mark) if mark else name, _syntax_message(error, text))
    return root


def _syntax_message(error: yaml.MarkedYAMLError, text: str) -> str:
    parts = [part for part in (error.context, error.problem) if part]
    index = error.problem_mark.index if error.problem_mark else 0
    line = text[:index].rpartition("\n")[2] + text[index:].partition("\n")[0]
    hint = ""
    if "'\\t'" in parts[-1]:
        hint = "; indent with spaces"
    elif "${" in line:
        hint = "; inside { } or [ ] a ${NAME} must be quoted"
    return f"not valid YAML: {', '.join(parts)}{hint}"


def _position(text: str, offset: int, name: str) -> str:
    before = text[:offset]
    return f"{name}:{before.count(chr(10)) + 1}:{offset - before.rfind(chr(10))}"
