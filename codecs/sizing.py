"""Sizes that follow from the frame: strides, widths for a parameter count, and what a network would cost.

Costs are measured by running the network on torch's `meta` device, which knows shapes but holds no memory:
one rule for all codecs, and a stranger's configuration is weighed before anything is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

MAX_PARAMETERS = 2**26
MAX_ACTIVATION_BYTES = 2**32


@dataclass(frozen=True)
class NetworkCost:
    """What evaluating one frame takes."""

    parameters: int
    """Scalar parameters."""
    activation_bytes: int
    """The largest input and output that one layer holds at the same time, float32."""


def frame_strides(height: int, width: int, short_side: int) -> tuple[int, ...]:
    """Up-sampling factors, coarse to fine, from a grid about `short_side` high (or wide) to the frame.

    Of the products of at most one 5, at most one 3 and any number of 2s, the one nearest (in ratio) to the
    frame's smaller side / `short_side` is taken, the shorter list if two are equally near. With `short_side`
    9 this gives NeRV's own 5, 2, 2, 2, 2 for 720p and 5, 3, 2, 2, 2 for 1080p. A frame no larger than the
    grid gets (1,).
    """
    factor = max(1.0, min(height, width) / short_side)
    heads: tuple[tuple[int, ...], ...] = ((), (5,), (3,), (5, 3))
    lists = [head + (2,) * twos for head in heads for twos in range(13)]
    nearest = min(lists, key=lambda strides: (abs(math.log(math.prod(strides) / factor)), len(strides)))
    return nearest or (1,)


def base_grid(height: int, width: int, strides: tuple[int, ...]) -> tuple[int, int]:
    """(h, w) of the coarsest grid: up-sampled by all strides it covers the frame, cropped from it."""
    product = math.prod(strides)
    return -(-height // product), -(-width // product)


def network_cost(build: Callable[[], nn.Module]) -> NetworkCost:
    """Measure what the network that `build` makes would cost; nothing is allocated."""
    largest = 0

    def record(_layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        nonlocal largest
        held = sum(x.numel() for x in (*inputs, output) if isinstance(x, Tensor))
        largest = max(largest, 4 * held)

    with torch.device("meta"), torch.inference_mode():
        network = build().eval()
        for module in network.modules():
            if not any(True for _ in module.children()):
                module.register_forward_hook(record)
        network(torch.zeros(1, dtype=torch.long))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return NetworkCost(parameters, largest)


def network_parameters(build: Callable[[], nn.Module]) -> int:
    """How many scalar parameters the network that `build` makes would have; nothing is allocated."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build().parameters())


def width_for(parameters: float, count: Callable[[int], int], *, smallest: int, largest: int) -> int:
    """Find the width, `smallest ... largest`, whose growing `count(width)` is nearest to `parameters`."""
    low, high = smallest, largest
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) <= parameters else (low, middle)
    return min((low, high), key=lambda width: abs(count(width) - parameters))
