"""The trellis: its table, its paths, the search, and what it gains."""

from __future__ import annotations

import heapq
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framefold.codecs.quantizing import trellis
from framefold.codecs.quantizing.rounding import BitTable, entropy_constrained_uniform
from framefold.codecs.quantizing.trellis import (
    MAX_LEVEL,
    NO_BITS,
    TRANSITIONS,
    LevelBits,
    entropy_constrained,
    level_bits,
    levels_of,
    next_states,
    second_quantizer,
    symbols_at,
    symbols_of_levels,
    trellis_symbols,
)
from framefold.codecs.stream.symbol_models import MAX_SYMBOL
from framefold.codecs.stream.varbits import BitstreamError

ONE = np.ones((1, 1))
FOUR_STATES = [[0, 2], [2, 0], [1, 3], [3, 1]]


def entropy_bits(*groups):
    """Of all symbols of each group together, order 0."""
    bits = 0.0
    for group in groups:
        counts = np.unique(group, return_counts=True)[1]
        bits -= float((counts * np.log2(counts / counts.sum())).sum()) if group.size else 0.0
    return bits


def level_entropy(symbols):
    """Bits per weight with one ideal table for each quantizer."""
    levels, states = levels_of(symbols)
    second = second_quantizer(states)
    return entropy_bits(levels[second], levels[~second]) / symbols.size


def squared_error(values, symbols):
    return float(((values - symbols) ** 2).mean())


def decibels(ratio):
    return 10 * np.log10(ratio)


# ---- the table


def test_the_table_is_part_of_the_format():
    assert TRANSITIONS.tolist() == [[0, 4], [2, 5], [5, 2], [4, 0], [6, 1], [7, 3], [3, 7], [1, 6]]
    levels = np.array([[3, -2, 0, 1, 5, 0, -7, -1, 2, 4, 0, 0, 1, -1, -1, 6]], dtype=np.int32)
    symbols = [[6, -3, 0, 2, 10, 0, -13, -1, 3, 8, 0, 0, 2, -2, -1, 12]]
    assert symbols_of_levels(levels).tolist() == symbols


def test_two_branches_enter_each_state_with_the_parities_of_one_quantizer():
    for state in range(8):
        (origin, parity), (other_origin, other_parity) = np.argwhere(state == TRANSITIONS).tolist()
        assert (origin < 4) == (other_origin < 4)
        assert parity != other_parity


