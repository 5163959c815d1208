"""The fixed records, one dataclass each: file header, chunk header, index entry, footer.

Little-endian throughout; sizes and offsets in bytes, times in ticks of the source's own time base.
`unpack` refuses a record whose checksum, magic or ranges are wrong with an `ArchiveError`.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self
from zlib import crc32

from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.limits import MAX_CHUNKS, MAX_PAYLOAD, MAX_TICK

FILE_MAGIC = b"\x89FLD\r\n\x1a\n"
SYNC = b"\xf1FLC\r\n\x1a\n"
END_MAGIC = b"FLCE"
HEADER_BYTES = 64
"""Of a file header, a chunk header and a footer alike."""
ENTRY_BYTES = 80

SOURCE, CODEC, UNIT, QUALITY, MANIFEST, INDEX = b"Srce", b"Cdec", b"Unit", b"qual", b"Mani", b"Indx"
KNOWN = frozenset((SOURCE, CODEC, UNIT, QUALITY, MANIFEST, INDEX))

_U16, _U32, _I63 = 2**16 - 1, 2**32 - 1, 2**63 - 1
_TICKS = (-MAX_TICK, MAX_TICK)
_SPAN = (0, 4 * MAX_TICK)


def padding(length: int) -> int:
    """Zero bytes (0..7) that bring `length` to a multiple of 8."""
    return -length % 8


def is_critical(kind: bytes) -> bool:
    """A reader that does not know a critical chunk must not decode the archive."""
    return kind[:1].isupper()


def chunk_id(kind: bytes, number: int) -> str:
    """Name of chunk `number` of a file: `u000003` is the fourth chunk, and a unit."""
    return f"{kind[:1].decode('ascii').lower()}{number:06d}"


def _in_range(record: object, ranges: Mapping[str, tuple[int, int]]) -> None:
    for name, (low, high) in ranges.items():
        value = getattr(record, name)
        if not low <= value <= high:
            raise ArchiveError(
                Code.LIMIT, f"{type(record).__name__}.{name} is {value}; allowed are {low} to {high}"
            )


def _is_kind(kind: bytes) -> None:
    if len(kind) != 4 or not (kind.isalpha() and kind.isascii()):
        raise ArchiveError(Code.RECORD, f"chunk type is {kind!r}; four ASCII letters are allowed")


@dataclass(frozen=True, kw_only=True)
class FileHeader:
    """The first 64 bytes of a file."""

    archive_id: bytes
    """16 bytes, the same in all shards of an archive."""
    shard_id: bytes
    """16 bytes, different in every file; its CRC-32 marks this file's chunks."""
    major: int = 1
    minor: int = 0
    incompatible: int = 0
    """Bits a reader must know; none is defined."""
    compatible: int = 0
    """Bits a reader may ignore; none is defined."""

    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<8sHHI16s16sIIII")

    def __post_init__(self) -> None:
        bits = {"major": (1, _U16), "minor": (0, _U16), "incompatible": (0, _U32), "compatible": (0, _U32)}
        _in_range(self, bits)
        for name, value in (("archive_id", self.archive_id), ("shard_id", self.shard_id)):
            if len(value) != 16:
                raise ArchiveError(Code.RECORD, f"{name} has {len(value)} bytes; 16 are needed")

    @classmethod
    def first_of(cls, archive_id: bytes) -> Self:
        """The header of an archive's first file: the shard id follows from the archive id."""
        return cls(archive_id=archive_id, shard_id=hashlib.sha256(archive_id + b"shard 0").digest()[:16])

    @property
    def shard_tag(self) -> int:
        """What every chunk of this file carries, so that an archive inside a payload is not taken for ours."""
        return crc32(self.shard_id)

    def pack(self) -> bytes:
        """64 bytes."""
        ids = (self.archive_id, self.shard_id)
        flags = (self.incompatible, self.compatible)
        body = self._LAYOUT.pack(FILE_MAGIC, self.major, self.minor, HEADER_BYTES, *ids, *flags, 0, 0)[:-4]
        return body + crc32(body).to_bytes(4, "little")

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """From 64 bytes."""
        if data[:8] != FILE_MAGIC:
            raise ArchiveError(Code.NOT_AN_ARCHIVE, f"it begins with {data[:8].hex(' ')}")
        _, major, minor, length, archive_id, shard_id, incompatible, compatible, zero, crc = (
            cls._LAYOUT.unpack(data)
        )
        if crc32(data[:60]) != crc:
            raise ArchiveError(Code.FILE_HEADER, "the file header's CRC-32 is wrong")
        if major != 1 or length != HEADER_BYTES or incompatible or zero:
            known = "version 1 without feature bits is known"
            got = f"version {major}.{minor}, header of {length} bytes, feature bits {incompatible:#x}"
            raise ArchiveError(Code.UNSUPPORTED, f"{got}; {known}")
        return cls(
            archive_id=archive_id,
            shard_id=shard_id,
            major=major,
            minor=minor,
            incompatible=incompatible,
            compatible=compatible,
        )


