"""Layers shared by two or more codecs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from framefold.codecs.pruning.channels import ChannelGroup, Places


class UpBlock(nn.Module):
    """The NeRV block: convolution, pixel shuffle, activation (NeRV, section 3.1).

    `(B, inputs, h, w) -> (B, outputs, h * stride, w * stride)`. The convolution runs before the picture
    grows, so it costs stride^2 times less than one that runs after.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, kernel: int, activation: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs * stride**2, kernel, padding=kernel // 2)
        self.shuffle = nn.PixelShuffle(stride)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h * stride, w * stride)."""
        shuffled: Tensor = self.shuffle(self.conv(x))
        activated: Tensor = self.activation(shuffled)
        return activated


def up_group(size: str, block: str, outputs: int, stride: int, read_by: Places) -> ChannelGroup:
    """Give the output channels of the `UpBlock` called `block`: each owns stride^2 rows of its convolution."""
    rows = (Places(f"{block}.conv.weight", per=stride**2), Places(f"{block}.conv.bias", per=stride**2))
    return ChannelGroup(size=size, channels=outputs, layer=block, made_by=rows, read_by=read_by)


def begin_evenly(module: nn.Module) -> None:
    """Let a convolution give values about as large as it gets (He et al. 2015, section 2.2); for `Module.apply`.

    As torch begins, each block gives about half of what it gets, and what tells frames apart is lost on the way.
    """
    if isinstance(module, nn.Conv2d) and module.bias is not None:
        nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
        nn.init.zeros_(module.bias)


class TimeGrid(nn.Module):
    """A feature map for some moments of the clip, linear in between (as in FFNeRV).

    `nodes` maps (nodes, channels, h, w) lie evenly over `frames` frames, the first on the first frame and the
    last on the last. Fewer nodes than frames store what changes slowly.
    """

    def __init__(self, frames: int, nodes: int, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.nodes_per_frame = (nodes - 1) / max(1, frames - 1)
        self.maps = nn.Parameter(0.1 * torch.randn(nodes, channels, height, width))

    def forward(self, indices: Tensor) -> Tensor:
        """LongTensor (B,) -> (B, channels, h, w)."""
        nodes = torch.arange(len(self.maps), device=indices.device)
        positions = indices * self.nodes_per_frame
        # Hat functions as a matrix: unlike a gather's, its gradient is one product and the same on every run.
        weights = (1 - (positions[:, None] - nodes).abs()).clamp(min=0).to(self.maps.dtype)
        return (weights @ self.maps.flatten(1)).view(-1, *self.maps.shape[1:])


def positional_encoding(frames: int, base: float, levels: int) -> Tensor:
    """Row i: sin and cos of `base**k * pi * i / frames`, k = 0 ... levels - 1; (frames, 2 * levels) float32.

    Equation 1 of NeRV. The phases reach 1e8, where float32 has no fraction left: float64 computes them.
    """
    times = torch.arange(frames, dtype=torch.float64) / frames
    rates = base ** torch.arange(levels, dtype=torch.float64) * torch.pi
    phases = times[:, None] * rates
    return torch.cat((phases.sin(), phases.cos()), dim=1).float()
