"""The payload of `pckt`: packets of one audio, subtitle or data track, copied bit for bit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from struct import Struct
from typing import ClassVar, Self

import numpy as np

from framefold.pipeline.archive.deflated import deflate, inflate_exactly
from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.limits import MAX_PACKETS, MAX_SIDE_DATA, MAX_TICK

_KEY = re.compile("[0-9a-f]{64}")
_NONE = -(2**63)
_INT64 = (-(2**63) + 1, 2**63 - 1)
_COLUMNS = ("<i8", "<i8", "<i8", "<u4", "<u4", "<u4")
"""pts, dts, duration, bytes, side_bytes, flags."""
_ROW_BYTES = 36

SideData = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, kw_only=True)
class CopiedPacket:
    """One packet as a demuxer gave it; times in ticks of its track."""

    data: bytes = field(repr=False)
    pts: int | None = None
    dts: int | None = None
    duration: int = 0
    """0: unknown."""
    flags: int = 0
    """Bit 0 key frame, 1 corrupt, 2 discard, 3 trusted, 4 disposable."""
    side_data: SideData = ()
    """(name of the type, 1 to 255 ASCII characters; its bytes)."""

    def __post_init__(self) -> None:
        for name, value in (("pts", self.pts), ("dts", self.dts), ("duration", self.duration)):
            if value is not None and not _INT64[0] <= value <= _INT64[1]:
                raise ArchiveError(Code.LIMIT, f"a packet's {name} is {value}; 64 bits are allowed")
        if not 0 <= self.flags < 2**32:
            raise ArchiveError(Code.LIMIT, f"a packet's flags are {self.flags}; 32 bits are allowed")
        if len(self.side_data) > MAX_SIDE_DATA:
            got = f"{len(self.side_data)} pieces of side data"
            raise ArchiveError(Code.LIMIT, f"a packet has {got}; {MAX_SIDE_DATA} are allowed")
        for name, _ in self.side_data:
            if not 1 <= len(name) <= 255 or not name.isascii():
                raise ArchiveError(
                    Code.RECORD, f"side data is called {name[:40]!r}; 1 to 255 ASCII characters are allowed"
                )

    @property
    def time(self) -> int | None:
        """Presentation time, or the decoding time where there is none."""
        return self.dts if self.pts is None else self.pts


@dataclass(frozen=True, kw_only=True)
class PacketBlock:
    """Consecutive packets of one track: what one chunk holds."""

    key: str
    """64 hex digits; identifies source, track and part."""
    track: int
    """Position in the list `tracks` of the source's document."""
    part: int
    """0, 1, 2, … among the blocks of this track."""
    packets: tuple[CopiedPacket, ...] = field(repr=False)
    """1 to 65,536 of them."""

    _HEAD: ClassVar[Struct] = Struct("<32sIIII")

    def __post_init__(self) -> None:
        if not _KEY.fullmatch(self.key):
            raise ArchiveError(Code.RECORD, f"packet key is {self.key[:80]!r}; 64 lower-case hex digits are needed")
        _check_count(len(self.packets))
        for name, value in (("track", self.track), ("part", self.part)):
            if not 0 <= value < 2**32:
                raise ArchiveError(Code.LIMIT, f"a packet block's {name} is {value}; 0 to 2^32 - 1 are allowed")

    @property
    def t0(self) -> int:
        """Earliest time, in ticks, held to what an index can say; 0 if no packet has one."""
        return _held(min(self._times(), default=0))

    @property
    def duration(self) -> int:
        """From the earliest time to the end of the packet that ends last, in ticks."""
        ends = (packet.time + packet.duration for packet in self.packets if packet.time is not None)
        return max(_held(max(ends, default=0)) - self.t0, 0)

    def _times(self) -> Iterator[int]:
        return (packet.time for packet in self.packets if packet.time is not None)

    def pack(self) -> bytes:
        """Return head, deflated table and data."""
        side = [_pack_side_data(packet.side_data) for packet in self.packets]
        table = deflate(_table(self.packets, side))
        head = self._HEAD.pack(bytes.fromhex(self.key), self.track, self.part, len(self.packets), len(table))
        bodies = (piece for packet, extra in zip(self.packets, side, strict=True) for piece in (packet.data, extra))
        return b"".join((head, table, *bodies))

    @classmethod
    def unpack(cls, payload: bytes) -> Self:
        """Read a chunk's payload; the sizes in its table fill it exactly."""
        if len(payload) < cls._HEAD.size:
            raise ArchiveError(Code.RECORD, f"packets in {len(payload)} bytes have no room for their head")
        key, track, part, count, table_bytes = cls._HEAD.unpack_from(payload)
        _check_count(count)
        start = cls._HEAD.size + table_bytes
        if start > len(payload):
            raise ArchiveError(Code.RECORD, f"a packet table of {table_bytes} bytes ends outside its chunk")
        table = inflate_exactly(payload[cls._HEAD.size : start], _ROW_BYTES * count)
        return cls(key=key.hex(), track=track, part=part, packets=tuple(_packets(table, count, payload, start)))


def _check_count(count: int) -> None:
    if not 1 <= count <= MAX_PACKETS:
        raise ArchiveError(Code.LIMIT, f"a block of {count} packets; 1 to {MAX_PACKETS} are allowed")


def _held(ticks: int) -> int:
    return max(-MAX_TICK, min(MAX_TICK, ticks))


def _table(packets: Sequence[CopiedPacket], side: Sequence[bytes]) -> bytes:
    columns = (
        [_NONE if packet.pts is None else packet.pts for packet in packets],
        [_NONE if packet.dts is None else packet.dts for packet in packets],
        [packet.duration for packet in packets],
        [len(packet.data) for packet in packets],
        [len(extra) for extra in side],
        [packet.flags for packet in packets],
    )
    return b"".join(np.array(column, form).tobytes() for column, form in zip(columns, _COLUMNS, strict=True))


def _packets(table: bytes, count: int, payload: bytes, start: int) -> Iterator[CopiedPacket]:
    columns, at = [], 0
    for form in _COLUMNS:
        columns.append(np.frombuffer(table, form, count, at).tolist())
        at += count * np.dtype(form).itemsize
    end = start + sum(columns[3]) + sum(columns[4])
    if end != len(payload):
        raise ArchiveError(Code.RECORD, f"packets that end at byte {end} of a payload of {len(payload)}")
    for pts, dts, duration, length, side_length, flags in zip(*columns, strict=True):
        middle, stop = start + length, start + length + side_length
        yield CopiedPacket(
            data=payload[start:middle],
            pts=None if pts == _NONE else pts,
            dts=None if dts == _NONE else dts,
            duration=duration,
            flags=flags,
            side_data=tuple(_unpack_side_data(payload[middle:stop])),
        )
        start = stop


def _pack_side_data(side_data: SideData) -> bytes:
    parts = (
        (bytes((len(name),)), name.encode("ascii"), Struct("<I").pack(len(data)), data) for name, data in side_data
    )
    return b"".join(piece for part in parts for piece in part)


def _unpack_side_data(data: bytes) -> Iterator[tuple[str, bytes]]:
    at = count = 0
    while at < len(data):
        count += 1
        name_end = at + 1 + data[at]
        start = name_end + 4
        stop = start + int.from_bytes(data[name_end:start], "little")
        name = data[at + 1 : name_end]
        if max(start, stop) > len(data) or not name.isascii() or not name or count > MAX_SIDE_DATA:
            raise ArchiveError(Code.RECORD, f"side data at byte {at} of {len(data)} is not as described")
        yield name.decode("ascii"), data[start:stop]
        at = stop
