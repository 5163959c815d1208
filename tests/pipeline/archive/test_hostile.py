"""A stranger's file with every checksum right: it must be refused by number, in little time and memory."""

from __future__ import annotations

import json
import random
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from framefold.pipeline.archive import ArchiveError, ArchiveReader, Bank, describe, verify
from framefold.pipeline.archive.documents import unpack_document
from framefold.pipeline.archive.records import (
    ATTACHMENT,
    CODEC,
    COPY,
    ENTRY_BYTES,
    HEADER_BYTES,
    INDEX,
    MANIFEST,
    PACK,
    PACKETS,
    QUALITY,
    SOURCE,
    TABLE,
    UNIT,
    ChunkHeader,
    FileHeader,
    Footer,
    IndexEntry,
    padding,
)
from framefold.pipeline.archive.unit import UnitHead

Chunk = tuple[bytes, bytes, dict[str, int]]
"""Type, payload, header fields."""

HEADER = FileHeader.first_of(bytes(16))
ENTRY_ONLY = ("first_item", "codec")
SOURCE_JSON = b'{"height":2,"kind":"video","name":"a","time_base":[1,1],"width":2}'
CODEC_JSON = b'{"config":{},"name":"none"}'
MANIFEST_JSON = b'{"created":"2026-01-31T12:00:00Z","generator":"x"}'
HEAD = UnitHead(key="0" * 64, codec=0, first_frame=0, duration_ticks=1, pts=(0, 1)).pack()


def chunks(**replaced: Any) -> list[Chunk]:
    """The smallest archive with a unit in it; `replaced` are other payloads by chunk type."""
    payloads = {"Srce": SOURCE_JSON, "Cdec": CODEC_JSON, "Unit": HEAD + b"bytes", "Mani": MANIFEST_JSON, **replaced}
    fields = {"duration": 2, "items": 2}
    return [
        (SOURCE, payloads["Srce"], {}),
        (CODEC, payloads["Cdec"], {}),
        (UNIT, payloads["Unit"], fields),
        (MANIFEST, payloads["Mani"], {}),
    ]


def assemble(parts: list[Chunk], *, change_entry: Callable[[int, IndexEntry], IndexEntry] | None = None) -> bytes:
    """A file of these chunks in which every checksum is right."""
    data, entries = HEADER.pack(), []
    for number, (kind, payload, fields) in enumerate(parts):
        said = {name: value for name, value in fields.items() if name not in ENTRY_ONLY}
        raw = _header(kind, payload, number, **said).pack() + payload
        digest = sha256(raw).digest()
        entry = IndexEntry(offset=len(data), payload_bytes=len(payload), kind=kind, sha256=digest, **fields)
        entries.append(change_entry(number, entry) if change_entry else entry)
        data += raw + bytes(padding(len(payload)))
    payload = b"".join(entry.pack() for entry in entries)
    raw = _header(INDEX, payload, len(parts)).pack() + payload
    footer = Footer(
        index_offset=len(data), index_bytes=len(payload), entries=len(parts), index_sha256=sha256(raw).digest()
    )
    return data + raw + footer.pack()


def _header(kind: bytes, payload: bytes, number: int, **fields: int) -> ChunkHeader:
    return ChunkHeader(
        kind=kind,
        number=number,
        shard_tag=HEADER.shard_tag,
        payload_bytes=len(payload),
        payload_crc=crc32(payload),
        **fields,
    )


def read_all(path: Path) -> None:
    with ArchiveReader.open(path) as reader:
        for unit in reader.units:
            reader.read_unit(unit.id)
            reader.quality(unit.id)
    describe(path)


def test_the_builder_of_these_tests_builds_archives(tmp_path: Path) -> None:
    path = tmp_path / "x.fold"
    path.write_bytes(assemble(chunks()))
    read_all(path)
    assert verify(path) == ()


def source(**changes: Any) -> bytes:
    parts = {"height": "2", "kind": '"video"', "name": '"a"', "time_base": "[1,1]", "width": "2", **changes}
    return ("{" + ",".join(f'"{key}":{value}' for key, value in parts.items()) + "}").encode()


NONE = -(2**63)
FULL, EMPTY = b"\0" * 20 * 2**20, b""
NAME = "p000002"


