"""How every pair of weights moves the picture together: the Gauss-Newton matrix of a network, all of it.

`sensitivity` estimates its diagonal for networks of any size. The whole matrix has a number for each pair, so it is for
networks of a few thousand weights; it tells `joint_rounding` how other weights can make up for the rounding of one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.func import jacrev, vmap

Matrix = npt.NDArray[np.float64]
Draw = Callable[[Mapping[str, Tensor], Tensor], Tensor]
"""Parameters and one input (k,) to its samples (c,)."""

MAX_WEIGHTS = 4096
"""A larger matrix takes hundreds of megabytes, and its factorisation many seconds."""
SAMPLES_PER_WEIGHT = 8
"""Samples of the picture that are looked at, for each weight of the network."""
_BYTES_AT_ONCE = 2**26


def gauss_newton(draw: Draw, parameters: Mapping[str, Tensor], inputs: Tensor) -> Matrix:
    """Mean over all samples of the outer product of d sample / d weights, float64 (n, n).

    `inputs` is (m, k); the weights are in the order of `parameters`, each tensor flat. Weights that move by d raise the
    mean squared error of these samples by about d' G d (Martens 2020, "New Insights and Perspectives on the Natural
    Gradient Method", section 8).
    """
    weights = sum(parameter.numel() for parameter in parameters.values())
    total = torch.zeros(weights, weights, device=inputs.device)
    samples = 0
    for part in torch.split(inputs, max(1, _BYTES_AT_ONCE // (16 * weights))):
        rows = _gradients(draw, parameters, part)
        total.addmm_(rows.t(), rows)
        samples += len(rows)
    matrix: Matrix = total.cpu().numpy().astype(np.float64) / samples
    return matrix


def _gradients(draw: Draw, parameters: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """One row for each sample of each input: (m * c, n)."""
    by_name = vmap(jacrev(draw), in_dims=(None, 0))(dict(parameters), inputs)
    rows = torch.cat([by_name[name].flatten(2) for name in parameters], 2)
    return rows.flatten(0, 1).detach()


def spread_points(points: Tensor, weights: int, *, channels: int, seed: int = 0) -> Tensor:
    """Choose as many of the points (m, k) as are worth looking at for a network of so many weights."""
    wanted = -(-SAMPLES_PER_WEIGHT * weights // channels)
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))
    return points[order[:wanted].to(points.device)]
