"""What curves cost: bits of every symbol under every scale at once, so that the best scale is one matrix product.

Only the encoder uses this, in floating point: a choice that is a little off costs bits, nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from framefold.codecs.stream.places import FINE_LEVEL_SCALES, ZERO, coarse_places, place_count, table_at
from framefold.codecs.stream.probability_tables import SCALE_COUNT, Family
from framefold.codecs.stream.symbol_models import FINE_SCALES, Curve, Table
from framefold.codecs.stream.varbits import exp_golomb_bits, fold

ESCAPE_ORDER = 8
"""Exp-Golomb order of an escaped symbol: 9 bits up to +-127, 25 bits at +-32767."""
REACHES = (8, 32, 128, 512, 2048)
"""Largest magnitudes for which a matrix is made; wider arrays are searched scale by scale."""
PLACE_REACH = 128
"""The same where models are moved; wider arrays are fitted as if they were not."""

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
        bits[~known] += exp_golomb_bits(fold(symbols[~known]), ESCAPE_ORDER)
    return bits


def reach_for(largest: int) -> int | None:
    """Smallest of REACHES that holds a magnitude; None beyond."""
    return next((reach for reach in REACHES if reach >= largest), None)


@lru_cache(maxsize=16)
def curve_bits(family: Family, reach: int) -> FloatArray:
    """Bits of the symbols -reach .. reach under each scale's plain curve, (2 * reach + 1, scales)."""
    return _matrix([Curve(family=family, scale=scale).table() for scale in range(SCALE_COUNT)], reach)


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


def scale_bits(near: int | None) -> FloatArray:
    """Bits of writing each scale down, (128,)."""
    if near is None:
        return np.full(SCALE_COUNT, 7.0)
    return exp_golomb_bits(fold(np.arange(SCALE_COUNT) - near), 1).astype(np.float64)
