"""The plain things that the rules in `flow` speak of: nodes as shapes, items as entries, calls as work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from framefold.pipeline.item import Seq

Replica = tuple[str, int]
"""Node name and replica number."""

Kind = Literal["produce", "receive", "process", "finish"]

LAST = 2**62
"""First element of the sequence of anything handed out by `finish`."""


@dataclass(frozen=True)
class Feed:
    """One edge into a node."""

    node: str
    port: str = "out"
    name: str = ""
    """Of the join or side input; empty where items are merged."""


@dataclass(frozen=True)
class NodeShape:
    """What the rules need to know of a node."""

    name: str
    replicas: int = 1
    """At the start."""
    numbers: tuple[int, ...] = ()
    """Their numbers; by default from 0 on."""
    ordered: bool = False
    inputs: tuple[Feed, ...] = ()
    """Empty for a source."""
    sides: tuple[Feed, ...] = ()
    join_length: int | None = None
    """Items of the named inputs belong together when so much of their `seq` is equal; None: no join."""
    join_fork: str = ""
    """The node whose outputs (or inputs, if it is part of the group) they have in common."""
    depth: int | None = None
    """Numbers in the `seq` of its outputs, where that does not vary."""
    retries: int = 0
    queue_items: int | None = None
    """Waiting items before the node refuses; by default two per replica, or two batches."""
    queue_bytes: int = 2**28
    batch_items: int = 1
    batch_seconds: float = 0.0
    """How long the first item of a batch may wait for the others."""


class Parcel:
    """The bytes of one output, held until the last of its consumers is done with it."""

    __slots__ = ("holders", "nbytes")

    def __init__(self, nbytes: int) -> None:
        self.nbytes, self.holders = nbytes, 0


@dataclass(frozen=True, eq=False)
class Entry:
    """An item as the rules see it."""

    seq: Seq
    ticket: Any = None
    """The engine's handle, never looked into; of a joined item, one handle for each name."""
    parcels: tuple[Parcel, ...] = ()
    attempt: int = 0
    emitted: int = 0
    """Outputs that an earlier attempt already handed on."""
    since: float = 0.0
    """When it came to the node, by the caller's clock."""
    not_before: float = 0.0
    """When it may be tried again."""
    alone: bool = False
    """Not in a batch: one of those that failed together."""
    via: tuple[int, ...] = ()
    """Numbers of the nodes it came by: tells items apart that descend from one and are merged again."""

    @property
    def place(self) -> tuple[Seq, tuple[int, ...]]:
        """Where it stands among others: in source order, and never beside one of the same place."""
        return self.seq, self.via

    @property
    def nbytes(self) -> int:
        """What it holds in memory."""
        return sum(parcel.nbytes for parcel in self.parcels)


@dataclass(frozen=True)
class Work:
    """A call to make; all but `process` carry one entry that stands for the whole node."""

    replica: Replica
    kind: Kind
    entries: tuple[Entry, ...]
    side: str = ""
    """Which side input to hand over."""

    @property
    def entry(self) -> Entry:
        """The first entry, the only one outside a batch."""
        return self.entries[0]


@dataclass(frozen=True)
class Unjoined:
    """A group that came to its end without an item for every name."""

    node: str
    seq: Seq
    """What its items have in common."""
    entries: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict)
    """What is left over, by name; names that have nothing are absent."""


@dataclass(frozen=True)
class Load:
    """How busy a node is."""

    waiting: int
    busy: int
    idle: int
    starting: int

    @property
    def is_pressed(self) -> bool:
        """Items wait, and no replica could take them, nor is one coming."""
        return bool(self.waiting and not self.idle and not self.starting)

    @property
    def is_slack(self) -> bool:
        """A replica is idle, and nothing waits."""
        return bool(self.idle and not self.waiting)
