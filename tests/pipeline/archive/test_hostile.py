"""A stranger's file with every checksum right: it must be refused by number, in little time and memory."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
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
    CODEC,
    ENTRY_BYTES,
    HEADER_BYTES,
    INDEX,
    MANIFEST,
    QUALITY,
    SOURCE,
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
        raw = _header(kind, payload, number, **fields).pack() + payload
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
    "no time base": (chunks(Srce=source(time_base="[1,0]")), "F01"),
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
    "a unit of no source": ([chunks()[1], chunks()[2], chunks()[3]], "F0"),
    "a unit of no codec": ([chunks()[0], chunks()[2], chunks()[3]], "F0"),
    "a measurement of nothing": ([(QUALITY, b'{"measured":{},"unit":"u000000"}', {}), *chunks()], "F017"),
}


@pytest.mark.parametrize(("parts", "code"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_strangers_file_is_refused_by_number(tmp_path: Path, parts: list[Chunk], code: str) -> None:
    path = tmp_path / "x.fold"
    path.write_bytes(assemble(parts))
    tracemalloc.start()
    with pytest.raises(ArchiveError) as caught:
        read_all(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.code.startswith(code)
    assert peak < 20 * path.stat().st_size + 10**7
    assert any(finding.code.startswith("F0") for finding in verify(path))


@pytest.mark.parametrize("parts", [parts for parts, _ in HOSTILE.values()], ids=HOSTILE.keys())
def test_a_strangers_file_makes_no_bank_and_no_trouble(tmp_path: Path, parts: list[Chunk]) -> None:
    path = tmp_path / "x.fold"
    path.write_bytes(assemble(parts))
    tracemalloc.start()
    bank = Bank.of(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not bank.keys
    assert peak < 20 * path.stat().st_size + 10**7


def measurement(document: bytes) -> list[Chunk]:
    return [*chunks()[:3], (QUALITY, document, {}), chunks()[3]]


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
