"""What is known of one original: its times, how it stored its pixels, and what it costs here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from framefold.pipeline.archive.contents import SourceEntry, UnitEntry
from framefold.pipeline.archive.errors import ArchiveError
from framefold.pipeline.archive.listing import carried, rational, seconds, value
from framefold.pipeline.archive.reader import ArchiveReader

Row = dict[str, Any]


def describe_source(reader: ArchiveReader, source: SourceEntry, units: Sequence[UnitEntry]) -> Row:
    """A stranger's document may say anything: what is not of the expected kind is null."""
    document, more = source.document, carried(source)
    pixels = source.width * source.height * sum(unit.frame_count for unit in units)
    size = sum(unit.disk_bytes for unit in units)
    return {
        "number": source.number,
        "name": source.name,
        "kind": source.kind,
        "width": source.width,
        "height": source.height,
        "frames": sum(unit.frame_count for unit in units),
        **_times(reader, source, units),
        "sha256": document.get("sha256"),
        "size_bytes": value(document, "size_bytes", int),
        "codec": value(more, "codec", str),
        "codec_bytes": value(more, "codec_bytes", int),
        "container": value(more, "container", str),
        "modified_seconds": value(more, "modified", str),
        **_pixels(source),
        "chapters": len(value(more, "chapters", list, ())),
        "bytes": size,
        "bits_per_pixel": 8 * size / pixels if pixels else None,
    }


def _times(reader: ArchiveReader, source: SourceEntry, units: Sequence[UnitEntry]) -> Row:
    """From the first frame's appearance to the last one's disappearance; a picture has no duration."""
    names = ("start_seconds", "duration_seconds", "frames_per_second", "is_constant_rate")
    if source.kind == "image" or not units:
        return dict.fromkeys(names)
    start, end = min(unit.t0 for unit in units), max(unit.t0 + unit.duration for unit in units)
    lasting = (end - start) * Fraction(*source.time_base)
    said = rational(source.document, "frame_rate")
    rate = Fraction(*said) if said else sum(unit.frame_count for unit in units) / lasting if lasting else None
    values = (seconds(start, source.time_base), float(lasting), float(rate) if rate else None)
    return dict(zip(names, (*values, rate and _is_constant(reader, source, units, rate)), strict=True))


def _is_constant(reader: ArchiveReader, source: SourceEntry, units: Sequence[UnitEntry], rate: Fraction) -> bool:
    """Whether all units last as long as their frames at this rate, and the frames of three are evenly spaced.

    A tick to and fro is rounding, and how long the very last frame stands is often a guess.
    """
    step = 1 / rate / Fraction(*source.time_base)
    last = max(units, key=lambda unit: unit.t0)
    if any(abs(unit.duration - unit.frame_count * step) > 2 + step * (unit is last) for unit in units):
        return False
    return all(_is_even(reader, units[place], step) for place in sorted({0, len(units) // 2, len(units) - 1}))


def _is_even(reader: ArchiveReader, unit: UnitEntry, step: Fraction) -> bool:
    try:
        pts = reader.read_unit(unit.id).pts
    except ArchiveError:  # `pipeline verify` says what is wrong with it
        return True
    return all(abs(time - pts[0] - place * step) <= 1 for place, time in enumerate(pts))


def _pixels(source: SourceEntry) -> Row:
    tags = value(carried(source), "pixel", dict, {})
    color = value(source.document, "color", dict, {})
    return {
        "pixel_format": value(tags, "format", str),
        "bits_per_sample": value(tags, "bits", int, 8 if tags else None),
        "pixel_aspect": list(rational(tags, "aspect") or (1, 1)),
        "color": {name: value(color, name, int) for name in ("primaries", "transfer", "matrix", "range")},
        **_orientation(tags),
    }


def _orientation(tags: Mapping[str, Any]) -> Row:
    """How to turn what is stored so that it is shown as meant: clockwise, after it was mirrored left to right."""
    matrix = tags.get("display_matrix")
    if not isinstance(matrix, list) or len(matrix) != 9 or not all(type(number) is int for number in matrix):
        return {"rotation_degrees": 0, "is_mirrored": False}
    is_mirrored = matrix[0] * matrix[4] - matrix[1] * matrix[3] < 0
    first = (-matrix[0], -matrix[1]) if is_mirrored else (matrix[0], matrix[1])
    turned = round(math.degrees(math.atan2(first[1], first[0]))) % 360
    return {"rotation_degrees": turned, "is_mirrored": is_mirrored}
