"""Which model codes an array in the fewest bits, parameters included: tried, not guessed.

Floating point is used freely here: only the encoder chooses, and the choice itself is written down.
"""

from __future__ import annotations

from typing import Literal, get_args

from framefold.codecs.stream.curve_choice import curves
from framefold.codecs.stream.curve_costs import symbol_bits
from framefold.codecs.stream.histogram_choice import histograms, parameter_bits
from framefold.codecs.stream.quick_choice import quick_model
from framefold.codecs.stream.symbol_counts import Counts
from framefold.codecs.stream.symbol_models import Curve, Histogram, Model, Uniform
from framefold.codecs.stream.varbits import BitWriter

Effort = Literal["best", "fast"]
"""How hard a model is looked for: the cheapest of all, or what quartiles and moments point to, found much sooner."""
EFFORTS: tuple[Effort, ...] = get_args(Effort)

_SLACK_BITS, _SLACK_SHARE = 4, 0.001  # how far off the price of a shaped or moved curve may be


def choose_model(
    counts: Counts, near: int | None = None, *, plain: bool = True, effort: Effort = "best"
) -> tuple[Model, float]:
    """Find the cheapest model and its cost in bits; `near` is what its scale would be written against.

    Without `plain` it is no plain curve. With the effort fast the cost is right to a few bits.
    """
    if effort == "fast" and plain:
        return quick_model(counts, near)
    uniform = Uniform(lowest=counts.lowest, symbol_count=counts.highest - counts.lowest + 1)
    if counts.values.size == 1:
        return uniform, cost_bits(uniform, counts, near)
    best = _cheapest([uniform, *_worth_a_look(counts, near, plain=plain)], counts, near)
    return _cheapest([best[0], *histograms(counts, best[1])], counts, near)


def _worth_a_look(counts: Counts, near: int | None, *, plain: bool) -> list[Curve]:
    """Drop the curves that are dearer than a plain one, whose price is exact, however far off theirs is."""
    priced = list(curves(counts, near))
    if not plain:
        return [curve for curve, _ in priced if not curve.is_plain]
    limit = priced[0][1] * (1 + _SLACK_SHARE) + _SLACK_BITS
    return [curve for curve, cost in priced if cost <= limit]


def _cheapest(models: list[Model], counts: Counts, near: int | None) -> tuple[Model, float]:
    costs = [cost_bits(model, counts, near) for model in models]
    best = costs.index(min(costs))
    return models[best], costs[best]


def cost_bits(model: Model, counts: Counts, near: int | None = None) -> float:
    """Bits of parameters, of coded symbols and of escapes."""
    return _parameter_bits(model, near) + float(counts.counts @ symbol_bits(model.table(), counts.values))


def _parameter_bits(model: Model, near: int | None) -> int:
    if isinstance(model, Histogram):
        return parameter_bits(model)
    parameters = BitWriter()
    model.write(parameters, near=near)
    return parameters.bit_count
