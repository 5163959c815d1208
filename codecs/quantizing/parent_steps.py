"""Whether a tensor takes the steps of its parent's: only integers of the same grid can be subtracted.

It does where that loses no more than its own grid would, and the difference takes fewer bits than the tensor would
alone. Weights that a fit has hardly moved are then the parent's integers again, and cost next to nothing; a grid far
finer than wanted would spend a bit for each halving on every weight that moved.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from framefold.codecs.network import FloatTensor, Parent, QuantizedTensor
from framefold.codecs.stream.symbol_models import MAX_SYMBOL

MOST_ERROR = 2 ** (1 / 4)
"""At most so many times the wanted grid's squared error: that of steps one place coarser on the grid of `steps`."""

Values = npt.NDArray[np.float64]


def on_parents_grid(
    tensor: FloatTensor, name: str, parent: Parent | None, wanted: FloatTensor
) -> QuantizedTensor | None:
    """Round a tensor on its parent's steps if that is as good as on the wanted ones, and costs less; else None.

    `wanted` are the steps that the tensor would have for itself: (1,), or one for each index of axis 0.
    """
    other = parent.tensors.get(name) if parent else None
    if other is None or other.symbols.shape != tensor.shape or not tensor.size:
        return None
    values, alone = tensor.astype(np.float64), _along(wanted, 0, tensor.ndim)
    steps = other.spread_steps.astype(np.float64)
    symbols = np.rint(values / steps)
    allowed = MOST_ERROR * float(np.mean(alone**2)) / 12  # of values that lie anywhere between two of the grid
    if np.mean((symbols * steps - values) ** 2) > allowed or np.abs(symbols).max() > MAX_SYMBOL:
        return None
    if _entropy_bits(symbols - other.symbols) >= _entropy_bits(np.rint(values / alone)):
        return None
    return QuantizedTensor(symbols=symbols.astype(np.int32), steps=other.steps, axis=other.axis)


def _along(steps: FloatTensor, axis: int, rank: int) -> Values:
    """Steps in a shape that goes with the tensor's."""
    shape = [1] * rank
    if steps.size > 1:
        shape[axis] = -1
    return steps.astype(np.float64).reshape(shape)


def _entropy_bits(symbols: Values) -> float:
    """Order-0 entropy of all symbols together; they are whole numbers."""
    _, counts = np.unique(symbols, return_counts=True)
    return float(np.sum(counts * np.log2(symbols.size / counts)))
