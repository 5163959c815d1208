"""Which neighbours predict an array, and with which weights: least squares, one neighbour after the other.

Floating point is used freely: only the encoder chooses, and the weights themselves are written down.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from framefold.codecs.network import IntTensor
from framefold.codecs.stream.neighbour_contexts import overlap
from framefold.codecs.stream.neighbours import MAX_WEIGHT, OFFSETS, PARENT, UNIT, Neighbour, Offset

FloatArray = npt.NDArray[np.float64]

NEIGHBOUR_BITS = 9
"""About what a neighbour costs."""
SAMPLE = 2**16
"""Symbols that the fit looks at."""


def fit_prediction(symbols: IntTensor, parent: IntTensor | None) -> tuple[Neighbour, ...]:
    """The neighbours that are worth their bits, for int32 symbols (a, b, h, w)."""
    count = symbols.size
    symbols, parent = _cropped(symbols), None if parent is None else _cropped(parent)
    rows = sampled_rows(symbols)
    numbers = [number for number, offset in enumerate(OFFSETS) if fits(offset, symbols.shape)]
    columns = [lagged(symbols, rows, OFFSETS[number]) for number in numbers]
    if parent is not None:
        numbers.append(PARENT)
        columns.append(parent[rows].astype(np.float32).reshape(-1))
    columns.append(symbols[rows].astype(np.float32).reshape(-1))
    stacked = np.stack(columns)
    weights = forward_selection((stacked @ stacked.T).astype(np.float64), count)
    rounded = {numbers[place]: round(UNIT * weight) for place, weight in sorted(weights.items())}
    return tuple(
        Neighbour(number=number, weight=min(max(weight, -MAX_WEIGHT), MAX_WEIGHT), energy=0)
        for number, weight in rounded.items()
        if weight
    )


def _cropped(array: IntTensor) -> IntTensor:
    """The beginning of an array whose rows are too long to look at all of."""
    for axis in (2, 3, 1):
        if (size := array[0].size) > 4 * SAMPLE:
            array = array[(slice(None),) * axis + (slice(max(array.shape[axis] * 4 * SAMPLE // size, 1)),)]
    return array


def fits(offset: Offset, shape: tuple[int, ...]) -> bool:
    """Whether an array of this shape has neighbours so far apart."""
    return all(abs(back) < side for back, side in zip(offset, shape, strict=True))


def sampled_rows(symbols: IntTensor) -> npt.NDArray[np.intp]:
    """Indices along the first axis that hold about SAMPLE symbols, evenly spread."""
    count = symbols.shape[0]
    wanted = max(1, min(count, SAMPLE // max(symbols[0].size, 1)))
    rows: npt.NDArray[np.intp] = np.arange(wanted) * count // wanted
    return rows


def lagged(symbols: IntTensor, rows: npt.NDArray[np.intp], offset: Offset) -> npt.NDArray[np.float32]:
    """The neighbours of the sampled rows, float32 flat, 0 outside the array."""
    out = np.zeros((rows.size, *symbols.shape[1:]), dtype=np.float32)
    first = int(np.searchsorted(rows, offset[0]))
    here, there = overlap((0, *offset[1:]), (rows.size - first, *symbols.shape[1:]))
    out[first:][here] = symbols[rows[first:] - offset[0]][there]
    return out.reshape(-1)


def forward_selection(gram: FloatArray, count: int) -> dict[int, float]:
    """Take predictors one by one while each saves more than it costs; their weights by place.

    `gram` (n + 1, n + 1) holds the inner products of the predictors and, last, of what is predicted. Sweeping a
    predictor (Goodnight 1979) leaves what it does not explain of all others.
    """
    swept = gram.copy()
    taken: list[int] = []
    ridge = 1e-6 * np.trace(gram) / len(gram) + 1e-9
    for _ in range(len(gram) - 1):
        free = np.diag(swept)[:-1]
        usable = free > 1e-3 * np.diag(gram)[:-1] + ridge
        gains = np.where(usable, swept[:-1, -1] ** 2 / np.maximum(free, ridge), 0)
        gains[taken] = 0
        best, left = int(gains.argmax()), max(float(swept[-1, -1]), ridge)
        if 0.5 * count * np.log2(left / max(left - gains[best], ridge)) < NEIGHBOUR_BITS:
            break
        taken.append(best)
        _sweep(swept, best)
    return {place: float(swept[place, -1]) for place in taken}


def _sweep(matrix: FloatArray, at: int) -> None:
    row = matrix[at] / matrix[at, at]
    column, pivot = matrix[:, at].copy(), matrix[at, at]
    matrix -= np.outer(column, row)
    matrix[at], matrix[:, at] = row, -column / pivot
    matrix[at, at] = 1 / pivot