def measurement(document: bytes, first_item: int = 2) -> list[Chunk]:
    return [*chunks()[:3], (QUALITY, document, {"first_item": first_item}), chunks()[3]]


def row(**changes: Any) -> dict[str, Any]:
    return {"key": "0" * 64, "source": 0, "codec": 0, "bytes": 5} | changes


def table(*rows: Any, sources: Any = None, **more: Any) -> bytes:
    sources = [json.loads(SOURCE_JSON)] if sources is None else sources
    return deflated(json.dumps({"sources": sources, "units": rows or [row()], **more}).encode())


def deflated(data: bytes) -> bytes:
    return zlib.compress(data)


def stored(data: bytes) -> bytes:
    return zlib.compress(data, 0)


def packed(
    says: bytes | None = None, *, sources: int = 1, units: int = 1, pack: bytes = b"bytes", more: Sequence[Chunk] = ()
) -> list[Chunk]:
    """A codec, a table and its pack: the smallest archive with a packed unit."""
    first = (CODEC, CODEC_JSON, {})
    middle = (TABLE, table() if says is None else says, {"items": sources})
    return [first, middle, (PACK, pack, {"items": units}), *more, (MANIFEST, MANIFEST_JSON, {})]


def bad_row(**changes: Any) -> list[Chunk]:
    return packed(table(row(**changes)))


def columns(
    pts: Sequence[int] = (0,), sizes: Sequence[int] = (5,), sides: Sequence[int] = (0,), lasts: Sequence[int] = (1,)
) -> bytes:
    count = len(pts)
    return struct.pack(f"<{3 * count}q{3 * count}I", *pts, *pts, *lasts, *sizes, *sides, *(count * [0]))


def block(data: bytes, *, count: int = 1, track: int = 0, body: bytes = b"bytes", size: int | None = None) -> bytes:
    return struct.pack("<32sIIII", bytes(32), track, 0, count, len(data) if size is None else size) + data + body


def copied(payload: bytes | None = None, **fields: int) -> list[Chunk]:
    """An archive with one packet, or with what a test puts in its place."""
    payload = block(deflated(columns())) if payload is None else payload
    chunk = (PACKETS, payload, {"items": 1, "duration": 1} | fields)
    return [chunks()[0], chunk, (MANIFEST, MANIFEST_JSON, {})]


def extra(side: bytes) -> list[Chunk]:
    return copied(block(deflated(columns(sizes=(0,), sides=(len(side),))), body=side))


def attached(*pieces: tuple[bytes, int, int, bytes]) -> list[Chunk]:
    """Pieces of attachments: SHA-256, length of the whole, start, bytes."""
    packed = [struct.pack("<32sQQ", digest, total, start) + data for digest, total, start, data in pieces]
    return [*((ATTACHMENT, payload, {}) for payload in packed), (MANIFEST, MANIFEST_JSON, {})]


def repeated(change: Callable[[bytes], bytes] = lambda plain: plain, *, deflate: bool = True) -> list[Chunk]:
    """A copy, changed before it is deflated."""
    plain = change(HEADER.pack() + SOURCE_JSON + CODEC_JSON + HEAD[:32])
    payload = deflated(plain) if deflate else plain
    return [*chunks()[:3], (COPY, payload, {}), chunks()[3]]


def without(parts: list[Chunk], *numbers: int) -> list[Chunk]:
    return [part for number, part in enumerate(parts) if number not in numbers]


