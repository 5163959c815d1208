"""The index of a file: one checked table of all chunks, read as a whole and spelled out entry by entry on demand.

A hundred thousand chunks are eight megabytes of index; checked column by column they cost milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.records import (
    COPY,
    ENTRY_BYTES,
    HEADER_BYTES,
    INDEX,
    MANIFEST,
    PACK,
    TABLE,
    IndexEntry,
    chunk_id,
)

_ROW = np.dtype(
    [
        ("offset", "<u8"),
        ("payload_bytes", "<u4"),
        ("stream", "<u4"),
        ("t0", "<i8"),
        ("duration", "<i8"),
        ("items", "<u4"),
        ("kind", "<u4"),
        ("first_item", "<u4"),
        ("codec", "<u4"),
        ("sha256", "V32"),
    ]
)

_KIND_AT = 36
"""Where a row has its type."""


class Index(Sequence[IndexEntry]):
    """The entries of an index in file order, each in its ranges."""

    def __init__(self, payload: bytes) -> None:
        if len(payload) % ENTRY_BYTES:
            raise ArchiveError(Code.LAYOUT, f"an index of {len(payload)} bytes is no multiple of {ENTRY_BYTES}")
        self._payload = payload
        self._rows = np.frombuffer(payload, _ROW)
        for number in np.flatnonzero(~self._in_range())[:1]:
            IndexEntry.unpack(self._bytes_of(int(number)))

    def _in_range(self) -> npt.NDArray[np.bool_]:
        """Which rows pass for sure; `IndexEntry` names what is wrong with the others."""
        rows, good = self._rows, np.ones(len(self._rows), np.bool_)
        for name, (low, high) in IndexEntry.RANGES.items():
            column = rows[name]
            good &= (column >= column.dtype.type(low)) & (column <= column.dtype.type(high))
        strange = [kind for kind in np.unique(rows["kind"]).tolist() if not _letters(kind)]
        return good & ~np.isin(rows["kind"], strange) if strange else good

    def check_layout(self, end: int) -> None:
        """Refuse gaps and overlaps from byte 64 to `end`, where the index's chunk begins, and strange neighbours."""
        after = self._starts()
        for number in np.flatnonzero(after[:-1] != self._rows["offset"])[:1]:
            name, at = self.id(int(number)), int(self._rows["offset"][number])
            raise ArchiveError(Code.LAYOUT, f"the index puts {name} at {at}; it belongs at {after[number]}")
        manifests = self.numbers(MANIFEST)
        if after[-1] != end or self.numbers(INDEX) or manifests != [len(self) - 1]:
            got = f"{len(self)} chunks up to byte {after[-1]}, {len(manifests)} of them manifests"
            want = f"chunks up to byte {end} and one manifest, the last, are needed"
            raise ArchiveError(Code.LAYOUT, f"the index lists {got}; {want}")
        self._check_neighbours()

    def _starts(self) -> npt.NDArray[np.uint64]:
        """Where each chunk begins if none before it lies: one more than there are entries."""
        sizes = self._rows["payload_bytes"].astype(np.uint64)
        sizes += np.uint64(HEADER_BYTES) + (-sizes.astype(np.int64) % 8).astype(np.uint64)
        return np.concatenate((np.zeros(1, np.uint64), np.cumsum(sizes))) + np.uint64(HEADER_BYTES)

    def _check_neighbours(self) -> None:
        """Each table right before its pack, each pack right behind a table, a copy right before the manifest."""
        tables, packs, copies = self.numbers(TABLE), self.numbers(PACK), self.numbers(COPY)
        if [number + 1 for number in tables] != packs:
            raise ArchiveError(Code.LAYOUT, f"{len(tables)} tables and {len(packs)} packs, not each with its other")
        if copies not in ([], [len(self) - 2]):
            raise ArchiveError(Code.LAYOUT, "a copy stands elsewhere than right before the manifest")

    def column(self, name: str, kind: bytes) -> list[int]:
        """One field of all entries of a type, in file order."""
        values: list[int] = self.array(name, kind).tolist()
        return values

    def array(self, name: str, kind: bytes) -> npt.NDArray[np.int64]:
        """The same as an array."""
        values: npt.NDArray[np.int64] = self._rows[name][self._rows["kind"] == _code(kind)].astype(np.int64)
        return values

    def numbers(self, kind: bytes) -> list[int]:
        """Numbers of all chunks of a type, in file order."""
        numbers: list[int] = np.flatnonzero(self._rows["kind"] == _code(kind)).tolist()
        return numbers

    def kinds(self) -> list[bytes]:
        """Every type that occurs."""
        return [kind.to_bytes(4, "little") for kind in np.unique(self._rows["kind"]).tolist()]

    def kind(self, number: int) -> bytes:
        """Type of a chunk."""
        at = number * ENTRY_BYTES + _KIND_AT
        return self._payload[at : at + 4]

    def id(self, number: int) -> str:
        """Name of a chunk, such as `u000002`."""
        return chunk_id(self.kind(number), number)

    def bytes_of(self, kind: bytes) -> int:
        """Bytes on disk of all chunks of a type: headers, payloads and padding."""
        sizes = self._rows["payload_bytes"][self._rows["kind"] == _code(kind)].astype(np.int64)
        return int((sizes + HEADER_BYTES + -sizes % 8).sum())

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, number: int) -> IndexEntry: ...
    @overload
    def __getitem__(self, number: slice) -> tuple[IndexEntry, ...]: ...
    def __getitem__(self, number: int | slice) -> IndexEntry | tuple[IndexEntry, ...]:
        if isinstance(number, slice):
            return tuple(self[place] for place in range(*number.indices(len(self))))
        return IndexEntry.unpack(self._bytes_of(range(len(self))[number]))

    def __iter__(self) -> Iterator[IndexEntry]:
        return (self[number] for number in range(len(self)))

    def _bytes_of(self, number: int) -> bytes:
        return self._payload[number * ENTRY_BYTES : (number + 1) * ENTRY_BYTES]


def _code(kind: bytes) -> int:
    return int.from_bytes(kind, "little")


def _letters(kind: int) -> bool:
    name = kind.to_bytes(4, "little")
    return name.isalpha() and name.isascii()
