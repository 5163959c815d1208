"""Models for the classes of an array: each the cheapest, its scale written against the class before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from framefold.codecs.network import IntTensor
from framefold.codecs.stream.class_parameters import next_near
from framefold.codecs.stream.curve_choice import plain_curve
from framefold.codecs.stream.curve_costs import PLACE_REACH, FloatArray, place_bits, reach_for, scale_bits, symbol_bits
from framefold.codecs.stream.model_choice import Effort, choose_model
from framefold.codecs.stream.neighbour_contexts import Contexts
from framefold.codecs.stream.places import MIDDLE, coarse_place, coarse_places, place_count, table_at
from framefold.codecs.stream.probability_tables import FAMILIES, SCALE_COUNT
from framefold.codecs.stream.symbol_counts import Counts, IntArray
from framefold.codecs.stream.symbol_models import Curve, Model


@dataclass(frozen=True, kw_only=True)
class ClassModels:
    """A model for each class, class by class, of each the quantizers of a trellis."""

    models: tuple[Model, ...]
    cost: float
    """Bits of all models and symbols."""


def choose_class_models(
    residuals: IntTensor, contexts: Contexts, near: int, *, predicts: bool, effort: Effort = "best"
) -> ClassModels:
    """Find the models for flat residuals; `near` is what the first one's scale is written against."""
    trellis = contexts.quantizers > 1
    counts = class_counts(residuals, contexts)
    costs = _curve_costs(counts, trellis=trellis)
    models: list[Model] = []
    total = 0.0
    for number, of_class in enumerate(counts):
        plain = costs[number] if costs is not None else None
        together = of_class.sum(axis=0)
        model, bits = _choose(together, plain, near, free=not predicts, trellis=trellis, effort=effort)
        models.append(model)
        total += bits
        near = next_near(model, near, number, contexts.quantizers)
    return ClassModels(models=tuple(models), cost=total)


def models_cost(residuals: IntTensor, contexts: Contexts, models: Sequence[Model]) -> float:
    """Bits of flat residuals under models that are given, one for each class of a plain array."""
    bits = 0.0
    for number, counts in enumerate(class_counts(residuals, contexts).sum(axis=1)):
        if counts.any():
            present = Counts.of_dense(counts, -(counts.size // 2))
            bits += float(present.counts @ symbol_bits(models[number].table(), present.values))
    return bits


def class_counts(residuals: IntTensor, contexts: Contexts) -> IntArray:
    """How often each residual occurs: (classes, places, residuals -reach .. reach)."""
    largest = max(-int(residuals.min()), int(residuals.max()))
    reach = reach_for(largest) or largest
    width, places = 2 * reach + 1, place_count(trellis=contexts.quantizers > 1)
    keys = contexts.classes.astype(np.int64) * places + contexts.places
    counts = np.bincount(keys * width + (residuals + reach), minlength=contexts.class_count * places * width)
    return counts.reshape(contexts.class_count, places, width)


def _curve_costs(counts: IntArray, *, trellis: bool) -> FloatArray | None:
    """Bits of each class's symbols under every plain curve, (classes, families, scales); None for too wide ones."""
    classes, _, width = counts.shape
    if width // 2 > PLACE_REACH:
        return None
    costs = np.empty((classes, len(FAMILIES), SCALE_COUNT))
    known = np.array([coarse_place(place) for place in range(counts.shape[1])])
    together = np.stack([counts[:, known == place].sum(axis=1) for place in coarse_places(trellis=trellis)], axis=1)
    for number, family in enumerate(FAMILIES):
        fine, coarse = place_bits(family, width // 2, trellis=trellis)
        costs[:, number] = np.tensordot(together.astype(np.float64), coarse, 2)
        costs[:, number, : fine.shape[2]] = np.tensordot(counts.astype(np.float64), fine, 2)
    return costs


def _choose(
    counts: IntArray, plain: FloatArray | None, near: int, *, free: bool, trellis: bool, effort: Effort
) -> tuple[Model, float]:
    """The model for one class's residuals, and the bits it takes.

    `plain`: what plain curves cost; `free`: nothing is predicted, so that any model will do.
    """
    if not counts.any():
        return Curve(family="laplace", scale=near), 2.0
    options: list[tuple[Model, float]] = []
    if plain is not None:
        costs = plain + scale_bits(near) + (3 if free else 1)
        family, scale = np.unravel_index(costs.argmin(), costs.shape)
        options.append((Curve(family=FAMILIES[int(family)], scale=int(scale)), float(costs[family, scale])))
    together = Counts.of_dense(counts, -(counts.size // 2))
    if free:
        options.append(choose_model(together, near, plain=not trellis, effort=effort))
    elif plain is None:
        curve = plain_curve(together, near)
        if trellis:  # a level is two symbols
            curve = replace(curve, scale=min(curve.scale + 8, SCALE_COUNT - 1))
        table = table_at(curve, MIDDLE, trellis=trellis)
        bits = together.counts @ symbol_bits(table, together.values) + scale_bits(near)[curve.scale] + 1
        options.append((curve, float(bits)))
    return min(options, key=lambda option: option[1])
