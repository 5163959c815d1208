"""Garbage: old files of dead writers and shards that no commit lists are removed, and nothing else ever is."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from framefold.pipeline.archive import ArchiveError
from framefold.pipeline.archive.chain import append
from framefold.pipeline.archive.commits import Retired
from framefold.pipeline.archive.folder import FolderWriter, open_shards
from framefold.pipeline.archive.gc import Removed, collect
from framefold.pipeline.archive.layout import commit_name, shard_name
from framefold.pipeline.archive.stores import LocalStore, open_store

DAY = 86_400


@pytest.fixture
def place(tmp_path: Path, clips) -> Path:
    """An archive with every kind of file in it, all of them ten days old; garbage among them."""
    place = tmp_path / "x.fold"
    clips.write(place, range(10), roll_bytes=6000)
    with FolderWriter(place) as archive:
        clips.fill(archive, [20])
    (place / "data/shards" / f"{'ab' * 32}.fold").write_bytes(b"no commit lists it")
    (place / "open" / f"{'cd' * 16}.tmp").write_bytes(b"a commit, half written")
    (place / "open" / f"probe-{'ef' * 16}").write_bytes(b"racer 1")
    for name in ("bagit.txt", "open/notes.txt", "data/shards/notes.txt", "data/parity/x.parity", "data/spec/page.md"):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(b"somebody's")
    make_old(place)
    return place


def make_old(place: Path, days: float = 10) -> None:
    for path in place.rglob("*"):
        os.utime(path, (time.time() - days * DAY,) * 2)


def files(place: Path) -> set[str]:
    return {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}


def garbage(place: Path) -> set[str]:
    left = next(path.name for path in (place / "open").glob("*.fold.open"))
    names = (f"{'cd' * 16}.tmp", f"probe-{'ef' * 16}", left)
    return {f"data/shards/{'ab' * 32}.fold", *(f"open/{name}" for name in names)}


def test_garbage_is_removed_and_nothing_else(place, clips):
    before, wanted = files(place), garbage(place)
    sizes = {name: (place / name).stat().st_size for name in wanted}
    assert collect(place, 11) == []
    assert {removed.name: removed.bytes for removed in collect(place, 9, dry_run=True)} == sizes
    assert files(place) == before
    assert {removed.name: removed.bytes for removed in collect(place, 9)} == sizes
    assert files(place) == before - wanted
    assert collect(place, 9) == []
    assert clips.found(place) == list(range(10))


def test_what_is_younger_stays(place):
    before = files(place)
    make_old(place, days=2)
    assert collect(place, 3) == []
    assert len(collect(place, 1)) == 4
    make_old(place, days=-2)
    assert len(files(place)) == len(before) - 4


def test_what_a_living_writer_holds_stays(place, clips, manifest):
    with FolderWriter(place) as archive:
        clips.fill(archive, range(30, 33))
        make_old(place)
        held = archive._growing.path.name
        assert f"open/{held}" not in {removed.name for removed in collect(place, 5)}
        archive.commit(manifest)
    assert clips.found(place) == [*range(10), 30, 31, 32]


def test_shards_that_counted_once_stay(place):
    first = open_shards(place)[0].shards[0]

    def retire(commit):
        retired = (Retired(sha256=first.sha256, reason="to try it"),)
        return replace(commit, shards=commit.shards[1:], retired=retired)

    append(LocalStore(place), retire)
    append(LocalStore(place), lambda commit: replace(commit, shards=commit.shards[1:], retired=()))
    make_old(place)
    collect(place, 5)
    assert len(list((place / "data/shards").glob("*.fold"))) == open_shards(place)[0].number - 3
    assert (place / shard_name(first.sha256)).exists()


def test_nothing_is_removed_while_a_commit_is_damaged(place):
    before = files(place)
    last = place / commit_name(open_shards(place)[0].number)
    whole = last.read_bytes()
    last.write_bytes(whole[:-1])
    with pytest.raises(ArchiveError, match="F023"):
        collect(place, 5)
    last.unlink()
    (place / commit_name(50)).write_bytes(whole)
    with pytest.raises(ArchiveError, match="F024"):
        collect(place, 5)
    (place / commit_name(50)).rename(last)
    assert files(place) == before


def test_what_is_no_archive_is_left_alone(tmp_path):
    (tmp_path / "data/shards").mkdir(parents=True)
    orphan = tmp_path / "data/shards" / f"{'ab' * 32}.fold"
    orphan.write_bytes(b"a shard without any commit")
    make_old(tmp_path)
    with pytest.raises(ArchiveError, match="F002"):
        collect(tmp_path, 5)
    assert orphan.exists()


@pytest.mark.parametrize("days", [0, 0.5, -1, float("nan")])
def test_a_day_is_the_least(place, days):
    with pytest.raises(ArchiveError, match=r"F014 .*at least 1 is needed"):
        collect(place, days)


def test_in_an_object_store_and_in_its_spool(s3, clips, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    clips.write(s3, range(4))
    store = open_store(s3)
    store.create(f"data/shards/{'ab' * 32}.fold", b"orphan")
    store.create(f"open/probe-{'ef' * 16}", b"racer")
    with FolderWriter(s3) as archive:
        clips.fill(archive, range(9))
    left = next((tmp_path / "cache").rglob("*.fold.open"))
    size = left.stat().st_size
    assert collect(s3, 5) == []
    removed = collect(s3, 5, clock=lambda: time.time() + 6 * DAY)
    assert set(removed) == {
        Removed(f"data/shards/{'ab' * 32}.fold", 6),
        Removed(f"open/probe-{'ef' * 16}", 5),
        Removed(str(left), size),
    }
    assert not left.exists()
    assert clips.found(s3) == [0, 1, 2, 3]
