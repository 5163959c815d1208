"""Coding an array from what is already known of it: its neighbours predict a symbol and how far off it may be.

An array is seen as (a, b, h, w): a feature grid as (nodes, channels, height, width), a convolution as (outputs,
inputs, height, width), a matrix as (rows, columns, 1, 1), three dimensions as (first, 1, height, width), a
vector as (1, 1, 1, n), more than four with all in the middle together as b. Everything is integer arithmetic:

    prediction  P = sum of weight * symbol over the rule's neighbours, in sixteenths; outside the array 0
    error       e = |16 * symbol - P|
    energies    means of e so far, in 256ths, drawn towards the rule's prior mean G = floor(2**(prior / 8)):
                row     over what is known of the same a      (16 * sum of e + 8 * G) // (number + 8)
                column  over the same (b, h, w)               the same
                local   over the neighbours that exist        (16 * sum of v * e + 2 * G) // (sum of v + 2)
    activity    t = sum over the three of its weight * (L(energy) - prior), L(x) = floor(8 * log2(x)),
                at most L(65535), L(0) = 0
    class       (t // 16 + middle) within 0 .. classes - 1: half an octave of activity each
    centre      with P in quarters, p = (P + 2) // 4: c = (p + 2) // 4, and the quarter p - 4 * c, -2 .. 1;
                c is then held within -32767 .. 32767

What is coded is symbol - c, under the model of its class, moved by the quarter. For a trellis tensor the levels
are coded, each quantizer has models of its own, and p is first turned into quarters of levels: (p + 1) // 2 for
the first quantizer; for the second p where |p| < 4, else its sign times (|p| + 4) // 2. Where no neighbour has a
weight, c and the quarter are 0.

All places of one slice are coded together. A slice is where d = i . skew is the same; the skews are the smallest
whole numbers for which every neighbour in use lies in an earlier slice (`skews`), so a rule that looks at the
previous node only needs one slice for each node, and one that looks everywhere some diagonal wave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from math import prod

import numpy as np
import numpy.typing as npt

from framefold.codecs.stream.probability_tables import octave_thresholds
from framefold.codecs.stream.varbits import BitReader, BitstreamError, BitWriter

IntArray = npt.NDArray[np.int64]
Shape4 = tuple[int, int, int, int]
Offset = tuple[int, int, int, int]

OFFSETS: tuple[Offset, ...] = (
    (0, 0, 0, 1),
    (0, 0, 1, 0),
    (1, 0, 0, 0),
    (0, 1, 0, 0),
    (0, 0, 0, 2),
    (0, 0, 2, 0),
    (2, 0, 0, 0),
    (0, 2, 0, 0),
    (0, 0, 1, 1),
    (0, 0, 1, -1),
    (1, 0, 0, 1),
    (1, 0, 0, -1),
    (1, 0, 1, 0),
    (1, 0, -1, 0),
    (1, 1, 0, 0),
    (3, 0, 0, 0),
    (4, 0, 0, 0),
    (9, 0, 0, 0),
    (16, 0, 0, 0),
    (25, 0, 0, 0),
    (0, 0, 2, 1),
    (0, 0, 1, 2),
    (0, 0, 2, -1),
    (0, 0, 0, 3),
    (0, 0, 3, 0),
)
"""How far back a neighbour lies along (a, b, h, w). 4, 9, 16, 25: the next colour behind a pixel shuffle."""
PARENT = len(OFFSETS)
"""The neighbour that is the parent's symbol at the same place."""
MAX_CLASSES = 16
MAX_WEIGHT = 64
"""Of a prediction, in sixteenths, either sign."""
MAX_ENERGY_WEIGHT = 3
MAX_SLICES = 2**16 - 1
PLACES_PER_SLICE = 256
"""A slice takes as much time as so many places."""

UNIT = 16
"""Predictions are in sixteenths of a symbol."""
PRIOR_COUNT, LOCAL_PRIOR_COUNT = 8, 2
"""How many errors the prior mean counts for."""
CLASS_SHIFT = 4
"""A class is 2**4 steps of activity."""
TOP = 2**16 - 1

_THRESHOLDS = octave_thresholds(16)

ACTIVITY: npt.NDArray[np.int32] = np.zeros(TOP + 1, dtype=np.int32)
"""floor(8 * log2(x)) of 0 .. TOP, that of 0 as 0."""
ACTIVITY[1:] = np.searchsorted(_THRESHOLDS, np.arange(1, TOP + 1), side="right") - 1
ACTIVITY.setflags(write=False)


@cache
def prior_mean(prior: int) -> int:
    """floor(2**(prior / 8))."""
    octave, eighth = divmod(prior, 8)
    return int(_THRESHOLDS[120 + eighth] - (eighth > 0)) >> (15 - octave)


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """One place that is looked at."""

    number: int
    """Index into OFFSETS, or PARENT."""
    weight: int
    """Of the prediction, in sixteenths, -MAX_WEIGHT .. MAX_WEIGHT."""
    energy: int
    """Of the local energy, 0 .. 3; 0 for PARENT."""


