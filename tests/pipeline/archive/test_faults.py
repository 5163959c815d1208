"""Real faults: a full disk, a killed writer, a strangers' file in little memory. What was there stays."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from framefold.pipeline.archive import ArchiveError, ArchiveReader, ArchiveWriter, Code, verify

WRITE_SLOWLY = """
import sys
from pathlib import Path
from framefold.pipeline.archive import ArchiveWriter

writer = ArchiveWriter(Path(sys.argv[1]))
source = writer.add_source({"name": "a", "kind": "video", "width": 2, "height": 2, "time_base": [1, 1]})
codec = writer.add_codec("none", {})
for number in range(10**6):
    key = f"{number:064x}"
    place = {"source": source, "codec": codec, "first_frame": number, "pts": [number]}
    writer.add_unit(key=key, **place, duration_ticks=1, payload=bytes(1000))
    print(number, flush=True)
"""


@pytest.mark.parametrize("limit", [0, 63, 64, 100, 700, 1200, 1500])
def test_a_full_disk_leaves_the_old_archive_and_no_other_file(
    small: Path, limit: int, fill: Callable[[ArchiveWriter], list[str]], manifest: dict[str, str]
) -> None:
    before = small.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(ArchiveError) as caught, ArchiveWriter(small) as writer:
            fill(writer)
            writer.commit(manifest)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.code == Code.IO
    assert small.read_bytes() == before
    assert list(small.parent.iterdir()) == [small]


def test_after_room_was_made_the_same_writer_goes_on(
    tmp_path: Path, fill: Callable[[ArchiveWriter], list[str]], manifest: dict[str, str]
) -> None:
    path = tmp_path / "x.fold"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with ArchiveWriter(path) as writer:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1100, hard))
            with pytest.raises(ArchiveError):
                fill(writer)
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            units = fill(writer)
            writer.commit(manifest)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert verify(path) == ()
    with ArchiveReader.open(path) as reader:
        assert [unit.id for unit in reader.units] == units


def test_a_killed_writer_leaves_the_old_archive(small: Path) -> None:
    before = small.read_bytes()
    command = [sys.executable, "-c", textwrap.dedent(WRITE_SLOWLY), str(small)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(20):
            process.stdout.readline()
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert small.read_bytes() == before
    assert verify(small) == ()


def test_a_stale_temporary_file_is_no_archive(small: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn.fold"
    torn.write_bytes(small.read_bytes()[:-64])
    with pytest.raises(ArchiveError) as caught:
        ArchiveReader.open(torn)
    assert caught.value.code == Code.FOOTER


def test_two_writers_do_not_disturb_each_other(
    tmp_path: Path, fill: Callable[[ArchiveWriter], list[str]], manifest: dict[str, str]
) -> None:
    path = tmp_path / "x.fold"
    with ArchiveWriter(path) as first, ArchiveWriter(path) as second:
        fill(first)
        fill(second)
        first.commit(manifest)
        second.commit(manifest)
    assert verify(path) == ()
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.fold"]
