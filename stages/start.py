"""The option `start` of `fit`: a stored network from which fits begin, and of which they store only the difference."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, model_validator

from framefold.codecs.network import Bitstream, FittedNetwork, Parent
from framefold.pipeline.archive import ArchiveReader, UnitEntry
from framefold.pipeline.archive.choice import chosen_source
from framefold.pipeline.archive.errors import ArchiveError
from framefold.pipeline.errors import FramefoldError
from framefold.stages.archive_source import stored_bitstream
from framefold.stages.streams import decoded, encoded

_LISTED = 4


class Start(BaseModel, frozen=True, extra="forbid"):
    """One unit of an archive; the archive's path alone is enough if it holds only one."""

    archive: Annotated[str, Field(min_length=1)] = Field(
        description="a .fold file, a folder, or an s3:// or https:// address"
    )
    unit: str | None = Field(default=None, description="id of the unit, as `pipeline ls` prints it")
    source: str | int | None = Field(default=None, description="or name or number of its source")
    frame: Annotated[int, Field(ge=0)] | None = Field(default=None, description="and a frame that the unit shows")

    @model_validator(mode="before")
    @classmethod
    def _of_path(cls, given: Any) -> Any:
        return {"archive": os.fspath(given)} if isinstance(given, str | os.PathLike) else given

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.unit is not None and (self.source is not None or self.frame is not None):
            raise ValueError("give either unit, or source and frame")
        return self

    def read(self) -> Bitstream:
        """Read the unit; `ArchiveError` if it is not there or damaged, ValueError if it is not clear which is meant."""
        with ArchiveReader.open(self.archive) as reader:
            return stored_bitstream(reader, self._unit_in(reader))

    def _unit_in(self, reader: ArchiveReader) -> str:
        if self.unit is not None:
            return self.unit
        source = None if self.source is None else chosen_source(reader.sources, self.source).number
        units = [unit for unit in reader.units if source in (None, unit.source) and self._is_shown(unit)]
        if len(units) != 1:
            names = ", ".join(unit.id for unit in units[:_LISTED]) + (", …" if len(units) > _LISTED else "")
            found = f"{len(units)} units ({names})" if units else "no such unit"
            raise ValueError(f"{self.archive} holds {found}; name one, as in start: {{archive: …, unit: u000002}}")
        return units[0].id

    def _is_shown(self, unit: UnitEntry) -> bool:
        return self.frame is None or 0 <= self.frame - unit.first_frame < unit.frame_count


def fault_of(start: Start, codec: str) -> str | None:
    """Say why no fit of this codec can begin there; None if nothing speaks against it."""
    if "://" not in start.archive and not Path(start.archive).exists():
        return f"no archive at {Path(start.archive).absolute()}; paths are relative to the current folder"
    try:
        found = start.read().codec
    except (ArchiveError, ValueError) as error:
        return str(error)
    return None if found == codec else f"it is a network of codec {found!r}, this fit's codec is {codec!r}"


def sha256_of(start: Start) -> str | None:
    """Hexadecimal SHA-256 of the unit's stream; None if it cannot be read, which `fault_of` explains."""
    try:
        return hashlib.sha256(start.read().payload).hexdigest()
    except (ArchiveError, ValueError):
        return None


def load(start: Start, sha256: str | None, taken: tuple[str, ...] = ("",)) -> FittedNetwork:
    """Give the network to begin from, with itself as the parent of those that come of it.

    FramefoldError if its stream has not this SHA-256 (None: any will do). The parent is the stream as it is stored; if
    only tensors whose names begin as `taken` says are wanted, or the stream is a difference itself, it is a whole
    stream of these: streams name one other, not a chain, and archives hold nothing that no network needs.
    """
    bits = start.read()
    found = hashlib.sha256(bits.payload).hexdigest()
    if sha256 not in (None, found):
        raise FramefoldError(f"the start in {start.archive} has the SHA-256 {found}, and not {sha256}: it was changed")
    symbols = decoded(bits)
    tensors = {name: tensor for name, tensor in symbols.tensors.items() if name.startswith(taken)}
    as_stored = bits.parent is None and len(tensors) == len(symbols.tensors)
    payload = bits.payload if as_stored else encoded(replace(symbols, tensors=tensors, parent=None)).payload
    return replace(symbols.dequantize(), parent=Parent(payload=payload, tensors=tensors))
