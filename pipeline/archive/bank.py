"""What an interrupted writer had measured already, out of the temporary file that it left behind.

Such a file is nobody's archive: it may be torn, damaged or made by a stranger. It is scanned with every check that a
chunk has, nothing in it is believed beyond that, and whatever is wrong with it only makes the bank smaller.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, KeysView, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from framefold.pipeline.archive.chunks import read_file_header
from framefold.pipeline.archive.documents import Document, pack_document, unpack_document
from framefold.pipeline.archive.errors import ArchiveError
from framefold.pipeline.archive.files import InputFile
from framefold.pipeline.archive.limits import MAX_CHUNKS
from framefold.pipeline.archive.pack import Table, packed_id
from framefold.pipeline.archive.records import HEADER_BYTES, PACK, QUALITY, TABLE, UNIT, ChunkHeader
from framefold.pipeline.archive.scan import Found, Gap, scan
from framefold.pipeline.archive.unit import UnitHead

_MAX_QUALITY = 1024
"""Bytes of a measurement that is kept: ours have some 200, and a million of these still fit into memory."""
_TAKEN = frozenset((UNIT, TABLE, PACK, QUALITY))


@dataclass(frozen=True)
class _Measured:
    payload_sha256: bytes
    """Of the codec's own bytes."""
    document: bytes
    """JSON of the `qual` chunk."""


class Bank:
    """Measured units by key; an empty bank knows none."""

    def __init__(self, units: Mapping[str, _Measured] | None = None) -> None:
        self._units = dict(units or {})

    @classmethod
    def of(cls, path: Path) -> Self:
        """As `read`; nothing if there is no such file, or it cannot be opened."""
        try:
            with InputFile.open(path) as file:
                return cls.read(file)
        except ArchiveError:
            return cls()

    @classmethod
    def read(cls, file: InputFile) -> Self:
        """Take what is whole in a file. Never an `ArchiveError`."""
        notes = _Notes(file)
        with suppress(ArchiveError):  # what was found until then is whole all the same
            for found in _whole_chunks(file):
                notes.take(found)
        return cls(notes.measured())

    @property
    def keys(self) -> KeysView[str]:
        """Keys of the units known here."""
        return self._units.keys()

    def quality(self, key: str, payload: bytes) -> Document | None:
        """What was measured of the unit `key` with exactly these codec's bytes; None if that is not known."""
        known = self._units.get(key)
        if known is None or known.payload_sha256 != hashlib.sha256(payload).digest():
            return None
        measured = unpack_document(known.document).get("measured")
        return measured if isinstance(measured, dict) else None


def _whole_chunks(file: InputFile) -> Iterator[Found]:
    pieces = scan(file, end=file.size, shard_tag=_shard_tag(file))
    for count, piece in enumerate(pieces):
        if count == MAX_CHUNKS:
            return
        if not isinstance(piece, Gap) and piece.error is None and piece.header.version == 1:
            yield piece


def _shard_tag(file: InputFile) -> int | None:
    try:
        return read_file_header(file).shard_tag
    except ArchiveError:
        return None


class _Notes:
    """What the chunks of a file say of its units, one after the other."""

    def __init__(self, file: InputFile) -> None:
        self._file = file
        self._units: dict[str, tuple[str, bytes]] = {}  # unit id to key and SHA-256 of the codec's bytes
        self._said: dict[str, bytes] = {}  # unit id to JSON of its last measurement
        self._table: tuple[int, Table] | None = None  # of the pack that comes next, and its number

    def measured(self) -> dict[str, _Measured]:
        """Key to measurement, of the units that have one."""
        units = ((unit, key, digest) for unit, (key, digest) in self._units.items() if unit in self._said)
        return {key: _Measured(digest, self._said[unit]) for unit, key, digest in units}

    def take(self, found: Found) -> None:
        """Remember a unit, a pack of them, or what was said of one; its checksum is right, its content may not be."""
        header = found.header
        if header.kind not in _TAKEN or (header.kind == QUALITY and header.payload_bytes > _MAX_QUALITY):
            return
        payload = self._file.read(found.offset + HEADER_BYTES, header.payload_bytes)
        with suppress(ArchiveError):  # a stranger made it
            self._take(header, payload)

    def _take(self, header: ChunkHeader, payload: bytes) -> None:
        table, self._table = self._table, None
        if header.kind == UNIT:
            key, start = UnitHead.key_and_end(payload)
            self._units[header.id] = (key, hashlib.sha256(memoryview(payload)[start:]).digest())
        elif header.kind == TABLE:
            self._table = (header.number + 1, Table.unpack(payload))
        elif header.kind == PACK:
            if table and table[0] == header.number and table[1].payload_bytes == len(payload):
                self._take_pack(header.id, table[1], payload)
        else:
            self._say(str(unpack_document(payload).get("unit")), payload)

    def _take_pack(self, name: str, table: Table, payload: bytes) -> None:
        for place, row in enumerate(table.units):
            unit, data = packed_id(name, place), memoryview(payload)[row.start : row.start + row.payload_bytes]
            self._units[unit] = (row.head.key, hashlib.sha256(data).digest())
            if row.measured is not None:
                self._say(unit, pack_document({"unit": unit, "measured": row.measured}))

    def _say(self, unit: str, document: bytes) -> None:
        if unit in self._units and len(document) <= _MAX_QUALITY:
            self._said[unit] = document
