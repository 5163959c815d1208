"""How many bits symbols will take, as a function that can be differentiated.

A symbol that will be rounded is described by its value plus uniform noise of its step's width, whose density at an
integer is the probability of that integer (Ballé, Laparra, Simoncelli 2017, "End-to-end optimized image
compression", section 3). The curve is a Laplace or a Gaussian one, whichever takes fewer bits, of the scale that the
values themselves have: as the stream stores a scale for each tensor, that is the rate to come. The scale is taken as
given by the gradient: at the best scale the rate does not change with it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LEAST_SCALE = 0.05
"""Steps; below it all but nothing is coded."""
LEAST_PROBABILITY = 2.0**-24


def estimated_bits(values: Tensor) -> Tensor:
    """Bits of all values (float, in steps, noise included) under the better of the two curves; a scalar."""
    laplace, gaussian = laplace_bits(values), gaussian_bits(values)
    return torch.where(laplace.detach() < gaussian.detach(), laplace, gaussian)


def laplace_bits(values: Tensor) -> Tensor:
    """Bits under the discretised Laplace curve around zero; a scalar."""
    scale = values.detach().abs().mean().clamp_min(LEAST_SCALE)
    near, far = values.abs() - 0.5, values.abs() + 0.5
    upper = 0.5 * torch.exp(-far / scale)
    beside = 0.5 * torch.exp(-near.clamp_min(0) / scale) - upper
    across = 1 - upper - 0.5 * torch.exp(near.clamp_max(0) / scale)
    return _bits(torch.where(near > 0, beside, across))


def gaussian_bits(values: Tensor) -> Tensor:
    """Bits under the discretised Gaussian curve around zero; a scalar."""
    scale = math.sqrt(2) * values.detach().square().mean().sqrt().clamp_min(LEAST_SCALE)
    magnitudes = values.abs()  # erfc is exact in its upper tail only
    tail = torch.special.erfc((magnitudes - 0.5) / scale) - torch.special.erfc((magnitudes + 0.5) / scale)
    return _bits(0.5 * tail)


def _bits(probabilities: Tensor) -> Tensor:
    return -torch.log2(probabilities + LEAST_PROBABILITY).sum()
