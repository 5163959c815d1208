"""The integer coder: lossless, near the entropy, the same tables everywhere, and calm about damage."""

from __future__ import annotations

import hashlib
import math

import constriction
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framefold.codecs.stream import entropy
from framefold.codecs.stream.curve_costs import bits_under_curves, reach_for, shares_around_zero, symbol_bits
from framefold.codecs.stream.entropy import SymbolReader, SymbolWriter
from framefold.codecs.stream.histogram_choice import held_histograms, parameter_bits
from framefold.codecs.stream.model_choice import EFFORTS, choose_model, cost_bits
from framefold.codecs.stream.prepared_models import coder_errors
from framefold.codecs.stream.probability_tables import LEVEL_WEIGHTS, SCALE_COUNT, curve_levels, quarter_levels
from framefold.codecs.stream.symbol_counts import Counts
from framefold.codecs.stream.symbol_models import MAX_SYMBOL, Curve, Histogram, Uniform, read_model
from framefold.codecs.stream.varbits import BitReader, BitstreamError, BitWriter, exp_golomb_bits, fold, signed_bits

RNG = np.random.default_rng(7)


def code(*arrays, effort="best"):
    writer = SymbolWriter(effort=effort)
    for array in arrays:
        writer.write(np.asarray(array, dtype=np.int32))
    return writer.finish()


def model_of(symbols):
    return choose_model(Counts.of(np.asarray(symbols, dtype=np.int32)))[0]


def decode(sections, *counts):
    reader = SymbolReader(*sections)
    arrays = [reader.read(count) for count in counts]
    reader.finish()
    return arrays


def scaled(values, bits):
    """Like a quantizer by the largest magnitude."""
    return np.rint(values / np.abs(values).max() * (2 ** (bits - 1) - 1)).astype(np.int32)


# ---- bits


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(-(2**31) + 1, 2**31 - 1), st.integers(0, 9))))
def test_numbers_of_a_few_bits(numbers):
    writer = BitWriter()
    for unsigned, signed, order in numbers:
        writer.unsigned(unsigned, width=32)
        writer.exp_golomb(unsigned, order=order)
        writer.signed(signed, order=order)
    reader = BitReader(writer.getvalue())
    for unsigned, signed, order in numbers:
        assert reader.unsigned(width=32) == unsigned
        assert reader.exp_golomb(order=order) == unsigned
        assert reader.signed(order=order) == signed
    reader.finish()


@given(st.integers(-(2**30), 2**30), st.integers(0, 9))
def test_lengths_are_known_beforehand(value, order):
    writer = BitWriter()
    writer.signed(value, order=order)
    assert exp_golomb_bits(fold(np.array([value])), order).tolist() == [writer.bit_count]
    assert signed_bits(value, order) == writer.bit_count


@pytest.mark.parametrize("data", [b"", b"\x00" * 40, b"\x00\x00\x00\x00\x00\x01\xff\xff\xff\xff\xff\xff"])
def test_a_number_cut_short_or_too_large_is_refused(data):
    with pytest.raises(BitstreamError, match="cut short or beyond"):
        BitReader(data).exp_golomb(order=0)


def test_left_over_bits_are_refused():
    for data in (b"\x80\x01", b"\x81"):
        reader = BitReader(data)
        assert reader.unsigned(width=1) == 1
        with pytest.raises(BitstreamError, match="left over"):
            reader.finish()


# ---- tables


def test_the_tables_of_version_1_never_change():
    digest = hashlib.sha256(LEVEL_WEIGHTS.astype("<i8").tobytes())
    for family in ("laplace", "gaussian"):
        for scale in range(SCALE_COUNT):
            digest.update(curve_levels(family, scale, MAX_SYMBOL).astype("<i8").tobytes())
    assert digest.hexdigest() == "5daeecfbf947b47feba74952072339c9330b241f95ce48a471de903c8df1acfa"


def test_levels_are_sixteenths_of_an_octave():
    np.testing.assert_allclose(LEVEL_WEIGHTS[:300], 2.0 ** (24 - np.arange(300) / 16), rtol=0, atol=1)
    assert LEVEL_WEIGHTS[0] == 2**24
    assert LEVEL_WEIGHTS[-1] == 1


def test_quarters_lie_between():
    for family in ("laplace", "gaussian"):
        quarters, whole = (levels(family, 31, MAX_SYMBOL) for levels in (quarter_levels, curve_levels))
        assert np.array_equal(quarters[::4], whole)
        assert (np.diff(quarters) >= 0).all()
        assert quarters[2] < whole[1]


