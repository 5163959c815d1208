"""Which model codes an array in the fewest bits, parameters included: tried, not guessed.

Floating point is used freely here: only the encoder chooses, and the choice itself is written down.
"""

from __future__ import annotations

from framefold.codecs.stream.curve_choice import curves
from framefold.codecs.stream.curve_costs import symbol_bits
from framefold.codecs.stream.histogram_choice import histograms
from framefold.codecs.stream.symbol_counts import Counts
from framefold.codecs.stream.symbol_models import Model, Uniform
from framefold.codecs.stream.varbits import BitWriter


def choose_model(counts: Counts, near: int | None = None, *, plain: bool = True) -> tuple[Model, float]:
    """Find the cheapest model and its cost in bits; `near` is what its scale would be written against.

    Without `plain` it is no plain curve.
    """
    uniform = Uniform(lowest=counts.lowest, symbol_count=counts.highest - counts.lowest + 1)
    if counts.values.size == 1:
        return uniform, cost_bits(uniform, counts, near)
    allowed = [curve for curve in curves(counts, near) if plain or not curve.is_plain]
    best = _cheapest([uniform, *allowed], counts, near)
    return _cheapest([best[0], *histograms(counts, best[1])], counts, near)


def _cheapest(models: list[Model], counts: Counts, near: int | None) -> tuple[Model, float]:
    costs = [cost_bits(model, counts, near) for model in models]
    best = costs.index(min(costs))
    return models[best], costs[best]


def cost_bits(model: Model, counts: Counts, near: int | None = None) -> float:
    """Bits of parameters, of coded symbols and of escapes."""
    parameters = BitWriter()
    model.write(parameters, near=near)
    return parameters.bit_count + float(counts.counts @ symbol_bits(model.table(), counts.values))
