"""What kind of work a half-done fit belongs to: its state is of use to the same work only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framefold.codecs.base import FitProgress, FitState

Kind = Mapping[str, Any]
"""What a state must agree with: codec, work and resolved configuration, as plain values."""


def state_of(progress: FitProgress, kind: Kind) -> FitState:
    """Give the training loop's state, labelled."""
    return {**kind, "run": progress.state() if progress.state else None}


def own_state(state: FitState | None, kind: Kind) -> FitState | None:
    """The part of a state that the training loop reads; ValueError if it belongs to work of another kind."""
    if state is None:
        return None
    given = dict(state) if isinstance(state, Mapping) else {}
    for name, needed in kind.items():
        if (got := given.get(name)) != needed:
            raise ValueError(f"the state to go on from has {name} {got!r}, needed is {needed!r}; fit from the start")
    run: FitState | None = given.get("run")
    return {} if run is None else run
