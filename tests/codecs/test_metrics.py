import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framefold.codecs.metrics import ms_ssim, psnr
from framefold.codecs.testing import moving_shapes


def noisy(frames, sigma, seed=0):
    noise = np.random.default_rng(seed).normal(0, sigma, frames.shape)
    return (frames + noise).round().clip(0, 255).astype(np.uint8)


def test_psnr_of_a_known_error():
    a = np.full((2, 3, 4, 5), 100, np.uint8)
    assert psnr(a, a + 5) == pytest.approx(10 * math.log10(255**2 / 25))
    assert psnr(a + 5, a) == psnr(a, a + 5)


def test_psnr_is_the_mean_over_frames_not_of_the_pooled_error():
    a = np.full((2, 3, 4, 4), 100, np.uint8)
    b = a.copy()
    b[0] += 1
    b[1] += 10
    assert psnr(a, b) == pytest.approx((10 * math.log10(255**2) + 10 * math.log10(255**2 / 100)) / 2)


def test_psnr_of_equal_clips_is_infinite_and_of_one_equal_frame_is_not():
    a = moving_shapes(2, 16, 16)
    b = a.copy()
    assert psnr(a, b) == math.inf
    b[1, 0, 0, 0] ^= 1
    assert psnr(a, b) == pytest.approx(10 * math.log10(255**2 * a[0].size))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 100), st.integers(1, 100))
def test_more_noise_is_less_psnr(one, other):
    a = np.full((1, 3, 8, 8), 120, np.uint8)
    assert (psnr(a, a + np.uint8(one)) > psnr(a, a + np.uint8(other))) == (one < other)


# Computed with pytorch_msssim 1.0.0, ms_ssim(a, b, data_range=255), one call per frame, on these very frames.
REFERENCE = {(176, 208): 0.7501844, (181, 163): 0.7719583, (320, 180): 0.7427611}


@pytest.mark.parametrize("size", REFERENCE)
def test_ms_ssim_agrees_with_pytorch_msssim(size):
    a = moving_shapes(2, *size)
    assert ms_ssim(a, noisy(a, 25)) == pytest.approx(REFERENCE[size], abs=2e-5)


@pytest.mark.parametrize("size", [(1, 1), (7, 30), (11, 11), (33, 47), (160, 200)])
def test_ms_ssim_of_small_pictures(size):
    a = moving_shapes(1, *size)
    assert ms_ssim(a, a) == pytest.approx(1.0, abs=1e-6)
    assert ms_ssim(a, 255 - a) < 1.0


def test_ms_ssim_falls_with_noise():
    a = moving_shapes(1, 64, 64)
    values = [ms_ssim(a, noisy(a, sigma)) for sigma in (1, 4, 16, 64)]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("metric", [psnr, ms_ssim])
def test_what_cannot_be_compared_is_refused(metric):
    a = moving_shapes(2, 16, 16)
    with pytest.raises(ValueError, match=r"\(2, 3, 16, 16\).*\(1, 3, 16, 16\)"):
        metric(a, a[:1])
    with pytest.raises(ValueError, match="float32"):
        metric(a, a.astype(np.float32))
    with pytest.raises(ValueError, match="shape"):
        metric(a[:0], a[:0])
