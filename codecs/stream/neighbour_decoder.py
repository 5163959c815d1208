"""Decoding an array slice by slice under a `NeighbourRule`: a few array operations for each slice."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from framefold.codecs.network import IntTensor
from framefold.codecs.quantizing import trellis
from framefold.codecs.stream.class_coding import ClassCoder, Places
from framefold.codecs.stream.entropy import SymbolReader
from framefold.codecs.stream.neighbour_contexts import classes_of, levels
from framefold.codecs.stream.neighbours import (
    LOCAL_PRIOR_COUNT,
    OFFSETS,
    PRIOR_COUNT,
    UNIT,
    IntArray,
    NeighbourRule,
    Offset,
    Shape4,
    slice_numbers,
)
from framefold.codecs.stream.places import Bytes, centre

_CHUNK = 2**16
"""Places whose neighbours are looked up together: bounds the memory needed beside the array."""


class NeighbourDecoder:
    """One array of int32 symbols (a, b, h, w), as far as it is known."""

    def __init__(
        self, rule: NeighbourRule, shape: Shape4, skew: Shape4, *, parent: IntTensor | None, trellis: bool
    ) -> None:
        self._rule, self._shape, self._skew = rule, shape, skew
        size = int(np.prod(shape))
        self._columns = size // shape[0]
        self._symbols = np.zeros(size + 1, dtype=np.int32)  # the last one stands for all places outside
        self._errors = np.zeros(size + 1 if rule.classes > 1 and rule.local else 0, dtype=np.int64)
        self._row_sums = np.zeros(shape[0], dtype=np.int64)
        self._column_sums = np.zeros(self._columns, dtype=np.int64)
        self._parent = parent.reshape(-1) if parent is not None and rule.parent_weight else None
        self._states = np.zeros(shape[0], dtype=np.uint8) if trellis else None
        self._weights = np.array([neighbour.weight for neighbour in rule.own], dtype=np.int32)
        self._energies = np.array([neighbour.energy for neighbour in rule.own], dtype=np.int64)
        numbers = slice_numbers((1, *shape[1:]), skew)
        self._known_in_row = np.searchsorted(np.sort(numbers), numbers)

    def decode(self, reader: SymbolReader, coder: ClassCoder) -> IntTensor:
        """Decode all slices; int32 (a, b, h, w)."""
        for places, ends in self._chunks():
            near = self._neighbours(places)
            start = 0
            for end in ends:
                part = slice(start, end)
                self._decode_slice(reader, coder, places[part], near[:, part])
                start = end
        return self._symbols[:-1].reshape(self._shape)

    def _chunks(self) -> Iterator[tuple[Places, list[int]]]:
        """Places in coding order, some slices at a time, and where each of these ends."""
        numbers = slice_numbers(self._shape, self._skew)
        order = np.argsort(numbers, kind="stable")
        ends = np.cumsum(np.bincount(numbers)).tolist()
        start, first = 0, 0
        for number, end in enumerate(ends):
            if number + 1 == len(ends) or ends[number + 1] - start > _CHUNK:
                yield order[start:end], [stop - start for stop in ends[first : number + 1]]
                start, first = end, number + 1

    def _neighbours(self, places: Places) -> npt.NDArray[np.int32]:
        """Where the neighbours of some places lie: (neighbours, places); the last place for none."""
        at = np.unravel_index(places, self._shape)
        near = np.empty((len(self._rule.own), places.size), dtype=np.int32)
        for number, neighbour in enumerate(self._rule.own):
            near[number] = self._back(places, at, OFFSETS[neighbour.number])
        return near

    def _back(self, places: Places, at: tuple[Places, ...], offset: Offset) -> Places:
        _, b, h, w = self._shape
        flat = ((offset[0] * b + offset[1]) * h + offset[2]) * w + offset[3]
        inside = np.ones(places.shape, dtype=bool)
        for index, back, side in zip(at, offset, self._shape, strict=True):
            if back:
                inside &= (index >= back) & (index < side + back)
        return np.where(inside, places - flat, self._symbols.size - 1)

    def _decode_slice(
        self, reader: SymbolReader, coder: ClassCoder, places: Places, near: npt.NDArray[np.int32]
    ) -> None:
        rows, columns = np.divmod(places, self._columns)
        states = None if self._states is None else self._states[rows]
        second = None if states is None else trellis.second_quantizer(states)
        predicted = self._predict(places, near)
        centres, beside = centre(predicted, second, predicts=self._rule.predicts)
        classes = self._classes(rows, columns, near)
        if second is not None:
            classes = 2 * classes + second
        coded = coder.read(reader, coder.keys(classes, beside)) + centres
        if states is not None and self._states is not None:
            self._states[rows] = trellis.next_states(states, coded)
            coded = trellis.symbols_at(states, coded)
        self._symbols[places] = coded
        if self._rule.classes > 1:
            self._learn(places, rows, columns, np.abs(UNIT * coded - predicted))

    def _predict(self, places: Places, near: npt.NDArray[np.int32]) -> IntTensor:
        if not self._rule.predicts:
            return np.zeros(places.size, dtype=np.int32)
        predicted: IntTensor = self._weights @ self._symbols[near]
        if self._parent is not None:
            predicted = predicted + np.int32(self._rule.parent_weight) * self._parent[places]
        return predicted

    def _classes(self, rows: Places, columns: Places, near: npt.NDArray[np.int32]) -> Bytes:
        rule = self._rule
        if rule.classes == 1:
            return np.zeros(rows.size, dtype=np.uint8)
        activity: IntArray = np.zeros(rows.size, dtype=np.int64)
        if rule.row:
            activity += rule.row * levels(self._row_sums[rows], self._known_in_row[columns], PRIOR_COUNT, rule.prior)
        if rule.column:
            known = rows if self._skew[0] else np.zeros_like(rows)
            activity += rule.column * levels(self._column_sums[columns], known, PRIOR_COUNT, rule.prior)
        if rule.local:
            sums = self._energies @ self._errors[near]
            known = self._energies @ (near < self._symbols.size - 1)
            activity += rule.local * levels(sums, known, LOCAL_PRIOR_COUNT, rule.prior)
        return classes_of(activity, rule)

    def _learn(self, places: Places, rows: Places, columns: Places, errors: IntTensor) -> None:
        if self._errors.size:
            self._errors[places] = errors
        if self._rule.row:
            np.add.at(self._row_sums, rows, errors)
        if self._rule.column and self._skew[0]:
            np.add.at(self._column_sums, columns, errors)
