"""The specification is read against the code: its tables, its example, its numbers."""

from __future__ import annotations

import re
import struct
from pathlib import Path

from framefold.pipeline.archive import records, unit
from framefold.pipeline.archive.records import ENTRY_BYTES, HEADER_BYTES, KNOWN, SYNC, is_critical

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "archive-format.md").read_text(encoding="utf-8")
SIZES = {"u16": "H", "u32": "I", "u64": "Q", "i64": "q", "4 letters": "4s", "16 bytes": "16s", "32 bytes": "32s"}


def rows(title: str) -> list[list[str]]:
    """The table below a heading, cell by cell."""
    section = re.split(r"^#+ ", TEXT.partition(f"# {title}")[2], maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def layout(title: str) -> list[tuple[int, int]]:
    """(offset, size) of each row of a table."""
    sizes = {**SIZES, "8 bytes": "8s", "4 bytes": "4s"}
    return [
        (int(row[0]), struct.calcsize("<" + "".join(sizes[kind.strip()] for kind in row[1].split(","))))
        for row in rows(title)
    ]


def test_the_tables_have_no_gap_and_the_size_of_the_records() -> None:
    for title, size in (
        ("File header, 64 bytes", HEADER_BYTES),
        ("Chunk header, 64 bytes", HEADER_BYTES),
        ("Index entry, 80 bytes", ENTRY_BYTES),
        ("Footer, 64 bytes", HEADER_BYTES),
        ("Unit head", unit.UnitHead._FIXED.size + unit.Run.LAYOUT.size),
    ):
        at = 0
        for offset, length in layout(title):
            assert offset == at, title
            at += length
        assert at == size, title


def test_the_types_are_those_of_the_code() -> None:
    types = {row[0].strip("`").encode() for row in rows("Chunk types")}
    assert types == KNOWN
    assert {kind for kind in KNOWN if not is_critical(kind)} == {records.QUALITY}


def test_the_example_is_the_golden_archive() -> None:
    lines = re.findall(r"^[0-9a-f]{4}  ((?:[0-9a-f]{2} ?)+)  ", TEXT, flags=re.MULTILINE)
    data = bytes.fromhex("".join(lines))
    golden = (ROOT / "tests" / "golden" / "archive_v1.fold").read_bytes()
    assert len(data) == 200
    assert golden.startswith(data)
    assert data[HEADER_BYTES:].startswith(SYNC)
    assert SYNC.hex(" ").upper() in TEXT
    assert records.FILE_MAGIC.hex(" ").upper() in TEXT
