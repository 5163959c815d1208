"""What `pipeline info --json` says of an archive, as plain JSON values with the units in the names."""

from __future__ import annotations

import os
from collections import defaultdict
from fractions import Fraction
from typing import Any

from framefold.pipeline.archive.contents import SourceEntry, UnitEntry
from framefold.pipeline.archive.reader import ArchiveReader


def describe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Sizes, sources and units of the archive; `ArchiveError` if it cannot be opened.

    `bits_per_pixel` counts every byte of the file over all pixels coded (null without any);
    `overhead_bytes` are those outside the units' payloads: headers, index, sources, codecs, measurements.
    No unit is read: the cost grows with the number of chunks, not with their size.
    """
    with ArchiveReader.open(path) as reader:
        pixels = sum(_pixels(reader, unit) for unit in reader.units)
        return {
            "archive": os.fspath(path),
            "bytes": reader.size_bytes,
            "bits_per_pixel": 8 * reader.size_bytes / pixels if pixels else None,
            "overhead_bytes": reader.size_bytes - sum(unit.payload_bytes for unit in reader.units),
            "created": reader.manifest.get("created"),
            "generator": reader.manifest.get("generator"),
            "sources": _sources(reader),
            "chunks": [_chunk(reader, unit) for unit in reader.units],
        }


def _pixels(reader: ArchiveReader, unit: UnitEntry) -> int:
    source = reader.sources[unit.source]
    return source.width * source.height * unit.frame_count


def _sources(reader: ArchiveReader) -> list[dict[str, Any]]:
    units = defaultdict(list)
    for unit in reader.units:
        units[unit.source].append(unit)
    return [_source(source, units[source.number]) for source in reader.sources]


def _source(source: SourceEntry, units: list[UnitEntry]) -> dict[str, Any]:
    return {
        "name": source.name,
        "kind": source.kind,
        "width": source.width,
        "height": source.height,
        "frames": sum(unit.frame_count for unit in units),
        "duration_seconds": _seconds(source, units),
        "sha256": source.document.get("sha256"),
    }


def _seconds(source: SourceEntry, units: list[UnitEntry]) -> float | None:
    """From the first frame's appearance to the last one's disappearance; a picture has no duration."""
    if source.kind == "image" or not units:
        return None
    ticks = max(unit.t0 + unit.duration for unit in units) - min(unit.t0 for unit in units)
    return float(ticks * Fraction(*source.time_base))


def _chunk(reader: ArchiveReader, unit: UnitEntry) -> dict[str, Any]:
    quality = reader.quality(unit.id) or {}
    return {
        "id": unit.id,
        "source": reader.sources[unit.source].name,
        "source_number": unit.source,
        "codec": reader.codecs[unit.codec].name,
        "first_frame": unit.first_frame,
        "frames": unit.frame_count,
        "bytes": unit.disk_bytes,
        "psnr_db": quality.get("psnr_db"),
        "ms_ssim": quality.get("ms_ssim"),
    }