@dataclass(frozen=True, kw_only=True)
class ChunkHeader:
    """The 64 bytes before every payload."""

    kind: bytes
    """Four letters; upper-case first letter = critical."""
    number: int
    """0, 1, 2, … in file order, all types counted: a chunk that is lost can still be named."""
    shard_tag: int
    payload_bytes: int
    payload_crc: int
    stream: int = 0
    """Number of the source (or, for `Cdec`, of the codec) that the chunk belongs to."""
    t0: int = 0
    duration: int = 0
    items: int = 0
    """Frames of a unit."""
    version: int = 1
    """Of the payload's layout."""
    flags: int = 0

    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<8s4sHHIIIIqqIIII")
    _RANGES: ClassVar[Mapping[str, tuple[int, int]]] = {
        "number": (0, MAX_CHUNKS),
        "payload_bytes": (0, MAX_PAYLOAD),
        "stream": (0, MAX_CHUNKS),
        "t0": _TICKS,
        "duration": _SPAN,
        "items": (0, _U32),
        "version": (1, _U16),
        "flags": (0, _U16),
    }

    def __post_init__(self) -> None:
        _is_kind(self.kind)
        _in_range(self, self._RANGES)

    @property
    def id(self) -> str:
        """Name of the chunk."""
        return chunk_id(self.kind, self.number)

    @property
    def disk_bytes(self) -> int:
        """Header, payload and padding."""
        return HEADER_BYTES + self.payload_bytes + padding(self.payload_bytes)

    def pack(self) -> bytes:
        """64 bytes."""
        start = (SYNC, self.kind, self.version, self.flags, self.stream, self.shard_tag)
        place = (self.payload_bytes, self.number, self.t0, self.duration, self.items)
        body = self._LAYOUT.pack(*start, *place, self.payload_bytes, self.payload_crc, 0)[:-4]
        return body + crc32(body).to_bytes(4, "little")

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """From 64 bytes."""
        (
            sync,
            kind,
            version,
            flags,
            stream,
            tag,
            length,
            number,
            t0,
            duration,
            items,
            raw,
            payload_crc,
            crc,
        ) = cls._LAYOUT.unpack(data)
        if sync != SYNC or crc32(data[:60]) != crc:
            raise ArchiveError(Code.CHUNK_HEADER, "the chunk header is damaged (sync mark or CRC-32)")
        if flags or raw != length:
            raise ArchiveError(
                Code.UNSUPPORTED, f"payload flags {flags:#x} (compressed, encrypted) are unknown"
            )
        return cls(
            kind=kind,
            number=number,
            shard_tag=tag,
            payload_bytes=length,
            payload_crc=payload_crc,
            stream=stream,
            t0=t0,
            duration=duration,
            items=items,
            version=version,
            flags=flags,
        )


@dataclass(frozen=True, kw_only=True)
class IndexEntry:
    """80 bytes of the index: where a chunk is, what it is, and its SHA-256."""

    offset: int
    kind: bytes
    payload_bytes: int
    sha256: bytes
    """Of the chunk's header and payload, without padding: 32 bytes."""
    stream: int = 0
    t0: int = 0
    duration: int = 0
    items: int = 0
    first_item: int = 0
    """Unit: number of its first frame in the source. qual: number of the unit chunk that it speaks of."""
    codec: int = 0
    """Unit: number of its codec."""

    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<QIIqqI4sII32s")
    _RANGES: ClassVar[Mapping[str, tuple[int, int]]] = {
        "offset": (HEADER_BYTES, _I63),
        "payload_bytes": (0, MAX_PAYLOAD),
        "stream": (0, MAX_CHUNKS),
        "t0": _TICKS,
        "duration": _SPAN,
        "items": (0, _U32),
        "first_item": (0, _U32),
        "codec": (0, MAX_CHUNKS),
    }

    def __post_init__(self) -> None:
        _is_kind(self.kind)
        _in_range(self, self._RANGES)

    @property
    def disk_bytes(self) -> int:
        """Header, payload and padding."""
        return HEADER_BYTES + self.payload_bytes + padding(self.payload_bytes)

    def pack(self) -> bytes:
        """80 bytes."""
        size = (self.offset, self.payload_bytes, self.stream)
        times = (self.t0, self.duration, self.items)
        return self._LAYOUT.pack(*size, *times, self.kind, self.first_item, self.codec, self.sha256)

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """From 80 bytes."""
        offset, length, stream, t0, duration, items, kind, first_item, codec, sha256 = cls._LAYOUT.unpack(
            data
        )
        return cls(
            offset=offset,
            kind=kind,
            payload_bytes=length,
            sha256=sha256,
            stream=stream,
            t0=t0,
            duration=duration,
            items=items,
            first_item=first_item,
            codec=codec,
        )


@dataclass(frozen=True, kw_only=True)
class Footer:
    """The last 64 bytes of a file; only a finished file has one."""

    index_offset: int
    """Where the index chunk's header begins."""
    index_bytes: int
    """Payload of the index chunk: 80 per entry."""
    entries: int
    index_sha256: bytes
    """Of the index chunk's header and payload: 32 bytes."""

    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<QQQ32sI4s")

    def __post_init__(self) -> None:
        _in_range(self, {"entries": (1, MAX_CHUNKS), "index_offset": (HEADER_BYTES, _I63)})
        if self.index_bytes != self.entries * ENTRY_BYTES:
            want = f"{self.entries} entries of {ENTRY_BYTES} bytes"
            raise ArchiveError(Code.LAYOUT, f"the footer says {want} in an index of {self.index_bytes} bytes")

    def pack(self) -> bytes:
        """64 bytes."""
        body = self._LAYOUT.pack(
            self.index_offset, self.index_bytes, self.entries, self.index_sha256, 0, END_MAGIC
        )[:56]
        return body + crc32(body).to_bytes(4, "little") + END_MAGIC

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """From 64 bytes."""
        offset, length, entries, sha256, crc, magic = cls._LAYOUT.unpack(data)
        if magic != END_MAGIC or crc32(data[:56]) != crc:
            raise ArchiveError(Code.FOOTER, "the footer is missing or damaged (end mark or CRC-32)")
        return cls(index_offset=offset, index_bytes=length, entries=entries, index_sha256=sha256)
