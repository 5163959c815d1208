"""The forms that a tensor may have in a stream, and which of them it has."""

from __future__ import annotations

from enum import IntEnum
from math import prod

from framefold.codecs.network import IntTensor
from framefold.codecs.stream.directory import Entry
from framefold.codecs.stream.varbits import BitReader, BitWriter

MIN_SIZE = 64
"""Smaller tensors have no rule: it would cost more than it can save."""
MAX_SIZE = 2**24
"""Nor have larger ones, for the memory that it takes beside them."""


class Form(IntEnum):
    """What is coded of a tensor, in the order of their numbers in the stream."""

    PLAIN = 0
    """The symbols; of a trellis tensor the levels."""
    NEIGHBOURS = 1
    """The same, by a `NeighbourRule`."""
    OWN = 2
    """The symbols, by the codec's rule."""
    DIFFERENCE = 3
    """The symbols less the parent's."""
    SYMBOLS = 4
    """The symbols of a trellis tensor as they are: where its walk would take a reader too long."""


def as_matrix(array: IntTensor) -> IntTensor:
    """As the trellis walks it: a row for each index of the first axis; a vector is one row."""
    return array.reshape(array.shape[0], -1) if array.ndim > 1 and array.size else array.reshape(1, -1)


def trellis_slices(shape: tuple[int, ...]) -> int:
    """Columns that a reader of levels walks through."""
    size = prod(shape)
    return size // shape[0] if len(shape) > 1 and size else size


def can_have_rule(entry: Entry) -> bool:
    """Whether a tensor may be coded by a rule of its neighbours."""
    return MIN_SIZE <= entry.size <= MAX_SIZE


def write_form(bits: BitWriter, form: Form, allowed: list[Form]) -> None:
    """Write which of the allowed forms it is: so many ones, then a zero, which the last one does not need."""
    place = allowed.index(form)
    for _ in range(place):
        bits.unsigned(1, width=1)
    if place + 1 < len(allowed):
        bits.unsigned(0, width=1)


def read_form(bits: BitReader, allowed: list[Form]) -> Form:
    """Read which of the allowed forms it is."""
    place = 0
    while place + 1 < len(allowed) and bits.unsigned(width=1):
        place += 1
    return allowed[place]
