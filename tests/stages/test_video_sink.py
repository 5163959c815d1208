from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from framefold.codecs.clip import Clip, ColorTags
from framefold.pipeline.errors import FramefoldError
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Emit
from framefold.stages import media_encode
from framefold.stages.video_sink import VideoSink
from framefold.stages.video_source import VideoSource


def sink(path: Path | str, **options: Any) -> VideoSink:
    return VideoSink(VideoSink.Config(path=str(path), **options))


def read(path: Path) -> tuple[list[Clip], np.ndarray]:
    outputs = list(VideoSource(VideoSource.Config(path=str(path), pixels="rgb")).produce())
    assert all(isinstance(output, Emit) for output in outputs), outputs
    clips = [output.payload for output in outputs]
    return clips, np.concatenate([clip.frames for clip in clips])


def seconds(clips: list[Clip]) -> list[Fraction]:
    return [pts * Fraction(*clip.span.source.time_base) for clip in clips for pts in clip.span.pts]


def noise(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (count, 3, height, width), dtype=np.uint8)


def smooth(count: int, height: int, width: int) -> np.ndarray:
    """What H.264 can hold well: slow gradients that move."""
    t, c, y, x = np.ogrid[:count, :3, :height, :width]
    return (127 + 100 * np.sin((x + y * (c + 1) / 2 + 3 * t) / 25)).astype(np.uint8)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


@pytest.mark.parametrize("size", [(6, 8), (7, 9), (1, 1), (2, 3)])
def test_mkv_gives_every_pixel_back(
    tmp_path: Path, feed: Callable, make_clip: Callable, make_source: Callable, size: tuple[int, int]
) -> None:
    frames = noise(5, *size)
    source = make_source(width=size[1], height=size[0], time_base=(1, 25), frame_rate=(25, 1))
    feed(sink(tmp_path / "out.mkv"), [make_clip(source, frames[:3]), make_clip(source, frames[3:], 3)])
    clips, back = read(tmp_path / "out.mkv")
    np.testing.assert_array_equal(back, frames)
    assert seconds(clips) == [Fraction(i, 25) for i in range(5)]
    assert clips[0].span.source.frame_rate == (25, 1)


@pytest.mark.parametrize("size", [(64, 96), (63, 96), (64, 95), (1, 1)])
def test_mp4_keeps_size_and_picture(
    tmp_path: Path, feed: Callable, make_clip: Callable, make_source: Callable, size: tuple[int, int]
) -> None:
    frames = smooth(12, *size)
    feed(sink(tmp_path / "out.mp4"), [make_clip(make_source(width=size[1], height=size[0]), frames)])
    _, back = read(tmp_path / "out.mp4")
    assert back.shape == frames.shape
    assert psnr(back, frames) > 35


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_the_same_clips_give_the_same_bytes(
    tmp_path: Path, feed: Callable, make_clip: Callable, make_source: Callable, suffix: str
) -> None:
    frames = smooth(60, 72, 120) // 2 + noise(60, 72, 120) // 16
    made = set()
    for _ in range(5):
        feed(sink(tmp_path / f"out{suffix}"), [make_clip(make_source(width=120, height=72), frames.copy())])
        made.add((tmp_path / f"out{suffix}").read_bytes())
    assert len(made) == 1


def test_a_lower_crf_is_closer(tmp_path: Path, feed: Callable, make_clip: Callable, make_source: Callable) -> None:
    frames = smooth(6, 64, 64)
    for crf in (4, 40):
        feed(sink(tmp_path / f"{crf}.mp4", crf=crf), [make_clip(make_source(width=64, height=64), frames)])
    good, poor = (psnr(read(tmp_path / f"{crf}.mp4")[1], frames) for crf in (4, 40))
    assert good > poor + 5


PTS = [7, 8, 107, 3000, 3001, 9000, 90_000]


