"""Every system call of a writer fails once: what was there stays, or the new is whole, and trying again works."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from framefold.pipeline.archive import ArchiveError, ArchiveWriter, Code, verify
from framefold.pipeline.archive.disk import Disk
from framefold.pipeline.archive.folder import FolderWriter
from framefold.pipeline.archive.gc import collect
from framefold.pipeline.archive.output import Output

CALLS = ("open", "pwrite", "truncate", "sync", "link", "replace", "unlink", "mkdir", "sync_folder")
HOW = ("ENOSPC", "EIO", "torn", "short")


class FaultyDisk(Disk):
    """Counts the calls that change files, and lets `count` of them, from call `at` on, fail as `how` says."""

    def __init__(self, at: int, how: str, *, count: int = 1) -> None:
        self.calls, self.at, self.how, self.count = 0, at, how, count
        self.failed: list[str] = []

    def is_next(self, name: str) -> bool:
        self.calls += 1
        fails = self.at <= self.calls < self.at + self.count
        if fails:
            self.failed.append(name)
        return fails

    def pwrite(self, fd: int, data: memoryview, offset: int) -> int:
        if not self.is_next("pwrite"):
            return super().pwrite(fd, data, offset)
        if self.how == "short":
            return super().pwrite(fd, data[: max(len(data) // 2, 1)], offset)
        if self.how == "torn":
            super().pwrite(fd, data[: len(data) // 2], offset)
        raise self.error()

    def sync(self, fd: int) -> None:
        if self.is_next("sync"):
            raise self.error()

    def sync_folder(self, path: Path) -> None:
        if self.is_next("sync_folder"):
            raise self.error()

    def error(self) -> OSError:
        return OSError(getattr(errno, self.how, errno.EIO), "made to fail")


NO_FAULTS = FaultyDisk(at=-1, how="never")
"""Nor does it wait for the medium: here no power is cut."""


def _failing(name: str) -> Callable[..., Any]:
    def call(self: FaultyDisk, *args: Any) -> Any:
        if self.is_next(name):
            raise self.error()
        return getattr(Disk, name)(self, *args)

    return call


for _name in ("open", "truncate", "link", "replace", "unlink", "mkdir"):
    setattr(FaultyDisk, _name, _failing(_name))


def trials(how: str) -> Iterator[FaultyDisk]:
    """A disk whose first call fails, one whose second does, …, up to one none of whose calls did."""
    for at in range(1, 1000):
        disk = FaultyDisk(at, how)
        yield disk
        if disk.calls < at:
            return
    raise AssertionError("a thousand calls are not enough")


@pytest.fixture
def single() -> Callable[..., ArchiveWriter]:
    """Makes a writer of one file on a faulty disk, always with the same archive id."""

    def make(path: Path, disk: Disk) -> ArchiveWriter:
        return ArchiveWriter(path, archive_id=bytes(range(16)), disk=disk)

    return make


@pytest.mark.parametrize("how", HOW)
def test_one_file_is_the_old_one_or_the_new_one(small, fill, manifest, single, how):
    wanted, old, failed = small.read_bytes(), b"the archive that was there", set[str]()
    for disk in trials(how):
        small.write_bytes(old)
        try:
            with single(small, disk) as archive:
                fill(archive)
                archive.commit(manifest)
        except ArchiveError as error:
            assert error.code == Code.IO
            assert disk.failed, disk.at
            assert small.read_bytes() in ([wanted] if disk.failed == ["sync_folder"] else [old]), disk.at
        else:
            assert small.read_bytes() == wanted, disk.at
        failed.update(disk.failed)
        assert list(small.parent.iterdir()) == [small], disk.at
        with single(small, Disk()) as archive:
            fill(archive)
            archive.commit(manifest)
        assert small.read_bytes() == wanted
    assert failed == {"open", "pwrite", "sync", "unlink", "replace", "sync_folder"}


@pytest.mark.parametrize("how", ["ENOSPC", "EIO", "torn"])
def test_each_step_of_one_file_may_be_repeated_but_a_failed_flush(small, fill, manifest, single, how):
    """What the system could not flush it may have dropped: a second flush that says yes would prove nothing."""
    wanted, steps = small.read_bytes(), (fill, lambda archive: archive.commit(manifest))
    repeated = refused = 0
    for disk in trials(how):
        small.unlink()
        try:
            archive = single(small, disk)
        except ArchiveError:
            write_again = single(small, Disk())
            fill(write_again)
            write_again.commit(manifest)
            continue
        with archive:
            for step in steps:
                try:
                    step(archive)
                except ArchiveError:
                    if disk.failed == ["sync"]:
                        refused += 1
                        with pytest.raises(ArchiveError, match=r"F018.*a flush failed, so write it again"):
                            step(archive)
                    elif disk.failed != ["sync_folder"]:
                        repeated += 1
                        step(archive)
        assert small.exists() == (disk.failed != ["sync"]), disk.at
        if disk.failed == ["sync"]:
            archive = single(small, Disk())
            fill(archive)
            archive.commit(manifest)
        assert small.read_bytes() == wanted, disk.at
    assert repeated > 12
    assert refused == 1


@pytest.mark.parametrize("how", HOW)
def test_a_folder_is_in_the_old_state_or_in_the_new_one(tmp_path, clips, manifest, how):
    failed, codes = set[str](), set[Code]()
    for disk in trials(how):
        place = tmp_path / f"{disk.at}"
        clips.write(place, range(3), disk=NO_FAULTS)
        acknowledged = []
        try:
            with FolderWriter(place, disk=disk, roll_bytes=6000) as archive:
                acknowledged += clips.add(archive, range(6))
                archive.commit(manifest)
        except ArchiveError as error:
            codes.add(error.code)
            assert disk.failed, disk.at
        else:
            assert clips.found(place) == list(range(6)), disk.at
        failed.update(disk.failed)
        found = clips.found(place)
        assert set(range(3)) <= set(found) <= set(range(6)), disk.at
        assert set(acknowledged) <= set(found) | clips.left_open(place), disk.at
        clips.write(place, range(6), disk=NO_FAULTS)
        assert clips.found(place) == list(range(6)), disk.at
        collect(place, 1, clock=lambda: time.time() + 2 * 86400)
        assert {path.parent.name for path in place.rglob("*") if path.is_file()} == {"data", "shards", "commits"}
        assert all(verify(path) == () for path in (place / "data/shards").iterdir()), disk.at
    assert failed == set(CALLS) - {"truncate", "replace"}
    assert codes == {Code.IO}


@pytest.mark.parametrize("how", ["ENOSPC", "EIO", "torn"])
def test_each_step_of_a_folder_may_be_repeated(tmp_path, clips, manifest, how):
    failed = 0
    for disk in trials(how):
        place = tmp_path / f"{disk.at}"
        archive = attempt(lambda: FolderWriter(place, disk=disk, roll_bytes=6000))  # noqa: B023 - called at once
        for number in range(6):
            attempt(lambda: clips.fill(archive, [number]))  # noqa: B023
        attempt(lambda: archive.commit(manifest))  # noqa: B023
        failed += bool(disk.failed)
        assert clips.found(place) == list(range(6)), disk.at
    assert failed > 50


def attempt(step: Callable[[], Any]) -> Any:
    """Take a step, once more if it fails."""
    try:
        return step()
    except ArchiveError as error:
        assert error.code == Code.IO
        return step()


def test_a_folder_without_exclusive_names_is_refused(tmp_path):
    class NoLinks(Disk):
        def link(self, source: Path, name: Path) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

    class Overwrites(Disk):
        def link(self, source: Path, name: Path) -> None:
            other = name.with_name(f"{os.urandom(8).hex()}.tmp")
            super().link(source, other)
            super().replace(other, name)

    for disk in (NoLinks(), Overwrites()):
        with pytest.raises(ArchiveError, match="F027"):
            FolderWriter(tmp_path / "x.fold", disk=disk)
    assert list((tmp_path / "x.fold/data/commits").iterdir()) == []


def test_a_link_that_was_made_although_the_system_says_no_is_ours(tmp_path, clips):
    """A network file system repeats a request whose answer was lost, and then finds the name taken, by itself."""

    class Forgetful(Disk):
        def link(self, source: Path, name: Path) -> None:
            super().link(source, name)
            raise FileExistsError(errno.EEXIST, "File exists")

    clips.write(tmp_path / "x.fold", range(3), disk=Forgetful())
    assert clips.found(tmp_path / "x.fold") == [0, 1, 2]


def test_what_was_not_flushed_is_written_again_before_the_next_flush(tmp_path):
    disk = FaultyDisk(at=3, how="EIO")
    output = Output(disk.create(tmp_path / "x"), "x", disk)
    output.write(b"one", 0)
    with pytest.raises(ArchiveError, match="F018"):
        output.sync()
    output.write(b"two", 3)
    with pytest.raises(ArchiveError, match="from byte 0 on may be lost"):
        output.sync()
    output.cut(3)
    with pytest.raises(ArchiveError, match="from byte 0 on may be lost"):
        output.sync()
    output.cut(0)
    output.write(b"ONE", 0)
    output.sync()
    output.close()
    assert (tmp_path / "x").read_bytes() == b"ONE"


@pytest.mark.parametrize("count", [1, 2], ids=["write fails", "write and cut fail"])
def test_the_rest_of_a_failed_write_does_not_get_into_the_archive(tmp_path, source, manifest, single, count):
    disk = FaultyDisk(at=1000, how="torn", count=count)
    with single(tmp_path / "a.fold", disk) as archive:
        part = next(tmp_path.iterdir())
        disk.calls = 999
        with pytest.raises(ArchiveError, match="F018"):
            archive.add_source(source("a" * 1000))
        assert (part.stat().st_size == archive.size_bytes) == (count == 1)
        archive.commit(manifest)
    assert verify(tmp_path / "a.fold") == ()


def test_a_system_that_takes_no_bytes_is_not_asked_for_ever(tmp_path):
    class Stuck(Disk):
        def pwrite(self, fd: int, data: memoryview, offset: int) -> int:
            return 0

    with pytest.raises(ArchiveError, match="took none of the bytes"):
        FolderWriter(tmp_path / "x.fold", disk=Stuck())


def test_a_medium_that_fails_on_reading_is_reported(small, monkeypatch):
    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "made to fail")

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(ArchiveError, match="F018"):
        verify(small)


def test_reads_in_small_pieces_are_put_together(small, monkeypatch, read_all):
    wanted, real = read_all(small), os.pread
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: real(fd, min(length, 7), offset))
    assert read_all(small) == wanted


def test_leaving_without_commit_leaves_nothing(tmp_path, fill):
    with ArchiveWriter(tmp_path / "a.fold") as archive:
        fill(archive)
    assert list(tmp_path.iterdir()) == []
    archive.abort()


def test_a_path_that_cannot_be_written_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path, tmp_path / "file" / "a.fold", tmp_path / ("x" * 300), tmp_path / "a\0b"):
        with pytest.raises(ArchiveError, match="F018"):
            ArchiveWriter(path)
    for path in (tmp_path / "file" / "a", tmp_path / ("x" * 300), tmp_path / "a\0b", tmp_path / "file"):
        with pytest.raises(ArchiveError, match="F018"):
            FolderWriter(path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