@pytest.mark.parametrize("scale", [0, 24, 41, 60, 127])
def test_curves_have_their_shape(scale):
    half_life = 2 ** ((scale - 24) / 8)
    for family, power in (("laplace", 1), ("gaussian", 2)):
        levels = curve_levels(family, scale, MAX_SYMBOL)
        np.testing.assert_allclose(levels, 16 * (np.arange(levels.size) / half_life) ** power, atol=0.51)
        assert levels.max() <= 256


# ---- models


MODELS = st.one_of(
    st.builds(Uniform, lowest=st.integers(-MAX_SYMBOL, 0), symbol_count=st.integers(1, MAX_SYMBOL)),
    st.builds(
        Curve,
        family=st.sampled_from(["laplace", "gaussian"]),
        scale=st.integers(0, 127),
        centre=st.integers(-MAX_SYMBOL, MAX_SYMBOL),
        hole=st.integers(0, MAX_SYMBOL),
        spike=st.integers(0, 63),
    ),
    st.builds(
        Histogram,
        lowest=st.integers(-MAX_SYMBOL, 0),
        resolution=st.integers(0, 3),
        order=st.integers(0, 3),
        steps=st.lists(st.integers(0, 48), min_size=2, max_size=40).map(tuple),
    ),
)


@given(MODELS, st.one_of(st.none(), st.integers(0, 127)), st.integers(-2, 1))
def test_a_model_reads_back_and_can_code(model, near, quarter):
    writer = BitWriter()
    model.write(writer, near=near)
    if isinstance(model, Histogram):
        assert parameter_bits(model) == writer.bit_count
    reader = BitReader(writer.getvalue())
    assert read_model(reader, near=near) == model
    reader.finish()
    table = model.table(quarter)
    assert table.symbol_count >= 1
    assert -MAX_SYMBOL <= table.lowest <= table.lowest + table.symbol_count - 1 <= MAX_SYMBOL
    assert table.weights.min() >= 0
    assert 0 < table.weights.sum() < 2**52


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            lambda bits: (
                bits.unsigned(0, width=2),
                bits.signed(-40000, order=4),
                bits.exp_golomb(0, order=3),
            ),
            "outside",
        ),
        (
            lambda bits: (
                bits.unsigned(0, width=2),
                bits.signed(0, order=4),
                bits.exp_golomb(40000, order=3),
            ),
            "outside",
        ),
        (
            lambda bits: (bits.unsigned(1, width=2), bits.unsigned(8, width=8), bits.unsigned(0, width=1)),
            "cut short",
        ),
        (
            lambda bits: (
                bits.unsigned(2, width=2),
                bits.unsigned(18, width=8),
                bits.signed(40000, order=2),
                bits.exp_golomb(0, order=1),
            ),
            "centre 40000",
        ),
        (
            lambda bits: (bits.unsigned(3, width=2), bits.signed(0, order=6), bits.exp_golomb(300, order=6)),
            "claims 301",
        ),
        (
            lambda bits: (bits.unsigned(1, width=2), bits.unsigned(127, width=7), bits.unsigned(0, width=1)),
            "cut short",
        ),
        (
            lambda bits: Histogram(lowest=0, resolution=0, order=0, steps=(0, 49)).write(bits),
            "level is outside",
        ),
        (
            lambda bits: Histogram(lowest=0, resolution=0, order=0, steps=(0, 1, -1)).write(bits),
            "level is outside",
        ),
    ],
)
def test_a_wrong_parameter_is_refused(write, message):
    writer = BitWriter()
    write(writer)
    with pytest.raises(BitstreamError, match=message):
        read_model(BitReader(writer.getvalue()))


# ---- arrays


ARRAYS = st.one_of(
    st.lists(st.integers(-MAX_SYMBOL, MAX_SYMBOL), max_size=30),
    st.lists(st.integers(-3, 3), max_size=300),
    st.tuples(st.integers(-MAX_SYMBOL, MAX_SYMBOL), st.integers(0, 200)).map(lambda pair: [pair[0]] * pair[1]),
    st.tuples(st.lists(st.integers(-9, 9), min_size=40, max_size=200), st.integers(-MAX_SYMBOL, MAX_SYMBOL)).map(
        lambda pair: [*pair[0], pair[1]]
    ),
)


