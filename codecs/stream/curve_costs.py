"""What curves cost: bits of every symbol under every scale at once, so that the best scale is one matrix product.

Only the encoder uses this, in floating point: a choice that is a little off costs bits, nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from framefold.codecs.stream.places import FINE_LEVEL_SCALES, ZERO, coarse_places, place_count, table_at
from framefold.codecs.stream.probability_tables import (
    FAMILIES,
    LEVEL_WEIGHTS,
    SCALE_COUNT,
    SLOPE_FRACTION,
    TAIL_LEVEL,
    Family,
    curve_slope,
)
from framefold.codecs.stream.symbol_models import FINE_SCALES, MAX_SYMBOL, Curve, Table
from framefold.codecs.stream.varbits import exp_golomb_bits, fold

ESCAPE_ORDER = 8
"""Exp-Golomb order of an escaped symbol: 9 bits up to +-127, 25 bits at +-32767."""
REACHES = (8, 32, 128, 512, 1024, 2048)
"""Largest magnitudes for which a matrix is kept; what wider arrays cost is worked out for each."""
PLACE_REACH = 128
"""The same where models are moved; wider arrays are fitted as if they were not."""
ALL_SCALES = slice(0, SCALE_COUNT)

_CODER_BITS = 24  # precision of constriction's probabilities

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def symbol_bits(table: Table, symbols: IntArray) -> FloatArray:
    """Bits of each of `symbols` under a table, escaped where it must be."""
    index = symbols - table.lowest
    known = (index >= 0) & (index < table.symbol_count)
    weights = table.weights[np.where(known, index, -1)]
    # constriction gives every bin 2**-24 and shares out the rest in proportion
    rest = 2**_CODER_BITS - table.weights.size
    bits: FloatArray = _CODER_BITS - np.log2(weights * (rest / table.weights.sum()) + 1)
    if not known.all():
        bits[~known] += escape_bits(symbols[~known])
    return bits


def escape_bits(symbols: IntArray) -> IntArray:
    """Bits of symbols in the model section, int64."""
    return exp_golomb_bits(fold(symbols), ESCAPE_ORDER)


def reach_for(largest: int) -> int | None:
    """Smallest of REACHES that holds a magnitude; None beyond."""
    return next((reach for reach in REACHES if reach >= largest), None)


# ---- plain curves around zero


def bits_under_curves(symbols: IntArray, reach: int | None, scales: slice = ALL_SCALES) -> FloatArray:
    """Bits of ascending symbols under plain curves of these scales, (symbols, families, scales).

    `reach` is that of the array to which the symbols belong; those beyond count as if they were at its end.
    """
    if reach is not None:
        rows = symbols + reach
        if rows[0] < 0 or rows[-1] > 2 * reach:
            rows = np.minimum(np.maximum(rows, 0), 2 * reach)
        return np.asarray(curve_bits(reach)[:, :, scales][rows])  # not take: that would copy the matrix
    bits = _table_bits(np.abs(symbols), scales)
    _add_escapes(bits, symbols, scales)
    return bits


@lru_cache(maxsize=len(REACHES))
def curve_bits(reach: int) -> FloatArray:
    """Bits of the symbols -reach .. reach under each plain curve, (2 * reach + 1, families, scales)."""
    symbols = np.arange(-reach, reach + 1)
    bits = _table_bits(np.arange(reach + 1), ALL_SCALES)[np.abs(symbols)]
    _add_escapes(bits, symbols, ALL_SCALES)
    bits.setflags(write=False)
    return bits


def zero_bits(curve: Curve) -> float:
    """Bits of zero under a plain curve."""
    return float(_level_bits().bits[FAMILIES.index(curve.family), curve.scale, 0])


def shares_around_zero(hole: int, scales: slice) -> tuple[FloatArray, FloatArray]:
    """Of all probability, zero's share and that of the symbols 1 .. hole on both sides, (families, scales)."""
    known = _level_bits()
    zero = np.exp2(-known.bits[:, scales, 0])
    if not hole:
        return zero, np.zeros_like(zero)
    last = np.minimum(hole, known.ends[:, scales])
    level = known.levels(last, scales)
    at = np.arange(len(FAMILIES))[:, None], np.arange(SCALE_COUNT)[scales], level
    within = known.below[at] + (last + 1 - known.begins[at]) * np.exp2(-known.bits[at])
    return zero, 2 * (within - zero)


def _table_bits(distances: IntArray, scales: slice) -> FloatArray:
    """Bits of weights so far from zero, beyond a table's end those of its escape."""
    known = _level_bits()
    level = known.levels(np.minimum(distances[:, None, None], known.ends[:, scales] + 1), scales)
    np.minimum(level, TAIL_LEVEL, out=level)
    families, of_all, levels = known.bits.shape
    level += np.arange(families * of_all).reshape(families, of_all)[:, scales] * levels
    return np.asarray(known.bits.reshape(-1)[level])


