"""Write an archive: chunks into a temporary file, then index and footer, then the final name in one step."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from zlib import crc32

from framefold.pipeline.archive.bank import Bank
from framefold.pipeline.archive.chunks import digest, pack_chunk
from framefold.pipeline.archive.contents import CodecEntry, SourceEntry, UnitRecord, checked_manifest, read_unit
from framefold.pipeline.archive.documents import pack_document, unpack_document
from framefold.pipeline.archive.errors import ArchiveError, Code, located
from framefold.pipeline.archive.files import InputFile
from framefold.pipeline.archive.limits import MAX_PAYLOAD
from framefold.pipeline.archive.output import OutputFile
from framefold.pipeline.archive.records import (
    CODEC,
    HEADER_BYTES,
    INDEX,
    MANIFEST,
    QUALITY,
    SOURCE,
    UNIT,
    ChunkHeader,
    FileHeader,
    Footer,
    IndexEntry,
    chunk_id,
)
from framefold.pipeline.archive.unit import UnitHead


class ArchiveWriter:
    """One archive being written; nothing is seen under `path` until `commit`, and nobody else writes it.

    Every method either does all of its work or leaves the archive as it was, so each may be repeated after
    an `ArchiveError`. As a context manager it aborts unless `commit` was reached. Not for several threads.
    """

    def __init__(self, path: Path, *, archive_id: bytes | None = None) -> None:
        self.path = Path(path)
        header = FileHeader.first_of(os.urandom(16) if archive_id is None else archive_id)
        self._tag = header.shard_tag
        self._entries: list[IndexEntry] = []
        self._sources: list[SourceEntry] = []
        self._codecs: list[CodecEntry] = []
        self._known: dict[tuple[bytes, bytes], int] = {}  # (chunk type, JSON) to source or codec number
        self._units: dict[str, int] = {}  # unit key to chunk number
        self._qualities: list[tuple[int, bytes]] = []  # unit's chunk number and JSON of each measurement
        self._measured: dict[int, bytes] = {}  # the last of them for each unit
        self._open = True
        self._file = OutputFile(self.path)
        try:
            self._file.write(header.pack(), 0)
        except BaseException:
            self.abort()
            raise

    @property
    def size_bytes(self) -> int:
        """Bytes written so far, headers and padding counted."""
        return self._end

    @property
    def bank(self) -> Bank:
        """What a writer before, interrupted at the same archive, had measured."""
        return self._file.bank

    def add_source(self, document: Mapping[str, Any]) -> int:
        """Store what is known of an original file; the number that units refer to.

        `name`, `kind`, `width`, `height` and `time_base` are checked, the rest is kept as it is.
        An equal document is stored once.
        """
        data = pack_document(document)
        number = self._known.get((SOURCE, data), len(self._sources))
        if number == len(self._sources):
            entry = SourceEntry.of(number, self._next_id(SOURCE), unpack_document(data))
            self._append(SOURCE, data, stream=number)
            self._sources.append(entry)
            self._known[SOURCE, data] = number
        return number

    def add_codec(self, name: str, config: Mapping[str, Any]) -> int:
        """Store a codec's name and configuration, equal ones once; the number that units refer to."""
        data = pack_document({"name": name, "config": config})
        number = self._known.get((CODEC, data), len(self._codecs))
        if number == len(self._codecs):
            entry = CodecEntry.of(number, self._next_id(CODEC), unpack_document(data))
            self._append(CODEC, data, stream=number)
            self._codecs.append(entry)
            self._known[CODEC, data] = number
        return number

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
            return chunk_id(UNIT, self._units[key])
        for what, number, known in (("source", source, self._sources), ("codec", codec, self._codecs)):
            if not 0 <= number < len(known):
                raise ArchiveError(Code.NO_SUCH, f"{what} {number} of {len(known)}: add it before the unit")
        number = self._append(
            UNIT,
            head.pack() + payload,
            stream=source,
            t0=head.t0,
            duration=head.duration,
            items=len(head.pts),
            first_item=first_frame,
            codec=codec,
        )
        self._units[key] = number
        return chunk_id(UNIT, number)

    def read_unit(self, chunk: str) -> UnitRecord:
        """Read a stored unit back from the file, through the same checks as `ArchiveReader.read_unit`."""
        self._require_open()
        number = self._unit_number(chunk)
        file = InputFile(self._file.fd, str(self._file.part), self._end)
        entry = self._entries[number]
        return read_unit(file, entry, number, self._tag, sources=self._sources, codecs=self._codecs)

    def add_quality(self, chunk: str, document: Mapping[str, Any]) -> None:
        """Store what was measured of a unit. Of several documents for one unit, readers see the last."""
        number = self._unit_number(chunk)
        data = pack_document({"unit": chunk, "measured": document})
        if self._measured.get(number) != data:
            self._append(QUALITY, data, stream=self._entries[number].stream, first_item=number)
            self._qualities.append((number, data))
            self._measured[number] = data

    def commit(self, manifest: Mapping[str, Any]) -> Path:
        """Finish the file and give it its name; `manifest` needs `generator` and `created` (UTC, ISO)."""
        data = pack_document(checked_manifest(manifest))
        with self._as_before(Exception):  # not KeyboardInterrupt: it may come when the file has its name already
            self._append(MANIFEST, data)
            self._file.publish(self._write_index())
        self._open = False
        os.close(self._file.fd)
        self._file.sync_folder()
        return self.path

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Take what is added inside only if nothing is raised there: a unit with its measurement, or neither."""
        with self._as_before(BaseException):
            yield

    def suspend(self) -> None:
        """Stop for now: measured units stay in the temporary file, for the next writer's `bank`.

        Without one it is as `abort`; nothing happens after `commit` or a second time.
        """
        if self._open and self._measured:
            self._open = False
            self._file.leave()
        self.abort()

    def abort(self) -> None:
        """Remove the temporary file; nothing happens after `commit` or a second time."""
        if self._open:
            self._open = False
            self._file.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    def _append(self, kind: bytes, payload: bytes, *, first_item: int = 0, codec: int = 0, **fields: int) -> int:
        """Append a chunk and its index entry; the chunk's number. `fields` go into header and entry alike."""
        self._require_open()
        number = len(self._entries)
        with located(archive=str(self.path), chunk=chunk_id(kind, number)):
            header, raw = self._pack(kind, payload, number, **fields)
            entry = IndexEntry(
                offset=self._end,
                kind=kind,
                payload_bytes=len(payload),
                sha256=digest(header, raw),
                first_item=first_item,
                codec=codec,
                **fields,
            )
            self._file.write(raw, entry.offset)
        self._entries.append(entry)
        return number

    def _pack(self, kind: bytes, payload: bytes, number: int, **fields: int) -> tuple[ChunkHeader, bytes]:
        if len(payload) > MAX_PAYLOAD:
            raise ArchiveError(Code.LIMIT, f"a payload of {len(payload)} bytes; {MAX_PAYLOAD} are allowed")
        header = ChunkHeader(
            kind=kind,
            number=number,
            shard_tag=self._tag,
            payload_bytes=len(payload),
            payload_crc=crc32(payload),
            **fields,
        )
        return header, pack_chunk(header, payload)

    def _write_index(self) -> int:
        """Write index and footer; the length of the finished file."""
        payload = b"".join(entry.pack() for entry in self._entries)
        header, raw = self._pack(INDEX, payload, len(self._entries))
        footer = Footer(
            index_offset=self._end,
            index_bytes=len(payload),
            entries=len(self._entries),
            index_sha256=digest(header, raw),
        )
        self._file.write(raw + footer.pack(), self._end)
        return self._end + len(raw) + HEADER_BYTES

    @property
    def _end(self) -> int:
        """Where the next chunk goes. What a failed or interrupted write left beyond is overwritten."""
        last = self._entries[-1] if self._entries else None
        return last.offset + last.disk_bytes if last else HEADER_BYTES

    @contextmanager
    def _as_before(self, caught: type[BaseException]) -> Iterator[None]:
        count = len(self._entries)
        try:
            yield
        except caught:
            if self._open:
                self._forget(count)
            raise

    def _forget(self, count: int) -> None:
        """Drop all chunks from `count` on."""
        kinds = [entry.kind for entry in self._entries[:count]]
        del self._entries[count:]
        self._file.cut(self._end)
        del self._sources[kinds.count(SOURCE) :]
        del self._codecs[kinds.count(CODEC) :]
        del self._qualities[kinds.count(QUALITY) :]
        left = {SOURCE: len(self._sources), CODEC: len(self._codecs)}
        self._known = {key: number for key, number in self._known.items() if number < left[key[0]]}
        self._units = {key: number for key, number in self._units.items() if number < count}
        self._measured = dict(self._qualities)

    def _next_id(self, kind: bytes) -> str:
        return chunk_id(kind, len(self._entries))

    def _unit_number(self, chunk: str) -> int:
        digits = chunk[1:]
        number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else -1
        if not 0 <= number < len(self._entries) or chunk_id(self._entries[number].kind, number) != chunk:
            raise ArchiveError(Code.NO_SUCH, f"no unit {chunk!r} was written", archive=str(self.path))
        if self._entries[number].kind != UNIT:
            raise ArchiveError(Code.NO_SUCH, f"chunk {chunk!r} is no unit", archive=str(self.path))
        return number

    def _require_open(self) -> None:
        if not self._open:
            raise ArchiveError(Code.MISUSE, "this writer was committed or aborted", archive=str(self.path))
