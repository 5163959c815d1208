"""Write what remains of a damaged file into a new one, and say what does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

from framefold.pipeline.archive.contents import SourceEntry, checked_manifest
from framefold.pipeline.archive.documents import Document, pack_document, unpack_document
from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.losses import Loss
from framefold.pipeline.archive.missing import Missing
from framefold.pipeline.archive.pack import PackedUnit, Table, packed_id
from framefold.pipeline.archive.packets import PacketBlock
from framefold.pipeline.archive.rebuilder import Rebuilder
from framefold.pipeline.archive.records import (
    ATTACHMENT,
    CODEC,
    KNOWN,
    MANIFEST,
    PACK,
    PACKETS,
    QUALITY,
    SOURCE,
    TABLE,
    UNIT,
    ChunkHeader,
    chunk_id,
)
from framefold.pipeline.archive.remains import Remains
from framefold.pipeline.archive.renumbering import Numbers
from framefold.pipeline.archive.unit import UnitHead

_CODEC = slice(32, 36)
"""Where a unit's head has the number of its codec."""


@dataclass
class Kept:
    """What is in the new file."""

    units: int = 0
    frames: int = 0
    packet_blocks: int = 0
    attachments: int = 0
    content: set[str] = field(default_factory=set, repr=False)
    """Keys of units and packets and SHA-256 of attachments: what another file may have too."""


