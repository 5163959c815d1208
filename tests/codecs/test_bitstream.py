"""The stream of a network: exact for every shape, readable for ever, calm about damage."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from framefold.codecs.clip import Source, Span
from framefold.codecs.network import FittedNetwork, Parent, QuantizedTensor, SymbolTensors
from framefold.codecs.quantizing import trellis
from framefold.codecs.quantizing.quantize import quantize
from framefold.codecs.quantizing.steps import MAX_EXPONENT, MIN_EXPONENT, step_values
from framefold.codecs.stream import bitstream
from framefold.codecs.stream.bitstream import BitstreamError
from framefold.codecs.stream.symbol_models import MAX_SYMBOL
from framefold.codecs.stream.tensor_forms import as_matrix
from framefold.codecs.stream.varbytes import Cursor

GOLDEN = Path(__file__).parents[1] / "golden"
SPAN = Span(source=Source(name="a.png", kind="image", sha256="0" * 64, size_bytes=1, width=1, height=1), pts=(0,))


def network(tensors, parent=None):
    return SymbolTensors(span=SPAN, codec="toy", config={"width": 3}, tensors=tensors, parent=parent)


def tensor(symbols, steps=(1.0,), axis=0, *, on_trellis=False):
    symbols = np.array(symbols, np.int32)
    if on_trellis:
        symbols = walked(symbols)
    return QuantizedTensor(symbols=symbols, steps=np.array(steps, np.float32), axis=axis, trellis=on_trellis)


def walked(levels):
    """Symbols on the trellis."""
    return trellis.symbols_of_levels(as_matrix(levels)).reshape(levels.shape) if levels.size else levels


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
        assert got.trellis == expected.trellis


# ---- round trips


@st.composite
def arrays(draw, largest):
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=7))
    if draw(st.booleans()) and len(shape) > 1:
        shape = (*shape[:-1], shape[-1] * 9)
    kind = draw(st.sampled_from(["any", "small", "constant", "smooth", "outlier"]))
    if kind in ("any", "small"):
        reach = largest if kind == "any" else 3
        return draw(hnp.arrays(np.int32, shape, elements=st.integers(-reach, reach)))
    if kind == "constant":
        return np.full(shape, draw(st.integers(-largest, largest)), np.int32)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = rng.laplace(0, draw(st.sampled_from([0.4, 2, 30])), shape)
    for axis in range(len(shape)):
        values = np.cumsum(values, axis) if draw(st.booleans()) else values
    values = np.asarray(np.clip(np.rint(values), -largest, largest).astype(np.int32))
    if kind == "outlier" and values.size:
        values[np.unravel_index(rng.integers(values.size), shape)] = largest
    return values


@st.composite
def tensors(draw):
    on_trellis = draw(st.integers(0, 3)) == 0
    symbols = draw(arrays(trellis.MAX_LEVEL if on_trellis else MAX_SYMBOL))
    axis = draw(st.integers(-1, symbols.ndim - 1))
    count = symbols.shape[axis] if axis >= 0 else 1
    on_grid = hnp.arrays(np.int32, count, elements=st.integers(MIN_EXPONENT, MAX_EXPONENT)).map(step_values)
    any_step = hnp.arrays(np.float32, count, elements=st.floats(2.0**-149, 2.0**127, width=32))
    steps = draw(st.one_of(on_grid, any_step))
    return tensor(symbols, steps, max(axis, 0), on_trellis=on_trellis)


@st.composite
def children(draw, named):
    """A network whose tensors are mostly like those of another one."""
    tensors = {}
    for name, value in named.items():
        if draw(st.booleans()) or not value.symbols.size:
            tensors[name] = value
        elif value.trellis:
            levels, _ = trellis.levels_of(as_matrix(value.symbols))
            tensors[name] = replace(value, symbols=walked((levels // 2).reshape(value.symbols.shape)))
        else:
            change = np.random.default_rng(draw(st.integers(0, 99))).integers(-1, 2, value.symbols.shape)
            symbols = np.clip(value.symbols + change, -MAX_SYMBOL, MAX_SYMBOL).astype(np.int32)
            tensors[name] = replace(value, symbols=symbols)
    if draw(st.booleans()):
        tensors["new"] = tensor([1, 2, 3])
    return tensors


@given(st.data(), st.dictionaries(st.text("abc.é0", max_size=12), tensors(), max_size=4))
@settings(deadline=None, max_examples=15)
def test_every_network_comes_back_exactly(data, named):
    before = network(named)
    payload = bitstream.encode(before)
    after = decode(payload)
    assert_same(before, after)
    assert (after.span, after.codec, after.config, after.parent) == (SPAN, "toy", {"width": 3}, None)
    coder = data.draw(st.sampled_from(["huffman", "zstd"]))
    assert_same(before, decode(bitstream.encode(before, coder=coder)))
    child = network(data.draw(children(named)), bitstream.read_parent(payload))
    for options in ({}, {"contexts": False}, {"effort": "fast"}, {"coder": coder}):
        assert_same(child, decode(bitstream.encode(child, **options), parent=payload))


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("bits", [2, 3, 5, 8])
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
    assert len(payload) - coded < 80


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


def test_an_unknown_coder_is_refused():
    with pytest.raises(ValueError, match="coder is 'arithmetic', allowed is one of range, huffman, zstd"):
        bitstream.encode(network({}), coder="arithmetic")


# ---- coders


def test_the_named_coders_cost_what_they_cost():
    symbols = np.rint(np.random.default_rng(0).normal(0, 20, (100, 100))).astype(np.int32)
    before = network({"w": tensor(symbols), "b": tensor(np.arange(-50, 50))})
    sizes = {coder: len(bitstream.encode(before, coder=coder)) for coder in ("range", "huffman", "zstd")}
    assert sizes["range"] < sizes["huffman"] < sizes["zstd"] < 2 * sizes["range"]


# ---- effort


def test_an_unknown_effort_is_refused():
    with pytest.raises(ValueError, match="effort is 'slow', allowed is one of best, fast"):
        bitstream.encode(network({}), effort="slow")


@pytest.mark.parametrize("coder", ["range", "zstd"])
def test_fast_streams_are_a_little_larger(coder):
    for make in (mixed_network, ruled_network, line_network):
        options = {"coder": coder, "rules": checkerboard}
        fast = bitstream.encode(make(), effort="fast", **options)
        best = bitstream.encode(make(), contexts=False, **options)
        assert_same(make(), decode(fast, rules=checkerboard))
        assert fast == bitstream.encode(make(), effort="fast", contexts=False, **options)
        assert len(fast) < 1.02 * len(best) + 4


# ---- parents


def parent_of_grids():
    rng = np.random.default_rng(5)
    return {
        "grids.0.0.maps": tensor(np.rint(rng.normal(0, 9, (4, 3, 12, 20))), [0.25]),
        "blocks.0.conv.weight": tensor(np.rint(rng.laplace(0, 4, (12, 6, 3, 3))), step_values(np.arange(12) - 60)),
        "blocks.0.conv.bias": tensor(np.rint(rng.normal(0, 99, 12)), [0.01]),
    }


def test_a_child_costs_its_difference():
    named = parent_of_grids()
    parent = bitstream.read_parent(bitstream.encode(network(named)))
    assert_same(network(named), network(parent.tensors))
    rng = np.random.default_rng(6)
    moved = {
        name: replace(value, symbols=value.symbols + (rng.random(value.symbols.shape) < 0.05).astype(np.int32))
        for name, value in named.items()
    }
    payload = bitstream.encode(network(moved, parent))
    assert len(payload) < 0.1 * len(bitstream.encode(network(moved)))
    assert bitstream.parent_of(payload) == parent.sha256 == hashlib.sha256(parent.payload).hexdigest()
    after = decode(payload, parent=parent.payload)
    assert_same(network(moved), after)
    assert after.parent.payload == parent.payload
    assert_same(network(named), network(after.parent.tensors))
    same = bitstream.encode(network(named, parent))
    assert len(same) < 45
    assert_same(network(named), decode(same, parent=parent.payload))


def test_a_parent_that_saves_nothing_is_not_named():
    parent = bitstream.read_parent(bitstream.encode(network({"other": tensor([1, 2])})))
    payload = bitstream.encode(network(parent_of_grids(), parent))
    assert bitstream.parent_of(payload) is None
    assert payload == bitstream.encode(network(parent_of_grids()))
    assert decode(payload, parent=parent.payload).parent is None


def test_parents_of_other_shapes_and_steps_are_of_no_use():
    named = parent_of_grids()
    parent = bitstream.read_parent(bitstream.encode(network(named)))
    others = {
        "grids.0.0.maps": tensor(named["grids.0.0.maps"].symbols, [0.5]),
        "blocks.0.conv.weight": tensor(named["blocks.0.conv.weight"].symbols[:, :5], step_values(np.arange(12) - 60)),
        "blocks.0.conv.bias": named["blocks.0.conv.bias"],
    }
    assert_same(network(others), decode(bitstream.encode(network(others, parent)), parent=parent.payload))


def test_a_wrong_parent_is_refused():
    named = parent_of_grids()
    stored = bitstream.encode(network(named))
    payload = bitstream.encode(network(named, bitstream.read_parent(stored)))
    other = bitstream.encode(network({"a": tensor([1])}))
    with pytest.raises(BitstreamError, match=f"difference to a parent, SHA-256 {bitstream.parent_of(payload)}; give"):
        decode(payload)
    with pytest.raises(BitstreamError, match=f"got {hashlib.sha256(other).hexdigest()}"):
        decode(payload, parent=other)
    with pytest.raises(BitstreamError, match="a parent cannot have a parent"):
        bitstream.read_parent(payload)
    with pytest.raises(ValueError, match="the parent has a parent itself"):
        bitstream.encode(network(named, Parent(payload=payload, tensors=named)))
    with pytest.raises(BitstreamError, match="elements in all, allowed are 100"):
        decode(payload, parent=stored, max_elements=100)


# ---- how much a short stream may ask for


def test_a_short_stream_may_not_hold_much():
    zeros = network({"huge": tensor(np.zeros((2**11, 2**11)))})
    payload = bitstream.encode(zeros)
    assert len(payload) == 3 * 2**8 + 1  # 2**20 elements are free, 2**12 for each byte
    assert_same(zeros, decode(payload))
    with pytest.raises(BitstreamError, match="tensors that take 769 bytes at least, it has 768"):
        decode(payload[:-1])


def test_a_long_walk_is_not_taken():
    levels = np.random.default_rng(0).integers(-1, 2, 30_000)
    long = network({"long": tensor(levels, on_trellis=True)})
    assert_same(long, decode(bitstream.encode(long)))
    short = network({"short": tensor(levels.reshape(30, 1000), on_trellis=True)})
    assert_same(short, decode(bitstream.encode(short)))
    assert len(bitstream.encode(short)) < 0.8 * len(bitstream.encode(long))


def test_many_large_tables_need_a_long_stream():
    wide = network({f"{number}.bias": tensor([number, -30_000]) for number in range(90)})
    assert_same(wide, decode(bitstream.encode(wide)))


# ---- golden bytes: streams written by version 2 stay readable for ever


def numbers(count, seed=1):
    """Uniform integers 0 .. 4095, without a random number generator."""
    state = np.arange(seed, seed + count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return ((state ^ (state >> np.uint64(29))) >> np.uint64(16)).astype(np.int64) % 4096


def bell(count, seed=1):
    """Like a Gaussian with a standard deviation of seven."""
    return (numbers(6 * count, seed).reshape(-1, 6).sum(axis=1) - 12285) // 400


def mixed_network():
    """Every model, every kind of step, an escape and odd shapes."""
    uniform = numbers(4000)
    ramp = np.sort(uniform)
    tails = np.sign(uniform[:400] - 2048) * (4096 // (1 + ramp[::10]))
    pruned = np.where(np.abs(bell(500)) < 5, 0, bell(500))
    humps = np.concatenate([bell(250) // 2 - 30, bell(250, seed=7) // 2 + 25])
    return network(
        {
            "bell": tensor(bell(500).reshape(20, 25), [0.25]),
            "per channel": tensor(bell(500).reshape(4, 5, 25), step_values(np.array([-60, -58, -61, -60, -55])), 1),
            "tails": tensor(tails.reshape(10, 40), [0.1]),
            "pruned": tensor(pruned.reshape(2, 250), [2.0**-126]),
            "humps": tensor(np.tile(humps, 4), [2.0**100]),
            "uniform": tensor(uniform[:256] % 16, [1e-42]),
            "outlier": tensor(np.append(bell(99) // 4, 32767).reshape(10, 10), np.arange(1, 11) / 7),
            "constant": tensor(np.full((3, 3), -7)),
            "scalar": tensor(-32767),
            "one": tensor([123]),
            "empty": tensor(np.zeros((0, 3)), []),
            "": tensor(np.zeros((2, 0, 2))),
            "größe": tensor([0, 0, 1, 0]),
        }
    )


def ruled_network(seed=1):
    """Arrays with neighbours, on a trellis and not."""
    images = np.cumsum(np.cumsum(bell(6 * 2 * 12 * 16, seed).reshape(6, 2, 12, 16), axis=2), axis=3) // 40
    images = images + np.cumsum(bell(6, seed))[:, None, None, None] // 3
    rows = bell(40 * 60, seed).reshape(40, 60) * (1 + numbers(40, seed)[:, None] // 500) // 4
    kernels = (
        np.repeat(bell(24 * 8, seed).reshape(24, 8, 1, 1), 9, axis=3).reshape(24, 8, 3, 3)
        + bell(1728).reshape(24, 8, 3, 3) // 3
    )
    return network(
        {
            "grids.0.0.maps": tensor(images, [0.25]),
            "layers.0.weight": tensor(rows, [0.125]),
            "blocks.0.conv.weight": tensor(kernels // 2, [0.0625]),
            "blocks.1.conv.weight": tensor(kernels // 4, [0.0625], on_trellis=True),
            "blocks.1.conv.bias": tensor(bell(24, seed), [0.5], on_trellis=True),
        }
    )


@dataclass(frozen=True)
class Checkerboard:
    """A codec's own rule: every second place first, then the others from the places left and right of them."""

    size: int
    class_count = 3
    models = None

    def slices(self):
        return np.arange(0, self.size, 2), np.arange(1, self.size, 2)

    def contexts(self, known, number):
        places = self.slices()[number]
        if not number:
            return np.zeros(places.size, np.uint8), np.zeros(places.size, np.int32)
        left, right = known[places - 1], known[np.minimum(places + 1, self.size - 1)]
        return (1 + (np.abs(left - right) > 4)).astype(np.uint8), (left + right) >> 1