def test_mp4_keeps_variable_times_exactly(
    tmp_path: Path, feed: Callable, make_clip: Callable, make_source: Callable
) -> None:
    source = make_source(width=16, height=16, time_base=(1, 90_000), frame_rate=(30_000, 1001))
    clip = make_clip(source, noise(7, 16, 16), pts=PTS)
    feed(sink(tmp_path / "out.mp4"), [clip])
    clips, _ = read(tmp_path / "out.mp4")
    found = seconds(clips)
    assert found == [Fraction(pts, 90_000) for pts in PTS]
    last = clips[-1].span.duration_ticks * Fraction(*clips[-1].span.source.time_base)
    assert last == clip.span.duration_ticks * Fraction(1, 90_000)


def test_mkv_rounds_times_to_milliseconds(
    tmp_path: Path, feed: Callable, make_clip: Callable, make_source: Callable
) -> None:
    source = make_source(width=16, height=16, time_base=(1, 90_000))
    feed(sink(tmp_path / "out.mkv"), [make_clip(source, noise(7, 16, 16), pts=[9 * p for p in PTS])])
    clips, _ = read(tmp_path / "out.mkv")
    assert all(abs(t - Fraction(p, 10_000)) <= Fraction(1, 2000) for t, p in zip(seconds(clips), PTS, strict=True))


def test_times_that_do_not_grow_are_nudged(
    tmp_path: Path,
    feed: Callable,
    make_clip: Callable,
    make_source: Callable,
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = make_source(width=16, height=16, time_base=(1, 25))
    feed(sink(tmp_path / "out.mp4"), [make_clip(source, noise(4, 16, 16), pts=[0, 5, 5, 3])])
    clips, _ = read(tmp_path / "out.mp4")
    assert seconds(clips) == [Fraction(t, 25) for t in (0, 5, 6, 7)]
    assert "not after the frame before" in caplog.text


@pytest.mark.parametrize(
    "tags",
    [
        (ColorTags(), (2, 2, 1, 1)),
        (ColorTags(primaries=1, transfer=1, matrix=1, range=1), (1, 1, 1, 1)),
        (ColorTags(primaries=6, transfer=6, matrix=6, range=1), (6, 6, 6, 1)),
        (ColorTags(primaries=9, transfer=16, matrix=9, range=2), (9, 16, 9, 2)),
        (ColorTags(primaries=200, transfer=99, matrix=8, range=1), (2, 2, 1, 1)),
    ],
)
def test_mp4_colours_are_converted_by_the_matrix_that_is_tagged(
    tmp_path: Path,
    feed: Callable,
    make_clip: Callable,
    make_source: Callable,
    tags: tuple[ColorTags, tuple[int, ...]],
) -> None:
    given_tags, written = tags
    frames = np.empty((3, 3, 32, 32), np.uint8)
    frames[:] = np.array([200, 50, 90], np.uint8)[None, :, None, None]
    feed(
        sink(tmp_path / "out.mp4", crf=0),
        [make_clip(make_source(width=32, height=32, color=given_tags), frames)],
    )
    clips, back = read(tmp_path / "out.mp4")
    color = clips[0].span.source.color
    assert (color.primaries, color.transfer, color.matrix, color.range) == written
    assert np.abs(back.astype(int) - frames).max() <= 3


def test_png_folder(tmp_path: Path, feed: Callable, make_clip: Callable, make_source: Callable) -> None:
    frames = noise(5, 7, 9)
    source = make_source(width=9, height=7)
    for path in ("plain", "slash/", "with.dot/"):
        feed(sink(f"{tmp_path}/{path}"), [make_clip(source, frames[:2]), make_clip(source, frames[2:], 2)])
        names = sorted(p.name for p in (tmp_path / path).iterdir())
        assert names == [f"frame_{i:06d}.png" for i in range(5)]
        for name, frame in zip(names, frames, strict=True):
            np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / path / name)), frame.transpose(1, 2, 0))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plain", "slash", "with.dot"]


def test_several_sources_get_a_subfolder_each(
    tmp_path: Path, feed: Callable, make_clip: Callable, make_source: Callable
) -> None:
    clips = [make_clip(make_source(name), noise(2, 6, 8)) for name in ("a.mp4", "x/b.mp4")]
    feed(sink(tmp_path / "out"), clips)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.png")) == [
        f"out/{name}/frame_00000{i}.png" for name in ("a.mp4", "x/b.mp4") for i in (0, 1)
    ]


