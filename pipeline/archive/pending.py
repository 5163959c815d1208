"""Small units on their way into a pack: held in memory until there are enough of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from framefold.pipeline.archive.documents import pack_document, unpack_document
from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.limits import MAX_JSON, MAX_JSON_VALUES
from framefold.pipeline.archive.pack import PackedUnit, Table
from framefold.pipeline.archive.unit import UnitHead

PACK_BYTES = 256 * 2**10
"""A pack is closed when its units have so many bytes together, …"""
PACK_UNITS = 4096
"""… or are so many, …"""
_TABLE_BYTES = MAX_JSON // 4
"""… or their descriptions have so many bytes of JSON, …"""
_TABLE_VALUES = MAX_JSON_VALUES // 4
"""… or so many commas and brackets in it."""
_MARKS = (b",", b"[", b"{")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One small unit as it was given; it gets its numbers when the pack is closed."""

    source: bytes
    """JSON of the source's document."""
    codec: int
    key: str
    payload: bytes = field(repr=False)
    measured: Mapping[str, object] | None


class Pending:
    """The units of the next pack."""

    def __init__(self) -> None:
        self.pictures: list[Picture] = []
        self.keys: set[str] = set()
        self.payload_bytes = self._json_bytes = self._json_values = 0

    def add(self, picture: Picture) -> None:
        """Hold one more."""
        said = pack_document(dict(picture.measured or {}))
        UnitHead(key=picture.key, codec=picture.codec, first_frame=0, duration_ticks=1, pts=(0,))
        if len(picture.payload) > PACK_BYTES:
            raise ArchiveError(Code.LIMIT, f"a picture of {len(picture.payload)} bytes; packs take {PACK_BYTES}")
        self.pictures.append(picture)
        self.keys.add(picture.key)
        self.payload_bytes += len(picture.payload)
        self._json_bytes += len(picture.source) + len(said) + 256
        self._json_values += sum(text.count(mark) for text in (picture.source, said) for mark in _MARKS) + 16

    @property
    def is_full(self) -> bool:
        """Whether it is time to close the pack."""
        is_long = self._json_bytes >= _TABLE_BYTES or self._json_values >= _TABLE_VALUES
        return is_long or self.payload_bytes >= PACK_BYTES or len(self.pictures) >= PACK_UNITS

    def first(self, count: int) -> Pending:
        """The same without all but the first `count` units."""
        if count == len(self.pictures):
            return self
        kept = Pending()
        for picture in self.pictures[:count]:
            kept.add(picture)
        return kept

    def table(self, known: Callable[[bytes], int | None], next_source: int) -> tuple[Table, list[bytes]]:
        """The table of all units, and the JSON of the sources that it adds to those `known` by their JSON."""
        numbers, added, start, units = dict[bytes, int](), list[bytes](), 0, list[PackedUnit]()
        for picture in self.pictures:
            if picture.source not in numbers:
                number = known(picture.source)
                if number is None:
                    number = next_source + len(added)
                    added.append(picture.source)
                numbers[picture.source] = number
            units.append(_unit(picture, numbers[picture.source], start))
            start += len(picture.payload)
        return Table(sources=tuple(map(unpack_document, added)), units=tuple(units)), added


def _unit(picture: Picture, source: int, start: int) -> PackedUnit:
    head = UnitHead(key=picture.key, codec=picture.codec, first_frame=0, duration_ticks=1, pts=(0,))
    length = len(picture.payload)
    return PackedUnit(head=head, source=source, payload_bytes=length, start=start, measured=picture.measured)
