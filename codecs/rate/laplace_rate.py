"""What the symbols of a feature grid will take, told from their neighbours in space and time.

A symbol is described by a Laplace curve whose middle is a linear combination of its neighbours and whose scale is one
of their errors, as in the coder of the stream (`stream.neighbours`), only smoother: neighbours are the nine around
the same place one node before, and the four of its own node that the coder knows by then.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from framefold.codecs.rate.rate_model import LEAST_PROBABILITY

LEAST_SCALE = 0.01
"""Steps."""
_AROUND = tuple((down, right) for down in range(3) for right in range(3))
TAPS = tuple((0, *place) for place in _AROUND) + tuple((1, *place) for place in _AROUND[:4])
"""Neighbours: (0 in the node before, 1 in its own; rows and columns from one above and one to the left)."""


class SpaceTimeRate(nn.Module):
    """The rate of one grid's nodes, (C, h, w) each; 28 parameters that are learned and not stored."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(len(TAPS)))
        self.mean.data[TAPS.index((0, 1, 1))] = 1  # at first a place is taken for what it was before
        self.spread = nn.Parameter(torch.full((len(TAPS),), -3.0))
        self.floor = nn.Parameter(torch.tensor(-4.0))
        self.level = nn.Parameter(torch.tensor(0.0))

    def bits(self, values: Tensor, before: Tensor) -> Tensor:
        """Bits of a node (C, h, w), in steps, noise included, after the node `before`; a scalar.

        The gradient is that of the values themselves: what they tell of others is left out, which halves the time.
        """
        with torch.no_grad():
            mean, scale = self._curves(values, before)
        bits: Tensor = _LaplaceBits.apply(values, mean, scale)  # type: ignore[no-untyped-call]
        return bits

    def learning_bits(self, values: Tensor, before: Tensor) -> Tensor:
        """The same as a function of this module's own parameters."""
        mean, scale = self._curves(values.detach(), before.detach())
        far, near = ((values.detach() - mean).abs() + side for side in (0.5, -0.5))
        upper = torch.exp(-far / scale)
        probability = torch.where(
            near > 0, torch.exp(-near.clamp_min(0) / scale) - upper, 2 - upper - torch.exp(near.clamp_max(0) / scale)
        )
        return -torch.log2(0.5 * probability + LEAST_PROBABILITY).sum()

    def _curves(self, values: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        mean = _weighed(before, values, self.mean)
        error = (values - mean.detach()).abs()
        local = _weighed(before.abs(), error, nn.functional.softplus(self.spread))
        channel = nn.functional.softplus(self.level) * error.mean((1, 2), keepdim=True)
        return mean, local + channel + nn.functional.softplus(self.floor) + LEAST_SCALE


def _weighed(before: Tensor, own: Tensor, weights: Tensor) -> Tensor:
    """Sum over `TAPS` of weight times neighbour, (C, h, w); zeros outside.

    On large nodes a convolution of one channel to one takes three times as long.
    """
    padded = [nn.functional.pad(node, (1, 1, 1, 1)) for node in (before, own)]
    height, width = own.shape[1:]
    total = torch.zeros_like(own)
    for weight, (node, down, right) in zip(weights, TAPS, strict=True):
        total = torch.addcmul(total, padded[node][:, down : down + height, right : right + width], weight)
    return total


class _LaplaceBits(torch.autograd.Function):
    """-log2 of the Laplace curve's integral over a step around each value, summed; its slope is worked out at once."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        error, inverse = values - mean, scale.reciprocal()
        distance = error.abs()
        far, near = torch.exp(-(distance + 0.5) * inverse), torch.exp(-(distance - 0.5).abs() * inverse)
        probability = torch.where(distance > 0.5, near - far, 2 - near - far).mul_(0.5).add_(LEAST_PROBABILITY)
        slope = (near - far).mul_(inverse).div_(probability).mul_(error.sign_()).mul_(0.5 / math.log(2))
        ctx.save_for_backward(slope)
        return -torch.log2(probability).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return gradients[0] * slope, None, None
