"""Plain data that knows where it was written: what a reader of files hands to the checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from framefold.pipeline.errors import Problem, SpecError
from framefold.pipeline.findings import KeyPath, dotted


@dataclass(frozen=True)
class Place:
    """Where a value stands."""

    entry: str
    """Where its key begins, or the list item itself: `pipeline.yaml:12:5`."""
    value: str
    """Where a scalar begins; for a list or a mapping the same as `entry`."""


@dataclass(frozen=True)
class Mistake:
    """A problem together with the value it belongs to."""

    path: KeyPath
    problem: Problem
    spoils: bool = True
    """The value could not be read and stands as None: what later checks say about it is noise."""


@dataclass(frozen=True, kw_only=True)
class Document:
    """What was read: plain data with places."""

    name: str
    """The file as the user named it."""
    data: Any
    """dict, list, str, int, float, bool or None, all the way down."""
    places: Mapping[KeyPath, Place] = field(repr=False, default_factory=dict)
    mistakes: tuple[Mistake, ...] = ()

    def where(self, path: KeyPath, *, key: bool = False) -> str:
        """`pipeline.yaml:12:5` for the value at `path`, or for the nearest enclosing one that has a place.

        A list or a mapping is found at its key; `key=True` asks for the key of a scalar too.
        """
        for length in range(len(path), -1, -1):
            if place := self.places.get(path[:length]):
                return place.entry if key or length < len(path) else place.value
        return self.name

    def is_spoiled(self, path: KeyPath) -> bool:
        """Whether the value at `path`, or one around it, could not be read."""
        return any(bad.spoils and bad.path == path[: len(bad.path)] for bad in self.mistakes)

    def problem(self, path: KeyPath, message: str, *, key: bool = False) -> Problem:
        """Tie a message to the value at `path`."""
        return Problem(self.where(path, key=key), dotted(path), message)

    def checked(self) -> Document:
        """Return the document. SpecError with all its problems if there are any."""
        if self.mistakes:
            raise SpecError([mistake.problem for mistake in self.mistakes])
        return self
