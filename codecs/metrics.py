"""How far decoded frames are from the originals: PSNR and MS-SSIM on 8-bit RGB.

Both take uint8 arrays (T, 3, H, W), 0..255, and give the mean over the frames, as the papers of this field
report them. ValueError names arrays that cannot be compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from framefold.codecs.clip import Frames

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales, finest first (Wang, Simoncelli, Bovik 2003, section 4)."""
WINDOW = 11
SIGMA = 1.5
_C1 = (0.01 * 255) ** 2
_C2 = (0.03 * 255) ** 2


def psnr(a: Frames, b: Frames) -> float:
    """Mean over frames of 10 log10(255^2 / MSE of the frame), in dB; `math.inf` if all frames are equal.

    A frame without any error among frames with errors counts as if one of its samples were off by one: the
    best finite value that its size allows, so that one still frame does not make the whole clip infinite.
    """
    errors = [_squared_error(x, y) for x, y in _frame_pairs(a, b)]
    if not any(errors):
        return math.inf
    samples = a[0].size
    return sum(10 * math.log10(255**2 * samples / max(error, 1)) for error in errors) / len(errors)


def ms_ssim(a: Frames, b: Frames) -> float:
    """Mean MS-SSIM over frames, 0..1: per frame the mean over R, G and B, as pytorch_msssim 1.0 computes it.

    Window 11x11 Gaussian with sigma 1.5, no padding; 2x2 means between scales; K = (0.01, 0.03). All five
    scales need a smaller side of more than 160 pixels. Of a smaller picture as many scales are taken as still
    hold the window (81 to 160 pixels: four, 41 to 80: three, 21 to 40: two, fewer: one), their weights
    divided by their sum; below 11 pixels the window is cut to the largest odd size that fits.
    """
    weights = _weights(min(a.shape[-2:]))
    return sum(_ms_ssim_frame(_planes(x), _planes(y), weights) for x, y in _frame_pairs(a, b)) / len(a)


def _frame_pairs(a: Frames, b: Frames) -> Iterator[tuple[Frames, Frames]]:
    if a.shape != b.shape or a.dtype != np.uint8 or b.dtype != np.uint8:
        raise ValueError(f"cannot compare {a.dtype} {a.shape} with {b.dtype} {b.shape}: need equal uint8 shapes")
    if a.ndim != 4 or a.size == 0:
        raise ValueError(f"cannot compare frames of shape {a.shape}: (T, 3, H, W), none of them 0, is needed")
    return zip(a, b, strict=True)


def _squared_error(x: Frames, y: Frames) -> int:
    difference = x.astype(np.int32) - y.astype(np.int32)
    return int(np.square(difference).sum(dtype=np.int64))


def _weights(side: int) -> tuple[float, ...]:
    scales = max(n for n in range(1, 6) if n == 1 or side > (WINDOW - 1) * 2 ** (n - 1))
    kept = MS_SSIM_WEIGHTS[:scales]
    return kept if scales == len(MS_SSIM_WEIGHTS) else tuple(weight / sum(kept) for weight in kept)


def _planes(frame: Frames) -> Tensor:
    """(3, H, W) uint8 -> (3, 1, H, W) float32, one picture per colour plane."""
    return torch.from_numpy(frame.astype(np.float32))[:, None]


def _ms_ssim_frame(x: Tensor, y: Tensor, weights: tuple[float, ...]) -> float:
    product = torch.ones(x.shape[0])
    for scale, weight in enumerate(weights):
        ssim, contrast = _ssim(x, y)
        last = scale == len(weights) - 1
        product *= functional.relu(ssim if last else contrast) ** weight
        if not last:
            padding = [side % 2 for side in x.shape[2:]]
            x, y = (functional.avg_pool2d(plane, 2, padding=padding) for plane in (x, y))
    return product.mean().item()


def _ssim(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM and its contrast-structure factor, each (3,): means over the planes (3, 1, H, W)."""
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x, variance_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    contrast = (2 * covariance + _C2) / (variance_x + variance_y + _C2)
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    return (luminance * contrast).flatten(1).mean(1), contrast.flatten(1).mean(1)


def _blur(x: Tensor) -> Tensor:
    size = min(WINDOW, *(side - 1 + side % 2 for side in x.shape[2:]))
    offsets = torch.arange(size) - size // 2
    window = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    window /= window.sum()
    return functional.conv2d(functional.conv2d(x, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))
