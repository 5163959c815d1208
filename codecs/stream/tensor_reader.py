"""Reading the symbols of a tensor, whatever its form."""

from __future__ import annotations

from framefold.codecs.network import IntTensor
from framefold.codecs.quantizing import trellis
from framefold.codecs.stream.class_coding import ClassCoder
from framefold.codecs.stream.class_parameters import read_class_models
from framefold.codecs.stream.contexts import ContextRule, decode_by_rule
from framefold.codecs.stream.directory import Entry
from framefold.codecs.stream.entropy import SymbolReader
from framefold.codecs.stream.neighbour_decoder import NeighbourDecoder
from framefold.codecs.stream.neighbours import MAX_SLICES, NeighbourRule, skews, slice_cost, slice_count, view_shape
from framefold.codecs.stream.prepared_models import coder_errors
from framefold.codecs.stream.symbol_models import MAX_SYMBOL
from framefold.codecs.stream.tensor_forms import Form, as_matrix, trellis_slices
from framefold.codecs.stream.varbits import BitstreamError


class TensorReader:
    """Reads tensors one after another, within the slices that it may go through."""

    def __init__(self, reader: SymbolReader, slices_left: int) -> None:
        self._reader, self._slices_left = reader, slices_left

    def read(
        self,
        entry: Entry,
        form: Form,
        parent: IntTensor | None,
        own: ContextRule | None,
        array: IntTensor | None = None,
    ) -> IntTensor:
        """The symbols of a tensor, int32 of its shape; `array`: what is coded, if it is decoded already.

        BitstreamError if there can be no such symbols.
        """
        if form == Form.NEIGHBOURS:
            symbols = self._by_neighbours(entry, parent)
        elif form == Form.OWN:
            symbols = self._own(entry, own)
        else:
            symbols = self._plain(entry, form, parent, array)
        if symbols.size and max(-int(symbols.min()), int(symbols.max())) > MAX_SYMBOL:
            raise BitstreamError(f"tensor {entry.name!r}: a symbol is beyond {MAX_SYMBOL}")
        return symbols.reshape(entry.shape)

    def _plain(self, entry: Entry, form: Form, parent: IntTensor | None, array: IntTensor | None) -> IntTensor:
        walks = form == Form.PLAIN and entry.trellis
        if walks:
            self._spend(entry, trellis_slices(entry.shape))
        array = (self._reader.read(entry.size) if array is None else array).reshape(entry.shape)
        if form == Form.DIFFERENCE and parent is not None:
            return array + parent
        return trellis.symbols_of_levels(as_matrix(array)) if walks else array

    def _by_neighbours(self, entry: Entry, parent: IntTensor | None) -> IntTensor:
        rule = NeighbourRule.read(self._reader.bits)
        shape = view_shape(entry.shape)
        skew = skews(rule, shape, trellis=entry.trellis)
        if (slices := slice_count(shape, skew)) > MAX_SLICES:
            raise BitstreamError(f"tensor {entry.name!r} takes {slices} slices, allowed are {MAX_SLICES}")
        self._spend(entry, slice_cost(shape, skew))
        quantizers = 2 if entry.trellis else 1
        models = read_class_models(self._reader, quantizers * rule.classes, quantizers=quantizers, moved=rule.predicts)
        coder = ClassCoder(models, trellis=entry.trellis)
        if parent is None and rule.parent_weight:
            raise BitstreamError(f"tensor {entry.name!r} is predicted from a parent that it does not have")
        before = None if parent is None else parent.reshape(shape)
        decoder = NeighbourDecoder(rule, shape, skew, parent=before, trellis=entry.trellis)
        with coder_errors():
            return decoder.decode(self._reader, coder)

    def _own(self, entry: Entry, rule: ContextRule | None) -> IntTensor:
        if rule is None:
            raise BitstreamError(f"tensor {entry.name!r} is coded by a rule that its codec does not give")
        models = rule.models
        if models is None:
            models = read_class_models(self._reader, rule.class_count, quantizers=1, moved=False)
        coder = ClassCoder(tuple(models), trellis=False)
        with coder_errors():
            return decode_by_rule(self._reader, coder, rule, entry.size)

    def _spend(self, entry: Entry, slices: int) -> None:
        self._slices_left -= slices
        if self._slices_left < 0:
            raise BitstreamError(f"tensor {entry.name!r} takes {slices} slices, more than a stream of its size may")