@given(st.lists(ARRAYS, max_size=5))
@settings(deadline=None, max_examples=60)
def test_arrays_come_back_exactly(arrays):
    decoded = decode(code(*arrays), *map(len, arrays))
    assert [array.tolist() for array in decoded] == arrays
    assert all(array.dtype == np.int32 for array in decoded)


def test_blocks_are_seamless(monkeypatch):
    symbols = np.rint(RNG.normal(0, 9, 1000)).astype(np.int32)
    symbols[::97] = 30000
    whole = code(symbols)
    monkeypatch.setattr(entropy, "_BLOCK", 64)
    assert code(symbols) == whole
    assert np.array_equal(decode(whole, symbols.size)[0], symbols)


@pytest.mark.parametrize("bits", [8, 7, 6, 4])
@pytest.mark.parametrize("draw", [RNG.laplace, RNG.normal, RNG.uniform])
def test_large_arrays_cost_little_more_than_their_entropy(draw, bits):
    symbols = scaled(draw(size=100_000) - (0.5 if draw == RNG.uniform else 0), bits)
    model_section, words = code(symbols)
    entropy_bytes = Counts.of(symbols).entropy_bits / 8
    assert len(model_section) + len(words) <= 1.003 * entropy_bytes + 8


@pytest.mark.parametrize("share", [0.15, 0.5, 0.9])
def test_pruned_arrays_too(share):
    values = RNG.normal(size=50_000)
    values[np.abs(values) < np.quantile(np.abs(values), share)] = 0
    symbols = scaled(values, 8)
    model_section, words = code(symbols)
    assert len(model_section) + len(words) <= 1.005 * Counts.of(symbols).entropy_bits / 8 + 20


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("draw", [RNG.normal, RNG.laplace])
@pytest.mark.parametrize("bits", [8, 4])
def test_a_million_symbols_cost_their_entropy(draw, bits, effort):
    symbols = scaled(draw(size=10**6), bits)
    model_section, words = code(symbols, effort=effort)
    entropy_bytes = Counts.of(symbols).entropy_bits / 8
    assert len(words) <= 1.002 * entropy_bytes
    assert len(model_section) <= 250
    assert np.array_equal(decode((model_section, words), symbols.size)[0], symbols)


def ideal_bytes(symbols, sigma):
    """What a coder that knows the true distribution of rounded normal numbers would need."""
    edges = np.arange(-400.5, 401)
    below = np.array([0.5 * (1 + math.erf(edge / sigma / math.sqrt(2))) for edge in edges])
    return -np.log2(np.maximum(np.diff(below)[symbols + 400], 1e-300)).sum() / 8


@pytest.mark.parametrize("sigma", [0.7, 3, 26, 60])
def test_small_arrays_cost_at_most_eight_bytes_more_than_ideal(sigma):
    rng = np.random.default_rng(1)
    for count in (1, 2, 3, 5, 8, 16, 32, 64):
        for _ in range(12):
            symbols = np.rint(rng.normal(0, sigma, count)).astype(np.int32)
            assert sum(map(len, code(symbols))) <= ideal_bytes(symbols, sigma) + 8


def test_a_constant_costs_no_payload():
    model_section, words = code(np.full(10**6, -5))
    assert words == b""
    assert len(model_section) <= 2


def test_the_cheapest_model_wins():
    flat = RNG.integers(-31, 32, 5000).astype(np.int32)
    assert isinstance(model_of(flat), Uniform)
    gaussian = model_of(np.rint(RNG.normal(0, 12, 5000)))
    assert isinstance(gaussian, Curve)
    assert gaussian.family == "gaussian"
    two_humps = np.rint(np.concatenate([RNG.normal(-40, 5, 9000), RNG.normal(30, 7, 9000)]))
    assert isinstance(model_of(two_humps), Histogram)
    wide = model_of(np.rint(RNG.laplace(0, 3000, 400)))
    assert isinstance(wide, Curve)
    assert wide.family == "laplace"
    pruned = RNG.laplace(0, 9, 4000)
    pruned[np.abs(pruned) < 6] = 0
    holed = model_of(np.rint(pruned))
    assert isinstance(holed, Curve)
    assert holed.hole == 5
    assert holed.spike > 20


def test_the_estimated_cost_is_the_real_one():
    for symbols in (
        scaled(RNG.laplace(size=20_000), 8),
        scaled(RNG.normal(size=300), 6),
        np.array([3, -30000, 4, 3]),
    ):
        array = symbols.astype(np.int32)
        model_section, words = code(array)
        model, bits = choose_model(Counts.of(array))
        assert bits == cost_bits(model, Counts.of(array))
        estimate = bits / 8
        assert estimate - 1 <= len(model_section) + len(words) <= estimate + 9


