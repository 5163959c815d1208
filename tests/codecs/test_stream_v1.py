"""Streams of version 1: their golden bytes are read for ever, their damage is refused."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest

from framefold.codecs.clip import Source, Span
from framefold.codecs.quantizing.steps import MAX_EXPONENT, MIN_EXPONENT
from framefold.codecs.stream import bitstream, stream_v1
from framefold.codecs.stream.bitstream import BitstreamError
from framefold.codecs.stream.directory import MAX_ELEMENTS, MAX_TENSORS
from framefold.codecs.stream.symbol_models import MAX_SYMBOL
from framefold.codecs.stream.varbits import BitWriter
from framefold.codecs.stream.varbytes import Cursor, pack_varint

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = ["bitstream_v1_mixed", "bitstream_v1_small"]
SPAN = Span(source=Source(name="a.png", kind="image", sha256="0" * 64, size_bytes=1, width=1, height=1), pts=(0,))


def golden(name):
    return (GOLDEN / f"{name}.bin").read_bytes()


def decode(payload, **options):
    return bitstream.decode(payload, span=SPAN, codec="toy", config={}, **options)


def plain(symbols):
    return {
        name: {
            "shape": list(value.symbols.shape),
            "symbols": value.symbols.ravel().tolist(),
            "steps": [step.hex() for step in value.steps.tolist()],
            "axis": value.axis,
        }
        for name, value in symbols.tensors.items()
    }


def with_stored_directory(payload):
    """The same stream, its directory not compressed: damage then reaches single fields."""
    cursor = Cursor(payload[1:])
    size, stored_size = cursor.varint("size"), cursor.varint("stored size")
    directory = stream_v1._inflate(cursor.take(stored_size, "directory"), size)
    return payload[:1] + pack_varint(size) * 2 + directory + cursor.rest()


@pytest.mark.parametrize("name", NAMES)
def test_golden_bytes_still_decode_to_the_recorded_symbols(name):
    recorded = json.loads((GOLDEN / f"{name}.json").read_text())
    for payload in (golden(name), with_stored_directory(golden(name))):
        decoded = decode(payload)
        assert list(decoded.tensors) == list(recorded)
        assert plain(decoded) == recorded
    assert bitstream.parent_of(golden(name)) is None


def test_every_golden_file_of_version_1_is_tested():
    assert {path.stem for path in GOLDEN.glob("bitstream_v1_*")} == set(NAMES)


def test_every_truncation_is_refused():
    payload = golden("bitstream_v1_small")
    whole_words = [len(payload) - 4 * count for count in range(1, 4)]
    for length in range(len(payload)):
        if length not in whole_words:
            with pytest.raises(BitstreamError):
                decode(payload[:length])


def test_bytes_left_over_are_refused():
    with pytest.raises(BitstreamError):
        decode(golden("bitstream_v1_mixed") + bytes(range(1, 9)))


def test_random_damage_raises_nothing_else():
    rng = np.random.default_rng(0)
    payloads = [golden("bitstream_v1_mixed"), with_stored_directory(golden("bitstream_v1_mixed"))]
    outcomes = {"refused": 0, "decoded": 0}
    for turn in range(400):
        data = bytearray(payloads[turn % 2])
        at = int(rng.integers(0, 300 if turn % 4 > 1 else len(data)))
        if turn % 3:
            data[at] = rng.integers(0, 256)
        else:
            del data[at : at + int(rng.integers(1, 6))]
        try:
            decoded = decode(bytes(data), max_elements=20_000)
        except BitstreamError:
            outcomes["refused"] += 1
        else:
            outcomes["decoded"] += 1
            assert all(np.abs(value.symbols).max(initial=0) <= MAX_SYMBOL for value in decoded.tensors.values())
    assert min(outcomes.values()) > 30


def stored(plain):
    """A directory that is not compressed."""
    return pack_varint(len(plain)) * 2 + plain


def unpack(data):
    return stream_v1.unpack_directory(Cursor(data), MAX_ELEMENTS)


def stream(section):
    """One tensor "w" of shape (2, 3) with one step, then a model section."""
    return b"\x01" + stored(b"\x01\x01w\x20\x02\x03") + pack_varint(len(section)) + section


def test_an_impossible_step_is_refused():
    for step in (0, 0x7F800000, 0x7FC00000, 0x80000001):
        writer = BitWriter()
        writer.unsigned(0, width=1)
        writer.unsigned(step, width=32)
        with pytest.raises(BitstreamError, match="'w': a step is not a positive number"):
            decode(stream(writer.getvalue()))
    for exponent in (MIN_EXPONENT - 1, MAX_EXPONENT + 1):
        writer = BitWriter()
        writer.unsigned(1, width=1)
        writer.unsigned(0, width=2)
        writer.signed(exponent - stream_v1.FIRST_EXPONENT, order=4)
        writer.exp_golomb(0, order=3)
        with pytest.raises(BitstreamError, match="'w': a step is outside"):
            decode(stream(writer.getvalue()))


def test_a_decompression_bomb_is_cut_off():
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = packer.compress(bytes(10**7)) + packer.flush()
    with pytest.raises(BitstreamError, match="does not unpack to the 1000000 bytes"):
        unpack(pack_varint(10**6) + pack_varint(len(bomb)) + bomb)
    with pytest.raises(BitstreamError, match="claims 10000000 bytes"):
        unpack(pack_varint(10**7) + pack_varint(len(bomb)) + bomb)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "ends within its directory size"),
        (b"\xff\xff\xff\xff\xff\x01", "more than five bytes"),
        (b"\x05\x05\x01", "ends within its directory: 1 of 5"),
        (b"\x03\x04....", "claims 3 bytes in 4"),
        (b"\x09\x03\xff\xff\xff", "directory is damaged"),
        (stored(pack_varint(MAX_TENSORS + 1)), "claims 4097 tensors"),
        (stored(b"\x01\x02\xff\xff\x00"), "not UTF-8"),
        (stored(b"\x01\x01w\x00!"), "left over behind the directory"),
        (stored(b"\x01\x01w\x10"), "ends within its dimension"),
        (stored(b"\x01\x01w\x90" + b"\x01" * 9), "9 dimensions, allowed are 8"),
        (stored(b"\x01\x01w\x12\x03"), "axis 1 of 1"),
        (stored(b"\x02" + b"\x01w\x00" * 2), "same name"),
    ],
)
def test_damage_of_the_directory_is_named(data, message):
    with pytest.raises(BitstreamError, match=message):
        unpack(data)