RIGHT = sha256(b"abcdef").digest()
HOSTILE: dict[str, tuple[list[Chunk], str]] = {
    "repeated key": (chunks(Srce=b'{"name":"a","name":"b"}'), "F015"),
    "not a number": (chunks(Srce=source(width="NaN")), "F015"),
    "infinite": (chunks(Srce=source(width="1e999")), "F015"),
    "huge integer": (chunks(Srce=source(width="9" * 5000)), "F015"),
    "deep": (chunks(Srce=b"[" * 100_000), "F014"),
    "many values": (chunks(Srce=b'{"a":[' + b"1," * (2**20 + 1) + b"1]}"), "F014"),
    "a list": (chunks(Srce=b"[]"), "F015"),
    "no JSON": (chunks(Srce=b"\xff\xfe"), "F015"),
    "no side": (chunks(Srce=source(width="0")), "F016"),
    "a long side": (chunks(Srce=source(width="32769")), "F016"),
    "a large area": (chunks(Srce=source(width="32768", height="32768")), "F014"),
    "a path upwards": (chunks(Srce=source(name='"../../etc/passwd"')), "F016"),
    "an absolute path": (chunks(Srce=source(name='"/etc/passwd"')), "F016"),
    "a NUL in a name": (chunks(Srce=source(name='"a\\u0000b"')), "F016"),
    "no time base": (chunks(Srce=source(time_base="[1,0]")), "F016"),
    "codec without name": (chunks(Cdec=b'{"config":{}}'), "F016"),
    "codec config no object": (chunks(Cdec=b'{"config":[],"name":"a"}'), "F016"),
    "a unit too short": (chunks(Unit=b"short"), "F016"),
    "runs beyond the payload": (chunks(Unit=HEAD[:48] + struct.pack("<I", 2**31)), "F014"),
    "a run of 4 billion times": (chunks(Unit=HEAD[:-4] + struct.pack("<I", 2**32 - 1)), "F014"),
    "times beyond all bounds": (chunks(Unit=HEAD[:52] + struct.pack("<qqI", 2**62, 2**62, 3)), "F014"),
    "an unknown critical chunk": ([*chunks()[:3], (b"Zoom", b"", {}), chunks()[3]], "F013"),
    "no manifest": (chunks()[:3], "F007"),
    "two manifests": ([*chunks(), chunks()[3]], "F007"),
    "an index inside": ([*chunks()[:3], (INDEX, b"", {}), chunks()[3]], "F007"),
    "a unit of no source": ([chunks()[1], chunks()[2], chunks()[3]], "F016"),
    "a unit of no codec": ([chunks()[0], chunks()[2], chunks()[3]], "F016"),
    "a measurement of nothing": ([(QUALITY, b'{"measured":{},"unit":"u000000"}', {}), *chunks()], "F017"),
    "a name of nothing": (chunks(Srce=source(name='""')), "F016"),
    "a name too long": (chunks(Srce=source(name='"' + "x" * 1025 + '"')), "F016"),
    "a name with an empty folder": (chunks(Srce=source(name='"a//b"')), "F016"),
    "a name with a backslash": (chunks(Srce=source(name='"a\\\\b"')), "F016"),
    "a name that is here": (chunks(Srce=source(name='"./a"')), "F016"),
    "a kind of neither": (chunks(Srce=source(kind='"module"')), "F016"),
    "a time base of text": (chunks(Srce=source(time_base='"1/1"')), "F016"),
    "sides that are true": (chunks(Srce=source(width="true")), "F016"),
    "sides with a fraction": (chunks(Srce=source(width="2.0")), "F016"),
    "nested 33 deep": (chunks(Srce=source(more="[" * 32 + "]" * 32)), "F014"),
    "JSON longer than allowed": (chunks(Srce=source(more='"' + "x" * 2**24 + '"')), "F014"),
    "JSON with a mark before it": (chunks(Srce=b"\xef\xbb\xbf" + SOURCE_JSON), "F015"),
    "JSON in UTF-16": (chunks(Srce=SOURCE_JSON.decode().encode("utf-16")), "F015"),
    "JSON with a comma too many": (chunks(Srce=SOURCE_JSON[:-1] + b",}"), "F015"),
    "minus infinity": (chunks(Srce=source(more="-Infinity")), "F015"),
    "an integer beyond 2^53": (chunks(Srce=source(more="9007199254740992")), "F015"),
    "a repeated key deep inside": (chunks(Srce=source(more='[{"a":[{"b":1,"b":1}]}]')), "F015"),
    "a codec with a field too many": (chunks(Cdec=CODEC_JSON[:-1] + b',"module":"os"}'), "F016"),
    "a manifest without a time": (chunks(Mani=b'{"generator":"x"}'), "F016"),
    "a manifest of no time": (chunks(Mani=b'{"created":"today","generator":"x"}'), "F016"),
    "a manifest of a local time": (chunks(Mani=b'{"created":"2026-01-31T12:00:00+01:00","generator":"x"}'), "F016"),
    "a manifest of nobody": (chunks(Mani=b'{"created":"2026-01-31T12:00:00Z"}'), "F016"),
    "a run without times": (chunks(Unit=HEAD[:-4] + bytes(4)), "F014"),
    "no runs": (chunks(Unit=HEAD[:48] + bytes(4)), "F014"),
    "a frame that stands for ever": (chunks(Unit=HEAD[:40] + b"\xff" * 8 + HEAD[48:]), "F014"),
    "too many frames": (chunks(Unit=HEAD[:48] + struct.pack("<I", 2) + 2 * struct.pack("<qqI", 0, 1, 40_000)), "F014"),
    "a measurement of itself": (measurement(b'{"measured":{},"unit":"q000003"}', 3), "F017"),
    "a measurement of what comes later": (measurement(b'{"measured":{},"unit":"m000004"}', 4), "F017"),
    "a measurement of a source": (measurement(b'{"measured":{},"unit":"s000000"}', 0), "F017"),
    "a measurement of another unit": (measurement(b'{"measured":{},"unit":"u000009"}'), "F009"),
    "a measurement that is a list": (measurement(b'{"measured":[],"unit":"u000002"}'), "F009"),
    # Tables and packs.
    "a table that is not deflated": (packed(b'{"sources":[],"units":[]}'), "F033"),
    "a table of nothing": (packed(b""), "F033"),
    "a table that is cut": (packed(table()[:-1]), "F033"),
    "bytes behind a table": (packed(table() + b"\0"), "F033"),
    "two streams in a table": (packed(table() + table()), "F033"),
    "a table that would be gigabytes": (packed(deflated(FULL)), "F033"),
    "a table that is a list": (packed(deflated(b"[]")), "F015"),
    "a repeated key in a table": (packed(deflated(b'{"units":[],"units":[]}')), "F015"),
    "a deep table": (packed(stored(b'{"units":' + b"[" * 10**6)), "F014"),
    "a table of a million commas": (packed(stored(b'{"units":[' + b"0," * (2**20 + 1) + b"0]}")), "F014"),
    "a table without units": (packed(deflated(b'{"sources":[]}'), sources=0), "F016"),
    "a table without sources": (packed(deflated(b'{"units":[]}'), sources=0), "F016"),
    "units that are an object": (packed(deflated(b'{"sources":[],"units":{}}'), sources=0), "F016"),
    "no units in a table": (packed(deflated(b'{"sources":[],"units":[]}'), sources=0, units=0), "F014"),
    "a row that is a list": (packed(table([])), "F016"),
    "a short key": (bad_row(key="0" * 63), "F016"),
    "a key in capitals": (bad_row(key="A" * 64), "F016"),
    "a key that is a number": (bad_row(key=7), "F016"),
    "a packed unit of no source": (bad_row(source=1), "F016"),
    "a packed unit of source -1": (bad_row(source=-1), "F016"),
    "a packed unit of no codec": (bad_row(codec=1), "F016"),
    "fewer bytes than none": (packed(table(row(bytes=-1), row(bytes=6, key="1" * 64)), units=2), "F016"),
    "a length with a fraction": (bad_row(bytes=5.0), "F016"),
    "a length that is true": (bad_row(bytes=True), "F016"),
    "a huge length": (bad_row(bytes=2**53 - 1), "F016"),
    "two lengths that are huge together": (packed(table(row(bytes=2**28), row(bytes=2**28)), units=2), "F014"),
    "rows that do not fill the pack": (bad_row(bytes=4), "F009"),
    "rows beyond the pack": (bad_row(bytes=6), "F009"),
    "sources miscounted": (packed(sources=2), "F009"),
    "sources not counted": (packed(sources=0), "F009"),
    "four billion sources": (packed(sources=2**32 - 1), "F014"),
    "units miscounted": (packed(units=2), "F009"),
    "a source in a table with a path": (packed(table(sources=[{**json.loads(SOURCE_JSON), "name": "../a"}])), "F016"),
    "a source in a table that is text": (packed(table(sources=["a"])), "F016"),
    "no times": (bad_row(pts=[]), "F014"),
    "too many times": (bad_row(pts=[*range(65_537)]), "F014"),
    "times that are text": (bad_row(pts=["0"]), "F016"),
    "times that are no list": (bad_row(pts=7), "F016"),
    "a first frame beyond 32 bits": (bad_row(first_frame=2**32), "F016"),
    "a duration below zero": (bad_row(duration_ticks=-1), "F016"),
    "a measurement that is text": (bad_row(measured="good"), "F016"),
    "a table out of turn": ([*packed()[:1], (TABLE, table(), {"items": 1, "stream": 1}), *packed()[2:]], "F007"),
    "a table without a pack": (without(packed(), 2), "F007"),
    "a pack without a table": (without(packed(), 1), "F007"),
    "a pack at the beginning": ([packed()[2], *without(packed(), 2)], "F007"),
    "two tables for a pack": ([*packed()[:2], *packed()[1:]], "F007"),
    "two packs for a table": ([*packed()[:3], *packed()[2:]], "F007"),
    "something between table and pack": ([*packed()[:2], (b"zoom", b"", {}), *packed()[2:]], "F007"),
    # Packets.
    "packets without room for a head": (copied(b"short"), "F016"),
    "packets that are none": (copied(block(deflated(EMPTY), count=0), items=0), "F016"),
    "four billion packets": (copied(block(deflated(FULL), count=2**32 - 1), items=2**32 - 1), "F016"),
    "too many packets": (copied(block(deflated(FULL), count=65_537), items=65_537), "F016"),
    "packets of no source": (copied(stream=1), "F016"),
    "packets miscounted in the index": (copied(items=2), "F009"),
    "packets of another track": (copied(first_item=1), "F009"),
    "packets of another time": (copied(t0=1), "F009"),
    "packets of another duration": (copied(duration=2), "F009"),
    "a packet table beyond the payload": (copied(block(deflated(columns()), size=2**32 - 1)), "F016"),
    "a packet table that is not deflated": (copied(block(columns())), "F033"),
    "a packet table that would be gigabytes": (copied(block(deflated(FULL))), "F033"),
    "a packet table that is short": (copied(block(deflated(columns()[:-1]))), "F033"),
    "a packet table that is long": (copied(block(deflated(columns() + b"\0"))), "F033"),
    "bytes behind a packet table": (copied(block(deflated(columns()) + b"\0")), "F033"),
    "packets that do not fill the payload": (copied(block(deflated(columns(sizes=(4,))))), "F016"),
    "packets beyond the payload": (copied(block(deflated(columns(sizes=(2**32 - 1,), sides=(2**32 - 1,))))), "F016"),
    "side data that is cut": (extra(b"\5abc"), "F016"),
    "side data longer than it is": (extra(b"\1a" + struct.pack("<I", 2**32 - 1)), "F016"),
    "side data with a name that is no ASCII": (extra(b"\1\xff" + bytes(4)), "F016"),
    "side data in nine pieces": (extra(9 * (b"\1a" + bytes(4))), "F016"),
    # Attachments.
    "an attachment without room for a head": ([(ATTACHMENT, b"short", {}), chunks()[3]], "F016"),
    "an attachment beyond all bounds": (attached((RIGHT, 2**63, 0, b"abcdef")), "F014"),
    "an attachment that starts beyond its end": (attached((RIGHT, 6, 2**64 - 1, b"")), "F014"),
    "an attachment longer than it is": (attached((RIGHT, 5, 0, b"abcdef")), "F014"),
    "an attachment with another SHA-256": (attached((RIGHT, 6, 0, b"abcdeX")), "F011"),
    "an attachment in pieces with another SHA-256": (attached((RIGHT, 6, 0, b"abc"), (RIGHT, 6, 3, b"xyz")), "F011"),
    # The copy.
    "a copy that is not deflated": (repeated(deflate=False), "F033"),
    "a copy that is short": (repeated(lambda plain: plain[:-1]), "F033"),
    "a copy that is long": (repeated(lambda plain: plain + b"\0"), "F033"),
    "a copy that would be gigabytes": (repeated(lambda plain: plain + FULL), "F033"),
    "a copy of another source": (repeated(lambda plain: plain.replace(b'"a"', b'"b"')), "F035"),
    "a copy of another codec": (repeated(lambda plain: plain.replace(b"none", b"some")), "F035"),
    "a copy of another key": (repeated(lambda plain: plain[:-1] + b"\x01"), "nothing"),
    "a copy with a damaged header": (repeated(lambda plain: b"\0" + plain[1:]), "F002"),
    "a copy with another file's header": (
        repeated(lambda plain: FileHeader(archive_id=bytes(16), shard_id=b"x" * 16).pack() + plain[64:]),
        "F009",
    ),
    "a copy in the wrong place": ([repeated()[3], *without(repeated(), 3)], "F007"),
    "two copies": ([*repeated()[:4], *repeated()[3:]], "F007"),
}


