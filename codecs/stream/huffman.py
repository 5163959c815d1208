"""One Huffman code for all symbols of a network, as NeRV counts its bits, but with everything paid.

Chen et al., "NeRV: Neural Representations for Videos" (NeurIPS 2021), section 3.3, build one Huffman code over all
quantized weights and count the bits of its words. Here the table of the code is in the bytes too, and the zeros of
pruned weights are symbols like others.

| bytes | field      | meaning                                                                             |
|-------|------------|-------------------------------------------------------------------------------------|
| v     | table size | varint, bytes of the table                                                          |
| ...   | table      | bits, zero-padded (Exp-Golomb codes of order k, EGk, as in `varbits`): how many     |
|       |            | distinct symbols, EG4; for each, ascending: the first symbol itself, signed EG4, or |
|       |            | its distance from the one before, less 1, EG0; and the length of its word less the  |
|       |            | length before (0 at first), signed EG0                                              |
| ...   | words      | of `prefix_code`, most significant bit first, zero-padded to a whole byte           |

A code has 0 to 65535 symbols with words of 1 to 20 bits, whose sum of 2**-length is one; the word of a symbol that
is alone has no bits.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from framefold.codecs.network import IntTensor
from framefold.codecs.stream.prefix_code import Ints, PrefixCode
from framefold.codecs.stream.symbol_counts import Counts
from framefold.codecs.stream.symbol_lists import join, split
from framefold.codecs.stream.symbol_models import MAX_SYMBOL
from framefold.codecs.stream.varbits import BitReader, BitstreamError, BitWriter
from framefold.codecs.stream.varbytes import Cursor, pack_varint

MAX_LENGTH = 20
"""Bits of the longest word: symbols rarer than one in a million pay as if they were not so rare."""
MAX_TABLE = 2**18
"""Bytes of a table that a reader looks into; the largest possible table is smaller."""


def encode(arrays: Sequence[IntTensor]) -> bytes:
    """Code int32 arrays, |symbol| < 2**15; their sizes are for the caller to remember."""
    symbols = join(arrays)
    code = build_code(symbols)
    table = _write_table(code)
    return pack_varint(len(table)) + table + code.pack(symbols)


def decode(data: bytes, sizes: Sequence[int]) -> list[IntTensor]:
    """Give back int32 arrays of these sizes, in one dimension; BitstreamError for other bytes.

    Memory is bounded by the data, the sizes and some 64 MB; more symbols than there are bits are refused at once.
    """
    cursor = Cursor(data)
    table_size = cursor.varint("table size")
    if table_size > MAX_TABLE:
        raise BitstreamError(f"the code table claims {table_size} bytes, allowed is up to {MAX_TABLE}")
    code = _read_table(cursor.take(table_size, "code table"))
    return split(code.unpack(cursor.rest(), sum(sizes)), sizes)


def build_code(symbols: IntTensor) -> PrefixCode:
    """Make the code of least total length (Huffman 1952) for int32 symbols (n,), words of up to MAX_LENGTH bits."""
    if not symbols.size:
        return PrefixCode(symbols=np.zeros(0, np.int64), lengths=np.zeros(0, np.int64))
    counts = Counts.of(symbols)
    frequencies = counts.counts
    lengths = _word_lengths(frequencies)
    while lengths.max() > MAX_LENGTH:  # flatter counts give a flatter tree
        frequencies = (frequencies + 1) // 2
        lengths = _word_lengths(frequencies)
    return PrefixCode(symbols=counts.values, lengths=lengths)


def _word_lengths(frequencies: Ints) -> Ints:
    """Join the two rarest nodes until one is left; the depths of the leaves, int64 (n,)."""
    count = frequencies.size
    heap = [(frequency, node) for node, frequency in enumerate(frequencies.tolist())]
    heapq.heapify(heap)
    children = []
    for joined in range(count, 2 * count - 1):
        rarest, left = heapq.heappop(heap)
        second, right = heap[0]
        heapq.heapreplace(heap, (rarest + second, joined))
        children.append((left, right))
    depths = np.zeros(2 * count - 1, dtype=np.int64)
    for joined, pair in zip(range(2 * count - 2, count - 1, -1), reversed(children), strict=True):
        depths[list(pair)] = depths[joined] + 1
    return depths[:count]


def _write_table(code: PrefixCode) -> bytes:
    bits = BitWriter()
    bits.exp_golomb(code.symbols.size, order=4)
    before, length_before = 0, 0
    for index, (symbol, length) in enumerate(zip(code.symbols.tolist(), code.lengths.tolist(), strict=True)):
        if index:
            bits.exp_golomb(symbol - before - 1, order=0)
        else:
            bits.signed(symbol, order=4)
        bits.signed(length - length_before, order=0)
        before, length_before = symbol, length
    return bits.getvalue()


def _read_table(table: bytes) -> PrefixCode:
    bits = BitReader(table)
    count = bits.exp_golomb(order=4)
    if count > min(2 * MAX_SYMBOL + 1, bits.bits_left):
        raise BitstreamError(f"the code table claims {count} symbols in {len(table)} bytes")
    symbols, lengths = np.zeros((2, count), dtype=np.int64)
    symbol, length = 0, 0
    for index in range(count):
        symbol = symbol + 1 + bits.exp_golomb(order=0) if index else bits.signed(order=4)
        length += bits.signed(order=0)
        if abs(symbol) > MAX_SYMBOL or not 0 <= length <= MAX_LENGTH:
            raise BitstreamError(f"the code table gives symbol {symbol} a word of {length} bits")
        symbols[index], lengths[index] = symbol, length
    bits.finish()
    if count and np.ldexp(1.0, -lengths).sum() != 1:
        raise BitstreamError("the lengths in the code table make no complete prefix code")
    return PrefixCode(symbols=symbols, lengths=lengths)
