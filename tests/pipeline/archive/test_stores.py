"""What every store promises, tried with each: a folder, obstore's memory and folder, and a real server of S3."""

from __future__ import annotations

import errno
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import obstore.store
import pytest

from framefold.pipeline.archive import ArchiveError, Code
from framefold.pipeline.archive.limits import TAIL
from framefold.pipeline.archive.stores import HttpStore, LocalStore, NotThere, Store, open_file, open_store, probe
from framefold.pipeline.archive.stores.object import ObjectStore


@pytest.fixture(params=["folder", "memory", "obstore's folder", "S3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "S3":
        return open_store(request.getfixturevalue("s3"))
    if request.param == "memory":
        return ObjectStore(obstore.store.MemoryStore(), "memory:///")
    if request.param == "folder":
        return LocalStore(tmp_path / "not yet" / "there")
    return ObjectStore(obstore.store.LocalStore(tmp_path / "x", mkdir=True), "obstore-file:///x")


def test_what_is_created_is_read_back(store):
    assert store.create("data/shards/a.fold", b"0123456789")
    assert store.read("data/shards/a.fold", 3, 4) == b"3456"
    assert store.read("data/shards/a.fold", 0, 10) == b"0123456789"
    assert store.read("data/shards/a.fold", 4, 0) == b""
    assert store.tail("data/shards/a.fold", 3) == (b"789", 10)
    assert store.tail("data/shards/a.fold", 10) == (b"0123456789", 10)
    assert store.tail("data/shards/a.fold", 2**24) == (b"0123456789", 10)


def test_a_local_file_is_created_from_its_path(store, tmp_path):
    (tmp_path / "spooled").write_bytes(bytes(range(256)) * 1000)
    assert store.create("data/shards/a.fold", tmp_path / "spooled")
    assert not store.create("data/shards/a.fold", b"late")
    (tmp_path / "spooled").unlink()
    assert store.tail("data/shards/a.fold", 256) == (bytes(range(256)), 256_000)


def test_an_empty_file(store):
    assert store.create("a", b"")
    assert store.tail("a", 100) == (b"", 0)
    assert store.open("a").size == 0


def test_a_name_is_created_once(store):
    assert store.create("a/b.json", b"first")
    assert not store.create("a/b.json", b"second")
    assert store.tail("a/b.json", 100) == (b"first", 5)
    store.delete("a/b.json")
    assert store.create("a/b.json", b"third")


def test_of_those_who_race_for_a_name_one_wins(store):
    with ThreadPoolExecutor(4) as pool:
        for number in range(20):
            won = list(pool.map(lambda me, name=f"r/{number}": store.create(name, b"%d" % me), range(4)))
            assert won.count(True) == 1
            assert store.tail(f"r/{number}", 9) == (b"%d" % won.index(True), 1)
    probe(store)
    assert list(store.list("open")) == []


def test_files_below_a_folder_are_listed(store):
    for name in ("data/shards/a.fold", "data/shards/b.fold", "data/commits/00000001.json", "data/shards2/c"):
        store.create(name, name.encode())
    listed = {stored.name: stored.bytes for stored in store.list("data/shards/")}
    assert listed == {"data/shards/a.fold": 18, "data/shards/b.fold": 18}
    assert {stored.name for stored in store.list("data")} >= {"data/shards2/c", "data/commits/00000001.json"}
    assert list(store.list("nothing/here")) == []
    assert all(stored.modified_seconds > 1.7e9 for stored in store.list("data"))


def test_what_is_not_there_is_named(store):
    store.create("a", b"0123456789")
    for action in (lambda: store.read("b", 0, 1), lambda: store.tail("c/d", 1), lambda: store.open("e")):
        with pytest.raises(NotThere, match=r"F001.*there is no"):
            action()
    store.delete("b")
    with pytest.raises(ArchiveError) as caught:
        store.read("a", 8, 3)
    assert caught.value.code in {Code.CUT, Code.IO}


@pytest.mark.parametrize(
    "name",
    ["", "/etc/passwd", "../a", "a/../../b", "a//b", "a/./b", ".hidden", "a/.b", "a\\b", "a\0b", "ä", "a b", "a/"],
)
def test_names_lead_nowhere_else(store, name):
    for action in (
        store.delete,
        store.open,
        lambda name: store.create(name, b"x"),
        lambda name: store.read(name, 0, 1),
    ):
        with pytest.raises(ArchiveError) as caught:
            action(name)
        assert caught.value.code == Code.RECORD


class Counted:
    """Counts the requests to a store."""

    def __init__(self, store: Store) -> None:
        self.store, self.requests, self.url = store, [], store.url

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any) -> Any:
            self.requests.append((name, *args[1:]))
            return getattr(self.store, name)(*args)

        return call


def test_opening_is_one_request_and_so_is_every_read_outside_the_tail(store, monkeypatch):
    data = os.urandom(TAIL + 5000)
    store.create("a", data)
    counted = Counted(store)
    file = type(store.open("a")).of(counted, "a")
    assert (file.size, file.path) == (len(data), f"{store.url.rstrip('/')}/a")
    assert file.read(5000, TAIL) == data[5000:]
    assert file.read(len(data) - 64, 64) == data[-64:]
    assert counted.requests == [("tail", TAIL)]
    assert file.read(10, 100) == data[10:110]
    assert file.read(4000, 5000) == data[4000:9000]
    assert counted.requests == [("tail", TAIL), ("read", 10, 100), ("read", 4000, 5000)]
    with pytest.raises(ArchiveError, match=r"F021.*1 of 100 bytes are missing"):
        file.read(len(data) - 99, 100)
    file.close()


def test_places_are_told_apart(tmp_path):
    (tmp_path / "a b").mkdir()
    assert open_store(tmp_path).url == str(tmp_path)
    assert open_store(f"file://{tmp_path}/a%20b").url == f"{tmp_path}/a b"
    assert isinstance(open_store("https://example.org/x.fold/"), HttpStore)
    assert isinstance(open_store("memory:///"), ObjectStore)
    for url in ("gopher://example.org/x", "s3://", "://"):
        with pytest.raises(ArchiveError, match="F001"):
            open_store(url)


def test_one_file_is_opened_by_its_path_or_url(tmp_path):
    (tmp_path / "a.fold").write_bytes(b"0123456789")
    for place in (tmp_path / "a.fold", f"file://{tmp_path}/a.fold"):
        file = open_file(place)
        assert (file.size, file.read(3, 4)) == (10, b"3456")
        file.close()


def test_what_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    for name in ("fifo", "folder"):
        with pytest.raises(ArchiveError, match=r"F001.*(no regular file|Is a directory)"):
            LocalStore(tmp_path).read(name, 0, 1)
    assert list(LocalStore(tmp_path).list("fifo")) == []


def test_a_file_from_another_file_system_is_copied(tmp_path, monkeypatch):
    """Where a name can be linked is asked of the system; here it says that nothing can."""
    source, store = tmp_path / "spooled", LocalStore(tmp_path / "x")
    source.write_bytes(os.urandom(3 * 2**20 + 5))
    real = Path.stat

    def stat(path: Path, **options: Any) -> os.stat_result:
        status = list(real(path, **options))
        return os.stat_result([*status[:2], -1 if path == source else status[2], *status[3:]])

    monkeypatch.setattr(Path, "stat", stat)
    assert store.create("data/a", source)
    monkeypatch.undo()
    assert (tmp_path / "x/data/a").read_bytes() == source.read_bytes()
    assert not (tmp_path / "x/data/a").samefile(source)
    assert list((tmp_path / "x/open").iterdir()) == []


def test_without_obstore_the_error_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.delitem(sys.modules, "framefold.pipeline.archive.stores.object")
    with pytest.raises(ArchiveError, match=r"F001 s3://bucket/x: .*pip install 'framefold\[object-store\]'"):
        open_store("s3://bucket/x")


def test_errors_travel_between_processes():
    error = NotThere(Code.CANNOT_OPEN, "there is no a", archive="x")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (NotThere, str(error))


def test_a_folder_that_cannot_be_listed_is_reported(tmp_path, monkeypatch):
    store = LocalStore(tmp_path)
    store.create("data/a", b"x")

    def fail(_: object) -> None:
        raise OSError(errno.EIO, "made to fail")

    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(ArchiveError, match=r"F018.*cannot list data"):
        list(store.list("data"))
