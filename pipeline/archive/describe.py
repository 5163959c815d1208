"""What `pipeline info --json` says of an archive, as plain JSON values with the units in the names."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from framefold.pipeline.archive import listing
from framefold.pipeline.archive.contents import UnitEntry
from framefold.pipeline.archive.describe_source import describe_source
from framefold.pipeline.archive.reader import ArchiveReader
from framefold.pipeline.archive.records import ATTACHMENT, KNOWN, PACK, PACKETS, UNIT

Row = dict[str, Any]


def describe(path: str | os.PathLike[str]) -> Row:
    """Sizes, sources and units of the archive; `ArchiveError` if it cannot be opened.

    `bits_per_pixel` counts every byte of the files over all pixels coded (null without any); `overhead_bytes` are those
    outside the units' payloads. Of each video three units are read at most, to see whether its times are regular:
    the cost grows with the number of chunks, not with their size.
    """
    with ArchiveReader.open(path) as reader:
        pixels = sum(_pixels(reader, unit) for unit in reader.units)
        units = _units(reader)
        return {
            "archive": os.fspath(path),
            **_form(reader, path),
            "bytes": reader.size_bytes,
            "bits_per_pixel": 8 * reader.size_bytes / pixels if pixels else None,
            "overhead_bytes": reader.size_bytes - sum(unit.payload_bytes for unit in reader.units),
            "bytes_by_codec": _bytes_by_codec(reader),
            "bytes_by_kind": _bytes_by_kind(reader),
            "created": reader.manifest.get("created"),
            "generator": reader.manifest.get("generator"),
            "sources": _sources(reader),
            "bases": listing.bases(reader),
            "chunks": units,
            "units_with_frame_hashes": sum(unit["frames_sha256"] is not None for unit in units),
            "problems": listing.problems(reader),
        }


def _form(reader: ArchiveReader, path: str | os.PathLike[str]) -> Row:
    """One file or a folder of shards; whether a local folder was sealed as a bag, null elsewhere."""
    if reader.commit is None:
        return {"form": "file", "shards": 1, "commits": None, "is_sealed": None, "archive_id": reader.archive_id.hex()}
    is_sealed = Path(path, "bagit.txt").is_file() if Path(path).is_dir() else None
    counts = {"shards": len(reader.commit.shards), "commits": reader.commit.number}
    return {"form": "folder", **counts, "is_sealed": is_sealed, "archive_id": reader.archive_id.hex()}


def _pixels(reader: ArchiveReader, unit: UnitEntry) -> int:
    source = reader.sources[unit.source]
    return source.width * source.height * unit.frame_count


def _bytes_by_codec(reader: ArchiveReader) -> Mapping[str, int]:
    """Payloads of units."""
    sizes: Counter[str] = Counter()
    for unit in reader.units:
        sizes[reader.codecs[unit.codec].name] += unit.payload_bytes
    return dict(sizes)


def _bytes_by_kind(reader: ArchiveReader) -> Mapping[str, int]:
    """Payloads by what they are; framing is headers, padding, index and footer. They add up to all bytes."""
    sizes = dict.fromkeys(("units", "packets", "attachments", "documents", "other", "framing"), 0)
    names = {UNIT: "units", PACK: "units", PACKETS: "packets", ATTACHMENT: "attachments"}
    for _, shard in reader.shards:
        for kind in shard.index.kinds():
            name = names.get(kind, "documents" if kind in KNOWN else "other")
            sizes[name] += sum(shard.index.column("payload_bytes", kind))
    return sizes | {"framing": reader.size_bytes - sum(sizes.values())}


def _sources(reader: ArchiveReader) -> list[Row]:
    units: defaultdict[int, list[UnitEntry]] = defaultdict(list)
    for unit in reader.units:
        units[unit.source].append(unit)
    tracks, attachments = _by_source(listing.tracks(reader)), _by_source(listing.attachments(reader))
    return [
        describe_source(reader, source, units[source.number])
        | {"tracks": tracks[source.number], "attachments": attachments[source.number]}
        for source in reader.sources
    ]


def _by_source(rows: Sequence[Row]) -> Mapping[int, Sequence[Row]]:
    found: defaultdict[int, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["source_number"]].append({name: row[name] for name in row if name not in ("source", "source_number")})
    return found


def _units(reader: ArchiveReader) -> list[Row]:
    """With what was measured of each."""
    rows = listing.units(reader)
    for row in rows:
        quality = reader.quality(row["id"]) or {}
        row |= {name: quality.get(name) for name in ("psnr_db", "ms_ssim", "frames_sha256")}
    return rows
