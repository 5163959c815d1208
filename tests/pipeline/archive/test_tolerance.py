"""Damage costs what it touches: the other units of a file, and the other shards of a folder, are read as ever."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from framefold.pipeline.archive import ArchiveReader, ArchiveWriter, Code, ShardReader, verify
from framefold.pipeline.archive.folder import FolderWriter
from framefold.pipeline.archive.records import TABLE, UNIT

MANIFEST = {"generator": "test", "created": "2026-01-31T12:00:00Z"}
PICTURE = {"kind": "image", "width": 4, "height": 3, "time_base": [1, 1]}


def flip(path: Path, kind: bytes, place: int, byte: int = 70) -> None:
    """Damage the payload of the n-th chunk of a type."""
    with ShardReader.open(path) as reader:
        entry = reader.index[reader.index.numbers(kind)[place]]
    data = bytearray(path.read_bytes())
    data[entry.offset + byte] ^= 16
    path.write_bytes(data)


@pytest.fixture
def packs(tmp_path: Path) -> Path:
    """Two packs of three pictures, then a unit; a source of the second pack is one of the first."""
    with ArchiveWriter(tmp_path / "packs.fold") as writer:
        codec = writer.add_codec("coin", {})
        for number in range(6):
            document = PICTURE | {"name": f"{number % 5}.png"}
            writer.add_picture(source=document, codec=codec, key=f"{number:064x}", payload=bytes([number] * 9))
            if number == 2:
                writer.close_pack()
        source = writer.add_source(PICTURE | {"name": "last.png"})
        place = {"source": source, "codec": codec, "first_frame": 0, "pts": [0], "duration_ticks": 1}
        writer.add_unit(key="f" * 64, payload=b"last", **place)
        return writer.commit(MANIFEST)


@pytest.mark.parametrize(("place", "left"), [(0, [3, 4, 5]), (1, [0, 1, 2])])
def test_a_damaged_table_costs_its_own_pack(packs: Path, place: int, left: list[int]) -> None:
    flip(packs, TABLE, place)
    with ArchiveReader.open(packs) as reader:
        records = [reader.read_unit(unit.id) for unit in reader.units]
        assert [record.key for record in records] == [*(f"{number:064x}" for number in left), "f" * 64]
        assert reader.keys.keys() == {record.key for record in records}
        (problem,) = reader.problems
        assert (problem.code, problem.chunk) == (Code.PAYLOAD, ["t000001", "t000003"][place])
        assert [source.is_lost for source in reader.sources] == [place == 0] * 3 + [place == 1] * 2 + [False]
        known = [source.name for source in reader.sources if not source.is_lost]
        assert known == [*(["3.png", "4.png"] if place == 0 else ["0.png", "1.png", "2.png"]), "last.png"]
    assert [finding.code for finding in verify(packs)] == [Code.PAYLOAD]


def test_a_damaged_unit_in_a_folder_costs_itself(tmp_path: Path, source: Callable) -> None:
    place = tmp_path / "films"
    for batch in range(2):
        writer = FolderWriter(place)
        for number in range(2):
            unit = {"source": writer.add_source(source("a.mp4")), "codec": writer.add_codec("nerv", {})}
            frames = {"first_frame": 2 * batch + number, "pts": [2 * batch + number], "duration_ticks": 1}
            writer.add_unit(key=f"{2 * batch + number:064x}", payload=b"bytes", **unit, **frames)
        writer.commit(MANIFEST)
    first = min((place / "data" / "shards").iterdir())
    flip(first, UNIT, 1)
    with ArchiveReader.open(place) as reader:
        assert len(reader.units) == 4
        assert reader.problems == ()
        assert len(reader.keys) == 3
        (bad,) = [unit for unit in reader.units if unit.id not in reader.keys.values()]
        assert bad.id == f"{first.name[:8]}/u000003"


def test_a_shard_that_is_gone_costs_itself(tmp_path: Path, source: Callable) -> None:
    place = tmp_path / "films"
    for number in range(2):
        writer = FolderWriter(place)
        unit = {"source": writer.add_source(source("a.mp4")), "codec": writer.add_codec("nerv", {})}
        frames = {"first_frame": number, "pts": [number], "duration_ticks": 1}
        writer.add_unit(key=f"{number:064x}", payload=b"bytes", **unit, **frames)
        writer.commit(MANIFEST)
    min((place / "data" / "shards").iterdir()).unlink()
    with ArchiveReader.open(place) as reader:
        assert len([reader.read_unit(unit.id) for unit in reader.units]) == 1
        assert [problem.code for problem in reader.problems] == [Code.SHARD_MISSING]
