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

from framefold.pipeline.archive import ArchiveError, ArchiveReader, ArchiveWriter, Code, lock, verify

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


def test_a_killed_writer_leaves_its_lock_to_the_next_one(
    small: Path, fill: Callable[[ArchiveWriter], list[str]], manifest: dict[str, str]
) -> None:
    command = [sys.executable, "-c", textwrap.dedent(WRITE_SLOWLY), str(small)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    assert [path.name for path in sorted(small.parent.iterdir())] == [".small.fold.part", "small.fold"]
    with ArchiveWriter(small) as writer:
        units = fill(writer)
        writer.commit(manifest)
    assert verify(small) == ()
    with ArchiveReader.open(small) as reader:
        assert [unit.id for unit in reader.units] == units
    assert [path.name for path in small.parent.iterdir()] == ["small.fold"]


def test_a_second_writer_is_told_who_is_the_first_and_disturbs_nothing(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0)
    before = small.read_bytes()
    command = [sys.executable, "-c", textwrap.dedent(WRITE_SLOWLY), str(small)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(ArchiveError) as caught:
            ArchiveWriter(small)
        assert process.poll() is None
        process.kill()
    assert caught.value.code == Code.LOCKED
    known = Path("/proc/locks").is_file()
    assert (f"process {process.pid} is writing it" if known else "another process is") in str(caught.value)
    assert "wait until the other writer has ended" in str(caught.value)
    assert small.read_bytes() == before


def test_two_writers_of_one_process_do_not_disturb_each_other(
    tmp_path: Path,
    fill: Callable[[ArchiveWriter], list[str]],
    manifest: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0)
    path = tmp_path / "x.fold"
    with ArchiveWriter(path) as first:
        with pytest.raises(ArchiveError, match="F022"):
            ArchiveWriter(path)
        fill(first)
        first.commit(manifest)
    with ArchiveWriter(path) as second:
        fill(second)
        second.commit(manifest)
    assert verify(path) == ()
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.fold"]


def test_a_writer_that_waits_gets_the_lock_when_the_first_one_ends(
    tmp_path: Path,
    fill: Callable[[ArchiveWriter], list[str]],
    manifest: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It had opened the file that the first then renamed: it must not go on writing into that."""
    path = tmp_path / "x.fold"
    first = ArchiveWriter(path)
    monkeypatch.setattr(lock.time, "sleep", lambda _: first.commit(manifest))
    with ArchiveWriter(path) as second:
        fill(second)
        assert verify(path) == ()
        second.commit(manifest)
    with ArchiveReader.open(path) as reader:
        assert len(reader.units) == 3
