"""Archives of every version, written once: every later reader, and the second one, must read them so.

Written only on request: `FRAMEFOLD_WRITE_GOLDEN=1 pytest tests/pipeline/archive/test_golden.py`, and only where
they are missing.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from framefold.pipeline.archive import (
    ArchiveReader,
    ArchiveWriter,
    CopiedPacket,
    PacketBlock,
    ShardReader,
    describe,
    verify,
)
from framefold.pipeline.archive.documents import pack_document
from framefold.pipeline.archive.records import FileHeader
from framefold.pipeline.archive.verify import verify_file

GOLDEN = Path(__file__).parents[2] / "golden"
ARCHIVE, LISTING = GOLDEN / "archive_v1.fold", GOLDEN / "archive_v1.json"
VECTORS = GOLDEN / "archive_v1_1.jsonl"

MANIFEST = {"generator": "framefold test", "created": "2026-01-31T12:00:00Z"}
NAMES = (
    "a.png",
    "b/c.png",
    "Ænglisch/ü.png",
    "映画/第一巻.mp4",
    "\U0001f3ac.mkv",
    "x" * 1024,
    "a b\tc\n.png",
    "e\u0301.png",
)
MOST = 2**53 - 1
TIMES = (
    [0],
    [-1, 0, 1],
    [0, 40, 80, 120, 161, 200, 240],
    [MOST, -MOST],
    [5] * 7,
    [3, 2, 1, 0, 10, 20],
    [1001 * number for number in range(60)],
    [number * number for number in range(20)],
)
Fill = Callable[[ArchiveWriter], None]


@pytest.fixture(scope="module", autouse=True)
def _written() -> None:
    for path in (ARCHIVE, VECTORS):
        if not path.exists() and os.environ.get("FRAMEFOLD_WRITE_GOLDEN") != "1":
            pytest.fail(f"{path} is missing; if it never existed, write it with FRAMEFOLD_WRITE_GOLDEN=1")


def listing(path: Path) -> dict[str, Any]:
    """All that the first version's reader gave, as JSON."""
    with ArchiveReader.open(path) as reader:
        units = []
        for unit in reader.units:
            record = {name: getattr(reader.read_unit(unit.id), name) for name in RECORD}
            units.append({**record, "payload": record["payload"].hex(), "quality": reader.quality(unit.id)})
        said = describe(path)
        facts = {name: said[name] for name in ("bits_per_pixel", "bytes", "created", "generator", "overhead_bytes")}
        document = {**facts, "archive": path.name, "manifest": dict(reader.manifest), "units": units}
    return json.loads(json.dumps(document))


RECORD = ("key", "source_document", "codec_name", "codec_config", "first_frame", "pts", "duration_ticks", "payload")


def test_the_archive_of_version_1_0_still_reads_the_same() -> None:
    written = json.loads(LISTING.read_text(encoding="utf-8"))
    read = listing(ARCHIVE)
    assert read == {name: written[name] for name in read}
    assert verify(ARCHIVE) == ()


def test_the_second_reader_agrees_on_the_archive_of_version_1_0(fold_reader: ModuleType) -> None:
    with ShardReader.open(ARCHIVE) as reader:
        assert spoken(reader) == meaning(dump(fold_reader, ARCHIVE))
    written = json.loads(LISTING.read_text(encoding="utf-8"))
    archive = fold_reader.Archive(ARCHIVE)
    names = [name for name in archive.names if name.startswith("u")]
    assert [archive.extract(name, False).hex() for name in names] == [unit["payload"] for unit in written["units"]]


def test_writing_it_again_changes_only_the_minor_version(write_small: Callable[[Path], Path], tmp_path: Path) -> None:
    again, before = write_small(tmp_path / "again.fold").read_bytes(), ARCHIVE.read_bytes()
    assert again[64:] == before[64:]
    new, old = FileHeader.unpack(again[:64]), FileHeader.unpack(before[:64])
    assert (new.minor, old.minor) == (1, 0)
    assert (new.archive_id, new.shard_id) == (old.archive_id, old.shard_id)


# Version 1.1: what goes into the vectors. A vector that was written is never changed; new ones get new names.


def units(count: int, size: int, times: int, writer: ArchiveWriter) -> None:
    """Clips of one source, each with its measurement."""
    source = writer.add_source(source_of(NAMES[(count + size) % 8], kind="video", time_base=[1001, 30000]))
    codec = writer.add_codec("nerv", {"size": "S", "rates": [1, 2.5, None], "deep": {"a": [[], {}]}})
    for number in range(count):
        pts = TIMES[(times + number) % len(TIMES)]
        place = {"key": key_of(number), "source": source, "codec": codec, "first_frame": 1000 * number}
        name = writer.add_unit(**place, pts=pts, duration_ticks=times, payload=random.Random(number).randbytes(size))
        if number % 2 == 0:
            writer.add_quality(name, {"psnr_db": 30.125 + number, "frames_sha256": key_of(-number)})


