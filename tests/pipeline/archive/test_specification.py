"""docs/archive-format.md and the code say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from framefold.pipeline.archive import ArchiveWriter, Code, limits, records, unit, verify

TEXT = (Path(__file__).parents[3] / "docs" / "archive-format.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """The text under a heading, up to the next one."""
    return re.split(r"\n#+ ", TEXT.split(f"# {title}", 1)[1], maxsplit=1)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of all table rows, without heads."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not set(line) <= set("|- ")]
    cells = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[0] not in ("offset", "what", "code", "type", "field", "column")]


@pytest.mark.parametrize(
    ("title", "size"),
    [
        ("File header, 64 bytes", 64),
        ("Chunk header, 64 bytes", 64),
        ("Index entry, 80 bytes", 80),
        ("Footer, 64 bytes", 64),
        ("Unit head, 52 bytes and 20 for each run", 52 + 20),
        ("Copied packets: `pckt` (1.1)", 48),
        ("Attachments: `atch` (1.1)", 48),
    ],
)
def test_each_record_is_described_without_gap(title, size):
    at = total = 0
    for offset, length, kind, *_ in rows(section(title)):
        if title.startswith("Copied") and total >= 48:
            break  # the second table numbers columns
        at = 0 if total == 52 and int(offset) == 0 else at  # the second table of the unit head
        assert int(offset) == at, (title, offset)
        if kind[1:].isdigit():
            assert 8 * int(length) == int(kind[1:])
        at, total = at + int(length), total + int(length)
    assert total == size


def test_packed_records_put_each_field_where_the_specification_says():
    def at(title: str, field: str) -> slice:
        offset, length = next((int(row[0]), int(row[1])) for row in rows(section(title)) if row[3] == field)
        return slice(offset, offset + length)

    values = {"stream": 5, "shard_tag": 6, "payload_bytes": 7, "number": 8, "t0": -9, "duration": 10, "items": 11}
    header = records.ChunkHeader(kind=b"Unit", payload_crc=12, **values).pack()
    for field, value in {**values, "payload_crc": 12, "raw_bytes": 7, "version": 1, "flags": 0}.items():
        assert int.from_bytes(header[at("Chunk header", field)], "little", signed=field == "t0") == value, field
    values = {"offset": 64, "payload_bytes": 7, "stream": 5, "t0": -9, "duration": 10, "items": 11, "codec": 3}
    entry = records.IndexEntry(kind=b"Unit", first_item=4, sha256=bytes(range(32)), **values).pack()
    for field, value in {**values, "first_item": 4}.items():
        assert int.from_bytes(entry[at("Index entry", field)], "little", signed=field == "t0") == value, field
    assert entry[at("Index entry", "sha256")] == bytes(range(32))
    head = unit.UnitHead(key="0a" * 32, codec=1, first_frame=2, duration_ticks=3, pts=(4, 6, 8)).pack()
    for field, value in {"codec": 1, "first_frame": 2, "duration_ticks": 3, "runs": 1}.items():
        assert int.from_bytes(head[at("Unit head", field)], "little") == value, field


def test_marks_are_the_ones_described():
    assert bytes.fromhex(re.search(r"magic \| `([0-9A-F ]+)`", TEXT)[1]) == records.FILE_MAGIC
    assert bytes.fromhex(re.search(r"sync \| `([0-9A-F ]+)`", TEXT)[1]) == records.SYNC
    assert f"`{records.END_MAGIC.decode()}`" in section("Footer")


def test_types_limits_and_codes_are_the_ones_described():
    assert {row[0].encode() for row in rows(section("Chunk types"))} == records.KNOWN
    assert {row[0] for row in rows(section("Numbered problems"))} == set(Code)
    described = [int(re.match(r"\d+", row[1])[0]) for row in rows(section("Limits"))]
    assert described == [
        limits.MAX_PAYLOAD,
        limits.MAX_CHUNKS,
        limits.MAX_FRAMES,
        limits.MAX_JSON,
        limits.MAX_JSON_DEPTH,
        limits.MAX_JSON_VALUES,
        limits.MAX_TICK,
        limits.MAX_SIDE,
        limits.MAX_PIXELS,
        limits.MAX_NAME,
        limits.MAX_PACKED,
        limits.MAX_PACKETS,
        limits.MAX_SIDE_DATA,
        36 * limits.MAX_PACKETS,
        limits.MAX_ATTACHMENT,
        limits.MAX_COMMITS,
    ]


def test_the_worked_example_is_what_the_writer_writes(tmp_path):
    lines = section("Worked example").split("```")[1].strip().splitlines()
    dump = bytes.fromhex("".join(line[6:53] for line in lines))
    path = tmp_path / "a.fold"
    facts = {"name": "a.png", "kind": "image", "width": 2, "height": 2, "time_base": [1, 1]}
    with ArchiveWriter(path, archive_id=bytes(range(16))) as writer:
        place = {"source": writer.add_source(facts), "codec": writer.add_codec("coin", {})}
        frames = {"first_frame": 0, "pts": [0], "duration_ticks": 1}
        chunk = writer.add_unit(key="0a" * 32, **place, **frames, payload=b"\1\2\3")
        writer.add_quality(chunk, {"psnr_db": 30.5})
        writer.commit({"generator": "x", "created": "2026-01-31T12:00:00Z"})
    assert path.read_bytes() == dump
    assert verify(path) == ()
