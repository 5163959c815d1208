"""Rate-aware rounding: the cheapest of its candidates, and a better curve of bits and errors."""

from __future__ import annotations

import numpy as np
import pytest

from framefold.codecs.quantizing.rounding import FREE, BitTable, entropy_constrained_uniform, rate_aware_symbols, sample
from framefold.codecs.stream.symbol_models import MAX_SYMBOL

ONE = np.ones(1)


def entropy_bits(symbols):
    counts = np.unique(symbols, return_counts=True)[1]
    return float(-(counts * np.log2(counts / counts.sum())).sum())


# ---- bits of symbols


def test_a_table_of_many_symbols_is_their_ideal_code():
    symbols = np.rint(np.random.default_rng(0).normal(scale=3, size=100_000)).astype(np.int32)
    assert BitTable.of(symbols).at(symbols).sum() == pytest.approx(entropy_bits(symbols), rel=1e-3)


def test_the_probabilities_of_a_table_sum_to_one():
    for symbols in ([], [0], [5, 5, 5], [-40, 3, 3, 900], [MAX_SYMBOL, -MAX_SYMBOL]):
        table = BitTable.of(np.array(symbols, dtype=np.int32))
        assert np.exp2(-table.bits).sum() == pytest.approx(1.0)
        assert np.isfinite(table.bits).all()


def test_symbols_that_were_not_seen_cost_more_the_further_they_are():
    table = BitTable.of(np.array([0, 0, 1, -1, 2] * 20, dtype=np.int32))
    bits = table.at(np.array([0, 1, 2, 3, 4, 30, 300, -3000, MAX_SYMBOL], dtype=np.int32))
    assert (np.diff(bits) > 0)[[0, 1, 2, 5, 6, 7]].all()
    assert np.isfinite(bits).all()


def test_symbols_outside_a_table_pay_two_bits_for_each_doubling():
    table = BitTable(lowest=-1, bits=np.array([3.0, 1.0, 2.0]))
    symbols = np.array([[-1, 0, 1], [2, 4, -8]], dtype=np.int32)
    assert table.at(symbols).tolist() == [[3.0, 1.0, 2.0], [4.0, 6.0, 9.0]]


# ---- rounding


def test_each_weight_takes_the_cheapest_of_three():
    rng = np.random.default_rng(1)
    table = BitTable(lowest=-8, bits=rng.uniform(0, 6, size=17))
    values, importance = rng.uniform(-8, 8, size=(50, 40)), rng.uniform(0, 2, size=(50, 40))
    nearest = np.rint(values).astype(np.int32)
    candidates = np.stack([nearest, nearest - np.sign(nearest), np.zeros_like(nearest)])
    costs = importance * (values - candidates) ** 2 + 0.3 * table.at(candidates)
    best = np.take_along_axis(candidates, costs.argmin(axis=0)[None], axis=0)[0]
    symbols = rate_aware_symbols(values, importance, table, 0.3)
    assert np.array_equal(symbols, best)
    assert symbols.dtype == np.int32
    assert (symbols != nearest).any()


def test_without_a_rate_weight_it_is_plain_rounding():
    values = np.random.default_rng(2).normal(scale=20, size=70_000)
    nearest = np.rint(values).astype(np.int32)
    assert np.array_equal(rate_aware_symbols(values, ONE, FREE, 0.0), nearest)
    assert np.array_equal(entropy_constrained_uniform(values, ONE, 0.0), nearest)


@pytest.mark.parametrize(("scale", "gained"), [(0.5, 0.4), (1.0, 0.2), (2.0, 0.04)])
def test_less_error_at_equal_entropy(scale, gained):
    """In decibels, against plain rounding with another step."""
    values = np.random.default_rng(3).laplace(scale=scale, size=100_000)
    symbols = entropy_constrained_uniform(values, ONE)
    errors, bits = [], []
    for step in 2.0 ** np.linspace(0, 1.2, 13):
        plain = np.rint(values / step)
        errors.append(10 * np.log10(((values - step * plain) ** 2).mean()))
        bits.append(entropy_bits(plain))
    same = np.interp(entropy_bits(symbols), bits[::-1], errors[::-1])
    assert 10 * np.log10(((values - symbols) ** 2).mean()) < same - gained


def test_importance_decides_which_weights_give_way():
    values = np.random.default_rng(4).laplace(scale=1.5, size=(64, 100))
    importance = np.where(np.arange(64) < 32, 4.0, 0.25)[:, None]
    errors = (values - entropy_constrained_uniform(values, importance)) ** 2
    assert errors[:32].mean() < 0.8 * errors[32:].mean()
    assert not entropy_constrained_uniform(values, np.zeros(1)).any()


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,), (2, 3, 4, 5), (40_000,)])
def test_every_shape(shape):
    values = np.random.default_rng(5).normal(scale=6, size=shape)
    symbols = entropy_constrained_uniform(values, ONE if shape else np.array(1.0))
    assert symbols.shape == shape
    assert np.abs(values - symbols).max(initial=0) < 1.6


def test_numbers_that_make_no_sense_are_refused():
    for value in (np.nan, np.inf, MAX_SYMBOL + 1.0):
        with pytest.raises(ValueError, match="larger step"):
            entropy_constrained_uniform(np.array([0.0, value]), ONE)
    for importance in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="importance"):
            entropy_constrained_uniform(np.zeros(2), np.array([1.0, importance]))
    for rate_weight in (-0.1, np.nan, np.inf):
        with pytest.raises(ValueError, match="rate_weight"):
            entropy_constrained_uniform(np.zeros(2), ONE, rate_weight)


def test_a_sample_spans_the_values_from_end_to_end():
    values = np.arange(100_000.0).reshape(100, 1000)
    few, importance = sample(values, -values)
    assert few.shape == (128, 256)
    assert np.array_equal(importance, -few)
    assert (np.diff(few, axis=1) == 1).all()
    assert (few[0, 0], few[-1, -1]) == (0, values.size - 1)
    whole, _ = sample(values[:30], values[:30])
    assert whole.shape == (30, 1000)
