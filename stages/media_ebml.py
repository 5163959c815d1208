"""EBML, the notation of Matroska (RFC 8794): as much as it takes to write a header and to mend one."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from zlib import crc32

CRC32, VOID = 0xBF, 0xEC
EBML, SEGMENT = 0x1A45DFA3, 0x18538067


def element(identity: int, *content: bytes) -> bytes:
    """Return an element; its content is bytes, or other elements one after the other."""
    body = b"".join(content)
    return identity.to_bytes((identity.bit_length() + 7) // 8) + _length(len(body)) + body


def unsigned(identity: int, value: int) -> bytes:
    """Return an element that holds an integer from 0 to 2^64 - 1."""
    return element(identity, value.to_bytes(max(1, (value.bit_length() + 7) // 8)))


def decimal(identity: int, value: float) -> bytes:
    """Return an element that holds a number in double precision."""
    return element(identity, struct.pack(">d", value))


def text(identity: int, value: str) -> bytes:
    """Return an element that holds UTF-8."""
    return element(identity, value.encode())


def elements(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (identity, start of the content, its end) of each element in `data`; ValueError if one is cut off."""
    at = 0
    while at < len(data):
        id_bytes = _leading(data, at)
        size_at = at + id_bytes
        size_bytes = _leading(data, size_at)
        start = size_at + size_bytes
        size = int.from_bytes(data[size_at:start]) - (1 << 7 * size_bytes)
        if start + size > len(data):
            raise ValueError(f"an element at byte {at} ends {start + size - len(data)} bytes behind its parent")
        yield int.from_bytes(data[at:size_at]), start, start + size
        at = start + size


def padding(size: int) -> bytes:
    """Return an element of exactly `size` bytes that means nothing: none, or at least 2 bytes."""
    if size == 0:
        return b""
    if size < 2:
        raise ValueError("no element has 1 byte")
    short = size - 2 < 0x7F
    return bytes((VOID, 0x80 | (size - 2))) + bytes(size - 2) if short else bytes((VOID,)) + _wide(size - 9)


def checked(content: bytes) -> bytes:
    """Return an element's content with its checksum put before it."""
    return element(CRC32, crc32(content).to_bytes(4, "little")) + content


def _leading(data: bytes, at: int) -> int:
    """How long a number at `at` is: told by the zero bits that it begins with."""
    if at >= len(data) or not data[at]:
        raise ValueError(f"no element begins at byte {at}")
    return 9 - data[at].bit_length()


def _length(size: int) -> bytes:
    width = next(n for n in range(1, 9) if size < (1 << 7 * n) - 1)
    return (size | 1 << 7 * width).to_bytes(width)


def _wide(size: int) -> bytes:
    return (size | 1 << 56).to_bytes(8) + bytes(size)