def _add_escapes(bits: FloatArray, symbols: IntArray, scales: slice) -> None:
    """Add what the symbols beyond the tables' ends cost in the model section."""
    beyond = np.abs(symbols)[:, None, None] > _level_bits().ends[:, scales]
    bits += beyond * escape_bits(symbols)[:, None, None]


@dataclass(frozen=True, kw_only=True)
class _LevelBits:
    """The plain curves, each (families, scales)."""

    slopes: IntArray
    """As in `probability_tables`."""
    ends: IntArray
    """The largest distance that a curve's table holds."""
    begins: IntArray
    """(families, scales, levels 0 .. TAIL_LEVEL): the smallest distance of this level or a higher one."""
    below: FloatArray
    """The same: the share of all nearer symbols on one side, zero among them."""
    bits: FloatArray
    """The same: what a symbol of this level costs; of the last one an escape."""

    def levels(self, distances: IntArray, scales: slice) -> IntArray:
        """As in `probability_tables`, of distances (..., families, scales)."""
        powers = distances.copy()
        powers[..., 1, :] *= distances[..., 1, :]  # of Gaussian curves
        powers *= self.slopes[:, scales]
        powers += 1 << (SLOPE_FRACTION - 1)
        powers >>= SLOPE_FRACTION
        return powers


@lru_cache(maxsize=1)
def _level_bits() -> _LevelBits:
    """How many symbols have which level follows from where levels begin: no table need be made."""
    slopes = np.array([[curve_slope(family, scale) for scale in range(SCALE_COUNT)] for family in FAMILIES])
    thresholds = ((np.arange(TAIL_LEVEL + 1) << SLOPE_FRACTION) - (1 << (SLOPE_FRACTION - 1))).clip(0)
    powers, last = -(-thresholds // slopes[..., None]), (TAIL_LEVEL << SLOPE_FRACTION) // slopes
    first = np.stack([powers[0], np.ceil(np.sqrt(powers[1])).astype(np.int64)])
    ends = np.minimum(np.stack([last[0], np.sqrt(last[1]).astype(np.int64)]), MAX_SYMBOL)
    beyond = ends[..., None] + 1
    begins = np.minimum(np.concatenate([first, beyond], axis=-1), beyond)
    weights = LEVEL_WEIGHTS[: TAIL_LEVEL + 1]
    sums = 2 * (np.diff(begins) @ weights) - weights[0] + weights[TAIL_LEVEL]
    rest = 2**_CODER_BITS - 2 * beyond
    bits = _CODER_BITS - np.log2(weights * (rest / sums[..., None]) + 1)
    shares = np.diff(begins) * np.exp2(-bits)
    below = shares.cumsum(axis=-1) - shares
    return _LevelBits(slopes=slopes, ends=ends, begins=begins[..., :-1], below=below, bits=bits)


# ---- curves that are moved


@lru_cache(maxsize=12)
def place_bits(family: Family, reach: int, *, trellis: bool) -> tuple[FloatArray, FloatArray]:
    """Bits of the residuals -reach .. reach at each place under plain curves, (places, 2 * reach + 1, scales).

    Of the scales that are moved finely, at all places; and of all scales, at the coarse places alone.
    """
    fine_scales = FINE_LEVEL_SCALES if trellis else FINE_SCALES
    places = range(place_count(trellis=trellis))
    fine = _place_matrices(family, reach, places, fine_scales, trellis=trellis)
    return fine, _place_matrices(family, reach, coarse_places(trellis=trellis), SCALE_COUNT, trellis=trellis)


def _place_matrices(family: Family, reach: int, places: Sequence[int], scales: int, *, trellis: bool) -> FloatArray:
    made: dict[int, FloatArray] = {}
    for place in places:
        if (mirror := 2 * ZERO - place) in made and place > ZERO:
            made[place] = made[mirror][::-1]
        else:
            curves = [Curve(family=family, scale=scale) for scale in range(scales)]
            made[place] = _matrix([table_at(curve, place, trellis=trellis) for curve in curves], reach)
    return np.stack(list(made.values()))


def _matrix(tables: Sequence[Table], reach: int) -> FloatArray:
    symbols = np.arange(-reach, reach + 1)
    bits = np.array([symbol_bits(table, symbols) for table in tables]).T.copy()
    bits.setflags(write=False)
    return bits


# ---- parameters


@lru_cache(maxsize=2 * SCALE_COUNT)
def scale_bits(near: int | None) -> FloatArray:
    """Bits of writing each scale down, (128,)."""
    if near is None:
        bits = np.full(SCALE_COUNT, 7.0)
    else:
        bits = exp_golomb_bits(fold(np.arange(SCALE_COUNT) - near), 1).astype(np.float64)
    bits.setflags(write=False)
    return bits
