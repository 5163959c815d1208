"""Deflated payloads (zlib, RFC 1950), inflated within a bound that the stream cannot move."""

from __future__ import annotations

import zlib

from framefold.pipeline.archive.errors import ArchiveError, Code


def deflate(data: bytes) -> bytes:
    """Return one zlib stream."""
    return zlib.compress(data, 9)


def inflate(data: bytes, limit: int) -> bytes:
    """Return what one whole zlib stream holds, `limit` bytes at most; F033 if it is not just that."""
    stream = zlib.decompressobj()
    try:
        # One byte more than is wanted, so that a longer stream shows itself without being inflated.
        inflated = stream.decompress(data, limit + 1)
    except zlib.error as error:
        raise ArchiveError(Code.INFLATE, f"a zlib stream of {len(data)} bytes is damaged: {error}") from error
    if len(inflated) > limit:
        raise ArchiveError(Code.INFLATE, f"a zlib stream holds more than the {limit} bytes allowed")
    if not stream.eof or stream.unused_data:
        raise ArchiveError(Code.INFLATE, f"a zlib stream of {len(data)} bytes does not end where its payload does")
    return inflated


def inflate_exactly(data: bytes, length: int) -> bytes:
    """Return what one whole zlib stream holds, exactly `length` bytes."""
    inflated = inflate(data, length)
    if len(inflated) != length:
        raise ArchiveError(Code.INFLATE, f"a zlib stream holds {len(inflated)} bytes where {length} are due")
    return inflated