def test_a_file_takes_one_source(tmp_path: Path, feed: Callable, make_clip: Callable, make_source: Callable) -> None:
    stage = sink(tmp_path / "out.mkv")
    first = make_clip(make_source("a.mp4"), noise(2, 6, 8))
    feed(stage, [first], finish=False)
    with pytest.raises(FramefoldError, match=r"holds one video, a\.mp4, and cannot take b\.mp4.*name a folder"):
        feed(stage, [make_clip(make_source("b.mp4"), noise(2, 6, 8))], finish=False)
    feed(stage, [])
    np.testing.assert_array_equal(read(tmp_path / "out.mkv")[1], first.frames)


@pytest.mark.parametrize("name", ["../evil", "/srv/evil", "a/../../evil", "a\\evil", "nul"])
def test_names_from_an_archive_stay_beneath_the_folder(
    tmp_path: Path, feed: Callable, make_clip: Callable, make_source: Callable, name: str
) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    stage = sink(inside / "out")
    with pytest.raises(FramefoldError, match="is not written to disk"):
        feed(stage, [make_clip(make_source(name), noise(2, 6, 8))])
    stage.close()
    assert list(tmp_path.rglob("*")) == [inside]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ""])
def test_a_failed_run_leaves_nothing_and_what_was_there_stays(
    tmp_path: Path, feed: Callable, make_clip: Callable, make_source: Callable, suffix: str
) -> None:
    target = tmp_path / f"out{suffix}"
    if suffix:
        target.write_text("precious")
    stage = sink(target)
    feed(stage, [make_clip(make_source(), noise(90, 6, 8))], finish=False)  # more than x264 holds back
    assert len(list(tmp_path.iterdir())) == 1 + bool(suffix)
    stage.close()
    assert [p.read_text() for p in tmp_path.iterdir()] == (["precious"] if suffix else [])


def test_an_existing_file_is_replaced_when_the_new_one_is_complete(
    tmp_path: Path, feed: Callable, make_clip: Callable, make_source: Callable
) -> None:
    (tmp_path / "out.mkv").write_text("old")
    frames = noise(2, 6, 8)
    feed(sink(tmp_path / "out.mkv"), [make_clip(make_source(), frames)])
    np.testing.assert_array_equal(read(tmp_path / "out.mkv")[1], frames)
    assert [p.name for p in tmp_path.iterdir()] == ["out.mkv"]


def test_a_full_folder_is_only_written_into_on_request(
    tmp_path: Path, feed: Callable, make_clip: Callable, make_source: Callable
) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "mine.txt").write_text("precious")
    (target / "frame_000001.png").write_text("precious too")
    clip = make_clip(make_source(), noise(2, 6, 8))
    ((option, message),) = VideoSink.preflight(VideoSink.Config(path=str(target)))
    assert (option, "set overwrite: true" in message) == ("path", True)
    refused = sink(target)
    with pytest.raises(FramefoldError, match=r"frame_000001\.png is there already"):
        feed(refused, [clip])
    refused.close()
    assert sorted(p.name for p in target.iterdir()) == ["frame_000001.png", "mine.txt"]
    assert (target / "frame_000001.png").read_text() == "precious too"
    assert VideoSink.preflight(VideoSink.Config(path=str(target), overwrite=True)) == []
    feed(sink(target, overwrite=True), [clip])
    assert sorted(p.name for p in target.iterdir()) == ["frame_000000.png", "frame_000001.png", "mine.txt"]
    assert Image.open(target / "frame_000001.png").size == (8, 6)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_overwriting_leaves_no_frame_of_a_longer_video(
    tmp_path: Path, feed: Callable, make_clip: Callable, make_source: Callable
) -> None:
    for count in (5, 3):
        feed(sink(tmp_path / "out", overwrite=True), [make_clip(make_source(), noise(count, 6, 8))])
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_overwriting_never_follows_a_link_out_of_the_folder(
    tmp_path: Path, feed: Callable, make_clip: Callable, make_source: Callable
) -> None:
    outside, target = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    target.mkdir()
    (target / "a.mp4").symlink_to(outside)
    clips = [make_clip(make_source(name), noise(1, 6, 8)) for name in ("a.mp4", "b.mp4")]
    feed(sink(target, overwrite=True), clips)
    assert list(outside.iterdir()) == []
    assert (target / "a.mp4" / "frame_000000.png").is_file()


