"""Numbers of a few bits each: the side information of a stream, most significant bit first.

Exp-Golomb codes of order k (Teuhola 1978; the `ue(v)` of H.264 is order 0) write v + 2**k in binary, after
as many zeros as that number has bits beyond k + 1: small numbers are short and none is too large. Signed
numbers are folded first: 0, -1, 1, -2, 2, ... become 0, 1, 2, 3, 4, ...
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

MAX_NUMBER = 2**32
"""No field of a stream is larger; a reader refuses such a code before it builds the number."""


_SHORT = 8
"""Numbers of so many bits are remembered as text."""


class BitstreamError(ValueError):
    """The bytes are not a stream that this version of the format can contain."""


def fold(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Signed numbers to unsigned: 0, -1, 1, -2, ... become 0, 1, 2, 3, ..."""
    return np.where(values < 0, -2 * values - 1, 2 * values)


def exp_golomb_bits(values: npt.NDArray[np.int64], order: int) -> npt.NDArray[np.int64]:
    """How many bits each unsigned number (below 2**32) takes as an Exp-Golomb code of this order."""
    bit_lengths = np.frexp((values + (1 << order)).astype(np.float64))[1].astype(np.int64)
    return 2 * bit_lengths - 1 - order


def golomb_bits(value: int, order: int) -> int:
    """The same of one unsigned number."""
    return 2 * (value + (1 << order)).bit_length() - 1 - order


def signed_bits(value: int, order: int) -> int:
    """The same of one signed number."""
    return golomb_bits(2 * value if value >= 0 else -2 * value - 1, order)


@lru_cache(maxsize=2**9)
def _short(value: int, width: int) -> str:
    return f"{value:0{width}b}"


@lru_cache(maxsize=2**12)
def _exp_golomb(value: int, order: int) -> str:
    digits = f"{value + (1 << order):b}"
    return "0" * (len(digits) - order - 1) + digits


class BitWriter:
    """Collects bits; `getvalue` pads the last byte with zeros."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    @property
    def bit_count(self) -> int:
        """Bits written so far."""
        return sum(map(len, self._parts))

    def raw(self, data: bytes) -> None:
        """Write whole bytes."""
        self._parts.extend(f"{byte:08b}" for byte in data)

    def unsigned(self, value: int, *, width: int) -> None:
        """Write `value` (0 .. 2**width - 1) in `width` bits."""
        self._parts.append(_short(value, width) if width <= _SHORT else f"{value:0{width}b}")

    def exp_golomb(self, value: int, *, order: int) -> None:
        """Write an unsigned number."""
        self._parts.append(_exp_golomb(value, order))

    def signed(self, value: int, *, order: int) -> None:
        """Write a signed number."""
        self.exp_golomb(2 * value if value >= 0 else -2 * value - 1, order=order)

    def append(self, other: BitWriter) -> None:
        """Write what another writer has collected."""
        self._parts.extend(other._parts)

    def getvalue(self) -> bytes:
        """All bits, zero-padded to whole bytes."""
        bits = "".join(self._parts)
        count = -(-len(bits) // 8)
        return int(bits.ljust(8 * count, "0") or "0", 2).to_bytes(count, "big")


class BitReader:
    """Reads what a `BitWriter` wrote; BitstreamError where the bits end too early or make no sense."""

    def __init__(self, data: bytes) -> None:
        self._bits = f"{int.from_bytes(data, 'big'):0{8 * len(data)}b}" if data else ""
        self._position = 0

    @property
    def bits_left(self) -> int:
        """Bits not yet read, padding included."""
        return len(self._bits) - self._position

    def unsigned(self, *, width: int) -> int:
        """Read a number of `width` bits."""
        if width > self.bits_left:
            raise BitstreamError(f"the model section ends {width - self.bits_left} bits too early")
        start, self._position = self._position, self._position + width
        return int(self._bits[start : self._position], 2) if width else 0

    def raw(self, count: int) -> bytes:
        """Read whole bytes."""
        return self.unsigned(width=8 * count).to_bytes(count, "big")

    def exp_golomb(self, *, order: int) -> int:
        """Read an unsigned number, at most MAX_NUMBER."""
        first_one = self._bits.find("1", self._position)
        zeros = first_one - self._position
        if first_one < 0 or zeros + order > MAX_NUMBER.bit_length():
            raise BitstreamError("the model section holds a number that is cut short or beyond 2**32")
        self._position = first_one
        return self.unsigned(width=zeros + order + 1) - (1 << order)

    def signed(self, *, order: int) -> int:
        """Read a signed number."""
        folded = self.exp_golomb(order=order)
        return -(folded + 1) // 2 if folded & 1 else folded // 2

    def finish(self) -> None:
        """Check that nothing is left but the padding of the last byte."""
        if self.bits_left >= 8 or "1" in self._bits[self._position :]:
            raise BitstreamError(f"{self.bits_left} bits are left over behind the last model")
