"""fixity: whether units still decode to the frames that were measured when the archive was written."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from framefold.codecs.clip import Clip, ImageBatch, Span
from framefold.pipeline.archive import ArchiveReader
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Options, Output, PortType, Row, Stage, StageContext
from framefold.stages.fit import clips_of
from framefold.stages.measure import are_alike, levels, sha256_of

_Place = tuple[str, object, int, int]
"""Name and SHA-256 of the source, first frame, frames."""


class FixityConfig(Options, frozen=True):
    """Options of `fixity`."""

    path: Annotated[str, BeforeValidator(lambda path: os.fspath(path) if isinstance(path, os.PathLike) else path)] = (
        Field(min_length=1, description="the archive whose records are compared with; as for archive_source")
    )


class Fixity(Stage):
    """Compare decoded frames with the SHA-256 that the archive recorded of them, unit by unit.

    Pixels may differ by one level between kinds of machines: a unit that is not bit-exact, but alike, is not damaged.
    """

    Config = FixityConfig
    config: FixityConfig
    accepts: ClassVar[PortType] = Clip | ImageBatch
    locators: ClassVar[frozenset[str]] = frozenset({"path"})

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._reader: ArchiveReader | None = None
        self._units: Mapping[_Place, Sequence[str]] = {}

    @classmethod
    def preflight(cls, config: Any) -> Sequence[tuple[str, str]]:
        """The archive must be there."""
        if "://" in config.path or Path(config.path).exists():
            return []
        return [("path", f"no archive at {Path(config.path).absolute()}; paths are relative to the current folder")]

    def setup(self, context: StageContext) -> None:
        """Open the archive."""
        self.close()
        self._reader = ArchiveReader.open(self.config.path)
        self._units = _places(self._reader)

    def process(self, item: Item) -> Iterator[Output]:
        """A row for each unit: `bit_exact` is empty where nothing was recorded, `alike` where no levels were."""
        for clip in clips_of(item.payload):
            units = self._units.get(_place(clip.span), ())
            recorded = {unit: self._recorded(unit, "frames_sha256", 64) for unit in units}
            known = {sha256 for sha256 in recorded.values() if sha256 is not None}
            found = sha256_of(clip.frames)
            unit = next((name for name, sha256 in recorded.items() if sha256 == found), units[0] if units else None)
            exact = found in known if known else None
            told = {"unit": unit, "frames": clip.span.frame_count, "bit_exact": exact}
            yield Row(clip.span.label, told | {"alike": self._alike(clip, units)})

    def _alike(self, clip: Clip, units: Sequence[str]) -> bool | None:
        known = [told for unit in units if (told := self._recorded(unit, "frames_levels", 8 * clip.pixels.channels))]
        here = levels(clip.frames, clip.pixels)
        return any(are_alike(here, there) for there in known) if known else None

    def close(self) -> None:
        """Let go of the archive."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def _recorded(self, unit: str, name: str, digits: int) -> str | None:
        """Hex digits that were recorded of a unit; None if there are none, or a stranger wrote something else."""
        measured = self._reader.quality(unit) if self._reader else None
        told = (measured or {}).get(name)
        return told if isinstance(told, str) and re.fullmatch(f"[0-9a-f]{{{digits}}}", told) else None


def _places(reader: ArchiveReader) -> Mapping[_Place, Sequence[str]]:
    """Ids of the units that stand for the same frames: several where codecs are compared in one archive."""
    units: defaultdict[_Place, list[str]] = defaultdict(list)
    for unit in reader.units:
        source = reader.sources[unit.source]
        units[source.name, source.document.get("sha256"), unit.first_frame, unit.frame_count].append(unit.id)
    return units


def _place(span: Span) -> _Place:
    return (span.source.name, span.source.sha256, span.first_frame, span.frame_count)
