"""Canonical prefix codes (Schwartz and Kallick 1964): words of bits for symbols, given by their lengths alone.

Words of one length are consecutive numbers in the order of their symbols, and longer words follow shorter ones.
Reading looks up what the word would be at each bit, thousands at once, then steps from word to word.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from framefold.codecs.network import IntTensor
from framefold.codecs.stream.varbits import BitstreamError

_BLOCK = 2**20  # symbols written or bits read at once: bounds the memory

Ints = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.uint32]


@dataclass(frozen=True, kw_only=True)
class PrefixCode:
    """A complete code: each sequence of bits begins with one of its words."""

    symbols: Ints = field(repr=False)
    """int64 (n,), ascending."""
    lengths: Ints = field(repr=False)
    """int64 (n,): bits of their words, 1 .. 20; 0 for a symbol that is alone."""

    def pack(self, symbols: IntTensor) -> bytes:
        """Write the words of int32 symbols (n,) that the code has, most significant bits first."""
        if not self.longest:
            return b""
        lowest = int(self.symbols[0])
        place = np.zeros(int(self.symbols[-1]) - lowest + 1, dtype=np.int32)
        place[self.symbols - lowest] = np.arange(self.symbols.size)
        parts, rest = [], np.zeros(0, dtype=np.uint8)
        for start in range(0, symbols.size, _BLOCK):
            index = place[symbols[start : start + _BLOCK] - lowest]
            bits = np.concatenate([rest, _word_bits(self._words[index], self.lengths[index])])
            whole = bits.size // 8 * 8
            parts.append(np.packbits(bits[:whole]).tobytes())
            rest = bits[whole:]
        return b"".join([*parts, np.packbits(rest).tobytes()])

    def unpack(self, words: bytes, count: int) -> IntTensor:
        """Read `count` words: int32 (count,); BitstreamError if there are fewer, or more than zeros behind them."""
        if count and not self.symbols.size:
            raise BitstreamError(f"{count} symbols are expected, the code has none")
        if self.longest and count > 8 * len(words):
            raise BitstreamError(f"{count} words cannot be in {len(words)} bytes")
        if not self.longest or not count:
            _check_end(words, 0)
            return np.full(count, self.symbols[0] if count else 0, dtype=np.int32)
        return self._read(words, count)

    @cached_property
    def longest(self) -> int:
        """Bits of the longest word; 0 if there is nothing to tell apart."""
        return int(self.lengths.max(initial=0))

    @cached_property
    def _order(self) -> Ints:
        """Indices of the symbols in the order of their words."""
        return np.argsort(self.lengths, kind="stable")

    @cached_property
    def _spans(self) -> Ints:
        """In that order: how many numbers of `longest` bits begin with the word."""
        spans: Ints = 1 << (self.longest - self.lengths[self._order])
        return spans

    @cached_property
    def _words(self) -> Ints:
        """The words as numbers, in the order of the symbols."""
        starts = np.empty_like(self.symbols)
        starts[self._order] = np.cumsum(self._spans) - self._spans
        words: Ints = starts >> (self.longest - self.lengths)
        return words

    def _read(self, words: bytes, count: int) -> IntTensor:
        length_of = np.repeat(self.lengths[self._order].astype(np.uint8), self._spans)
        symbol_of = np.repeat(self.symbols[self._order].astype(np.int32), self._spans)
        symbols, found, position = np.empty(count, dtype=np.int32), 0, 0
        for first, windows in _windows(words, self.longest):
            places, position = _walk(length_of[windows].tobytes(), position - first, count - found)
            symbols[found : found + len(places)] = symbol_of[windows[places]]
            found, position = found + len(places), position + first
            if found == count:
                break
        if found < count:
            raise BitstreamError(f"the words end after {found} of {count} symbols")
        _check_end(words, position)
        return symbols


def _word_bits(words: Ints, lengths: Ints) -> Bits:
    """Write words behind one another, one bit per element."""
    last = np.cumsum(lengths) - 1
    bits = np.empty(int(last[-1]) + 1, dtype=np.uint8)
    for place in range(int(lengths.max())):  # from the last bit of each word on
        longer = lengths > place
        bits[last[longer] - place] = words[longer] >> place & 1
    return bits


def _windows(words: bytes, width: int) -> Iterator[tuple[int, Numbers]]:
    """Give for each bit the number of `width` <= 24 bits that begins there, zeros behind the end.

    Block by block, with the number of the block's first bit.
    """
    padded = np.frombuffer(words + bytes(3), np.uint8).astype(np.uint32)
    for first in range(0, len(words), _BLOCK // 8):
        end = min(first + _BLOCK // 8, len(words))
        four_bytes = np.zeros((end - first, 1), dtype=np.uint32)
        for byte in range(4):
            four_bytes[:, 0] |= padded[first + byte : end + byte] << np.uint32(24 - 8 * byte)
        yield 8 * first, (four_bytes << np.arange(8, dtype=np.uint32) >> np.uint32(32 - width)).reshape(-1)


def _walk(lengths: bytes, position: int, most: int) -> tuple[list[int], int]:
    """Step from word to word, `lengths` at each bit being known: where up to `most` begin, and the last ends."""
    places: list[int] = []
    while position < len(lengths):
        places.append(position)
        position += lengths[position]
    if len(places) > most:
        position = places[most]
    return places[:most], position


def _check_end(words: bytes, position: int) -> None:
    left = 8 * len(words) - position
    if not 0 <= left < 8 or (left and words[-1] & (1 << left) - 1):
        raise BitstreamError(f"the last word ends at bit {position} of {8 * len(words)}, only padding may follow it")