class Salvage:
    """One damaged file on its way into a new one."""

    def __init__(self, remains: Remains, writer: Rebuilder) -> None:
        self.remains, self.writer = remains, writer
        self.kept, self.losses = Kept(), list[Loss]()
        self._missing = Missing(remains)
        self._sources = Numbers("source", remains.spare.sources, writer.put_source)
        self._codecs = Numbers("codec", remains.spare.codecs, writer.put_codec)
        self._units: dict[str, tuple[str, int]] = {}  # id in the damaged file to id and chunk number in the new one
        self._taken: set[int] = set()
        self._needing: list[tuple[str, Callable[[str], Loss]]] = []  # SHA-256 of what a unit needs, and its loss
        self._attachments = remains.whole_attachments()
        self._manifest: Document = {}
        self._take: dict[bytes, Callable[[int, ChunkHeader, bytes], None]] = {
            SOURCE: self._take_source,
            CODEC: self._take_codec,
            UNIT: self._take_unit,
            TABLE: self._take_table,
            PACK: self._take_lone_pack,
            QUALITY: self._take_quality,
            PACKETS: self._take_packets,
            ATTACHMENT: self._take_attachment,
            MANIFEST: self._take_manifest,
        }

    def run(self, *, is_unfinished: bool = False) -> Document:
        """Take all there is, in file order; the manifest, if it was found. An unfinished file has no end to lose."""
        spare = self.remains.spare.chunks
        for number in sorted({*self.remains.whole, *spare}):
            if number not in self.remains.whole:
                self._restore(*spare[number])
            elif number not in self._taken:
                self._taken.add(number)
                self._try(number)
        self._sources.catch_up()
        self._codecs.catch_up()
        known = {SOURCE: self._sources.known, CODEC: self._codecs.known}
        self.losses += self._missing.told(self._taken, known, is_unfinished=is_unfinished)
        self.losses += self._useless()
        return self._manifest

    def _useless(self) -> Iterator[Loss]:
        """Units that are whole, and cannot be decoded without what is lost; another file may have that."""
        for sha256, loss in self._needing:
            if sha256 not in self.kept.content:
                yield replace(
                    loss(f"its bytes are kept, but the attachment {sha256} that they need is lost"), key=sha256
                )

    def _restore(self, kind: bytes, number: int) -> None:
        """Write a document from the copy where its chunk stood."""
        with suppress(ArchiveError):
            (self._sources if kind == SOURCE else self._codecs).find(number)

    def _try(self, number: int) -> None:
        """Take a chunk; what is not as it must be, though its checksums are right, is a loss too."""
        header = self.remains.whole[number].header
        try:
            payload = self.remains.payload(number)
            if header.kind in self._take:
                self._take[header.kind](number, header, payload)
            elif header.kind not in KNOWN:
                self.writer.put_unknown(header, payload, self.remains.entry(number))
        except ArchiveError as error:
            if error.code == Code.IO:
                raise
            self.losses.append(self._missing.loss(number, error.message))

    def _take_source(self, _: int, header: ChunkHeader, payload: bytes) -> None:
        self._sources.take(header.stream, payload)

    def _take_codec(self, _: int, header: ChunkHeader, payload: bytes) -> None:
        self._codecs.take(header.stream, payload)

    def _take_unit(self, number: int, header: ChunkHeader, payload: bytes) -> None:
        head, _ = UnitHead.unpack(payload)
        times = {"t0": head.t0, "duration": head.duration, "items": len(head.pts)}
        _check_agrees(header, times)
        source, codec = self._sources.find(header.stream), self._codecs.find(head.codec)
        payload = payload[: _CODEC.start] + codec.to_bytes(4, "little") + payload[_CODEC.stop :]
        if head.key not in self.kept.content:
            new = self.writer.put_unit(
                payload, head.key, stream=source, first_item=head.first_frame, codec=codec, **times
            )
            self._keep(head, header.stream, chunk_id(UNIT, number), chunk_id(UNIT, new), new)
            self._note_needs(codec, partial(self._missing.loss, number))

    def _take_table(self, number: int, header: ChunkHeader, payload: bytes) -> None:
        """Take a table with its pack; of one whose pack is lost, the sources may still be needed by others."""
        table = Table.unpack(payload)
        self._taken.add(number + 1)
        body = self._pack_of(number, table)
        if body is not None:
            self._take_pack(number + 1, header, payload, table, body)
            return
        self._hide_sources(header.stream, table)
        for place, row in enumerate(table.units):
            self.losses.append(self._missing.packed(number + 1, place, row, "its pack is damaged"))

    def _hide_sources(self, first: int, table: Table) -> None:
        """Write these sources only if other units need them."""
        self._sources.hide({number: pack_document(document) for number, document in enumerate(table.sources, first)})

    def _pack_of(self, number: int, table: Table) -> bytes | None:
        found = self.remains.whole.get(number + 1)
        if found is None or (found.header.kind, found.header.payload_bytes) != (PACK, table.payload_bytes):
            return None
        return self.remains.payload(number + 1)

    def _take_pack(self, number: int, header: ChunkHeader, payload: bytes, table: Table, body: bytes) -> None:
        self._sources.catch_up(header.stream)
        own = range(header.stream, header.stream + len(table.sources))
        rows = list(self._usable_rows(number, table, own))
        if not rows:
            self._hide_sources(header.stream, table)
            return
        first = self.writer.source_count
        shift = {old: first + place for place, old in enumerate(own)}
        entries = [SourceEntry.of(shift[old], "", table.sources[place]) for place, old in enumerate(own)]
        moved = Table(sources=table.sources, units=tuple(_moved(rows, shift, self._sources, self._codecs)))
        if moved.units != table.units or first != header.stream:
            payload, body = moved.pack(), b"".join(_bytes_of(body, row) for _, row in rows)
        new = self.writer.put_table(payload, body, entries, len(rows))
        self._sources.known |= shift
        for place, (old, row) in enumerate(rows):
            names = (packed_id(chunk_id(PACK, number), old), packed_id(chunk_id(PACK, new), place))
            self._keep(row.head, row.source, *names, new)
            self._note_needs(self._codecs.find(row.head.codec), partial(self._missing.packed, number, old, row))

    def _usable_rows(self, pack: int, table: Table, own: range) -> Iterator[tuple[int, PackedUnit]]:
        """The rows whose source and codec are there, each with its place in the damaged pack."""
        for place, row in enumerate(table.units):
            try:
                self._codecs.find(row.head.codec)
                if row.source not in own:
                    self._sources.find(row.source)
            except ArchiveError as error:
                self.losses.append(self._missing.packed(pack, place, row, error.message))
            else:
                yield place, row

    def _take_lone_pack(self, _: int, __: ChunkHeader, ___: bytes) -> None:
        raise ArchiveError(Code.NO_SUCH, "the table that tells what is in it is damaged")

    def _take_quality(self, _: int, header: ChunkHeader, payload: bytes) -> None:
        document = unpack_document(payload)
        unit = str(document.get("unit"))
        if unit not in self._units:  # its loss has been told
            return
        name, number = self._units[unit]
        if name != unit:
            payload = pack_document({**document, "unit": name})
        self.writer.put(QUALITY, payload, stream=self._sources.find(header.stream), first_item=number)

    def _take_packets(self, _: int, header: ChunkHeader, payload: bytes) -> None:
        block = PacketBlock.unpack(payload)
        times = {"t0": block.t0, "duration": block.duration, "items": len(block.packets)}
        _check_agrees(header, times)
        source = self._sources.find(header.stream)
        self.writer.put(PACKETS, payload, stream=source, first_item=block.track, **times)
        self.kept.packet_blocks += 1
        self.kept.content.add(block.key)

    def _take_attachment(self, number: int, _: ChunkHeader, payload: bytes) -> None:
        if number not in self._attachments:
            raise ArchiveError(Code.MISSING, "other pieces of the attachment are lost")
        self.writer.put(ATTACHMENT, payload)
        self.kept.attachments += self._attachments[number] not in self.kept.content
        self.kept.content.add(self._attachments[number])

    def _take_manifest(self, _: int, __: ChunkHeader, payload: bytes) -> None:
        self._manifest = checked_manifest(unpack_document(payload))

    def _keep(self, head: UnitHead, source: int, old: str, new: str, number: int) -> None:
        self._units[old] = (new, number)
        self.kept.units += 1
        self.kept.frames += len(head.pts)
        self.kept.content.add(head.key)
        self._missing.note(source, head)

    def _note_needs(self, codec: int, loss: Callable[[str], Loss]) -> None:
        self._needing += ((sha256, loss) for sha256 in self.writer.needs_of(codec))


def _check_agrees(header: ChunkHeader, times: Mapping[str, int]) -> None:
    if any(getattr(header, name) != value for name, value in times.items()):
        raise ArchiveError(Code.DISAGREES, "its header and its payload disagree")


def _moved(
    rows: Sequence[tuple[int, PackedUnit]], shift: Mapping[int, int], sources: Numbers, codecs: Numbers
) -> Iterator[PackedUnit]:
    """The rows as the new file numbers their sources and codecs."""
    start = 0
    for _, row in rows:
        source = shift[row.source] if row.source in shift else sources.find(row.source)
        yield replace(row, source=source, head=replace(row.head, codec=codecs.find(row.head.codec)), start=start)
        start += row.payload_bytes


def _bytes_of(body: bytes, row: PackedUnit) -> bytes:
    return body[row.start : row.start + row.payload_bytes]
