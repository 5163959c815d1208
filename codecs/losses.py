"""What a fit minimises. The measures that are reported are in `metrics`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from framefold.codecs.base import Loss
from framefold.codecs.stored_samples import weighed


def weighed_loss_and_error(
    predictions: Sequence[Tensor], targets: Sequence[Tensor], shares: Sequence[float], loss: Loss
) -> tuple[Tensor, Tensor]:
    """Give `loss_and_error` of pictures whose planes, of other sizes each, hold these shares of their samples."""
    found = [loss_and_error(*pair, loss) for pair in zip(predictions, targets, strict=True)]
    return weighed([each for each, _ in found], shares), weighed([error for _, error in found], shares)


def loss_and_error(prediction: Tensor, target: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """Give (loss to minimise, mean squared error without gradient), scalars, of (B, C, H, W), 0..1.

    `l1_ssim` is NeRV's 0.7 L1 + 0.3 (1 - SSIM) (section 3.1), with a 5x5 window, which costs less than 11x11.
    """
    if loss == "l2":
        squared = functional.mse_loss(prediction, target)
        return squared, squared.detach()
    absolute = functional.l1_loss(prediction, target)
    if loss == "l1_ssim":
        absolute = 0.7 * absolute + 0.3 * (1 - ssim(prediction, target))
    return absolute, functional.mse_loss(prediction.detach(), target)


def ssim(x: Tensor, y: Tensor, window: int = 5, sigma: float = 1.0) -> Tensor:
    """Mean structural similarity, a scalar, of (B, C, H, W), 0..1; the window is cut to the picture."""
    size = min(window, *(side - 1 + side % 2 for side in x.shape[2:]))
    weights = torch.exp(-((torch.arange(size, device=x.device) - size // 2) ** 2) / (2 * sigma**2))
    kernel = torch.outer(weights, weights)[None, None] / weights.sum() ** 2

    def blur(z: Tensor) -> Tensor:
        return functional.conv2d(z.flatten(0, 1)[:, None], kernel)

    mean_x, mean_y = blur(x), blur(y)
    spread = blur(x * x) + blur(y * y) - mean_x**2 - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)
    return (luminance * (2 * covariance + 9e-4) / (spread + 9e-4)).mean()
