"""The grid of steps: exact, monotonous, and recognised again."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from framefold.codecs.quantizing.steps import (
    MAX_EXPONENT,
    MIN_EXPONENT,
    covering_exponents,
    step_exponents,
    step_values,
)

ALL = np.arange(MIN_EXPONENT, MAX_EXPONENT + 1, dtype=np.int32)


def test_every_step_is_the_nearest_float32_to_the_power_of_two():
    steps = step_values(np.arange(8, dtype=np.int32))
    for eighth, step in enumerate(steps.tolist()):
        below, above = np.nextafter(np.float32(step), np.float32([0, 3]))
        middle_below = (Fraction(float(below)) + Fraction(step)) / 2
        middle_above = (Fraction(float(above)) + Fraction(step)) / 2
        assert middle_below**8 < 2**eighth < middle_above**8


def test_all_steps_are_normal_numbers_and_read_back():
    steps = step_values(ALL)
    assert steps.dtype == np.float32
    assert np.isfinite(steps).all()
    assert steps.min() == np.finfo(np.float32).smallest_normal
    assert (np.diff(steps) > 0).all()
    assert np.array_equal(step_exponents(steps), ALL)


@given(st.floats(2.0**-149, 2.0**127, width=32))
def test_other_steps_are_told_apart(value):
    step = np.array([value], dtype=np.float32)
    exponents = step_exponents(step)
    assert (exponents is None) != (value in set(step_values(ALL).tolist()))


@given(st.floats(1e-37, 3e38))
def test_the_covering_step_is_the_smallest_that_covers(value):
    exponents = covering_exponents(np.array([value]))
    covers, too_small = step_values(np.concatenate([exponents, exponents - 1])).tolist()
    assert covers >= value > too_small
