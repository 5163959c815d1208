"""The tags of a TIFF file (TIFF 6.0; BigTIFF) that do not say how its pixels are stored, as a block of EXIF.

Pillow would decode and encode them, and lose what is no ASCII, or has an odd type; here their bytes stay as they are.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from io import BufferedReader

LARGE = 64 * 2**10
"""A tag with more bytes, such as an editor's layers, is kept by itself."""

_PIXELS = (*range(254, 260), *range(262, 267), 273, *range(277, 280), 284, 288, 289, 292, 293, 317, *range(320, 326))
_STRUCTURE = {*_PIXELS, 330, 332, 338, 339, 340, 341, 347, *range(512, 522), 529, 530, 531, 532}
_PROFILE, _XMP = 34675, 700
_RESOLUTION = {282, 283, 296}
_LISTS = {34665, 34853, 40965}
"""Tags that point to lists of tags: Exif, GPS, interoperability."""
_DEPTH = 2
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Type to bytes of one value."""
_LONG = 4


class TooManyBytes(ValueError):
    """The tags hold more than was allowed."""


@dataclass(frozen=True)
class _Entry:
    tag: int
    kind: int
    count: int
    data: bytes
    below: tuple[_Entry, ...] = ()
    """Of a tag that points to a list of tags."""


def tags_as_exif(file: BufferedReader, *, resolution: bool, max_bytes: int) -> tuple[bytes | None, dict[int, bytes]]:
    """Return EXIF with the first picture's tags, None if there are none to keep, and large tags by their numbers.

    `resolution` says whether that is to be among them. TooManyBytes if the tags hold more than `max_bytes`.
    """
    left_out = _STRUCTURE | {_PROFILE, _XMP} | (set() if resolution else _RESOLUTION)
    reader = _Reader(file, left_out, max_bytes)
    entries = list(reader.entries(reader.first))
    large = {entry.tag: entry.data for entry in entries if len(entry.data) > LARGE}
    kept = [entry for entry in entries if entry.tag not in large]
    return (_packed_file(kept, reader.order) if kept else None), large


class _Reader:
    """Reads lists of tags; what points beyond the end of the file is passed over."""

    def __init__(self, file: BufferedReader, left_out: AbstractSet[int], max_bytes: int) -> None:
        self._file, self._left_out, self._bytes_left = file, left_out, max_bytes
        self._end = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(16)
        self.order = "<" if head[:2] == b"II" else ">"
        self._big = self._number(head[2:4]) == 43
        self.first = self._number(head[8:16] if self._big else head[4:8])

    def entries(self, offset: int, depth: int = 0) -> Iterator[_Entry]:
        """The list at this place; a tag that comes twice counts once."""
        width, layout = (20, "HHQ8s") if self._big else (12, "HHI4s")
        head = 8 if self._big else 2
        count = min(self._number(self._read(offset, head)), 65_535, max(0, self._end - offset - head) // width)
        table = self._read(offset + head, count * width)
        seen = set[int]()
        for tag, kind, number, value in struct.iter_unpack(self.order + layout, table):
            if tag not in seen and (depth or tag not in self._left_out):
                seen.add(tag)
                yield from self._entry(tag, kind, number, value, depth)

    def _entry(self, tag: int, kind: int, number: int, value: bytes, depth: int) -> Iterator[_Entry]:
        size = _SIZES.get(kind, 0) * number
        data = value[:size] if size <= len(value) else self._read(self._number(value), size)
        below = tuple(self.entries(self._number(data), depth + 1)) if tag in _LISTS and depth < _DEPTH else ()
        if 0 < size == len(data) and (below or tag not in _LISTS):
            yield _Entry(tag, kind, number, data, below)

    def _read(self, offset: int, size: int) -> bytes:
        """Nothing where the file has less."""
        if offset + size > self._end:
            return b""
        self._bytes_left -= size
        if self._bytes_left < 0:
            raise TooManyBytes
        self._file.seek(offset)
        return self._file.read(size)

    def _number(self, data: bytes) -> int:
        return int.from_bytes(data, "little" if self.order == "<" else "big")


def _packed_file(entries: Sequence[_Entry], order: str) -> bytes:
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(order + "HI", 42, 8) + _packed(entries, 8, order)


def _packed(entries: Sequence[_Entry], start: int, order: str) -> bytes:
    """A list of tags that begins at `start`, and behind it what does not fit into the list."""
    table, behind = struct.pack(order + "H", len(entries)), bytearray()
    for entry in sorted(entries, key=lambda entry: entry.tag):
        place = start + 2 + 12 * len(entries) + 4 + len(behind)
        data = _packed(entry.below, place, order) if entry.below else entry.data
        kind, count = (_LONG, 1) if entry.below else (entry.kind, entry.count)
        inside = len(data) <= 4 and not entry.below
        value = data.ljust(4, b"\0") if inside else struct.pack(order + "I", place)
        table += struct.pack(order + "HHI4s", entry.tag, kind, count, value)
        behind += b"" if inside else data + bytes(len(data) % 2)
    return table + bytes(4) + bytes(behind)
