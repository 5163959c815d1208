"""Subtitle packets as FFmpeg's muxers want them, which for two codecs is not as demuxers give them.

Blu-ray's (PGS) come in pieces from MPEG-TS. The Matroska muxer would join them, but what begins in the middle it puts
into the file's first track, among the pictures; so they are joined here, and none of that kind gets to it.

MP4's timed text has an empty packet wherever nothing is shown. The MP4 muxer writes those by itself, and would write
each twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from framefold.codecs.rest import Packet

_FIRST, _LAST = 0x16, 0x80
"""Types of segments: the composition with which a display set begins, and its end."""
_NO_TEXT = b"\0\0"
"""A length of zero."""
_HEAD, _SHORTEST_FIRST = 3, 11
_LARGEST = 2**24
"""Bytes of a display set; a Blu-ray's decoder has buffers for 4 MiB."""


def fit_packets(codec: str, packets: Iterable[Packet]) -> Iterator[Packet]:
    """Yield a track's packets for a muxer; what nothing can be made of comes as packets without bytes."""
    if codec == "hdmv_pgs_subtitle":
        return _display_sets(packets)
    return _texts(packets) if codec == "mov_text" else iter(packets)


def _texts(packets: Iterable[Packet]) -> Iterator[Packet]:
    """Leave out what is empty, but for the last one, which the muxer cannot know of."""
    last = None
    for packet in packets:
        if last and last.data != _NO_TEXT:
            yield last
        last = packet
    if last:
        yield last


def _display_sets(packets: Iterable[Packet]) -> Iterator[Packet]:
    """Join pieces to whole display sets."""
    waiting: list[Packet] = []
    size = 0
    for packet in packets:
        kinds = _kinds(packet.data)
        if _FIRST in kinds[:1]:
            yield from map(_emptied, waiting)
            waiting, size = [], 0
        size += len(packet.data)
        fits = waiting or _FIRST in kinds[:1]
        if not fits or not kinds or _FIRST in kinds[1:] or _LAST in kinds[:-1] or size > _LARGEST:
            yield from map(_emptied, [*waiting, packet])
            waiting, size = [], 0
            continue
        waiting.append(packet)
        if kinds[-1] == _LAST:
            yield replace(waiting[0], data=b"".join(each.data for each in waiting))
            waiting, size = [], 0
    yield from map(_emptied, waiting)


def _emptied(packet: Packet) -> Packet:
    return replace(packet, data=b"")


def _kinds(data: bytes) -> list[int]:
    """Types of the segments; none if `data` is not made of whole segments."""
    kinds, at = [], 0
    while at + _HEAD <= len(data):
        size = _HEAD + int.from_bytes(data[at + 1 : at + _HEAD])
        if data[at] == _FIRST and size < _SHORTEST_FIRST:
            return []
        kinds.append(data[at])
        at += size
    return kinds if at == len(data) else []