def patched(parts: list[Chunk], number: int, layout: str, at: int, value: int | bytes) -> bytes:
    """A file in whose index one field of one entry says something that no record of ours would take."""
    data = bytearray(assemble(parts))
    index = struct.unpack_from("<Q", data, len(data) - 64)[0]
    struct.pack_into(layout, data, index + 64 + 80 * number + at, value)
    return signed(data, index)


def signed(data: bytearray, index: int) -> bytes:
    """The same with the index's and the footer's checksums right."""
    payload = data[index + 64 : -64]
    data[index + 56 : index + 60] = struct.pack("<I", crc32(payload))
    data[index + 60 : index + 64] = struct.pack("<I", crc32(data[index : index + 60]))
    data[-40:-8] = sha256(data[index:-64]).digest()
    data[-8:-4] = struct.pack("<I", crc32(data[-64:-8]))
    return bytes(data)


def footed(layout: str, at: int, value: int) -> bytes:
    """A file whose footer says something else."""
    data = bytearray(assemble(chunks()))
    struct.pack_into(layout, data, len(data) - 64 + at, value)
    data[-8:-4] = struct.pack("<I", crc32(data[-64:-8]))
    return bytes(data)


def headed(layout: str, at: int, value: int) -> bytes:
    """A file whose own header says something else."""
    data = bytearray(assemble(chunks()))
    struct.pack_into(layout, data, at, value)
    data[60:64] = struct.pack("<I", crc32(data[:60]))
    return bytes(data)


