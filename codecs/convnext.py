"""The encoder that tells `hnerv` what a frame's embedding is while a network is fitted; it is never stored.

Liu, Mao, Wu, Feichtenhofer, Darrell, Xie: A ConvNet for the 2020s (CVPR 2022), sections 2.4 to 2.6: its block, and its
way of making a map smaller.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

EXPANSION = 4
"""Hidden channels of a block, in those of its map."""
LAYER_SCALE = 1e-6
"""What a block adds at first, per channel."""


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each position; (B, channels, h, w) -> the same shape."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise, scale and shift."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class ConvNextBlock(nn.Module):
    """x + scale * mixed(x), with a depthwise 7x7 convolution and two 1x1; (B, channels, h, w) -> the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mixed = nn.Sequential(
            nn.Conv2d(channels, channels, 7, padding=3, groups=channels),
            ChannelNorm(channels, eps=1e-6),
            nn.Conv2d(channels, EXPANSION * channels, 1),
            nn.GELU(),
            nn.Conv2d(EXPANSION * channels, channels, 1),
        )
        self.scale = nn.Parameter(torch.full((channels, 1, 1), LAYER_SCALE))

    def forward(self, x: Tensor) -> Tensor:
        """Add what the block makes of `x`."""
        added: Tensor = self.scale * self.mixed(x)
        return x + added


class ConvNextEncoder(nn.Sequential):
    """Frames (B, inputs, h P, w P) to maps (B, channels[-1], h, w); P is the product of the strides.

    Per stride a convolution over patches without overlap, then a block. A norm comes before each such convolution,
    but after the first.
    """

    def __init__(self, strides: Sequence[int], channels: Sequence[int], *, inputs: int = 3) -> None:
        layers: list[nn.Module] = []
        for i, (stride, outputs) in enumerate(zip(strides, channels, strict=True)):
            smaller = nn.Conv2d(inputs, outputs, stride, stride=stride)
            norm = ChannelNorm(inputs if i else outputs, eps=1e-6)
            layers += [norm, smaller] if i else [smaller, norm]
            layers.append(ConvNextBlock(outputs))
            inputs = outputs
        super().__init__(*layers)
