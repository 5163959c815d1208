"""The directory of a stream: small, exact, and refused before anything is allocated where it is too much."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefold.codecs.directory import (
    MAX_ELEMENTS,
    MAX_TENSORS,
    Entry,
    check_entries,
    pack_directory,
    unpack_directory,
)
from framefold.codecs.varbits import BitstreamError
from framefold.codecs.varbytes import Cursor, pack_varint


def entry(name="w", shape=(2, 3), channel_axis=None):
    return Entry(name=name, shape=shape, channel_axis=channel_axis)


def unpack(data, limit=MAX_ELEMENTS):
    return unpack_directory(Cursor(data), limit)


def stored(plain):
    """A directory that is not compressed."""
    return pack_varint(len(plain)) * 2 + plain


NAMES = st.text(max_size=40).filter(
    lambda text: len(text.encode(errors="ignore")) == len(text.encode("utf-8", "replace"))
)
SHAPES = st.lists(st.integers(0, 9), max_size=8).map(tuple)


@given(st.dictionaries(NAMES, st.tuples(SHAPES, st.integers(-1, 7)), max_size=12))
def test_any_directory_reads_back(tensors):
    entries = [entry(name, shape, axis if 0 <= axis < len(shape) else None) for name, (shape, axis) in tensors.items()]
    total = sum(item.size + item.step_count for item in entries)
    if total <= MAX_ELEMENTS and all(item.size <= MAX_ELEMENTS for item in entries):
        assert unpack(pack_directory(entries), total) == entries


def test_usual_networks_have_a_small_directory():
    siren = [
        entry(f"layers.{i}.{kind}", shape) for i in range(6) for kind, shape in (("weight", (64, 64)), ("bias", (64,)))
    ]
    assert len(pack_directory(siren)) < 80
    nerv = [
        entry(name, shape, 0 if len(shape) > 1 else None)
        for part in ("stem.0", "stem.2", *(f"blocks.{i}.conv" for i in range(6)), "head")
        for name, shape in ((f"{part}.weight", (96, 40, 3, 3)), (f"{part}.bias", (96,)))
    ]
    assert len(nerv) == 18
    assert len(pack_directory(nerv)) < 130


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([entry("a"), entry("a")], "same name"),
        ([entry("n" * 256)], "more than 255 bytes"),
        ([entry("\u00e9" * 128)], "more than 255 bytes"),
        ([entry(shape=(1,) * 9)], "9 dimensions, allowed are 8"),
        ([entry(shape=(2,), channel_axis=1)], "axis 1 of 1"),
        ([entry(shape=(), channel_axis=0)], "axis 0 of 0"),
        ([entry(shape=(0, 2**14, 2**15))], "beyond"),
        ([entry("a", (2**14, 2**13)), entry("b", (2**14, 2**13))], f"{2**28 + 2} elements in all"),
        ([entry(str(i), ()) for i in range(MAX_TENSORS + 1)], "4097 tensors"),
    ],
)
def test_limits_hold_both_ways(entries, message):
    with pytest.raises(BitstreamError, match=message):
        pack_directory(entries)
    plain = pack_varint(len(entries))
    for item in entries:
        name = item.name.encode()
        if len(name) > 255 or len(item.shape) > 15:
            return  # cannot even be written down
        kind = len(item.shape) << 4 | (0 if item.channel_axis is None else item.channel_axis + 1)
        plain += bytes([len(name)]) + name + bytes([kind]) + b"".join(map(pack_varint, item.shape))
    with pytest.raises(BitstreamError, match=message):
        unpack(stored(plain))


def test_a_caller_may_allow_less():
    data = pack_directory([entry(shape=(10, 10))])
    assert unpack(data, 101)
    with pytest.raises(BitstreamError, match="101 elements in all, allowed are 100"):
        unpack(data, 100)
    with pytest.raises(BitstreamError):
        check_entries([entry(shape=(10, 10))], 100)


def test_a_decompression_bomb_is_cut_off():
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = packer.compress(bytes(10**8)) + packer.flush()
    with pytest.raises(BitstreamError, match="does not unpack to the 1000000 bytes"):
        unpack(pack_varint(10**6) + pack_varint(len(bomb)) + bomb)
    with pytest.raises(BitstreamError, match="claims 100000000 bytes"):
        unpack(pack_varint(10**8) + pack_varint(len(bomb)) + bomb)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "ends within its directory size"),
        (b"\xff\xff\xff\xff\xff\x01", "more than five bytes"),
        (b"\x05\x05\x01", "ends within its directory: 1 of 5"),
        (b"\x03\x04....", "claims 3 bytes in 4"),
        (b"\x09\x03\xff\xff\xff", "directory is damaged"),
        (stored(b"\x01\x02\xff\xff\x00"), "not UTF-8"),
        (stored(b"\x01\x01w\x00!"), "left over behind the directory"),
        (stored(b"\x01\x01w\x10"), "ends within its dimension"),
    ],
)
def test_damage_is_named(data, message):
    with pytest.raises(BitstreamError, match=message):
        unpack(data)
