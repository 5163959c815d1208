"""Integers to bits and back: one range coder for everything that is written, one model for each array or class.

A `SymbolWriter` takes arrays one after another. Each gets the cheapest of the models in `symbol_models`, or one
for each class of its symbols where classes are known beforehand; the models' parameters and the escaped symbols
go to the model section, the symbols into the range coder (constriction's, with Categorical models made of
integer weights only and `perfect=False`: that path uses nothing but +, *, / and truncation in float64, so a
table is the same on every machine).

Corrupt bytes decode to wrong symbols or raise BitstreamError; telling wrong symbols from right ones is for
the checksum around the stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import constriction
import numpy as np
import numpy.typing as npt

from framefold.codecs.network import IntTensor
from framefold.codecs.stream.curve_costs import ESCAPE_ORDER
from framefold.codecs.stream.model_choice import Effort, choose_model
from framefold.codecs.stream.prepared_models import Prepared, coder_errors, prepare
from framefold.codecs.stream.range_words import is_exhausted, pad_words, shortest_words
from framefold.codecs.stream.symbol_counts import Counts
from framefold.codecs.stream.symbol_models import MAX_SYMBOL, Curve, Model, read_model
from framefold.codecs.stream.varbits import BitReader, BitstreamError, BitWriter

Classes = npt.NDArray[np.uint8]

FIRST_SCALE = 40
"""Where the scale of a stream's first curve is counted from: a half-life of four symbols."""

_BLOCK = 2**24
"""Symbols coded in one call: bounds the index arrays that are needed beside the symbols."""


class SymbolWriter:
    """Collects integer arrays."""

    def __init__(self, *, effort: Effort = "best") -> None:
        self._effort: Effort = effort
        self.bits = BitWriter()
        """The model section, open for other small numbers in between."""
        self.near = FIRST_SCALE
        """What the next curve's scale is written against: the scale of the latest."""
        self.table_entries = 0
        """Entries of all tables that a reader will have to make."""
        self._coder = constriction.stream.queue.RangeEncoder()

    def write(
        self,
        symbols: npt.NDArray[np.int32],
        *,
        classes: Classes | None = None,
        models: Sequence[Model] | None = None,
    ) -> None:
        """Code int32 symbols, |symbol| < 2**15, in C order; their number is for the caller to remember.

        With `classes` (uint8, the symbols' shape) each class is coded by itself, the smallest first. With
        `models`, one for each class that may occur (class 0 where there are none), nothing is chosen or written
        down: the reader knows them too.
        """
        if not symbols.size:
            return
        check_symbols(symbols)
        flat = symbols.reshape(-1)
        for number, members in _groups(flat.size, classes):
            part = flat if members is None else flat[members]
            self.put(part, prepare(models[number] if models else self.choose(part)))

    def choose(self, symbols: IntTensor) -> Model:
        """Write down the cheapest model for symbols, at least one."""
        model, _ = choose_model(Counts.of(symbols), self.near, effort=self._effort)
        self.write_model(model)
        return model

    def write_model(self, model: Model, *, near: int | None = None) -> None:
        """Write down a model, its scale against `near` or the latest one."""
        model.write(self.bits, near=self.near if near is None else near)
        if isinstance(model, Curve):
            self.near = model.scale

    def put(self, symbols: IntTensor, prepared: Prepared) -> None:
        """Code flat int32 symbols under a model that the reader knows; ValueError if it cannot hold them."""
        self.table_entries += prepared.size
        for start in range(0, symbols.size, _BLOCK):
            block = symbols[start : start + _BLOCK]
            index = block - np.int32(prepared.lowest)
            unknown = index.view(np.uint32) >= prepared.symbol_count  # negative ones are large then
            if unknown.any():
                if not prepared.escapes:
                    raise ValueError(f"symbol {int(block[unknown][0])} is none of the model's, which has no escape")
                index[unknown] = prepared.symbol_count
                self.escape(block[unknown])
            if prepared.categorical:
                with coder_errors():
                    self._coder.encode(index, prepared.categorical)

    def put_parts(self, index: IntTensor, starts: list[int], categoricals: list[Any]) -> None:
        """Code places in tables, part after part: the fast path of `put`, escapes and errors are for the caller.

        Part i begins at starts[i] and ends where the next one begins; a model of None is a constant's.
        """
        encode = self._coder.encode
        for start, end, categorical in zip(starts, [*starts[1:], index.size], categoricals, strict=True):
            if categorical:
                encode(index[start:end], categorical)

    def escape(self, symbols: IntTensor) -> None:
        """Write down symbols that a table lacks."""
        for symbol in symbols.tolist():
            self.bits.signed(symbol, order=ESCAPE_ORDER)

    def finish(self) -> tuple[bytes, bytes]:
        """Give the model section, and the range coder's bytes."""
        return self.bits.getvalue(), shortest_words(self._coder)


