"""Read one file of an archive, strictly: what is returned has passed its CRC-32, its SHA-256 and every range check."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from typing import Self

from framefold.pipeline.archive.attached import Attached
from framefold.pipeline.archive.catalog import Catalog
from framefold.pipeline.archive.contents import (
    CodecEntry,
    PacketEntry,
    SourceEntry,
    UnitEntry,
    UnitRecord,
    checked_manifest,
    read_unit,
    record_of,
)
from framefold.pipeline.archive.copies import Copy
from framefold.pipeline.archive.documents import Document
from framefold.pipeline.archive.errors import ArchiveError, Code, located
from framefold.pipeline.archive.files import InputFile, Readable
from framefold.pipeline.archive.limits import MAX_PACKETS
from framefold.pipeline.archive.pack import packed_id, split_packed_id
from framefold.pipeline.archive.packets import PacketBlock
from framefold.pipeline.archive.records import PACK, PACKETS, QUALITY, UNIT
from framefold.pipeline.archive.shelf import Shelf
from framefold.pipeline.archive.unit import UnitHead


class ShardReader:
    """An open file of an archive. Units are read on demand; reading is safe from several threads."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._shelf = Shelf(file)
        self._catalog = Catalog(self._shelf)
        self.header, self.index = self._shelf.header, self._shelf.index
        self.index_sha256: bytes = self._shelf.footer.index_sha256
        self.manifest: Document = self._checked_manifest(len(self.index) - 1)
        """As given to `commit`."""
        self._shelf.file = file
        self._quality = self._quality_numbers()
        # Packed units are mostly read one after the other.
        self._pack = lru_cache(maxsize=2)(self._shelf.payload)
        self._check_packets()

    def _checked_manifest(self, number: int) -> Document:
        with located(archive=self._file.path, chunk=self.index.id(number), offset=self.index[number].offset):
            return checked_manifest(self._shelf.document(number))

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open and check a local file; `ArchiveError` if anything but a unit or a measurement is not whole."""
        file = InputFile.open(path)
        try:
            return cls(file)
        except BaseException:
            file.close()
            raise

    @property
    def copy(self) -> Copy | None:
        """What the file repeats at its end, if it does."""
        return self._shelf.copy

    @property
    def path(self) -> str:
        """What the file is called in messages."""
        return self._file.path

    @property
    def size_bytes(self) -> int:
        """Length of the whole file."""
        return self._file.size

    @property
    def sources(self) -> tuple[SourceEntry, ...]:
        """All originals, by number."""
        return self._catalog.sources

    @property
    def codecs(self) -> tuple[CodecEntry, ...]:
        """All codecs, by number."""
        return self._catalog.codecs

    @property
    def units(self) -> tuple[UnitEntry, ...]:
        """All units, packed ones too, in file order."""
        return self._catalog.units

    def read_unit(self, unit: str) -> UnitRecord:
        """Return the unit with this id, verified: one read."""
        packed = split_packed_id(unit)
        if packed:
            return self._read_packed(*packed)
        number = self._shelf.number_of(unit, UNIT)
        found = (self._file, self.index[number], number, self._shelf.tag)
        return read_unit(*found, source=self._catalog.source, codecs=self.codecs)

    def _read_packed(self, pack: str, place: int) -> UnitRecord:
        number = self._shelf.number_of(pack, PACK)
        rows = self._catalog.table(number - 1).units
        if place >= len(rows):
            message = f"there is no unit {place} among the {len(rows)} of {pack}"
            raise ArchiveError(Code.NO_SUCH, message, archive=self.path)
        row, entry = rows[place], self._catalog.packed_one(number, place)
        payload = self._pack(number)[row.start : row.start + row.payload_bytes]
        return record_of(row.head, self._catalog.source(entry.source), self.codecs[entry.codec], payload)

    def quality(self, unit: str) -> Document | None:
        """Return what was last measured of this unit, or None."""
        packed = split_packed_id(unit)
        number = self._shelf.number_of(packed[0] if packed else unit, PACK if packed else UNIT)
        found = None
        for place in self._quality.get(number, ()):  # the last one counts
            about, measured = self._measured(place)
            if about == unit:
                found = measured
            elif not packed or not self._is_packed(about, number):
                raise self._disagreement(place, f"unit {about!r:.40} where {unit} is described")
        return found if found or not packed else self._measured_in_table(number, packed[1])

    def _is_packed(self, name: object, pack: int) -> bool:
        """Whether this is a unit of the pack."""
        split = split_packed_id(name) if isinstance(name, str) else None
        return split is not None and split[0] == self.index.id(pack) and split[1] < self.index[pack].items

    def _measured_in_table(self, pack: int, place: int) -> Document | None:
        rows = self._catalog.table(pack - 1).units
        if place >= len(rows):
            raise ArchiveError(Code.NO_SUCH, f"there is no unit {place} in that pack", archive=self.path)
        return rows[place].measured

    def _measured(self, number: int) -> tuple[object, Document]:
        document = self._shelf.document(number)
        measured = document.get("measured")
        if not isinstance(measured, dict):
            raise self._disagreement(number, f"measured {type(measured).__name__} where an object is needed")
        return document.get("unit"), measured

    @property
    def problems(self) -> tuple[ArchiveError, ...]:
        """Why packs are not among the units."""
        return tuple(self._catalog.damage.values())

    @cached_property
    def keys(self) -> Mapping[str, str]:
        """Key of every unit to its id, the first one's where two have the same; packet blocks are not among them."""
        keys: dict[str, str] = {}
        for unit, key in self.key_of.items():
            keys.setdefault(key, unit)
        return keys

    @cached_property
    def key_of(self) -> Mapping[str, str]:
        """Id of every unit to its key, but for those that are damaged."""
        alone = zip(self._shelf.numbers(UNIT), self._unit_keys(), strict=True)
        keys = {self.index.id(number): key for number, key in alone if key}
        for number in self._shelf.numbers(PACK):
            rows = () if number - 1 in self._catalog.damage else self._catalog.table(number - 1).units
            keys |= {packed_id(self.index.id(number), place): row.head.key for place, row in enumerate(rows)}
        return keys

    def _unit_keys(self) -> Iterator[str]:
        """Keys of the units that have a chunk for themselves; empty for one that is damaged."""
        if self._shelf.copy:
            return iter(self._shelf.copy.keys)
        return map(self._unit_key, self._shelf.numbers(UNIT))

    def _unit_key(self, number: int) -> str:
        try:
            return UnitHead.key_and_end(self._shelf.payload(number))[0]
        except ArchiveError:
            return ""

    @cached_property
    def packet_blocks(self) -> tuple[PacketEntry, ...]:
        """All copied packets, in file order."""
        return tuple(map(self._packet_entry, self._shelf.numbers(PACKETS)))

    def _packet_entry(self, number: int) -> PacketEntry:
        entry = self.index[number]
        return PacketEntry(
            id=self.index.id(number),
            source=entry.stream,
            track=entry.first_item,
            packets=entry.items,
            t0=entry.t0,
            duration=entry.duration,
            disk_bytes=entry.disk_bytes,
        )

    def read_packets(self, block: str) -> PacketBlock:
        """Return the packets in the chunk with this id, verified."""
        number = self._shelf.number_of(block, PACKETS)
        entry, payload = self.index[number], self._shelf.payload(number)
        with located(archive=self.path, chunk=block, offset=entry.offset):
            packets = PacketBlock.unpack(payload)
            here = (packets.track, len(packets.packets), packets.t0, packets.duration)
            there = (entry.first_item, entry.items, entry.t0, entry.duration)
            if here != there:
                names = "track, packets, t0, duration"
                raise ArchiveError(Code.DISAGREES, f"{names} are {here} in the chunk and {there} in the index")
        return packets

    @cached_property
    def _attached(self) -> Attached:
        return Attached(self._shelf)

    @property
    def attachments(self) -> Mapping[str, int]:
        """SHA-256 of every attachment that has all its pieces here, and its bytes."""
        return self._attached.whole

    @property
    def attachment_chunks(self) -> Mapping[str, str]:
        """Id of every chunk with a piece of an attachment to the SHA-256 of the whole, as its head says, unchecked."""
        return self._attached.chunks

    @property
    def attachment_damage(self) -> tuple[ArchiveError, ...]:
        """What is wrong with pieces of attachments that are not among the whole ones."""
        return self._attached.damage

    @property
    def lone_pieces(self) -> tuple[str, ...]:
        """Ids of the chunks that hold pieces of attachments of which others are missing."""
        return self._attached.incomplete

    def attachment_pieces(self, sha256: str) -> Iterator[bytes]:
        """Yield the attachment's bytes, a chunk at a time; F011 after the last if its SHA-256 is another."""
        return self._attached.pieces(sha256)

    def read_attachment(self, sha256: str) -> bytes:
        """Return an attachment, checked against its SHA-256."""
        return b"".join(self.attachment_pieces(sha256))

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _quality_numbers(self) -> Mapping[int, list[int]]:
        """Chunk number of a unit or pack to those of its measurements."""
        said: dict[int, list[int]] = defaultdict(list)
        columns = self._shelf.numbers(QUALITY), self.index.column("first_item", QUALITY)
        for number, about in zip(*columns, strict=True):
            if about >= number or self.index.kind(about) not in {UNIT, PACK}:
                entry, name = self.index[number], self.index.id(number)
                message = f"it speaks of chunk {about}, no unit before it"
                raise ArchiveError(Code.NO_SUCH, message, archive=self.path, chunk=name, offset=entry.offset)
            self._check_stream(number, about)
            said[about].append(number)
        return said

    def _check_stream(self, number: int, about: int) -> None:
        """A measurement has the source of its unit; that of a packed one is in the table."""
        here, there = self.index[number], self.index[about]
        if there.kind == UNIT and here.stream != there.stream:
            raise self._disagreement(number, f"it has source {here.stream}, and its unit {there.stream}")

    def _check_packets(self) -> None:
        numbers = self._shelf.numbers(PACKETS)
        columns = (self.index.column(name, PACKETS) for name in ("stream", "items"))
        for number, source, items, known in zip(numbers, *columns, self._catalog.sources_before(numbers), strict=True):
            if source >= known or not 1 <= items <= MAX_PACKETS:
                entry, name = self.index[number], self.index.id(number)
                got = f"{items} packets of source {source} of {known}"
                raise ArchiveError(Code.RECORD, got, archive=self.path, chunk=name, offset=entry.offset)

    def _disagreement(self, number: int, message: str) -> ArchiveError:
        return ArchiveError(Code.DISAGREES, message, archive=self.path, chunk=self.index.id(number))
