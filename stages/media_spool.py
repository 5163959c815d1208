"""Packets and attachments on disk until the file that takes them can be written: a film's sound has no room in memory.

They may come in any order, and again after a failed attempt. Where they wait has no name, so nothing is left behind by
a run that is killed.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Hashable, Iterable, Iterator
from pathlib import Path
from struct import Struct

from framefold.codecs.clip import Source
from framefold.codecs.rest import Attachment, Packet, Packets

MAX_ATTACHMENT_BYTES = 2**28
"""What belongs into a video file, such as a font, is not larger. Whole originals are, and are not written here."""

_HEAD = Struct("<qqqIII")
"""pts, dts, duration, bytes, bytes of side data, flags."""
_SIDE = Struct("<BI")
_NONE = -(2**63)


class Spool:
    """A file without a name, in which each *lane* of packets can be read in the order in which it was written."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by close()
        self._runs: dict[Hashable, list[tuple[int, int]]] = {}
        self._end = 0

    def add(self, lane: Hashable, packets: Iterable[Packet]) -> None:
        """Append packets to a lane."""
        start = self._end
        for packet in packets:
            self._write(_packed(packet))
        runs = self._runs.setdefault(lane, [])
        if runs and runs[-1][1] == start:
            start = runs.pop()[0]
        runs.append((start, self._end))

    def read(self, lane: Hashable) -> Iterator[Packet]:
        """Yield a lane's packets; one at a time is in memory."""
        self._file.flush()
        for start, end in self._runs.get(lane, ()):
            at = start
            while at < end:
                packet, at = self._packet(at)
                yield packet

    def keep(self, data: bytes) -> tuple[int, int]:
        """Append bytes; give what `get` takes."""
        self._write(data)
        return self._end - len(data), len(data)

    def get(self, place: tuple[int, int]) -> bytes:
        """Return bytes that were kept."""
        self._file.flush()
        return os.pread(self._file.fileno(), place[1], place[0])

    def close(self) -> None:
        """Give the disk its room back."""
        self._file.close()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._end += len(data)

    def _packet(self, start: int) -> tuple[Packet, int]:
        pts, dts, duration, size, side_size, flags = _HEAD.unpack(self.get((start, _HEAD.size)))
        body = self.get((start + _HEAD.size, size + side_size))
        packet = Packet(
            data=body[:size],
            pts=None if pts == _NONE else pts,
            dts=None if dts == _NONE else dts,
            duration=duration,
            flags=flags,
            side_data=tuple(_side_data(body[size:])),
        )
        return packet, start + _HEAD.size + size + side_size


class Rest:
    """What came by port `rest`: packets by source and track, attachments by their SHA-256."""

    def __init__(self, folder: Path) -> None:
        self._spool = Spool(folder)
        self._parts: dict[tuple[str, str, int], set[int]] = {}
        self._attachments: dict[str, dict[int, tuple[int, int]]] = {}

    def take(self, item: Packets | Attachment) -> None:
        """Put an item aside; one that was here before is left out."""
        if isinstance(item, Attachment):
            self._take_attachment(item)
            return
        lane = _lane(item.source, item.track)
        parts = self._parts.setdefault(lane, set())
        if item.part not in parts:
            self._spool.add((lane, item.part), item.packets)
            parts.add(item.part)

    def _take_attachment(self, piece: Attachment) -> None:
        pieces = self._attachments.setdefault(piece.sha256, {})
        if piece.total_bytes <= MAX_ATTACHMENT_BYTES and piece.start not in pieces:
            pieces[piece.start] = self._spool.keep(piece.data)

    def packets(self, source: Source, track: int) -> Iterator[Packet]:
        """Yield a track's packets in their order."""
        lane = _lane(source, track)
        for part in sorted(self._parts.get(lane, ())):
            yield from self._spool.read((lane, part))

    def attachment(self, sha256: str) -> bytes | None:
        """Return a whole attachment; None if it, or a piece of it, did not come."""
        pieces = self._attachments.get(sha256, {})
        data = b"".join(self._spool.get(pieces[start]) for start in sorted(pieces))
        return data if hashlib.sha256(data).hexdigest() == sha256 else None

    def close(self) -> None:
        """Let go of everything."""
        self._spool.close()


def _lane(source: Source, track: int) -> tuple[str, str, int]:
    return source.sha256, source.name, track


def _packed(packet: Packet) -> bytes:
    side = b"".join(_SIDE.pack(len(name), len(data)) + name.encode("ascii") + data for name, data in packet.side_data)
    pts, dts = (_NONE if time is None else time for time in (packet.pts, packet.dts))
    head = _HEAD.pack(pts, dts, packet.duration, len(packet.data), len(side), packet.flags)
    return head + packet.data + side


def _side_data(data: bytes) -> Iterator[tuple[str, bytes]]:
    at = 0
    while at < len(data):
        name_bytes, size = _SIDE.unpack_from(data, at)
        start = at + _SIDE.size + name_bytes
        yield data[at + _SIDE.size : start].decode("ascii"), data[start : start + size]
        at = start + size
