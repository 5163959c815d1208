import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefold.codecs.network import QuantizedTensor, SymbolTensors
from framefold.codecs.rate.rate_search import MAX_EVALUATIONS, BytesGoal, Candidate, PsnrGoal, search
from framefold.codecs.testing import make_clip, moving_shapes, run_fit

WEIGHTS = 10_000
SYMBOLS = SymbolTensors(
    span=make_clip(moving_shapes(1, 4, 4)).span,
    codec="none",
    config={},
    tensors={"w": QuantizedTensor(symbols=np.zeros(WEIGHTS, np.int32), steps=np.ones(1, np.float32))},
)
OWN_DB = 33.0


def entropy(fineness, spread):
    """Bits per weight of a Laplace source in steps of 2**fineness: straight when fine, bent when coarse."""
    step = 2.0**fineness
    decay = math.exp(-step / spread)
    zero = 1 - math.exp(-step / (2 * spread))
    rest = 1 - zero
    if not 1e-12 < rest < 1:
        return 0.0
    tail = -math.log2(1 - decay) - decay / (1 - decay) * math.log2(decay)
    return -zero * math.log2(zero) - rest * math.log2(rest) + rest * (1 + tail)


def mse(psnr_db):
    return 10 ** (-psnr_db / 10)


class Source:
    """A network that is nothing but its rate and its error, on a grid of steps if `grid` says so."""

    def __init__(self, spread=0.02, *, grid=0.0, ripple=0.0, constant=60):
        self.spread, self.grid, self.ripple, self.constant = spread, grid, ripple, constant
        self.asked = []

    def __call__(self, fineness):
        self.asked.append(fineness)
        fineness = round(fineness / self.grid) * self.grid if self.grid else fineness
        bits = entropy(fineness, self.spread) * (1 + self.ripple * math.sin(40 * fineness))
        psnr_db = -10 * math.log10(mse(OWN_DB) + 4**fineness / 12)
        size = self.constant + round(WEIGHTS * bits / 8)
        return Candidate(symbols=SYMBOLS, bytes=size, measure=lambda: psnr_db)


def found(source, goal, *, start=0.0, finest=-40.0, coarsest=40.0):
    return run_fit(search(source, goal, start=start, finest=finest, coarsest=coarsest))


def bytes_goal(size, own_db=OWN_DB):
    return BytesGoal(bytes=size, ceiling_db=lambda: own_db)


SPREADS = st.floats(-12, 4).map(lambda octaves: 2.0**octaves)


@given(SPREADS, st.floats(1.0, 3.9), st.floats(-3, 3))
def test_bytes_are_met_from_below_in_few_tries(spread, bits_per_weight, off):
    source, size = Source(spread), 60 + WEIGHTS * bits_per_weight / 8
    best = found(source, bytes_goal(size), start=math.log2(spread) + off).best
    assert 0.99 * size <= best.bytes <= size
    assert len(source.asked) <= MAX_EVALUATIONS


@given(SPREADS, st.floats(0.25, 3.9), st.floats(-6, 6))
def test_bytes_are_met_from_anywhere(spread, bits_per_weight, off):
    size = 60 + WEIGHTS * bits_per_weight / 8
    best = found(Source(spread), bytes_goal(size), start=math.log2(spread) + off).best
    assert best.bytes == pytest.approx(size, rel=0.03)


@given(SPREADS, st.floats(20, OWN_DB - 0.06))
def test_a_quality_is_met_with_hardly_a_byte_too_many(spread, psnr_db):
    best = found(Source(spread), PsnrGoal(psnr_db=psnr_db, ceiling_db=OWN_DB)).best
    assert psnr_db - 0.05 <= best.psnr_db
    assert best.psnr_db <= psnr_db + 0.05 or best.bytes == 60


@given(st.floats(0.5, 3.9), st.sampled_from([1 / 8, 1 / 4]), st.sampled_from([0.0, 0.02]))
def test_between_two_steps_of_a_grid_the_nearer_one_is_taken(bits_per_weight, grid, ripple):
    source, size = Source(grid=grid, ripple=ripple), 60 + WEIGHTS * bits_per_weight / 8
    best = found(source, bytes_goal(size)).best
    steps = (source(-40 * grid + number * grid).bytes for number in range(800))
    nearest = min(abs(each / size - 1) for each in steps)
    assert abs(best.bytes / size - 1) <= 2 * nearest + 0.02


def test_the_best_try_is_kept_not_the_last():
    source = Source(grid=1.0)
    result = found(source, PsnrGoal(psnr_db=29.0, ceiling_db=OWN_DB))
    good = [point.candidate for point in result.points if point.candidate.psnr_db >= 28.95]
    assert result.best.bytes == min(candidate.bytes for candidate in good)


@pytest.mark.parametrize("size", [10, 59])
def test_a_goal_below_all_streams_ends_with_the_smallest(size):
    source = Source()
    result = found(source, bytes_goal(size), coarsest=5.0)
    assert result.best.bytes == 60
    assert max(source.asked) == 5.0
    assert not result.saturated


def test_finer_steps_that_help_nobody_are_not_tried():
    source = Source()
    result = found(source, bytes_goal(10**6))
    assert result.saturated
    assert result.best.psnr_db > OWN_DB - 0.02
    assert 8 * result.best.bytes < 16 * WEIGHTS
    assert result.best is result.points[-1].candidate


def test_a_network_that_cannot_be_measured_is_made_as_fine_as_allowed():
    source = Source()
    result = found(source, BytesGoal(bytes=10**6, ceiling_db=lambda: None), finest=-20.0)
    assert min(source.asked) == -20.0
    assert result.best.bytes == max(point.candidate.bytes for point in result.points)


def test_one_try_is_enough_where_the_start_is_right():
    source = Source()
    start = 0.5 * math.log2(12 * (mse(31.0) - mse(OWN_DB)))
    assert found(source, PsnrGoal(psnr_db=31.0, ceiling_db=OWN_DB), start=start).best.psnr_db == pytest.approx(31.0)
    assert len(source.asked) == 1


def test_nothing_is_measured_that_is_not_needed():
    def refuse():
        raise AssertionError("measured")

    def encode(fineness):
        size = Source()(fineness).bytes
        return Candidate(symbols=SYMBOLS, bytes=size, measure=refuse)

    size = 60 + WEIGHTS * 2 / 8
    assert found(encode, bytes_goal(size)).best.bytes <= size
