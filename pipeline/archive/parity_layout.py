"""The records of a parity file: how a file is cut into blocks and groups, header and table; docs/archive-parity.md."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, NamedTuple, Self
from zlib import crc32

import numpy as np
import numpy.typing as npt

from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.limits import MAX_TICK

MAGIC = b"\x89FLP\r\n\x1a\n"
PARITY_HEADER_BYTES = 160
MAX_BLOCK = 2**20
"""Bytes of a block."""
MIN_PIECE = 16
"""Bytes of a piece."""
MAX_PIECES = 1024
"""Pieces of a block."""
MAX_BLOCKS = 255
"""Data and parity blocks of a group."""
DATA_BLOCKS, PARITY_BLOCKS = 20, 2
"""Of a group, unless the caller chooses others."""

_PAGE = 1023
_CRC_BYTES = 4
_STRIPS = 16 * 2**20
"""Bytes of all blocks of a group that are worked on at a time."""

Crcs = npt.NDArray[np.uint32]


def piece_crcs(data: bytes, piece: int) -> Crcs:
    """Return the CRC-32 of each `piece` bytes, the last one filled up with zeros."""
    view = memoryview(data.ljust(_parts(len(data), piece) * piece, b"\0"))
    return np.array([crc32(view[at : at + piece]) for at in range(0, len(view), piece)], np.uint32)


def _parts(length: int, size: int) -> int:
    """How many parts of `size` cover `length`."""
    return -(-length // size)


class Strip(NamedTuple):
    """The same bytes of all blocks of a group."""

    group: int
    start: int
    """In the blocks, a multiple of the piece's bytes."""
    stop: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a file is cut, and how much of it may be lost."""

    file_bytes: int
    """1 to 2^53 - 1."""
    block_bytes: int
    """Up to 2^20, a multiple of `piece_bytes`."""
    piece_bytes: int
    """What one CRC-32 covers: 16 or more, at most 1024 of them to a block."""
    data_blocks: int
    """k: of the file, in a group."""
    parity_blocks: int
    """m: in a group; k + m is at most 255."""

    def __post_init__(self) -> None:
        _check("file_bytes", self.file_bytes, 1, MAX_TICK)
        _check("block_bytes", self.block_bytes, MIN_PIECE, MAX_BLOCK)
        _check("piece_bytes", self.piece_bytes, max(self.block_bytes // MAX_PIECES, MIN_PIECE), self.block_bytes)
        _check("data_blocks", self.data_blocks, 1, MAX_BLOCKS - 1)
        _check("parity_blocks", self.parity_blocks, 1, MAX_BLOCKS - self.data_blocks)
        if self.block_bytes % self.piece_bytes:
            message = f"blocks of {self.block_bytes} bytes in pieces of {self.piece_bytes}; they must divide evenly"
            raise ArchiveError(Code.LIMIT, message)

    @classmethod
    def of(cls, file_bytes: int, *, data_blocks: int = DATA_BLOCKS, parity_blocks: int = PARITY_BLOCKS) -> Self:
        """Choose sizes for a file: 1 MiB and 4 KiB, or, of a small one, as much as makes one group."""
        share = _parts(file_bytes, max(data_blocks, 1))
        piece = 4096 if share > 2**16 else 512
        block = min(_parts(share, piece) * piece, MAX_BLOCK)
        return cls(
            file_bytes=file_bytes,
            block_bytes=max(block, piece),
            piece_bytes=piece,
            data_blocks=data_blocks,
            parity_blocks=parity_blocks,
        )

    @property
    def groups(self) -> int:
        """G."""
        return _parts(_parts(self.file_bytes, self.block_bytes), self.data_blocks)

    @property
    def pieces_per_block(self) -> int:
        """1 to 1024."""
        return self.block_bytes // self.piece_bytes

    @property
    def file_pieces(self) -> int:
        """How many pieces the file has."""
        return _parts(self.file_bytes, self.piece_bytes)

    @property
    def parity_pieces(self) -> int:
        """How many pieces the parity blocks have."""
        return self.parity_blocks * self.groups * self.pieces_per_block

    @property
    def parity_bytes(self) -> int:
        """Of all parity blocks."""
        return self.parity_pieces * self.piece_bytes

    @property
    def table_bytes(self) -> int:
        """Of one copy of the table."""
        count = self.file_pieces + self.parity_pieces
        return _CRC_BYTES * (count + _parts(count, _PAGE))

    @property
    def parity_start(self) -> int:
        """Where in the parity file its blocks begin."""
        return PARITY_HEADER_BYTES + self.table_bytes

    @property
    def parity_file_bytes(self) -> int:
        """Length of the whole parity file."""
        return 2 * self.parity_start + self.parity_bytes

    def block_at(self, row: int, group: int) -> int:
        """Where a group's data block begins in the file, or its parity block among the parity blocks."""
        return (row * self.groups + group) * self.block_bytes

    def strips(self) -> Iterator[Strip]:
        """All groups, cut so that a strip of all their blocks fits into memory."""
        pieces = max(_STRIPS // (self.data_blocks + self.parity_blocks) // self.piece_bytes, 1)
        width = pieces * self.piece_bytes
        for group in range(self.groups):
            for start in range(0, self.block_bytes, width):
                yield Strip(group, start, min(start + width, self.block_bytes))

    def rows_of(self, group: int) -> int:
        """How many data blocks a group has: the others are zeros and not in the file."""
        blocks = _parts(self.file_bytes, self.block_bytes)
        return _parts(blocks - group, self.groups)

    @property
    def guarantee(self) -> str:
        """What may happen without anything being lost, in words."""
        every = self.data_blocks + self.parity_blocks
        lost = f"any {self.parity_blocks} of every {every} blocks of {_size(self.block_bytes)}"
        return f"{lost} may be lost or damaged, in the archive or in the parity file"


@dataclass(frozen=True, kw_only=True)
class ParityHeader:
    """The 160 bytes at both ends of a parity file."""

    plan: Plan
    file_sha256: bytes
    """32 bytes."""
    table_sha256: bytes
    """32 bytes."""

    _LAYOUT: ClassVar = Struct("<8sHHIQIIHHI24s32s32s")

    def pack(self) -> bytes:
        """Return 160 bytes."""
        plan = self.plan
        sizes = (plan.file_bytes, plan.block_bytes, plan.piece_bytes, plan.data_blocks, plan.parity_blocks)
        version, ends = (1, 0, PARITY_HEADER_BYTES), (bytes(24), self.file_sha256, self.table_sha256)
        body = self._LAYOUT.pack(MAGIC, *version, *sizes, plan.groups, *ends)
        return body + hashlib.sha256(body).digest()

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Read 160 bytes."""
        body = data[:-32]
        if data[:8] != MAGIC or hashlib.sha256(body).digest() != data[-32:]:
            raise ArchiveError(Code.PARITY, "a header of the parity file is damaged (magic or SHA-256)")
        _, major, minor, length, *sizes, groups, zero, file_sha256, table_sha256 = cls._LAYOUT.unpack(body)
        if major != 1 or length != PARITY_HEADER_BYTES:
            got = f"a parity file of version {major}.{minor} with a header of {length} bytes"
            raise ArchiveError(Code.UNSUPPORTED, f"{got}; version 1 is known")
        names = ("file_bytes", "block_bytes", "piece_bytes", "data_blocks", "parity_blocks")
        plan = Plan(**dict(zip(names, sizes, strict=True)))
        if groups != plan.groups or (minor == 0 and any(zero)):
            raise ArchiveError(Code.RECORD, f"a parity file of {groups} groups; its sizes make {plan.groups}")
        return cls(plan=plan, file_sha256=file_sha256, table_sha256=table_sha256)


def pack_table(crcs: Crcs) -> bytes:
    """Return the table: a page for every 1023 CRCs, each with its own CRC-32."""
    pages = (crcs[start : start + _PAGE].astype("<u4").tobytes() for start in range(0, len(crcs), _PAGE))
    return b"".join(page + crc32(page).to_bytes(_CRC_BYTES, "little") for page in pages)


def unpack_table(copies: tuple[bytes, bytes], sha256: bytes) -> Crcs:
    """Return the CRCs; each page is taken from the copy in which it is whole."""
    page_bytes = _CRC_BYTES * (_PAGE + 1)
    starts = range(0, max(map(len, copies)), page_bytes)
    pages = [_whole_page(*(copy[start : start + page_bytes] for copy in copies)) for start in starts]
    if hashlib.sha256(b"".join(pages)).digest() != sha256:
        raise ArchiveError(Code.PARITY, "both copies of the parity file's table are damaged")
    return np.frombuffer(b"".join(page[:-_CRC_BYTES] for page in pages), "<u4")


def _whole_page(first: bytes, second: bytes) -> bytes:
    is_whole = crc32(first[:-_CRC_BYTES]).to_bytes(_CRC_BYTES, "little") == first[-_CRC_BYTES:]
    return first if is_whole else second


def _check(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ArchiveError(Code.LIMIT, f"{name} of a parity file is {value}; allowed are {low} to {high}")


def _size(length: int) -> str:
    if length == MAX_BLOCK:
        return "1 MiB"
    return f"{length // 1024} KiB" if length % 1024 == 0 else f"{length} bytes"
