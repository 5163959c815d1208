"""How often each symbol occurs: all that the choice of a model has to know of an array."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import log2

import numpy as np
import numpy.typing as npt

from framefold.codecs.network import IntTensor
from framefold.codecs.stream.curve_costs import reach_for

IntArray = npt.NDArray[np.int64]

_QUARTERS = np.array([0.25, 0.5, 0.75])


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How often each symbol occurs."""

    values: IntArray
    """The distinct symbols, ascending; at least one."""
    counts: IntArray
    """How often each of them occurs, > 0."""
    below: IntArray = field(init=False, repr=False)
    """How many symbols are not above each value."""
    total: int = field(init=False)
    """How many symbols there are."""

    def __post_init__(self) -> None:
        """Add up."""
        object.__setattr__(self, "below", self.counts.cumsum())
        object.__setattr__(self, "total", int(self.below[-1]))

    @classmethod
    def of(cls, symbols: IntTensor) -> Counts:
        """Count the symbols of a non-empty array."""
        lowest = int(symbols.min())
        return cls.of_dense(np.bincount((symbols - lowest).reshape(-1)), lowest)

    @classmethod
    def of_dense(cls, counts: IntArray, lowest: int) -> Counts:
        """From the counts of consecutive symbols, not all zero."""
        (present,) = counts.nonzero()
        return cls(values=present + lowest, counts=counts[present])

    @property
    def lowest(self) -> int:
        """The smallest symbol."""
        return int(self.values[0])

    @property
    def highest(self) -> int:
        """The largest symbol."""
        return int(self.values[-1])

    @cached_property
    def reach(self) -> int | None:
        """The matrix of `curve_costs` that holds them; None beyond all."""
        return reach_for(max(-self.lowest, self.highest))

    @cached_property
    def quartiles(self) -> tuple[int, int, int]:
        """Values that a quarter, half and three quarters of all symbols do not lie above."""
        first, middle, third = self.values[self.below.searchsorted(self.total * _QUARTERS)].tolist()
        return first, middle, third

    @property
    def middle(self) -> int:
        """The median."""
        return self.quartiles[1]

    @property
    def around_zero(self) -> tuple[int, int]:
        """How often zero occurs; and how many symbols on both sides of it do not, of two values or more."""
        place = int(self.values.searchsorted(0))
        first = max(place - 1, 0)
        near: list[int] = self.values[first : place + 2].tolist()
        zeros = int(self.counts[place]) if 0 in near else 0
        return zeros, min(abs(value) for value in near if value) - 1

    @cached_property
    def entropy_bits(self) -> float:
        """The order-0 entropy of all symbols together: no table can code them in less."""
        return self.total * log2(self.total) - float(self.counts @ np.log2(self.counts))

    def dense(self, lowest: int, highest: int) -> IntArray:
        """Counts of lowest .. highest; what lies outside is left out."""
        dense = np.zeros(highest - lowest + 1, dtype=np.int64)
        inside = (self.values >= lowest) & (self.values <= highest)
        dense[self.values[inside] - lowest] = self.counts[inside]
        return dense
