"""How often each symbol occurs: all that the choice of a model has to know of an array."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from framefold.codecs.network import IntTensor

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How often each symbol occurs."""

    values: IntArray
    """The distinct symbols, ascending; at least one."""
    counts: IntArray
    """How often each of them occurs, > 0."""

    @classmethod
    def of(cls, symbols: IntTensor) -> Counts:
        """Count the symbols of a non-empty array."""
        lowest = int(symbols.min())
        return cls.of_dense(np.bincount((symbols - lowest).ravel()), lowest)

    @classmethod
    def of_dense(cls, counts: IntArray, lowest: int) -> Counts:
        """From the counts of consecutive symbols, not all zero."""
        present = np.flatnonzero(counts)
        return cls(values=present + lowest, counts=counts[present])

    @property
    def total(self) -> int:
        """How many symbols there are."""
        return int(self.counts.sum())

    @property
    def lowest(self) -> int:
        """The smallest symbol."""
        return int(self.values[0])

    @property
    def highest(self) -> int:
        """The largest symbol."""
        return int(self.values[-1])

    @property
    def entropy_bits(self) -> float:
        """The order-0 entropy of all symbols together: no table can code them in less."""
        return float(self.counts @ np.log2(self.total / self.counts))

    def share_of(self, symbol: int) -> float:
        """How frequent one symbol is, 0..1."""
        return float(self.counts[self.values == symbol].sum() / self.total)

    def dense(self, lowest: int, highest: int) -> IntArray:
        """Counts of lowest .. highest; what lies outside is left out."""
        dense = np.zeros(highest - lowest + 1, dtype=np.int64)
        inside = (self.values >= lowest) & (self.values <= highest)
        dense[self.values[inside] - lowest] = self.counts[inside]
        return dense
