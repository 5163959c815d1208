"""An item as the driver holds it: its identity and where its payload is, never the payload."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from framefold.pipeline.events import Produced
from framefold.pipeline.item import unit_key


@dataclass(frozen=True)
class Ticket:
    """One item."""

    key: str = ""
    label: str = ""
    seconds: float = 0.0
    handles: tuple[Any, ...] = ()
    names: tuple[str, ...] = ()
    """Of a joined item: the inputs whose payloads `handles` are."""


def joined(parts: Mapping[str, Ticket]) -> Ticket:
    """The item that several named ones become."""
    tickets = [parts[name] for name in sorted(parts)]
    identity = "\n".join(f"{name} {parts[name].key}" for name in sorted(parts))
    return Ticket(
        key=unit_key("join", identity),
        label=tickets[0].label,
        seconds=sum(ticket.seconds for ticket in tickets),
        handles=tuple(ticket.handles[0] for ticket in tickets),
        names=tuple(sorted(parts)),
    )


def child(parent: Ticket, event: Produced, number: int, *, digest: str, lineage: str) -> Ticket:
    """The item that an output is: named by its content if the stage says so, else by its parent and number.

    A parent's key tells of all that came before, so it goes with the node's own `digest`; a content's name does
    not, so it goes with the node's `lineage`.
    """
    if event.identity is None:
        key = unit_key(digest, f"{parent.key}/{event.port}/{number}")
    else:
        key = unit_key(lineage, event.identity)
    return Ticket(
        key=key,
        label=event.label or parent.label,
        seconds=parent.seconds + event.seconds,
        handles=(event.handle,),
    )


class Consumed:
    """What a node has taken so far, as one digest that does not depend on the order."""

    def __init__(self) -> None:
        self._sum = 0

    def add(self, key: str) -> None:
        """One more item."""
        self._sum = (self._sum + int(key, 16)) % 2**256  # a sum: the same key twice is not none at all

    def key(self, replica: int) -> str:
        """Names what is handed out at the end."""
        return unit_key("finish", f"{self._sum:064x}/{replica}")
