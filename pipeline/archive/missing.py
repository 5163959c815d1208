"""Which chunks of a damaged file are gone, and what was in them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from contextlib import suppress
from functools import cached_property

from framefold.pipeline.archive.documents import unpack_document
from framefold.pipeline.archive.errors import ArchiveError
from framefold.pipeline.archive.losses import Loss, Sources, Stretch, gaps, loss_of
from framefold.pipeline.archive.pack import PackedUnit, Table, packed_id
from framefold.pipeline.archive.records import (
    COPY,
    INDEX,
    PACK,
    QUALITY,
    SOURCE,
    TABLE,
    UNIT,
    ChunkHeader,
    IndexEntry,
    chunk_id,
)
from framefold.pipeline.archive.remains import Remains
from framefold.pipeline.archive.unit import UnitHead


class Missing:
    """Tells what is lost by the index, or by the chunks' own headers, and by names and clocks of the originals."""

    def __init__(self, remains: Remains) -> None:
        self._remains = remains
        self._stretches: dict[int, list[Stretch]] = defaultdict(list)

    def note(self, source: int, head: UnitHead) -> None:
        """These frames of a source are there."""
        times = {"t0": head.t0, "duration": head.duration}
        self._stretches[source].append(Stretch(first_frame=head.first_frame, frames=len(head.pts), **times))

    def loss(self, number: int, why: str) -> Loss:
        """Of a chunk."""
        about = self._about(number)
        if about is None and number in self._remains.whole:
            about = self._remains.whole[number].header
        first, key = self._first_frame(number), self._keys.get(number)
        return loss_of(about, number, self._sources, why, key=key, first_item=first)

    def packed(self, pack: int, place: int, row: PackedUnit, why: str) -> Loss:
        """Of one unit of a pack."""
        name, source = packed_id(chunk_id(PACK, pack), place), self._sources.name(row.source)
        return Loss(what="pictures", why=why, chunk=name, source=source, items=len(row.head.pts), key=row.head.key)

    def told(self, taken: Set[int], known: Mapping[bytes, Mapping[int, int]], *, is_unfinished: bool) -> Iterator[Loss]:
        """All losses of chunks that were not `taken`; `known` are the numbers of sources and codecs that are there."""
        remains = self._remains
        count = max(remains.whole, default=-1) + 1 if is_unfinished else remains.count
        gone = [number for number in range(count) if number not in taken and not self._is_told(number, taken, known)]
        yield from (self.loss(number, "its chunk is damaged or lost") for number in gone)
        if remains.index is None and any(number not in remains.damaged for number in gone):
            yield from gaps(self._stretches, self._sources)
        if remains.is_cut and not is_unfinished:
            yield Loss(what="end", why="the file was cut: what came after its last whole chunk is lost")

    def _is_told(self, number: int, taken: Set[int], known: Mapping[bytes, Mapping[int, int]]) -> bool:
        """Whether the loss of a chunk is no loss, or is told with another's."""
        about = self._about(number)
        if about is None or about.kind in (COPY, INDEX):
            return about is not None
        if about.kind == TABLE:  # its pack tells
            return self._remains.index is not None or number + 1 in taken
        if about.kind == QUALITY and isinstance(about, IndexEntry):  # its unit tells
            return about.first_item not in taken
        return about.stream in known.get(about.kind, {})

    def _about(self, number: int) -> IndexEntry | ChunkHeader | None:
        return self._remains.entry(number) or self._remains.damaged.get(number)

    def _first_frame(self, number: int) -> int | None:
        """Of a unit that is whole but cannot be used."""
        found = self._remains.whole.get(number)
        if found is None or found.header.kind != UNIT:
            return None
        try:
            return UnitHead.unpack(self._remains.payload(number))[0].first_frame
        except ArchiveError:
            return None

    @cached_property
    def _keys(self) -> Mapping[int, str]:
        """Chunk number to key of all units, as the copy has it."""
        index, keys = self._remains.index, self._remains.spare.keys
        return dict(zip(index.numbers(UNIT), keys, strict=True)) if index is not None and keys else {}

    @cached_property
    def _sources(self) -> Sources:
        sources, remains = Sources(), self._remains
        for number, data in remains.spare.sources.items():
            with suppress(ArchiveError):
                sources.documents[number] = unpack_document(data)
        for number in remains.of_kind(SOURCE):
            with suppress(ArchiveError):
                sources.documents[remains.whole[number].header.stream] = unpack_document(remains.payload(number))
        for number in remains.of_kind(TABLE):
            with suppress(ArchiveError):
                documents = Table.unpack(remains.payload(number)).sources
                sources.documents.update(enumerate(documents, remains.whole[number].header.stream))
        return sources
