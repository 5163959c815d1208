"""The best stored histograms for an array: levels rounded from its counts, or the cheapest path over all levels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from framefold.codecs.stream.probability_tables import LEVELS_PER_OCTAVE, LOWEST_LEVEL
from framefold.codecs.stream.symbol_counts import Counts
from framefold.codecs.stream.symbol_models import RESOLUTIONS, Histogram
from framefold.codecs.stream.varbits import exp_golomb_bits, fold

_WIDEST = 1024
_TAIL_SHARES = (0.0, 0.001)  # symbols at each end that a histogram may leave to the escape
_ORDERS = range(4)
_PATH_MARGIN = 1.01
_PATH_WORK = 2**20

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A histogram and about what it costs, its side information and the escaped symbols not quite counted."""

    dense: IntArray
    """How often the symbols from `lowest` on occur; the last one is all others together."""
    lowest: int
    resolution: int
    order: int
    levels: IntArray
    cost: float

    def histogram(self) -> Histogram:
        """As a model."""
        steps = tuple(self.levels.tolist())
        return Histogram(lowest=self.lowest, resolution=self.resolution, order=self.order, steps=steps)


def histograms(counts: Counts, to_beat: float) -> Iterator[Histogram]:
    """List the histograms that may cost less than `to_beat` bits.

    Rounded levels cost little more than the cheapest path, which is looked for where it may decide.
    """
    drafts = [_rounded(dense, lowest) for dense, lowest in _supports(counts, to_beat)]
    drafts = [draft for draft in drafts if draft.cost < _PATH_MARGIN * to_beat + 64]
    for draft in drafts:
        levels = _level_count(draft.dense, draft.resolution)
        yield draft.histogram() if draft.dense.size * levels**2 > _PATH_WORK else _cheapest_path(draft, levels)


def _supports(counts: Counts, to_beat: float) -> Iterator[tuple[IntArray, int]]:
    """List the ranges of symbols, few and not too wide, that a histogram is tried with."""
    below = np.cumsum(counts.counts) / counts.total
    seen = set()
    for share in _TAIL_SHARES:
        first = int(np.searchsorted(below, share, side="right"))
        last = int(np.searchsorted(below, 1 - share, side="left"))
        lowest, highest = int(counts.values[first]), int(counts.values[min(last, counts.values.size - 1)])
        shortest = counts.entropy_bits + highest - lowest + 20  # a bit for each level and the fields before them
        if highest - lowest < _WIDEST and shortest < to_beat and (lowest, highest) not in seen:
            seen.add((lowest, highest))
            dense = counts.dense(lowest, highest)
            yield np.append(dense, counts.total - dense.sum()), lowest


def _rounded(dense: IntArray, lowest: int) -> Draft:
    """The best of all resolutions and orders, each level rounded for itself."""
    drafts = []
    ideal = LEVELS_PER_OCTAVE * np.log2(dense.max() / np.maximum(dense, 0.25))
    for resolution, step in enumerate(RESOLUTIONS):
        levels = np.minimum(np.rint(ideal / step).astype(np.int64), LOWEST_LEVEL // step)
        octaves = levels * (step / LEVELS_PER_OCTAVE)
        payload = float(dense @ octaves + dense.sum() * np.log2(np.exp2(-octaves).sum()))
        changes = fold(np.diff(levels))
        tables = [float(exp_golomb_bits(changes, order).sum()) + 20 for order in _ORDERS]
        order = int(np.argmin(tables))
        cost = payload + tables[order]
        drafts.append(Draft(dense=dense, lowest=lowest, resolution=resolution, order=order, levels=levels, cost=cost))
    return min(drafts, key=lambda draft: draft.cost)


def _level_count(dense: IntArray, resolution: int) -> int:
    octaves = RESOLUTIONS[resolution] / LEVELS_PER_OCTAVE
    return min(round((float(np.log2(dense.max())) + 3) / octaves), LOWEST_LEVEL // RESOLUTIONS[resolution]) + 1


def _cheapest_path(draft: Draft, level_count: int) -> Histogram:
    """Find the steps of least total cost, by the Viterbi algorithm over (symbol, level).

    Payload bits are sum(n * level) + N * log2(sum(2**-level)). The logarithm ties all symbols together; its
    tangent at Z = N / max(n), where the sum lies for an ideal table, bounds it from above and is separable.
    """
    octaves = RESOLUTIONS[draft.resolution] / LEVELS_PER_OCTAVE
    levels = np.arange(level_count)
    tangent = draft.dense.max() / np.log(2) * np.exp2(-levels * octaves)
    payload = draft.dense[:, None] * (levels * octaves) + tangent
    change = exp_golomb_bits(fold(levels[None, :] - levels[:, None]), draft.order).astype(np.float64)
    steps = _viterbi(payload, exp_golomb_bits(levels, 4).astype(np.float64), change)
    return Histogram(lowest=draft.lowest, resolution=draft.resolution, order=draft.order, steps=tuple(steps.tolist()))


def _viterbi(payload: FloatArray, start: FloatArray, change: FloatArray) -> IntArray:
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
