"""The field GF(256) with the polynomial 0x11D: bytes that can be added, multiplied and divided.

Addition is xor. Products of a whole block with one factor go through `bytes.translate`, which is the fastest table
look-up that Python has, some 2 GB a second.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Matrix = Sequence[Sequence[int]]

_POLYNOMIAL = 0x11D


def _powers() -> list[int]:
    """Return the powers of 2, twice over: a sum of two logarithms needs no remainder."""
    powers, value = list[int](), 1
    for _ in range(255):
        powers.append(value)
        value <<= 1
        if value > 255:
            value ^= _POLYNOMIAL
    return powers + powers


_EXP = _powers()
_LOG = {value: power for power, value in enumerate(_EXP[:255])}
_TABLES = tuple(
    bytes(_EXP[_LOG[factor] + _LOG[value]] if factor and value else 0 for value in range(256)) for factor in range(256)
)
"""The products of each factor with 0, 1, …, 255."""


def multiply(left: int, right: int) -> int:
    """Return the product of two elements, each 0 to 255."""
    return _TABLES[left][right]


def inverse(value: int) -> int:
    """Return 1 / value; ZeroDivisionError for 0."""
    if value == 0:
        raise ZeroDivisionError("0 has no inverse in GF(256)")
    return _EXP[255 - _LOG[value]]


def cauchy(rows: int, columns: int) -> list[list[int]]:
    """Return the matrix 1 / (column xor (columns + row)); each of its square parts can be inverted.

    `rows` + `columns` is at most 256.
    """
    return [[inverse(column ^ (columns + row)) for column in range(columns)] for row in range(rows)]


def inverted(matrix: Matrix) -> list[list[int]]:
    """Return the inverse of a square matrix, by elimination; ZeroDivisionError if it has none."""
    size = len(matrix)
    rows = [[*row, *(int(at == place) for place in range(size))] for at, row in enumerate(matrix)]
    for at in range(size):
        pivot = next((row for row in range(at, size) if rows[row][at]), at)
        rows[at], rows[pivot] = rows[pivot], rows[at]
        rows[at] = _scaled(rows[at], inverse(rows[at][at]))
        for other in range(size):
            if other != at:
                step = _scaled(rows[at], rows[other][at])
                rows[other] = [left ^ right for left, right in zip(rows[other], step, strict=True)]
    return [row[size:] for row in rows]


def _scaled(row: Sequence[int], factor: int) -> list[int]:
    return [multiply(factor, value) for value in row]


def product(matrix: Matrix, blocks: Sequence[bytes]) -> list[Bytes]:
    """Multiply a matrix with a column of blocks of one length: one block for each row of the matrix."""
    return [_combined(row, blocks) for row in matrix]


def _combined(factors: Sequence[int], blocks: Sequence[bytes]) -> Bytes:
    total = np.zeros(len(blocks[0]), np.uint8)
    for factor, block in zip(factors, blocks, strict=True):
        if factor:
            total ^= np.frombuffer(block.translate(_TABLES[factor]), np.uint8)
    return total