def pictures(count: int, packs: int, sources: int, writer: ArchiveWriter) -> None:
    """Small pictures in so many packs."""
    codecs = [writer.add_codec(f"coin{number}", {}) for number in range(2)]
    for number in range(count):
        source = source_of(NAMES[number % sources], kind="image", width=1 + number % 3)
        measured = {"psnr_db": 40 - number, "said": "ü \ud83c\udfac"} if number % 3 else None
        payload = random.Random(number).randbytes(number % 11)
        picture = {"key": key_of(number), "payload": payload, "measured": measured}
        writer.add_picture(source=source, codec=codecs[number % 2], **picture)
        if number % (count // packs) == 0:
            writer.close_pack()


def packets(count: int, parts: int, kind: int, writer: ArchiveWriter) -> None:
    """Copied packets of a track, with or without times and side data."""
    tracks = [{"kind": "video"}, {"kind": "audio"}]
    source = writer.add_source(source_of("a.mkv", kind="video", tracks=tracks))
    for part in range(parts):
        block = PacketBlock(
            key=key_of(100 * kind + part),
            track=kind % 2,
            part=part,
            packets=tuple(packet(count * part + number, kind) for number in range(count)),
        )
        writer.add_packets(source, block)


def packet(number: int, kind: int) -> CopiedPacket:
    none, most = kind == 1, 2**63 - 1
    extreme = ((most, -most, most), (-most, most, -5), (0, None, 0))[number % 3]
    pts, dts, duration = extreme if kind == 2 else (1024 * number, 1024 * number - 512, 1024)
    side = (("skip_samples", bytes(number % 7)), ("x" * 255, b""), ("new_extradata", b"\0" * 300))[: number % 4]
    return CopiedPacket(
        data=random.Random(number).randbytes(number * 7 % 50),
        pts=None if none else pts,
        dts=None if none and number % 2 else dts,
        duration=duration,
        flags=number % 32,
        side_data=side if kind == 3 else (),
    )


def attachments(sizes: tuple[int, ...], piece: int, writer: ArchiveWriter) -> None:
    """Attachments in pieces of so many bytes."""
    for size in sizes:
        data = random.Random(size).randbytes(size)
        for start in range(0, max(size, 1), piece):
            writer.add_attachment(hashlib.sha256(data).hexdigest(), size, start, data[start : start + piece])


def everything(writer: ArchiveWriter) -> None:
    units(2, 5, 1, writer)
    pictures(4, 2, 3, writer)
    packets(3, 2, 3, writer)
    attachments((10, 600), 256, writer)


def source_of(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "kind": "image", "width": 2, "height": 3, "time_base": [1, 1], "original": 0.1} | more


def key_of(number: int) -> str:
    return hashlib.sha256(b"%d" % number).hexdigest()


def vectors() -> Iterator[tuple[str, Fill]]:
    """Name and content of each vector: 200 and more combinations."""
    yield "nothing", lambda writer: None
    for count in (1, 2, 5):
        for size in (0, 1, 3, 7, 8, 9, 63):
            for times in range(4):
                yield f"units {count} of {size} bytes, times {times}", partial(units, count, size, times)
    for count, packs in ((1, 1), (2, 1), (2, 2), (7, 1), (7, 3), (12, 4)):
        for sources in (1, 2, 8):
            yield f"pictures {count} in {packs} packs of {sources}", partial(pictures, count, packs, sources)
    for count in (1, 2, 3, 7, 15):
        for parts in (1, 2, 3):
            for kind in range(4):
                yield f"packets {count} in {parts} parts, kind {kind}", partial(packets, count, parts, kind)
    for sizes in ((0,), (1,), (8,), (9, 10), (500,), (64, 0, 700)):
        for piece in (1000, 256, 97):
            yield f"attachments {sizes} by {piece}", partial(attachments, sizes, piece)
    yield "everything", everything


FORGED = ("later measurement", "unknown chunks", "version 1.0", "unknown fields", "spaces", "two measurements")
"""What the writer does not write, but a reader must read; each made of `everything` and of `units`."""


def forge(way: str, apart: Any) -> None:
    kinds = [kind for kind, *_ in apart.chunks]
    end = len(kinds) - 1 - (b"copy" in kinds)
    number = kinds.index(b"Pack") if b"Pack" in kinds else kinds.index(b"Unit")
    name = f"p{number:06d}.0" if b"Pack" in kinds else f"u{number:06d}"
    source = 1 if b"Pack" in kinds else 0
    if way in ("later measurement", "two measurements"):
        for measured in ({"psnr_db": 1}, {"ms_ssim": 1.0})[: 1 + (way == "two measurements")]:
            said = pack_document({"unit": name, "measured": measured})
            apart.insert(end, b"qual", said, stream=source, first_item=number)
    elif way == "unknown chunks":
        apart.insert(end, b"zoom", b"", stream=5, items=3)
        apart.insert(end, b"aaaa", b"anything", t0=-5, duration=7, first_item=2, codec=9)
    elif way == "version 1.0":
        apart.file_header = FileHeader(minor=0, archive_id=bytes(16), shard_id=apart.file_header[32:48]).pack()
    else:
        change(apart, 0, {"later": [1, {"field": None}]}, indent=1 if way == "spaces" else None)
        change(apart, len(kinds) - 1, {"later": "\u20ac"}, indent=2 if way == "spaces" else None)


def change(apart: Any, number: int, more: dict[str, Any], indent: int | None) -> None:
    kind, payload, fields = apart.chunks[number]
    document = json.dumps({**json.loads(payload), **more}, indent=indent, ensure_ascii=False)
    apart.chunks[number] = (kind, document.encode(), fields)


def made(path: Path, fill: Fill) -> bytes:
    with ArchiveWriter(path, archive_id=bytes(16)) as writer:
        fill(writer)
        writer.commit(MANIFEST)
    return path.read_bytes()


def all_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pieces: Any) -> Iterator[tuple[str, bytes]]:
    for number, (name, fill) in enumerate(vectors()):
        yield name, made(tmp_path / f"{number}.fold", fill)
    for way in FORGED:
        for name, fill in (("everything", everything), ("units", partial(units, 2, 3, 2))):
            apart = pieces(made(tmp_path / f"{way} {name}.fold", fill))
            forge(way, apart)
            yield f"{way}, {name}", apart.join()
    monkeypatch.setattr("framefold.pipeline.archive.shard_writer.TAIL", 0)  # each gets a copy
    for name, fill in [*vectors()][::12]:
        yield f"copy, {name}", made(tmp_path / f"copy {name[:9]}.fold", fill)


