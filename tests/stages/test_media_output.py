"""Results on their way: one writer at a time, and nothing stays of a killed one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from framefold.codecs.clip import Clip
from framefold.pipeline.archive import lock
from framefold.pipeline.archive.lock import Locked
from framefold.pipeline.errors import FramefoldError
from framefold.stages.media_output import StagedFile, StagedFolder
from framefold.stages.video_sink import VideoSink

KILLED = """
import os, signal, sys
from pathlib import Path
from framefold.stages.media_output import StagedFile, StagedFolder

for path in map(Path, sys.argv[1:]):
    if path.suffix:
        StagedFile(path).path.write_bytes(b"half of it, and longer than what comes after")
    else:
        (StagedFolder(path, "node").path / "half.png").write_bytes(b"half of it")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def clip(make_clip: Callable[..., Clip], make_source: Callable) -> Clip:
    return make_clip(make_source(), np.zeros((2, 3, 6, 8), np.uint8))


def kill(*paths: Path) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED, *map(str, paths)], check=False).returncode == -9


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_what_a_killed_writer_left_is_replaced(tmp_path: Path) -> None:
    kill(tmp_path / "film.mp4", tmp_path / "out")
    left = [
        ".film.mp4.partial",
        ".out.node.partial",
        *(f".out.node.partial/{name}" for name in ("content", "lock")),
    ]
    assert names(tmp_path) == sorted([*left, ".out.node.partial/content/half.png"])
    file, folder = StagedFile(tmp_path / "film.mp4"), StagedFolder(tmp_path / "out", "node")
    assert file.path.read_bytes() == b""
    assert list(folder.path.iterdir()) == []
    file.path.write_bytes(b"film")
    (folder.path / "whole.png").write_bytes(b"picture")
    file.commit()
    folder.commit(overwrite=False)
    assert names(tmp_path) == ["film.mp4", "out", "out/whole.png"]
    assert (tmp_path / "film.mp4").read_bytes() == b"film"


@pytest.mark.parametrize("path", ["film.mkv", "out"])
def test_the_sink_replaces_what_a_killed_run_left(tmp_path: Path, feed: Callable, clip: Clip, path: str) -> None:
    """The engine names the sink after its node, which is the same in the next run."""
    kill(tmp_path / path)
    sink = VideoSink(VideoSink.Config(path=str(tmp_path / path)))
    feed(sink, [clip])
    frames = [f"out/frame_00000{number}.png" for number in range(2)]
    assert names(tmp_path) == ([path] if path == "film.mkv" else [path, *frames])


def test_a_second_writer_is_refused_and_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, feed: Callable, clip: Clip
) -> None:
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0)
    for path in ("film.mkv", "out"):
        first, second = (VideoSink(VideoSink.Config(path=str(tmp_path / path))) for _ in range(2))
        feed(first, [clip], finish=False)
        with pytest.raises(FramefoldError, match=r"holds the lock on .*partial.*wait until it has ended"):
            feed(second, [clip])
        second.close()
        list(first.finish())
        first.close()
    assert names(tmp_path) == ["film.mkv", "out", "out/frame_000000.png", "out/frame_000001.png"]


def test_owners_with_different_names_share_a_folder(tmp_path: Path) -> None:
    one, other = StagedFolder(tmp_path / "out", "one"), StagedFolder(tmp_path / "out", "other")
    for staged in (one, other):
        (staged.path / staged.path.parent.name).write_bytes(b"")
        staged.commit(overwrite=False)
        staged.discard()
    assert names(tmp_path) == ["out", "out/.out.one.partial", "out/.out.other.partial"]


def test_a_discarded_writer_leaves_nothing_and_lets_the_next_one_begin(tmp_path: Path) -> None:
    for make in (lambda: StagedFile(tmp_path / "film.mp4"), lambda: StagedFolder(tmp_path / "out")):
        for _ in range(2):
            staged = make()
            staged.discard()
            staged.discard()
            assert names(tmp_path) == []


def test_discarding_spares_the_file_of_whoever_came_after(tmp_path: Path) -> None:
    first = StagedFile(tmp_path / "film.mp4")
    first.path.unlink()
    second = StagedFile(tmp_path / "film.mp4")
    first.discard()
    second.path.write_bytes(b"film")
    second.commit()
    assert names(tmp_path) == ["film.mp4"]


def test_the_message_of_a_lock_travels_between_processes() -> None:
    import pickle

    error = Locked(Path("a.partial"), 7)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert "process 7 holds the lock on a.partial" in str(error)