class SymbolReader:
    """Gives back the arrays of a `SymbolWriter`, in the same order."""

    def __init__(
        self, model_section: bytes, words: bytes, *, version: int = 2, max_table_entries: int | None = None
    ) -> None:
        self.bits = BitReader(model_section)
        """The model section."""
        self._entries_left = max_table_entries
        self.near = FIRST_SCALE
        """What the next curve's scale is counted from; in version 1 each is whole."""
        self._version = version
        if version == 1 and len(words) % 4:
            raise BitstreamError(f"the coded symbols are {len(words)} bytes, not a multiple of 4")
        if version == 1:
            self._coder = constriction.stream.queue.RangeDecoder(np.frombuffer(words, "<u4").astype(np.uint32))
        else:
            self._coder = constriction.stream.queue.RangeDecoder(pad_words(words.rstrip(b"\0")))

    def read(self, count: int, *, classes: Classes | None = None, models: Sequence[Model] | None = None) -> IntTensor:
        """Decode the next `count` symbols, int32; the caller has bounded their number."""
        symbols = np.empty(count, dtype=np.int32)
        for number, members in _groups(count, classes):
            prepared = prepare(models[number] if models else self.read_model())
            if members is None:
                self.get(symbols, prepared)
            else:
                part = np.empty(members.size, dtype=np.int32)
                self.get(part, prepared)
                symbols[members] = part
        return symbols

    def read_model(self, *, near: int | None = None) -> Model:
        """Read a model, its scale against `near` or the latest one."""
        if self._version == 1:
            return read_model(self.bits)
        model = read_model(self.bits, near=self.near if near is None else near)
        if isinstance(model, Curve):
            self.near = model.scale
        return model

    def get(self, out: IntTensor, prepared: Prepared) -> None:
        """Decode as many symbols as flat int32 `out` holds."""
        self.spend(prepared.size)
        for start in range(0, out.size, _BLOCK):
            block = out[start : start + _BLOCK]
            block[:] = prepared.lowest
            if not prepared.categorical:
                continue
            with coder_errors():
                index = self.get_index(prepared.categorical, block.size)
            block += index
            if prepared.escapes:
                unknown = np.flatnonzero(index == prepared.symbol_count)
                block[unknown] = self.escaped(unknown.size)

    def spend(self, entries: int) -> None:
        """Count a table that was made; BitstreamError if there are too many for so short a stream."""
        if self._entries_left is not None:
            self._entries_left -= entries
            if self._entries_left < 0:
                raise BitstreamError("the stream takes more and larger tables than one of its size may")

    def get_index(self, categorical: Any, count: int) -> IntTensor:
        """Decode places in a table: the fast path of `get`, escapes and errors are for the caller."""
        index: IntTensor = self._coder.decode(categorical, count)
        return index

    def escaped(self, count: int, *, limit: int = MAX_SYMBOL) -> list[int]:
        """Read symbols that a table lacked."""
        symbols = [self.bits.signed(order=ESCAPE_ORDER) for _ in range(count)]
        if symbols and abs(worst := max(symbols, key=abs)) > limit:
            raise BitstreamError(f"the escaped symbol {worst} is outside -{limit} .. {limit}")
        return symbols

    def finish(self) -> None:
        """Check that both sections have been read to their ends."""
        self.bits.finish()
        with coder_errors():
            exhausted = self._coder.maybe_exhausted() if self._version == 1 else is_exhausted(self._coder)
        if not exhausted:
            raise BitstreamError("coded words are left over behind the last symbol")


def check_symbols(symbols: IntTensor) -> None:
    """ValueError for symbols (at least one) that cannot be coded."""
    if symbols.dtype != np.int32:
        raise ValueError(f"symbols are {symbols.dtype}, the coder takes int32; convert them first")
    lowest, highest = int(symbols.min()), int(symbols.max())
    if lowest < -MAX_SYMBOL or highest > MAX_SYMBOL:
        raise ValueError(
            f"symbols span {lowest} .. {highest}, the coder takes -{MAX_SYMBOL} .. {MAX_SYMBOL}; use a larger step"
        )


def _groups(count: int, classes: Classes | None) -> Iterator[tuple[int, npt.NDArray[np.intp] | None]]:
    """Each class that occurs, and where; everything together as class 0 where there are no classes."""
    if not count:
        return
    if classes is None:
        yield 0, None
        return
    flat = classes.reshape(-1)
    if flat.size != count:
        raise ValueError(f"{flat.size} classes for {count} symbols; there must be one for each")
    order = np.argsort(flat, kind="stable")
    ends = np.cumsum(np.bincount(flat))
    for number in np.flatnonzero(np.diff(ends, prepend=0)).tolist():
        yield number, order[ends[number - 1] if number else 0 : ends[number]]
