"""Power cuts, replayed: every call of a writer is recorded, and the medium put together as each cut may leave it."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from framefold.pipeline.archive import ArchiveError, ArchiveWriter, Code
from framefold.pipeline.archive.disk import Disk
from framefold.pipeline.archive.folder import FolderWriter, open_shards
from framefold.pipeline.archive.stores import base

CUTS = ("all is kept", "unflushed is dropped", "names before data", *3 * ("torn at 512", "torn at 4096", "reordered"))
Op = tuple[Any, ...]


class RecordingDisk(Disk):
    """Does what it is asked, flushing aside, and writes it down; so do tests with what they were told meanwhile."""

    def __init__(self) -> None:
        self.log: list[Op] = []
        self.lock = threading.RLock()
        self._files: dict[Path, int] = {}  # name to number of the file
        self._open: dict[int, int] = {}  # descriptor to the same

    def open(self, path: Path, flags: int) -> int:
        fd = super().open(path, flags)
        if flags & os.O_CREAT and path not in self._files:
            self._files[path] = len(self.log)
            self.log.append(("name", path, self._files[path]))
        self._open[fd] = self._files[path]
        return fd

    def pwrite(self, fd: int, data: memoryview, offset: int) -> int:
        written = super().pwrite(fd, data, offset)
        self.log.append(("write", self._open[fd], offset, bytes(data[:written])))
        return written

    def truncate(self, fd: int, size: int) -> None:
        super().truncate(fd, size)
        self.log.append(("truncate", self._open[fd], size))

    def sync(self, fd: int) -> None:
        self.log.append(("sync", self._open[fd]))

    def close(self, fd: int) -> None:
        del self._open[fd]
        super().close(fd)

    def link(self, source: Path, name: Path) -> None:
        super().link(source, name)
        self._files[name] = self._files[source]
        self.log.append(("name", name, self._files[name]))

    def replace(self, source: Path, name: Path) -> None:
        super().replace(source, name)
        self._files[name] = self._files.pop(source)
        self.log.append(("rename", source, name, self._files[name]))

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        if self._files.pop(path, None) is not None:
            self.log.append(("name", path, None))

    def mkdir(self, path: Path) -> None:
        if not path.exists():
            self.log.append(("folder", path))
        super().mkdir(path)

    def sync_folder(self, path: Path) -> None:
        self.log.append(("sync_folder", path))


def _one_at_a_time(name: str) -> Callable[..., Any]:
    """The method, with its call and its line in the log as one: several threads try to create one name."""
    real = getattr(RecordingDisk, name)

    def call(self: RecordingDisk, *args: Any) -> Any:
        with self.lock:
            return real(self, *args)

    return call


for _name in ("open", "pwrite", "truncate", "sync", "close", "link", "replace", "unlink", "mkdir", "sync_folder"):
    setattr(RecordingDisk, _name, _one_at_a_time(_name))


class Medium:
    """What is safe on it, and what the system was told and may not have done when the power goes."""

    def __init__(self, cut: str, dice: random.Random) -> None:
        self.cut, self.dice = cut, dice
        self.files: dict[int, bytearray] = {}
        self.names: dict[Path, int] = {}
        self.folders: set[Path] = set()
        self.pending: list[Op] = []

    def run(self, log: list[Op]) -> None:
        for op in log:
            if op[0] == "sync":
                self.settle(lambda other, file=op[1]: other[0] in {"write", "truncate"} and other[1] == file)
            elif op[0] == "sync_folder":
                self.settle(lambda other, folder=op[1]: other[0] in NAMING and other[1].parent == folder)
            elif op[0] != "told":
                self.pending.append(op)

    def settle(self, is_meant: Callable[[Op], bool]) -> None:
        for op in filter(is_meant, self.pending):
            self.apply(op)
        self.pending = [op for op in self.pending if not is_meant(op)]

    def fail(self) -> None:
        """Cut the power."""
        for op in self.pending:
            if op[0] == "write" and self.cut.startswith("torn"):
                for part in sectors(op, int(self.cut.split()[2])):
                    if self.dice.random() < 0.5:
                        self.apply(part)
            elif self.happens(op):
                self.apply(op)

    def happens(self, op: Op) -> bool:
        return {
            "all is kept": True,
            "unflushed is dropped": False,
            "reordered": self.dice.random() < 0.5,
            "names before data": op[0] in NAMING,
        }.get(self.cut, True)

    def apply(self, op: Op) -> None:
        match op:
            case ("write", file, offset, data):
                content = self.files.setdefault(file, bytearray())
                content.extend(bytes(max(offset - len(content), 0)))
                content[offset : offset + len(data)] = data
            case ("truncate", file, size):
                content = self.files.setdefault(file, bytearray())
                del content[size:]
            case ("folder", path):
                self.folders.add(path)
            case ("name", path, None):
                self.names.pop(path, None)
            case ("name", path, file):
                self.names[path] = file
            case ("rename", source, name, file):
                self.names.pop(source, None)
                self.names[name] = file

    def state(self) -> object:
        """Equal for media that hold the same."""
        contents = {name: bytes(self.files.get(file, b"")) for name, file in self.names.items()}
        return frozenset(contents.items()), frozenset(self.folders)

    def put(self, root: Path, place: Path) -> None:
        """Make the files that are left below `root`, at `place`. What lies in a folder that is lost is lost."""
        place.mkdir(parents=True)
        for folder in sorted(self.folders):
            if (place / folder.relative_to(root)).parent.is_dir():
                (place / folder.relative_to(root)).mkdir(exist_ok=True)
        for name, file in self.names.items():
            path = place / name.relative_to(root)
            if path.parent.is_dir():
                path.write_bytes(self.files.get(file, b""))


NAMING = frozenset(("name", "rename", "folder"))


def sectors(op: Op, size: int) -> Iterator[Op]:
    """A write as so many, none of them across a sector's border."""
    _, file, offset, data = op
    at = 0
    while at < len(data):
        length = min(size - (offset + at) % size, len(data) - at)
        yield ("write", file, offset + at, data[at : at + length])
        at += length


