"""`--set fitted.codec.size=M`: changes to a pipeline file from the command line, by the file's own rules."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from framefold.pipeline.document import Document, Mistake, Place
from framefold.pipeline.errors import Problem, SpecError
from framefold.pipeline.findings import KeyPath, did_you_mean, dotted, listed, shown
from framefold.pipeline.yaml_loader import read_value

_FORM = "write --set NODE.OPTION=VALUE"


class _OverrideError(ValueError):
    """Why an override cannot be applied."""


def apply(
    document: Document, overrides: Sequence[str], *, top_level: Collection[str], shared: Collection[str] = ()
) -> Document:
    """Apply every override, one after the other; those that cannot be applied join the mistakes.

    `top_level` names the words that stand beside `stages`, such as `seed`; `shared` the options that may stand there
    too, of which `target.bpp` sets a part.
    """
    for text in overrides if isinstance(document.data, dict) else ():
        document = _apply(document, text, top_level, shared)
    return document


def _apply(document: Document, text: str, top_level: Collection[str], shared: Collection[str]) -> Document:
    where = f"--set {text}"
    try:
        path, value = _parsed(document.data, text, top_level, shared)
        data = _with_value(document.data, path, value)
    except (_OverrideError, SpecError) as error:
        mistakes = _mistakes(error, where)
        return replace(document, mistakes=document.mistakes + mistakes)
    places = {known: place for known, place in document.places.items() if known[: len(path)] != path}
    kept = tuple(mistake for mistake in document.mistakes if mistake.path[: len(path)] != path)
    return replace(document, data=data, places={**places, path: Place(where, where)}, mistakes=kept)


def _mistakes(error: _OverrideError | SpecError, where: str) -> tuple[Mistake, ...]:
    messages = [problem.message for problem in error.problems] if isinstance(error, SpecError) else [str(error)]
    return tuple(Mistake((), Problem(where, "", message), spoils=False) for message in messages)


def _parsed(
    data: Mapping[str, Any], text: str, top_level: Collection[str], shared: Collection[str]
) -> tuple[KeyPath, Any]:
    target, equals, value = text.partition("=")
    keys = target.strip().split(".")
    if not equals or not all(keys):
        raise _OverrideError(f"has no {'value' if not equals else 'option to set'}; {_FORM}")
    return _located(data, keys, top_level, shared), read_value(value, name=f"--set {text}")


def _located(data: Mapping[str, Any], keys: list[str], top_level: Collection[str], shared: Collection[str]) -> KeyPath:
    nodes = data.get("stages")
    nodes = nodes if isinstance(nodes, dict) else {}
    if len(keys) == 1 and keys[0] in top_level:
        return (keys[0],)
    if keys[0] in shared and keys[0] not in nodes:
        return _with_indices(data, tuple(keys))
    if keys[0] == "stages" and "stages" not in nodes:
        keys = keys[1:]
    if not keys or keys[0] not in nodes:
        name = keys[0] if keys else "stages"
        guess = did_you_mean(name, [*nodes, *shared]) or ";"
        raise _OverrideError(f"there is no node {name!r}{guess} nodes: {listed(nodes)}; {_FORM}")
    if len(keys) == 1:
        raise _OverrideError(f"{keys[0]!r} is a node; name one of its options: {_FORM}")
    return _with_indices(data, ("stages", *keys))


def _with_indices(data: Any, keys: tuple[str, ...]) -> KeyPath:
    """Turn keys into numbers where the data has a list."""
    path: list[str | int] = []
    for key in keys:
        if isinstance(data, list):
            path.append(_index(data, key, path))
        elif isinstance(data, dict) or data is None:
            path.append(key)
        else:
            raise _OverrideError(f"{dotted(tuple(path))} is {shown(data)}, not a mapping; set it as a whole")
        data = _child(data, path[-1])
    return tuple(path)


def _index(items: list[Any], key: str, path: list[str | int]) -> int:
    if key.isdecimal() and int(key) < len(items):
        return int(key)
    name = dotted(tuple(path))
    raise _OverrideError(f"{name} is a list of {len(items)}; give an index below that, or set the whole list")


def _child(data: Any, step: str | int) -> Any:
    if isinstance(data, dict):
        return data.get(str(step))
    return data[int(step)] if isinstance(data, list) else None


def _with_value(data: dict[str, Any], path: KeyPath, value: Any) -> dict[str, Any]:
    """Copy `data` with `value` at `path`; mappings on the way there are made."""
    changed = copy.deepcopy(data)
    at: Any = changed
    for step in path[:-1]:
        if isinstance(at, dict) and at.get(str(step)) is None:
            at[str(step)] = {}
        at = at[step]
    at[path[-1]] = value
    return changed
