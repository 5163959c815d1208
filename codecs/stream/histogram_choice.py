"""The best stored histograms for an array: levels rounded from its counts, or the cheapest path over all levels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from framefold.codecs.stream.curve_costs import escape_bits
from framefold.codecs.stream.probability_tables import LEVELS_PER_OCTAVE, LOWEST_LEVEL
from framefold.codecs.stream.symbol_counts import Counts
from framefold.codecs.stream.symbol_models import RESOLUTIONS, Histogram
from framefold.codecs.stream.varbits import exp_golomb_bits, fold, golomb_bits, signed_bits

_WIDEST = 1024
_TAIL_SHARES = (0.0, 0.001)  # symbols at each end that a histogram may leave to the escape
_ORDERS = range(4)
_PATH_MARGIN = 1.01
_PATH_WORK = 2**20
_LEVEL_BITS = 3  # that a level takes at least, nearly always, if no path is looked for
_HELD_BITS = 2  # that a change of levels costs, about
_FIELD_BITS = 20  # before the changes, about

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Draft:
    """A histogram and about what it costs, its side information and the escaped symbols not quite counted."""

    dense: IntArray
    """How often the symbols from `lowest` on occur; the last one is all others together."""
    lowest: int
    resolution: int
    order: int
    levels: IntArray
    cost: float

    @property
    def level_count(self) -> int:
        """How many levels a path may go through."""
        step = RESOLUTIONS[self.resolution]
        wanted = round((float(np.log2(self.dense.max())) + 3) / (step / LEVELS_PER_OCTAVE))
        return min(wanted, LOWEST_LEVEL // step) + 1

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
        yield _cheapest_path(draft) if draft.dense.size * draft.level_count**2 <= _PATH_WORK else draft.histogram()


def held_histograms(counts: Counts, to_beat: float) -> Iterator[tuple[Histogram, float]]:
    """List those that may cost less than `to_beat` bits, and their costs; with little effort.

    Two thirds of what the cheapest path saves beside rounded levels is saved by not changing them too often.
    """
    for dense, lowest in _supports(counts, to_beat, level_bits=_LEVEL_BITS):
        rounded = _rounded(dense, lowest)
        draft = min(rounded, _priced(dense, lowest, rounded.resolution, _held(rounded)), key=_cost)
        fields = _field_bits(lowest, dense.size - 1, int(draft.levels[0]))
        escapes = _escapes(counts, lowest, lowest + dense.size - 2)
        yield draft.histogram(), draft.cost + fields - _FIELD_BITS + escapes


def parameter_bits(histogram: Histogram) -> int:
    """Bits that it takes to write a histogram down."""
    levels = np.array(histogram.steps)
    changes = _change_bits()[histogram.order, levels[1:] - levels[:-1]]
    return _field_bits(histogram.lowest, levels.size - 1, int(levels[0])) + int(changes.sum())


def _field_bits(lowest: int, symbol_count: int, level: int) -> int:
    """Bits of all before the changes of the levels."""
    return 6 + signed_bits(lowest, order=6) + golomb_bits(symbol_count - 1, order=6) + golomb_bits(level, order=4)


def _escapes(counts: Counts, lowest: int, highest: int) -> int:
    """Bits in the model section of all symbols that are not among these."""
    outside = (counts.values < lowest) | (counts.values > highest)
    return int(counts.counts[outside] @ escape_bits(counts.values[outside]))


def _held(draft: Draft) -> IntArray:
    """Levels that stay as they are for as long as this costs less than _HELD_BITS: n / 2 * ln 2 * (octaves off)**2."""
    ideal = _ideal_levels(draft.dense, draft.resolution)
    octaves = np.sqrt(_HELD_BITS / (np.log(2) / 2 * np.maximum(draft.dense, 0.25)))
    off = np.maximum(octaves * LEVELS_PER_OCTAVE / RESOLUTIONS[draft.resolution], 0.5)
    levels = draft.levels.tolist()
    for place, (lowest, highest) in enumerate(zip((ideal - off).tolist(), (ideal + off).tolist(), strict=True)):
        if place and lowest <= levels[place - 1] <= highest:
            levels[place] = levels[place - 1]
    return np.array(levels)


def _supports(counts: Counts, to_beat: float, *, level_bits: int = 1) -> Iterator[tuple[IntArray, int]]:
    """List the ranges of symbols, few and not too wide, that a histogram is tried with.

    Each level takes at least `level_bits`, and there are the fields before them.
    """
    if counts.entropy_bits + _FIELD_BITS >= to_beat:
        return
    below = counts.below / counts.total
    seen = set()
    for share in _TAIL_SHARES:
        first = int(np.searchsorted(below, share, side="right"))
        last = int(np.searchsorted(below, 1 - share, side="left"))
        lowest, highest = int(counts.values[first]), int(counts.values[min(last, counts.values.size - 1)])
        shortest = counts.entropy_bits + level_bits * (highest - lowest) + _FIELD_BITS
        if highest - lowest < _WIDEST and shortest < to_beat and (lowest, highest) not in seen:
            seen.add((lowest, highest))
            dense = counts.dense(lowest, highest)
            yield np.append(dense, counts.total - dense.sum()), lowest


def _rounded(dense: IntArray, lowest: int) -> Draft:
    """The best of all resolutions and orders, each level rounded for itself."""
    drafts = []
    for resolution, step in enumerate(RESOLUTIONS):
        levels = np.rint(_ideal_levels(dense, resolution)).astype(np.int64)
        drafts.append(_priced(dense, lowest, resolution, np.minimum(levels, LOWEST_LEVEL // step)))
    return min(drafts, key=_cost)


def _ideal_levels(dense: IntArray, resolution: int) -> FloatArray:
    """Levels that are not whole numbers; a symbol that does not occur counts as a quarter of one."""
    octaves = np.log2(dense.max() / np.maximum(dense, 0.25))
    return np.asarray(octaves * (LEVELS_PER_OCTAVE / RESOLUTIONS[resolution]))


def _priced(dense: IntArray, lowest: int, resolution: int, levels: IntArray) -> Draft:
    """The order that suits these levels, and what they cost."""
    octaves = levels * (RESOLUTIONS[resolution] / LEVELS_PER_OCTAVE)
    payload = float(dense @ octaves + dense.sum() * np.log2(np.exp2(-octaves).sum()))
    tables = _change_bits()[:, levels[1:] - levels[:-1]].sum(axis=1)
    order = int(tables.argmin())
    cost = payload + float(tables[order]) + _FIELD_BITS
    return Draft(dense=dense, lowest=lowest, resolution=resolution, order=order, levels=levels, cost=cost)


def _cost(draft: Draft) -> float:
    return draft.cost


@cache
def _change_bits() -> IntArray:
    """Bits of a change of levels at each order, (orders, changes); negative ones counted from the end."""
    changes = fold(np.r_[0 : LOWEST_LEVEL + 1, -LOWEST_LEVEL:0])
    return np.array([exp_golomb_bits(changes, order) for order in _ORDERS])


def _cheapest_path(draft: Draft) -> Histogram:
    """Find the steps of least total cost, by the Viterbi algorithm over (symbol, level).

    Payload bits are sum(n * level) + N * log2(sum(2**-level)). The logarithm ties all symbols together; its
    tangent at Z = N / max(n), where the sum lies for an ideal table, bounds it from above and is separable.
    """
    levels = np.arange(draft.level_count)
    octaves = levels * (RESOLUTIONS[draft.resolution] / LEVELS_PER_OCTAVE)
    tangent = draft.dense.max() / np.log(2) * np.exp2(-octaves)
    costs = draft.dense[:, None] * octaves + tangent
    costs[0] += exp_golomb_bits(levels, 4)
    change = _change_bits()[draft.order, levels - levels[:, None]].astype(np.float64)
    return replace(draft, levels=_viterbi(costs, change)).histogram()


def _viterbi(costs: FloatArray, change: FloatArray) -> IntArray:
    """Choose a level for each row of `costs` (symbols, levels) at least cost in all.

    `change` (from, to) is the cost of the next level after one.
    """
    so_far, via = costs.copy(), np.empty_like(change)
    for before, here in pairwise(so_far):
        np.add(before[:, None], change, out=via)
        np.add(here, np.minimum.reduce(via, axis=0), out=here)
    path = [int(so_far[-1].argmin())]
    for before in so_far[-2::-1]:  # to look for each origin now takes less time than to find all of them above
        path.append(int((before + change[:, path[-1]]).argmin()))
    return np.array(path[::-1])
