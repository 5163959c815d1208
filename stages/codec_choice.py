"""The `codec: {name: …, …}` option, shared by the stages that choose one."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, model_serializer, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

from framefold.codecs.base import Codec
from framefold.pipeline import registry


class CodecChoice(BaseModel, frozen=True, extra="allow"):
    """A codec by name; the other keys are that codec's own options."""

    name: str

    @model_validator(mode="after")
    def _known_and_valid(self) -> Self:
        self.build()
        return self

    @model_serializer
    def _with_every_default(self) -> dict[str, Any]:
        """Options in full, so that a changed default changes the unit keys that depend on it."""
        return {"name": self.name, **self.build().config.model_dump(mode="json")}

    @property
    def codec_class(self) -> type[Codec]:
        """The class behind the name; a validation error at `name` lists the known ones."""
        known = registry.codecs()
        if self.name not in known:
            raise _unknown(self.name, sorted(known))
        loaded = registry.load_codec(self.name)
        if not (isinstance(loaded, type) and issubclass(loaded, Codec)):
            raise PydanticCustomError("codec_class", "plugin '{name}' is no framefold Codec", {"name": self.name})
        return loaded

    def build(self) -> Codec:
        """The configured codec; pydantic's ValidationError keeps the place of each wrong option."""
        codec_class = self.codec_class
        options = json.dumps(self.model_extra or {})
        return codec_class(codec_class.Config.model_validate_json(options, strict=True))


def codec_of(name: str, config: Mapping[str, Any]) -> Codec:
    """The codec that a network or an archive names, with exactly that configuration."""
    codec: Codec = registry.load_codec(name).from_config(config)
    return codec


def _unknown(name: str, known: list[str]) -> ValidationError:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f", did you mean '{near[0]}'?" if near else ""
    message = "unknown codec '{name}'{hint}; known: {known} (one from a plugin appears once the plugin is installed)"
    error = PydanticCustomError("codec", message, {"name": name, "hint": hint, "known": ", ".join(known)})
    return ValidationError.from_exception_data("codec", [InitErrorDetails(type=error, loc=("name",), input=name)])
