"""How far decoded frames are from the originals: PSNR and MS-SSIM on samples as they are stored.

Both take arrays (T, C, H, W) of a pixel format, by default 8-bit RGB, and give the mean over the frames, as the papers
of this field report them. ValueError names arrays that cannot be compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from framefold.codecs.clip import Frames
from framefold.codecs.pixel_format import RGB, PixelFormat

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales, finest first (Wang, Simoncelli, Bovik 2003, section 4)."""
WINDOW = 11
SIGMA = 1.5
K1, K2 = 0.01, 0.03
"""Of the largest sample: what keeps SSIM's quotients from being those of two zeros."""


def psnr(a: Frames, b: Frames, pixels: PixelFormat = RGB) -> float:
    """Mean over frames of 10 log10(peak^2 / MSE of the frame), in dB; `math.inf` if all frames are equal.

    The MSE is that of all stored samples: of 4:2:0, a quarter as many of U and of V as of Y, and alpha is one of them.

    A frame without any error among frames with errors counts as if one of its samples were off by one: the
    best finite value that its size allows, so that one still frame does not make the whole clip infinite.
    """
    errors = [_squared_error(x, y, pixels) for x, y in _frame_pairs(a, b, pixels)]
    if not any(errors):
        return math.inf
    samples = sum(plane.size for plane in pixels.stored(a[0]))
    return sum(10 * math.log10(pixels.peak**2 * samples / max(error, 1)) for error in errors) / len(errors)


def ms_ssim(a: Frames, b: Frames, pixels: PixelFormat = RGB) -> float:
    """Mean MS-SSIM over frames, 0..1: per frame the mean over R, G and B, as pytorch_msssim 1.0 computes it.

    Of YUV it is that of Y alone, as usual; alpha takes no part.

    Window 11x11 Gaussian with sigma 1.5, no padding; 2x2 means between scales; K = (0.01, 0.03). All five
    scales need a smaller side of more than 160 pixels. Of a smaller picture as many scales are taken as still
    hold the window (81 to 160 pixels: four, 41 to 80: three, 21 to 40: two, fewer: one), their weights
    divided by their sum; below 11 pixels the window is cut to the largest odd size that fits.
    """
    weights = _weights(min(a.shape[-2:]))
    seen = slice(0, 3 if pixels.model == "rgb" else 1)
    constants = (K1 * pixels.peak) ** 2, (K2 * pixels.peak) ** 2
    pairs = ((_planes(x[seen]), _planes(y[seen])) for x, y in _frame_pairs(a, b, pixels))
    return sum(_ms_ssim_frame(*pair, weights, constants) for pair in pairs) / len(a)


def _frame_pairs(a: Frames, b: Frames, pixels: PixelFormat) -> Iterator[tuple[Frames, Frames]]:
    if a.shape != b.shape or a.dtype != pixels.dtype or b.dtype != pixels.dtype:
        raise ValueError(
            f"cannot compare {a.dtype} {a.shape} with {b.dtype} {b.shape}: need equal {pixels.dtype} shapes"
        )
    if a.ndim != 4 or a.size == 0:
        needed = f"(T, {pixels.channels}, H, W)"
        raise ValueError(f"cannot compare frames of shape {a.shape}: {needed}, none of them 0, is needed")
    return zip(a, b, strict=True)


def _squared_error(x: Frames, y: Frames, pixels: PixelFormat) -> int:
    planes = zip(pixels.stored(x), pixels.stored(y), strict=True)
    differences = (np.abs(np.subtract(a, b, dtype=np.int32)).astype(np.uint32) for a, b in planes)
    return sum(int(np.square(difference).sum(dtype=np.int64)) for difference in differences)


def _weights(side: int) -> tuple[float, ...]:
    scales = max(n for n in range(1, 6) if n == 1 or side > (WINDOW - 1) * 2 ** (n - 1))
    kept = MS_SSIM_WEIGHTS[:scales]
    return kept if scales == len(MS_SSIM_WEIGHTS) else tuple(weight / sum(kept) for weight in kept)


def _planes(frame: Frames) -> Tensor:
    """(C, H, W) -> (C, 1, H, W) float32, one picture per colour plane."""
    return torch.from_numpy(frame.astype(np.float32))[:, None]


def _ms_ssim_frame(x: Tensor, y: Tensor, weights: tuple[float, ...], constants: tuple[float, float]) -> float:
    product = torch.ones(x.shape[0])
    for scale, weight in enumerate(weights):
        ssim, contrast = _ssim(x, y, constants)
        last = scale == len(weights) - 1
        product *= functional.relu(ssim if last else contrast) ** weight
        if not last:
            padding = [side % 2 for side in x.shape[2:]]
            x, y = (functional.avg_pool2d(plane, 2, padding=padding) for plane in (x, y))
    return product.mean().item()


def _ssim(x: Tensor, y: Tensor, constants: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """SSIM and its contrast-structure factor, each (C,): means over the planes (C, 1, H, W)."""
    c1, c2 = constants
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x, variance_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    contrast = (2 * covariance + c2) / (variance_x + variance_y + c2)
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return (luminance * contrast).flatten(1).mean(1), contrast.flatten(1).mean(1)


def _blur(x: Tensor) -> Tensor:
    size = min(WINDOW, *(side - 1 + side % 2 for side in x.shape[2:]))
    offsets = torch.arange(size) - size // 2
    window = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    window /= window.sum()
    return functional.conv2d(functional.conv2d(x, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))
