"""How many replicas a node should have, where the file gives a range. Pure: times are the caller's."""

from __future__ import annotations

from framefold.pipeline.graph import Node
from framefold.pipeline.shape import Load
from framefold.pipeline.timesheet import Lasting

PRESSED_SECONDS = 1.0
"""A node where items have waited so long, and no replica was idle, gets more."""
IDLE_SECONDS = 10.0
"""A replica that has been idle so long can go."""


def change(load: Load, *, least: int, most: int, pressed_seconds: float, idle_seconds: float, places: int) -> int:
    """Replicas to start (above 0) or to let go (below 0).

    Grows by as many as there are items waiting, all at once, since a replica takes seconds to start; shrinks by
    one. `pressed_seconds` is how long items have waited while no replica was idle, `idle_seconds` how long a
    replica has been idle while nothing waited; `places` is what the machine could hold.
    """
    now = load.busy + load.idle + load.starting
    if load.is_pressed and pressed_seconds >= PRESSED_SECONDS:
        return max(0, min(load.waiting, most - now, places))
    if load.is_slack and now > least and idle_seconds >= IDLE_SECONDS:
        return -1
    return 0


class Scaler:
    """Remembers how long each node has been pressed or slack."""

    def __init__(self) -> None:
        self._pressed, self._slack = Lasting(), Lasting()

    def change(self, node: Node, load: Load, places: int, now: float) -> int:
        """Replicas of `node` to start (above 0) or to let go (below 0)."""
        by = change(
            load,
            least=node.replicas,
            most=node.max_replicas,
            pressed_seconds=self._pressed.lasted(node.name, now, load.is_pressed),
            idle_seconds=self._slack.lasted(node.name, now, load.is_slack),
            places=places,
        )
        if by < 0:
            self._slack.lasted(node.name, now, False)
        return by