HOSTILE_BYTES: dict[str, tuple[bytes, str]] = {
    "an offset of 2^63": (patched(chunks(), 2, "<Q", 0, 2**63), "F014"),
    "an offset of 2^64 - 1": (patched(chunks(), 0, "<Q", 0, 2**64 - 1), "F014"),
    "an offset inside the one before": (patched(chunks(), 2, "<Q", 0, 72), "F007"),
    "an offset of the index": (patched(chunks(), 3, "<Q", 0, len(assemble(chunks())) - 512), "F007"),
    "a payload of four gigabytes": (patched(chunks(), 2, "<I", 8, 2**32 - 1), "F014"),
    "a payload of 256 megabytes": (patched(chunks(), 2, "<I", 8, 2**28), "F007"),
    "a source number of four billion": (patched(chunks(), 2, "<I", 12, 2**32 - 1), "F014"),
    "a time of -2^63": (patched(chunks(), 2, "<q", 16, -(2**63)), "F014"),
    "a time of 2^63 - 1": (patched(chunks(), 2, "<q", 16, 2**63 - 1), "F014"),
    "a duration below zero in the index": (patched(chunks(), 2, "<q", 24, -1), "F014"),
    "four billion frames": (patched(chunks(), 2, "<I", 32, 2**32 - 1), "F016"),
    "a type of no letters": (patched(chunks(), 2, "<4s", 36, b"a.b/"), "F016"),
    "a unit that the index calls a manifest": (patched(chunks(), 2, "<4s", 36, b"Mani"), "F007"),
    "a codec number of four billion": (patched(chunks(), 2, "<I", 44, 2**32 - 1), "F014"),
    "a footer of 2^63 chunks": (footed("<Q", 16, 2**63), "F014"),
    "a footer of no chunks": (footed("<Q", 16, 0), "F014"),
    "an index at 2^63": (footed("<Q", 0, 2**63), "F014"),
    "an index at 2^63 - 1": (footed("<Q", 0, 2**63 - 1), "F007"),
    "an index of 2^64 - 1 bytes": (footed("<Q", 8, 2**64 - 1), "F007"),
    "an index one byte too long": (footed("<Q", 8, 321), "F007"),
    "an index elsewhere": (footed("<Q", 0, 64), "F007"),
    "version 2": (headed("<H", 8, 2), "F003"),
    "version 0": (headed("<H", 8, 0), "F003"),
    "a feature that must be known": (headed("<I", 48, 1 << 31), "F003"),
    "a longer file header": (headed("<I", 12, 128), "F003"),
    "something in the header's zeros": (headed("<I", 56, 1), "F003"),
}


