"""Cheapest paths through a trellis with two branches from and to each state (Viterbi 1967), many rows at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

States = npt.NDArray[np.uint8]
Kinds = npt.NDArray[np.uint8]
Costs = npt.NDArray[np.float64]


class PathSearch:
    """Takes the costs of the branches column by column; knows the cheapest paths from state 0 on at the end."""

    def __init__(self, transitions: States, kinds: Kinds, rows: int) -> None:
        """Take, by state and branch, where it leads (a power of two up to 8 states, two ways into each), and its kind.

        Branches of one kind cost the same.
        """
        count = len(transitions)
        into = np.array([np.argwhere(transitions == state) for state in range(count)])  # (states, ways, 2)
        origins, branches = into.transpose(2, 1, 0)  # each (ways, states)
        self._origins, self._kinds = origins, kinds[origins, branches]
        self._totals = np.full((count, rows), np.inf)
        self._totals[0] = 0
        self._second_ways: list[States] = []

    def feed(self, costs: Costs) -> None:
        """Go on by the costs of each kind: float64 (columns, kinds, rows), finite."""
        count, rows = self._totals.shape
        by_second = np.empty((len(costs), count, rows), dtype=bool)
        sums, branches = np.empty((2, 2 * count, rows))
        origins, kinds = self._origins.ravel(), self._kinds.ravel()
        for column, second in zip(costs, by_second, strict=True):
            np.take(self._totals, origins, axis=0, out=sums, mode="clip")
            np.take(column, kinds, axis=0, out=branches, mode="clip")
            sums += branches
            np.less(sums[count:], sums[:count], out=second)
            np.minimum(sums[count:], sums[:count], out=self._totals)
        self._second_ways.append(np.packbits(by_second, axis=1, bitorder="little")[:, 0])

    def best(self) -> tuple[States, Kinds]:
        """Walk back: the states before each column of the cheapest paths, and the kinds; both (columns, rows)."""
        rows = self._totals.shape[1]
        second_ways = np.concatenate([np.zeros((0, rows), dtype=np.uint8), *self._second_ways])
        states, kinds = np.empty((2, *second_ways.shape), dtype=np.uint8)
        state = self._totals.argmin(axis=0)
        for column in reversed(range(len(second_ways))):
            way = second_ways[column] >> state & 1
            kinds[column] = self._kinds[way, state]
            state = self._origins[way, state]
            states[column] = state
        return states, kinds
