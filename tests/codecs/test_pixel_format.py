from __future__ import annotations

import pickle
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from framefold.codecs.clip import Clip, Source, Span, join
from framefold.codecs.metrics import ms_ssim, psnr
from framefold.codecs.pixel_format import GRAY, GRAY_16, RGB, SUBSAMPLINGS, PixelFormat

DEPTHS = (8, 9, 10, 12, 14, 16)
YUV = [
    PixelFormat.model_validate({"model": "yuv", "depth": depth, "chroma": chroma, "alpha": alpha})
    for depth, chroma, alpha in product(DEPTHS, SUBSAMPLINGS, (False, True))
]
OTHERS = [PixelFormat.model_validate({"model": "rgb", "depth": depth, "alpha": a}) for depth in DEPTHS for a in (0, 1)]
FORMATS = [*YUV, *OTHERS, *(PixelFormat.model_validate({"model": "gray", "depth": depth}) for depth in DEPTHS)]
YUV420 = PixelFormat(model="yuv", chroma=(2, 2))


def source(pixels: PixelFormat, height: int = 4, width: int = 6) -> Source:
    return Source(name="a", kind="video", sha256="0" * 64, size_bytes=0, width=width, height=height, pixels=pixels)


def noise(pixels: PixelFormat, *shape: int) -> np.ndarray:
    full = np.random.default_rng(1).integers(0, pixels.peak, (*shape[:-2], pixels.channels, *shape[-2:]), pixels.dtype)
    return pixels.spread([plane.copy() for plane in pixels.stored(full)], *shape[-2:])


@settings(max_examples=200, deadline=None)
@given(pixels=st.sampled_from(FORMATS), shape=st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12)))
def test_planes_become_frames_and_planes_again(pixels: PixelFormat, shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(2)
    counts = [len(range(pixels.channels)[plane.channels]) for plane in pixels.planes]
    planes = [
        rng.integers(0, pixels.peak, (shape[0], n, -(-shape[1] // p.rows), -(-shape[2] // p.columns)), pixels.dtype)
        for n, p in zip(counts, pixels.planes, strict=True)
    ]
    frames = pixels.spread(planes, *shape[1:])
    assert (frames.shape, frames.dtype) == ((shape[0], pixels.channels, *shape[1:]), pixels.dtype)
    for back, plane in zip(pixels.stored(frames), planes, strict=True):
        np.testing.assert_array_equal(back, plane)
    sizes = np.array([plane[0].size for plane in planes])
    np.testing.assert_allclose(pixels.shares(*shape[1:]), sizes / sizes.sum())
    clip = Clip(span=Span(source=source(pixels, *shape[1:]), pts=(*range(shape[0]),)), frames=frames)
    np.testing.assert_array_equal(join([clip.part(0, 1), clip.part(0, 1)]).frames[1], frames[0])


def test_names_tell_formats_apart() -> None:
    assert len({pixels.name for pixels in FORMATS}) == len(FORMATS)
    named = [PixelFormat(), GRAY_16, YUV420, PixelFormat(model="yuv", depth=10, chroma=(1, 2), alpha=True)]
    assert [pixels.name for pixels in named] == ["rgb", "gray16", "yuv420p", "yuva422p10"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": "rgb", "chroma": (2, 2)},
        {"model": "gray", "chroma": (1, 2)},
        {"model": "yuv", "chroma": (4, 2)},
        {"model": "gray", "alpha": True},
        {"model": "xyz"},
        {"depth": 11},
        {"siting": "left"},
    ],
)
def test_what_is_no_format_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PixelFormat.model_validate(wrong)


def test_eight_bit_rgb_is_not_written() -> None:
    assert "pixels" not in source(RGB).model_dump()
    assert source(YUV420).model_dump(mode="json")["pixels"]["chroma"] == [2, 2]
    assert Source.model_validate_json(source(YUV420).model_dump_json(), strict=True) == source(YUV420)


def test_a_source_that_was_pickled_before_there_were_formats_is_rgb() -> None:
    old = source(RGB)
    del old.__dict__["pixels"]
    assert pickle.loads(pickle.dumps(old)) == source(RGB)


@pytest.mark.parametrize("frames", [np.zeros((1, 3, 4, 6), np.uint8), np.zeros((1, 1, 4, 6), np.uint16)])
def test_a_clip_is_what_its_source_says(frames: np.ndarray) -> None:
    with pytest.raises(ValueError, match="the span says uint8"):
        Clip(span=Span(source=source(GRAY), pts=(0,)), frames=frames)


def test_psnr_counts_each_stored_sample_once() -> None:
    frames = np.zeros((1, 3, 4, 6), np.uint8)
    other = frames.copy()
    other[0, 1, 2:, 4:] = 6  # one sample of U, at its four pixels
    assert psnr(other, frames, YUV420) == pytest.approx(10 * np.log10(255**2 / (36 / 36)))
    full = PixelFormat(model="yuv")
    assert psnr(other, frames, full) == pytest.approx(10 * np.log10(255**2 / (4 * 36 / 72)))


@pytest.mark.parametrize("pixels", [PixelFormat(depth=10), GRAY_16])
def test_psnr_knows_the_largest_sample(pixels: PixelFormat) -> None:
    a = np.zeros((1, pixels.channels, 2, 2), np.uint16)
    assert psnr(a, a + np.uint16(pixels.peak), pixels) == pytest.approx(0)
    assert psnr(a, a + np.uint16(1), pixels) == pytest.approx(20 * np.log10(pixels.peak))


def test_ms_ssim_looks_at_luma_and_leaves_alpha_away() -> None:
    a = noise(PixelFormat(model="yuv", alpha=True), 1, 30, 30)
    b = a.copy()
    b[:, 1:] ^= 255
    assert ms_ssim(a, b, PixelFormat(model="yuv", alpha=True)) == pytest.approx(1)
    assert ms_ssim(a, b, PixelFormat(alpha=True)) < 0.5


def test_ms_ssim_is_the_same_at_every_depth() -> None:
    a, b = noise(GRAY, 2, 40, 40), np.roll(noise(GRAY, 2, 40, 40), 1, 3)
    deep = PixelFormat(model="gray", depth=16)
    assert ms_ssim(a * np.uint16(257), b * np.uint16(257), deep) == pytest.approx(ms_ssim(a, b, GRAY), abs=1e-4)
