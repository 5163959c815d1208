"""Which rules may pay for an array: its best prediction, and the energies that tell how far off that may be.

Floating point is used freely: only the encoder chooses, and the rule itself is written down.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt

from framefold.codecs.network import IntTensor
from framefold.codecs.stream.neighbour_contexts import (
    Contexts,
    column_levels,
    contexts_of,
    energy_weights,
    local_levels,
    predict,
    row_levels,
)
from framefold.codecs.stream.neighbour_prediction import fit_prediction, fits, lagged, sampled_rows
from framefold.codecs.stream.neighbours import (
    ACTIVITY,
    CLASS_SHIFT,
    MAX_CLASSES,
    MAX_ENERGY_WEIGHT,
    OFFSETS,
    TOP,
    UNIT,
    Neighbour,
    NeighbourRule,
    Shape4,
    skews,
)

CLASS_BITS = 8
"""About what a class costs."""

_SAMPLE = 2**13  # places at which weights are tried
_ROUNDS = 3
_RARE = 12  # a class with fewer symbols is none
_CLEAR_GAIN = 0.1  # bits per symbol; a prediction that saves more need not be compared with none
_NEAR = (*OFFSETS[:6], *OFFSETS[8:14])  # where errors may tell of each other

Weights = tuple[int, int, int]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A rule, and what it says of the array."""

    rule: NeighbourRule
    skew: Shape4
    contexts: Contexts


def candidates(
    symbols: IntTensor, parent: IntTensor | None, second: npt.NDArray[np.bool_] | None
) -> Iterator[Candidate]:
    """List the rules that may pay for int32 symbols (a, b, h, w); the exact cost is for the caller.

    `second`: where the trellis is in its second quantizer, flat.
    """
    predicting = NeighbourRule(neighbours=fit_prediction(symbols, parent))
    gain = 0.0
    if predicting.neighbours:
        predicted = predict(symbols, predicting, parent)
        yield _with_classes(symbols, predicted, predicting, second)
        gain = _log_energy(symbols) - _log_energy(symbols - predicted / UNIT)
    if gain < _CLEAR_GAIN:
        yield _with_classes(symbols, np.zeros_like(symbols), NeighbourRule(), second)


def _log_energy(values: npt.NDArray[np.generic]) -> float:
    return 0.5 * float(np.log2(np.mean(np.square(values, dtype=np.float64)) + 1 / 12))


def _with_classes(
    symbols: IntTensor, predicted: IntTensor, rule: NeighbourRule, second: npt.NDArray[np.bool_] | None
) -> Candidate:
    """The same rule with the classes that tell most."""
    errors = np.abs(UNIT * symbols - predicted)
    prior = int(ACTIVITY[min(int(UNIT * errors.mean()), TOP)])
    rule = replace(_with_energies(errors, rule), prior=prior, classes=2)
    features = _Features(errors, rule, trellis=second is not None)
    weights = features.best_weights()
    rule = _without_idle(replace(rule, row=weights[0], column=weights[1], local=weights[2]))
    skew = skews(rule, _shape4(symbols), trellis=second is not None)
    steps = features.activity(weights, skew) >> CLASS_SHIFT
    rule = _with_range(steps, rule)
    contexts = contexts_of(predicted.reshape(-1), steps << CLASS_SHIFT, rule, second)
    return Candidate(rule=rule, skew=skews(rule, _shape4(symbols), trellis=second is not None), contexts=contexts)


def _shape4(symbols: IntTensor) -> Shape4:
    a, b, h, w = symbols.shape
    return a, b, h, w


def _with_energies(errors: IntTensor, rule: NeighbourRule) -> NeighbourRule:
    """Look at the neighbours whose errors go with a place's own, the more the stronger they do."""
    rows = sampled_rows(errors)
    own = errors[rows].astype(np.float32).reshape(-1)
    own -= own.mean()
    numbers = [number for number, offset in enumerate(OFFSETS) if offset in _NEAR and fits(offset, errors.shape)]
    strengths = np.array([float(lagged(errors, rows, OFFSETS[number]) @ own) for number in numbers])
    known = {neighbour.number: neighbour for neighbour in rule.neighbours}
    for number, strength in zip(numbers, strengths / max(strengths.max(initial=0), 1e-9), strict=True):
        if energy := max(round(MAX_ENERGY_WEIGHT * float(strength)), 0):
            weight = known[number].weight if number in known else 0
            known[number] = Neighbour(number=number, weight=weight, energy=energy)
    return replace(rule, neighbours=tuple(known[number] for number in sorted(known)))


