"""A good model at little cost: what quartiles and moments of an array point to is tried, nothing else.

It takes some forty microseconds, and more only where there is something to be saved: a spike, a hole, a centre and a
histogram are looked at where an estimate of what they save is more than what they cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import log2

import numpy as np

from framefold.codecs.stream.curve_choice import Priced, likely_scales, plain, shaped_curves
from framefold.codecs.stream.curve_costs import zero_bits
from framefold.codecs.stream.histogram_choice import held_histograms
from framefold.codecs.stream.symbol_counts import Counts
from framefold.codecs.stream.symbol_models import Curve, Model, Uniform
from framefold.codecs.stream.varbits import golomb_bits, signed_bits

_SHAPE_BITS = 11  # what a spike or a hole costs beside a plain curve
_MANY_ZEROS = 0.2  # then the best plain curve is narrow, and tells little of the others
_CENTRE_BITS = 8  # a centre, besides its own bits
_OFTEN = 8  # a histogram's symbols occur so many times on average, else it never pays
_LEAST_SQUARE = 1 / 64  # the smallest scale's half-life, squared


def quick_model(counts: Counts, near: int | None) -> tuple[Model, float]:
    """Find a model and about its cost in bits; `near` is what its scale would be written against."""
    best = _uniform(counts)
    if counts.values.size > 1:
        best = min([best, *_curves(counts, near)], key=_cost)
    if counts.total >= _OFTEN * counts.values.size > _OFTEN:
        best = min([best, *held_histograms(counts, best[1])], key=_cost)
    return best


def _uniform(counts: Counts) -> tuple[Model, float]:
    width = counts.highest - counts.lowest + 1
    parameters = 2 + signed_bits(counts.lowest, order=4) + golomb_bits(width - 1, order=3)
    return Uniform(lowest=counts.lowest, symbol_count=width), parameters + counts.total * log2(width)


def _cost(priced: tuple[Model, float]) -> float:
    return priced[1]


def _curves(counts: Counts, near: int | None) -> Iterator[Priced]:
    values, total, middle = counts.values, counts.total, counts.middle
    square = int(counts.counts @ (values * values)) / total
    best = plain(counts, near, scales=likely_scales(counts, square))
    yield best
    if _may_be_shaped(counts, best[0]):
        others = total - counts.around_zero[0]
        yield from shaped_curves(counts, near, scales=likely_scales(counts, square * total / others))
    if middle and _may_lie_aside(counts):
        mean = int(counts.counts @ values) / total
        aside = max(square - 2 * mean * middle + middle * middle, _LEAST_SQUARE)
        if total * _octaves_saved(counts, square / aside) > _CENTRE_BITS + signed_bits(middle, order=2):
            yield plain(counts, near, centre=middle, scales=likely_scales(counts, aside))


def _may_lie_aside(counts: Counts) -> bool:
    """Whether a centre may save what it costs: a bound, for half of the symbols lie beyond the quartiles."""
    first, middle, third = counts.quartiles
    octaves = log2(1 + 4 * abs(middle) / max(third - first, 1))
    return counts.total * octaves > _CENTRE_BITS + signed_bits(middle, order=2)


def _octaves_saved(counts: Counts, squares: float) -> float:
    """By how much curves around the middle are narrower than those around zero: a Gaussian or a Laplace, at best."""
    around_zero, around_middle = (int(counts.counts @ np.abs(counts.values - at)) for at in (0, counts.middle))
    return max(log2(squares) / 2, log2(around_zero / max(around_middle, 1)))


def _may_be_shaped(counts: Counts, curve: Curve) -> bool:
    """Whether a spike or a hole saves more than it costs, beside the best curve that has none."""
    zeros, hole = counts.around_zero
    if not zeros and not hole:
        return False
    given, wanted = 2.0 ** -zero_bits(curve), zeros / counts.total
    if wanted > _MANY_ZEROS:
        return True
    saved = -log2(1 - min(2 * hole * given, 0.9))
    if wanted > given:
        saved += wanted * log2(wanted / given) + (1 - wanted) * log2((1 - wanted) / (1 - given))
    return saved * counts.total > _SHAPE_BITS
