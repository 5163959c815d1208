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
from framefold.pipeline.archive.documents import Document, unpack_document
from framefold.pipeline.archive.errors import ArchiveError
from framefold.pipeline.archive.files import InputFile
from framefold.pipeline.archive.limits import MAX_CHUNKS
from framefold.pipeline.archive.records import HEADER_BYTES, QUALITY, UNIT
from framefold.pipeline.archive.scan import Found, Gap, scan
from framefold.pipeline.archive.unit import UnitHead

_MAX_QUALITY = 1024
"""Bytes of a measurement that is kept: ours have some 200, and a million of these still fit into memory."""


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
        units: dict[str, tuple[str, bytes]] = {}  # chunk id to key and SHA-256 of the codec's bytes
        said: dict[str, bytes] = {}
        with suppress(ArchiveError):  # what was found until then is whole all the same
            for found in _whole_chunks(file):
                _note(file, found, units, said)
        return cls({key: _Measured(digest, said[chunk]) for chunk, (key, digest) in units.items() if chunk in said})

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


def _note(file: InputFile, found: Found, units: dict[str, tuple[str, bytes]], said: dict[str, bytes]) -> None:
    """Remember a unit, or the last that was said of one."""
    header = found.header
    if header.kind not in (UNIT, QUALITY) or (header.kind == QUALITY and header.payload_bytes > _MAX_QUALITY):
        return
    payload = file.read(found.offset + HEADER_BYTES, header.payload_bytes)
    try:
        if header.kind == UNIT:
            key, start = UnitHead.key_and_end(payload)
            units[header.id] = (key, hashlib.sha256(memoryview(payload)[start:]).digest())
        else:
            unit = str(unpack_document(payload).get("unit"))
            if unit in units:
                said[unit] = payload
    except ArchiveError:  # its checksum is right and its content is not: a stranger made it
        return
