"""The folder form: shards that are named by their bytes, commits that list them, keys that are stored once."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from framefold.pipeline.archive import (
    ArchiveError,
    ArchiveReader,
    ArchiveWriter,
    CopiedPacket,
    PacketBlock,
    ShardReader,
)
from framefold.pipeline.archive.chain import Chain, append
from framefold.pipeline.archive.folder import FolderWriter, is_folder, open_shards, open_writer
from framefold.pipeline.archive.layout import commit_name, shard_name
from framefold.pipeline.archive.lock import is_held
from framefold.pipeline.archive.shards import snapshot
from framefold.pipeline.archive.stores import LocalStore
from framefold.pipeline.archive.verify import verify


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "x.fold"


def names(place: Path) -> list[str]:
    return sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file())


def keyed(clips: Any, number: int, **changes: Any) -> dict[str, Any]:
    frames = {"first_frame": number, "pts": [25 * number], "duration_ticks": 25}
    return {"key": clips.key(number), "source": 0, "codec": 0, **frames, "payload": clips.payload(number)} | changes


def test_what_lies_where(place, clips, manifest):
    assert clips.write(place, range(3)) == place
    commit, files = open_shards(place)
    shard = place / shard_name(commit.shards[0].sha256)
    assert names(place) == [
        "data/README.txt",
        commit_name(1),
        commit_name(2),
        shard_name(hashlib.sha256(shard.read_bytes()).hexdigest()),
    ]
    assert verify(shard) == ()
    with ShardReader.open(shard) as reader:
        assert reader.header.archive_id == commit.archive_id
        assert reader.index_sha256.hex() == commit.shards[0].index_sha256
        assert reader.manifest == manifest
        assert (reader.size_bytes, len(reader.units)) == (commit.shards[0].bytes, commit.shards[0].units)
    assert [name for name, _ in files] == [commit.shards[0].sha256]
    assert json.loads((place / commit_name(1)).read_bytes())["shards"] == []


def test_the_readme_says_how_to_check_the_shards(place, clips):
    clips.write(place, range(10), roll_bytes=6000)
    readme = (place / "data/README.txt").read_text()
    command = next(line for line in readme.splitlines() if "sha256sum" in line).strip()
    done = subprocess.run(["bash", "-c", command], cwd=place / "data", capture_output=True, text=True, check=True)
    assert done.stdout == ""
    shard = next((place / "data/shards").iterdir())
    shard.write_bytes(shard.read_bytes()[:-1])
    done = subprocess.run(["bash", "-c", command], check=False, cwd=place / "data", capture_output=True, text=True)
    assert done.returncode == 1
    assert shard.name in done.stdout


def test_a_shard_is_closed_by_size_and_each_is_a_whole_archive(place, clips):
    clips.write(place, range(20), roll_bytes=6000)
    commit, files = open_shards(place)
    assert commit.number == 1 + len(files)
    assert len(files) > 4
    found = []
    for name, _ in files:
        assert verify(place / shard_name(name)) == ()
        with ArchiveReader.open(place / shard_name(name)) as reader:
            found += [reader.read_unit(unit.id).first_frame for unit in reader.units]
            assert len(reader.sources) == len({unit.source for unit in reader.units})
    assert found == list(range(20)) == clips.found(place)


def test_a_shard_is_closed_by_time(place, clips, manifest):
    now = [1000.0]
    with FolderWriter(place, roll_seconds=10, clock=lambda: now[0]) as archive:
        for number in range(6):
            clips.fill(archive, [number])
            now[0] += 4
        assert [shard.units for shard in open_shards(place)[0].shards] == [3]
        archive.commit(manifest)
    assert [shard.units for shard in open_shards(place)[0].shards] == [3, 3]


def test_a_shard_is_closed_on_request(place, clips, manifest):
    with FolderWriter(place) as archive:
        archive.roll()
        clips.fill(archive, range(3))
        archive.roll()
        assert clips.found(place) == [0, 1, 2]
        archive.roll()
        clips.fill(archive, range(3, 5))
        assert clips.found(place) == [0, 1, 2]
        archive.commit(manifest)
    assert clips.found(place) == [0, 1, 2, 3, 4]
    assert open_shards(place)[0].number == 3


def test_a_key_is_stored_once(place, clips, manifest):
    clips.write(place, range(10), roll_bytes=6000)
    before = names(place)
    clips.write(place, range(10))
    assert names(place) == before
    with FolderWriter(place) as archive:
        clips.fill(archive, [])
        first = open_shards(place)[0].shards[0].sha256
        unit = archive.add_unit(**keyed(clips, 0))
        assert unit == f"{first[:8]}/u000002"
        assert archive.read_unit(unit).payload == clips.payload(0)
        archive.add_quality(unit, {"psnr_db": 1.0})  # a closed shard keeps what it says
        archive.commit(manifest)
    assert names(place) == before
    assert clips.found(place) == list(range(10))


def test_ids_hold_when_the_shard_is_closed(place, clips, manifest):
    with FolderWriter(place) as archive:
        clips.fill(archive, range(3))
        unit = archive.add_unit(**keyed(clips, 1))
        assert archive.add_unit(**keyed(clips, 1)) == unit
        assert archive.read_unit(unit).payload == clips.payload(1)
        archive.roll()
        assert archive.read_unit(unit).payload == clips.payload(1)
        assert archive.read_unit(archive.add_unit(**keyed(clips, 1))).payload == clips.payload(1)
        archive.commit(manifest)
    assert clips.found(place) == [0, 1, 2]


def test_of_two_writers_of_one_key_the_first_commit_counts(place, clips, manifest):
    first, second = FolderWriter(place), FolderWriter(place)
    with first, second:
        for archive, numbers in ((second, range(5)), (first, range(3, 8))):
            clips.fill(archive, numbers)
        first.commit(manifest)
        second.commit(manifest)
    commit, _ = open_shards(place)
    assert [shard.units for shard in commit.shards] == [5, 5]
    assert clips.found(place) == list(range(8))
    with ArchiveReader.open(place) as reader:
        assert reader.keys[clips.key(3)].startswith(commit.shards[0].sha256[:8])


def test_all_or_nothing(place, clips, manifest):
    with FolderWriter(place) as archive:
        clips.fill(archive, [0])
        for error in (ValueError, KeyboardInterrupt):
            with pytest.raises(error), archive.all_or_nothing():
                clips.fill(archive, range(5))
                raise error
        assert clips.left_open(place) == {0}
        clips.fill(archive, [3])
        archive.commit(manifest)
    assert clips.found(place) == [0, 3]
    with ArchiveReader.open(place) as reader:
        assert [source.name for source in reader.sources] == ["clip0.mp4"]


def test_what_is_refused_is_not_stored(place, clips, source, manifest):
    with FolderWriter(place) as archive:
        with pytest.raises(ArchiveError, match="F016"):
            archive.add_source(source("../a"))
        with pytest.raises(ArchiveError, match="F015"):
            archive.add_codec("x", {"a": float("nan")})
        with pytest.raises(ArchiveError, match=r"F017 .*source 0 of 0: add it before the unit"):
            archive.add_unit(**keyed(clips, 0))
        archive.add_source(source("a"))
        with pytest.raises(ArchiveError, match=r"F017 .*codec 0 of 0: add it before the unit"):
            archive.add_unit(**keyed(clips, 0))
        archive.add_codec("x", {})
        for key in ("../../x", "AB" * 32, ""):
            with pytest.raises(ArchiveError, match="F016"):
                archive.add_unit(**keyed(clips, 0, key=key))
        for unit in ("nothing", "open-00000000/u000000", "../u000002"):
            with pytest.raises(ArchiveError, match="F017"):
                archive.read_unit(unit)
            with pytest.raises(ArchiveError, match="F017"):
                archive.add_quality(unit, {})
        with pytest.raises(ArchiveError, match="F016"):
            archive.commit({"generator": "x"})
        archive.commit(manifest)
    assert open_shards(place)[0].shards == ()
    assert names(place) == ["data/README.txt", commit_name(1)]


def test_after_its_end_a_writer_does_nothing(place, clips, manifest):
    for end in (lambda archive: archive.commit(manifest), FolderWriter.suspend, FolderWriter.abort):
        archive = FolderWriter(place)
        clips.fill(archive, [7])
        end(archive)
        before = names(place)
        for action in (
            lambda archive: archive.commit(manifest),
            lambda archive: archive.roll(),
            lambda archive: clips.fill(archive, [8]),
            lambda archive: archive.add_quality("a/b", {}),
            lambda archive: archive.read_unit("a/b"),
        ):
            with pytest.raises(ArchiveError, match="F019"):
                action(archive)
        archive.suspend()
        archive.abort()
        assert names(place) == before


def test_suspended_work_stays_and_aborted_work_does_not(place, clips):
    with FolderWriter(place) as archive:
        clips.fill(archive, range(3))
    assert clips.left_open(place) == {0, 1, 2}
    archive = FolderWriter(place)
    clips.fill(archive, range(3, 6))
    archive.abort()
    assert clips.left_open(place) == {0, 1, 2}
    with FolderWriter(place) as archive:
        archive.add_codec("nothing is written yet", {})
    assert clips.left_open(place) == {0, 1, 2}
    assert len(list((place / "open").iterdir())) == 1
    with pytest.raises(ZeroDivisionError), FolderWriter(place) as archive:
        clips.fill(archive, [9])
        raise ZeroDivisionError
    assert clips.left_open(place) == {0, 1, 2, 9}


def test_what_was_measured_is_known_to_the_next_writer(place, clips, manifest):
    clips.write(place, range(3))
    with FolderWriter(place) as archive:
        clips.fill(archive, range(3, 6))
    living = FolderWriter(place)
    clips.fill(living, range(6, 9))
    assert [is_held(path) for path in sorted((place / "open").iterdir())].count(True) == 1
    with FolderWriter(place) as archive:
        known = [archive.bank.quality(clips.key(number), clips.payload(number)) for number in range(9)]
        assert known == [clips.measured(number) for number in range(6)] + [None] * 3
        for number in range(6):
            assert archive.bank.quality(clips.key(number), b"other bytes") is None
        clips.fill(archive, range(6))
        archive.commit(manifest)
    living.commit(manifest)
    assert clips.found(place) == list(range(9))


def test_damaged_leftovers_only_make_the_bank_smaller(place, clips, manifest):
    with FolderWriter(place) as archive:
        clips.fill(archive, range(6))
    left = next((place / "open").iterdir())
    content = bytearray(left.read_bytes())
    content[content.index(clips.payload(2))] ^= 1
    left.write_bytes(content[:-100])
    (place / "open" / f"{'0' * 32}.fold.open").write_bytes(b"nothing of ours")
    (place / "open" / f"{'1' * 32}.fold.open").mkdir()
    with FolderWriter(place) as archive:
        known = [archive.bank.quality(clips.key(number), clips.payload(number)) is not None for number in range(6)]
        assert known == [True, True, False, True, True, False]
        clips.fill(archive, range(6))
        archive.commit(manifest)
    assert clips.found(place) == list(range(6))
    assert len(list((place / "open").iterdir())) == 3  # for `pipeline gc`


def test_pictures_share_chunks_and_their_keys_are_stored_once(place, source, clips, manifest):
    def add(archive: FolderWriter, numbers: range) -> None:
        for number in numbers:
            document = source(f"{number}.png", kind="image", time_base=[1, 1])
            codec = archive.add_codec("coin", {})
            picture = {"key": clips.key(number), "payload": clips.payload(number), "measured": clips.measured(number)}
            archive.add_picture(source=document, codec=codec, **picture)

    with FolderWriter(place, roll_bytes=50_000) as archive:
        add(archive, range(100))
        archive.close_pack()
        add(archive, range(80, 120))
        archive.commit(manifest)
    with FolderWriter(place) as archive:
        add(archive, range(125))
        assert archive.bank.quality(clips.key(7), clips.payload(7)) == clips.measured(7)
        archive.commit(manifest)
    commit, _ = open_shards(place)
    assert sum(shard.units for shard in commit.shards) == 125
    assert len(commit.shards) > 2
    with ArchiveReader.open(place) as reader:
        assert [reader.read_unit(unit.id).payload for unit in reader.units] == [clips.payload(n) for n in range(125)]
        assert {source.name for source in reader.sources} == {f"{number}.png" for number in range(125)}


def test_packets_and_attachments_are_stored_once_and_in_one_piece(place, source, clips, manifest):
    whole = bytes(range(256)) * 40
    sha256 = hashlib.sha256(whole).hexdigest()
    blocks = [
        PacketBlock(key=clips.key(part), track=0, part=part, packets=(CopiedPacket(data=b"sound", pts=part),))
        for part in range(3)
    ]

    def add(archive: FolderWriter) -> None:
        for part, block in enumerate(blocks):
            archive.add_packets(archive.add_source(source("a.mp4")), block)
            archive.add_attachment(sha256, len(whole), 4000 * part, whole[4000 * part : 4000 * (part + 1)])

    with FolderWriter(place, roll_bytes=3000) as archive:
        add(archive)
        clips.fill(archive, range(3))
        archive.commit(manifest)
    before = names(place)
    with FolderWriter(place, roll_bytes=3000) as archive:
        add(archive)
        archive.commit(manifest)
    assert names(place) == before
    with ArchiveReader.open(place) as reader:
        assert reader.read_attachment(sha256) == whole
        assert [reader.read_packets(entry.id) for entry in reader.packet_blocks] == blocks
        assert len(reader.shards) == 2


def test_a_shard_that_is_lost_or_damaged_is_written_again_when_its_units_come(place, clips, manifest):
    clips.write(place, range(10), roll_bytes=6000)
    lost, damaged, *_ = (place / shard_name(shard.sha256) for shard in open_shards(place)[0].shards)
    lost.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-64] + bytes(64))
    with FolderWriter(place) as archive:
        assert sorted(problem.code for problem in archive.problems) == ["F025", "F026"]
        clips.fill(archive, range(10))
        archive.commit(manifest)
    with ArchiveReader.open(place) as reader:
        assert sorted(problem.code for problem in reader.problems)[:2] == ["F025", "F026"]
        assert sorted(reader.read_unit(unit.id).first_frame for unit in reader.units) == list(range(10))


def test_a_damaged_commit_is_told_to_readers_and_stops_writers(place, clips):
    clips.write(place, range(10), roll_bytes=6000)
    assert snapshot(place).problem is None
    last = place / commit_name(open_shards(place)[0].number)
    last.write_bytes(last.read_bytes()[:-1])
    now = snapshot(place)
    assert commit_name(now.commit.number + 1) in str(now.problem)
    assert str(now.problem).startswith("F023")
    with pytest.raises(ArchiveError, match="F023"):
        FolderWriter(place)
    last.rename(place / commit_name(99))
    with pytest.raises(ArchiveError, match=r"F024 .*commit 99 is there"):
        FolderWriter(place)


def test_an_archive_has_one_id(place, clips):
    clips.write(place, range(2), archive_id=b"a" * 16)
    clips.write(place, range(4), archive_id=b"a" * 16)
    with pytest.raises(ArchiveError, match=r"F016 .*another id was given"):
        FolderWriter(place, archive_id=b"b" * 16)
    assert Chain(LocalStore(place)).refresh().archive_id == b"a" * 16
    for path in (place / "data/shards").iterdir():
        with ShardReader.open(path) as reader:
            assert reader.header.archive_id == b"a" * 16


def test_a_folder_of_other_things_is_not_written_into(tmp_path):
    (tmp_path / "holiday.png").write_bytes(b"picture")
    with pytest.raises(ArchiveError, match=r"F002 .*a folder that holds 'holiday.png', and no archive"):
        FolderWriter(tmp_path)
    with pytest.raises(ArchiveError, match=r"F002 .*there is no data/commits/00000001.json"):
        open_shards(tmp_path)
    assert names(tmp_path) == ["holiday.png"]


def test_a_place_says_which_form_it_asks_for(tmp_path, clips, small):
    clips.write(tmp_path / "folder", range(2))
    for place, form in (
        (tmp_path / "folder", FolderWriter),
        (f"{tmp_path}/new/", FolderWriter),
        (f"file://{tmp_path}/other", FolderWriter),
        (tmp_path / "y.fold", ArchiveWriter),
        (small, ArchiveWriter),
    ):
        archive = open_writer(place)
        assert type(archive) is form
        archive.abort()
    folders = [tmp_path / "folder", f"file://{tmp_path}/folder", "https://example.org/x.fold/", "s3://bucket/x"]
    files = [small, f"file://{small}", "https://example.org/x.fold", tmp_path / "nothing.fold"]
    assert [is_folder(place) for place in folders + files] == [True] * 4 + [False] * 4


def test_the_size_counts_what_is_there(place, clips, manifest):
    with FolderWriter(place, roll_bytes=6000) as archive:
        assert archive.size_bytes == 0
        clips.fill(archive, range(10))
        archive.commit(manifest)
        assert archive.size_bytes == sum(path.stat().st_size for path in (place / "data/shards").iterdir())
    with ArchiveReader.open(place) as reader:
        assert reader.size_bytes == archive.size_bytes


def test_an_archive_of_many_shards_needs_few_files_at_once(place, clips):
    import resource

    clips.write(place, range(80), roll_bytes=1, sync=False)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_now = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 40, hard))
    try:
        assert len(open_shards(place)[1]) == 80
        assert clips.found(place) == list(range(80))
        clips.write(place, range(81))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_retired_shards_are_listed_and_not_read(place, clips):
    from dataclasses import replace

    from framefold.pipeline.archive.commits import Retired

    clips.write(place, range(10), roll_bytes=6000)
    first = open_shards(place)[0].shards[0]

    def retire(commit: Any) -> Any:
        retired = (*commit.retired, Retired(sha256=first.sha256, reason="to try it"))
        return replace(commit, shards=commit.shards[1:], retired=retired)

    append(LocalStore(place), retire)
    assert clips.found(place) == list(range(first.units, 10))
    clips.write(place, range(10))
    assert clips.found(place) == list(range(10))