@pytest.fixture(autouse=True)
def _probe_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who race for the probe's name do so one after the other: else each run has other states to look at."""
    monkeypatch.setattr(base, "ThreadPoolExecutor", lambda _: ThreadPoolExecutor(1))


def cuts(log: list[Op], root: Path, tmp_path: Path) -> Iterator[tuple[Path, list[Op]]]:
    """Each moment and each way in which the power may go, once: what is left then, and what had happened before."""
    dice, seen = random.Random(4), set[object]()
    for count in range(len(log) + 1):
        for number, cut in enumerate(CUTS):
            medium = Medium(cut, dice)
            medium.run(log[:count])
            medium.fail()
            mark = (medium.state(), len([op for op in log[:count] if op[0] == "told"]))
            if mark not in seen:
                seen.add(mark)
                place = tmp_path / f"{count} {cut} {number}"
                medium.put(root, place)
                yield place, log[:count]


def told(log: list[Op], what: str) -> list[Any]:
    return [op[2] for op in log if op[:2] == ("told", what)]


def record(place: Path, clips: Any, manifest: Any, disk: RecordingDisk) -> None:
    """Two writers, one after the other; the first one stops in the middle."""
    archive = FolderWriter(place, disk=disk, roll_bytes=6000)
    for number in clips.add(archive, range(8)):
        disk.log.append(("told", "unit", number))
    archive.suspend()
    with FolderWriter(place, disk=disk, roll_bytes=6000) as archive:
        for number in clips.add(archive, range(15)):
            disk.log.append(("told", "unit", number))
        archive.commit(manifest)
        disk.log.append(("told", "commit", range(15)))


def committed(place: Path, clips: Any) -> set[int]:
    """Numbers of all units, with nothing missing that the newest whole commit lists; none before the first commit."""
    try:
        open_shards(place)
    except ArchiveError as error:
        assert error.code == Code.NOT_AN_ARCHIVE
        return set()
    return set(clips.found(place))


def test_what_was_acknowledged_survives_and_commits_are_whole(tmp_path, clips, manifest):
    disk, root = RecordingDisk(), tmp_path / "x.fold"
    record(root, clips, manifest, disk)
    sizes, states = [], 0
    for place, before in cuts(disk.log, root, tmp_path / "cut"):
        safe = committed(place, clips)
        found = safe | clips.left_open(place)
        assert set(told(before, "unit")) <= found <= set(range(15)), place.name
        if told(before, "commit"):
            assert safe == set(range(15)), place.name
        sizes.append(len(safe))
        states += 1
        if states % 10 == 0:
            clips.write(place, range(15), disk=NoWaiting())
            assert clips.found(place) == list(range(15)), place.name
    assert states > 300
    assert {0, 15} < set(sizes)
    assert len(set(sizes)) > 4


class NoWaiting(Disk):
    """Does not wait for the medium."""

    def sync(self, fd: int) -> None:
        pass

    def sync_folder(self, path: Path) -> None:
        pass


@pytest.mark.parametrize("forgotten", ["sync", "sync_folder"])
def test_the_replay_notices_a_flush_that_is_missing(tmp_path, clips, manifest, forgotten):
    disk, root = RecordingDisk(), tmp_path / "x.fold"
    record(root, clips, manifest, disk)
    log = [op for op in disk.log if op[0] != forgotten]
    lost = 0
    for place, before in cuts(log, root, tmp_path / "cut"):
        try:
            found = committed(place, clips) | clips.left_open(place)
        except (ArchiveError, AssertionError):
            lost += 1
        else:
            lost += not set(told(before, "unit")) <= found
    assert lost > 50


def test_one_file_is_the_old_one_or_the_new_one_and_the_new_one_once_it_was_said_to_be(small, fill, manifest, tmp_path):
    wanted, disk, root = small.read_bytes(), RecordingDisk(), tmp_path / "folder"
    root.mkdir()
    path = root / "a.fold"
    fd = disk.create(path)
    disk.write(fd, b"the archive that was there", 0)
    disk.sync(fd)
    disk.sync_folder(root)
    disk.close(fd)
    begun = len(disk.log)
    with ArchiveWriter(path, archive_id=bytes(range(16)), disk=disk) as archive:
        fill(archive)
        archive.commit(manifest)
    disk.log.append(("told", "commit", True))
    contents = set()
    for place, before in cuts(disk.log, root, tmp_path / "cut"):
        if len(before) >= begun:
            contents.add(content := (place / "a.fold").read_bytes())
            assert content == wanted or not told(before, "commit"), place.name
    assert contents == {wanted, b"the archive that was there"}
