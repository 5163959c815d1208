"""The best curves for an array: of all scales at once where its symbols are small, else walking downhill."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np

from framefold.codecs.stream.curve_costs import FloatArray, curve_bits, reach_for, scale_bits, symbol_bits
from framefold.codecs.stream.probability_tables import FAMILIES, SCALE_COUNT, SCALE_OF_ONE, Family
from framefold.codecs.stream.symbol_counts import Counts
from framefold.codecs.stream.symbol_models import SPIKES, Curve


def plain_curve(counts: Counts, near: int) -> Curve:
    """The best curve that is nothing but a scale."""
    reach = reach_for(max(-counts.lowest, counts.highest))
    if reach is not None:
        return _plain(counts, reach, scale_bits(near))
    walked = [replace(_walk(counts, near, family, 0), spike=0) for family in FAMILIES]
    return min(walked, key=lambda curve: float(counts.counts @ symbol_bits(curve.table(), counts.values)))


def curves(counts: Counts, near: int | None) -> Iterator[Curve]:
    """List the few curves that may be the cheapest for these counts of at least two symbols."""
    reach = reach_for(max(-counts.lowest, counts.highest))
    if reach is None:
        yield from _wide_curves(counts, near)
        return
    written = scale_bits(near)
    yield _plain(counts, reach, written)
    yield _shaped(counts, reach, written)
    middle = _middle(counts)
    if middle:
        yield _plain(counts, reach, written, centre=middle)


def _plain(counts: Counts, reach: int, written: FloatArray, centre: int = 0) -> Curve:
    rows = np.clip(counts.values - centre, -reach, reach) + reach  # what leaves the matrix counts at its end
    costs = np.array([counts.counts @ curve_bits(family, reach)[rows] + written for family in FAMILIES])
    return _best(costs, centre=centre)


def _shaped(counts: Counts, reach: int, written: FloatArray) -> Curve:
    """The best curve with a spike, and a hole if the symbols nearest to zero do not occur."""
    hole = int(np.abs(counts.values[counts.values != 0]).min()) - 1
    zeros = int(counts.counts[counts.values == 0].sum())
    others, rows = np.where(counts.values == 0, 0, counts.counts), counts.values + reach
    costs, spikes = [], []
    for family in FAMILIES:
        bits = curve_bits(family, reach)
        shares = np.exp2(-bits[reach - hole : reach + hole + 1])
        cut = shares.sum(axis=0) - shares[hole]
        whole = np.maximum(1 - cut, 1e-9)  # what the hole leaves, and of this the share of zero
        share = np.minimum(shares[hole] / whole, 1 - 1e-9)
        spike = _spikes(zeros / counts.total, share)
        raised = share * (SPIKES - spike) / SPIKES + spike / SPIKES
        lowered = others.sum() * np.log2(whole * SPIKES / (SPIKES - spike))
        costs.append(others @ bits[rows] + lowered - zeros * np.log2(raised) + written)
        spikes.append(spike)
    best = _best(np.array(costs), hole=hole)
    return replace(best, spike=int(spikes[FAMILIES.index(best.family)][best.scale]))


def _spikes(wanted: float, given: FloatArray) -> FloatArray:
    """The spikes that raise zero's share to what is wanted, 0 .. SPIKES - 1, whole numbers as float64."""
    spikes: FloatArray = np.clip(np.rint(SPIKES * (wanted - given) / (1 - given)), 0, SPIKES - 1)
    return spikes


def _best(costs: FloatArray, *, centre: int = 0, hole: int = 0) -> Curve:
    family, scale = np.unravel_index(costs.argmin(), costs.shape)
    return Curve(family=FAMILIES[int(family)], scale=int(scale), centre=centre, hole=hole)


def _middle(counts: Counts) -> int:
    return int(counts.values[np.searchsorted(np.cumsum(counts.counts), counts.total / 2)])


def _with_spike(curve: Curve, counts: Counts) -> Curve:
    """Give the curve as much extra weight on zero as the counts ask for."""
    given = np.exp2(-symbol_bits(curve.table(), np.zeros(1, dtype=np.int64)))
    return replace(curve, spike=int(_spikes(counts.share_of(0), given)[0]))


# ---- symbols beyond all matrices


def _wide_curves(counts: Counts, near: int | None) -> Iterator[Curve]:
    middle = _middle(counts)
    for centre in (0, middle) if _lies_aside(counts, middle) else (0,):
        for family in FAMILIES:
            yield _walk(counts, near, family, centre)


def _lies_aside(counts: Counts, middle: int) -> bool:
    """Whether a curve around the middle may be better than one around zero."""
    return 8 * abs(middle) * counts.total > int(counts.counts @ np.abs(counts.values - middle))


def _walk(counts: Counts, near: int | None, family: Family, centre: int) -> Curve:
    """Go downhill over the scales, from where the moments point."""
    written = scale_bits(near)

    @cache
    def cost(scale: int) -> float:
        curve = Curve(family=family, scale=scale, centre=centre)
        return float(counts.counts @ symbol_bits(curve.table(), counts.values) + written[scale])

    scale = _first_scale(counts, family, centre)
    for stride in (3, 1):
        while (better := min(_around(scale, stride), key=cost)) != scale:
            scale = better
    return _with_spike(Curve(family=family, scale=scale, centre=centre), counts)


def _around(scale: int, stride: int) -> tuple[int, int, int]:
    return scale, max(scale - stride, 0), min(scale + stride, SCALE_COUNT - 1)


def _first_scale(counts: Counts, family: Family, centre: int) -> int:
    """Take the scale that the moments suggest: a half-life is ln 2 * E|x|, or sqrt(2 ln 2 * E x**2)."""
    distances = np.abs(counts.values - centre).astype(np.float64)
    if family == "laplace":
        half_life = np.log(2) * (counts.counts @ distances) / counts.total
    else:
        half_life = np.sqrt(2 * np.log(2) * (counts.counts @ distances**2) / counts.total)
    scale = SCALE_OF_ONE + round(8 * float(np.log2(max(half_life, 0.125))))
    return min(max(scale, 0), SCALE_COUNT - 1)