READ = """
import json, os, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import fold_reader
from framefold.pipeline.archive import ArchiveError, ArchiveReader, Bank, describe, verify

def read(path):
    with ArchiveReader.open(path) as reader:
        for unit in reader.units:
            reader.read_unit(unit.id)
            reader.quality(unit.id)
        for block in reader.packet_blocks:
            reader.read_packets(block.id)
        for sha256 in reader.attachments:
            reader.read_attachment(sha256)
        for error in (*reader.problems, *reader.attachment_damage):
            raise error
        reader.sources, reader.keys
    describe(path)

def second(path):
    for name, entry, says, carries in fold_reader.Archive(Path(path)).examine():
        if isinstance(says, fold_reader.Problem):
            raise says

def outcome(action, path):
    try:
        found = action(path)
        return [finding.code for finding in found] if isinstance(found, tuple) else "nothing"
    except (ArchiveError, fold_reader.Problem) as error:
        return str(error)[:4]
    except BaseException as error:
        return repr(error)

pages = int(Path("/proc/self/statm").read_text().split()[0])
most = pages * resource.getpagesize() + 256 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (most, most))
for path in sys.stdin.read().splitlines():
    print(json.dumps([outcome(action, path) for action in (read, verify, second, Bank.of)]), flush=True)
"""