# What two readers say of one file, in the same words.


def dump(fold_reader: ModuleType, path: Path) -> Any:
    """Every line of `fold_reader.py dump`."""
    return json.loads(json.dumps([*fold_reader.Archive(path).examine()]))


def meaning(lines: Any) -> dict[str, Any]:
    """What a dump says of the archive as a whole."""
    said: dict[str, Any] = {name: [] for name in ("chunks", "sources", "codecs", "manifest", "packets")}
    units: dict[str, Any] = {}
    attached: dict[str, Any] = {}
    table: Any = None
    for name, entry, values, parts in lines:
        said["chunks"].append([name, *entry])
        kind, source, first, codec = entry[6], entry[2], entry[7], entry[8]
        if kind in ("Srce", "Cdec", "Mani"):
            said[{"Srce": "sources", "Cdec": "codecs", "Mani": "manifest"}[kind]].append(values)
        if kind == "Unit":
            units[name] = {**values, "source": source, "codec": codec, "first_frame": first, "measured": None}
            units[name]["sha256"] = parts[name]
        if kind == "Tabl":
            said["sources"] += values["sources"]
            table = values["units"]
        if kind == "Pack":
            for row, (own, sha256) in zip(table, parts.items(), strict=True):
                shown = {field: row[field] for field in row if field != "bytes"}
                units[own] = {"measured": None, **shown, "sha256": sha256}
        if kind == "qual":
            units[values["unit"]]["measured"] = values["measured"]
        if kind == "pckt":
            said["packets"].append([name, source, first, values, parts[name]])
        if kind == "atch":
            attached |= dict.fromkeys(parts, values["total_bytes"])
    return {**said, "units": units, "attachments": attached}


def spoken(reader: ShardReader) -> dict[str, Any]:
    """The same of framefold's reader."""
    said = {
        "chunks": [chunk(reader, number) for number in range(len(reader.index))],
        "sources": [source.document for source in reader.sources],
        "codecs": [{"name": codec.name, "config": codec.config} for codec in reader.codecs],
        "manifest": [reader.manifest],
        "packets": [block(reader, entry.id) for entry in reader.packet_blocks],
        "units": {unit.id: unit_of(reader, unit) for unit in reader.units},
        "attachments": {sha256: len(reader.read_attachment(sha256)) for sha256 in reader.attachments},
    }
    return json.loads(json.dumps(said))


