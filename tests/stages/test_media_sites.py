from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from framefold.codecs.carried import Carried, PixelTags
from framefold.codecs.clip import Clip, Source
from framefold.codecs.pixel_format import PixelFormat
from framefold.stages.media_decode import to_rgb
from framefold.stages.media_planes import frame_of, samples_of, with_rows_of_fields
from framefold.stages.media_shown import Shown
from framefold.stages.media_sites import PLACES, Placing, chroma_location
from framefold.stages.video_sink import VideoSink
from framefold.stages.video_source import VideoSource

YUV420 = PixelFormat(model="yuv", chroma=(2, 2))


def noise(pixels: PixelFormat, height: int, width: int) -> np.ndarray:
    full = np.random.default_rng(4).integers(0, pixels.peak, (pixels.channels, height, width), pixels.dtype)
    return pixels.spread([plane.copy() for plane in pixels.stored(full)], height, width)


def source(pixels: PixelFormat, location: int, height: int, width: int) -> Source:
    carried = Carried(pixel=PixelTags(chroma_location=location))
    size = {"width": width, "height": height, "size_bytes": 0, "sha256": "0" * 64}
    return Source.model_validate({"name": "a", "kind": "video", "pixels": pixels, "carried": carried, **size})


def film(path: Path, codec: str, place: str = "unspecified", size: tuple[int, int] = (32, 48), **options: str) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"chroma_sample_location": place, **options})
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.time_base = Fraction(1, 25)
        for number in range(3):
            frame = frame_of(noise(YUV420, *size), YUV420)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def clip_of(path: Path, **options: Any) -> Clip:
    outputs = VideoSource(VideoSource.Config(path=str(path), **options)).produce()
    return next(output.payload for output in outputs if isinstance(output.payload, Clip))  # type: ignore[union-attr]


@pytest.mark.parametrize("location", [0, *PLACES])
@pytest.mark.parametrize("size", [(32, 48), (17, 23)])
@pytest.mark.parametrize("depth", [8, 10])
def test_a_place_is_found_out_and_nothing_else_changes(location: int, size: tuple[int, int], depth: Any) -> None:
    pixels = PixelFormat(model="yuv", depth=depth, chroma=(2, 2))
    samples = noise(pixels, *size)
    frame = Placing(location).of(frame_of(samples, pixels))
    assert chroma_location(frame) == location
    np.testing.assert_array_equal(samples_of(frame, VideoReformatter()), samples)  # not by looking, either


def test_the_middle_is_what_is_taken_for_unspecified() -> None:
    frame = frame_of(noise(YUV420, 16, 16), YUV420)
    assert chroma_location(Placing(2).of(frame)) == chroma_location(frame) == 0


@pytest.mark.parametrize("pixels", [PixelFormat(), PixelFormat(model="gray"), PixelFormat(model="yuv")])
def test_without_shared_samples_there_is_no_place(pixels: PixelFormat) -> None:
    assert chroma_location(frame_of(noise(pixels, 8, 8), pixels)) == 0


@pytest.mark.parametrize("place", ["left", "topleft"])
@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_film_keeps_its_place_and_is_shown_by_it(tmp_path: Path, feed: Any, place: str, suffix: str) -> None:
    original = film(tmp_path / f"film{suffix}", "libx264", place)
    clip, rgb = clip_of(original), clip_of(original, pixels="rgb")
    assert PLACES[clip.span.source.carried.pixel.chroma_location] == place
    assert rgb.span.source.carried.pixel.chroma_location == 0  # its samples are shared no more
    np.testing.assert_array_equal(Shown(clip.span.source).rgb(clip.frames[0]), rgb.frames[0])
    rows = feed(VideoSink(VideoSink.Config(path=str(tmp_path / f"out{suffix}"))), [clip])
    assert "chroma location" not in {row.label for row in rows}
    assert clip_of(tmp_path / f"out{suffix}").span.source.carried.pixel.chroma_location in PLACES
    back = clip_of(tmp_path / f"out{suffix}")
    assert back.span.source.carried.pixel.chroma_location == clip.span.source.carried.pixel.chroma_location


@pytest.mark.parametrize("flags", ["+ildct+ilme", "+cgop"])
def test_fields_are_shown_one_by_one(tmp_path: Path, flags: str) -> None:
    original = film(tmp_path / "film.mkv", "libx264", flags=flags)
    clip, rgb = clip_of(original), clip_of(original, pixels="rgb")
    assert (clip.span.source.carried.pixel.field_order > 1) == (flags == "+ildct+ilme")
    np.testing.assert_array_equal(Shown(clip.span.source).rgb(clip.frames[0]), rgb.frames[0])


def test_another_place_shows_other_colours() -> None:
    samples = noise(YUV420, 16, 16)
    seen = [Shown(source(YUV420, location, 16, 16)).rgb(samples) for location in (0, 1, 3)]
    np.testing.assert_array_equal(seen[0], to_rgb(frame_of(samples, YUV420), VideoReformatter()).transpose(2, 0, 1))
    assert [np.array_equal(seen[0], other) for other in seen[1:]] == [False, False]


@pytest.mark.parametrize(("suffix", "size"), [(".mkv", (32, 48)), (".mp4", (32, 48)), (".mp4", (34, 48))])
def test_an_interlaced_film_is_written_in_fields_or_without_shared_chroma(
    tmp_path: Path, feed: Any, suffix: str, size: tuple[int, int]
) -> None:
    """Colours are those of the field that a row belongs to, whatever the file holds."""
    codec = "libx264" if size[0] % 4 == 0 else "mpeg2video"
    clip = clip_of(film(tmp_path / "film.mkv", codec, size=size, flags="+ildct+ilme"))
    assert clip.span.source.carried.pixel.field_order > 1
    feed(VideoSink(VideoSink.Config(path=str(tmp_path / f"out{suffix}"), crf=0)), [clip])
    back = clip_of(tmp_path / f"out{suffix}")
    assert back.pixels.chroma == ((1, 1) if size[0] % 4 else (2, 2))
    assert (back.span.source.carried.pixel.field_order > 1) == (size[0] % 4 == 0)
    shown, seen = (Shown(each.span.source).rgb(each.frames[0]).astype(int) for each in (clip, back))
    assert np.abs(seen - shown).mean() < 0.5 or size[0] % 4
    whole = with_rows_of_fields(clip.frames[0], YUV420) if size[0] % 4 else clip.frames[0]
    assert np.abs(back.frames[0] - whole.astype(int)).mean() < 1


def test_rows_have_the_chroma_of_their_own_field() -> None:
    rows = np.arange(5).repeat(2)[None, :9, None].repeat(3, 0).astype(np.uint8)  # chroma row 0, 1, … of 9 rows
    assert with_rows_of_fields(rows, YUV420)[1, :, 0].tolist() == [0, 1, 0, 1, 2, 3, 2, 3, 4]
    assert with_rows_of_fields(rows, YUV420)[0, :, 0].tolist() == rows[0, :, 0].tolist()
