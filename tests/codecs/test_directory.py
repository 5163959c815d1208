"""The directory of a stream: small, exact, and refused before anything is allocated where it is too much."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framefold.codecs.stream.directory import (
    MAX_ELEMENTS,
    MAX_NAME_BYTES,
    MAX_TENSORS,
    WORDS,
    Entry,
    check_entries,
    read_directory,
    successor,
    write_directory,
)
from framefold.codecs.stream.varbits import BitReader, BitstreamError, BitWriter


def entry(name="w", shape=(2, 3), channel_axis=None):
    return Entry(name=name, shape=shape, channel_axis=channel_axis)


def packed(entries):
    bits = BitWriter()
    write_directory(bits, entries)
    return bits.getvalue()


def unpacked(data, limit=MAX_ELEMENTS):
    bits = BitReader(data)
    entries = read_directory(bits, limit)
    bits.finish()
    return entries


PARTS = st.one_of(
    st.sampled_from(WORDS),
    st.integers(0, 2**31).map(str),
    st.sampled_from(["", "01", "é", "\uff10", "9" * 40]),
    st.text(max_size=6).filter(lambda text: max(text, default="") < "\ud800" or max(text) > "\udfff"),
)
NAMES = st.lists(PARTS, min_size=1, max_size=5).map(".".join).filter(lambda name: len(name.encode()) <= MAX_NAME_BYTES)
SHAPES = st.lists(st.integers(0, 9), max_size=8).map(tuple)


@given(st.dictionaries(NAMES, st.tuples(SHAPES, st.integers(-1, 7)), max_size=12))
@settings(deadline=None, max_examples=40)
def test_any_directory_reads_back(tensors):
    entries = [entry(name, shape, axis if 0 <= axis < len(shape) else None) for name, (shape, axis) in tensors.items()]
    total = sum(item.size + item.step_count for item in entries)
    if total <= MAX_ELEMENTS and all(item.size <= MAX_ELEMENTS for item in entries):
        assert unpacked(packed(entries), total) == entries


@pytest.mark.parametrize(
    ("name", "next_name"),
    [
        ("layers.0.weight", "layers.1.weight"),
        ("grids.1.9.maps", "grids.1.10.maps"),
        ("a.007.b.3", "a.007.b.4"),
        ("0", "1"),
        ("conv1.weight", None),
        ("", None),
    ],
)
def test_successors(name, next_name):
    assert successor(name) == next_name


def test_usual_networks_have_a_small_directory():
    siren = [
        entry(f"layers.{i}.{kind}", shape) for i in range(6) for kind, shape in (("weight", (64, 64)), ("bias", (64,)))
    ]
    assert len(packed(siren)) <= 16
    nerv = [
        entry(name, shape, 0 if len(shape) > 1 else None)
        for part in ("stem.0", "stem.2", *(f"blocks.{i}.conv" for i in range(6)), "head")
        for name, shape in ((f"{part}.weight", (96, 40, 3, 3)), (f"{part}.bias", (96,)))
    ]
    assert len(nerv) == 18
    assert len(packed(nerv)) <= 60


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
def test_limits_hold_both_ways(entries, message, monkeypatch):
    with pytest.raises(BitstreamError, match=message):
        packed(entries)
    monkeypatch.setattr("framefold.codecs.stream.directory.check_entries", lambda *_: None)
    data = packed(entries)
    monkeypatch.undo()
    with pytest.raises(BitstreamError, match=message):
        unpacked(data)


def test_a_caller_may_allow_less():
    data = packed([entry(shape=(10, 10))])
    assert unpacked(data, 101)
    with pytest.raises(BitstreamError, match="101 elements in all, allowed are 100"):
        unpacked(data, 100)
    with pytest.raises(BitstreamError):
        check_entries([entry(shape=(10, 10))], 100)


def bits_of(*fields):
    """Fields as (value, width) or (value, "order")."""
    bits = BitWriter()
    for value, size in fields:
        if isinstance(size, str):
            bits.exp_golomb(value, order=int(size))
        else:
            bits.unsigned(value, width=size)
    return bits.getvalue()


ONE = ((1, "3"), (0, 1), (0, "0"), (0, "1"))  # one tensor, its name spelled in one part


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cut short"),
        (bits_of((5000, "3")), "claims 5000 tensors"),
        (bits_of((1, "3"), (1, 1), (0, "1")), "follows on one that has no successor"),
        (bits_of((1, "3"), (0, 1), (1, "0"), (0, "1")), "shares 1 of 0 parts"),
        (bits_of((1, "3"), (0, 1), (0, "0"), (300, "1")), "has 301 more"),
        (bits_of(*ONE, (3, 2), (1, "3"), (0xFF, 8)), "not UTF-8"),
        (bits_of(*ONE, (3, 2), (2**31, "3")), "bits too early"),
        (bits_of(*ONE, (0, 1), (0, 5), (1, 4), (0, "0"), (1, 1), (0, "0")), "the 0th last, there were 0"),
        (bits_of(*ONE, (0, 1), (0, 5), (15, 4), (0, "0"), *[(0, 1), (0, "5")] * 15), "15 dimensions"),
        (bits_of((2, "3"), *ONE[1:], (2, 2), (8, "1"), (0, 4), (0, "0"), (0, 1), (0, "0"), (0, "1")), "too early"),
    ],
)
def test_damage_is_named(data, message):
    with pytest.raises(BitstreamError, match=message):
        unpacked(data)