def free_distance(table):
    """Least squared distance of two sequences of symbols that part in one state and meet in another."""

    def apart(state, parity, other, other_parity):
        same = (state < len(table) // 2) == (other < len(table) // 2)
        return 4 * (parity != other_parity) if same else 1

    queue, done = [(4, even, odd) for even, odd in table], set()
    while queue:
        distance, *pair = heapq.heappop(queue)
        if pair[0] == pair[1]:
            return distance
        if tuple(pair) not in done:
            done.add(tuple(pair))
            for step in itertools.product((0, 1), repeat=2):
                further = apart(pair[0], step[0], pair[1], step[1])
                heapq.heappush(queue, (distance + further, table[pair[0]][step[0]], table[pair[1]][step[1]]))
    raise AssertionError("the paths never meet")


def test_the_free_distance_is_more_than_that_of_four_states():
    assert free_distance(FOUR_STATES) == 9
    assert free_distance(TRANSITIONS.tolist()) == 10


# ---- paths


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_levels_to_symbols_and_back(data):
    rows, columns = data.draw(st.integers(0, 4)), data.draw(st.integers(0, 12))
    level = st.one_of(st.integers(-3, 3), st.integers(-MAX_LEVEL, MAX_LEVEL))
    drawn = data.draw(st.lists(level, min_size=rows * columns, max_size=rows * columns))
    levels = np.array(drawn, dtype=np.int32).reshape(rows, columns)
    symbols = symbols_of_levels(levels)
    assert symbols.dtype == np.int32
    assert np.abs(symbols).max(initial=0) <= MAX_SYMBOL
    found, states = levels_of(symbols)
    assert np.array_equal(found, levels)
    state = np.zeros(rows, dtype=np.uint8)  # as a decoder walks
    for column in range(columns):
        assert np.array_equal(state, states[:, column])
        assert np.array_equal(symbols_at(state, levels[:, column]), symbols[:, column])
        odd = symbols[:, column] % 2 == 1
        assert np.array_equal(odd, second_quantizer(state) & (symbols[:, column] != 0))
        state = next_states(state, levels[:, column])


def test_symbols_off_the_paths_are_refused_by_place():
    good = symbols_of_levels(np.array([[1, 0, 1], [2, 1, 3]], dtype=np.int32))
    bad = good.copy()
    bad[1, 2] += 1
    with pytest.raises(ValueError, match=r"row 1 is no path .* column 2"):
        levels_of(bad)
    with pytest.raises(ValueError, match="row 0 is no path"):
        levels_of(np.array([[1]], dtype=np.int32))


def test_a_level_beyond_the_largest_is_damage():
    with pytest.raises(BitstreamError, match="16384"):
        symbols_of_levels(np.array([[0, -MAX_LEVEL - 1]], dtype=np.int32))


# ---- the search


def every_path(columns, largest):
    """All sequences of levels within +-largest, with their states and symbols."""
    levels = np.array(list(itertools.product(range(-largest, largest + 1), repeat=columns)), dtype=np.int32)
    symbols = symbols_of_levels(levels)
    return levels, levels_of(symbols)[1], symbols


@pytest.mark.parametrize("rate_weight", [0.0, 0.3, 2.0])
def test_the_search_finds_the_cheapest_of_all_paths(rate_weight):
    rng = np.random.default_rng(3)
    magnitudes = np.abs(np.arange(-3, 4))
    bits = LevelBits(
        first=BitTable(lowest=-3, bits=1.3 * magnitudes), second=BitTable(lowest=-3, bits=0.7 + magnitudes)
    )
    values, importance = rng.uniform(-4, 4, size=(40, 4)), rng.uniform(0, 2, size=(40, 4))
    levels, states, symbols = every_path(columns=4, largest=3)
    spent = np.where(second_quantizer(states), bits.second.at(levels), bits.first.at(levels)).sum(axis=1)
    found = trellis_symbols(values, importance, bits, rate_weight)
    found_levels, found_states = levels_of(found)
    of_found = np.where(second_quantizer(found_states), bits.second.at(found_levels), bits.first.at(found_levels))
    for row in range(len(values)):
        least = ((values[row] - symbols) ** 2 @ importance[row] + rate_weight * spent).min()
        cost = (values[row] - found[row]) ** 2 @ importance[row] + rate_weight * of_found[row].sum()
        assert cost == pytest.approx(least)


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (1, 1), (3, 1), (2100, 2), (1, 9000)])
def test_every_shape_gives_paths_near_the_values(shape):
    values = np.random.default_rng(0).normal(scale=9, size=shape)
    symbols = trellis_symbols(values, ONE, NO_BITS, 0.0)
    assert symbols.shape == shape
    assert np.array_equal(symbols_of_levels(levels_of(symbols)[0]), symbols)
    assert np.abs(values - symbols).max(initial=0) < 3


def test_rows_do_not_depend_on_each_other():
    values = np.random.default_rng(1).normal(scale=5, size=(1030, 3))
    alone = np.concatenate([trellis_symbols(values[row : row + 1], ONE, NO_BITS, 0.0) for row in range(1020, 1030)])
    assert np.array_equal(trellis_symbols(values, ONE, NO_BITS, 0.0)[1020:], alone)


def test_important_weights_err_less_and_unimportant_ones_cost_nothing():
    values = np.random.default_rng(2).normal(scale=4, size=(16, 256))
    importance = np.tile([9.0, 0.1], (16, 128))
    symbols = entropy_constrained(values, importance, 0.3)
    errors = (values - symbols) ** 2
    assert errors[:, ::2].mean() < 0.2 * errors[:, 1::2].mean()
    assert not entropy_constrained(values, 0 * ONE, 0.3).any()


@pytest.mark.parametrize("value", [0.0, 0.3, -7.7, 20.0])
def test_constant_values(value):
    values = np.full((4, 50), value)
    for rate_weight in (0.0, 0.3):
        errors = np.abs(values - entropy_constrained(values, ONE, rate_weight))
        assert errors[:, 3:].mean() < 1.01


def test_the_largest_values_stay_within_the_symbols():
    values = np.tile([MAX_SYMBOL, -MAX_SYMBOL, 0.0], (2, 20)).astype(np.float64)
    symbols = entropy_constrained(values, ONE, 0.3)
    assert np.abs(symbols).max() <= MAX_SYMBOL
    assert np.abs(values - symbols).max() < 5