def read_apart(paths: Sequence[Path]) -> list[list[Any]]:
    """What strict reading, `verify`, the second reader and a writer's bank make of each, with 256 MiB to spare."""
    command = [sys.executable, "-c", READ, str(Path(__file__).parents[3] / "tools")]
    names = "\n".join(map(str, paths))
    done = subprocess.run(command, input=names, capture_output=True, text=True, timeout=240, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


SECOND_TAKES = {
    # The page names no bound for it.
    "a first frame beyond 32 bits",
    # It gives packets with their side data as they lie there, and leaves the index's times to whoever seeks.
    "packets of another time",
    "packets of another duration",
    "side data that is cut",
    "side data longer than it is",
    "side data with a name that is no ASCII",
    "side data in nine pieces",
}


def test_strangers_files_are_refused_by_number_in_little_memory(tmp_path: Path) -> None:
    files = {name: (assemble(parts), code) for name, (parts, code) in HOSTILE.items()} | HOSTILE_BYTES
    paths = [tmp_path / f"{number}.fold" for number in range(len(files))]
    for path, (data, _) in zip(paths, files.values(), strict=True):
        path.write_bytes(data)
    outcomes = dict(zip(files, read_apart(paths), strict=True))
    assert len(files) > 150
    asked = {name: code for name, (_, code) in files.items()}
    assert {name: strict for name, (strict, *_) in outcomes.items() if strict != asked[name]} == {}
    assert [name for name, (_, found, *_) in outcomes.items() if not found or isinstance(found, str)] == []
    assert {name for name, (_, _, second, _) in outcomes.items() if second[:2] != "F0"} == SECOND_TAKES
    assert {bank for *_, bank in outcomes.values()} == {"nothing"}


def tables(count: int, source: dict[str, Any]) -> list[Chunk]:
    """Tables of one source and one unit each."""
    parts: list[Chunk] = [(CODEC, CODEC_JSON, {})]
    for number in range(count):
        says = table(row(key=f"{number:064x}", source=number), sources=[{**source, "name": f"{number}"}])
        parts += [(TABLE, says, {"items": 1, "stream": number}), (PACK, b"bytes", {"items": 1})]
    return [*parts, (MANIFEST, MANIFEST_JSON, {})]


def test_many_tables_of_brackets_cost_little_memory(tmp_path: Path) -> None:
    dice = random.Random(0)
    brackets = [{} if dice.random() < 0.4 else [] for _ in range(250_000)]  # 15 times as long when inflated
    path = tmp_path / "brackets.fold"
    path.write_bytes(assemble(tables(12, {**json.loads(SOURCE_JSON), "more": brackets})))
    assert path.stat().st_size < 10**6
    strict, found, second, bank = read_apart([path])[0]
    assert (strict[:1], bool(found), second[:1], bank) in (("F", True, "F", "nothing"), ("n", False, "n", "nothing"))


OF_VERSION_1_0 = [*HOSTILE][:28]


@pytest.mark.parametrize("parts", [HOSTILE[name][0] for name in OF_VERSION_1_0], ids=OF_VERSION_1_0)
def test_a_strangers_file_makes_no_bank_and_no_trouble(tmp_path: Path, parts: list[Chunk]) -> None:
    path = tmp_path / "x.fold"
    path.write_bytes(assemble(parts))
    tracemalloc.start()
    bank = Bank.of(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not bank.keys
    assert peak < 20 * path.stat().st_size + 10**7


@pytest.mark.parametrize(
    ("document", "count"),
    [
        (b'{"measured":{"psnr_db":1},"unit":"u000002"}', 1),
        (b'{"measured":[],"unit":"u000002"}', 1),
        (b'{"measured":{},"unit":["u000002"]}', 0),
        (b'{"measured":{},"unit":"u000003"}', 0),
        (b'{"measured":{"a":"%s"},"unit":"u000002"}' % bytes(1000), 0),
        (b'{"measured":{"a":"' + b"x" * 1000 + b'"},"unit":"u000002"}', 0),
        (b'{"measured":NaN,"unit":"u000002"}', 0),
    ],
)
def test_a_strangers_measurement_is_read_as_data(tmp_path: Path, document: bytes, count: int) -> None:
    path = tmp_path / "x.fold"
    path.write_bytes(assemble(measurement(document)))
    bank = Bank.of(path)
    assert len(bank.keys) == count
    assert bank.quality("0" * 64, b"bytes") in (None, {"psnr_db": 1})
    assert (bank.quality("0" * 64, b"bytes") is None) == (b"psnr_db" not in document)


def test_an_unknown_ancillary_chunk_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "x.fold"
    path.write_bytes(assemble([*chunks()[:3], (b"zoom", b"anything", {}), chunks()[3]]))
    read_all(path)
    assert verify(path) == ()


@pytest.mark.parametrize(
    "change",
    [
        {"offset": 2**62},
        {"payload_bytes": 2**28},
        {"items": 2**32 - 1},
        {"t0": 2**52},
        {"stream": 2**20},
        {"first_item": 2**32 - 1},
        {"codec": 2**20},
    ],
    ids=str,
)
def test_an_index_that_lies_is_refused(tmp_path: Path, change: dict[str, int]) -> None:
    path = tmp_path / "x.fold"
    lie = assemble(chunks(), change_entry=lambda number, entry: replace(entry, **change) if number == 2 else entry)
    path.write_bytes(lie)
    with pytest.raises(ArchiveError):
        read_all(path)
    assert verify(path)


@pytest.mark.parametrize(("major", "must"), [(2, 0), (1, 1), (0, 0)])
def test_another_version_is_refused_kindly(tmp_path: Path, major: int, must: int) -> None:
    path = tmp_path / "x.fold"
    header = replace(HEADER, major=major, incompatible=must).pack()
    path.write_bytes(header + assemble(chunks())[HEADER_BYTES:])
    with pytest.raises(ArchiveError, match="newer framefold"):
        ArchiveReader.open(path)


def test_an_index_of_a_length_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    data = bytearray(assemble(chunks()))
    body = struct.pack("<QQQ32s", HEADER_BYTES, 2**40 * ENTRY_BYTES, 2**40, bytes(32))
    data[-64:] = body + crc32(body).to_bytes(4, "little") + b"FLCE"
    path = tmp_path / "x.fold"
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match="F014"):
        ArchiveReader.open(path)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.integers(0, 3), edits=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6))
def test_payloads_changed_with_right_checksums_raise_nothing_else(
    tmp_path: Path, where: int, edits: list[tuple[int, int]]
) -> None:
    parts = chunks()
    kind, payload, fields = parts[where]
    changed = bytearray(payload)
    for offset, value in edits:
        changed[offset % len(changed)] = value
    parts[where] = (kind, bytes(changed), fields)
    path = tmp_path / "x.fold"
    path.write_bytes(assemble(parts))
    try:
        read_all(path)
    except ArchiveError as error:
        assert error.remedy
        assert verify(path)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_as_json_raise_nothing_else(data: bytes) -> None:
    try:
        assert isinstance(unpack_document(data), dict)
    except ArchiveError as error:
        assert error.code in ("F014", "F015")
