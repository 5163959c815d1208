"""Find the chunks of a damaged file without its index: by their headers, after damage by their sync marks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from framefold.pipeline.archive.chunks import check_payload, digest
from framefold.pipeline.archive.errors import ArchiveError, Code, located
from framefold.pipeline.archive.files import Readable
from framefold.pipeline.archive.records import HEADER_BYTES, INDEX, SYNC, ChunkHeader

_WINDOW = 2**20
_EFFORT = 4
"""Payload bytes that a scan checks at most, in lengths of the file: some are made to be scanned for ever."""


@dataclass(frozen=True)
class Found:
    """A chunk whose header is whole."""

    offset: int
    header: ChunkHeader
    index: bytes
    """The payload if it is a whole index, else empty: a scan must not hold the archive in memory."""
    sha256: bytes
    error: ArchiveError | None
    """What is wrong with the payload, if anything is."""


@dataclass(frozen=True)
class Gap:
    """Bytes in which no chunk header was found."""

    offset: int
    length: int


def scan(file: Readable, *, end: int, shard_tag: int | None = None) -> Iterator[Found | Gap]:
    """All chunks and gaps from byte 64 to `end`, in file order; the index is the last chunk looked at.

    Without `shard_tag` (file header and index are both lost) the commonest tag in the file is taken.
    """
    tag = _commonest_tag(file, end) if shard_tag is None else shard_tag
    at, effort = HEADER_BYTES, 0
    while at < end:
        header = _header_at(file, at, end, tag)
        if header is None:
            following = _next_header(file, at + 1, end, tag)
            yield Gap(at, following - at)
            at = following
            continue
        effort += header.payload_bytes
        if effort > _EFFORT * file.size:
            raise ArchiveError(Code.LIMIT, "chunks overlap over and over; the scan was given up", offset=at)
        found = _check(file, at, header)
        yield found
        if found.error is None and header.kind == INDEX:
            return
        at = _after(file, found, end, tag)


def _after(file: Readable, found: Found, end: int, tag: int) -> int:
    """Where to go on: behind the chunk, or inside if it is damaged and no header stands behind it."""
    after = found.offset + found.header.disk_bytes
    if found.error is None or after == end or _header_at(file, after, end, tag):
        return after
    inside = _next_header(file, found.offset + HEADER_BYTES, end, tag)
    return inside if inside < after else min(after, end)


def _check(file: Readable, at: int, header: ChunkHeader) -> Found:
    try:
        with located(archive=file.path, chunk=header.id, offset=at):
            raw = file.read(at, header.disk_bytes)
            payload = check_payload(header, raw)
    except ArchiveError as error:
        return Found(at, header, b"", b"", error)
    return Found(at, header, bytes(payload) if header.kind == INDEX else b"", digest(header, raw), None)


def _header_at(file: Readable, at: int, end: int, tag: int | None) -> ChunkHeader | None:
    if at + HEADER_BYTES > end:
        return None
    try:
        header = ChunkHeader.unpack(file.read(at, HEADER_BYTES))
    except ArchiveError:
        return None
    return header if tag is None or header.shard_tag == tag else None


def _next_header(file: Readable, start: int, end: int, tag: int) -> int:
    """Offset of the next whole header of this file, or `end`."""
    return next((at for at in _marks(file, start, end) if _header_at(file, at, end, tag)), end)


def _marks(file: Readable, start: int, end: int) -> Iterator[int]:
    """Offsets of all sync marks in [start, end)."""
    while start < end:
        length = min(_WINDOW, end - start)
        window = file.read(start, length)
        at = window.find(SYNC)
        while at >= 0:
            yield start + at
            at = window.find(SYNC, at + 1)
        start += max(length - len(SYNC) + 1, 1)  # a mark may lie across two windows


def _commonest_tag(file: Readable, end: int) -> int:
    headers = (_header_at(file, at, end, None) for at in _marks(file, HEADER_BYTES, end))
    tags = Counter(header.shard_tag for header in headers if header)
    return tags.most_common(1)[0][0] if tags else 0
