"""The best curves for an array: bits of every symbol under all scales that may do, times how often each occurs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import isqrt, log, log2, sqrt

import numpy as np

from framefold.codecs.stream.curve_costs import (
    ALL_SCALES,
    FloatArray,
    bits_under_curves,
    scale_bits,
    shares_around_zero,
    symbol_bits,
)
from framefold.codecs.stream.probability_tables import FAMILIES, SCALE_COUNT, SCALE_OF_ONE
from framefold.codecs.stream.symbol_counts import Counts, IntArray
from framefold.codecs.stream.symbol_models import SPIKES, Curve
from framefold.codecs.stream.varbits import golomb_bits, signed_bits

_BLOCK = 2**12
"""Symbols looked at together: bounds the memory."""
_FEW = 2**8
"""So few symbols are tried with all scales, however large they are."""
_MARGIN = 4
"""Scales on both sides of those that are likely; few symbols may lie farther off."""

Priced = tuple[Curve, float]
"""A curve, and what it and the symbols take in bits: exactly if it is plain; else outliers may be off by some bits."""


def plain_curve(counts: Counts, near: int) -> Curve:
    """The best curve that is nothing but a scale."""
    return plain(counts, near, scales=_scales(counts, 0))[0]


def curves(counts: Counts, near: int | None) -> Iterator[Priced]:
    """List the few curves that may be the cheapest for these counts of at least two symbols, first a plain one."""
    yield plain(counts, near, scales=_scales(counts, 0))
    yield from shaped_curves(counts, near, scales=_scales(counts, 0))
    if counts.middle:
        moved, cost = plain(counts, near, centre=counts.middle, scales=_scales(counts, counts.middle))
        yield moved, cost
        if counts.around_zero[0]:
            yield _spiked(counts, near, moved)


def _scales(counts: Counts, centre: int) -> slice:
    """All where a matrix is kept or symbols are few, else those that are likely."""
    if counts.reach is not None or counts.values.size <= _FEW:
        return ALL_SCALES
    others = counts.total - counts.around_zero[0]
    return likely_scales(counts, int(counts.counts @ (counts.values - centre) ** 2) / others)


def likely_scales(counts: Counts, square: float) -> slice:
    """From the scale of half the spread of the quartiles, which know nothing of outliers, to that of the mean square.

    A half-life is the median of distances if they are Laplace, sqrt(2 ln 2 * E x**2) if they are Gaussian.
    """
    first, _, third = counts.quartiles
    inner = _scale_of((third - first) / 2)
    outer = max(_scale_of(sqrt(2 * log(2) * square)), inner)
    margin = _MARGIN + isqrt(256 // counts.total)
    return slice(max(inner - margin, 0), min(outer + margin + 1, SCALE_COUNT))


def _scale_of(half_life: float) -> int:
    """The scale of a half-life in symbols, as near as there is one."""
    scale = SCALE_OF_ONE + round(8 * log2(max(half_life, 0.125)))
    return min(max(scale, 0), SCALE_COUNT - 1)


def plain(counts: Counts, near: int | None, *, centre: int = 0, scales: slice = ALL_SCALES) -> Priced:
    """The best curve of these scales around a centre."""
    costs = _symbol_costs(counts.values - centre, counts.counts, counts.reach, scales)
    curve, cost = _best(costs + scale_bits(near)[scales], scales)
    curve = replace(curve, centre=centre) if centre else curve
    return curve, cost + _shape_bits(curve)


def _symbol_costs(symbols: IntArray, times: IntArray, reach: int | None, scales: slice) -> FloatArray:
    """Bits of ascending symbols, each so many times, under plain curves, (families, scales)."""
    if symbols.size > _BLOCK:
        first = _symbol_costs(symbols[:_BLOCK], times[:_BLOCK], reach, scales)
        return first + _symbol_costs(symbols[_BLOCK:], times[_BLOCK:], reach, scales)
    bits = bits_under_curves(symbols, reach, scales)
    return np.asarray((times @ bits.reshape(times.size, -1)).reshape(bits.shape[1:]))


def shaped_curves(counts: Counts, near: int | None, *, scales: slice = ALL_SCALES) -> Iterator[Priced]:
    """The best curves with a spike if zero occurs, a hole if the symbols nearest to zero do not."""
    zeros, hole = counts.around_zero
    if hole:
        yield _shaped(counts, near, zeros, hole, scales)
    if zeros:
        yield _shaped(counts, near, zeros, 0, scales)


def _shaped(counts: Counts, near: int | None, zeros: int, hole: int, scales: slice) -> Priced:
    others = np.where(counts.values == 0, 0, counts.counts)
    zero, cut = shares_around_zero(hole, scales)
    whole = np.maximum(1 - cut, 1e-9)  # what the hole leaves
    share = np.minimum(zero / whole, 1 - 1e-9)  # of this, zero's
    spikes = _spikes(zeros / counts.total, share)
    raised = share * (SPIKES - spikes) / SPIKES + spikes / SPIKES
    lowered = (counts.total - zeros) * np.log2(whole * SPIKES / (SPIKES - spikes))
    costs = _symbol_costs(counts.values, others, counts.reach, scales) + lowered - zeros * np.log2(raised)
    curve, cost = _best(costs + scale_bits(near)[scales], scales)
    spike = spikes[FAMILIES.index(curve.family), curve.scale - scales.start]
    curve = replace(curve, hole=hole, spike=int(spike))
    return curve, cost + _shape_bits(curve)


def _spiked(counts: Counts, near: int | None, moved: Curve) -> Priced:
    """A curve that lies aside, with as much extra weight on zero as the counts ask for."""
    given = np.exp2(-symbol_bits(moved.table(), np.zeros(1, dtype=np.int64)))
    curve = replace(moved, spike=int(_spikes(counts.around_zero[0] / counts.total, given)[0]))
    symbols = float(counts.counts @ symbol_bits(curve.table(), counts.values))
    return curve, symbols + float(scale_bits(near)[curve.scale]) + _shape_bits(curve)


def _spikes(wanted: float, given: FloatArray) -> FloatArray:
    """The spikes that raise zero's share to what is wanted, 0 .. SPIKES - 1, whole numbers as float64."""
    spikes = np.rint(SPIKES * (wanted - given) / (1 - given))
    return np.asarray(np.minimum(np.maximum(spikes, 0), SPIKES - 1))


def _best(costs: FloatArray, scales: slice) -> Priced:
    """The plain curve of least cost (families, scales)."""
    family, scale = divmod(int(costs.argmin()), costs.shape[1])
    return Curve(family=FAMILIES[family], scale=scales.start + scale), float(costs[family, scale])


def _shape_bits(curve: Curve) -> int:
    """Bits of all parameters but the scale."""
    if curve.is_plain:
        return 3
    return 9 + signed_bits(curve.centre, order=2) + golomb_bits(curve.hole, order=1)
