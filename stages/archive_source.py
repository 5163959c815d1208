"""archive_source: read an archive's bitstreams and what was copied beside them, the twin of archive_sink."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationError

from framefold.codecs.clip import Source, Span
from framefold.codecs.network import Bitstream
from framefold.codecs.rest import Attachment, Packets
from framefold.pipeline.archive import ArchiveReader, UnitEntry, UnitRecord
from framefold.pipeline.archive.choice import chosen_source
from framefold.pipeline.archive.contents import SourceEntry
from framefold.pipeline.archive.errors import ArchiveError
from framefold.pipeline.stage import Emit, Output, Refused, Stage
from framefold.stages.archive_bases import Bases
from framefold.stages.archive_pixels import without_pixels
from framefold.stages.archive_rest import Rest
from framefold.stages.selection import Selection


def _text(path: object) -> object:
    return os.fspath(path) if isinstance(path, os.PathLike) else path


class ArchiveSourceConfig(Selection, frozen=True):
    """Options of `archive_source`."""

    path: Annotated[str, BeforeValidator(_text)] = Field(
        min_length=1, description="the archive to read: a file, a folder, or an s3:// or https:// address"
    )
    kind: Literal["video", "image"] | None = Field(default=None, description="only these sources; else all")
    source: str | int | None = Field(default=None, description="only this source, by name or number; else all")
    units: list[str] | None = Field(default=None, description="only the units with these ids; else all")
    rest: bool = Field(default=True, description="read packets and attachments too, for the port rest")
    originals: bool = Field(default=True, description="read whole files that were kept too, for the port rest")


class ArchiveSource(Stage):
    """Read an archive source by source: attachments, copied packets, bitstreams; damaged ones are set aside by name.

    A range of frames or seconds takes the units that overlap it, and the packets that sound or show meanwhile.
    """

    Config = ArchiveSourceConfig
    config: ArchiveSourceConfig
    emits = {"out": Bitstream, "rest": Attachment | Packets}
    locators = frozenset({"path", "kind", "source", "units", "frames", "seconds", "rest", "originals"})

    @classmethod
    def preflight(cls, config: ArchiveSourceConfig) -> Sequence[tuple[str, str]]:
        """The archive must be there; one at an address is looked for when it is read."""
        if "://" in config.path or Path(config.path).exists():
            return []
        return [("path", f"no archive at {Path(config.path).absolute()}; paths are relative to the current folder")]

    def produce(self) -> Iterator[Output]:
        """One bitstream per unit in frame order, each checked against its SHA-256 before anything decodes it."""
        with ArchiveReader.open(self.config.path) as reader:
            for problem in reader.problems:
                yield Refused(problem.archive or self.config.path, str(problem))
            units = self._units(reader)
            rest = Rest(reader, originals=self.config.originals) if self.config.rest else None
            read = _Units(reader)
            for entry in self._sources(reader):
                yield from self._of_source(read, entry, units.get(entry.number, []), rest)
            yield from rest.unreadable() if rest else ()

    def _of_source(
        self, read: _Units, entry: SourceEntry, units: Sequence[UnitEntry], rest: Rest | None
    ) -> Iterator[Output]:
        try:
            source = source_of(entry.document)
        except ValueError as error:
            yield Refused(entry.name, _first_mistake(error))
            return
        if rest and (units or self.config.is_all):
            yield from rest.of(entry, source, units, self.config)
        for unit in units:
            yield read.output(unit, source)

    def _sources(self, reader: ArchiveReader) -> Sequence[SourceEntry]:
        wanted = self.config.source
        sources = reader.sources if wanted is None else (chosen_source(reader.sources, wanted),)
        return [entry for entry in sources if self.config.kind in (None, entry.kind)]

    def _units(self, reader: ArchiveReader) -> Mapping[int, Sequence[UnitEntry]]:
        """The units that overlap what is wanted, by number of their source, in frame order."""
        only = None if self.config.units is None else frozenset(self.config.units)
        units: defaultdict[int, list[UnitEntry]] = defaultdict(list)
        for unit in sorted(reader.units, key=lambda unit: unit.first_frame):
            base = reader.sources[unit.source].time_base
            named = only is None or unit.id in only
            shown = self.config.meets_times(unit.t0, unit.t0 + unit.duration, base)
            if named and shown and self.config.meets_frames(unit.first_frame, unit.frame_count):
                units[unit.source].append(unit)
        return units


class _Units:
    """Units as what travels, with the networks on which they build."""

    def __init__(self, reader: ArchiveReader) -> None:
        self._reader, self._bases = reader, Bases(reader)

    def output(self, unit: UnitEntry, source: Source) -> Output:
        """A unit that cannot be read, or that nobody can decode, is set aside by name."""
        try:
            record = self._reader.read_unit(unit.id)
            bits = bitstream_of(record, source, parent=self._bases.of(record.needs))
        except (ArchiveError, ValueError) as error:
            return Refused(unit.id, _first_mistake(error))
        return Emit(bits, identity=record.key)


def stored_bitstream(reader: ArchiveReader, unit: str) -> Bitstream:
    """Read one unit with the network on which it builds; `ArchiveError` or ValueError say why that is not possible."""
    record = reader.read_unit(unit)
    return bitstream_of(record, parent=Bases(reader).of(record.needs))


def source_of(document: Mapping[str, object]) -> Source:
    """What an archive says of an original; ValueError names a field of a stranger's that is out of range."""
    return Source.model_validate_json(json.dumps(document), strict=True)


def bitstream_of(record: UnitRecord, source: Source | None = None, *, parent: bytes | None = None) -> Bitstream:
    """The stored unit as what travels; ValueError names a field of a stranger's archive that is out of range."""
    span = Span(
        source=source or source_of(record.source_document),
        first_frame=record.first_frame,
        pts=tuple(record.pts),
        duration_ticks=record.duration_ticks,
    )
    return Bitstream(
        span=span,
        codec=record.codec_name,
        config=without_pixels(record.codec_config, span.source),
        payload=record.payload,
        parent=parent,
    )


def _first_mistake(error: Exception) -> str:
    """Name the field: pydantic's own text would take many lines, and repeat what a stranger wrote."""
    if not isinstance(error, ValidationError):
        return str(error)
    mistake = error.errors(include_url=False, include_input=False)[0]
    return f"its description is not as allowed: {'.'.join(map(str, mistake['loc']))}: {mistake['msg']}"
