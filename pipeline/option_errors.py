"""pydantic's complaints as findings: the path in the file, expected, got, remedy."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic_core import ErrorDetails

from framefold.pipeline.findings import Finding, KeyPath, did_you_mean, listed, shown
from framefold.pipeline.yaml_scalars import BadScalarError, typed

KnownNames = Callable[[KeyPath], Sequence[str]]
"""The option names that are allowed in the mapping at a path."""

_EXPECTED: Mapping[str, str] = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "string_type": "text",
    "path_type": "a path",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "none_required": "nothing (null)",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dataclass_type": "a mapping",
}
_NUMBERS = ("a whole number", "a number")
_OCTAL = re.compile(r"0[1-7][0-7]{0,9}")
_WORDS = {"yes": "true", "on": "true", "no": "false", "off": "false"}
"""What older YAML takes for true and false, and this one for text."""


def findings(error: ValidationError, data: Any, known: KnownNames) -> list[Finding]:
    """Make one finding per refused value in `data`; the alternatives of a union share a sentence."""
    refused: defaultdict[KeyPath, list[ErrorDetails]] = defaultdict(list)
    for detail in error.errors(include_url=False):
        refused[_path_in(data, detail)].append(detail)
    return [
        Finding(path, _sentence(details, path, known), at_key=_at_key(details[0]))
        for path, details in refused.items()
        if not _explained_below(path, refused)
    ]


def _at_key(detail: ErrorDetails) -> bool:
    return detail["type"] == "extra_forbidden" or detail["loc"][-1:] == ("[key]",)


def known_names(model: type[BaseModel], path: KeyPath) -> list[str]:
    """Return the option names of the mapping at `path` below `model`; empty where any will do."""
    schema = json_schema(model)
    parts = list(_resolved(schema, schema))
    for step in path:
        parts = [found for part in parts for child in _children(part, step) for found in _resolved(child, schema)]
    return list(dict.fromkeys(name for part in parts for name in part.get("properties", {})))


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the model's JSON schema; empty if one of its fields has none."""
    try:
        return model.model_json_schema()
    except PydanticInvalidForJsonSchema:
        return {}


def _path_in(data: Any, detail: ErrorDetails) -> KeyPath:
    """Find the place of an error, without pydantic's names for the alternatives of a union."""
    path: list[str | int] = []
    for step in detail["loc"]:
        if _holds(data, step):
            path.append(step)
            data = data[step]
    return (*path, detail["loc"][-1]) if detail["type"] == "missing" else tuple(path)


def _holds(data: Any, step: str | int) -> bool:
    if isinstance(data, Mapping):
        return step in data
    return isinstance(data, list) and isinstance(step, int) and step < len(data)


def _explained_below(path: KeyPath, refused: Mapping[KeyPath, Sequence[ErrorDetails]]) -> bool:
    """Tell whether a union's type mismatch is noise, because its other alternative was taken seriously."""
    deeper = any(len(other) > len(path) and other[: len(path)] == path for other in refused)
    return deeper and all(detail["type"] in _EXPECTED for detail in refused[path])


def _sentence(details: Sequence[ErrorDetails], path: KeyPath, known: KnownNames) -> str:
    expected = list(dict.fromkeys(_EXPECTED.get(detail["type"], "") for detail in details))
    if all(expected):
        return _mismatch(details[0]["input"], expected, known(path))
    if any(_is_bound(detail) for detail in details):
        details = [detail for detail in details if detail["type"] not in _EXPECTED]
    return " or ".join(dict.fromkeys(_message(detail, path, known) for detail in details))


def _is_bound(detail: ErrorDetails) -> bool:
    """The value is of the right kind, so that what else it could be is noise."""
    return detail["type"] not in {*_EXPECTED, "literal_error", "enum", "missing", "extra_forbidden"}


def _message(detail: ErrorDetails, path: KeyPath, known: KnownNames) -> str:
    value, context = detail["input"], detail.get("ctx", {})
    match detail["type"]:
        case "missing":
            return "is missing, and has no default"
        case "extra_forbidden":
            return _unknown_option(path, known(path[:-1]))
        case "literal_error" | "enum":
            return _not_one_of(value, str(context["expected"]))
        case "value_error" | "assertion_error":
            return str(context["error"])
        case kind if kind in _EXPECTED:
            return _mismatch(value, [_EXPECTED[kind]], known(path))
    message = str(detail["msg"]).replace("Input should", "should").replace("List should", "should")
    return f"{message}, got {shown(value)}" if "should" in message else message


def _unknown_option(path: KeyPath, allowed: Sequence[str]) -> str:
    if not allowed:
        return "unknown option; remove it"
    return f"unknown option{did_you_mean(str(path[-1]), allowed) or ';'} known: {listed(sorted(allowed))}"


def _not_one_of(value: Any, expected: str) -> str:
    allowed = re.findall(r"'([^']*)'", expected)
    guess = did_you_mean(value, allowed) if isinstance(value, str) else ""
    return f"expected {expected}, got {shown(value)}{guess}"


def _mismatch(value: Any, expected: Sequence[str], names: Sequence[str]) -> str:
    """`names` are the options of the mapping that could stand here."""
    remedies = [remedy for kind in expected for remedy in _remedy(value, kind)]
    kinds = [f"{kind} ({', '.join(names)})" if names and kind == "a mapping" else kind for kind in expected]
    sentence = f"expected {listed(kinds, last='or')}, got {shown(value)}"
    return f"{sentence}; {' or '.join(remedies)}" if remedies else sentence


def _remedy(value: Any, expected: str) -> Iterator[str]:
    if isinstance(value, str) and expected in _NUMBERS and _is_number(value):
        yield "remove the quotes"
    elif isinstance(value, str) and expected in _NUMBERS and _OCTAL.fullmatch(value):
        yield f"write {int(value)} or 0o{value[1:]}"
    elif isinstance(value, float) and expected == "a whole number" and value.is_integer():
        yield f"write {int(value)}"
    elif isinstance(value, str) and expected == "true or false" and value.casefold() in _WORDS:
        yield f"write {_WORDS[value.casefold()]}"
    elif isinstance(value, bool | int | float) and expected in {"text", "a path"}:
        yield f'quote it: "{shown(value)}"'
    elif isinstance(value, str | int | float) and expected == "a list":
        yield f"write [{value}]"


def _is_number(text: str) -> bool:
    try:
        return isinstance(typed(text), int | float)
    except BadScalarError:
        return False


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Follow references and alternatives: each possible shape once."""
    if reference := schema.get("$ref"):
        yield from _resolved(root["$defs"][reference.rpartition("/")[2]], root)
        return
    yield schema
    for alternatives in ("anyOf", "oneOf", "allOf"):
        for part in schema.get(alternatives, ()):
            yield from _resolved(part, root)


def _children(schema: Mapping[str, Any], step: str | int) -> Iterator[Mapping[str, Any]]:
    candidates = (
        [*schema.get("prefixItems", ()), schema.get("items")]
        if isinstance(step, int)
        else [schema.get("properties", {}).get(step), schema.get("additionalProperties")]
    )
    yield from (child for child in candidates if isinstance(child, Mapping))
