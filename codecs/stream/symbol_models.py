"""The ways to describe how often each symbol occurs in a tensor, and their parameters as bits.

Each model is a few numbers in the stream and an integer `Table` made from them. Symbols that the table lacks
are *escaped*: the table's last weight stands for "another one", and the symbol follows in the model section.

| kind | model             | parameters (EGk: Exp-Golomb of order k, s: signed)                              |
|------|-------------------|---------------------------------------------------------------------------------|
| 0    | `Uniform`         | lowest EG4s, symbols - 1 EG3                                                    |
| 1    | `Curve`, Laplace  | scale 7 bits, plain 1 bit; unless plain: centre EG2s, hole EG1, spike 6 bits    |
| 2    | `Curve`, Gaussian | the same                                                                        |
| 3    | `Histogram`       | lowest EG6s, symbols - 1 EG6, resolution 2 bits, order 2 bits, first level EG4, |
|      |                   | the changes from level to level EGs of that order, the escape's last            |

From version 2 on a curve's scale is written as its difference from one that is known by then: EG1s. The kind is
two bits. `Uniform` of one symbol is a constant and costs no payload. A curve's *hole* says that
the symbols 1 .. hole on both sides of zero do not occur (weight 0), its *spike* that zero is more frequent
than the curve: both are the mark of pruning. With S the sum of all weights after the hole is cut, the spike
adds S * spike // (64 - spike) to zero's. A curve's escape weighs 2**8. A histogram's levels are in steps of
RESOLUTIONS.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Protocol

import numpy as np

from framefold.codecs.stream.probability_tables import (
    FAMILIES,
    LEVEL_WEIGHTS,
    LOWEST_LEVEL,
    SCALE_COUNT,
    TAIL_LEVEL,
    Family,
    Weights,
    curve_levels,
    quarter_levels,
)
from framefold.codecs.stream.varbits import BitReader, BitstreamError, BitWriter

MAX_SYMBOL = 2**15 - 1
"""Symbols are -MAX_SYMBOL .. MAX_SYMBOL."""
FINE_SCALES = 40
"""Curves below this scale (half-lives under four symbols) may lie between two symbols, wider ones need not."""
SPIKES = 64
"""A spike of s puts s/64 of all probability on zero, besides what the curve gives it."""
RESOLUTIONS = (8, 4, 2, 1)
"""Steps of a histogram's levels, in 1/16 octave."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Integer weights of consecutive symbols."""

    lowest: int
    """The symbol of the first weight."""
    weights: Weights
    """int64 >= 0, not all zero; with `escapes`, one more than there are symbols."""
    escapes: bool

    @property
    def symbol_count(self) -> int:
        """How many symbols the table names."""
        return self.weights.size - self.escapes


class Model(Protocol):
    """What the coder needs to know of a model."""

    def __hash__(self) -> int:
        """Models are remembered once they are prepared."""

    def write(self, bits: BitWriter, *, near: int | None = None) -> None:
        """Write the kind and the parameters; a scale as its difference from `near`, in version 1 (None) as it is."""

    def table(self, quarter: int = 0) -> Table:
        """Make the weights that encoder and decoder share; curves moved by `quarter` / 4 symbols, -2 .. 1."""


