"""Where a prediction lies among the symbols that may come: a whole centre, and a place that moves the model.

Predictions come in sixteenths of a symbol. Of a plain array p = (P + 2) // 4 is in quarters; the centre is
c = (p + 2) // 4, and the place 0 .. 3 says that the middle lies p - 4 * c = -2 .. 1 quarters beyond it.

Of a trellis tensor levels are coded, and p = (P + 4) // 8 is in half symbols, that is quarters of a level:

    first quantizer     c = (p + 2) // 4 and the place 0 .. 3, as above
    second, |p| > 8     the same with p + 2 * sign(p) for p
    second, else        c = 0 and the place 4 + (p + 8), 4 .. 20: the levels around zero are not evenly spaced

The centre is held within -32767 .. 32767. A curve's weights follow from the distance in symbols between the middle
and each symbol, or level's symbol; for a place of 4 and above a level's weight is also multiplied by the width of
what rounds to it: 2 for level 0, 3 for -1 and 1, 4 for all others and for the escape. Wide curves need not be moved
so finely: from FINE_SCALES (of levels FINE_LEVEL_SCALES) on the places 0 .. 3 count as 2, and those from 4 on as
4 + ((p + 10) // 4 * 4). Of levels, scales below 8 count as 8. A model that is not a plain curve is never moved.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from framefold.codecs.network import IntTensor
from framefold.codecs.stream.probability_tables import LEVEL_WEIGHTS, TAIL_LEVEL, quarter_levels
from framefold.codecs.stream.symbol_models import FINE_SCALES, MAX_SYMBOL, Curve, Model, Table

Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]

PLAIN_PLACES, TRELLIS_PLACES = 4, 21
MIDDLE = 2
"""The place of a middle that lies on the centre."""
ZERO = 12
"""The place of a second quantizer's middle that lies on zero."""
FINE_LEVEL_SCALES = FINE_SCALES + 8
"""Levels are two symbols apart."""

_NEAR = 8  # half symbols around zero that have places of their own
_LEAST_LEVEL_SCALE = 8


def centre(predicted: IntTensor, second: Flags | None, *, predicts: bool) -> tuple[IntTensor, Bytes]:
    """Centres (int32) and places (uint8) of flat predictions in sixteenths (int32).

    `second`: where a trellis is in its second quantizer; None for a plain array. Without a prediction all are zero.
    """
    if second is None:
        if not predicts:
            return np.zeros(predicted.shape, np.int32), np.full(predicted.shape, MIDDLE, np.uint8)
        return _split((predicted + 2) >> 2)
    if not predicts:
        return np.zeros(predicted.shape, np.int32), np.where(second, ZERO, MIDDLE).astype(np.uint8)
    halves = (predicted + 4) >> 3
    centres, places = _split(halves + 2 * np.where(second, np.sign(halves), 0))
    near = second & (np.abs(halves) <= _NEAR)
    centres[near] = 0
    places[near] = halves[near] + ZERO
    return centres, places


def _split(quarters: IntTensor) -> tuple[IntTensor, Bytes]:
    whole = (quarters + 2) >> 2
    places = (quarters - 4 * whole + MIDDLE).astype(np.uint8)
    return np.minimum(np.maximum(whole, -MAX_SYMBOL), MAX_SYMBOL), places


def place_count(*, trellis: bool) -> int:
    """How many places there are."""
    return TRELLIS_PLACES if trellis else PLAIN_PLACES


def coarse_place(place: int) -> int:
    """The place that a wide curve is moved to."""
    return MIDDLE if place < PLAIN_PLACES else PLAIN_PLACES + (place - PLAIN_PLACES + 2) // 4 * 4


def coarse_places(*, trellis: bool) -> list[int]:
    """All places that a wide curve is moved to, ascending."""
    return sorted({coarse_place(place) for place in range(place_count(trellis=trellis))})


def effective_place(model: Model, place: int, *, trellis: bool) -> int:
    """The place that counts for a model: those that make no difference to it are one."""
    if not isinstance(model, Curve) or not model.is_plain:
        return MIDDLE
    fine = model.scale < (FINE_LEVEL_SCALES if trellis else FINE_SCALES)
    return place if fine else coarse_place(place)


def table_at(model: Model, place: int, *, trellis: bool) -> Table:
    """The table of a model at one of its effective places."""
    if not isinstance(model, Curve) or not model.is_plain:
        return model.table()
    return level_table(model, place) if trellis else model.table(place - MIDDLE)


def level_table(curve: Curve, place: int) -> Table:
    """A plain curve's table over the levels of a trellis."""
    half = quarter_levels(curve.family, max(curve.scale, _LEAST_LEVEL_SCALE), 2 * MAX_SYMBOL)
    reach = half.size - 1
    levels = np.arange(-(reach // 8) - 3, reach // 8 + 4)
    if place < PLAIN_PLACES:
        distances, widths = np.abs(8 * levels - 2 * (place - MIDDLE)), np.full(levels.shape, 4)
    else:
        distances = np.abs(4 * (2 * levels - np.sign(levels)) - 2 * (place - ZERO))
        widths = np.minimum(np.abs(levels) + 2, 4)
    inside = np.flatnonzero((distances <= reach) & (np.abs(levels) <= MAX_SYMBOL))
    known = slice(int(inside[0]), int(inside[-1]) + 1)
    weights = LEVEL_WEIGHTS[half[distances[known]]] * widths[known]
    weights = np.append(weights, 4 * LEVEL_WEIGHTS[TAIL_LEVEL])
    return Table(lowest=int(levels[known.start]), weights=weights, escapes=True)
