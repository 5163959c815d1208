"""Which model codes a tensor in the fewest bits, parameters included: tried, not guessed.

Floating point is used freely here: only the encoder chooses, and the choice itself is written down.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from framefold.codecs.network import IntTensor
from framefold.codecs.probability_tables import (
    LEVELS_PER_OCTAVE,
    LOWEST_LEVEL,
    SCALE_COUNT,
    SCALE_OF_ONE,
    Family,
)
from framefold.codecs.symbol_models import RESOLUTIONS, SPIKES, Curve, Histogram, Model, Uniform
from framefold.codecs.varbits import BitWriter, exp_golomb_bits, fold

ESCAPE_ORDER = 8
"""Exp-Golomb order of an escaped symbol: 9 bits up to +-127, 25 bits at +-32767."""

_CODER_BITS = 24  # precision of constriction's probabilities
_WIDEST_HISTOGRAM = 1024
_HISTOGRAM_SETTINGS = ((0, 0), (0, 1), (1, 0), (1, 2), (2, 0))  # resolution, order; all 16 save 0.01 % more
_TAIL_SHARES = (0.0, 0.001)  # symbols at each end that a histogram may leave to the escape

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How often each symbol occurs."""

    values: IntArray
    """The distinct symbols, ascending; at least one."""
    counts: IntArray
    """How often each of them occurs, > 0."""

    @classmethod
    def of(cls, symbols: IntTensor) -> Counts:
        """Count the symbols of a non-empty tensor."""
        lowest = int(symbols.min())
        counts = np.bincount((symbols - lowest).ravel())
        present = np.flatnonzero(counts)
        return cls(values=present + lowest, counts=counts[present])

    @property
    def total(self) -> int:
        """How many symbols there are."""
        return int(self.counts.sum())

    @property
    def entropy_bits(self) -> float:
        """The order-0 entropy of all symbols together: no table can code them in less."""
        return float(self.counts @ np.log2(self.total / self.counts))

    def share_of(self, symbol: int) -> float:
        """How frequent one symbol is, 0..1."""
        return float(self.counts[self.values == symbol].sum() / self.total)


def choose_model(symbols: IntTensor) -> Model:
    """Find the cheapest model for a non-empty tensor of symbols within +-MAX_SYMBOL."""
    counts = Counts.of(symbols)
    best: Model = Uniform(lowest=int(counts.values[0]), symbol_count=int(counts.values[-1] - counts.values[0]) + 1)
    if counts.values.size == 1:
        return best
    best = min((best, *_curves(counts)), key=lambda model: cost_bits(model, counts))
    return min((best, *_histograms(counts, cost_bits(best, counts))), key=lambda model: cost_bits(model, counts))


def cost_bits(model: Model, counts: Counts) -> float:
    """Bits of parameters, of coded symbols and of escapes."""
    parameters = BitWriter()
    model.write(parameters)
    table = model.table()
    # constriction gives every bin 2**-24 and shares out the rest in proportion
    rest = 2**_CODER_BITS - table.weights.size
    bin_bits = _CODER_BITS - np.log2(table.weights * (rest / table.weights.sum()) + 1)
    index = counts.values - table.lowest
    known = (index >= 0) & (index < table.symbol_count)
    coded = counts.counts[known] @ bin_bits[index[known]]
    escape_bits = exp_golomb_bits(fold(counts.values[~known]), ESCAPE_ORDER) + bin_bits[-1]
    return float(parameters.bit_count + coded + counts.counts[~known] @ escape_bits)


# ---- curves: walk downhill over the scales, from where the moments point


def _curves(counts: Counts) -> Iterator[Curve]:
    nonzero = counts.values[counts.values != 0]
    hole = int(np.abs(nonzero).min()) - 1
    middle = int(counts.values[np.searchsorted(np.cumsum(counts.counts), counts.total / 2)])
    for family in ("laplace", "gaussian"):
        yield _fit_curve(counts, family=family)
        if hole:
            yield _fit_curve(counts, family=family, hole=hole)
        if middle and not hole:
            yield _fit_curve(counts, family=family, centre=middle)


def _fit_curve(counts: Counts, *, family: Family, centre: int = 0, hole: int = 0) -> Curve:
    @cache
    def candidate(scale: int) -> tuple[float, Curve]:
        plain = Curve(family=family, scale=min(max(scale, 0), SCALE_COUNT - 1), centre=centre, hole=hole)
        options = (plain, _with_spike(plain, counts))
        return min(((cost_bits(curve, counts), curve) for curve in options), key=lambda pair: pair[0])

    def nearest_best(scale: int, stride: int) -> int:
        return min((scale, scale - stride, scale + stride), key=lambda at: candidate(at)[0])

    scale = _first_scale(counts, family, centre)
    for stride in (8, 3, 1):
        while (better := nearest_best(scale, stride)) != scale:
            scale = better
    return candidate(scale)[1]