@pytest.mark.parametrize(
    ("values", "importance", "rate_weight", "message"),
    [
        ([[np.nan]], ONE, 0.0, "nan steps"),
        ([[-np.inf]], ONE, 0.0, "inf steps"),
        ([[32768.0]], ONE, 0.0, "larger step"),
        ([[1.0]], -ONE, 0.0, "importance"),
        ([[1.0]], ONE * np.nan, 0.0, "importance"),
        ([[1.0]], ONE, -1.0, "rate_weight"),
        ([[1.0]], ONE, np.inf, "rate_weight"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(values, importance, rate_weight, message):
    with pytest.raises(ValueError, match=message):
        trellis_symbols(np.array(values), importance, NO_BITS, rate_weight)


# ---- what it gains


def plain_search(table, values):
    """Viterbi again, without bits and any cleverness, for tables of any number of states."""
    half, rows = len(table) // 2, len(values)
    totals, history = np.full((len(table), rows), np.inf), []
    totals[0] = 0
    for value in values.T:
        after, took = np.full_like(totals, np.inf), np.zeros((len(table), rows), dtype=int)
        for state, parity in itertools.product(range(len(table)), (0, 1)):
            shift = 2 * parity - (state >= half)  # far from zero the quantizers are even grids
            cost = totals[state] + (value - shift - 4 * np.rint((value - shift) / 4)) ** 2
            target = table[state][parity]
            took[target] = np.where(cost < after[target], state, took[target])
            after[target] = np.minimum(cost, after[target])
        totals = after
        history.append(took)
    return totals.min(axis=0)


def test_gain_at_high_rate_over_plain_rounding_and_over_four_states():
    values = np.random.default_rng(0).uniform(400, 800, size=(128, 256))
    plain = 4 / 12  # a quantizer has every second symbol: the same rate as rounding to steps of 2
    gain = decibels(plain / squared_error(values, trellis_symbols(values, ONE, NO_BITS, 0.0)))
    reference = decibels(plain * values.size / plain_search(TRANSITIONS.tolist(), values).sum())
    of_four = decibels(plain * values.size / plain_search(FOUR_STATES, values).sum())
    assert gain == pytest.approx(reference, abs=1e-6)
    assert gain > 1.0
    assert gain > of_four + 0.07


def uniform_curve(values, spread):
    """Bits per weight and decibels of rate-aware plain rounding, from fine steps to coarse ones."""
    points = []
    for step in spread * 2.0 ** np.linspace(-2.5, 0.5, 11):
        symbols = entropy_constrained_uniform(values / step, ONE)
        points.append((decibels(squared_error(values / step, symbols) * step**2), entropy_bits(symbols) / values.size))
    return np.array(points).T


@pytest.mark.parametrize(("draw", "steps"), [("normal", [0.55, 0.28, 0.14]), ("laplace", [0.38, 0.24, 0.13])])
def test_at_least_a_tenth_of_a_bit_saved_at_equal_error(draw, steps):
    values = getattr(np.random.default_rng(5), draw)(size=(64, 256))
    errors, bits = uniform_curve(values, values.std())
    for step in values.std() * np.array(steps):
        symbols = entropy_constrained(values / step, ONE)
        spent = level_entropy(symbols)
        assert 1.95 < spent < 4.05
        needed = np.interp(decibels(squared_error(values / step, symbols) * step**2), errors, bits)
        assert needed - spent > 0.1


def test_counting_and_searching_again_lowers_the_cost():
    values = np.random.default_rng(6).laplace(scale=2.0, size=(64, 128))

    def cost(symbols):
        return squared_error(values, symbols) + 0.3 * level_entropy(symbols)

    first = trellis_symbols(values, ONE, NO_BITS, 0.0)
    again = trellis_symbols(values, ONE, level_bits(*levels_of(first)), 0.3)
    assert cost(again) < cost(first) - 0.005
    assert cost(entropy_constrained(values, ONE, 0.3)) < cost(again) - 0.002


def test_a_sample_is_enough_for_the_bits():
    values = np.random.default_rng(7).normal(scale=3.0, size=(140, 256))
    of_sample = entropy_constrained(values, ONE, 0.3)
    bits = NO_BITS
    for turn in range(trellis.ROUNDS + 1):
        bits = level_bits(*levels_of(trellis_symbols(values, ONE, bits, 0.3 if turn else 0.0)))
    of_all = trellis_symbols(values, ONE, bits, 0.3)
    costs = [squared_error(values, symbols) + 0.3 * level_entropy(symbols) for symbols in (of_sample, of_all)]
    assert costs[0] == pytest.approx(costs[1], rel=2e-3)
