"""One suite for every stage: a new stage gets its tests by naming itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from pydantic import ValidationError

from framefold.pipeline.draft import EngineWords
from framefold.pipeline.item import Item, unit_key
from framefold.pipeline.stage import Emit, Hint, Progress, Refused, Row, Stage, StageContext, types_of


def check_stage(
    stage_class: type[Stage],
    config: Mapping[str, Any],
    items: Sequence[Any] = (),
    *,
    context: StageContext | None = None,
) -> list[Any]:
    """Put a stage through a replica's life, twice, and return the payloads that it emitted.

    `config` holds the stage's own options as they stand in YAML; `items` are payloads or `Item`s, none for a
    source. Checked: options survive JSON, leave the engine's words alone and refuse unknown names; `close`
    needs no `setup`; only declared ports and types come out; a second replica emits the same.
    """
    options = _check_config(stage_class, config)
    stage_class(options).close()
    items = [_enveloped(item, number) for number, item in enumerate(items)]
    context = context or StageContext(node="checked")
    emitted = _emitted(stage_class, options, items, context)
    again = _emitted(stage_class, options, items, context)
    if not _same([_plain(emit) for emit in emitted], [_plain(emit) for emit in again]):
        raise AssertionError(f"{stage_class.__name__}: a second replica emits something else for the same items")
    return [emit.payload for emit in emitted]


def _check_config(stage_class: type[Stage], config: Mapping[str, Any]) -> Any:
    model = stage_class.Config
    options = model.model_validate_json(json.dumps(config), strict=True)
    if model.model_validate_json(options.model_dump_json(), strict=True) != options:
        raise AssertionError(f"{stage_class.__name__}.Config does not survive JSON: {options!r}")
    taken = sorted(set(model.model_fields) & set(EngineWords.model_fields))
    if taken:
        raise AssertionError(f"{stage_class.__name__}.Config uses words of the engine: {', '.join(taken)}")
    try:
        model.model_validate_json(json.dumps({**config, "no_such_option": 1}), strict=True)
    except ValidationError:
        return options
    raise AssertionError(f"{stage_class.__name__}.Config accepts unknown options; derive it from Options")


def _enveloped(item: Any, number: int) -> Item:
    if isinstance(item, Item):
        return item
    return Item(key=unit_key("checked", str(number)), label=f"item {number}", seq=(0, number), payload=item)


def _emitted(stage_class: type[Stage], options: Any, items: Sequence[Item], context: StageContext) -> list[Emit]:
    """All that one replica emits in its life, port and type checked."""
    stage = stage_class(options)
    try:
        stage.setup(context)
        return [emit for output in _outputs(stage, options, items) for emit in _checked(stage, options, output)]
    finally:
        stage.close()


def _outputs(stage: Stage, options: Any, items: Sequence[Item]) -> Iterator[Any]:
    if stage.ports(options).accepts is None:
        yield from stage.produce()
    for item in items:
        yield from stage.process(item)
    yield from stage.finish()


def _checked(stage: Stage, options: Any, output: Any) -> Iterator[Emit]:
    """Yield the output as an `Emit`; nothing for what does not travel on."""
    if isinstance(output, Progress) and not 0 <= output.fraction <= 1:
        raise AssertionError(f"{type(stage).__name__} reports a progress of {output.fraction}, not within 0..1")
    if isinstance(output, Progress | Refused | Row | Hint):
        return
    emit = output if isinstance(output, Emit) else Emit(output)
    declared, given = stage.ports(options).emits, type(emit.payload).__name__
    if emit.port not in declared:
        raise AssertionError(f"{type(stage).__name__} emits on {emit.port!r}, which is none of its ports")
    if not isinstance(emit.payload, types_of(declared[emit.port])):
        raise AssertionError(f"{type(stage).__name__} emits {given} on {emit.port!r}, which it declares otherwise")
    yield emit


def _plain(emit: Emit) -> tuple[Any, ...]:
    return (emit.port, emit.identity, emit.label, emit.payload)


def _same(one: Any, other: Any) -> bool:
    """Equality that looks into dataclasses and containers, and compares arrays by value and type."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return bool(one.dtype == other.dtype and np.array_equal(one, other))
    if is_dataclass(one) and not isinstance(one, type):
        return all(_same(getattr(one, part.name), getattr(other, part.name)) for part in fields(one))
    if isinstance(one, Mapping):
        return list(one) == list(other) and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)
