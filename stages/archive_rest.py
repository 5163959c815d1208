"""What an archive holds of a source beside its pictures, given back as it was copied: attachments and packets."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from fractions import Fraction

from framefold.codecs.clip import Source
from framefold.codecs.rest import Attachment, Packet, Packets
from framefold.pipeline.archive import ArchiveReader, CopiedPacket, PacketBlock, UnitEntry
from framefold.pipeline.archive.contents import PacketEntry, SourceEntry
from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.stage import Emit, Output, Refused
from framefold.stages.selection import Selection

PIECE_BYTES = 32 * 2**20
"""Of an attachment: no item that travels is larger."""

_Window = tuple[Fraction, Fraction]
"""Seconds: from the first wanted frame's appearance to the last one's end."""
_NEVER = (Fraction(0), Fraction(-1))


class Rest:
    """Reads lazily; what cannot be read is refused by name and the others go on.

    Packets come in order of track and time. Of a range, those that sound or show meanwhile are given.
    """

    def __init__(self, reader: ArchiveReader, *, originals: bool = True) -> None:
        self._reader, self._originals = reader, originals
        self._given: set[str] = set()
        """SHA-256 of attachments, and keys of packets: shards may hold the same twice."""
        self._missing: set[str] = set()
        """SHA-256 of attachments that sources name and the archive does not have under this name."""
        self._blocks: dict[int, list[PacketEntry]] = {}
        for block in sorted(reader.packet_blocks, key=lambda block: (block.track, block.t0)):
            self._blocks.setdefault(block.source, []).append(block)

    def of(
        self, entry: SourceEntry, source: Source, units: Sequence[UnitEntry], selection: Selection
    ) -> Iterator[Output]:
        """Everything that belongs to one source and that the archive holds.

        Attachments come first, for a track's decoder may need one; those of several sources come with the first.
        """
        for sha256 in self._named(source):
            if sha256 not in self._reader.attachments:
                self._missing.add(sha256)
            elif sha256 not in self._given:
                self._given.add(sha256)
                yield from self._attachment(sha256, source)
        blocks = self._blocks.get(entry.number, [])
        window = self._window(units, source, selection) if blocks and not selection.is_all else None
        for block in blocks if window != _NEVER else ():
            yield from self._packets(block, source, window)

    def _named(self, source: Source) -> Iterator[str]:
        """SHA-256 of the attachments that a source names."""
        for attachment in source.carried.attachments:
            if attachment.kind != "original" or self._originals:
                yield attachment.sha256
        yield from (track.extradata for track in source.carried.tracks if track.extradata)

    def unreadable(self) -> Iterator[Output]:
        """Damaged pieces of attachments whose names nobody can tell any more; at the end, where some are missing."""
        if not self._missing:
            return
        for damage in self._reader.attachment_damage:
            yield Refused(f"attachment in {damage.chunk}", str(damage))
        for sha256 in self._reader.attachments.keys() - self._given:
            try:
                deque(self._reader.attachment_pieces(sha256), 0)
            except ArchiveError as error:
                yield Refused(f"attachment in {error.chunk}", str(error))

    def _attachment(self, sha256: str, source: Source) -> Iterator[Output]:
        total, start = self._reader.attachments[sha256], 0
        try:
            for data in self._reader.attachment_pieces(sha256):
                for place in range(0, max(len(data), 1), PIECE_BYTES):
                    piece = data[place : place + PIECE_BYTES]
                    attachment = Attachment(sha256=sha256, total_bytes=total, start=start, data=piece)
                    yield Emit(attachment, identity=f"attachment:{sha256}:{start}", port="rest")
                    start += len(piece)
        except ArchiveError as error:
            yield Refused(f"{source.name} attachment {sha256[:8]}", str(error))

    def _packets(self, block: PacketEntry, source: Source, window: _Window | None) -> Iterator[Output]:
        if block.track >= len(source.carried.tracks):
            message = f"packets of track {block.track}, and {len(source.carried.tracks)} tracks are described"
            yield Refused(f"{source.name} {block.id}", str(ArchiveError(Code.NO_SUCH, message, chunk=block.id)))
            return
        base = Fraction(*source.carried.tracks[block.track].time_base)
        if window and not _meets(window, block.t0 * base, (block.t0 + block.duration) * base):
            return
        try:
            packets = self._reader.read_packets(block.id)
        except ArchiveError as error:
            yield Refused(f"{source.name} {block.id}", str(error))
            return
        if packets.key not in self._given:
            self._given.add(packets.key)
            yield from _cut(packets, source, window)

    def _window(self, units: Sequence[UnitEntry], source: Source, selection: Selection) -> _Window:
        """When the wanted frames of these units are shown: from the first to the last unit that has any."""
        first = next(filter(None, (self._shown(unit, source, selection) for unit in units)), None)
        last = next(filter(None, (self._shown(unit, source, selection) for unit in reversed(units))), None)
        if first is None or last is None:
            return _NEVER
        return min(first[0], last[0]), max(first[1], last[1])

    def _shown(self, unit: UnitEntry, source: Source, selection: Selection) -> _Window | None:
        base = Fraction(*source.time_base)
        try:
            record = self._reader.read_unit(unit.id)
        except ArchiveError:  # its own turn to be refused comes later
            return unit.t0 * base, (unit.t0 + unit.duration) * base
        ends = (*record.pts[1:], record.pts[-1] + record.duration_ticks)
        times = enumerate(zip(record.pts, ends, strict=True), start=record.first_frame)
        wanted = [pair for number, pair in times if selection.has_frame(number, pair[0], source.time_base)]
        return (min(min(wanted)) * base, max(map(max, wanted)) * base) if wanted else None


def _cut(block: PacketBlock, source: Source, window: _Window | None) -> Iterator[Output]:
    base = Fraction(*source.carried.tracks[block.track].time_base)
    kept = [packet for packet in block.packets if window is None or _is_within(packet, base, window)]
    if kept:
        packets = tuple(_packet(packet) for packet in kept)
        part = "" if window is None else f":{window[0]}:{window[1]}"
        payload = Packets(source=source, track=block.track, part=block.part, packets=packets)
        yield Emit(payload, identity=f"packets:{block.key}{part}", port="rest")


def _is_within(packet: CopiedPacket, base: Fraction, window: _Window) -> bool:
    """A packet without any time belongs to every range."""
    return packet.time is None or _meets(window, packet.time * base, (packet.time + packet.duration) * base)


def _meets(window: _Window, start: Fraction, end: Fraction) -> bool:
    return start < window[1] and (end > window[0] or start >= window[0])


def _packet(packet: CopiedPacket) -> Packet:
    return Packet(
        data=packet.data,
        pts=packet.pts,
        dts=packet.dts,
        duration=packet.duration,
        flags=packet.flags,
        side_data=packet.side_data,
    )
