"""What an archive holds, row by row, as plain JSON values with the units in the names. No unit is read."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from framefold.pipeline.archive.contents import PacketEntry, SourceEntry, UnitEntry
from framefold.pipeline.archive.reader import ArchiveReader
from framefold.pipeline.archive.records import INDEX

Row = dict[str, Any]
_MICRO = 10**6


def units(reader: ArchiveReader) -> list[Row]:
    """Every unit: which frames of which source, when they are shown, and the bytes that it takes."""
    return [_unit(reader, unit) for unit in reader.units]


def tracks(reader: ArchiveReader) -> list[Row]:
    """Every track that the sources describe, and how many of its packets are here."""
    blocks: defaultdict[tuple[int, int], list[PacketEntry]] = defaultdict(list)
    for block in reader.packet_blocks:
        blocks[block.source, block.track].append(block)
    return [
        _track(source, place, track, blocks[source.number, place])
        for source in reader.sources
        for place, track in enumerate(described(source, "tracks"))
    ]


def attachments(reader: ArchiveReader) -> list[Row]:
    """Every attachment that the sources name, and whether it is here."""
    return [
        _attachment(source, attachment, reader.attachments)
        for source in reader.sources
        for attachment in described(source, "attachments")
    ]


def bases(reader: ArchiveReader) -> list[Row]:
    """Every attachment without which units cannot be decoded: how many those are, and whether it is here."""
    units: Counter[str] = Counter()
    for codec, count in Counter(unit.codec for unit in reader.units).items():
        units.update(dict.fromkeys(reader.codecs[codec].needs, count))
    held = reader.attachments if units else {}
    return [
        {"sha256": sha256, "bytes": held.get(sha256), "units": count, "is_held": sha256 in held}
        for sha256, count in units.items()
    ]


def chunks(reader: ArchiveReader) -> Iterator[Row]:
    """Every chunk of every file, the index included; `sha256` is of header and payload, as the index has it."""
    for name, shard in reader.shards:
        of_file = {"shard": name} if name else {}
        for number, entry in enumerate(shard.index):
            place = {"id": shard.index.id(number), "type": entry.kind.decode(), "offset": entry.offset}
            sizes = {"bytes": entry.disk_bytes, "payload_bytes": entry.payload_bytes}
            yield {**of_file, **place, **sizes, "sha256": entry.sha256.hex()}
        yield {**of_file, **_index_chunk(shard)}


def affected(reader: ArchiveReader, chunk_ids: Sequence[str]) -> list[str]:
    """Which frames are in each chunk, for people: `bunny.mp4 frames 24-47, 0.960000-1.920000 s`; empty if none are.

    A chunk that cannot be read is still described by the index. Of an attachment that units need, or of a codec that
    needs one which is not here, it is these units.
    """
    held: defaultdict[str, list[UnitEntry]] = defaultdict(list)
    for unit in reader.units:
        held[unit.id.partition(".")[0]].append(unit)
        if needs := reader.codecs[unit.codec].needs:
            held[reader.codecs[unit.codec].id].append(unit)
            for sha256 in needs:
                held[sha256].append(unit)
    about = reader.attachment_chunks if any(codec.needs for codec in reader.codecs) else {}
    return [_all_frames(reader, held.get(about.get(chunk, chunk), ())) for chunk in chunk_ids]


def problems(reader: ArchiveReader) -> list[Row]:
    """Shards that belong to the archive and are not read."""
    return [{"code": one.code, "file": one.archive, "problem": str(one)} for one in reader.problems]


def described(source: SourceEntry, what: str) -> Sequence[Mapping[str, Any]]:
    """`tracks` or `attachments` of a source's document; a stranger may have written anything there."""
    listed = carried(source).get(what)
    return [row for row in listed if isinstance(row, Mapping)] if isinstance(listed, list) else []


def carried(source: SourceEntry) -> Mapping[str, Any]:
    """What a source's document says of everything but its coded pixels."""
    found = source.document.get("carried")
    return found if isinstance(found, Mapping) else {}


