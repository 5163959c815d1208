"""A pixel format in a codec's stored configuration: what keeps readers that know RGB alone from showing wrong colours.

The format itself stands in the source's document. There, a reader from before there was more than 8-bit RGB would not
miss it, and show Y, U and V as red, green and blue. An option of a codec that it does not know it refuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framefold.codecs.clip import Source
from framefold.codecs.pixel_format import RGB

FIELD = "pixels"


def with_pixels(config: Mapping[str, Any], source: Source) -> Mapping[str, Any]:
    """Add the name of the source's format unless it is 8-bit RGB; ValueError if the codec has such an option itself."""
    if source.pixels == RGB:
        return config
    if FIELD in config:
        raise ValueError(f"the codec has an option {FIELD!r}; choose another name for it, or code 8-bit RGB")
    return {**config, FIELD: source.pixels.name}


def without_pixels(config: Mapping[str, Any], source: Source) -> Mapping[str, Any]:
    """Take it off again; ValueError if it is not the source's."""
    if source.pixels == RGB:
        return config
    if config.get(FIELD) != source.pixels.name:
        raise ValueError(f"its codec draws {config.get(FIELD)!r:.40}, its source has pixels {source.pixels.name!r}")
    return {name: value for name, value in config.items() if name != FIELD}