def test_an_item_that_failed_midway_is_written_once(
    tmp_path: Path,
    feed: Callable,
    make_clip: Callable,
    make_source: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage, frames = sink(tmp_path / "out.mkv"), noise(4, 6, 8)
    item = Item("key", "", (0,), make_clip(make_source(time_base=(1, 25)), frames))
    whole, calls = media_encode.ContainerWriter.write, []

    def fail_at_the_third(self: Any, *args: Any, **kwargs: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise OSError("worker lost")
        whole(self, *args, **kwargs)

    monkeypatch.setattr(media_encode.ContainerWriter, "write", fail_at_the_third)
    with pytest.raises(OSError, match="worker lost"):
        list(stage.process(item))
    list(stage.process(item))
    feed(stage, [])
    np.testing.assert_array_equal(read(tmp_path / "out.mkv")[1], frames)


def test_clips_out_of_order_are_refused_and_gaps_are_named(
    tmp_path: Path,
    feed: Callable,
    make_clip: Callable,
    make_source: Callable,
    caplog: pytest.LogCaptureFixture,
) -> None:
    source, frames = make_source(time_base=(1, 25)), noise(2, 6, 8)
    stage = sink(tmp_path / "out.mkv")
    feed(stage, [make_clip(source, frames, 4)], finish=False)
    assert "frames 0 to 3 are missing" in caplog.text
    with pytest.raises(FramefoldError, match="comes after frame 5"):
        list(stage.process(Item("other", "", (1,), make_clip(source, frames, 2))))
    stage.close()


@pytest.mark.parametrize("path", ["out.avi", "out.MOV", "film.mp4.txt"])
def test_unknown_kinds_of_file_are_refused(path: str) -> None:
    with pytest.raises(ValidationError, match=r"allowed is a file ending in \.mp4 or \.mkv, or a folder"):
        VideoSink.Config(path=path)


def test_preflight_looks_at_the_place(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, problem in ((f"{tmp_path}/file/out.mp4", "is a file"), (f"{tmp_path}/file/", "is a file")):
        ((option, message),) = VideoSink.preflight(VideoSink.Config(path=path))
        assert (option, problem in message) == ("path", True)
    assert VideoSink.preflight(VideoSink.Config(path=f"{tmp_path}/new/folder/out.mp4")) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_preflight_finds_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    ((_, message),) = VideoSink.preflight(VideoSink.Config(path=f"{tmp_path}/out.mp4"))
    assert "is not writable" in message


def test_a_time_base_beyond_containers_is_refused(
    tmp_path: Path, feed: Callable, make_clip: Callable, make_source: Callable
) -> None:
    stage = sink(tmp_path / "out.mp4")
    with pytest.raises(FramefoldError, match="write PNGs instead"):
        feed(stage, [make_clip(make_source(time_base=(1, 2**40)), noise(1, 6, 8))])
    stage.close()
    assert list(tmp_path.iterdir()) == []


def test_names_with_a_colon_are_files_not_protocols(
    tmp_path: Path,
    feed: Callable,
    make_clip: Callable,
    make_source: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    feed(sink("pipe:1.mp4"), [make_clip(make_source(width=16, height=16), noise(2, 16, 16))])
    with av.open("file:pipe:1.mp4") as container:
        assert container.streams.video[0].frames == 2
    assert [p.name for p in tmp_path.iterdir()] == ["pipe:1.mp4"]


def test_no_clip_no_file(tmp_path: Path, feed: Callable) -> None:
    for name in ("out.mp4", "out"):
        with pytest.raises(FramefoldError, match="nothing reached"):
            feed(sink(tmp_path / name), [])
    assert list(tmp_path.iterdir()) == []
