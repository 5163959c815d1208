"""Adam for parameters of which most matter little: it leaves their noise as small as it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

MEMORY = 0.99
"""Share of the mean square that is kept from one step to the next."""


class FloorAdam(torch.optim.Adam):
    """Adam (Kingma, Ba 2015, algorithm 1) whose epsilon, in groups that have a `floor`, follows their gradients.

    Adam divides each gradient by the root of its own mean square, and so lets every parameter move as far as the
    learning rate says, also one whose gradient is but noise. In a group with `floor` f > 0 epsilon is the root of f
    times the mean square of all gradients of the group that are there: what is small beside the others moves little.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], *, betas: tuple[float, float]) -> None:
        """`groups`: as torch takes them, each with a `floor`, 0 for plain Adam."""
        super().__init__(groups, betas=betas, eps=1e-10, fused=True)
        self._floored = [group for group in self.param_groups if group["floor"] > 0]
        self._sums = [(0.0, 0.0)] * len(self._floored)

    @property
    def mean_squares(self) -> list[float]:
        """What epsilons follow from, and all that is remembered of it: two sums per floored group, in their order."""
        return [value for sums in self._sums for value in sums]

    @mean_squares.setter
    def mean_squares(self, values: Sequence[float]) -> None:
        if len(values) != 2 * len(self._floored):
            raise ValueError(f"the state has {len(values)} sums of squares; needed are {2 * len(self._floored)}")
        self._sums = list(zip(values[::2], values[1::2], strict=True))

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step; parameters without a gradient stay as they are."""
        for index, group in enumerate(self._floored):
            gradients = [parameter.grad for parameter in group["params"] if parameter.grad is not None]
            if gradients:
                self._sums[index] = _added(self._sums[index], _mean_square(gradients))
                total, weight = self._sums[index]
                group["eps"] = max(1e-10, math.sqrt(group["floor"] * total / weight))
        super().step(closure)


def _added(sums: tuple[float, float], value: float) -> tuple[float, float]:
    total, weight = sums
    return MEMORY * total + (1 - MEMORY) * value, MEMORY * weight + (1 - MEMORY)


def _mean_square(gradients: Sequence[Tensor]) -> float:
    squares = torch.stack([gradient.square().mean() for gradient in gradients])
    return float(squares.mean())
