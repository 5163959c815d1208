"""The steps of each tensor: exponents on the grid of `steps`, float32 where they are not on it, or the parent's."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from framefold.codecs.network import FloatTensor, QuantizedTensor
from framefold.codecs.quantizing.steps import MAX_EXPONENT, MIN_EXPONENT, Exponents, step_exponents, step_values
from framefold.codecs.stream.directory import Entry
from framefold.codecs.stream.entropy import SymbolReader, SymbolWriter
from framefold.codecs.stream.stream_v1 import read_plain_steps
from framefold.codecs.stream.varbits import BitstreamError

FIRST_EXPONENT = -80
"""2**-10: about where the first tensor's steps lie."""
EXPONENT_ORDER = 3
"""Of the signed Exp-Golomb code of a single exponent's change."""


def exponents_of(steps: Sequence[FloatTensor]) -> list[Exponents | None]:
    """The exponents of each tensor's steps; None for those that are not on the grid."""
    if not steps:
        return []
    together = step_exponents(np.concatenate(steps))
    if together is None:
        return [step_exponents(of_tensor) for of_tensor in steps]
    ends = list(accumulate(of_tensor.size for of_tensor in steps))
    return [together[end - of_tensor.size : end] for of_tensor, end in zip(steps, ends, strict=True)]


class StepWriter:
    """Writes the steps of one tensor after another."""

    def __init__(self, writer: SymbolWriter, *, all_on_grid: bool) -> None:
        self._writer, self._all_on_grid = writer, all_on_grid
        self._exponent = FIRST_EXPONENT

    def write(self, steps: FloatTensor, exponents: Exponents | None) -> None:
        """Write float32 steps, finite and > 0, and their exponents if they are on the grid."""
        bits = self._writer.bits
        if not self._all_on_grid:
            bits.unsigned(exponents is not None, width=1)
        if exponents is None:
            for word in steps.view(np.uint32).tolist():
                bits.unsigned(word, width=32)
        elif exponents.size == 1:
            bits.signed(int(exponents[0]) - self._exponent, order=EXPONENT_ORDER)
        else:
            self._writer.write((exponents - self._exponent).astype(np.int32))
        if exponents is not None and exponents.size:
            self._exponent = int(exponents[0])


class StepReader:
    """Reads what a `StepWriter` wrote."""

    def __init__(self, reader: SymbolReader, *, all_on_grid: bool) -> None:
        self._reader, self._all_on_grid = reader, all_on_grid
        self._exponent = FIRST_EXPONENT

    def read(self, entry: Entry) -> FloatTensor:
        """Read the steps of a tensor; BitstreamError if they are no steps."""
        bits = self._reader.bits
        if not self._all_on_grid and not bits.unsigned(width=1):
            return read_plain_steps(bits, entry)
        if entry.step_count == 1:
            change = np.array([bits.signed(order=EXPONENT_ORDER)])
        else:
            change = self._reader.read(entry.step_count).astype(np.int64)
        exponents = change + self._exponent
        if exponents.size and not MIN_EXPONENT <= exponents.min() <= exponents.max() <= MAX_EXPONENT:
            raise BitstreamError(f"tensor {entry.name!r}: a step is outside 2**-126 .. 2**128")
        if exponents.size:
            self._exponent = int(exponents[0])
        return step_values(exponents.astype(np.int32))


def same_steps(tensor: QuantizedTensor, entry: Entry, steps: FloatTensor) -> bool:
    """Whether another tensor's steps are these, along the same axis."""
    axis = None if tensor.steps.shape == (1,) else tensor.axis
    return axis == entry.channel_axis and np.array_equal(tensor.steps, steps)
