"""`pipe_sink`: what a player gets, bit for bit, and how a pipe ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import Interpolation, VideoReformatter

from framefold.codecs.carried import Carried, PixelTags
from framefold.codecs.clip import Clip, ColorTags, ImageBatch
from framefold.pipeline.errors import FramefoldError
from framefold.pipeline.item import Item
from framefold.pipeline.stage import StageContext
from framefold.pipeline.testing import check_stage
from framefold.stages.pipe_sink import PipeSink

CHILD = """
import sys
import numpy as np
from framefold.codecs.clip import Clip, Source, Span
from framefold.pipeline.item import Item
from framefold.pipeline.stage import StageContext
from framefold.stages.pipe_sink import PipeSink

print("before")
sink = PipeSink(PipeSink.Config(format=sys.argv[1]))
sink.setup(StageContext("stream"))
source = Source(name="a.mp4", kind="video", sha256="ab" * 32, size_bytes=9, width=64, height=48, time_base=(1, 25))
for number in range(int(sys.argv[2])):
    print("frame", number)
    span = Span(source=source, first_frame=number, pts=(number,))
    clip = Clip(span=span, frames=np.full(span.shape, number, np.uint8))
    list(sink.process(Item(f"{number}", f"{number}", (0, number), clip)))
list(sink.finish())
sink.close()
print("after")
"""
FRAME_BYTES = 64 * 48 * 3


def child(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """A process whose standard output is the stream."""
    return subprocess.Popen([sys.executable, "-c", CHILD, *arguments], stdout=subprocess.PIPE, **options)


@pytest.fixture
def clips(make_clip: Any, make_source: Any, pattern: Any) -> Callable[..., list[Clip]]:
    """A film in clips of three frames."""

    def make(count: int = 7, *, width: int = 32, height: int = 18, pts: Any = None, **source: Any) -> list[Clip]:
        described = make_source(width=width, height=height, **({"time_base": (1, 25)} | source))
        frames = np.ascontiguousarray(pattern(count, height, width).transpose(0, 3, 1, 2))
        times = list(range(count)) if pts is None else pts
        whole = make_clip(described, frames, pts=times)
        return [whole.part(first, min(first + 3, count)) for first in range(0, count, 3)]

    return make


@pytest.fixture
def stream(tmp_path: Path, feed: Any) -> Callable[..., Path]:
    """What the sink makes of these clips."""

    def written(payloads: list[Any], form: str) -> Path:
        path = tmp_path / f"out.{form}"
        assert feed(PipeSink(PipeSink.Config(path=str(path), format=form)), payloads) == []
        return path

    return written


def rgb(clips: list[Clip]) -> list[np.ndarray[Any, Any]]:
    """(H, W, 3) of every frame."""
    return [frame.transpose(1, 2, 0) for clip in clips for frame in clip.frames]


def planes(frame: av.VideoFrame) -> list[np.ndarray[Any, Any]]:
    """The planes without padding, of odd sizes too."""
    rows = [np.frombuffer(bytes(one), np.uint8).reshape(one.height, one.line_size) for one in frame.planes]
    return [plane[:, : one.width] for plane, one in zip(rows, frame.planes, strict=True)]


def decoded(path: Path, form: str, **options: str) -> Iterator[av.VideoFrame]:
    with av.open(str(path), format=form, options=options) as container:
        yield from container.decode(video=0)


@pytest.mark.parametrize("form", ["y4m", "rawvideo", "nut"])
def test_it_is_a_stage_like_others(clips: Any, tmp_path: Path, form: str) -> None:
    assert check_stage(PipeSink, {"path": str(tmp_path / "x"), "format": form}, clips()) == []


@pytest.mark.parametrize("size", [(32, 18), (33, 19), (1, 1)])
def test_rawvideo_is_the_pixels_and_nothing_else(clips: Any, stream: Any, size: tuple[int, int]) -> None:
    film = clips(width=size[0], height=size[1])
    assert stream(film, "rawvideo").read_bytes() == b"".join(frame.tobytes() for frame in rgb(film))


@pytest.mark.parametrize("size", [(32, 18), (33, 19)])
def test_nut_keeps_pixels_and_uneven_times(clips: Any, stream: Any, size: tuple[int, int]) -> None:
    pts = [0, 1001, 1002, 9001, 9002, 70_000, 8_000_000]
    film = clips(width=size[0], height=size[1], pts=pts, time_base=(1, 90_000))
    frames = list(decoded(stream(film, "nut"), "nut"))
    assert [frame.pts * frame.time_base for frame in frames] == [Fraction(time, 90_000) for time in pts]
    for frame, expected in zip(frames, rgb(film), strict=True):
        assert np.array_equal(frame.to_ndarray(format="rgb24"), expected)


@pytest.mark.parametrize("shape", [(32, 18, 5), (33, 19, 5), (1280, 2, 1), (16, 578, 1)])
@pytest.mark.parametrize("ranges", [(0, 1), (1, 1), (2, 2)])
def test_y4m_is_what_swscale_makes_of_the_frames(
    clips: Any, stream: Any, shape: tuple[int, int, int], ranges: tuple[int, int]
) -> None:
    (width, height, matrix), (tagged, range_) = shape, ranges
    film = clips(3, width=width, height=height, color=ColorTags(range=tagged, matrix=9))
    frames = list(decoded(stream(film, "y4m"), "yuv4mpegpipe"))
    exact = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.BITEXACT
    for frame, expected in zip(frames, rgb(film), strict=True):
        assert (frame.format.name, frame.color_range) == ("yuv420p", range_)
        yuv = VideoReformatter().reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(expected), "rgb24"),
            format="yuv420p",
            dst_colorspace=matrix,
            dst_color_range=range_,
            interpolation=exact | Interpolation.FULL_CHR_H_INP,
        )
        for got, wanted in zip(planes(frame), planes(yuv), strict=True):
            assert np.array_equal(got, wanted)


def test_y4m_says_rate_shape_of_pixels_and_where_chroma_lies(clips: Any, stream: Any) -> None:
    carried = Carried(pixel=PixelTags(aspect=(16, 11)))
    path = stream(clips(frame_rate=(30_000, 1001), time_base=(1001, 30_000), carried=carried), "y4m")
    header, _, rest = path.read_bytes().partition(b"\n")
    assert header == b"YUV4MPEG2 W32 H18 F30000:1001 Ip A16:11 C420jpeg XCOLORRANGE=LIMITED"
    assert len(rest) == 7 * (len(b"FRAME\n") + 32 * 18 * 3 // 2)
    with av.open(str(path)) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(16, 11)
        assert container.streams.video[0].average_rate == Fraction(30_000, 1001)


def test_chroma_lies_where_y4m_says(make_clip: Any, make_source: Any, stream: Any) -> None:
    frames = np.zeros((1, 3, 16, 32), np.uint8)
    frames[:, 2, :, 16:] = frames[:, 2, 8:, :] = 255  # blue steps between pixels 15 and 16, and lines 7 and 8
    (frame,) = decoded(stream([make_clip(make_source(width=32, height=16), frames)], "y4m"), "yuv4mpegpipe")
    chroma = planes(frame)[1].astype(int)
    middle = chroma[0].min() + chroma[0].max()
    assert list(chroma[0] + chroma[0][::-1]) == [middle] * 16  # centred: the step is as far from both sides
    assert list(chroma[:, 0] + chroma[::-1, 0]) == [middle] * 8


def test_the_rate_of_a_source_that_says_none_is_that_of_its_first_clip(clips: Any, stream: Any) -> None:
    assert b" F50:1 " in stream(clips(time_base=(1, 50)), "y4m").read_bytes()[:60]


def test_times_that_are_not_constant_are_said_once_and_kept_only_by_nut(
    clips: Any, stream: Any, caplog: pytest.LogCaptureFixture
) -> None:
    film = clips(pts=[0, 40, 80, 120, 200, 240, 340], time_base=(1, 1000), frame_rate=(25, 1))
    stream(film, "nut")
    assert caplog.messages == []
    stream(film, "y4m")
    (message,) = caplog.messages
    assert message.startswith("film.mp4: from frame 4 on its times are not those of 25 frames per second")


def test_rounded_times_count_as_constant(clips: Any, stream: Any, caplog: pytest.LogCaptureFixture) -> None:
    pts = [round(number * 1001 / 24) for number in range(60)]
    stream(clips(60, pts=pts, time_base=(1, 1000), frame_rate=(24_000, 1001)), "y4m")
    assert caplog.messages == []


def test_a_gap_is_said_and_the_frames_go_on(clips: Any, stream: Any, caplog: pytest.LogCaptureFixture) -> None:
    film = clips()
    path = stream([film[0], film[2]], "rawvideo")
    assert caplog.messages[0] == "film.mp4: frames 3 to 5 are missing"
    assert path.read_bytes() == b"".join(frame.tobytes() for frame in rgb([film[0], film[2]]))


def test_a_film_may_begin_anywhere(clips: Any, stream: Any, caplog: pytest.LogCaptureFixture) -> None:
    film = clips()
    assert len(stream(film[1:], "rawvideo").read_bytes()) == 4 * 32 * 18 * 3
    assert caplog.messages == []


def test_the_same_item_again_writes_no_frame_twice(clips: Any, tmp_path: Path) -> None:
    film, path = clips(), tmp_path / "x.rgb"
    sink = PipeSink(PipeSink.Config(path=str(path), format="rawvideo"))
    sink.setup(StageContext("stream"))
    for number, clip in enumerate([film[0], film[1], film[1], film[2]]):
        key = f"{number - (number > 1)}"
        list(sink.process(Item(key, "x", (0, number), clip)))
    list(sink.finish())
    sink.close()
    assert path.read_bytes() == b"".join(frame.tobytes() for frame in rgb(film))


def test_clips_out_of_order_and_other_sources_are_refused(
    clips: Any, make_source: Any, make_clip: Any, tmp_path: Path
) -> None:
    film = clips()
    sink = PipeSink(PipeSink.Config(path=str(tmp_path / "x"), format="rawvideo"))
    sink.setup(StageContext("stream"))
    list(sink.process(Item("1", "x", (0, 1), film[1])))
    with pytest.raises(FramefoldError, match="comes after frame 5; clips must be in order"):
        list(sink.process(Item("0", "x", (0, 0), film[0])))
    other = make_clip(make_source("b.mp4"), np.zeros((1, 3, 6, 8), np.uint8))
    with pytest.raises(FramefoldError, match=r"shows one source, and 'b\.mp4' is another"):
        list(sink.process(Item("2", "x", (0, 2), other)))
    sink.close()
    assert list(tmp_path.iterdir()) == []  # what is not whole is no file


def test_a_picture_is_a_film_of_one_frame(make_source: Any, make_clip: Any, stream: Any) -> None:
    source = make_source("a.png", kind="image")
    picture = make_clip(source, np.arange(8 * 6 * 3, dtype=np.uint8).reshape(1, 3, 6, 8))
    assert stream([ImageBatch(pictures=(picture,))], "rawvideo").read_bytes() == rgb([picture])[0].tobytes()


def test_nothing_to_show_is_an_error_and_no_file(tmp_path: Path, feed: Any) -> None:
    sink = PipeSink(PipeSink.Config(path=str(tmp_path / "x.y4m")))
    with pytest.raises(FramefoldError, match="no frame came"):
        feed(sink, [])
    sink.close()
    assert list(tmp_path.iterdir()) == []


def test_a_time_base_that_nut_cannot_say_is_an_error(clips: Any, stream: Any) -> None:
    with pytest.raises(FramefoldError, match="finer than NUT allows"):
        stream(clips(time_base=(1, 2**40)), "nut")


def test_a_fifo_is_written_to_as_it_is(clips: Any, tmp_path: Path, feed: Any) -> None:
    fifo, film, read = tmp_path / "fifo", clips(), list[bytes]()
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()), daemon=True)
    reader.start()
    feed(PipeSink(PipeSink.Config(path=str(fifo), format="rawvideo")), film)
    reader.join()
    assert read == [b"".join(frame.tobytes() for frame in rgb(film))]
    assert fifo.is_fifo()


def test_a_fifo_that_nobody_reads_any_more_is_an_error(clips: Any, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    there = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    sink = PipeSink(PipeSink.Config(path=str(fifo), format="rawvideo"))
    sink.setup(StageContext("stream"))
    os.close(there)
    with pytest.raises(FramefoldError, match="nobody reads the frames any more"):
        list(sink.process(Item("0", "x", (0, 0), clips()[0])))
    sink.close()


def test_a_full_disk_is_said_and_leaves_no_file(clips: Any) -> None:
    sink = PipeSink(PipeSink.Config(path="/dev/full", format="rawvideo"))
    sink.setup(StageContext("stream"))
    with pytest.raises(FramefoldError, match=r"the frames cannot be written: .*No space left"):
        list(sink.process(Item("0", "x", (0, 0), clips()[0])))
    sink.close()


def test_a_folder_is_no_place_for_a_stream(tmp_path: Path) -> None:
    assert "is a folder" in PipeSink.preflight(PipeSink.Config(path=str(tmp_path)))[0][1]
    assert PipeSink.preflight(PipeSink.Config()) == []
    assert "is a file" in PipeSink.preflight(PipeSink.Config(path=f"{__file__}/x"))[0][1]


def test_only_frames_come_out_of_standard_output_and_it_is_given_back() -> None:
    with child("rawvideo", "4", stderr=subprocess.PIPE) as process:
        out, err = process.communicate()
    frames = b"".join(bytes([number]) * FRAME_BYTES for number in range(4))
    assert out == b"before\n" + frames + b"after\n"
    assert err == b"frame 0\nframe 1\nframe 2\nframe 3\n"
    assert process.returncode == 0


@pytest.mark.parametrize("form", ["y4m", "rawvideo", "nut"])
def test_when_nobody_reads_on_it_ends_quietly(form: str, tmp_path: Path) -> None:
    with child(form, "100000", stderr=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert len(process.stdout.read(3 * FRAME_BYTES)) == 3 * FRAME_BYTES
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read()
        assert process.wait() == -signal.SIGPIPE
    assert b"Error" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["y4m", "rawvideo", "nut"])
def test_each_frame_is_out_before_the_next_one_is_made(clips: Any, form: str) -> None:
    reading, writing = os.pipe()
    sink = PipeSink(PipeSink.Config(path=f"/dev/fd/{writing}", format=form))
    sink.setup(StageContext("stream"))
    os.set_blocking(reading, False)
    for number, clip in enumerate(clips(3, width=8, height=8)):
        list(sink.process(Item(str(number), "x", (0, number), clip)))
    per_frame = 8 * 8 * 3 // 2 if form == "y4m" else 8 * 8 * 3
    assert len(os.read(reading, 2**16)) >= 3 * per_frame
    list(sink.finish())
    sink.close()
    os.close(reading)
    os.close(writing)