@dataclass(frozen=True, kw_only=True)
class Uniform:
    """Every symbol from `lowest` on is equally likely."""

    lowest: int
    symbol_count: int

    def write(self, bits: BitWriter, *, near: int | None = None) -> None:
        """Write the kind and the parameters."""
        bits.unsigned(0, width=2)
        bits.signed(self.lowest, order=4)
        bits.exp_golomb(self.symbol_count - 1, order=3)

    def table(self, quarter: int = 0) -> Table:
        """Make the weights that encoder and decoder share."""
        return Table(lowest=self.lowest, weights=np.ones(self.symbol_count, dtype=np.int64), escapes=False)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A discretised Laplace or Gaussian curve, perhaps with a hole and a spike around zero."""

    family: Family
    scale: int
    """Index of the half-life, 0 .. 127; see `probability_tables`."""
    centre: int = 0
    hole: int = 0
    spike: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether it is nothing but a scale."""
        return not (self.centre or self.hole or self.spike)

    def write(self, bits: BitWriter, *, near: int | None = None) -> None:
        """Write the kind and the parameters."""
        bits.unsigned(1 + FAMILIES.index(self.family), width=2)
        if near is None:
            bits.unsigned(self.scale, width=7)
        else:
            bits.signed(self.scale - near, order=1)
        bits.unsigned(self.is_plain, width=1)
        if not self.is_plain:
            bits.signed(self.centre, order=2)
            bits.exp_golomb(self.hole, order=1)
            bits.unsigned(self.spike, width=6)

    def table(self, quarter: int = 0) -> Table:
        """Make the weights that encoder and decoder share."""
        first, whole = self._moved(quarter) if quarter and self.scale < FINE_SCALES else self._centred()
        lowest, highest = max(first, -MAX_SYMBOL), min(first + whole.size - 1, MAX_SYMBOL)
        weights = np.append(whole[lowest - first : highest - first + 1], LEVEL_WEIGHTS[TAIL_LEVEL])
        if lowest <= 0 <= highest:
            self._shape_zero(weights, -lowest)
        return Table(lowest=lowest, weights=weights, escapes=True)

    def _centred(self) -> tuple[int, Weights]:
        """First symbol of the curve, and its weights."""
        half = LEVEL_WEIGHTS[curve_levels(self.family, self.scale, MAX_SYMBOL)]
        return self.centre - half.size + 1, np.concatenate([half[:0:-1], half])

    def _moved(self, quarter: int) -> tuple[int, Weights]:
        """The same, its middle between two symbols."""
        half = LEVEL_WEIGHTS[quarter_levels(self.family, self.scale, MAX_SYMBOL)]
        first = -((half.size - 1 - quarter) // 4)
        distances = np.abs(4 * np.arange(first, (half.size - 1 + quarter) // 4 + 1) - quarter)
        return self.centre + first, half[distances]

    def _shape_zero(self, weights: Weights, zero: int) -> None:
        """Cut the hole, then raise the spike, around the index of symbol zero; the escape stays."""
        weights[max(zero - self.hole, 0) : zero] = 0
        weights[zero + 1 : min(zero + self.hole + 1, weights.size - 1)] = 0
        weights[zero] += int(weights.sum()) * self.spike // (SPIKES - self.spike)


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """A free table: one level per symbol, and one for the escape."""

    lowest: int
    resolution: int
    """Index into RESOLUTIONS."""
    order: int
    """Of the Exp-Golomb codes of the level changes, 0 .. 3."""
    steps: tuple[int, ...]
    """Levels in units of the resolution; at least two, the last one is the escape's."""

    def write(self, bits: BitWriter, *, near: int | None = None) -> None:
        """Write the kind and the parameters."""
        bits.unsigned(3, width=2)
        bits.signed(self.lowest, order=6)
        bits.exp_golomb(len(self.steps) - 2, order=6)
        bits.unsigned(self.resolution, width=2)
        bits.unsigned(self.order, width=2)
        bits.exp_golomb(self.steps[0], order=4)
        for before, after in pairwise(self.steps):
            bits.signed(after - before, order=self.order)

    def table(self, quarter: int = 0) -> Table:
        """Make the weights that encoder and decoder share."""
        levels = np.array(self.steps, dtype=np.int64) * RESOLUTIONS[self.resolution]
        return Table(lowest=self.lowest, weights=LEVEL_WEIGHTS[levels], escapes=True)


def read_model(bits: BitReader, *, near: int | None = None) -> Model:
    """Read the next model, its scale counted from `near`; BitstreamError names a parameter that is wrong."""
    kind = bits.unsigned(width=2)
    if kind == 0:
        return _read_uniform(bits)
    return _read_histogram(bits) if kind == 3 else _read_curve(bits, FAMILIES[kind - 1], near)


def _read_uniform(bits: BitReader) -> Uniform:
    lowest, symbol_count = bits.signed(order=4), bits.exp_golomb(order=3) + 1
    _check_range(lowest, symbol_count)
    return Uniform(lowest=lowest, symbol_count=symbol_count)


def _read_curve(bits: BitReader, family: Family, near: int | None) -> Curve:
    scale = bits.unsigned(width=(SCALE_COUNT - 1).bit_length()) if near is None else near + bits.signed(order=1)
    checked_scale(scale)
    if bits.unsigned(width=1):
        return Curve(family=family, scale=scale)
    centre, hole = bits.signed(order=2), bits.exp_golomb(order=1)
    if abs(centre) > MAX_SYMBOL or hole > MAX_SYMBOL:
        raise BitstreamError(f"a curve's centre {centre} or hole {hole} is beyond {MAX_SYMBOL}")
    return Curve(family=family, scale=scale, centre=centre, hole=hole, spike=bits.unsigned(width=6))


def checked_scale(scale: int) -> int:
    """The scale; BitstreamError if it is none."""
    if not 0 <= scale < SCALE_COUNT:
        raise BitstreamError(f"a curve's scale {scale} is outside 0 .. {SCALE_COUNT - 1}")
    return scale


def _read_histogram(bits: BitReader) -> Histogram:
    lowest, symbol_count = bits.signed(order=6), bits.exp_golomb(order=6) + 1
    _check_range(lowest, symbol_count)
    if symbol_count > bits.bits_left:
        raise BitstreamError(f"a histogram claims {symbol_count} symbols, {bits.bits_left} bits are left")
    resolution, order = bits.unsigned(width=2), bits.unsigned(width=2)
    first = bits.exp_golomb(order=4)
    steps = tuple(accumulate((bits.signed(order=order) for _ in range(symbol_count)), initial=first))
    if min(steps) < 0 or max(steps) * RESOLUTIONS[resolution] > LOWEST_LEVEL:
        raise BitstreamError(f"a histogram's level is outside 0 .. {LOWEST_LEVEL}")
    return Histogram(lowest=lowest, resolution=resolution, order=order, steps=steps)


def _check_range(lowest: int, symbol_count: int) -> None:
    if lowest < -MAX_SYMBOL or lowest + symbol_count - 1 > MAX_SYMBOL:
        raise BitstreamError(
            f"a table of {symbol_count} symbols from {lowest} on is outside -{MAX_SYMBOL} .. {MAX_SYMBOL}"
        )