# ---- how hard models are looked for


SYMBOLS = np.array([-32767, -9000, -2049, -2048, -300, -128, -9, -1, 0, 1, 2, 7, 128, 900, 2048, 20_000, 32767])


@given(st.integers(0, SCALE_COUNT - 1), st.integers(0, SYMBOLS.size // 2))
def test_bits_under_curves_are_those_of_their_tables(scale, cut):
    symbols = SYMBOLS[cut : SYMBOLS.size - cut]
    reach = reach_for(int(np.abs(symbols).max()))
    bits = bits_under_curves(symbols, reach, slice(scale, scale + 1))[:, :, 0]
    for number, family in enumerate(("laplace", "gaussian")):
        table = Curve(family=family, scale=scale).table()
        np.testing.assert_allclose(bits[:, number], symbol_bits(table, symbols), rtol=1e-12)


@pytest.mark.parametrize("hole", [0, 1, 7, 500, 30_000])
def test_the_share_around_zero_is_that_of_the_tables(hole):
    zero, cut = shares_around_zero(hole, slice(0, SCALE_COUNT))
    for scale in (0, 24, 60, 95, 127):
        for number, family in enumerate(("laplace", "gaussian")):
            table = Curve(family=family, scale=scale).table()
            last = min(hole, table.symbol_count // 2)
            shares = np.exp2(-symbol_bits(table, np.arange(-last, last + 1)))
            assert zero[number, scale] == pytest.approx(shares[last])
            assert cut[number, scale] == pytest.approx(shares.sum() - shares[last])


def drawn(kind, size, spread):
    rng = np.random.default_rng(size)
    values = {
        "normal": lambda: rng.normal(0, spread, size),
        "laplace": lambda: rng.laplace(0, spread, size),
        "aside": lambda: rng.normal(3 * spread, spread, size),
        "sparse": lambda: rng.laplace(0, 4 * spread, size) * (rng.random(size) < 0.2),
        "pruned": lambda: rng.normal(0, spread, size) * (rng.random(size) < 0.5),
        "holed": lambda: np.where(np.abs(wide := rng.laplace(0, spread, size)) < spread / 2, 0, wide),
        "outliers": lambda: np.where(rng.random(size) < 0.01, 3000, rng.normal(0, spread, size)),
        "humps": lambda: rng.normal(0, spread, size) + 6 * spread * rng.integers(0, 2, size),
        "even": lambda: rng.integers(-9, 10, size),
        "two": lambda: rng.integers(0, 2, size),
    }
    return np.rint(values[kind]()).clip(-MAX_SYMBOL, MAX_SYMBOL).astype(np.int32)


KINDS = ("normal", "laplace", "aside", "sparse", "pruned", "holed", "outliers", "humps", "even", "two")


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_found_fast_costs_little_more(kind):
    best = fast = 0.0
    for size in (5, 30, 300, 5000):
        for spread in (0.6, 4, 30, 250, 3000):
            counts = Counts.of(drawn(kind, size, spread))
            best += choose_model(counts, 40)[1]
            fast += cost_bits(choose_model(counts, 40, effort="fast")[0], counts, 40)
    assert best - 1e-6 <= fast < 1.02 * best


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_model_found_fast_is_said_to_cost_is_near(kind):
    for spread in (0.6, 4, 30, 250):
        counts = Counts.of(drawn(kind, 3000, spread))
        model, said = choose_model(counts, 40, effort="fast")
        assert said == pytest.approx(cost_bits(model, counts, 40), rel=2e-3, abs=4)


@given(st.lists(st.lists(st.integers(-40, 40) | st.integers(-MAX_SYMBOL, MAX_SYMBOL), min_size=1, max_size=60)))
@settings(deadline=None, max_examples=40)
def test_what_was_written_fast_comes_back(lists):
    decoded = decode(code(*lists, effort="fast"), *map(len, lists))
    assert [array.tolist() for array in decoded] == lists


def test_a_histogram_found_fast_saves_most_of_what_the_best_saves():
    counts = Counts.of(drawn("humps", 6000, 20))
    curve = Curve(family="gaussian", scale=80)
    (fast, said), *_ = held_histograms(counts, to_beat=cost_bits(curve, counts))
    best, bits = choose_model(counts)
    assert isinstance(best, Histogram)
    assert bits <= cost_bits(fast, counts) == pytest.approx(said, abs=1)
    assert cost_bits(fast, counts) < 1.02 * bits


@pytest.mark.parametrize(
    ("symbols", "message"),
    [
        (np.array([1, 2], dtype=np.int64), "int64, the coder takes int32"),
        (np.array([0, 32768], dtype=np.int32), "span 0 .. 32768"),
        (np.array([-(2**31)], dtype=np.int32), "use a larger step"),
    ],
)
def test_what_cannot_be_coded_is_refused(symbols, message):
    with pytest.raises(ValueError, match=message):
        SymbolWriter().write(symbols)


# ---- classes that are known beforehand


@given(st.lists(st.tuples(st.integers(-300, 300), st.integers(0, 5)), max_size=200), st.booleans())
@settings(deadline=None, max_examples=40)
def test_classes_given_beforehand(pairs, given_models):
    symbols = np.array([symbol for symbol, _ in pairs], dtype=np.int32)
    classes = np.array([number for _, number in pairs], dtype=np.uint8)
    models = [Curve(family="laplace", scale=30 + 8 * number) for number in range(6)] if given_models else None
    writer = SymbolWriter()
    writer.write(symbols, classes=classes, models=models)
    writer.write(symbols)
    reader = SymbolReader(*writer.finish())
    assert np.array_equal(reader.read(symbols.size, classes=classes, models=models), symbols)
    assert np.array_equal(reader.read(symbols.size), symbols)
    reader.finish()


def test_classes_save_what_they_know():
    classes = RNG.integers(0, 4, 20_000).astype(np.uint8)
    symbols = np.rint(RNG.laplace(size=20_000) * 4.0**classes).astype(np.int32)
    writer = SymbolWriter()
    writer.write(symbols, classes=classes)
    by_class = sum(map(len, writer.finish()))
    assert by_class < 0.92 * sum(map(len, code(symbols)))
    alone = sum(sum(map(len, code(symbols[classes == number]))) for number in range(4))
    assert by_class < alone + 4


def test_wrong_classes_and_models_are_refused():
    symbols = np.array([1, 2, 9], dtype=np.int32)
    with pytest.raises(ValueError, match="2 classes for 3 symbols"):
        SymbolWriter().write(symbols, classes=np.zeros(2, np.uint8))
    with pytest.raises(ValueError, match="symbol 9 is none of the model's"):
        SymbolWriter().write(symbols, models=[Uniform(lowest=0, symbol_count=5)])


# ---- damage


def test_left_over_words_are_refused():
    symbols = scaled(RNG.normal(size=500), 6)
    model_section, words = code(symbols)
    with pytest.raises(BitstreamError, match="words are left over"):
        decode((model_section, words + bytes(range(16))), symbols.size)
    with pytest.raises(BitstreamError, match="not a multiple of 4"):
        SymbolReader(model_section, bytes(5), version=1)


@given(st.lists(st.integers(-40, 40), max_size=60), st.integers(1, 12))
@settings(deadline=None, max_examples=60)
def test_zero_bytes_behind_the_words_say_nothing(symbols, count):
    model_section, words = code(symbols)
    assert not words.endswith(b"\0")
    assert decode((model_section, words + bytes(count)), len(symbols))[0].tolist() == symbols


def test_too_many_tables_are_refused():
    symbols = np.array([0, 30000], dtype=np.int32)
    sections = code(symbols, symbols)
    reader = SymbolReader(*sections, max_table_entries=100_000)
    reader.read(2)
    with pytest.raises(BitstreamError, match="more and larger tables"):
        reader.read(2)


def test_an_escape_beyond_the_range_is_refused():
    writer = BitWriter()
    Histogram(lowest=0, resolution=0, order=0, steps=(48, 0)).write(writer)
    writer.signed(40000, order=8)
    with pytest.raises(BitstreamError, match="escaped symbol 40000"):
        SymbolReader(writer.getvalue(), b"\xff\xff\xff\x7f").read(1)


def test_the_coders_panic_does_not_escape():
    with pytest.raises(BaseException, match="must be positive") as panic:
        constriction.stream.model.QuantizedGaussian(0, 10, 1.0, 0.0)
    assert not isinstance(panic.value, Exception)
    with pytest.raises(BitstreamError, match="entropy coder refuses"), coder_errors():
        constriction.stream.model.QuantizedGaussian(0, 10, 1.0, 0.0)
    with pytest.raises(KeyboardInterrupt), coder_errors():
        raise KeyboardInterrupt
