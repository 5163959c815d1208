"""Many small units in two chunks: a `Tabl` that says what they are, and a `Pack` of their bytes."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from framefold.pipeline.archive.deflated import deflate, inflate
from framefold.pipeline.archive.documents import Document, pack_document, unpack_document
from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.limits import (
    MAX_CHUNKS,
    MAX_FRAMES,
    MAX_JSON,
    MAX_JSON_VALUES,
    MAX_PACKED,
    MAX_PAYLOAD,
    MAX_TICK,
)
from framefold.pipeline.archive.unit import UnitHead

_PACKED_ID = re.compile(r"(p[0-9]{6,10})\.(0|[1-9][0-9]{0,4})")
_RATIO = 16
"""How much longer than its payload a table may be: hashes do not deflate, so honest ones stay far below."""
_ALLOWANCE = 4096
_MARKS = (b",", b"[", b"{")


@dataclass(frozen=True, kw_only=True)
class PackedUnit:
    """One row of a table."""

    head: UnitHead
    source: int
    """Number of its source."""
    payload_bytes: int
    """Of the codec's own bytes."""
    start: int
    """Where in the `Pack` they begin."""
    measured: Document | None = field(default=None, repr=False)

    @classmethod
    def of(cls, row: Any, start: int) -> Self:
        """Check a row of a table whose bytes before it end at `start`."""
        if not isinstance(row, Mapping):
            raise ArchiveError(Code.RECORD, f"a packed unit is a {type(row).__name__}; an object is needed")
        measured = row.get("measured")
        if measured is not None and not isinstance(measured, Mapping):
            raise ArchiveError(Code.RECORD, f"measured is {str(measured)[:80]}; an object is needed")
        head = UnitHead(
            key=str(row.get("key")),
            codec=_integer(row, "codec", MAX_CHUNKS),
            first_frame=_integer(row, "first_frame", 2**32 - 1, 0),
            duration_ticks=_integer(row, "duration_ticks", MAX_TICK, 1),
            pts=_times(row.get("pts", [0])),
        )
        length = _integer(row, "bytes", MAX_PAYLOAD)
        source = _integer(row, "source", MAX_CHUNKS)
        return cls(head=head, source=source, payload_bytes=length, start=start, measured=measured)

    def row(self) -> dict[str, Any]:
        """As the table spells it: what a still picture has anyway is left out."""
        head = self.head
        row: dict[str, Any] = {"key": head.key, "source": self.source, "codec": head.codec, "bytes": self.payload_bytes}
        plain = {"first_frame": 0, "pts": [0], "duration_ticks": 1, "measured": None}
        more = {
            "first_frame": head.first_frame,
            "pts": list(head.pts),
            "duration_ticks": head.duration_ticks,
            "measured": self.measured,
        }
        return row | {name: value for name, value in more.items() if value != plain[name]}


@dataclass(frozen=True, kw_only=True)
class Table:
    """What a `Tabl` chunk says of the `Pack` behind it."""

    sources: tuple[Document, ...]
    """They take the next numbers among the sources."""
    units: tuple[PackedUnit, ...]
    """1 to 65,536, in the order of their bytes."""

    @property
    def payload_bytes(self) -> int:
        """Of the `Pack`."""
        last = self.units[-1]
        return last.start + last.payload_bytes

    def pack(self) -> bytes:
        """Return the payload: one zlib stream of JSON."""
        document = {"sources": list(self.sources), "units": [unit.row() for unit in self.units]}
        plain = pack_document(document)
        packed = deflate(plain)
        is_dense = len(plain) <= inflated_limit(len(packed)) and sum(map(plain.count, _MARKS)) <= len(packed)
        return packed if is_dense else zlib.compress(plain, 0)

    @classmethod
    def unpack(cls, payload: bytes) -> Self:
        """Read a payload; the references of its units are for the caller to check."""
        # Spelled out, a value takes far more memory than its comma on disk.
        document = unpack_document(inflate(payload, inflated_limit(len(payload))), min(len(payload), MAX_JSON_VALUES))
        sources, rows = document.get("sources"), document.get("units")
        if not isinstance(sources, list) or not isinstance(rows, list):
            raise ArchiveError(
                Code.RECORD, f"a table has the fields {sorted(document)[:8]}; sources and units are needed"
            )
        if not all(isinstance(source, Mapping) for source in sources):
            raise ArchiveError(Code.RECORD, "a source in a table is no object")
        if not 1 <= len(rows) <= MAX_PACKED:
            raise ArchiveError(Code.LIMIT, f"a table of {len(rows)} units; 1 to {MAX_PACKED} are allowed")
        return cls(sources=tuple(sources), units=tuple(_units(rows)))


def packed_id(pack: str, place: int) -> str:
    """Name unit `place` (from 0) of a pack: `p000012.3`."""
    return f"{pack}.{place}"


def split_packed_id(unit: str) -> tuple[str, int] | None:
    """Return (id of the pack, place in it); None if this is no name of a packed unit."""
    match = _PACKED_ID.fullmatch(unit)
    return (match[1], int(match[2])) if match else None


def inflated_limit(payload_bytes: int) -> int:
    """Bytes that a table's payload may inflate to."""
    return min(_RATIO * payload_bytes + _ALLOWANCE, MAX_JSON)


def _units(rows: Sequence[Any]) -> Iterator[PackedUnit]:
    start = 0
    for row in rows:
        unit = PackedUnit.of(row, start)
        yield unit
        start += unit.payload_bytes
        if start > MAX_PAYLOAD:
            raise ArchiveError(Code.LIMIT, f"a table of a pack beyond {MAX_PAYLOAD} bytes")


def _integer(row: Mapping[str, Any], name: str, high: int, default: int | None = None) -> int:
    value = row.get(name, default)
    if type(value) is not int or not 0 <= value <= high:
        raise ArchiveError(
            Code.RECORD, f"a packed unit's {name} is {value!r:.80}; an integer from 0 to {high} is needed"
        )
    return value


def _times(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(time) is int and abs(time) <= MAX_TICK for time in value):
        raise ArchiveError(Code.RECORD, f"a packed unit's pts are {value!r:.80}; a list of integers is needed")
    if not 1 <= len(value) <= MAX_FRAMES:
        raise ArchiveError(Code.LIMIT, f"a packed unit has {len(value)} frames; allowed are 1 to {MAX_FRAMES}")
    return tuple(value)
