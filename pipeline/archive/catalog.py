"""What one file holds, by number: sources, codecs and packed units. Tables of packs are read on demand."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from framefold.pipeline.archive.contents import CodecEntry, SourceEntry, UnitEntry
from framefold.pipeline.archive.documents import Document
from framefold.pipeline.archive.errors import ArchiveError, Code, located
from framefold.pipeline.archive.limits import MAX_FRAMES
from framefold.pipeline.archive.pack import Table, inflated_limit, packed_id
from framefold.pipeline.archive.records import CODEC, SOURCE, TABLE, UNIT, IndexEntry
from framefold.pipeline.archive.shelf import Shelf

_TABLES = 8
"""Tables held at a time: a stranger's file may have many, and each is far larger spelled out than on disk."""
_SHORTEST_SOURCE = 60
"""Bytes of JSON that describe any source: the shortest, of 1 x 1 pixels and with a name of one letter, has 66."""


@dataclass
class _Listed:
    """What all tables say, read once."""

    sources: list[SourceEntry] = field(default_factory=list)
    units: list[UnitEntry] = field(default_factory=list)
    damage: dict[int, ArchiveError] = field(default_factory=dict)


class Catalog:
    """Sources and codecs are checked at once, and that units refer to what is there."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._tables = lru_cache(maxsize=_TABLES)(self._read_table)
        self.source_count = self._check_source_numbers()
        self._own_sources = {number: self._source(number) for number in shelf.numbers(SOURCE)}
        self.codecs = tuple(self._codec(place, number) for place, number in enumerate(shelf.numbers(CODEC)))
        self._check_units()

    @property
    def sources(self) -> tuple[SourceEntry, ...]:
        """All sources by number: those of `Srce` chunks and those of tables; of a damaged table only their numbers."""
        return tuple(self._listed.sources)

    @property
    def units(self) -> tuple[UnitEntry, ...]:
        """All units in file order, packed ones too, but for those of a damaged table."""
        return tuple(self._listed.units)

    @property
    def damage(self) -> Mapping[int, ArchiveError]:
        """Chunk numbers of the tables that cannot be read, and why."""
        return self._listed.damage

    @cached_property
    def _listed(self) -> _Listed:
        listed = _Listed()
        for number in self._shelf.numbers(SOURCE, TABLE, UNIT):
            if number in self._own_sources:
                listed.sources.append(self._own_sources[number])
            elif self._shelf.index.kind(number) == UNIT:
                listed.units.append(self.unit(number))
            else:
                self._list_pack(number, listed)
        return listed

    def _list_pack(self, number: int, listed: _Listed) -> None:
        try:
            sources, units = self._table_sources(number), self.packed(number + 1)
        except ArchiveError as error:
            listed.damage[number] = error
            listed.sources += self._lost_sources(number)
        else:
            listed.sources += sources
            listed.units += units

    def source(self, number: int) -> SourceEntry:
        """One source, by number; of the tables only the one that has it is read."""
        place = bisect_right(self._source_places, number, key=itemgetter(0)) - 1
        first, chunk = self._source_places[place]
        try:
            return self._own_sources.get(chunk) or self._table_source(chunk, number - first)
        except ArchiveError:
            return SourceEntry.lost(number, f"{self._shelf.index.id(chunk)}.{number - first}")

    @cached_property
    def _source_places(self) -> list[tuple[int, int]]:
        """Number of the first source in each chunk that holds sources, and that chunk's number."""
        index = self._shelf.index
        chunks = (
            number
            for number in self._shelf.numbers(SOURCE, TABLE)
            if number in self._own_sources or index[number].items
        )
        return [(index[number].stream, number) for number in chunks]

    def unit(self, number: int) -> UnitEntry:
        """The unit in a chunk of its own."""
        entry = self._shelf.index[number]
        return UnitEntry.of(entry, number, sources=self.source_count, codecs=len(self.codecs))

    def packed(self, number: int) -> tuple[UnitEntry, ...]:
        """The units of the pack with this chunk number."""
        return tuple(self.packed_one(number, place) for place in range(len(self.table(number - 1).units)))

    def packed_one(self, number: int, place: int) -> UnitEntry:
        """One of the units of a pack."""
        name, row = packed_id(self._shelf.index.id(number), place), self.table(number - 1).units[place]
        with located(archive=self._shelf.file.path):
            return UnitEntry.of_packed(row, name, sources=self.source_count, codecs=len(self.codecs))

    def table(self, number: int) -> Table:
        """The table with this chunk number, which fits the pack behind it."""
        return self._tables(number)

    def _read_table(self, number: int) -> Table:
        index = self._shelf.index
        payload = self._shelf.payload(number)
        with located(archive=self._shelf.file.path, chunk=index.id(number), offset=index[number].offset):
            table = Table.unpack(payload)
            pack = index[number + 1]
            said = (len(table.sources), len(table.units), table.payload_bytes)
            there = (index[number].items, pack.items, pack.payload_bytes)
            if said != there:
                names = "sources, units and bytes"
                raise ArchiveError(Code.DISAGREES, f"{names} are {said} in the table and {there} in the index")
        return table

    def _table_sources(self, number: int) -> tuple[SourceEntry, ...]:
        return tuple(self._table_source(number, place) for place in range(len(self.table(number).sources)))

    def _table_source(self, number: int, place: int) -> SourceEntry:
        index, document = self._shelf.index, self.table(number).sources[place]
        name, entry = index.id(number), index[number]
        with located(archive=self._shelf.file.path, chunk=name, offset=entry.offset):
            return SourceEntry.of(entry.stream + place, f"{name}.{place}", document)

    def _lost_sources(self, number: int) -> Iterator[SourceEntry]:
        name, entry = self._shelf.index.id(number), self._shelf.index[number]
        return (SourceEntry.lost(entry.stream + place, f"{name}.{place}") for place in range(entry.items))

    def _check_source_numbers(self) -> int:
        """Sources are numbered from 0 in file order; their count."""
        count = 0
        for number in self._shelf.numbers(SOURCE, TABLE):
            entry = self._shelf.index[number]
            if entry.stream != count:
                self._fail(number, f"it is numbered {entry.stream}; {count} is next")
            count += 1 if entry.kind == SOURCE else self._table_items(entry, number)
        return count

    def _table_items(self, entry: IndexEntry, number: int) -> int:
        """Sources of a table: no more than it has room for, for each gets a place even if the table is damaged."""
        room = inflated_limit(entry.payload_bytes) // _SHORTEST_SOURCE
        if entry.items > room:
            raise ArchiveError(
                Code.LIMIT,
                f"{entry.items} sources in {entry.payload_bytes} bytes; there is room for {room}",
                archive=self._shelf.file.path,
                chunk=self._shelf.index.id(number),
                offset=entry.offset,
            )
        return entry.items

    def _source(self, number: int) -> SourceEntry:
        entry = self._shelf.index[number]
        with located(archive=self._shelf.file.path, chunk=self._shelf.index.id(number), offset=entry.offset):
            return SourceEntry.of(entry.stream, self._shelf.index.id(number), self._document(number))

    def _codec(self, place: int, number: int) -> CodecEntry:
        entry = self._shelf.index[number]
        if entry.stream != place:
            self._fail(number, f"it is numbered {entry.stream}; {place} is next")
        with located(archive=self._shelf.file.path, chunk=self._shelf.index.id(number), offset=entry.offset):
            return CodecEntry.of(place, self._shelf.index.id(number), self._document(number))

    def _document(self, number: int) -> Document:
        return self._shelf.document(number)

    def _check_units(self) -> None:
        """Look at all units' references at once: each to a source and a codec before it."""
        index, numbers = self._shelf.index, self._shelf.numbers(UNIT)
        columns = (index.array(name, UNIT) for name in ("stream", "codec", "items"))
        source, codec, items = columns
        sources, codecs = self.sources_before(numbers), self._codecs_before(numbers)
        bad = (source >= sources) | (codec >= codecs) | (items < 1) | (items > MAX_FRAMES)
        for place in np.flatnonzero(bad)[:1].tolist():
            number, known = numbers[place], {"sources": int(sources[place]), "codecs": int(codecs[place])}
            with located(archive=self._shelf.file.path):
                UnitEntry.of(index[number], number, **known)

    def sources_before(self, numbers: Sequence[int]) -> npt.NDArray[np.int64]:
        """How many sources are described before each of these chunks."""
        index, places = self._shelf.index, self._shelf.numbers(SOURCE, TABLE)
        counts = [1 if index[place].kind == SOURCE else index[place].items for place in places]
        return _sums_before(places, counts, numbers)

    def _codecs_before(self, numbers: Sequence[int]) -> npt.NDArray[np.int64]:
        places = self._shelf.numbers(CODEC)
        return _sums_before(places, [1] * len(places), numbers)

    def _fail(self, number: int, message: str) -> None:
        entry, name = self._shelf.index[number], self._shelf.index.id(number)
        raise ArchiveError(Code.LAYOUT, message, archive=self._shelf.file.path, chunk=name, offset=entry.offset)


def _sums_before(places: Sequence[int], counts: Sequence[int], numbers: Sequence[int]) -> npt.NDArray[np.int64]:
    """For each number, the sum of the counts whose places lie before it; both are in order."""
    sums = np.concatenate((np.zeros(1, np.int64), np.cumsum(np.array(counts, np.int64))))
    found: npt.NDArray[np.int64] = sums[np.searchsorted(np.array(places, np.int64), np.array(numbers, np.int64))]
    return found
