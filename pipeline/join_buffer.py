"""Items of several branches wait here until those that belong together have all come.

A group is whole when nothing of it is under way any more between the fork and the join; only then is it known
that no further item will come, so the pairs do not depend on who was faster. Within a group the k-th items of
all names belong together.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from framefold.pipeline.item import Seq
from framefold.pipeline.shape import Entry, Unjoined


@dataclass(frozen=True)
class Settled:
    """A group that is whole."""

    joined: list[Entry]
    parts: list[Entry]
    """All that had arrived."""
    unjoined: Unjoined | None
    """What found no partner."""


class JoinBuffer:
    """The groups of one join node."""

    def __init__(self, node: str, names: Sequence[str], length: int) -> None:
        self._node, self._names, self._length = node, tuple(names), length
        self._under_way: Counter[Seq] = Counter()
        self._groups: defaultdict[Seq, dict[str, list[Entry]]] = defaultdict(dict)

    def group_of(self, seq: Seq) -> Seq:
        """What an item has in common with those it belongs to."""
        return seq[: self._length]

    def enter(self, seq: Seq) -> None:
        """Something of the group is under way."""
        self._under_way[self.group_of(seq)] += 1

    def leave(self, seq: Seq) -> None:
        """It is done."""
        group = self.group_of(seq)
        self._under_way[group] -= 1
        if not self._under_way[group]:
            del self._under_way[group]

    def arrive(self, name: str, entry: Entry) -> None:
        """An item has come to the join."""
        self._groups[self.group_of(entry.seq)].setdefault(name, []).append(entry)

    def first(self) -> Seq | None:
        """The earliest group that waits."""
        return min(self._groups, default=None)

    def __len__(self) -> int:
        return len(self._groups)

    def settle(self, seq: Seq) -> Settled | None:
        """What became of the group, if it is whole."""
        group = self.group_of(seq)
        if self._under_way.get(group) or group not in self._groups:
            return None
        columns = {name: sorted(items, key=lambda item: item.place) for name, items in self._groups.pop(group).items()}
        pairs = min(len(columns.get(name, ())) for name in self._names)
        joined = [self._joined(group, k, {name: columns[name][k] for name in self._names}) for k in range(pairs)]
        left = {name: tuple(items[pairs:]) for name, items in columns.items() if items[pairs:]}
        parts = [part for items in columns.values() for part in items]
        return Settled(joined, parts, Unjoined(self._node, group, left) if left else None)

    def _joined(self, group: Seq, number: int, parts: dict[str, Entry]) -> Entry:
        return Entry(
            (*group, number),
            {name: part.ticket for name, part in parts.items()},
            tuple(dict.fromkeys(parcel for part in parts.values() for parcel in part.parcels)),
            since=max(part.since for part in parts.values()),
        )
