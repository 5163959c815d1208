"""Integers to bits and back: one range coder for everything that is written, one model for each array.

A `SymbolWriter` takes arrays one after another. Each gets the cheapest of the models in `symbol_models`; the
model's parameters and the escaped symbols go to the model section, the symbols into the range coder
(constriction's, with Categorical models made of integer weights only and `perfect=False`: that path uses
nothing but +, *, / and truncation in float64, so a table is the same on every machine).

Corrupt bytes decode to wrong symbols or raise BitstreamError; telling wrong symbols from right ones is for
the checksum around the stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import constriction
import numpy as np
import numpy.typing as npt

from framefold.codecs.model_choice import ESCAPE_ORDER, choose_model
from framefold.codecs.network import IntTensor
from framefold.codecs.symbol_models import MAX_SYMBOL, Table, read_model
from framefold.codecs.varbits import BitReader, BitstreamError, BitWriter

_BLOCK = 2**24
"""Symbols coded in one call: bounds the index arrays that are needed beside the symbols."""


class SymbolWriter:
    """Collects integer arrays."""

    def __init__(self) -> None:
        self.bits = BitWriter()
        """The model section, open for other small numbers in between."""
        self._coder = constriction.stream.queue.RangeEncoder()

    def write(self, symbols: npt.NDArray[np.int32]) -> None:
        """Code int32 symbols, |symbol| < 2**15, in C order; their number is for the caller to remember."""
        if not symbols.size:
            return
        _check_symbols(symbols)
        model = choose_model(symbols)
        model.write(self.bits)
        table, flat = model.table(), symbols.reshape(-1)
        if table.weights.size > 1:
            categorical = _categorical(table)
            for start in range(0, flat.size, _BLOCK):
                self._write_block(flat[start : start + _BLOCK], table, categorical)

    def finish(self) -> tuple[bytes, bytes]:
        """Give the model section, and the range coder's words (uint32, little-endian)."""
        return self.bits.getvalue(), self._coder.get_compressed().astype("<u4").tobytes()

    def _write_block(self, block: IntTensor, table: Table, categorical: Any) -> None:
        index = block - np.int32(table.lowest)
        unknown = (index < 0) | (index >= table.symbol_count)
        index[unknown] = table.symbol_count
        with _coder_errors():
            self._coder.encode(index, categorical)
        for symbol in block[unknown].tolist():
            self.bits.signed(symbol, order=ESCAPE_ORDER)


class SymbolReader:
    """Gives back the arrays of a `SymbolWriter`, in the same order."""

    def __init__(self, model_section: bytes, words: bytes) -> None:
        self.bits = BitReader(model_section)
        """The model section."""
        if len(words) % 4:
            raise BitstreamError(f"the coded symbols are {len(words)} bytes, not a multiple of 4")
        self._coder = constriction.stream.queue.RangeDecoder(np.frombuffer(words, "<u4").astype(np.uint32))

    def read(self, count: int) -> IntTensor:
        """Decode the next `count` symbols, int32; the caller has bounded their number."""
        if not count:
            return np.zeros(0, dtype=np.int32)
        table = read_model(self.bits).table()
        symbols = np.full(count, table.lowest, dtype=np.int32)
        if table.weights.size > 1:
            categorical = _categorical(table)
            for start in range(0, count, _BLOCK):
                self._read_block(symbols[start : start + _BLOCK], table, categorical)
        return symbols

    def finish(self) -> None:
        """Check that both sections have been read to their ends."""
        self.bits.finish()
        if not self._coder.maybe_exhausted():
            raise BitstreamError("coded words are left over behind the last symbol")

    def _read_block(self, block: IntTensor, table: Table, categorical: Any) -> None:
        with _coder_errors():
            index = self._coder.decode(categorical, block.size)
        block += index
        if table.escapes:
            for place in np.flatnonzero(index == table.symbol_count).tolist():
                block[place] = self._escaped()

    def _escaped(self) -> int:
        symbol = self.bits.signed(order=ESCAPE_ORDER)
        if abs(symbol) > MAX_SYMBOL:
            raise BitstreamError(f"the escaped symbol {symbol} is outside -{MAX_SYMBOL} .. {MAX_SYMBOL}")
        return symbol


def _check_symbols(symbols: IntTensor) -> None:
    if symbols.dtype != np.int32:
        raise ValueError(f"symbols are {symbols.dtype}, the coder takes int32; convert them first")
    lowest, highest = int(symbols.min()), int(symbols.max())
    if lowest < -MAX_SYMBOL or highest > MAX_SYMBOL:
        raise ValueError(
            f"symbols span {lowest} .. {highest}, the coder takes -{MAX_SYMBOL} .. {MAX_SYMBOL}; use a larger step"
        )


def _categorical(table: Table) -> Any:
    with _coder_errors():
        return constriction.stream.model.Categorical(table.weights.astype(np.float64), perfect=False)


@contextmanager
def _coder_errors() -> Iterator[None]:
    """Turn what the coder raises into BitstreamError, its PanicException (a BaseException) included."""
    try:
        yield
    except (MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise BitstreamError(f"the entropy coder refuses the stream: {error}") from error
