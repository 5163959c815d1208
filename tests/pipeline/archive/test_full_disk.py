"""A medium without room, by the system's own limits: a clear error, nothing half done, and later all goes on."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from framefold.pipeline.archive import ArchiveError, ArchiveWriter, Code, verify
from framefold.pipeline.archive.disk import DISK, Disk
from framefold.pipeline.archive.folder import FolderWriter
from framefold.pipeline.archive.output import Output


class QuickDisk(Disk):
    """Does not wait for the medium."""

    def sync(self, fd: int) -> None:
        pass

    def sync_folder(self, path: Path) -> None:
        pass


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: writes are cut short there, then refused."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_one_file_at_every_length(small, fill, manifest):
    before, length = small.read_bytes(), small.stat().st_size
    steps = [*range(0, length, 61), length - 1]
    for size in steps:
        with no_file_beyond(size), pytest.raises(ArchiveError) as caught, ArchiveWriter(small) as archive:
            fill(archive)
            archive.commit(manifest)
        assert caught.value.code == Code.IO
        assert "File too large" in str(caught.value)
        assert small.read_bytes() == before
        assert list(small.parent.iterdir()) == [small]
    assert len(steps) > 27


def test_a_folder_at_every_length_and_then_with_room(tmp_path, clips, manifest):
    refused, sizes = 0, list(range(0, 15_000, 450))
    for size in sizes:
        place, disk = tmp_path / f"{size}", QuickDisk()
        with FolderWriter(place, disk=disk) as archive:
            acknowledged = set[int]()
            with no_file_beyond(size):
                try:
                    acknowledged.update(clips.add(archive, range(4)))
                    archive.roll()
                except ArchiveError as error:
                    refused += 1
                    assert error.code == Code.IO
                    assert "File too large" in str(error)
            committed = set(clips.found(place))
            assert acknowledged <= committed | clips.left_open(place)
            assert committed in (set(), set(range(4)))
            clips.fill(archive, range(6))
            archive.commit(manifest)
        assert clips.found(place) == list(range(6))
        assert list((place / "open").iterdir()) == []
        assert all(verify(shard) == () for shard in (place / "data/shards").iterdir())
    assert len(sizes) > 27
    assert 10 < refused < len(sizes)


def test_a_device_that_is_always_full_is_reported():
    output = Output(os.open("/dev/full", os.O_RDWR), "/dev/full", DISK)
    with pytest.raises(ArchiveError, match=r"F018 /dev/full: cannot write the archive: .*No space left on device"):
        output.write(b"anything", 0)
    output.close()
