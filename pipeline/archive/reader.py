"""Read an archive, strictly: what is returned has passed its CRC-32, its SHA-256 and every range check."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, Self, TypeVar

from framefold.pipeline.archive.chunks import read_file_header, read_index
from framefold.pipeline.archive.contents import (
    CodecEntry,
    SourceEntry,
    UnitEntry,
    UnitRecord,
    read_document,
    read_unit,
)
from framefold.pipeline.archive.documents import Document
from framefold.pipeline.archive.errors import ArchiveError, Code, located
from framefold.pipeline.archive.files import InputFile
from framefold.pipeline.archive.records import (
    CODEC,
    KNOWN,
    QUALITY,
    SOURCE,
    UNIT,
    IndexEntry,
    chunk_id,
    is_critical,
)

T = TypeVar("T")


class ArchiveReader:
    """An open archive. Units are read on demand; reading is safe from several threads.

    Opening reads the tail of the file (footer and index, if they fit into 64 KiB), the file header, and the
    sources, codecs and manifest; no unit.
    """

    def __init__(self, file: InputFile) -> None:
        self._file = file
        self._tag = read_file_header(file).shard_tag
        self._entries, tag = read_index(file)
        with located(archive=file.path):
            self._check_kinds(tag)
        self.manifest: Document = self._document(len(self._entries) - 1)
        """As given to `commit`."""
        self.sources = tuple(self._numbered(SOURCE, SourceEntry.of))
        self.codecs = tuple(self._numbered(CODEC, CodecEntry.of))
        self.units = tuple(self._unit_entries())
        """In file order."""
        self._unit_numbers = {chunk_id(UNIT, number): number for number, _ in self._of_kind(UNIT)}
        self._quality = dict(self._quality_numbers())

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open and check; `ArchiveError` if anything but a unit or a measurement is not whole."""
        file = InputFile.open(path)
        try:
            return cls(file)
        except BaseException:
            file.close()
            raise

    @property
    def size_bytes(self) -> int:
        """Length of the whole file."""
        return self._file.size

    def read_unit(self, chunk: str) -> UnitRecord:
        """Return the unit with this id, verified."""
        number = self._unit_number(chunk)
        entry = self._entries[number]
        return read_unit(self._file, entry, number, self._tag, sources=self.sources, codecs=self.codecs)

    def quality(self, chunk: str) -> Document | None:
        """Return what was last measured of this unit, or None."""
        number = self._quality.get(self._unit_number(chunk))
        if number is None:
            return None
        document = self._document(number)
        measured = document.get("measured")
        if document.get("unit") != chunk or not isinstance(measured, dict):
            got = f"unit {document.get('unit')!r:.40}, measured {type(measured).__name__}"
            name = chunk_id(QUALITY, number)
            message = f"{got} where {chunk} is described"
            raise ArchiveError(Code.DISAGREES, message, archive=self._file.path, chunk=name)
        return measured

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_kinds(self, index_tag: int) -> None:
        if index_tag != self._tag:
            raise ArchiveError(Code.DISAGREES, "the index belongs to another file than the header")
        for number, entry in enumerate(self._entries):
            if entry.kind not in KNOWN and is_critical(entry.kind):
                name = chunk_id(entry.kind, number)
                raise ArchiveError(
                    Code.UNKNOWN_CRITICAL, f"chunks of type {entry.kind.decode()} are unknown", chunk=name
                )

    def _of_kind(self, kind: bytes) -> Iterator[tuple[int, IndexEntry]]:
        return ((number, entry) for number, entry in enumerate(self._entries) if entry.kind == kind)

    def _document(self, number: int) -> dict[str, Any]:
        return read_document(self._file, self._entries[number], number, self._tag)

    def _numbered(self, kind: bytes, build: Callable[[int, str, Document], T]) -> Iterator[T]:
        """Each source or codec; they are numbered from 0 in file order."""
        for count, (number, entry) in enumerate(self._of_kind(kind)):
            name = chunk_id(kind, number)
            with located(archive=self._file.path, chunk=name, offset=entry.offset):
                if entry.stream != count:
                    raise ArchiveError(Code.LAYOUT, f"it is numbered {entry.stream}; {count} is next")
                built = build(count, name, self._document(number))
            yield built

    def _unit_entries(self) -> Iterator[UnitEntry]:
        with located(archive=self._file.path):
            for number, entry in self._of_kind(UNIT):
                yield UnitEntry.of(entry, number, sources=len(self.sources), codecs=len(self.codecs))

    def _quality_numbers(self) -> Iterator[tuple[int, int]]:
        for number, entry in self._of_kind(QUALITY):
            with located(archive=self._file.path, chunk=chunk_id(QUALITY, number), offset=entry.offset):
                about = entry.first_item
                if about >= number or self._entries[about].kind != UNIT:
                    raise ArchiveError(Code.NO_SUCH, f"it speaks of chunk {about}, no unit before it")
            yield about, number

    def _unit_number(self, chunk: str) -> int:
        try:
            return self._unit_numbers[chunk]
        except KeyError:
            message = f"there is no unit {chunk!r:.40}"
            raise ArchiveError(Code.NO_SUCH, message, archive=self._file.path) from None
