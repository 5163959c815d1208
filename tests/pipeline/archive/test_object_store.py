"""Archives in object stores: written by many at once into a real server of S3, read in few requests, resumed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import obstore
import obstore.store
import pytest

from framefold.pipeline.archive import ArchiveError, ArchiveReader
from framefold.pipeline.archive.folder import FolderWriter, is_folder, open_shards, open_writer
from framefold.pipeline.archive.layout import README, README_TEXT, shard_name
from framefold.pipeline.archive.shards import spool_of
from framefold.pipeline.archive.stores import open_file, open_store
from framefold.pipeline.archive.stores.object import ObjectStore


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where open shards of object stores lie."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_an_archive_is_written_and_read_by_its_url(s3, clips, manifest, cache):
    with open_writer(s3) as archive:
        clips.fill(archive, range(10))
        assert archive.commit(manifest) == s3
    assert clips.found(s3) == list(range(10))
    commit, files = open_shards(s3)
    assert (commit.number, len(files), commit.shards[0].units) == (2, 1, 10)
    store = open_store(s3)
    assert store.tail(README, 10_000)[0] == README_TEXT
    assert {stored.name.rpartition("/")[0] for stored in store.list("data")} == {"data", "data/shards", "data/commits"}
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_a_second_writer_stores_only_what_is_new(s3, clips):
    clips.write(s3, range(10), roll_bytes=6000)
    before = open_shards(s3)[0]
    clips.write(s3, range(10))
    assert open_shards(s3)[0] == before
    clips.write(s3, range(5, 15))
    after = open_shards(s3)[0]
    assert after.shards[:-1] == before.shards
    assert after.shards[-1].units == 5
    assert clips.found(s3) == list(range(15))


def test_four_writers_at_once(s3, clips, tmp_path):
    def write(me: int) -> None:
        clips.write(s3, range(5 * me, 5 * me + 10), roll_bytes=12_000, spool=tmp_path / f"spool{me}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert clips.found(s3) == list(range(25))
    commit, files = open_shards(s3)
    assert commit.number == 1 + len(files)


def test_what_an_interrupted_writer_measured_is_known_to_the_next(s3, clips, manifest, cache):
    with FolderWriter(s3) as archive:
        clips.fill(archive, range(3))
    assert len(list(cache.rglob("*.fold.open"))) == 1
    with FolderWriter(s3) as archive:
        assert archive.bank.quality(clips.key(2), clips.payload(2)) == clips.measured(2)
        assert archive.bank.quality(clips.key(2), b"other bytes") is None
        clips.fill(archive, range(3))
        archive.commit(manifest)
    assert clips.found(s3) == [0, 1, 2]


def test_a_store_that_fails_costs_nothing_when_it_works_again(s3, clips, manifest, monkeypatch):
    with FolderWriter(s3) as archive:
        clips.fill(archive, range(5))
        with monkeypatch.context() as patch:
            patch.setattr(obstore, "put", fail)
            with pytest.raises(ArchiveError, match=r"F018 .*cannot create data/shards/"):
                archive.commit(manifest)
            clips.fill(archive, range(7))
            with pytest.raises(ArchiveError, match=r"F018 .*cannot create data/shards/"):
                archive.roll()
        assert archive.read_unit(f"{archive.add_unit(**unit(clips, 3))}").payload == clips.payload(3)
        archive.commit(manifest)
    assert clips.found(s3) == list(range(7))
    assert len(open_shards(s3)[1]) == 2


def fail(*_: Any, **__: Any) -> None:
    raise obstore.exceptions.GenericError("made to fail\n\nwith much to say about it")


def unit(clips: Any, number: int) -> dict[str, Any]:
    frames = {"first_frame": number, "pts": [0], "duration_ticks": 1}
    return {"key": clips.key(number), "source": 0, "codec": 0, **frames, "payload": b""}


def test_an_answer_that_was_lost_is_no_conflict(s3, clips, monkeypatch):
    """A client that sends its request again is told that the name is taken, by itself."""
    put = obstore.put

    def forgetful(*args: Any, **options: Any) -> None:
        put(*args, **options)
        if "probe" not in args[1]:
            raise obstore.exceptions.AlreadyExistsError("it is there")

    monkeypatch.setattr(obstore, "put", forgetful)
    clips.write(s3, range(10), roll_bytes=6000)
    commit, files = open_shards(s3)
    assert (clips.found(s3), commit.number) == (list(range(10)), 1 + len(files))


def test_a_store_whose_conditional_puts_do_not_hold_is_refused(tmp_path, monkeypatch):
    put = obstore.put
    store = ObjectStore(obstore.store.MemoryStore(), "memory:///")

    def overwrite(*args: Any, mode: str, **options: Any) -> None:
        put(*args, mode="overwrite", **options)

    monkeypatch.setattr(obstore, "put", overwrite)
    with pytest.raises(ArchiveError, match=r"F027 memory:///: 4 of 4 created the same new name"):
        FolderWriter(store, spool=tmp_path)

    def unsupported(*_: Any, **__: Any) -> None:
        raise obstore.exceptions.NotSupportedError("not here")

    monkeypatch.setattr(obstore, "put", unsupported)
    with pytest.raises(ArchiveError, match=r"F027 memory:///: no conditional puts: not here"):
        FolderWriter(store, spool=tmp_path)
    assert list(store.list("data")) == []


def test_a_store_that_cannot_read_from_the_end_is_asked_for_the_length(monkeypatch):
    store = ObjectStore(obstore.store.MemoryStore(), "memory:///")
    store.create("a", b"0123456789")

    def unsupported(*_: Any, **__: Any) -> None:
        raise obstore.exceptions.NotSupportedError("no suffix ranges")

    monkeypatch.setattr(obstore, "get", unsupported)
    assert store.tail("a", 3) == (b"789", 10)
    assert store.tail("a", 30) == (b"0123456789", 10)


def test_a_shard_is_not_taken_for_another_of_its_name(s3, clips):
    clips.write(s3, range(3))
    commit, _ = open_shards(s3)
    store, name = open_store(s3), shard_name(commit.shards[0].sha256)
    whole = store.tail(name, 10**6)[0]
    for content, code in ((None, "F025"), (whole[:-1], "F026"), (whole[:-64] + bytes(64), "F026")):
        store.delete(name)
        if content is not None:
            store.create(name, content)
        with ArchiveReader.open(s3) as reader:
            assert [str(problem)[:4] for problem in reader.problems] == [code]
            assert reader.units == ()
    clips.write(s3, range(3))
    with ArchiveReader.open(s3) as reader:
        assert len(reader.units) == 3


def test_a_single_file_in_a_bucket_is_read_by_its_url(s3, small):
    open_store(s3).create("small.fold", small)
    assert not is_folder(f"{s3}/small.fold")
    assert open_file(f"{s3}/small.fold").size == small.stat().st_size
    with ArchiveReader.open(f"{s3}/small.fold") as reader:
        assert len(reader.units) == 3


def test_a_folder_may_be_called_as_a_file_is(s3, clips):
    clips.write(f"{s3}/x.fold", range(3))
    assert clips.found(f"{s3}/x.fold") == clips.found(f"{s3}/x.fold/") == [0, 1, 2]


def test_each_store_has_a_spool_of_its_own(cache):
    spools = {spool_of(open_store(url)) for url in ("memory:///", "memory:///a", "s3://a/b")}
    assert len(spools) == 3
    assert {spool.parent for spool in spools} == {cache / "framefold" / "open"}
