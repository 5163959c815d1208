"""What an interrupted writer leaves to the next one: all that is whole, whatever else is in the file."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from framefold.pipeline.archive import ArchiveError, ArchiveReader, ArchiveWriter, Bank, verify

MEASURED = {f"{number:064x}": (bytes(range(50 + number)), 30.5 + number) for number in range(2)}
"""Key to payload and PSNR of the units that the small archive has measurements of."""
UNMEASURED = ("f" * 64, b"picture")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def known(bank: Bank) -> dict[str, float]:
    """PSNR by key of what the bank knows; whatever it says must be true."""
    found = {}
    for key, (payload, psnr_db) in MEASURED.items():
        quality = bank.quality(key, payload)
        if quality is not None:
            assert quality["psnr_db"] == psnr_db
            found[key] = psnr_db
    assert set(found) == set(bank.keys)
    return found


@pytest.fixture
def left(tmp_path: Path, fill: Callable[[ArchiveWriter], list[str]]) -> Path:
    """The temporary file of a writer that was suspended after the small archive's units."""
    writer = ArchiveWriter(tmp_path / "x.fold", archive_id=bytes(range(16)))
    fill(writer)
    writer.suspend()
    return tmp_path / ".x.fold.part"


def test_a_suspended_writer_leaves_its_measured_units_to_the_next_one(left: Path, manifest: dict[str, Any]) -> None:
    with ArchiveWriter(left.parent / "x.fold") as writer:
        assert names(left.parent) == [".x.fold.part", ".x.fold.part.old"]
        assert writer.size_bytes == 64
        assert set(known(writer.bank)) == set(MEASURED)
        assert writer.bank.quality(*UNMEASURED) is None
        assert writer.bank.quality("0" * 64, b"other bytes") is None
        assert writer.bank.quality("e" * 64, MEASURED["0" * 64][0]) is None
        writer.commit(manifest)
    assert names(left.parent) == ["x.fold"]
    with ArchiveReader.open(left.parent / "x.fold") as reader:
        assert reader.units == ()


def test_a_writer_without_a_measured_unit_leaves_nothing(tmp_path: Path, source: Callable[..., dict[str, Any]]) -> None:
    writer = ArchiveWriter(tmp_path / "x.fold")
    place = {"source": writer.add_source(source("a")), "codec": writer.add_codec("coin", {})}
    writer.add_unit(key="0" * 64, **place, first_frame=0, pts=[0], duration_ticks=1, payload=b"bytes")
    writer.suspend()
    writer.suspend()
    writer.abort()
    assert names(tmp_path) == []


def test_a_run_interrupted_early_does_not_cost_what_an_earlier_one_had_measured(
    left: Path, source: Callable[..., dict[str, Any]]
) -> None:
    path = left.parent / "x.fold"
    for _ in range(2):
        writer = ArchiveWriter(path)
        place = {"source": writer.add_source(source("a")), "codec": writer.add_codec("coin", {})}
        frames = {"first_frame": 0, "pts": [0], "duration_ticks": 1}
        unit = writer.add_unit(key="0" * 64, **place, **frames, payload=MEASURED["0" * 64][0])
        writer.add_quality(unit, {"psnr_db": 30.5})
        writer.suspend()
        assert names(left.parent) == [".x.fold.part", ".x.fold.part.old"]
    with ArchiveWriter(path) as writer:
        assert set(known(writer.bank)) == set(MEASURED)
        unit = writer.add_unit(
            key="d" * 64,
            source=writer.add_source(source("a")),
            codec=writer.add_codec("coin", {}),
            **frames,
            payload=b"d",
        )
        writer.add_quality(unit, {"psnr_db": 1.0})
        writer.suspend()
    with ArchiveWriter(path) as writer:  # what is new is worth more than what may never come again
        assert set(writer.bank.keys) == {"d" * 64}
    assert names(left.parent) == [".x.fold.part.old"]


def test_the_last_measurement_counts(tmp_path: Path, fill: Callable[[ArchiveWriter], list[str]]) -> None:
    writer = ArchiveWriter(tmp_path / "x.fold")
    writer.add_quality(fill(writer)[0], {"psnr_db": 77.0})
    writer.suspend()
    assert Bank.of(tmp_path / ".x.fold.part").quality("0" * 64, MEASURED["0" * 64][0]) == {"psnr_db": 77.0}


def test_every_damaged_byte_costs_its_own_unit_at_most(left: Path) -> None:
    dice, sound = random.Random(3), left.read_bytes()
    lost = 0
    with left.open("r+b", buffering=0) as file:
        for offset, byte in enumerate(sound):
            file.seek(offset)
            file.write(bytes([byte ^ 1 << dice.randrange(8)]))
            count = len(known(Bank.of(left)))
            assert count >= len(MEASURED) - 1, offset
            lost += len(MEASURED) - count
            file.seek(offset)
            file.write(bytes([byte]))
    assert lost > 0
    assert len(known(Bank.of(left))) == len(MEASURED)


def test_cut_anywhere_what_was_measured_before_is_known(left: Path) -> None:
    counts = []
    for length in reversed(range(left.stat().st_size)):
        os.truncate(left, length)
        counts.append(len(known(Bank.of(left))))
    assert counts == sorted(counts, reverse=True)
    assert set(counts) == {0, 1, 2}


@pytest.mark.parametrize("content", [b"", b"RIFF", bytes(5000), b"\xf1FLC\r\n\x1a\n" * 5000, os.urandom(5000)])
def test_other_bytes_under_the_temporary_name_are_written_over(
    tmp_path: Path,
    content: bytes,
    fill: Callable[[ArchiveWriter], list[str]],
    manifest: dict[str, Any],
) -> None:
    for name in (".x.fold.part", ".x.fold.part.old"):
        (tmp_path / name).write_bytes(content)
    with ArchiveWriter(tmp_path / "x.fold") as writer:
        assert not writer.bank.keys
        fill(writer)
        writer.commit(manifest)
    assert verify(tmp_path / "x.fold") == ()
    assert names(tmp_path) == ["x.fold"]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to(path.with_name("precious"))])
def test_what_is_no_file_under_the_temporary_name_is_refused_and_left_alone(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    make(tmp_path / ".x.fold.part")
    with pytest.raises(ArchiveError, match="F018"):
        ArchiveWriter(tmp_path / "x.fold")
    assert names(tmp_path) == [".x.fold.part", "precious"]
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_what_failed_half_way_is_as_if_it_had_not_been_begun(
    small: Path,
    tmp_path: Path,
    fill: Callable[[ArchiveWriter], list[str]],
    source: Callable[..., dict[str, Any]],
    manifest: dict[str, Any],
) -> None:
    with ArchiveWriter(tmp_path / "y.fold", archive_id=bytes(range(16))) as writer:
        for error in (ValueError, KeyboardInterrupt):
            with pytest.raises(error), writer.all_or_nothing():
                fill(writer)
                raise error
            assert writer.size_bytes == 64
        ids = fill(writer)
        with pytest.raises(ValueError, match="late"), writer.all_or_nothing():
            place = {"source": writer.add_source(source("late")), "codec": writer.add_codec("late", {})}
            writer.add_unit(key="e" * 64, **place, first_frame=0, pts=[0], duration_ticks=1, payload=b"late")
            writer.add_quality(ids[0], {"psnr_db": 0.0})
            raise ValueError("late")
        fill(writer)  # all there already, so that nothing is written
        writer.commit(manifest)
    assert (tmp_path / "y.fold").read_bytes() == small.read_bytes()
