"""What `pipeline plugins` tells of every registered stage and codec, broken ones included."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from framefold.pipeline import registry
from framefold.pipeline.option_errors import json_schema
from framefold.pipeline.stage import types_of

CODEC_EMITS = ("FittedNetwork",)
"""What a codec makes of pixels, unless its class says otherwise; the engine does not import codecs."""
_SPARSE = {"joins", "sides", "shared", "error"}

Names = tuple[str, ...]
Ports = Mapping[str, Any]
"""The fields of a `Description` that say what is taken and given."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """One plugin."""

    name: str
    distribution: str
    summary: str = ""
    """First line of the class's docstring."""
    accepts: Names = ()
    """Type names; empty for a source, and for a stage that joins."""
    joins: Mapping[str, Names] = field(default_factory=dict)
    """Type names by join input."""
    sides: Mapping[str, Names] = field(default_factory=dict)
    """Type names by side input."""
    emits: Mapping[str, Names] | Names = ()
    """Type names: by port for a stage, plainly for a codec."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """JSON schema of the `Config`."""
    shared: Names = ()
    """Options that may also stand at the top of a pipeline file."""
    error: str = ""
    """Why it cannot be used; empty if it can."""

    @property
    def takes(self) -> str:
        """The accepted types for people: `Clip`, `network: FittedNetwork, original: Clip`, `Clip with model: Net`."""
        items = _told(self.joins) or " or ".join(self.accepts)
        return f"{items} with {_told(self.sides)}".strip() if self.sides else items

    @property
    def gives(self) -> str:
        """The emitted types for people."""
        return _told(self.emits) if isinstance(self.emits, Mapping) else " or ".join(self.emits)

    @property
    def option_names(self) -> list[str]:
        """The options, without their schemas."""
        return list(self.options.get("properties", {}))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; those of `_SPARSE` only where there are any."""
        return {key: value for key, value in asdict(self).items() if key not in _SPARSE or value}


def stages() -> list[Description]:
    """Describe every registered stage. Imports them all."""
    return [_described(entry, _stage) for entry in registry.stages().values()]


def codecs() -> list[Description]:
    """Describe every registered codec. Imports them all."""
    return [_described(entry, _codec) for entry in registry.codecs().values()]


def _described(entry: registry.Entry, ports: Callable[[type[Any]], Ports]) -> Description:
    try:
        plugin = entry.load()
        told = ports(plugin)
        options = json_schema(plugin.Config)
    except registry.PluginError as error:
        return Description(name=entry.name, distribution=entry.distribution, error=str(error))
    except (AttributeError, TypeError) as error:
        reason = f"{entry.value} is not a {entry.kind}: {error}"
        return Description(name=entry.name, distribution=entry.distribution, error=reason)
    return Description(
        name=entry.name,
        distribution=entry.distribution,
        summary=(inspect.getdoc(plugin) or "").partition("\n")[0],
        options=options,
        **told,
    )


def _stage(stage: type[Any]) -> Ports:
    accepts = () if stage.accepts is None else _names(types_of(stage.accepts))
    named = {"joins": stage.joins, "sides": stage.sides, "emits": stage.emits}
    ports = {word: {port: _names(types_of(kind)) for port, kind in kinds.items()} for word, kinds in named.items()}
    return {"accepts": accepts, "shared": tuple(sorted(stage.shared)), **ports}


def _codec(codec: type[Any]) -> Ports:
    return {"accepts": _names(types_of(codec.accepts)), "emits": tuple(getattr(codec, "emits", CODEC_EMITS))}


def _told(ports: Mapping[str, Names]) -> str:
    kinds = {port: " or ".join(names) for port, names in ports.items()}
    return ", ".join(kind if port == "out" else f"{port}: {kind}" for port, kind in kinds.items())


def _names(kinds: Iterable[type]) -> tuple[str, ...]:
    return tuple(kind.__name__ for kind in kinds)
