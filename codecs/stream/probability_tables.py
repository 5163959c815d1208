"""Integer probabilities: every weight is one of 385 levels, level q standing for 2**(24 - q/16).

A decoder must rebuild exactly the table that the encoder used, on any machine and for ever, so nothing here
touches a floating point function: roots of two come from integer square roots, the rest is shifts and int64
products. Rounding -log2 p to 1/16 costs 0.0001 bit per symbol (ln 2 / 2 times the variance of the error).

    level(k) = 16 * |k| / h        two-sided geometric, the discretised Laplace
    level(k) = 16 * (k / h)**2     the discretised Gaussian

The half-life h (the |k| where the weight has halved once) is 2**((scale - 24) / 8) for scale = 0 .. 127: an
eighth of a symbol up to 7500 symbols.
"""

from __future__ import annotations

from functools import cache, lru_cache
from math import isqrt
from typing import Literal

import numpy as np
import numpy.typing as npt

Levels = npt.NDArray[np.int64]
Weights = npt.NDArray[np.int64]
Family = Literal["laplace", "gaussian"]
FAMILIES: tuple[Family, Family] = ("laplace", "gaussian")
"""By number."""

LEVELS_PER_OCTAVE = 16
LOWEST_LEVEL = 24 * LEVELS_PER_OCTAVE
"""The level of weight 1; level 0 weighs 2**24."""
TAIL_LEVEL = 16 * LEVELS_PER_OCTAVE
"""Where a curve's table ends: rarer symbols are escaped."""
SCALE_COUNT = 128
SCALE_OF_ONE = 24
"""The scale index whose half-life is one symbol."""

SLOPE_FRACTION = 48
"""Bits behind the binary point of a curve's slope; products stay below 2**57."""

_FRACTION = 64  # bits behind the binary point of the roots


@cache
def _powers_of_root(halvings: int) -> tuple[int, ...]:
    """2**(j / 2**halvings) for j = 0 .. 2**halvings - 1, in fixed point, rounded down."""
    root = 2 << _FRACTION
    for _ in range(halvings):
        root = isqrt(root << _FRACTION)
    powers = [1 << _FRACTION]
    for _ in range(2**halvings - 1):
        powers.append(powers[-1] * root >> _FRACTION)
    return tuple(powers)


def _level_weights() -> Weights:
    powers = _powers_of_root(4)
    weights = []
    for level in range(LOWEST_LEVEL + 1):
        octaves, sixteenths = -(-level // 16), -level % 16
        weights.append(powers[sixteenths] >> (_FRACTION - 24 + octaves))
    return np.array(weights, dtype=np.int64)


LEVEL_WEIGHTS: Weights = _level_weights()
"""(385,) int64: 2**24 down to 1."""
LEVEL_WEIGHTS.setflags(write=False)


def octave_thresholds(octaves: int) -> Levels:
    """The smallest integers of which 8 * log2 reaches 0, 1, 2, ..., for so many octaves."""
    powers = _powers_of_root(3)
    exact = [powers[eighth % 8] << (eighth // 8) for eighth in range(8 * octaves + 1)]
    return np.array([-(-power >> _FRACTION) for power in exact], dtype=np.int64)


def curve_slope(family: Family, scale: int) -> int:
    """16 / h (of a Gaussian 16 / h**2) in fixed point, where h is the half-life of this scale."""
    eighths = (SCALE_OF_ONE - scale) * (2 if family == "gaussian" else 1)
    power = LEVELS_PER_OCTAVE * _powers_of_root(3)[eighths % 8]
    shift = _FRACTION - SLOPE_FRACTION - eighths // 8
    return power >> shift


@lru_cache(maxsize=2 * SCALE_COUNT)
def curve_levels(family: Family, scale: int, limit: int) -> Levels:
    """Levels of the distances 0, 1, 2, ... from the centre, up to TAIL_LEVEL or to the distance `limit`."""
    squared = family == "gaussian"
    slope = curve_slope(family, scale)
    reach = (TAIL_LEVEL << SLOPE_FRACTION) // slope
    distances = np.arange(min(isqrt(reach) if squared else reach, limit) + 1, dtype=np.int64)
    powers = distances**2 if squared else distances
    levels = (powers * slope + (1 << (SLOPE_FRACTION - 1))) >> SLOPE_FRACTION
    levels.setflags(write=False)
    return levels


@lru_cache(maxsize=4 * SCALE_COUNT)
def quarter_levels(family: Family, scale: int, limit: int) -> Levels:
    """Levels like `curve_levels`, at distances of 0, 1/4, 2/4, ... symbols."""
    squared = family == "gaussian"
    slope = curve_slope(family, scale)
    shift = SLOPE_FRACTION + (4 if squared else 2)
    reach = (TAIL_LEVEL << shift) // slope
    distances = np.arange(min(isqrt(reach) if squared else reach, 4 * limit) + 1, dtype=np.int64)
    powers = distances**2 if squared else distances
    levels = (powers * slope + (1 << (shift - 1))) >> shift
    levels.setflags(write=False)
    return levels