def chunk(reader: ShardReader, number: int) -> list[Any]:
    entry = reader.index[number]
    place = [entry.offset, entry.payload_bytes, entry.stream, entry.t0, entry.duration, entry.items]
    return [reader.index.id(number), *place, entry.kind.decode(), entry.first_item, entry.codec, entry.sha256.hex()]


def unit_of(reader: ShardReader, unit: Any) -> dict[str, Any]:
    record = reader.read_unit(unit.id)
    assert reader.keys[record.key] == unit.id
    shown = {name: getattr(record, name) for name in ("key", "pts", "first_frame", "duration_ticks")}
    place = {"source": unit.source, "codec": unit.codec, "measured": reader.quality(unit.id)}
    return {**shown, **place, "sha256": hashlib.sha256(record.payload).hexdigest()}


def block(reader: ShardReader, name: str) -> list[Any]:
    entry = next(entry for entry in reader.packet_blocks if entry.id == name)
    read = reader.read_packets(name)
    sides = [b"".join(map(side, packet.side_data)) for packet in read.packets]
    columns = {
        "pts": [-(2**63) if packet.pts is None else packet.pts for packet in read.packets],
        "dts": [-(2**63) if packet.dts is None else packet.dts for packet in read.packets],
        "duration": [packet.duration for packet in read.packets],
        "flags": [packet.flags for packet in read.packets],
        "bytes": [len(packet.data) for packet in read.packets],
        "side_bytes": [len(data) for data in sides],
    }
    data = b"".join(packet.data + own for packet, own in zip(read.packets, sides, strict=True))
    values = {"key": read.key, "part": read.part, **columns}
    return [name, entry.source, read.track, values, hashlib.sha256(data).hexdigest()]


def side(item: tuple[str, bytes]) -> bytes:
    name, data = item
    return bytes((len(name),)) + name.encode() + struct.pack("<I", len(data)) + data


def test_vectors_of_version_1_1_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pieces: Any, fold_reader: ModuleType
) -> None:
    if VECTORS.exists():
        return
    lines = []
    for name, data in all_vectors(tmp_path, monkeypatch, pieces):
        path = tmp_path / "vector.fold"
        path.write_bytes(data)
        packed = b64encode(zlib.compress(data, 9)).decode()
        lines.append(json.dumps({"name": name, "archive": packed, "dump": dump(fold_reader, path)}))
    assert len(lines) == len({json.loads(line)["name"] for line in lines})
    VECTORS.write_text("\n".join(lines) + "\n", encoding="ascii")


def frozen() -> Iterator[tuple[str, bytes, Any]]:
    for line in VECTORS.read_text(encoding="ascii").splitlines():
        vector = json.loads(line)
        yield vector["name"], zlib.decompress(b64decode(vector["archive"])), vector["dump"]


def test_both_readers_agree_on_all_vectors_for_ever(tmp_path: Path, in_memory: Any, fold_reader: ModuleType) -> None:
    path, count, kinds = tmp_path / "vector.fold", 0, set()
    for name, data, written in frozen():
        path.write_bytes(data)
        assert dump(fold_reader, path) == written, name
        assert spoken(ShardReader(in_memory(data))) == meaning(written), name
        kinds |= {entry[6] for _, entry, *_ in written}
        count += 1
    assert count >= 200
    assert kinds >= {"Srce", "Cdec", "Unit", "Tabl", "Pack", "qual", "pckt", "atch", "copy", "Mani", "zoom"}


def test_no_vector_has_a_finding(in_memory: Any) -> None:
    for name, data, _ in frozen():
        assert verify_file(in_memory(data)) == (), name


def test_this_version_still_writes_the_same_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pieces: Any
) -> None:
    written = {name: data for name, data, _ in frozen()}
    for name, data in all_vectors(tmp_path, monkeypatch, pieces):
        assert plain(pieces(data)) == plain(pieces(written[name])), name


def plain(apart: Any) -> list[Any]:
    """Chunks with what is deflated inflated: compressors may change, what they are given may not."""
    return [(kind, inflated(kind, payload), fields) for kind, payload, fields in apart.chunks]


def inflated(kind: bytes, payload: bytes) -> bytes:
    if kind in (b"Tabl", b"copy"):
        return zlib.decompress(payload)
    if kind == b"pckt":
        size = struct.unpack_from("<I", payload, 44)[0]
        return payload[:44] + zlib.decompress(payload[48 : 48 + size]) + payload[48 + size :]
    return payload
