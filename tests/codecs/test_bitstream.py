"""The stream of a network: exact for every shape, readable for ever, calm about damage."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from framefold.codecs import bitstream, directory
from framefold.codecs.bitstream import BitstreamError
from framefold.codecs.clip import Source, Span
from framefold.codecs.directory import pack_directory
from framefold.codecs.network import FittedNetwork, QuantizedTensor, SymbolTensors
from framefold.codecs.quantize import quantize
from framefold.codecs.steps import MAX_EXPONENT, MIN_EXPONENT, step_values
from framefold.codecs.symbol_models import MAX_SYMBOL
from framefold.codecs.varbits import BitWriter
from framefold.codecs.varbytes import Cursor, pack_varint

GOLDEN = Path(__file__).parents[1] / "golden"
SPAN = Span(source=Source(name="a.png", kind="image", sha256="0" * 64, size_bytes=1, width=1, height=1), pts=(0,))


def network(tensors):
    return SymbolTensors(span=SPAN, codec="toy", config={"width": 3}, tensors=tensors)


def tensor(symbols, steps=(1.0,), axis=0):
    return QuantizedTensor(symbols=np.array(symbols, np.int32), steps=np.array(steps, np.float32), axis=axis)


def decode(payload, **options):
    return bitstream.decode(payload, span=SPAN, codec="toy", config={"width": 3}, **options)


def assert_same(left, right):
    assert list(left.tensors) == list(right.tensors)
    for name, expected in left.tensors.items():
        got = right.tensors[name]
        assert got.symbols.dtype == np.int32
        assert got.steps.dtype == np.float32
        assert got.symbols.shape == expected.symbols.shape
        assert np.array_equal(got.symbols, expected.symbols)
        assert np.array_equal(got.steps, expected.steps)
        assert got.axis == (expected.axis if expected.steps.shape != (1,) else 0)


# ---- round trips


@st.composite
def tensors(draw):
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=7))
    symbols = draw(
        st.one_of(
            hnp.arrays(np.int32, shape, elements=st.integers(-MAX_SYMBOL, MAX_SYMBOL)),
            hnp.arrays(np.int32, shape, elements=st.integers(-3, 3)),
            st.integers(-MAX_SYMBOL, MAX_SYMBOL).map(lambda value: np.full(shape, value, np.int32)),
        )
    )
    axis = draw(st.integers(-1, len(shape) - 1))
    count = shape[axis] if axis >= 0 else 1
    on_grid = hnp.arrays(np.int32, count, elements=st.integers(MIN_EXPONENT, MAX_EXPONENT)).map(step_values)
    any_step = hnp.arrays(np.float32, count, elements=st.floats(2.0**-149, 2.0**127, width=32))
    return QuantizedTensor(symbols=symbols, steps=draw(st.one_of(on_grid, any_step)), axis=max(axis, 0))


@given(st.dictionaries(st.text("abc.é0", max_size=12), tensors(), max_size=5))
@settings(deadline=None, max_examples=80)
def test_every_network_comes_back_exactly(named):
    before = network(named)
    after = decode(bitstream.encode(before))
    assert_same(before, after)
    assert (after.span, after.codec, after.config) == (SPAN, "toy", {"width": 3})


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("bits", range(2, 9))
def test_a_quantized_network_comes_back_exactly(bits, granularity):
    rng = np.random.default_rng(bits)
    floats = {
        "stem.weight": rng.normal(0, 0.1, (40, 17)),
        "stem.bias": rng.normal(0, 0.01, 40),
        "conv.weight": rng.laplace(0, 0.02, (12, 8, 3, 3)) * (rng.random((12, 8, 3, 3)) < 0.5),
        "dead.weight": np.zeros((5, 20)),
        "outlier.weight": np.append(rng.normal(0, 1e-3, 99), 50.0).reshape(10, 10),
        "gain": np.array(0.7),
        "none": np.zeros((0,)),
    }
    fitted = FittedNetwork(
        span=SPAN,
        codec="toy",
        config={},
        tensors={name: value.astype(np.float32) for name, value in floats.items()},
    )
    before = quantize(fitted, bits=bits, granularity=granularity)
    after = decode(bitstream.encode(before))
    assert_same(before, after)
    for name, value in before.dequantize().tensors.items():
        assert np.array_equal(after.dequantize().tensors[name], value)


def test_encoding_twice_gives_the_same_bytes():
    before = mixed_network()
    assert bitstream.encode(before) == bitstream.encode(before)


def test_a_siren_has_a_small_head():
    rng = np.random.default_rng(0)
    sides = [2, *[64] * 5, 3]
    floats = {}
    for layer in range(6):
        floats[f"layers.{layer}.weight"] = rng.uniform(-0.02, 0.02, (sides[layer + 1], sides[layer]))
        floats[f"layers.{layer}.bias"] = rng.uniform(-0.02, 0.02, sides[layer + 1])
    fitted = FittedNetwork(
        span=SPAN,
        codec="toy",
        config={},
        tensors={name: value.astype(np.float32) for name, value in floats.items()},
    )
    symbols = quantize(fitted, bits=8, granularity="tensor")
    payload = bitstream.encode(symbols)
    coded = sum(value.symbols.size * np.log2(np.ptp(value.symbols) + 1) / 8 for value in symbols.tensors.values())
    assert len(payload) - coded < 150


def test_a_step_per_channel_costs_less_than_a_byte():
    rng = np.random.default_rng(0)
    symbols = rng.integers(-7, 8, (500, 20)).astype(np.int32)
    exponents = np.rint(rng.normal(-60, 2, 500)).astype(np.int32)
    single = bitstream.encode(network({"w": QuantizedTensor(symbols=symbols, steps=step_values(exponents[:1]))}))
    by_channel = bitstream.encode(network({"w": QuantizedTensor(symbols=symbols, steps=step_values(exponents))}))
    assert len(by_channel) - len(single) < 250


# ---- what cannot be encoded


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (tensor([1], steps=[0.0]), "finite and positive"),
        (tensor([1], steps=[-1.0]), "finite and positive"),
        (tensor([1], steps=[np.nan]), "finite and positive"),
        (tensor([1], steps=[np.inf]), "finite and positive"),
        (tensor([32768]), "int32 within"),
        (tensor([-32768]), "int32 within"),
        (QuantizedTensor(symbols=np.array([1]), steps=np.ones(1, np.float32)), "got int64"),
        (tensor([[1, 2]], steps=[1, 1, 1]), "steps are \\(3,\\) for axis 0 of \\(1, 2\\)"),
        (tensor([[1, 2]], steps=[1, 1], axis=2), "axis 2 of \\(1, 2\\)"),
        (tensor([[1, 2]], steps=[[1, 1]], axis=1), "allowed are one step, or one for each index"),
    ],
)
def test_a_malformed_tensor_is_named(bad, message):
    with pytest.raises(ValueError, match=message) as refused:
        bitstream.encode(network({"fine": tensor([1]), "bad": bad}))
    assert "'bad'" in str(refused.value)


# ---- golden bytes: streams written by version 1 stay readable for ever


def mixed_network():
    """Every model, every kind of step, an escape and odd shapes, without a random number generator."""
    state = np.arange(1, 4001, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    uniform = ((state ^ (state >> np.uint64(29))) >> np.uint64(16)).astype(np.int64) % 4096
    ramp = np.sort(uniform)
    bell = (uniform[:3000].reshape(-1, 6).sum(axis=1) - 12285) // 400
    tails = np.sign(uniform[:400] - 2048) * (4096 // (1 + ramp[::10]))
    pruned = np.where(np.abs(bell) < 5, 0, bell)
    humps = np.concatenate([bell[:250] // 2 - 30, bell[250:] // 2 + 25])
    outlier = np.append(bell[:99] // 4, 32767)
    return network(
        {
            "bell": tensor(bell.reshape(20, 25), [0.25]),
            "per channel": tensor(bell.reshape(4, 5, 25), step_values(np.array([-60, -58, -61, -60, -55])), axis=1),
            "tails": tensor(tails.reshape(10, 40), [0.1]),
            "pruned": tensor(pruned.reshape(2, 250), [2.0**-126]),
            "humps": tensor(np.tile(humps, 4), [2.0**100]),
            "uniform": tensor(uniform[:256] % 16, [1e-42]),
            "outlier": tensor(outlier.reshape(10, 10), np.arange(1, 11) / 7),
            "constant": tensor(np.full((3, 3), -7)),
            "scalar": tensor(-32767),
            "one": tensor([123]),
            "empty": tensor(np.zeros((0, 3)), []),
            "": tensor(np.zeros((2, 0, 2))),
            "größe": tensor([0, 0, 1, 0]),
        }
    )


def small_network():
    return network({"head.weight": tensor([[3, -1], [0, 2]], [0.5, 0.25]), "head.bias": tensor([5, -6], [0.125])})


GOLDEN_NETWORKS = {"bitstream_v1_mixed": mixed_network, "bitstream_v1_small": small_network}


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


@pytest.mark.parametrize("name", sorted(GOLDEN_NETWORKS))
def test_golden_bytes_still_decode_to_the_recorded_symbols(name):
    stream, record = GOLDEN / f"{name}.bin", GOLDEN / f"{name}.json"
    if os.environ.get("FRAMEFOLD_WRITE_GOLDEN") == "1" and not stream.exists():
        stream.write_bytes(bitstream.encode(GOLDEN_NETWORKS[name]()))
        record.write_text(json.dumps(plain(GOLDEN_NETWORKS[name]())) + "\n")
    decoded = decode(stream.read_bytes())
    recorded = json.loads(record.read_text())
    assert list(decoded.tensors) == list(recorded)
    assert plain(decoded) == recorded


def test_every_golden_file_is_tested():
    assert {path.stem for path in GOLDEN.glob("bitstream_*")} == set(GOLDEN_NETWORKS)


# ---- damage


def test_a_newer_version_is_refused_by_number():
    payload = bitstream.encode(small_network())
    with pytest.raises(BitstreamError, match="version 2, this program reads 1"):
        decode(b"\x02" + payload[1:])


def test_every_truncation_is_refused():
    payload = bitstream.encode(small_network())
    whole_words = [len(payload) - 4 * count for count in range(1, 4)]
    for length in range(len(payload)):
        if length not in whole_words:
            with pytest.raises(BitstreamError):
                decode(payload[:length])


def test_bytes_left_over_are_refused():
    payload = bitstream.encode(mixed_network())
    with pytest.raises(BitstreamError):
        decode(payload + b"\x01\x02\x03\x04\x05\x06\x07\x08")


def test_the_caller_bounds_what_is_allocated():
    payload = bitstream.encode(network({"huge": tensor(np.zeros((1000, 1000)))}))
    assert len(payload) < 30
    assert decode(payload).tensors["huge"].symbols.size == 10**6
    with pytest.raises(BitstreamError, match="1000001 elements in all, allowed are 1000"):
        decode(payload, max_elements=1000)


def test_an_impossible_step_is_refused():
    head = bytes([1]) + pack_directory(bitstream_entries(small_network()))
    for step in (0, 0x7F800000, 0x7FC00000, 0x80000001):
        writer = BitWriter()
        writer.unsigned(0, width=1)
        writer.unsigned(step, width=32)
        writer.unsigned(step, width=32)
        section = writer.getvalue()
        with pytest.raises(BitstreamError, match=r"'head\.weight': a step is not a positive number"):
            decode(head + pack_varint(len(section)) + section)
    for exponent in (MIN_EXPONENT - 1, MAX_EXPONENT + 1):
        writer = BitWriter()
        writer.unsigned(1, width=1)
        writer.unsigned(0, width=2)
        writer.signed(exponent - bitstream.FIRST_EXPONENT, order=4)
        writer.exp_golomb(0, order=3)
        section = writer.getvalue()
        with pytest.raises(BitstreamError, match=r"'head\.weight': a step is outside"):
            decode(head + pack_varint(len(section)) + section)


def bitstream_entries(symbols):
    return [bitstream._entry(name, value) for name, value in symbols.tensors.items()]


def with_stored_directory(payload):
    """The same stream, its directory not compressed: damage then reaches single fields."""
    cursor = Cursor(payload[1:])
    size, stored_size = cursor.varint("size"), cursor.varint("stored size")
    plain_directory = directory._inflate(cursor.take(stored_size, "directory"), size)
    return payload[:1] + pack_varint(size) * 2 + plain_directory + cursor.rest()


def test_a_stored_directory_is_read_too():
    before = mixed_network()
    assert_same(before, decode(with_stored_directory(bitstream.encode(before))))


def test_random_damage_raises_nothing_else_and_allocates_little():
    rng = np.random.default_rng(0)
    packed = bitstream.encode(mixed_network())
    payloads = [packed, with_stored_directory(packed)]
    outcomes = {"refused": 0, "decoded": 0}
    tracemalloc.start()
    for turn in range(1500):
        damaged = _damage(payloads[turn % 2], rng)
        try:
            decoded = decode(damaged, max_elements=20_000)
        except BitstreamError:
            outcomes["refused"] += 1
        else:
            outcomes["decoded"] += 1
            assert all(np.abs(value.symbols).max(initial=0) <= MAX_SYMBOL for value in decoded.tensors.values())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert min(outcomes.values()) > 50
    assert peak < 32 * 2**20


def _damage(payload, rng):
    data = bytearray(payload)
    for _ in range(rng.integers(1, 3)):
        # half of the damage goes to the head, where the structure is
        at = int(rng.integers(0, len(data) if rng.random() < 0.5 else 300))
        match rng.integers(0, 4):
            case 0 | 1:
                data[at] = rng.integers(0, 256)
            case 2:
                data[at] ^= 1 << int(rng.integers(0, 8))
            case _:
                del data[at : at + int(rng.integers(1, 6))]
    return bytes(data)
