"""Write chunks as they were found: their payloads stay the same bytes, only numbers change where others are lost."""

from __future__ import annotations

from zlib import crc32

from framefold.pipeline.archive.chunks import digest, pack_chunk
from framefold.pipeline.archive.contents import CodecEntry, SourceEntry
from framefold.pipeline.archive.documents import unpack_document
from framefold.pipeline.archive.records import CODEC, SOURCE, UNIT, ChunkHeader, IndexEntry
from framefold.pipeline.archive.shard_writer import ShardWriter


class Rebuilder(ShardWriter):
    """A shard writer that takes whole payloads. They have been checked by the caller."""

    def put_source(self, payload: bytes) -> int:
        """Write a `Srce` chunk; the source's number."""
        number = self.source_count
        entry = SourceEntry.of(number, self._next_id(SOURCE), unpack_document(payload))
        self._documents[self._append(SOURCE, payload, stream=number)] = payload
        self._sources.append(entry)
        return number

    def put_codec(self, payload: bytes) -> int:
        """Write a `Cdec` chunk; the codec's number."""
        number = len(self._codecs)
        entry = CodecEntry.of(number, self._next_id(CODEC), unpack_document(payload))
        self._documents[self._append(CODEC, payload, stream=number)] = payload
        self._codecs.append(entry)
        return number

    def needs_of(self, codec: int) -> tuple[str, ...]:
        """SHA-256 of the attachments that units of this codec need."""
        return self._codecs[codec].needs

    def put_unit(self, payload: bytes, key: str, **fields: int) -> int:
        """Write a `Unit` chunk; its number in the file."""
        self._units[key] = self._append(UNIT, payload, **fields)
        return self._units[key]

    def put_table(self, payload: bytes, pack: bytes, sources: list[SourceEntry], units: int) -> int:
        """Write a `Tabl` chunk and its `Pack`; the number of the latter in the file."""
        self._append(b"Tabl", payload, stream=self.source_count, items=len(sources))
        self._sources += sources
        return self._append(b"Pack", pack, items=units)

    def put(self, kind: bytes, payload: bytes, **fields: int) -> int:
        """Write a chunk of another type; its number in the file."""
        return self._append(kind, payload, **fields)

    def put_unknown(self, found: ChunkHeader, payload: bytes, about: IndexEntry | None) -> int:
        """Write an ancillary chunk of a type that is not known, with all that its header says but its number."""
        header = ChunkHeader(
            kind=found.kind,
            version=found.version,
            stream=found.stream,
            shard_tag=self._tag,
            payload_bytes=len(payload),
            number=len(self._entries),
            t0=found.t0,
            duration=found.duration,
            items=found.items,
            payload_crc=crc32(payload),
        )
        raw = pack_chunk(header, payload)
        entry = IndexEntry(
            offset=self._end,
            payload_bytes=len(payload),
            stream=found.stream,
            t0=found.t0,
            duration=found.duration,
            items=found.items,
            kind=found.kind,
            first_item=about.first_item if about else 0,
            codec=about.codec if about else 0,
            sha256=digest(header, raw),
        )
        self._output.write(raw, entry.offset)
        self._entries.append(entry)
        return header.number

    @property
    def source_count(self) -> int:
        """Sources so far, those of tables too."""
        return len(self._sources)
