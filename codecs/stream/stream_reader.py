"""Taking one stream of version 2 apart."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from framefold.codecs.network import FloatTensor, IntTensor, Parent, QuantizedTensor
from framefold.codecs.stream.contexts import ContextRules
from framefold.codecs.stream.directory import Entry, check_entries, read_directory
from framefold.codecs.stream.entropy import SymbolReader
from framefold.codecs.stream.step_coding import StepReader, same_steps
from framefold.codecs.stream.stream_layout import (
    BYTES_PER_SLICE,
    ENTRIES_PER_BYTE,
    FREE_ENTRIES,
    FREE_SLICES,
    NAMED_CODERS,
    Flags,
    Head,
    base_entry,
    entry_of,
    least_bytes,
)
from framefold.codecs.stream.tensor_forms import Form, read_form
from framefold.codecs.stream.tensor_reader import TensorReader
from framefold.codecs.stream.varbits import BitstreamError
from framefold.codecs.stream.varbytes import Cursor

Tensors = dict[str, QuantizedTensor]


@dataclass(frozen=True, kw_only=True)
class Line:
    """What is known of a tensor before its symbols."""

    entry: Entry
    steps: FloatTensor
    base: IntTensor | None
    """The parent's symbols, where they may be subtracted."""
    form: Form


class StreamReader:
    """All that follows the head of one stream."""

    def __init__(self, cursor: Cursor, head: Head, parent: Parent | None, *, size: int, rules: ContextRules) -> None:
        self._parent, self._rules, self._size = parent, rules, size
        self._named = NAMED_CODERS.get(head.coder)
        section = cursor.take(cursor.varint("model size"), "model section")
        words = cursor.rest() if self._named is None else cursor.take(cursor.varint("words size"), "words")
        max_entries = FREE_ENTRIES + ENTRIES_PER_BYTE * size
        self._reader = SymbolReader(section, words, max_table_entries=max_entries)
        self._coded = cursor.rest()

    def read(self, max_elements: int) -> Tensors:
        """Give the tensors; BitstreamError says why there are none."""
        bits = self._reader.bits
        entries = self._directory(max_elements)
        flags = Flags.read(bits, named=self._named is not None)
        if flags.trellis:
            entries = [replace(entry, trellis=bool(bits.unsigned(width=1))) for entry in entries]
        steps = StepReader(self._reader, all_on_grid=flags.all_on_grid)
        tensors = TensorReader(self._reader, FREE_SLICES + self._size // BYTES_PER_SLICE)
        if self._named is None:
            read = {entry.name: self._tensor(self._line(entry, flags, steps), tensors) for entry in entries}
            self._reader.finish()
            return read
        lines = [self._line(entry, flags, steps) for entry in entries]
        self._reader.finish()
        arrays = self._named.decode(self._coded, [entry.size for entry in entries if entry.size])
        return {line.entry.name: self._tensor(line, tensors, arrays) for line in lines}

    def _directory(self, max_elements: int) -> list[Entry]:
        bits = self._reader.bits
        if self._parent and bits.unsigned(width=1):
            entries = [entry_of(name, tensor) for name, tensor in self._parent.tensors.items()]
            check_entries(entries, max_elements)
        else:
            entries = read_directory(bits, max_elements)
        if (least := least_bytes(sum(entry.size + entry.step_count for entry in entries))) > self._size:
            raise BitstreamError(f"the stream claims tensors that take {least} bytes at least, it has {self._size}")
        return entries

    def _line(self, entry: Entry, flags: Flags, steps: StepReader) -> Line:
        known = base_entry(entry, self._parent)
        if known is not None and self._reader.bits.unsigned(width=1):
            if not same_steps(known, entry, known.steps):
                raise BitstreamError(f"tensor {entry.name!r} cannot have its parent's steps, they are of another axis")
            own, base = known.steps, known.symbols
        else:
            own, base = steps.read(entry), None
        form = read_form(self._reader.bits, flags.forms(entry, base)) if entry.size else Form.PLAIN
        return Line(entry=entry, steps=own, base=base, form=form)

    def _tensor(self, line: Line, tensors: TensorReader, arrays: list[IntTensor] | None = None) -> QuantizedTensor:
        entry = line.entry
        if not entry.size:
            symbols = np.zeros(entry.shape, dtype=np.int32)
        else:
            array = arrays.pop(0) if arrays is not None else None
            rule = self._rules(entry.name, entry.shape) if line.form == Form.OWN else None
            symbols = tensors.read(entry, line.form, line.base, rule, array)
        return QuantizedTensor(symbols=symbols, steps=line.steps, axis=entry.channel_axis or 0, trellis=entry.trellis)
