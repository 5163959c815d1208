"""Walking over bytes that may be damaged, and numbers of as many bytes as they need (LEB128)."""

from __future__ import annotations

from framefold.codecs.stream.varbits import BitstreamError


def pack_varint(value: int) -> bytes:
    """LEB128 of a number >= 0: seven bits a byte, lowest first, the top bit says that more follow."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


class Cursor:
    """Walks over bytes; BitstreamError where they end too early."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def take(self, count: int, what: str) -> bytes:
        """Read the next `count` bytes."""
        part = self._data[self._position : self._position + count]
        if len(part) != count:
            raise BitstreamError(f"the stream ends within its {what}: {len(part)} of {count} bytes are there")
        self._position += count
        return part

    def byte(self, what: str) -> int:
        """Read the next byte."""
        return self.take(1, what)[0]

    def varint(self, what: str) -> int:
        """Read the next LEB128 number, at most five bytes."""
        value = 0
        for shift in range(0, 35, 7):
            byte = self.byte(what)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise BitstreamError(f"the stream's {what} is a number of more than five bytes")

    def rest(self) -> bytes:
        """Read all bytes that are left."""
        return self.take(len(self._data) - self._position, "rest")
