"""Make parity: read a file twice, once for its checksums and once for its parity blocks."""

from __future__ import annotations

import hashlib

import numpy as np

from framefold.pipeline.archive import galois
from framefold.pipeline.archive.files import Readable
from framefold.pipeline.archive.fresh import Fresh
from framefold.pipeline.archive.parity_layout import Crcs, ParityHeader, Plan, Strip, pack_table, piece_crcs

_WINDOW = 2**20


class Making:
    """A file whose parity is made."""

    def __init__(self, plan: Plan, file: Readable) -> None:
        self.plan, self.file = plan, file
        self.matrix = galois.cauchy(plan.parity_blocks, plan.data_blocks)

    def write(self, out: Fresh) -> None:
        """Write the whole parity file."""
        plan = self.plan
        sha256, crcs = self._read_through()
        table = pack_table(np.concatenate((crcs, self._write_blocks(out))))
        header = ParityHeader(plan=plan, file_sha256=sha256, table_sha256=hashlib.sha256(table).digest()).pack()
        out.write(header + table, 0)
        out.write(table + header, plan.parity_start + plan.parity_bytes)

    def _read_through(self) -> tuple[bytes, Crcs]:
        """Return the file's SHA-256 and the CRC-32 of its pieces."""
        sha256, crcs, piece = hashlib.sha256(), list[Crcs](), self.plan.piece_bytes
        window = max(_WINDOW // piece, 1) * piece
        for start in range(0, self.plan.file_bytes, window):
            data = self.file.read(start, min(window, self.plan.file_bytes - start))
            sha256.update(data)
            crcs.append(piece_crcs(data, piece))
        return sha256.digest(), np.concatenate(crcs)

    def _write_blocks(self, out: Fresh) -> Crcs:
        """Write all parity blocks; the CRC-32 of their pieces."""
        plan = self.plan
        crcs = np.zeros(plan.parity_pieces, np.uint32)
        for strip in plan.strips():
            rows = range(plan.rows_of(strip.group))
            data = [self._read(row, strip) for row in rows]
            factors = [row[: len(data)] for row in self.matrix]
            for row, block in enumerate(galois.product(factors, data)):
                at = plan.block_at(row, strip.group) + strip.start
                out.write(block.tobytes(), plan.parity_start + at)
                found = piece_crcs(block.tobytes(), plan.piece_bytes)
                first = at // plan.piece_bytes
                crcs[first : first + len(found)] = found
        return crcs

    def _read(self, row: int, strip: Strip) -> bytes:
        length, end = strip.stop - strip.start, self.plan.file_bytes
        at = min(self.plan.block_at(row, strip.group) + strip.start, end)
        return self.file.read(at, min(end - at, length)).ljust(length, b"\0")
