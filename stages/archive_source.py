"""archive_source: read an archive's bitstreams, the twin of archive_sink."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from framefold.codecs.clip import Source, Span
from framefold.codecs.network import Bitstream
from framefold.pipeline.archive import ArchiveReader, UnitRecord
from framefold.pipeline.archive.errors import ArchiveError
from framefold.pipeline.stage import Emit, Options, Output, Refused, Stage


class ArchiveSourceConfig(Options, frozen=True):
    """Options of `archive_source`."""

    path: Path = Field(description="the archive to read")
    kind: Literal["video", "image"] | None = Field(default=None, description="only these sources; else all")


class ArchiveSource(Stage):
    """Read the bitstreams of an archive in order; damaged units are set aside by name."""

    Config = ArchiveSourceConfig
    config: ArchiveSourceConfig
    emits = {"out": Bitstream}
    locators = frozenset({"path", "kind"})

    @classmethod
    def preflight(cls, config: ArchiveSourceConfig) -> Sequence[tuple[str, str]]:
        """The archive must be there."""
        if config.path.is_file():
            return []
        return [("path", f"no archive at {config.path.absolute()}; paths are relative to the current folder")]

    def produce(self) -> Iterator[Output]:
        """One bitstream per unit, each checked against its SHA-256 before anything decodes it."""
        with ArchiveReader.open(self.config.path) as reader:
            for unit in sorted(reader.units, key=lambda unit: (unit.source, unit.first_frame)):
                try:
                    record = reader.read_unit(unit.id)
                    bits = bitstream_of(record)
                except (ArchiveError, ValueError) as error:
                    yield Refused(unit.id, str(error))
                    continue
                if self.config.kind in (None, bits.span.source.kind):
                    yield Emit(bits, identity=record.key)


def bitstream_of(record: UnitRecord) -> Bitstream:
    """The stored unit as what travels; ValueError names a field of a stranger's archive that is out of range."""
    source = Source.model_validate_json(json.dumps(record.source_document), strict=True)
    span = Span(
        source=source,
        first_frame=record.first_frame,
        pts=tuple(record.pts),
        duration_ticks=record.duration_ticks,
    )
    return Bitstream(span=span, codec=record.codec_name, config=record.codec_config, payload=record.payload)
