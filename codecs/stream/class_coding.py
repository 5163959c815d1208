"""Writing and reading symbols whose classes follow from what is known by then, slice by slice.

Within a slice the symbols go class by class, within a class place by place. The encoder, which knows all classes,
brings the whole array into that order at once; the decoder gives a slice's symbols back to whom asked for them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from framefold.codecs.network import IntTensor
from framefold.codecs.stream.entropy import SymbolReader, SymbolWriter
from framefold.codecs.stream.places import effective_place, place_count, table_at
from framefold.codecs.stream.prepared_models import categorical, coder_errors
from framefold.codecs.stream.symbol_models import MAX_SYMBOL, Model

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.intp]

Keys = npt.NDArray[np.uint16]


class ClassCoder:
    """The models of an array's classes, prepared as they are needed."""

    def __init__(self, models: tuple[Model, ...], *, trellis: bool) -> None:
        self._models, self._trellis = models, trellis
        self._categoricals: dict[int, Any] = {}
        self._places = place_count(trellis=trellis)
        places = [[effective_place(model, at, trellis=trellis) for at in range(self._places)] for model in models]
        self._effective = np.array(places, dtype=np.uint16)
        self._lowest, self._counts = np.zeros((2, self._effective.size), np.int32)
        self._escapes = np.zeros(self._effective.size, bool)

    def keys(self, classes: Bytes, places: Bytes) -> Keys:
        """One number for each class and place that differ."""
        keys: Keys = classes * np.uint16(self._places) + self._effective[classes, places]
        return keys

    def write(self, writer: SymbolWriter, residuals: IntTensor, keys: Keys, slices: npt.NDArray[np.uint16]) -> None:
        """Code flat int32 residuals; `slices` are the numbers of their slices."""
        order = np.argsort(keys, kind="stable")
        order = order[np.argsort(slices[order], kind="stable")]
        keys, slices, residuals = keys[order], slices[order], residuals[order]
        for key in np.flatnonzero(np.bincount(keys)).tolist():
            writer.table_entries += self._prepare(key)
        index, beyond = residuals - self._lowest[keys], self._counts[keys]
        unknown = (index < 0) | (index >= beyond)
        if unknown.any() and not self._escapes[keys[unknown]].all():
            raise ValueError("a symbol is none of its class's model, which has no escape")
        index[unknown] = beyond[unknown]
        writer.escape(residuals[unknown])
        changes = np.flatnonzero((keys[1:] != keys[:-1]) | (slices[1:] != slices[:-1])) + 1
        starts = np.concatenate([[0], changes])
        with coder_errors():
            writer.put_parts(index, starts.tolist(), [self._categoricals[key] for key in keys[starts].tolist()])

    def read(self, reader: SymbolReader, keys: Keys) -> IntTensor:
        """Decode the residuals of one slice, int32."""
        order = np.argsort(keys, kind="stable")
        index = np.zeros(keys.size, dtype=np.int32)
        start = 0
        for key, count in enumerate(np.bincount(keys).tolist()):
            if count:
                if key not in self._categoricals:
                    reader.spend(self._prepare(key))
                if model := self._categoricals[key]:
                    index[start : start + count] = reader.get_index(model, count)
                start += count
        keys = keys[order]
        unknown = index == self._counts[keys]
        index += self._lowest[keys]
        if unknown.any():
            index[unknown] = reader.escaped(int(np.count_nonzero(unknown)), limit=2 * MAX_SYMBOL)
        residuals = np.empty_like(index)
        residuals[order] = index
        return residuals

    def _prepare(self, key: int) -> int:
        """Prepare a key's table; returns how many entries it has."""
        number, place = divmod(key, self._places)
        table = table_at(self._models[number], place, trellis=self._trellis)
        self._lowest[key], self._counts[key] = table.lowest, table.symbol_count
        self._escapes[key] = table.escapes
        self._categoricals[key] = categorical(table)
        return table.weights.size
