"""Write one file of an archive: chunks one after the other, then index and footer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import Any, Protocol
from zlib import crc32

from framefold.pipeline.archive.attachments import AttachmentPiece
from framefold.pipeline.archive.chunks import digest
from framefold.pipeline.archive.contents import CodecEntry, SourceEntry, UnitRecord, checked_manifest, read_unit
from framefold.pipeline.archive.copies import Copy
from framefold.pipeline.archive.documents import Document, pack_document, unpack_document
from framefold.pipeline.archive.errors import ArchiveError, Code, located
from framefold.pipeline.archive.files import InputFile
from framefold.pipeline.archive.limits import MAX_PAYLOAD, TAIL
from framefold.pipeline.archive.needs import codec_document
from framefold.pipeline.archive.packets import PacketBlock
from framefold.pipeline.archive.pending import Pending, Picture
from framefold.pipeline.archive.records import (
    ATTACHMENT,
    CODEC,
    COPY,
    HEADER_BYTES,
    INDEX,
    MANIFEST,
    PACK,
    PACKETS,
    QUALITY,
    SOURCE,
    TABLE,
    UNIT,
    ChunkHeader,
    FileHeader,
    Footer,
    IndexEntry,
    chunk_id,
    padding,
)
from framefold.pipeline.archive.unit import UnitHead


class Output(Protocol):
    """The file that a shard is written into."""

    @property
    def fd(self) -> int:
        """Descriptor, to read back from."""

    def write(self, data: bytes | bytearray, offset: int) -> None:
        """Write all of `data`, the new end of the file; after a failure the file ends at `offset`."""

    def cut(self, end: int) -> None:
        """Forget everything from `end` on."""

    def sync(self) -> None:
        """Flush what was written to the medium."""


class ShardWriter:
    """The chunks of one file.

    Every method either does all of its work or leaves the file as it was, so each may be repeated after an
    `ArchiveError`. Not for several threads.
    """

    def __init__(self, output: Output, header: FileHeader, name: str) -> None:
        """`name` is for messages."""
        self._output, self._header, self._name = output, header, name
        self._tag = header.shard_tag
        self._entries: list[IndexEntry] = []
        self._sources: list[SourceEntry] = []
        self._codecs: list[CodecEntry] = []
        self._known: dict[tuple[bytes, bytes], int] = {}  # (chunk type, JSON) to source or codec number
        self._documents: dict[int, bytes] = {}  # chunk number to JSON, of sources and codecs
        self._units: dict[str, int] = {}  # unit or packet key to chunk number, a packed unit's to its pack
        self._attached: dict[tuple[str, int], int] = {}  # (SHA-256, start) to chunk number
        self._needed: dict[int, int] = {}  # chunk number to bytes, of attachments that codecs need
        self._qualities: list[tuple[int, bytes]] = []  # unit's chunk number and JSON of each measurement
        self._measured: dict[int, bytes] = {}  # the last of them for each unit
        self._pending = Pending()
        self._open = True
        output.write(header.pack(), 0)

    @property
    def size_bytes(self) -> int:
        """Bytes written so far, headers and padding counted, and those of the pictures that wait for their pack."""
        return self._end + self._pending.payload_bytes

    @property
    def keys(self) -> Set[str]:
        """Keys of the units and packet blocks in this file, waiting pictures among them."""
        return self._units.keys() | self._pending.keys

    @property
    def needed_bytes(self) -> int:
        """Bytes of the attachments that codecs need, headers and padding counted."""
        return sum(self._needed.values())

    @property
    def has_measurements(self) -> bool:
        """Whether anything in this file was measured: it would be lost time to measure it again."""
        return bool(self._measured) or any(entry.kind == PACK for entry in self._entries)

    @property
    def unit_count(self) -> int:
        """Units in this file."""
        return sum(entry.kind == UNIT or entry.items for entry in self._entries if entry.kind in (UNIT, PACK))

    def add_source(self, document: Mapping[str, Any]) -> int:
        """Store what is known of an original file; the number that units refer to.

        `name`, `kind`, `width`, `height` and `time_base` are checked, the rest is kept as it is.
        An equal document is stored once.
        """
        data = pack_document(document)
        if (SOURCE, data) not in self._known:
            self.close_pack()  # its sources take their numbers first
        number = self._known.get((SOURCE, data), len(self._sources))
        if number == len(self._sources):
            entry = SourceEntry.of(number, self._next_id(SOURCE), unpack_document(data))
            self._documents[self._append(SOURCE, data, stream=number)] = data
            self._sources.append(entry)
            self._known[SOURCE, data] = number
        return number

    def add_codec(self, name: str, config: Mapping[str, Any], *, needs: Sequence[bytes] = ()) -> int:
        """Store a codec's name and configuration, equal ones once; the number that units refer to.

        `needs` are bytes without which its units cannot be decoded: they are stored before, as attachments, equal
        ones once.
        """
        named = {hashlib.sha256(each).hexdigest(): each for each in needs}
        data = codec_document(name, config, tuple(named))
        number = self._known.get((CODEC, data), len(self._codecs))
        if number == len(self._codecs):
            with self._as_before(Exception):
                for sha256, each in named.items():
                    self._add_needed(sha256, each)
                entry = CodecEntry.of(number, self._next_id(CODEC), unpack_document(data))
                self._documents[self._append(CODEC, data, stream=number)] = data
            self._codecs.append(entry)
            self._known[CODEC, data] = number
        return number

    def _add_needed(self, sha256: str, data: bytes) -> None:
        self.add_attachment(sha256, len(data), 0, data)
        number = self._attached[sha256, 0]
        self._needed[number] = self._entries[number].disk_bytes

    def known_source(self, data: bytes) -> int | None:
        """Number of the source with this JSON, as `pack_document` spells it; None if it was not added."""
        return self._known.get((SOURCE, data))

    def known_codec(self, data: bytes) -> int | None:
        """The same of a codec: `{"name": …, "config": …}`."""
        return self._known.get((CODEC, data))

    def add_unit(
        self,
        *,
        key: str,
        source: int,
        codec: int,
        first_frame: int,
        pts: Sequence[int],
        duration_ticks: int,
        payload: bytes,
    ) -> str:
        """Store a codec's bytes for some frames; the chunk's id. A key already there is not stored again."""
        head = UnitHead(key=key, codec=codec, first_frame=first_frame, duration_ticks=duration_ticks, pts=tuple(pts))
        if key in self._units:
            return chunk_id(self._entries[self._units[key]].kind, self._units[key])
        self._check_known("source", source, self._sources)
        self._check_known("codec", codec, self._codecs)
        number = self._append(
            UNIT,
            head.pack(),
            payload,
            stream=source,
            t0=head.t0,
            duration=head.duration,
            items=len(head.pts),
            first_item=first_frame,
            codec=codec,
        )
        self._units[key] = number
        return chunk_id(UNIT, number)

    def add_picture(
        self, *, source: Mapping[str, Any], codec: int, key: str, payload: bytes, measured: Document | None = None
    ) -> None:
        """Store a picture's unit among other small ones, at most 256 KiB; they share a chunk.

        It is in the file when its pack is closed: by `close_pack`, by `finish`, or when there are enough of them.
        """
        if key in self._units or key in self._pending.keys:
            return
        data = pack_document(source)
        SourceEntry.of(0, "", unpack_document(data))
        self._check_known("codec", codec, self._codecs)
        with self._as_before(Exception):
            self._pending.add(Picture(source=data, codec=codec, key=key, payload=payload, measured=measured))
            if self._pending.is_full:
                self.close_pack()

    def close_pack(self) -> None:
        """Write the pictures that wait for their pack."""
        if not self._pending.pictures:
            return
        table, added = self._pending.table(self.known_source, len(self._sources))
        with self._as_before(Exception):
            first = len(self._sources)
            number = self._append(TABLE, table.pack(), stream=first, items=len(added))
            for place, data in enumerate(added):
                name = f"{chunk_id(TABLE, number)}.{place}"
                self._sources.append(SourceEntry.of(first + place, name, unpack_document(data)))
                self._known[SOURCE, data] = first + place
            body = b"".join(picture.payload for picture in self._pending.pictures)
            pack = self._append(PACK, body, items=len(table.units))
        self._units.update((picture.key, pack) for picture in self._pending.pictures)
        self._pending = Pending()

    def add_packets(self, source: int, block: PacketBlock) -> str:
        """Store copied packets of one of the source's tracks; a key already there is not stored again."""
        if block.key in self._units:
            return chunk_id(PACKETS, self._units[block.key])
        self._check_known("source", source, self._sources)
        times = {"t0": block.t0, "duration": block.duration, "items": len(block.packets)}
        number = self._append(PACKETS, block.pack(), stream=source, first_item=block.track, **times)
        self._units[block.key] = number
        return chunk_id(PACKETS, number)

    def add_attachment(self, sha256: str, total_bytes: int, start: int, data: bytes) -> str:
        """Store a piece of an attachment; one that is there already is not stored again."""
        piece = AttachmentPiece(sha256=sha256, total_bytes=total_bytes, start=start, data=data)
        if (sha256, start) not in self._attached:
            self._attached[sha256, start] = self._append(ATTACHMENT, piece.pack())
        return chunk_id(ATTACHMENT, self._attached[sha256, start])

    def read_unit(self, chunk: str) -> UnitRecord:
        """Read a stored unit back from the file, through the same checks as a reader's."""
        self._require_open()
        number = self._unit_number(chunk)
        file = InputFile(self._output.fd, self._name, self._end)
        entry = self._entries[number]
        return read_unit(file, entry, number, self._tag, source=self._sources.__getitem__, codecs=self._codecs)

    def add_quality(self, chunk: str, document: Mapping[str, Any]) -> None:
        """Store what was measured of a unit. Of several documents for one unit, readers see the last."""
        number = self._unit_number(chunk)
        data = pack_document({"unit": chunk, "measured": document})
        if self._measured.get(number) != data:
            self._append(QUALITY, data, stream=self._entries[number].stream, first_item=number)
            self._qualities.append((number, data))
            self._measured[number] = data

    def finish(self, manifest: Mapping[str, Any]) -> int:
        """Write everything that is left and flush the file; its length. `manifest` needs `generator` and `created`."""
        data = pack_document(checked_manifest(manifest))
        with self._as_before(Exception):  # not KeyboardInterrupt: it may come when the file has its name already
            self.close_pack()
            if self._end > TAIL:
                self._append(COPY, self._copy().pack())
            self._append(MANIFEST, data)
            end = self._write_index()
            self._output.sync()
        return end

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Take what is added inside only if nothing is raised there: a unit with its measurement, or neither."""
        with self._as_before(BaseException):
            yield

    def _copy(self) -> Copy:
        units = sorted((number, key) for key, number in self._units.items() if self._entries[number].kind == UNIT)
        keys = b"".join(bytes.fromhex(key) for _, key in units)
        return Copy(header=self._header, documents=self._documents, raw_keys=keys)

    def _append(self, kind: bytes, *payload: bytes, first_item: int = 0, codec: int = 0, **fields: int) -> int:
        """Append a chunk and its index entry; the chunk's number. `fields` go into header and entry alike."""
        self._require_open()
        number = len(self._entries)
        with located(archive=self._name, chunk=chunk_id(kind, number)):
            header, raw = self._pack(kind, payload, number, **fields)
            entry = IndexEntry(
                offset=self._end,
                kind=kind,
                payload_bytes=header.payload_bytes,
                sha256=digest(header, raw),
                first_item=first_item,
                codec=codec,
                **fields,
            )
            self._output.write(raw, entry.offset)
        self._entries.append(entry)
        return number

    def _pack(self, kind: bytes, payload: Sequence[bytes], number: int, **fields: int) -> tuple[ChunkHeader, bytearray]:
        length = sum(map(len, payload))
        if length > MAX_PAYLOAD:
            raise ArchiveError(Code.LIMIT, f"a payload of {length} bytes; {MAX_PAYLOAD} are allowed")
        raw = bytearray().join((bytes(HEADER_BYTES), *payload, bytes(padding(length))))
        header = ChunkHeader(
            kind=kind,
            number=number,
            shard_tag=self._tag,
            payload_bytes=length,
            payload_crc=crc32(memoryview(raw)[HEADER_BYTES : HEADER_BYTES + length]),
            **fields,
        )
        raw[:HEADER_BYTES] = header.pack()
        return header, raw

    def _write_index(self) -> int:
        """Write index and footer; the length of the finished file."""
        payload = b"".join(entry.pack() for entry in self._entries)
        header, raw = self._pack(INDEX, [payload], len(self._entries))
        footer = Footer(
            index_offset=self._end,
            index_bytes=len(payload),
            entries=len(self._entries),
            index_sha256=digest(header, raw),
        )
        self._output.write(raw + footer.pack(), self._end)
        return self._end + len(raw) + HEADER_BYTES

    @property
    def _end(self) -> int:
        """Where the next chunk goes. What a failed or interrupted write left beyond is overwritten."""
        last = self._entries[-1] if self._entries else None
        return last.offset + last.disk_bytes if last else HEADER_BYTES

    @contextmanager
    def _as_before(self, caught: type[BaseException]) -> Iterator[None]:
        count, pending = len(self._entries), self._pending
        waiting = len(pending.pictures)
        try:
            yield
        except caught:
            if self._open:
                self._forget(count)
                self._pending = pending.first(waiting)
            raise

    def _forget(self, count: int) -> None:
        """Drop all chunks from `count` on."""
        kept = self._entries[:count]
        del self._entries[count:]
        self._output.cut(self._end)
        kinds = [entry.kind for entry in kept]
        sources = kinds.count(SOURCE) + sum(entry.items for entry in kept if entry.kind == TABLE)
        left = {SOURCE: sources, CODEC: kinds.count(CODEC)}
        del self._sources[left[SOURCE] :]
        del self._codecs[left[CODEC] :]
        del self._qualities[kinds.count(QUALITY) :]
        self._known = {key: number for key, number in self._known.items() if number < left[key[0]]}
        self._documents = {number: data for number, data in self._documents.items() if number < count}
        self._units = {key: number for key, number in self._units.items() if number < count}
        self._attached = {key: number for key, number in self._attached.items() if number < count}
        self._needed = {number: size for number, size in self._needed.items() if number < count}
        self._measured = dict(self._qualities)

    def _check_known(self, what: str, number: int, known: Sequence[object]) -> None:
        if not 0 <= number < len(known):
            raise ArchiveError(Code.NO_SUCH, f"{what} {number} of {len(known)}: add it before the unit")

    def _next_id(self, kind: bytes) -> str:
        return chunk_id(kind, len(self._entries))

    def _unit_number(self, chunk: str) -> int:
        digits = chunk[1:]
        number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else -1
        if not 0 <= number < len(self._entries) or chunk_id(self._entries[number].kind, number) != chunk:
            raise ArchiveError(Code.NO_SUCH, f"no unit {chunk!r} was written", archive=self._name)
        if self._entries[number].kind != UNIT:
            raise ArchiveError(Code.NO_SUCH, f"chunk {chunk!r} is no unit", archive=self._name)
        return number

    def _require_open(self) -> None:
        if not self._open:
            raise ArchiveError(Code.MISUSE, "this writer was committed or aborted", archive=self._name)