@dataclass(frozen=True, kw_only=True)
class NeighbourRule:
    """Which neighbours predict, and what the classes are made of."""

    neighbours: tuple[Neighbour, ...] = ()
    """By number, ascending."""
    row: int = 0
    """Weights of the three energies in quarters, 0 .. 7."""
    column: int = 0
    local: int = 0
    prior: int = 0
    """Of the mean error in 256ths of a symbol: eighths of an octave, 0 .. 127."""
    classes: int = 1
    """1 .. MAX_CLASSES."""
    middle: int = 0
    """The class of the prior mean, 0 .. 15."""

    @cached_property
    def predicts(self) -> bool:
        """Whether any neighbour has a weight."""
        return any(neighbour.weight for neighbour in self.neighbours)

    @cached_property
    def own(self) -> tuple[Neighbour, ...]:
        """The neighbours within the array."""
        return tuple(neighbour for neighbour in self.neighbours if neighbour.number != PARENT)

    @cached_property
    def parent_weight(self) -> int:
        """The weight of the parent's symbol."""
        return next((neighbour.weight for neighbour in self.neighbours if neighbour.number == PARENT), 0)

    def write(self, bits: BitWriter) -> None:
        """Write the rule down."""
        bits.exp_golomb(len(self.neighbours), order=1)
        previous = -1
        for neighbour in self.neighbours:
            bits.exp_golomb(neighbour.number - previous - 1, order=0)
            bits.signed(neighbour.weight, order=2)
            bits.unsigned(neighbour.energy, width=2)
            previous = neighbour.number
        bits.unsigned(self.classes - 1, width=4)
        if self.classes > 1:
            for weight in (self.row, self.column, self.local):
                bits.unsigned(weight, width=3)
            bits.unsigned(self.prior, width=7)
            bits.unsigned(self.middle, width=4)

    @classmethod
    def read(cls, bits: BitReader) -> NeighbourRule:
        """Read a rule; BitstreamError names what is wrong."""
        count, number, neighbours = bits.exp_golomb(order=1), -1, []
        if count > len(OFFSETS) + 1:
            raise BitstreamError(f"a rule claims {count} neighbours, there are {len(OFFSETS) + 1}")
        for _ in range(count):
            number += bits.exp_golomb(order=0) + 1
            neighbour = Neighbour(number=number, weight=bits.signed(order=2), energy=bits.unsigned(width=2))
            if number > PARENT or abs(neighbour.weight) > MAX_WEIGHT or (number == PARENT and neighbour.energy):
                raise BitstreamError(f"a rule's neighbour {neighbour} is none")
            neighbours.append(neighbour)
        classes = bits.unsigned(width=4) + 1
        if classes == 1:
            return cls(neighbours=tuple(neighbours))
        row, column, local = (bits.unsigned(width=3) for _ in range(3))
        prior, middle = bits.unsigned(width=7), bits.unsigned(width=4)
        return cls(
            neighbours=tuple(neighbours),
            row=row,
            column=column,
            local=local,
            prior=prior,
            classes=classes,
            middle=middle,
        )


def view_shape(shape: Sequence[int]) -> Shape4:
    """How an array of this shape (at least one dimension) is seen."""
    if len(shape) > 3:
        return shape[0], prod(shape[1:-2]), shape[-2], shape[-1]
    if len(shape) == 3:
        return shape[0], 1, shape[1], shape[2]
    return (shape[0], shape[1], 1, 1) if len(shape) == 2 else (1, 1, 1, shape[0])


def skews(rule: NeighbourRule, shape: Shape4, *, trellis: bool) -> Shape4:
    """By how much d grows along each axis.

    A trellis is walked along the columns of a row. Else d grows along an axis only where a neighbour lies back
    along it first: 1 more than what its other offsets take away again.
    """
    _, b, h, w = shape
    offsets = [OFFSETS[neighbour.number] for neighbour in rule.own]
    if trellis:
        inner = [b and h * w, w, 1]
    else:
        if rule.classes > 1 and rule.row:
            offsets += [offset for offset, side in zip(OFFSETS[:2] + OFFSETS[3:4], (w, h, b), strict=True) if side > 1]
        inner = [0, 0, 0]
        for axis in (3, 2, 1):
            inner[axis - 1] = _skew(axis, [0, *inner], offsets)
    if rule.classes > 1 and rule.column:
        offsets.append(OFFSETS[2])
    return _skew(0, [0, *inner], offsets), inner[0], inner[1], inner[2]


def _skew(axis: int, known: list[int], offsets: list[Offset]) -> int:
    """The smallest skew of an axis, given those of the axes inside it, for the neighbours that lead along it."""
    needed = 0
    for offset in offsets:
        if offset[axis] and not any(offset[:axis]):
            inside = sum(skew * back for skew, back in zip(known[axis + 1 :], offset[axis + 1 :], strict=True))
            needed = max(needed, -((inside - 1) // offset[axis]))
    return needed


def slice_numbers(shape: Shape4, skew: Shape4) -> npt.NDArray[np.uint16]:
    """Number of the slice of each place, flat; for at most MAX_SLICES slices."""
    a, b, h, w = (np.arange(side) * step for side, step in zip(shape, skew, strict=True))
    columns = (b[:, None, None] + h[:, None] + w).reshape(-1)
    return (a.astype(np.uint16)[:, None] + columns.astype(np.uint16)).reshape(-1)


def slice_count(shape: Shape4, skew: Shape4) -> int:
    """How many slices there are."""
    return 1 + sum((side - 1) * step for side, step in zip(shape, skew, strict=True))


def slice_cost(shape: Shape4, skew: Shape4) -> int:
    """What decoding an array counts for: its slices, and one for each PLACES_PER_SLICE places."""
    return slice_count(shape, skew) + prod(shape) // PLACES_PER_SLICE
