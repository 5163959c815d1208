"""One chunk, out of a file and through every check; nothing reaches a caller unverified."""

from __future__ import annotations

import hashlib
from zlib import crc32

from framefold.pipeline.archive.errors import ArchiveError, Code, located
from framefold.pipeline.archive.files import Readable
from framefold.pipeline.archive.index import Index
from framefold.pipeline.archive.records import (
    HEADER_BYTES,
    INDEX,
    KNOWN,
    ChunkHeader,
    FileHeader,
    Footer,
    IndexEntry,
    chunk_id,
    padding,
)


def pack_chunk(header: ChunkHeader, payload: bytes) -> bytes:
    """Put header, payload and padding together."""
    return b"".join((header.pack(), payload, bytes(padding(len(payload)))))


def check_payload(header: ChunkHeader, raw: bytes) -> memoryview:
    """Return the payload of `raw` (header, payload, padding), if its CRC-32 and padding are right."""
    end = HEADER_BYTES + header.payload_bytes
    payload = memoryview(raw)[HEADER_BYTES:end]
    if crc32(payload) != header.payload_crc:
        raise ArchiveError(Code.PAYLOAD, f"the payload of {len(payload)} bytes does not match its CRC-32")
    if any(raw[end:]):
        raise ArchiveError(Code.PADDING, f"padding is {raw[end:].hex(' ')}; only zeros are allowed")
    return payload


def digest(header: ChunkHeader, raw: bytes | bytearray) -> bytes:
    """Return the SHA-256 of the chunk's header and payload."""
    return hashlib.sha256(memoryview(raw)[: HEADER_BYTES + header.payload_bytes]).digest()


def header_of(entry: IndexEntry, number: int, shard_tag: int, payload: bytes) -> ChunkHeader:
    """Return the header that a chunk of layout 1 with this entry and payload has."""
    return ChunkHeader(
        kind=entry.kind,
        number=number,
        stream=entry.stream,
        shard_tag=shard_tag,
        payload_bytes=len(payload),
        t0=entry.t0,
        duration=entry.duration,
        items=entry.items,
        payload_crc=crc32(payload),
    )


def read_chunk(file: Readable, entry: IndexEntry, number: int, shard_tag: int) -> memoryview:
    """Return the payload of chunk `number`, where and what the index says it is."""
    with located(archive=file.path, chunk=chunk_id(entry.kind, number), offset=entry.offset):
        raw = file.read(entry.offset, entry.disk_bytes)
        header = ChunkHeader.unpack(raw[:HEADER_BYTES])
        _check_agrees(header, entry, number, shard_tag)
        if header.kind in KNOWN and header.version != 1:
            raise ArchiveError(Code.UNSUPPORTED, f"payload layout {header.version} is unknown; 1 is known")
        payload = check_payload(header, raw)
        if digest(header, raw) != entry.sha256:
            raise ArchiveError(Code.DIGEST, "the chunk's SHA-256 is not the one in the index")
        return payload


def _check_agrees(header: ChunkHeader, entry: IndexEntry, number: int, shard_tag: int) -> None:
    if (header.number, header.shard_tag) != (number, shard_tag):
        got = f"chunk {header.number} of shard {header.shard_tag:08x}"
        raise ArchiveError(Code.DISAGREES, f"{got} stands where chunk {number} of shard {shard_tag:08x} belongs")
    for name in ("kind", "payload_bytes", "stream", "t0", "duration", "items"):
        here, there = getattr(header, name), getattr(entry, name)
        if here != there:
            raise ArchiveError(Code.DISAGREES, f"{name} is {here} in the chunk and {there} in the index")


def _check_plain(header: ChunkHeader) -> None:
    """The index's own header has layout 1, and 0 where others have something to say."""
    if header.version != 1:
        raise ArchiveError(Code.UNSUPPORTED, f"index layout {header.version} is unknown; 1 is known")
    for name in ("stream", "t0", "duration", "items"):
        if getattr(header, name):
            raise ArchiveError(Code.LAYOUT, f"{name} of the index is {getattr(header, name)}; 0 is needed")


def read_file_header(file: Readable) -> FileHeader:
    """Return the checked header of the file."""
    with located(archive=file.path, offset=0):
        return FileHeader.unpack(file.read(0, min(HEADER_BYTES, file.size)).ljust(HEADER_BYTES, b"\0"))


def read_footer(file: Readable) -> Footer:
    """Return the checked footer; the index that it points to ends exactly where the footer begins."""
    at = file.size - HEADER_BYTES
    with located(archive=file.path, offset=max(at, 0)):
        if at < HEADER_BYTES:
            raise ArchiveError(Code.FOOTER, f"a file of {file.size} bytes is too short to be finished")
        footer = Footer.unpack(file.read(at, HEADER_BYTES))
        if footer.index_offset + HEADER_BYTES + footer.index_bytes != at:  # 80 n needs no padding
            where = f"{footer.index_bytes} bytes at {footer.index_offset}"
            raise ArchiveError(Code.LAYOUT, f"an index of {where} does not end at the footer, {at}")
        return footer


def read_index(file: Readable, footer: Footer | None = None) -> tuple[Index, int]:
    """Return the checked index that the footer points to, and its chunk's shard tag."""
    footer = footer or read_footer(file)
    with located(archive=file.path, chunk=chunk_id(INDEX, footer.entries), offset=footer.index_offset):
        raw = file.read(footer.index_offset, HEADER_BYTES + footer.index_bytes)
        try:
            header = ChunkHeader.unpack(raw[:HEADER_BYTES])
            if digest(header, raw) != footer.index_sha256:
                raise ArchiveError(Code.INDEX, "SHA-256 is not the one in the footer")
            payload = check_payload(header, raw)
        except ArchiveError as error:
            raise ArchiveError(Code.INDEX, f"the index is damaged: {error.message}") from error
        if (header.kind, header.number) != (INDEX, footer.entries):
            raise ArchiveError(Code.LAYOUT, f"chunk {header.id} stands where the index belongs")
        _check_plain(header)
        index = Index(bytes(payload))
        index.check_layout(footer.index_offset)
        return index, header.shard_tag
