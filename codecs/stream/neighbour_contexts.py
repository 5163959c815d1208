"""What a `NeighbourRule` says of a whole array at once: for the encoder, which knows all of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from framefold.codecs.network import IntTensor
from framefold.codecs.stream.neighbours import (
    ACTIVITY,
    CLASS_SHIFT,
    LOCAL_PRIOR_COUNT,
    OFFSETS,
    PRIOR_COUNT,
    TOP,
    UNIT,
    IntArray,
    NeighbourRule,
    Offset,
    Shape4,
    prior_mean,
    slice_numbers,
)
from framefold.codecs.stream.places import Bytes, Flags, centre

Index4 = tuple[slice, slice, slice, slice]


@dataclass(frozen=True, kw_only=True)
class Contexts:
    """What is known of each symbol before it is coded; flat, in C order."""

    classes: Bytes
    """uint8, below `class_count`."""
    centres: IntTensor
    """int32, to be subtracted."""
    places: Bytes
    """uint8: where the prediction lies beside the centre, see `places`."""
    class_count: int
    """With a trellis twice the rule's: class 2 * i is that of the first quantizer, 2 * i + 1 of the second."""
    quantizers: int
    """1, or 2 for a trellis."""


def contexts_of(predicted: IntTensor, activity: IntTensor, rule: NeighbourRule, second: Flags | None) -> Contexts:
    """Contexts of all symbols from their predictions and activities (int32, flat).

    `second`: where the trellis is in its second quantizer, flat; None for a plain array.
    """
    centres, places = centre(predicted, second, predicts=rule.predicts)
    classes = classes_of(activity, rule)
    quantizers = 1 if second is None else 2
    return Contexts(
        classes=classes if second is None else 2 * classes + second,
        centres=centres,
        places=places,
        class_count=quantizers * rule.classes,
        quantizers=quantizers,
    )


def predict(symbols: IntTensor, rule: NeighbourRule, parent: IntTensor | None) -> IntTensor:
    """Predictions in sixteenths, int32 (a, b, h, w)."""
    predicted = np.zeros(symbols.shape, dtype=np.int32)
    for neighbour in rule.own:
        if neighbour.weight:
            here, there = overlap(OFFSETS[neighbour.number], symbols.shape)
            predicted[here] += np.int32(neighbour.weight) * symbols[there]
    if parent is not None and rule.parent_weight:
        predicted += np.int32(rule.parent_weight) * parent
    return predicted


def energy_weights(rule: NeighbourRule) -> tuple[tuple[Offset, int], ...]:
    """The neighbours of the local energy, and how much each counts."""
    return tuple((OFFSETS[neighbour.number], neighbour.energy) for neighbour in rule.own if neighbour.energy)


def classes_of(activity: IntTensor | IntArray, rule: NeighbourRule) -> Bytes:
    """uint8 classes of activities."""
    steps = np.maximum((activity >> CLASS_SHIFT) + rule.middle, 0)
    classes: Bytes = np.minimum(steps, rule.classes - 1).astype(np.uint8)
    return classes


def row_levels(errors: IntTensor, prior: int, skew: Shape4) -> IntTensor:
    """The part of the activity that comes of the same row: (a, b * h * w)."""
    rows = errors.reshape(errors.shape[0], -1)
    _, b, h, w = errors.shape
    numbers = slice_numbers((1, b, h, w), skew)
    order = np.argsort(numbers, kind="stable")
    known = np.searchsorted(numbers[order], numbers)  # how many places of a row lie in earlier slices
    sums = np.zeros((rows.shape[0], rows.shape[1] + 1), dtype=np.int64)
    np.cumsum(rows[:, order], axis=1, out=sums[:, 1:])
    return levels(sums[:, known], known, PRIOR_COUNT, prior)


def column_levels(errors: IntTensor, prior: int, skew: Shape4) -> IntTensor:
    """The part of the activity that comes of the same column: (a, b * h * w)."""
    rows = errors.reshape(errors.shape[0], -1)
    sums = np.zeros(rows.shape, dtype=np.int64)
    known = np.zeros((rows.shape[0], 1), dtype=np.int64)
    if skew[0]:
        np.cumsum(rows[:-1], axis=0, out=sums[1:])
        known = np.arange(rows.shape[0])[:, None]
    return levels(sums, known, PRIOR_COUNT, prior)


def local_levels(errors: IntTensor, prior: int, weights: tuple[tuple[Offset, int], ...]) -> IntTensor:
    """The part of the activity that comes of the neighbours: (a, b, h, w)."""
    sums, known = np.zeros(errors.shape, dtype=np.int64), np.zeros(errors.shape, dtype=np.int64)
    for offset, weight in weights:
        here, there = overlap(offset, errors.shape)
        sums[here] += weight * errors[there]
        known[here] += weight
    return levels(sums, known, LOCAL_PRIOR_COUNT, prior)


def levels(sums: IntArray, known: IntArray, prior_count: int, prior: int) -> IntTensor:
    """Eighths of octaves of mean errors over the prior mean, int32."""
    means = (UNIT * sums + prior_count * prior_mean(prior)) // (known + prior_count)
    above: IntTensor = ACTIVITY[np.minimum(means, TOP)] - np.int32(prior)
    return above


def overlap(offset: Offset, shape: tuple[int, ...]) -> tuple[Index4, Index4]:
    """Where in an array of this shape there is a neighbour, and where it lies."""
    pairs = [
        (slice(max(back, 0), side + min(back, 0)), slice(max(-back, 0), side - max(back, 0)))
        if abs(back) < side
        else (slice(0, 0), slice(0, 0))
        for back, side in zip(offset, shape, strict=True)
    ]
    here, there = zip(*pairs, strict=True)
    return here, there
