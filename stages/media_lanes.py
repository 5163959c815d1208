"""One stream's packets on their way into a container: as they were copied, in times that the container takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any, get_args

import av
from av.packet import PacketSideData, PktSideDataT

from framefold.codecs.rest import Packet

_SIDE_DATA_TYPES: Sequence[str] = get_args(PktSideDataT)


class Lane:
    """Makes PyAV's packets, which can be done more than once, and notes what had to be changed about them."""

    def __init__(
        self,
        stream: Any,
        base: Fraction,
        packets: Callable[[], Iterator[Packet]],
        *,
        strict: bool = False,
        left_out: frozenset[int] = frozenset(),
    ) -> None:
        """`base` is seconds per tick; with `strict` each time is later than the one before, not just as late.

        `left_out` are places of packets, counted from 0.
        """
        self.stream = stream
        self._base = base
        self._packets = packets
        self._step = int(strict)
        self._left_out = left_out
        self.moved = self.empty = self.rounded = 0
        """How many packets have another time, are not written as they hold nothing, or have a less exact time."""

    def packets(self) -> Iterator[tuple[float, int, Any]]:
        """Yield (time in seconds, place among all, packet) in the order of writing."""
        last: int | None = None
        seconds = 0.0
        for number, packet in enumerate(self._packets()):
            pts, dts = _times(packet)
            if dts is not None and last is not None and dts < last + self._step:
                dts = last + self._step
                self.moved += 1
            if not packet.data or number in self._left_out:
                self.empty += not packet.data
                continue
            if dts is not None:
                last, seconds = dts, float(dts * self._base)
                pts = dts if pts is None else max(pts, dts)
                self.rounded += not self._is_exact(pts)
            yield seconds, number, self._made(packet, pts, dts)

    def _is_exact(self, pts: int) -> bool:
        """Whether the container's own ticks, known once its header is written, hit this time."""
        grid = self.stream.time_base or self._base
        return (pts * self._base / grid).denominator == 1

    def _made(self, packet: Packet, pts: int | None, dts: int | None) -> Any:
        made: Any = av.Packet(packet.data)
        made.pts, made.dts, made.duration = pts, dts, packet.duration
        made.time_base, made.stream = self._base, self.stream
        made.is_keyframe = bool(packet.flags & 1)
        for name, data in packet.side_data:
            if name in _SIDE_DATA_TYPES and data:
                made.set_sidedata(_side_data(name, data))
        return made


def _times(packet: Packet) -> tuple[int | None, int | None]:
    """(pts, dts), of which the second is not the later one, and one stands in for the other."""
    pts = packet.dts if packet.pts is None else packet.pts
    dts = packet.pts if packet.dts is None else packet.dts
    return pts, dts if pts is None or dts is None else min(pts, dts)


def _side_data(name: str, data: bytes) -> PacketSideData:
    made: Any = PacketSideData
    side_data = made(_SIDE_DATA_TYPES.index(name), len(data))
    side_data.update(data)
    return side_data  # type: ignore[no-any-return]  # PyAV's hints leave its constructor out