def _without_idle(rule: NeighbourRule) -> NeighbourRule:
    """Leave out the neighbours that are looked at for nothing."""
    if rule.local:
        return rule
    return replace(rule, neighbours=tuple(replace(known, energy=0) for known in rule.neighbours if known.weight))


def _with_range(steps: IntArray, rule: NeighbourRule) -> NeighbourRule:
    """Choose the classes that are there, rare ones with the next."""
    lowest = int(steps.min())
    below = np.cumsum(np.bincount(steps - lowest))
    first = lowest + int(np.searchsorted(below, _RARE))
    last = lowest + int(np.searchsorted(below, max(int(below[-1]) - _RARE, 0)))
    first = min(max(first, 1 - MAX_CLASSES), 0)
    classes = min(max(last - first + 1, 1), MAX_CLASSES)
    return replace(rule, middle=-first, classes=classes)


class _Features:
    """What an array's activities are made of: row, column, local."""

    def __init__(self, errors: IntTensor, rule: NeighbourRule, *, trellis: bool) -> None:
        self._errors, self._rule, self._trellis = errors, rule, trellis
        self._skew = self._skew_of((1, 1, 1))
        self._parts = [
            row_levels(errors, rule.prior, self._skew).reshape(-1),
            column_levels(errors, rule.prior, self._skew).reshape(-1),
            local_levels(errors, rule.prior, energy_weights(rule)).reshape(-1),
        ]
        stride = max(errors.size // _SAMPLE, 1) | 1
        self._sample = np.array([part[::stride] for part in self._parts])
        self._sample_errors = errors.reshape(-1)[::stride]

    def _skew_of(self, weights: Weights) -> Shape4:
        row, column, local = weights
        rule = replace(self._rule, row=row, column=column, local=local)
        return skews(_without_idle(rule), _shape4(self._errors), trellis=self._trellis)

    def best_weights(self) -> Weights:
        """Weights in quarters: by least squares on the logarithm of the errors, then tried one up and one down."""
        wanted = np.log2(self._sample_errors + UNIT / 4)
        given = np.vstack([self._sample / 8, np.ones(wanted.size)])
        gram = given @ given.T + 1e-3 * wanted.size * np.diag([1, 1, 1, 0])
        fitted = np.linalg.solve(gram, given @ wanted)[:3]
        row, column, local = (min(max(round(4 * float(weight)), 0), 7) for weight in fitted)
        best: Weights = (row, column, local)
        for _ in range(_ROUNDS):
            best = min((best, *_around(best)), key=self._estimate)
        return best

    @cache  # noqa: B019 - as short-lived as what it remembers
    def _estimate(self, weights: Weights) -> float:
        """About the bits of the sampled errors, if each class were coded by its mean error."""
        activity = np.asarray(weights, dtype=np.int32) @ self._sample
        classes = np.minimum(np.maximum((activity >> CLASS_SHIFT) + 2 * MAX_CLASSES, 0), 4 * MAX_CLASSES)
        counts = np.bincount(classes, minlength=4 * MAX_CLASSES + 1)
        sums = np.bincount(classes, weights=self._sample_errors, minlength=4 * MAX_CLASSES + 1)
        bits = counts @ np.log2(sums / np.maximum(counts, 1) + UNIT / 4)
        side = CLASS_BITS * np.count_nonzero(counts) * self._sample_errors.size / self._errors.size
        return float(bits + side)

    def activity(self, weights: Weights, skew: Shape4) -> IntArray:
        """Activities of all places under these weights, in the order of slices that they lead to."""
        parts = list(self._parts)
        if skew != self._skew and weights[0]:
            parts[0] = row_levels(self._errors, self._rule.prior, skew).reshape(-1)
        if skew != self._skew and weights[1]:
            parts[1] = column_levels(self._errors, self._rule.prior, skew).reshape(-1)
        return np.asarray(sum(weight * part for weight, part in zip(weights, parts, strict=True)))


def _around(weights: Weights) -> Iterator[Weights]:
    row, column, local = weights
    for step in (-1, 1):
        if 0 <= row + step <= 7:
            yield row + step, column, local
        if 0 <= column + step <= 7:
            yield row, column + step, local
        if 0 <= local + step <= 7:
            yield row, column, local + step
