"""The fixed records, one dataclass each: file header, chunk header, index entry, footer.

Little-endian throughout; sizes and offsets in bytes, times in ticks of the source's own time base.
`unpack` refuses a record whose checksum, magic or ranges are wrong with an `ArchiveError`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from struct import Struct
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
TABLE, PACK, PACKETS, ATTACHMENT, COPY = b"Tabl", b"Pack", b"pckt", b"atch", b"copy"  # since 1.1
KNOWN = frozenset((SOURCE, CODEC, UNIT, TABLE, PACK, QUALITY, PACKETS, ATTACHMENT, COPY, MANIFEST, INDEX))

Ranges = Mapping[str, tuple[int, int]]
_U16, _U32, _OFFSETS = (0, 2**16 - 1), (0, 2**32 - 1), (HEADER_BYTES, 2**63 - 1)
_COUNT, _PAYLOAD = (0, MAX_CHUNKS), (0, MAX_PAYLOAD)
_TIME, _DURATION = (-MAX_TICK, MAX_TICK), (0, 4 * MAX_TICK)


def padding(length: int) -> int:
    """Count the zero bytes (0..7) that bring `length` to a multiple of 8."""
    return -length % 8


def is_critical(kind: bytes) -> bool:
    """Tell whether a reader that does not know this chunk type must refuse the archive."""
    return kind[:1].isupper()


def chunk_id(kind: bytes, number: int) -> str:
    """Name chunk `number` of a file: `u000003` is its fourth chunk, and a unit."""
    return f"{kind[:1].decode('ascii').lower()}{number:06d}"


def _check_ranges(record: object, ranges: Ranges) -> None:
    for name, (low, high) in ranges.items():
        value = getattr(record, name)
        if not low <= value <= high:
            place = f"{type(record).__name__}.{name}"
            raise ArchiveError(Code.LIMIT, f"{place} is {value}; allowed are {low} to {high}")


def _check_kind(kind: bytes) -> None:
    if len(kind) != 4 or not (kind.isalpha() and kind.isascii()):
        raise ArchiveError(Code.RECORD, f"chunk type is {kind!r}; four ASCII letters are allowed")


def _with_crc(body: bytes) -> bytes:
    return body + crc32(body).to_bytes(4, "little")


@dataclass(frozen=True, kw_only=True)
class FileHeader:
    """The first 64 bytes of a file."""

    major: int = 1
    minor: int = 1
    archive_id: bytes
    """16 bytes, the same in all shards of an archive."""
    shard_id: bytes
    """16 bytes, different in every file; its CRC-32 marks this file's chunks."""
    incompatible: int = 0
    """Feature bits a reader must know; none is defined."""
    compatible: int = 0
    """Feature bits a reader may ignore; none is defined."""

    _LAYOUT: ClassVar = Struct("<8sHHI16s16sIII")
    _RANGES: ClassVar[Ranges] = {"major": _U16, "minor": _U16, "incompatible": _U32, "compatible": _U32}

    def __post_init__(self) -> None:
        _check_ranges(self, self._RANGES)
        for name, value in (("archive_id", self.archive_id), ("shard_id", self.shard_id)):
            if len(value) != 16:
                raise ArchiveError(Code.RECORD, f"{name} has {len(value)} bytes; 16 are needed")

    @classmethod
    def first_of(cls, archive_id: bytes) -> Self:
        """Make the header of an archive's first file: its shard id follows from the archive id."""
        return cls(archive_id=archive_id, shard_id=hashlib.sha256(archive_id + b"shard 0").digest()[:16])

    @property
    def shard_tag(self) -> int:
        """What every chunk of this file carries: an archive inside a payload is not taken for ours."""
        return crc32(self.shard_id)

    def pack(self) -> bytes:
        """Return 64 bytes."""
        ids, flags = (self.archive_id, self.shard_id), (self.incompatible, self.compatible)
        body = self._LAYOUT.pack(FILE_MAGIC, self.major, self.minor, HEADER_BYTES, *ids, *flags, 0)
        return _with_crc(body)

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Read 64 bytes."""
        if data[:8] != FILE_MAGIC:
            raise ArchiveError(Code.NOT_AN_ARCHIVE, f"it begins with {data[:8].hex(' ')}")
        if _with_crc(data[:60]) != data:
            raise ArchiveError(Code.FILE_HEADER, "the file header's CRC-32 is wrong")
        _, major, minor, length, archive_id, shard_id, must, may, zero = cls._LAYOUT.unpack(data[:60])
        if major != 1 or length != HEADER_BYTES or must or zero:
            got = f"version {major}.{minor}, a header of {length} bytes, feature bits {must:#x}, {zero:#x}"
            raise ArchiveError(Code.UNSUPPORTED, f"{got}; version 1 without feature bits is known")
        return cls(minor=minor, archive_id=archive_id, shard_id=shard_id, compatible=may)


@dataclass(frozen=True, kw_only=True)
class ChunkHeader:
    """The 64 bytes before every payload."""

    kind: bytes
    """Four letters; upper-case first letter = critical."""
    version: int = 1
    """Of the payload's layout."""
    stream: int = 0
    """Number of the source (for `Cdec` of the codec, for `Tabl` of the first source) that the chunk belongs to."""
    shard_tag: int
    payload_bytes: int
    number: int
    """0, 1, 2, … in file order, all types counted: a chunk that is lost can still be named."""
    t0: int = 0
    duration: int = 0
    items: int = 0
    """Frames of a unit, sources of a table, units of a pack, packets."""
    payload_crc: int

    _LAYOUT: ClassVar = Struct("<8s4sHHIIIIqqIII")
    _RANGES: ClassVar[Ranges] = {
        "version": _U16,
        "stream": _COUNT,
        "shard_tag": _U32,
        "payload_bytes": _PAYLOAD,
        "number": _COUNT,
        "t0": _TIME,
        "duration": _DURATION,
        "items": _U32,
    }

    def __post_init__(self) -> None:
        _check_kind(self.kind)
        _check_ranges(self, self._RANGES)

    @property
    def id(self) -> str:
        """Name of the chunk."""
        return chunk_id(self.kind, self.number)

    @property
    def disk_bytes(self) -> int:
        """Header, payload and padding."""
        return HEADER_BYTES + self.payload_bytes + padding(self.payload_bytes)

    def pack(self) -> bytes:
        """Return 64 bytes."""
        start = (SYNC, self.kind, self.version, 0, self.stream, self.shard_tag)
        place = (self.payload_bytes, self.number, self.t0, self.duration, self.items)
        return _with_crc(self._LAYOUT.pack(*start, *place, self.payload_bytes, self.payload_crc))

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Read 64 bytes."""
        if data[:8] != SYNC or _with_crc(data[:60]) != data:
            raise ArchiveError(Code.CHUNK_HEADER, "the chunk header is damaged (sync mark or CRC-32)")
        _, kind, version, flags, stream, tag, length, number, t0, duration, items, raw, crc = cls._LAYOUT.unpack(
            data[:60]
        )
        if flags or raw != length:
            got = f"flags {flags:#x}, {length} bytes that become {raw}"
            raise ArchiveError(Code.UNSUPPORTED, f"a payload with {got}; plain payloads are known")
        return cls(
            kind=kind,
            version=version,
            stream=stream,
            shard_tag=tag,
            payload_bytes=length,
            number=number,
            t0=t0,
            duration=duration,
            items=items,
            payload_crc=crc,
        )


@dataclass(frozen=True, kw_only=True)
class IndexEntry:
    """80 bytes of the index: where a chunk is, what it is, and its SHA-256."""

    offset: int
    payload_bytes: int
    stream: int = 0
    t0: int = 0
    duration: int = 0
    items: int = 0
    kind: bytes
    first_item: int = 0
    """Unit: number of its first frame in the source. qual: of the unit chunk that it speaks of. pckt: of its track."""
    codec: int = 0
    """Unit: number of its codec."""
    sha256: bytes
    """Of the chunk's header and payload, without padding: 32 bytes."""

    _LAYOUT: ClassVar = Struct("<QIIqqI4sII32s")
    RANGES: ClassVar[Ranges] = {
        "offset": _OFFSETS,
        "payload_bytes": _PAYLOAD,
        "stream": _COUNT,
        "t0": _TIME,
        "duration": _DURATION,
        "items": _U32,
        "first_item": _U32,
        "codec": _COUNT,
    }

    def __post_init__(self) -> None:
        _check_kind(self.kind)
        _check_ranges(self, self.RANGES)

    @property
    def disk_bytes(self) -> int:
        """Header, payload and padding."""
        return HEADER_BYTES + self.payload_bytes + padding(self.payload_bytes)

    def pack(self) -> bytes:
        """Return 80 bytes."""
        place, times = (self.offset, self.payload_bytes, self.stream), (self.t0, self.duration, self.items)
        return self._LAYOUT.pack(*place, *times, self.kind, self.first_item, self.codec, self.sha256)

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Read 80 bytes; their checksum is the index chunk's."""
        offset, length, stream, t0, duration, items, kind, first, codec, sha256 = cls._LAYOUT.unpack(data)
        return cls(
            offset=offset,
            payload_bytes=length,
            stream=stream,
            t0=t0,
            duration=duration,
            items=items,
            kind=kind,
            first_item=first,
            codec=codec,
            sha256=sha256,
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

    _LAYOUT: ClassVar = Struct("<QQQ32s")
    _RANGES: ClassVar[Ranges] = {"index_offset": _OFFSETS, "entries": (1, MAX_CHUNKS)}

    def __post_init__(self) -> None:
        _check_ranges(self, self._RANGES)
        if self.index_bytes != self.entries * ENTRY_BYTES:
            want = f"{self.entries} entries of {ENTRY_BYTES} bytes"
            raise ArchiveError(Code.LAYOUT, f"the footer says {want} in an index of {self.index_bytes} bytes")

    def pack(self) -> bytes:
        """Return 64 bytes."""
        place = (self.index_offset, self.index_bytes, self.entries)
        return _with_crc(self._LAYOUT.pack(*place, self.index_sha256)) + END_MAGIC

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Read 64 bytes."""
        if _with_crc(data[:56]) + END_MAGIC != data:
            raise ArchiveError(Code.FOOTER, "the footer is missing or damaged (end mark or CRC-32)")
        offset, length, entries, sha256 = cls._LAYOUT.unpack(data[:56])
        return cls(index_offset=offset, index_bytes=length, entries=entries, index_sha256=sha256)
