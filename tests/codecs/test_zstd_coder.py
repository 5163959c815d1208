"""Symbols through zstd: lossless, narrow where they can be, calm about damage."""

from __future__ import annotations

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from framefold.codecs.stream.symbol_models import MAX_SYMBOL
from framefold.codecs.stream.varbits import BitstreamError
from framefold.codecs.stream.zstd_coder import decode, encode

SYMBOL = st.one_of(st.integers(-130, 130), st.integers(-MAX_SYMBOL, MAX_SYMBOL))


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
@given(st.lists(st.lists(SYMBOL, max_size=40), max_size=10))
def test_whatever_goes_in_comes_out(lists):
    round_trip(arrays_of(*lists))


@pytest.mark.parametrize("lists", [[], [[]], [[], []], [[7]], [[0] * 1000], [[-MAX_SYMBOL], [MAX_SYMBOL]]])
def test_few_or_equal_symbols(lists):
    assert len(round_trip(arrays_of(*lists))) < 25


def test_only_the_arrays_that_need_it_are_two_bytes_wide():
    noise = np.random.default_rng(0).integers(-128, 128, size=3000).astype(np.int32)
    narrow, wide = len(round_trip([noise, noise[:10]])), len(round_trip([noise, noise[:10] + 200]))
    assert narrow < 3040
    assert narrow < wide < narrow + 40


def test_old_bytes_stay_readable():
    """No golden bytes of the encoder: another zstd may find shorter ones."""
    data = bytes.fromhex("4028b52ffd20547500004001ff7f802c01ff7f010009bd44")
    arrays = decode(data, [80, 2])
    assert [array.tolist() for array in arrays] == [[1, -1, 127, -128] * 20, [300, 32767]]


def test_symbols_that_no_stream_holds_are_refused():
    with pytest.raises(ValueError, match="int64"):
        encode([np.zeros(3, dtype=np.int64)])
    with pytest.raises(ValueError, match="32768"):
        encode(arrays_of([0, -(2**15)]))


# ---- damage


def survives(data, sizes):
    """Either arrays of the right sizes or BitstreamError."""
    try:
        arrays = decode(data, sizes)
    except BitstreamError:
        return
    assert [array.size for array in arrays] == list(sizes)


def test_every_cut_and_every_added_byte_is_noticed():
    data = encode(arrays_of(range(60), [300, 5]))
    for length in range(len(data)):
        with pytest.raises(BitstreamError):
            decode(data[:length], [60, 2])
    for sizes in ([60, 1], [2**27, 2**27], [62], [0, 0], []):
        with pytest.raises(BitstreamError):
            decode(data, sizes)
    for tail in (b"\0", data[1:]):
        with pytest.raises(BitstreamError):
            decode(data + tail, [60, 2])
    with pytest.raises(BitstreamError, match="left over"):
        decode(b"\0x", [0])


def test_every_wrong_bit_is_survived():
    data = encode(arrays_of([0, 1, -1, 0, 2, 0, 0, -5, 1, 0] * 4, [900]))
    for bit in range(8 * len(data)):
        wrong = bytearray(data)
        wrong[bit // 8] ^= 1 << bit % 8
        survives(bytes(wrong), [40, 1])


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=40), st.lists(st.integers(0, 60), max_size=10))
def test_random_bytes_are_survived(data, sizes):
    survives(data, sizes)


def test_a_frame_that_would_unpack_to_more_is_refused_unopened(monkeypatch):
    bomb = zstandard.ZstdCompressor().compress(bytes(2**24))
    monkeypatch.setattr(zstandard, "ZstdDecompressor", lambda: pytest.fail("the frame was opened"))
    with pytest.raises(BitstreamError, match=r"16777216 bytes .* expected are 10"):
        decode(b"\0" + bomb, [10])


def test_a_frame_that_hides_its_size_is_refused():
    hidden = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(10))
    with pytest.raises(BitstreamError):
        decode(b"\0" + hidden, [10])


def test_a_symbol_below_the_smallest_is_damage():
    frame = zstandard.ZstdCompressor().compress(b"\x00\x80")
    with pytest.raises(BitstreamError, match="32768"):
        decode(b"\x80" + frame, [1])


def test_widths_of_arrays_that_are_not_there_are_damage():
    frame = zstandard.ZstdCompressor().compress(b"\x00")
    with pytest.raises(BitstreamError, match="widths"):
        decode(b"\x40" + frame, [1])