def _first_scale(counts: Counts, family: Family, centre: int) -> int:
    """Take the scale that the moments suggest: a half-life is ln 2 * E|x|, or sqrt(2 ln 2 * E x**2)."""
    distances = np.abs(counts.values - centre).astype(np.float64)
    if family == "laplace":
        half_life = np.log(2) * (counts.counts @ distances) / counts.total
    else:
        half_life = np.sqrt(2 * np.log(2) * (counts.counts @ distances**2) / counts.total)
    scale = SCALE_OF_ONE + round(8 * float(np.log2(max(half_life, 0.125))))
    return min(max(scale, 0), SCALE_COUNT - 1)


def _with_spike(curve: Curve, counts: Counts) -> Curve:
    """Give the curve as much extra weight on zero as the counts ask for."""
    table = curve.table()
    inside = table.lowest <= 0 < table.lowest + table.symbol_count
    given = table.weights[-table.lowest] / table.weights.sum() if inside else 0.0
    excess = (counts.share_of(0) - given) / (1 - given) if given < 1 else 0.0
    spike = min(max(round(SPIKES * float(excess)), 0), SPIKES - 1)
    return Curve(family=curve.family, scale=curve.scale, centre=curve.centre, hole=curve.hole, spike=spike)


# ---- histograms: the path of levels that costs least, table and payload together


def _histograms(counts: Counts, to_beat: float) -> Iterator[Histogram]:
    for lowest, highest in _supports(counts):
        shortest_table = highest - lowest + 20  # a bit for each level and the fields before them
        if counts.entropy_bits + shortest_table >= to_beat:
            continue
        dense = _dense_counts(counts, lowest, highest)
        for resolution, order in _HISTOGRAM_SETTINGS:
            yield _fit_histogram(dense, lowest=lowest, resolution=resolution, order=order)


def _supports(counts: Counts) -> list[tuple[int, int]]:
    """List the ranges of symbols, few and not too wide, that a histogram is tried with."""
    below = np.cumsum(counts.counts) / counts.total
    supports = []
    for share in _TAIL_SHARES:
        first = int(np.searchsorted(below, share, side="right"))
        last = int(np.searchsorted(below, 1 - share, side="left"))
        lowest, highest = int(counts.values[first]), int(counts.values[min(last, counts.values.size - 1)])
        if highest - lowest < _WIDEST_HISTOGRAM and (lowest, highest) not in supports:
            supports.append((lowest, highest))
    return supports


def _dense_counts(counts: Counts, lowest: int, highest: int) -> IntArray:
    """Count each symbol of lowest .. highest, and all others together."""
    dense = np.zeros(highest - lowest + 2, dtype=np.int64)
    inside = (counts.values >= lowest) & (counts.values <= highest)
    dense[counts.values[inside] - lowest] = counts.counts[inside]
    dense[-1] = counts.counts[~inside].sum()
    return dense


def _fit_histogram(dense: IntArray, *, lowest: int, resolution: int, order: int) -> Histogram:
    """Find the steps of least total cost, by the Viterbi algorithm over (symbol, level).

    Payload bits are sum(n * level) + N * log2(sum(2**-level)). The logarithm ties all symbols together; its
    tangent at Z = N / max(n), where the sum lies for an ideal table, bounds it from above and is separable.
    """
    octaves = RESOLUTIONS[resolution] / LEVELS_PER_OCTAVE
    deepest = min(round((np.log2(dense.max()) + 3) / octaves), LOWEST_LEVEL // RESOLUTIONS[resolution])
    levels = np.arange(deepest + 1)
    tangent = dense.max() / np.log(2) * np.exp2(-levels * octaves)
    payload = dense[:, None] * (levels * octaves) + tangent
    change = exp_golomb_bits(fold(levels[None, :] - levels[:, None]), order).astype(np.float64)
    steps = _cheapest_path(payload, exp_golomb_bits(levels, 4).astype(np.float64), change)
    return Histogram(lowest=lowest, resolution=resolution, order=order, steps=tuple(map(int, steps)))


def _cheapest_path(payload: FloatArray, start: FloatArray, change: FloatArray) -> IntArray:
    """Choose a level for each row of `payload` (symbols, levels) at least cost in all.

    `start` (levels,) is the cost of the first level, `change` (from, to) that of the next.
    """
    rows, levels = payload.shape
    origins = np.zeros((rows, levels), dtype=np.int64)
    so_far = start + payload[0]
    for row in range(1, rows):
        via = so_far[:, None] + change
        origins[row] = via.argmin(axis=0)
        so_far = via[origins[row], np.arange(levels)] + payload[row]
    path = np.empty(rows, dtype=np.int64)
    path[-1] = so_far.argmin()
    for row in range(rows - 1, 0, -1):
        path[row - 1] = origins[row, path[row]]
    return path