def checkerboard(name, shape):
    return Checkerboard(int(np.prod(shape))) if name == "line" else None


def line_network():
    return network({"line": tensor(np.cumsum(bell(600)) // 4, [0.5]), "rest": tensor(bell(30))})


GOLDEN_PARENT = (GOLDEN / "bitstream_v1_mixed.bin").read_bytes()


def child_network():
    """A child of a network that version 1 stored."""
    parent = bitstream.read_parent(GOLDEN_PARENT)
    tensors = {
        name: replace(value, symbols=value.symbols - np.sign(value.symbols) * (value.symbols % 5 == 0))
        for name, value in parent.tensors.items()
        if name != "one"
    }
    halved = replace(parent.tensors["bell"], symbols=parent.tensors["bell"].symbols // 2)
    return network({**tensors, "bell": halved, "one more": tensor(bell(20))}, parent)


GOLDEN_NETWORKS = {
    "bitstream_v2_mixed": (mixed_network, {}, {}),
    "bitstream_v2_rules": (ruled_network, {}, {}),
    "bitstream_v2_own": (line_network, {"rules": checkerboard, "contexts": False}, {"rules": checkerboard}),
    "bitstream_v2_child": (child_network, {}, {"parent": GOLDEN_PARENT}),
    "bitstream_v2_huffman": (mixed_network, {"coder": "huffman"}, {}),
    "bitstream_v2_zstd": (ruled_network, {"coder": "zstd"}, {}),
}


def record(symbols):
    """What a stream holds: SHA-256 of its integers and steps."""
    return {
        name: {
            "shape": list(value.symbols.shape),
            "symbols": hashlib.sha256(value.symbols.astype("<i4").tobytes()).hexdigest(),
            "steps": hashlib.sha256(value.steps.astype("<f4").tobytes()).hexdigest(),
            "axis": value.axis,
            "trellis": value.trellis,
        }
        for name, value in symbols.tensors.items()
    }


@pytest.mark.parametrize("name", sorted(GOLDEN_NETWORKS))
def test_golden_bytes_still_decode_to_the_recorded_integers(name):
    make, writing, reading = GOLDEN_NETWORKS[name]
    stream, recorded = GOLDEN / f"{name}.bin", GOLDEN / f"{name}.json"
    if os.environ.get("FRAMEFOLD_WRITE_GOLDEN") == "1" and not stream.exists():
        stream.write_bytes(bitstream.encode(make(), **writing))
        recorded.write_text(json.dumps(record(make()), indent=1) + "\n")
    decoded = decode(stream.read_bytes(), **reading)
    golden = json.loads(recorded.read_text())
    assert list(decoded.tensors) == list(golden)
    assert record(decoded) == golden
    assert_same(decoded, decode(bitstream.encode(make(), **writing), **reading))


def test_every_golden_file_of_version_2_is_tested():
    assert {path.stem for path in GOLDEN.glob("bitstream_v2_*")} == set(GOLDEN_NETWORKS)


# ---- damage


def test_a_newer_version_is_refused_by_number():
    payload = bitstream.encode(line_network())
    for head, found in (
        (3, "version 3"),
        (0x32, "version 2 \\(0x32\\)"),
        (0x82, "version 2 \\(0x82\\)"),
        (0, "version 0"),
    ):
        with pytest.raises(BitstreamError, match=f"{found}.* this program reads 1 and 2"):
            decode(bytes([head]) + payload[1:])


def test_every_truncation_of_the_head_is_refused():
    payload = bitstream.encode(mixed_network())
    section = Cursor(payload[1:]).varint("model size")  # behind it the words: cut ones are for the checksums
    for length in range(0, section + 3, 3):
        with pytest.raises(BitstreamError):
            decode(payload[:length])


def test_bytes_left_over_are_refused():
    payload = bitstream.encode(mixed_network())
    with pytest.raises(BitstreamError):
        decode(payload + bytes(range(1, 17)))


def test_a_rule_that_is_absent_or_wrong_is_refused():
    payload = bitstream.encode(line_network(), rules=checkerboard, contexts=False)
    assert len(payload) < 0.9 * len(bitstream.encode(line_network(), contexts=False))
    assert_same(line_network(), decode(payload, rules=checkerboard))
    with pytest.raises(BitstreamError, match="'line' is coded by a rule that its codec does not give"):
        decode(payload)
    with pytest.raises(ValueError, match="each place in one slice"):
        bitstream.encode(line_network(), rules=lambda name, shape: Checkerboard(10))
