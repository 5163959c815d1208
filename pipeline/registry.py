"""Plugins by name, through entry points: `framefold.stages` and `framefold.codecs`.

Nothing is imported before it is asked for, and a plugin that cannot be imported troubles only those who name
it. The engine knows codecs only as names and classes, so that options of theirs can be listed and suggested.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from framefold.pipeline.errors import UsageError
from framefold.pipeline.findings import listed, unknown
from framefold.pipeline.stage import Stage

STAGES = "framefold.stages"
CODECS = "framefold.codecs"


class PluginError(UsageError):
    """A plugin that is not there, is there twice, or cannot be loaded."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One registered name."""

    name: str
    kind: str
    """`stage` or `codec`."""
    value: str
    """`package.module:Class`."""
    distributions: tuple[str, ...]
    """Who registers it; more than one is a conflict."""

    @property
    def distribution(self) -> str:
        """The distribution's name; `a and b` if two claim the name."""
        return listed(self.distributions)

    def load(self) -> type[Any]:
        """Import the class. PluginError says whose it is and what went wrong."""
        if len(self.distributions) > 1:
            raise PluginError(f"{self.kind} {self.name!r} is registered by {self.distribution}; uninstall all but one")
        try:
            loaded = EntryPoint(name=self.name, value=self.value, group="").load()
        except (Exception, SystemExit) as error:
            raise self._broken(f"{type(error).__name__}: {error}") from error
        if not isinstance(loaded, type):
            raise self._broken("that is not a class")
        if self.kind == "stage" and not issubclass(loaded, Stage):
            raise self._broken("that class is not a framefold.pipeline.stage.Stage")
        return loaded

    def _broken(self, cause: str) -> PluginError:
        return PluginError(
            f"{self.kind} {self.name!r} from {self.distribution} ({self.value}) cannot be loaded: {cause}; "
            "reinstall or remove that distribution"
        )


def stages() -> Mapping[str, Entry]:
    """Every registered stage, by name, in alphabetical order."""
    return _entries(STAGES, "stage")


def codecs() -> Mapping[str, Entry]:
    """Every registered codec, by name, in alphabetical order."""
    return _entries(CODECS, "codec")


def load_stage(name: str, extra: Mapping[str, type[Stage]] | None = None) -> type[Stage]:
    """Return a stage's class; `extra` holds unregistered ones by name. PluginError if there is none."""
    if extra and name in extra:
        return extra[name]
    return _entry("stage", name, stages(), extra or ()).load()


def load_codec(name: str) -> type[Any]:
    """Return a codec's class. PluginError if there is none."""
    return _entry("codec", name, codecs()).load()


def loadable_stages(extra: Mapping[str, type[Stage]] | None = None) -> dict[str, type[Stage]]:
    """Every stage class that can be imported; for suggestions, since it imports them all."""
    found: dict[str, type[Stage]] = dict(extra or {})
    for name, entry in stages().items():
        try:
            found.setdefault(name, entry.load())
        except PluginError:
            continue
    return found


def _entry(kind: str, name: str, known: Mapping[str, Entry], others: Collection[str] = ()) -> Entry:
    if name not in known:
        message = unknown(kind, name, sorted({*known, *others}))
        raise PluginError(f"{message}; installed a plugin? reinstall it, so that its entry point is seen")
    return known[name]


def _entries(group: str, kind: str) -> dict[str, Entry]:
    points: defaultdict[str, list[EntryPoint]] = defaultdict(list)
    for point in entry_points(group=group):
        points[point.name].append(point)
    return {name: _merged(name, kind, points[name]) for name in sorted(points)}


def _merged(name: str, kind: str, points: list[EntryPoint]) -> Entry:
    owners = dict.fromkeys(point.dist.name if point.dist else "an unnamed distribution" for point in points)
    return Entry(name=name, kind=kind, value=points[0].value, distributions=tuple(sorted(owners)))
