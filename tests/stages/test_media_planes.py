from __future__ import annotations

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from hypothesis import given, settings
from hypothesis import strategies as st

from framefold.codecs.pixel_format import GRAY, PixelFormat
from framefold.stages.media_planes import REORDERED, fitted, format_of, frame_of, name_of, samples_of

NAMES = [form.name for form in av.codec.Codec("ffv1", "w").video_formats or () if format_of(form.name)]
OWN = [name for name in NAMES if name not in REORDERED]
SIZES = st.tuples(st.integers(1, 20), st.integers(1, 20))


def noise(pixels: PixelFormat, height: int, width: int) -> np.ndarray:
    """Every sample another one; those that are shared stand at each of their pixels."""
    rng = np.random.default_rng(height * width)
    full = rng.integers(0, pixels.peak, (pixels.channels, height, width), pixels.dtype, endpoint=True)
    return pixels.spread([plane.copy() for plane in pixels.stored(full)], height, width)


def test_every_format_of_the_lossless_encoder_is_one_of_ours() -> None:
    unknown = {form.name for form in av.codec.Codec("ffv1", "w").video_formats or ()} - set(NAMES)
    assert unknown == {"ya8", "grayf16le", "yaf16le", "gbrpf16le", "gbrpf32le"}
    assert format_of("pal8") is format_of("xyz12le") is format_of("yuv420pp") is None


@pytest.mark.parametrize("name", OWN)
def test_names_go_there_and_back(name: str) -> None:
    pixels = format_of(name)
    assert pixels is not None
    assert name_of(pixels) == name


@pytest.mark.parametrize(
    ("name", "same"), [("yuvj422p", "yuv422p"), ("yuv420p10be", "yuv420p10le"), ("nv12", "yuv420p")]
)
def test_names_of_the_same_samples(name: str, same: str) -> None:
    assert format_of(name) == format_of(same)


@settings(max_examples=200, deadline=None)
@given(name=st.sampled_from(NAMES), size=SIZES)
def test_samples_go_into_a_frame_and_back(name: str, size: tuple[int, int]) -> None:
    pixels = format_of(name)
    assert pixels is not None
    samples = noise(pixels, *size)
    back = samples_of(frame_of(samples, pixels), VideoReformatter())
    assert back.dtype == pixels.dtype
    np.testing.assert_array_equal(back, samples)


@settings(max_examples=100, deadline=None)
@given(name=st.sampled_from([*REORDERED, "yuv422p10be", "gray16be", "gbrp12be", "gbrap10be"]), size=SIZES)
def test_formats_that_are_put_in_order_lose_nothing(name: str, size: tuple[int, int]) -> None:
    pixels = format_of(name)
    assert pixels is not None
    height, width = size
    if name in ("yuyv422", "uyvy422", "yvyu422"):  # here the way into the format, not the one out of it, needs pairs
        width += width % 2
    samples, reformatter = noise(pixels, height, width), VideoReformatter()
    reordered = reformatter.reformat(frame_of(samples, pixels), format=name, threads=1)
    assert reordered.format.name == name
    np.testing.assert_array_equal(samples_of(reordered, reformatter), samples)


def test_samples_are_rounded_to_fewer_bits_and_shifted_to_more() -> None:
    twelve, ten = PixelFormat(model="yuv", depth=12, alpha=True), PixelFormat(model="yuv", depth=10)
    levels = np.array([0, 1, 2, 5, 6, 4093, 4094, 4095], np.uint16)
    samples = np.broadcast_to(levels, (4, 1, 8))
    assert fitted(samples, twelve, ten)[:, 0].tolist() == [[0, 0, 1, 1, 2, 1023, 1023, 1023]] * 3
    nine = PixelFormat(model="gray", depth=9)
    assert fitted(levels[None, None, :5], nine, PixelFormat(model="gray", depth=10)).tolist() == [[[0, 2, 4, 10, 12]]]
    assert fitted(np.full((1, 2, 2), 7, np.uint8), GRAY, GRAY).dtype == np.uint8


def test_what_ffmpeg_does_not_know_is_refused() -> None:
    odd = PixelFormat(model="yuv", depth=14, chroma=(4, 4))
    with pytest.raises(ValueError, match="yuv410p14le"):
        frame_of(noise(odd, 4, 4), odd)
    with pytest.raises(ValueError, match="pal8"):
        samples_of(av.VideoFrame(4, 4, "pal8"), VideoReformatter())