def seconds(ticks: int, time_base: tuple[int, int]) -> float:
    """Rounded to the microsecond: what a range of seconds is held against."""
    return round(Fraction(ticks * time_base[0] * _MICRO, time_base[1])) / _MICRO


def value(document: Mapping[str, Any], name: str, kind: type[Any], default: Any = None) -> Any:
    """A field of a stranger's document if it is of this kind (a whole number is no truth value), else the default."""
    found = document.get(name)
    return found if isinstance(found, kind) and not isinstance(found, bool) else default


def rational(document: Mapping[str, Any], name: str) -> tuple[int, int] | None:
    """A field that holds [numerator, denominator], both at least 1."""
    found = document.get(name)
    parts = found if isinstance(found, list | tuple) else ()
    return (parts[0], parts[1]) if len(parts) == 2 and all(type(part) is int and part > 0 for part in parts) else None


def _index_chunk(shard: Any) -> Row:
    last = shard.index[len(shard.index) - 1]
    size = shard.size_bytes - last.offset - last.disk_bytes - 64
    place = {"id": f"{INDEX.decode()[0].lower()}{len(shard.index):06d}", "type": INDEX.decode()}
    sizes = {"offset": last.offset + last.disk_bytes, "bytes": size, "payload_bytes": size - 64}
    return {**place, **sizes, "sha256": shard.index_sha256.hex()}


def _unit(reader: ArchiveReader, unit: UnitEntry) -> Row:
    source = reader.sources[unit.source]
    is_still = source.kind == "image"
    return {
        "id": unit.id,
        "source": source.name,
        "source_number": unit.source,
        "codec": reader.codecs[unit.codec].name,
        "first_frame": unit.first_frame,
        "frames": unit.frame_count,
        "start_seconds": None if is_still else seconds(unit.t0, source.time_base),
        "end_seconds": None if is_still else seconds(unit.t0 + unit.duration, source.time_base),
        "bytes": unit.disk_bytes,
    }


def _all_frames(reader: ArchiveReader, held: Sequence[UnitEntry]) -> str:
    more = f" and {len(held) - 3:,} more" if len(held) > 3 else ""
    return "; ".join(_frames(_unit(reader, unit)) for unit in held[:3]) + more


def _frames(row: Row) -> str:
    if row["start_seconds"] is None:
        return str(row["source"])
    frames = f"frames {row['first_frame']}-{row['first_frame'] + row['frames'] - 1}"
    return f"{row['source']} {frames}, {row['start_seconds']:.6f}-{row['end_seconds']:.6f} s"


def _track(source: SourceEntry, place: int, track: Mapping[str, Any], blocks: Sequence[PacketEntry]) -> Row:
    metadata = _pairs(track.get("metadata"))
    base = rational(track, "time_base")
    ends = (min(block.t0 for block in blocks), max(block.t0 + block.duration for block in blocks)) if blocks else None
    return {
        "source": source.name,
        "source_number": source.number,
        "track": place,
        "index": value(track, "index", int),
        "kind": value(track, "kind", str),
        "codec": value(track, "codec", str),
        "language": metadata.get("language"),
        "title": metadata.get("title"),
        "start_seconds": seconds(ends[0], base) if ends and base else None,
        "end_seconds": seconds(ends[1], base) if ends and base else None,
        "packets": value(track, "packets", int),
        "packets_held": sum(block.packets for block in blocks),
        "bytes": sum(block.disk_bytes for block in blocks),
    }


def _attachment(source: SourceEntry, attachment: Mapping[str, Any], held: Mapping[str, int]) -> Row:
    sha256 = value(attachment, "sha256", str, "")
    return {
        "source": source.name,
        "source_number": source.number,
        "kind": value(attachment, "kind", str),
        "name": value(attachment, "name", str, ""),
        "bytes": held.get(sha256, value(attachment, "size_bytes", int)),
        "sha256": sha256,
        "is_held": sha256 in held,
    }


def _pairs(metadata: Any) -> Mapping[str, str]:
    """(name, value) pairs as a mapping; the first of equal names counts."""
    found: dict[str, str] = {}
    for pair in metadata if isinstance(metadata, list) else ():
        if isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair):
            found.setdefault(pair[0], pair[1])
    return found
