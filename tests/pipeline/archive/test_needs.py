"""What units need beside their own bytes: stored once in each file that has such units, and missed where it is lost."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from framefold.pipeline.archive import (
    ArchiveError,
    ArchiveReader,
    ArchiveWriter,
    ShardReader,
    describe,
    listing,
    verify,
)
from framefold.pipeline.archive.folder import FolderWriter
from framefold.pipeline.archive.needs import MAX_NEEDS
from framefold.pipeline.archive.repair import repair_file
from framefold.pipeline.archive.repair_folder import repair_folder
from framefold.pipeline.archive.verify_folder import verify_archive
from framefold.pipeline.cli import info, ls

MANIFEST = {"generator": "framefold test", "created": "2026-01-31T12:00:00Z"}
BASE, OTHER = bytes(range(256)) * 40, b"another network"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def add(source: Callable[..., dict[str, Any]]) -> Callable[..., None]:
    """Adds clips of ten frames and pictures, by number, that need something."""

    def add(writer: Any, clips: Sequence[int], pictures: Sequence[int] = (), needs: Sequence[bytes] = (BASE,)) -> None:
        codec = writer.add_codec("siren", {"width": 4}, needs=needs)
        for number in clips:
            film = writer.add_source(source("film.mp4"))
            unit = {"key": f"{number:064x}", "source": film, "codec": codec, "first_frame": 10 * number}
            pts = [25 * frame for frame in range(10 * number, 10 * number + 10)]
            writer.add_unit(**unit, pts=pts, duration_ticks=25, payload=b"clip %d" % number)
        for number in pictures:
            document = source(f"{number}.png", kind="image", time_base=[1, 1])
            writer.add_picture(source=document, codec=codec, key=f"{number:064x}", payload=b"picture %d" % number)

    return add


@pytest.fixture
def archive(tmp_path: Path, add: Any) -> Path:
    """Two clips and two pictures on one base, a clip on another and one on none."""
    with ArchiveWriter(tmp_path / "a.fold", archive_id=bytes(16)) as writer:
        add(writer, [0, 1], [10, 11])
        add(writer, [2], needs=[OTHER])
        add(writer, [3], needs=[])
        writer.commit(MANIFEST)
    return tmp_path / "a.fold"


@pytest.fixture
def folder(tmp_path: Path, add: Any) -> Path:
    """Two shards with clips on one base."""
    for number in range(2):
        with FolderWriter(tmp_path / "f") as writer:
            add(writer, [number])
            writer.commit(MANIFEST)
    return tmp_path / "f"


def damage(path: Path, at: bytes, *, offset: int = 0) -> None:
    """Flip a bit of these bytes in the file."""
    data = bytearray(path.read_bytes())
    data[data.index(at) + offset] ^= 1
    path.write_bytes(data)


def shards(folder: Path) -> list[Path]:
    with ArchiveReader.open(folder) as reader:
        return [folder / "data" / "shards" / f"{name}.fold" for name, _ in reader.shards]


def lose(path: Path, at: bytes) -> Path:
    """Repair a file in which a chunk with these bytes is damaged; the new one, without the chunk."""
    damage(path, at)
    repaired = path.with_name("repaired.fold")
    repair_file(path, repaired)
    return repaired


def test_units_name_what_they_need_and_it_is_stored_once_before_them(archive: Path) -> None:
    with ArchiveReader.open(archive) as reader:
        records = [reader.read_unit(unit.id) for unit in reader.units]
        assert [record.needs for record in records] == [(sha256(BASE),)] * 2 + [(sha256(OTHER),), ()] + [
            (sha256(BASE),)
        ] * 2
        assert [record.codec_config for record in records] == [{"width": 4}] * 6
        assert reader.read_attachment(sha256(BASE)) == BASE
        assert dict(reader.attachments) == {sha256(BASE): len(BASE), sha256(OTHER): len(OTHER)}
        assert [codec.needs for codec in reader.codecs] == [(sha256(BASE),), (sha256(OTHER),), ()]
    with ShardReader.open(archive) as reader:
        kinds = [entry.kind.decode() for entry in reader.index]
        assert kinds[:2] == ["atch", "Cdec"]
        assert kinds.count("atch") == 2
    assert verify_archive(archive).findings == []


def test_the_second_reader_takes_it_for_an_archive_like_others(archive: Path, fold_reader: ModuleType) -> None:
    found = list(fold_reader.Archive(archive).examine())
    assert not [said for _, _, said, _ in found if isinstance(said, fold_reader.Problem)]
    assert fold_reader.Archive(archive).extract(sha256(BASE), False) == BASE


def test_an_option_of_the_codec_with_that_name_is_left_alone_or_refused(tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path / "a.fold") as writer:
        writer.add_codec("mine", {"needs": "much"})
        with pytest.raises(ArchiveError, match="F016 codec 'mine' has an option 'needs'"):
            writer.add_codec("mine", {"needs": [sha256(BASE)]})
        with pytest.raises(ArchiveError, match="F016"):
            writer.add_codec("mine", {"needs": "much"}, needs=[BASE])
        with pytest.raises(ArchiveError, match=f"F014 .*; {MAX_NEEDS} are allowed"):
            writer.add_codec("mine", {}, needs=[bytes([number]) for number in range(MAX_NEEDS + 1)])
        assert writer.needed_bytes == 0
        writer.commit(MANIFEST)
    with ArchiveReader.open(tmp_path / "a.fold") as reader:
        assert [(codec.config, codec.needs) for codec in reader.codecs] == [({"needs": "much"}, ())]
        assert not reader.attachments


@pytest.mark.parametrize("form", ["a.fold", "f"])
def test_what_is_taken_back_is_stored_again(tmp_path: Path, add: Any, form: str) -> None:
    writer: Any = (ArchiveWriter if form == "a.fold" else FolderWriter)(tmp_path / form)
    with pytest.raises(RuntimeError, match="interrupted"), writer.all_or_nothing():
        add(writer, [0])
        assert writer.needed_bytes == 64 + 48 + len(BASE)
        raise RuntimeError("interrupted")
    assert writer.needed_bytes == 0
    add(writer, [0, 1])
    writer.commit(MANIFEST)
    with ArchiveReader.open(tmp_path / form) as reader:
        assert reader.read_attachment(sha256(BASE)) == BASE
        assert len(reader.units) == 2
    assert verify_archive(tmp_path / form).findings == []


def test_every_shard_has_what_its_own_units_need(folder: Path, add: Any) -> None:
    for path in shards(folder):
        with ShardReader.open(path) as shard:
            assert shard.read_attachment(sha256(BASE)) == BASE
        assert verify(path) == ()
    with ArchiveReader.open(folder) as reader:
        assert [(codec.name, codec.needs) for codec in reader.codecs] == [("siren", (sha256(BASE),))]
    with FolderWriter(folder) as writer:  # all of it is there: nothing is stored, and no shard begun
        add(writer, [0, 1])
        assert writer.needed_bytes == 0
        writer.commit(MANIFEST)
    assert len(shards(folder)) == 2


def test_one_shards_damage_is_made_good_by_another(folder: Path) -> None:
    damage(shards(folder)[0], BASE)
    with ArchiveReader.open(folder) as reader:
        assert reader.read_attachment(sha256(BASE)) == BASE
    damage(shards(folder)[1], BASE)
    with ArchiveReader.open(folder) as reader, pytest.raises(ArchiveError, match="F010"):
        reader.read_attachment(sha256(BASE))


def test_damage_names_the_frames_that_it_costs(archive: Path) -> None:
    damage(archive, OTHER)
    findings = verify(archive)
    assert [finding.code for finding in findings] == ["F010"]
    with ArchiveReader.open(archive) as reader:
        (affected,) = listing.affected(reader, [findings[0].chunk or ""])
        assert affected.startswith("film.mp4 frames 20-29")


def test_repair_keeps_it_and_tells_which_units_are_lost_with_it(archive: Path) -> None:
    damage(archive, BASE)
    out = archive.with_name("out.fold")
    repair = repair_file(archive, out)
    assert [(loss.what, loss.first_frame, loss.source) for loss in repair.losses] == [
        ("attachment", None, None),
        ("frames", 0, "film.mp4"),
        ("frames", 10, "film.mp4"),
        ("pictures", None, "10.png"),
        ("pictures", None, "11.png"),
    ]
    assert f"its bytes are kept, but the attachment {sha256(BASE)} that they need is lost" in repair.losses[1].why
    with ArchiveReader.open(out) as reader:
        assert len(reader.units) == 6
        assert reader.read_attachment(sha256(OTHER)) == OTHER
        codec = reader.codecs[0].id
    (finding,) = verify_archive(out).findings
    assert (finding.code, finding.chunk) == ("F036", codec)
    assert sha256(BASE) in finding.message


def test_a_damaged_unit_costs_no_other_and_not_what_it_needs(archive: Path) -> None:
    repaired = lose(archive, b"clip 0")
    with ArchiveReader.open(repaired) as reader:
        assert len(reader.units) == 5
        assert reader.read_attachment(sha256(BASE)) == BASE
    assert verify_archive(repaired).findings == []


def test_what_one_shard_has_lost_and_another_has_is_not_lost(folder: Path) -> None:
    damage(shards(folder)[0], BASE)
    repair = repair_folder(folder)
    assert [loss.what for loss in repair.losses] == ["attachment"]
    assert verify_archive(folder).findings == []
    damage(shards(folder)[1], BASE)
    repair = repair_folder(folder)
    assert [loss.what for loss in repair.losses] == ["attachment", "frames"]
    assert {finding.code for finding in verify_archive(folder).findings} == {"F036"}


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[[Any, Path], str]:
    def printed(command: Any, path: Path) -> str:
        parser = argparse.ArgumentParser()
        command.add(parser.add_subparsers(required=True))
        args = parser.parse_args([command.__name__.rpartition(".")[2], str(path)])
        assert args.run(args) == 0
        return capsys.readouterr().out

    return printed


def test_info_and_ls_say_what_units_are_built_on(archive: Path, printed: Callable[[Any, Path], str]) -> None:
    rows = [
        {"sha256": sha256(BASE), "bytes": len(BASE), "units": 4, "is_held": True},
        {"sha256": sha256(OTHER), "bytes": len(OTHER), "units": 1, "is_held": True},
    ]
    facts = describe(archive)
    assert facts["bases"] == rows
    assert facts["bytes_by_kind"]["attachments"] == 48 + len(BASE) + 48 + len(OTHER)
    assert sum(facts["bytes_by_kind"].values()) == facts["bytes"] == archive.stat().st_size
    repaired = lose(archive, BASE)
    assert describe(repaired)["bases"] == [{**rows[0], "bytes": None, "is_held": False}, rows[1]]
    shown = printed(info, repaired)
    assert f"4 units built on {sha256(BASE)[:16]}…: not in the archive" in shown
    assert f"1 unit built on {sha256(OTHER)[:16]}…: 15 bytes" in shown
    assert sha256(OTHER) in printed(ls, repaired)


def test_an_archive_without_says_nothing_of_it(small: Path, printed: Callable[[Any, Path], str]) -> None:
    assert describe(small)["bases"] == []
    assert "built on" not in printed(info, small)
    assert "base" not in printed(ls, small)
