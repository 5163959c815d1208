"""One Huffman code for a network: lossless, of least length, all paid, calm about damage."""

from __future__ import annotations

import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framefold.codecs.stream import huffman, prefix_code
from framefold.codecs.stream.huffman import MAX_LENGTH, build_code, decode, encode
from framefold.codecs.stream.symbol_models import MAX_SYMBOL
from framefold.codecs.stream.varbits import BitstreamError, BitWriter
from framefold.codecs.stream.varbytes import pack_varint

SYMBOL = st.one_of(st.integers(-2, 2), st.integers(-MAX_SYMBOL, MAX_SYMBOL))


def arrays_of(*lists):
    return [np.array(values, dtype=np.int32) for values in lists]


def round_trip(arrays):
    data = encode(arrays)
    decoded = decode(data, [array.size for array in arrays])
    assert len(decoded) == len(arrays)
    for array, other in zip(arrays, decoded, strict=True):
        assert other.dtype == np.int32
        assert np.array_equal(array.reshape(-1), other)
    return data


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(SYMBOL, max_size=40), max_size=5))
def test_whatever_goes_in_comes_out(lists):
    round_trip(arrays_of(*lists))


@pytest.mark.parametrize("lists", [[], [[]], [[], []], [[7]], [[0] * 1000], [[-MAX_SYMBOL], [MAX_SYMBOL]]])
def test_few_or_equal_symbols_take_next_to_nothing(lists):
    assert len(round_trip(arrays_of(*lists))) < 12


def test_arrays_of_any_shape_are_coded_in_c_order():
    array = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
    assert encode([array]) == encode([array.reshape(-1)])
    assert encode([array.T]) != encode([array])


def test_golden_bytes():
    arrays = arrays_of([0, 0, 1, 0, -1, 0, 0, 2], [], [-3, 0])
    table = "1010110101 00111010 11 001001 001011 1"  # how many; -3, -1, 0, 1 and 2 with their lengths
    words = "0 0 110 0 101 0 0 111100 0"
    parts = [string.replace(" ", "").ljust(size, "0") for string, size in ((table, 40), (words, 24))]
    data = bytes([5]) + int("".join(parts), 2).to_bytes(8, "big")
    assert encode(arrays) == data
    assert [array.tolist() for array in decode(data, [8, 0, 2])] == [array.tolist() for array in arrays]


def least_bits(counts):
    """Each symbol adds a bit whenever its group is joined with another one."""
    heap, bits = sorted(counts), 0
    while len(heap) > 1:
        joined = heapq.heappop(heap) + heapq.heappop(heap)
        bits += joined
        heapq.heappush(heap, joined)
    return bits


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 500), min_size=2, max_size=30))
def test_no_prefix_code_is_shorter(counts):
    code = build_code(np.repeat(np.arange(len(counts)), counts).astype(np.int32))
    assert int(code.lengths @ np.array(counts)) == least_bits(counts)


def test_weights_of_a_network_take_their_entropy_and_a_small_table():
    symbols = np.rint(np.random.default_rng(0).laplace(scale=8, size=60_000)).astype(np.int32)
    counts = np.unique(symbols, return_counts=True)[1]
    entropy = -(counts * np.log2(counts / counts.sum())).sum() / 8
    table = len(encode([symbols])) - len(build_code(symbols).pack(symbols))
    assert table < counts.size
    assert entropy < len(round_trip([symbols[:20_000], symbols[20_000:]])) < 1.01 * entropy + table


def test_words_are_never_longer_than_the_format_allows():
    counts = [1, 1]
    while len(counts) < 24:
        counts.append(counts[-1] + counts[-2])  # Fibonacci's numbers make the deepest tree
    symbols = np.repeat(np.arange(24), counts).astype(np.int32)
    assert build_code(symbols).longest <= MAX_LENGTH
    round_trip([symbols])


def test_blocks_join_without_a_seam(monkeypatch):
    symbols = np.rint(np.random.default_rng(1).normal(scale=4, size=3000)).astype(np.int32)
    whole = encode([symbols])
    monkeypatch.setattr(prefix_code, "_BLOCK", 64)
    assert round_trip([symbols]) == whole


def test_symbols_that_no_stream_holds_are_refused():
    with pytest.raises(ValueError, match="int64"):
        encode([np.zeros(3, dtype=np.int64)])
    with pytest.raises(ValueError, match="32768"):
        encode(arrays_of([0, 2**15]))


# ---- damage


def survives(data, sizes):
    """Either arrays of the right sizes or BitstreamError."""
    try:
        arrays = decode(data, sizes)
    except BitstreamError:
        return
    assert [array.size for array in arrays] == list(sizes)
    assert max((int(np.abs(array).max(initial=0)) for array in arrays), default=0) <= MAX_SYMBOL


def test_every_cut_and_every_added_byte_is_noticed():
    arrays = arrays_of([3, 1, 4, 1, 5, -9, 2, 6, 5, 3, 5] * 3, [0] * 30)
    data = encode(arrays)
    for length in range(len(data)):
        with pytest.raises(BitstreamError):
            decode(data[:length], [33, 30])
    for tail in (b"\0", b"\1"):
        with pytest.raises(BitstreamError):
            decode(data + tail, [33, 30])
    for sizes in ([33, 29], [33, 100], [33, 2**28], [0], []):
        with pytest.raises(BitstreamError):
            decode(data, sizes)


def test_every_wrong_bit_is_survived():
    data = encode(arrays_of([0, 1, -1, 0, 2, 0, 0, -5, 1, 0] * 4))
    for bit in range(8 * len(data)):
        wrong = bytearray(data)
        wrong[bit // 8] ^= 1 << bit % 8
        survives(bytes(wrong), [40])


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=40), st.lists(st.integers(0, 60), max_size=3))
def test_random_bytes_are_survived(data, sizes):
    survives(data, sizes)


def table_of(count, *entries):
    """A stream without words; entries are distances (the first: a symbol) and changes of length."""
    bits = BitWriter()
    bits.exp_golomb(count, order=4)
    for index, (distance, change) in enumerate(entries):
        if index:
            bits.exp_golomb(distance, order=0)
        else:
            bits.signed(distance, order=4)
        bits.signed(change, order=0)
    table = bits.getvalue()
    return pack_varint(len(table)) + table


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (table_of(2, (0, 1), (0, 1)), "prefix code"),
        (table_of(3, (0, 1), (0, 0), (0, 0)), "prefix code"),
        (table_of(1, (0, 1)), "prefix code"),
        (table_of(2, (0, 0), (0, 0)), "prefix code"),
        (table_of(2, (0, 21), (0, 0)), "21 bits"),
        (table_of(2, (0, -1), (0, 0)), "-1 bits"),
        (table_of(2, (MAX_SYMBOL, 1), (0, 0)), "32768"),
        (table_of(60_000, (0, 1)), "60000 symbols"),
        (table_of(0), "the code has none"),
        (pack_varint(2**30), "allowed is up to"),
        (pack_varint(9) + b"abc", "code table"),
    ],
)
def test_hostile_tables_are_refused_by_what_is_wrong(data, message):
    with pytest.raises(BitstreamError, match=message):
        decode(data, [5])


def test_more_symbols_than_bits_are_refused_before_any_memory_is_taken(monkeypatch):
    data = encode(arrays_of([0, 1] * 8))
    monkeypatch.setattr(huffman.PrefixCode, "_read", lambda *_: pytest.fail("memory was taken"))
    with pytest.raises(BitstreamError, match="cannot be in 2 bytes"):
        decode(data, [2**28])
