"""Heal by parity: find the pieces that are not as they were, and solve for them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from framefold.pipeline.archive import galois
from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.files import pread_exactly
from framefold.pipeline.archive.fresh import Fresh
from framefold.pipeline.archive.parity_layout import Crcs, ParityHeader, Strip, piece_crcs
from framefold.pipeline.archive.worn import WornFile

_WINDOW = 2**20

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Damage:
    """What was not as it had been, in whole pieces."""

    ranges: tuple[tuple[int, int], ...] = field(repr=False)
    """(offset, length) in the file, neighbours put together."""
    parity_bytes: int
    """In the parity blocks; these are not mended: make the parity file anew."""

    @property
    def file_bytes(self) -> int:
        """In the file."""
        return sum(length for _, length in self.ranges)


class Healing:
    """A file and its parity blocks, with what is lost of both."""

    def __init__(self, header: ParityHeader, crcs: Crcs, file: WornFile, blocks: WornFile) -> None:
        self.header, self.plan, self.file, self.blocks = header, header.plan, file, blocks
        self.matrix = galois.cauchy(self.plan.parity_blocks, self.plan.data_blocks)
        count = self.plan.file_pieces
        self._lost_data = self._lost(file, 0, self.plan.file_bytes, crcs[:count])
        self._lost_parity = self._lost(blocks, self.plan.parity_start, self.plan.parity_bytes, crcs[count:])
        self._lost_rows = self._by_row()

    @property
    def damage(self) -> Damage:
        """All that is lost, in the file and in the parity blocks."""
        piece = self.plan.piece_bytes
        ranges = (
            (start * piece, min(stop * piece, self.plan.file_bytes)) for start, stop in _stretches(self._lost_data)
        )
        return Damage(
            ranges=tuple((start, stop - start) for start, stop in ranges),
            parity_bytes=int(self._lost_parity.sum()) * piece,
        )

    def refuse_if_hopeless(self) -> None:
        """F029 if more is lost somewhere than the parity can give back."""
        count = self._lost_rows.sum(0)
        hopeless = int((count > self.plan.parity_blocks).sum())
        if hopeless:
            lost = f"{self.damage.file_bytes} of {self.plan.file_bytes} bytes are lost"
            where = f"at {hopeless} places more than {self.plan.guarantee}"
            raise ArchiveError(Code.PARITY, f"{lost}, {where}")

    def write(self, out: Fresh) -> None:
        """Copy the file and mend what can be mended."""
        end = min(self.file.size, self.plan.file_bytes)
        for start in range(0, end, _WINDOW):
            out.write(self.file.read(start, min(_WINDOW, end - start), self.plan.piece_bytes), start)
        for strip in self.plan.strips():
            for part in self._parts_to_mend(strip):
                self._mend(out, part)

    def check(self, out: Fresh) -> None:
        """F029 if what was written has another SHA-256 than the file had."""
        found = hashlib.sha256()
        for start in range(0, self.plan.file_bytes, _WINDOW):
            found.update(pread_exactly(out.fd, min(_WINDOW, self.plan.file_bytes - start), start))
        if found.digest() != self.header.file_sha256:
            raise ArchiveError(Code.PARITY, "the healed file has another SHA-256 than the file had")

    def _lost(self, file: WornFile, start: int, length: int, known: Crcs) -> Flags:
        """Which pieces of a range are not there as they were; those behind the file's end are lost."""
        lost, piece = np.ones(len(known), np.bool_), self.plan.piece_bytes
        window = max(_WINDOW // piece, 1) * piece
        end = min(start + length, file.size)
        for at in range(start, end, window):
            found = piece_crcs(file.read(at, min(window, end - at), piece), piece)
            first = (at - start) // piece
            lost[first : first + len(found)] = found != known[first : first + len(found)]
        return lost

    def _by_row(self) -> Flags:
        """(k + m, groups, pieces of a block): what is lost of each group's blocks."""
        plan = self.plan
        places = plan.groups * plan.pieces_per_block
        data = np.zeros(plan.data_blocks * places, np.bool_)
        data[: len(self._lost_data)] = self._lost_data
        return np.concatenate((data, self._lost_parity)).reshape(-1, plan.groups, plan.pieces_per_block)

    def _parts_to_mend(self, strip: Strip) -> Iterator[Strip]:
        """The parts of a strip, each with the same blocks lost in all of it, that lost data and not too much."""
        plan = self.plan
        first, last = strip.start // plan.piece_bytes, strip.stop // plan.piece_bytes
        lost = self._lost_rows[:, strip.group, first:last]
        for start, stop in _alike(lost):
            rows = lost[:, start]
            if rows[: plan.data_blocks].any() and rows.sum() <= plan.parity_blocks:
                yield Strip(strip.group, (first + start) * plan.piece_bytes, (first + stop) * plan.piece_bytes)

    def _mend(self, out: Fresh, part: Strip) -> None:
        """Solve for the lost data of a part: as many equations as blocks are lost."""
        plan = self.plan
        lost = self._lost_rows[:, part.group, part.start // plan.piece_bytes]
        unknown = np.flatnonzero(lost[: plan.data_blocks]).tolist()
        known = [row for row in range(plan.rows_of(part.group)) if not lost[row]]
        chosen = np.flatnonzero(~lost[plan.data_blocks :]).tolist()[: len(unknown)]
        sums = self._without(chosen, known, part)
        factors = galois.inverted([[self.matrix[row][column] for column in unknown] for row in chosen])
        for row, block in zip(unknown, galois.product(factors, sums), strict=True):
            self._write(out, row, part, block.tobytes())

    def _without(self, chosen: Sequence[int], known: Sequence[int], part: Strip) -> list[bytes]:
        """Take what is known out of these parity blocks: what is left are sums of lost data alone."""
        plan, length = self.plan, part.stop - part.start
        blocks = [self._read(self.blocks, plan.parity_start, row, part) for row in chosen]
        if not known:
            return blocks
        data = [self._read(self.file, 0, row, part) for row in known]
        parts = galois.product([[self.matrix[row][column] for column in known] for row in chosen], data)
        pairs = zip(blocks, parts, strict=True)
        return [(np.frombuffer(block, np.uint8, length) ^ known_part).tobytes() for block, known_part in pairs]

    def _read(self, file: WornFile, base: int, row: int, part: Strip) -> bytes:
        at = self.plan.block_at(row, part.group) + part.start
        end = self.plan.file_bytes if base == 0 else self.plan.parity_bytes
        there = max(min(end - at, part.stop - part.start), 0)
        data = file.read(base + at, there, self.plan.piece_bytes)
        return data.ljust(part.stop - part.start, b"\0")

    def _write(self, out: Fresh, row: int, part: Strip, data: bytes) -> None:
        at = self.plan.block_at(row, part.group) + part.start
        out.write(data[: max(self.plan.file_bytes - at, 0)], at)


def _stretches(flags: Flags) -> Iterator[tuple[int, int]]:
    """First and last (exclusive) place of each stretch of what is true."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8))).tolist()
    return zip(edges[::2], edges[1::2], strict=True)


def _alike(columns: Flags) -> Iterator[tuple[int, int]]:
    """First and last (exclusive) of each stretch of equal columns."""
    changes = (np.flatnonzero((columns[:, 1:] != columns[:, :-1]).any(0)) + 1).tolist()
    return pairwise([0, *changes, columns.shape[1]])
