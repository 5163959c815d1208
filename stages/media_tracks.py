"""Audio, subtitle and data tracks: what they are, and their packets, copied as the demuxer gives them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from io import BufferedReader
from typing import Any, Literal

from av.container import InputContainer
from av.stream import Discard, Disposition

from framefold.codecs.carried import Track
from framefold.codecs.clip import Source
from framefold.codecs.rest import Packet, Packets
from framefold.pipeline.errors import RefusedInput
from framefold.stages.media_probe import MEDIA_ERRORS, is_packet, open_media, picture_track
from framefold.stages.media_tags import TagKeeper

MAX_TRACKS = 256
MAX_PACKET_BYTES = 2**26
PART_BYTES, PART_PACKETS = 2**20, 65_536
"""What one payload holds at most, or a single packet."""
_WAITING_BYTES = 2**24
"""Of all tracks together: the longest part is handed out early rather than more."""
_MAX_INT32 = 2**31 - 1
_log = logging.getLogger(__name__)
_FLAGS = ("is_keyframe", "is_corrupt", "is_discard", "is_trusted", "is_disposable")


def copied_streams(container: InputContainer) -> list[Any]:
    """Return the streams whose packets are copied, in their order; RefusedInput if they are too many.

    A second video track is copied like data. The text track that holds an MP4's chapters is not: they are read
    as chapters. Cover pictures and attached files are kept as attachments.
    """
    pictures = picture_track(container)
    streams = [stream for stream in container.streams if stream is not pictures and _is_track(stream)]
    if len(streams) > MAX_TRACKS:
        raise RefusedInput(f"{len(streams)} tracks beside the pictures; at most {MAX_TRACKS} (MAX_TRACKS) are allowed")
    return streams


def _is_track(stream: Any) -> bool:
    if stream.type == "attachment" or is_cover(stream):
        return False
    return not (stream.type == "data" and stream.discard == Discard.all)  # so FFmpeg marks a text track of chapters


def is_cover(stream: Any) -> bool:
    """Whether a video stream is one picture that stands for the file."""
    return bool(stream.disposition & Disposition.attached_pic and not stream.disposition & Disposition.timed_thumbnails)


def track_of(stream: Any, packets: int, tags: TagKeeper, attach: Callable[[bytes, str], str]) -> Track:
    """Describe a stream; `attach` takes the bytes that its decoder needs first and gives their SHA-256."""
    place, context = f"track {stream.index}", stream.codec_context
    if stream.type == "video":
        _log.warning("%s is a second video (%s): it is copied as data and not decoded", place, codec_name(stream))
    base = stream.time_base or Fraction(1)
    extradata = context.extradata if context else None
    return Track(
        index=stream.index,
        kind=_kind(stream),
        codec=codec_name(stream),
        codec_tag=_codec_tag(context),
        profile=tags.text(place, stream.profile),
        time_base=(base.numerator, base.denominator),
        extradata=attach(extradata, place) if extradata else None,
        disposition=int(stream.disposition) & _MAX_INT32,
        metadata=tags.keep(place, stream.metadata),
        packets=packets,
        **(_sound(context) if context and stream.type == "audio" else {}),
    )


def _kind(stream: Any) -> Literal["audio", "subtitle", "data"]:
    kinds: dict[str, Literal["audio", "subtitle"]] = {"audio": "audio", "subtitle": "subtitle"}
    return kinds.get(stream.type, "data")


def codec_name(stream: Any) -> str:
    """Return FFmpeg's name of the format, not of one of its decoders; `unknown` where there is none."""
    if stream.codec_context:
        return str(stream.codec_context.codec.canonical_name)
    return (stream.name if stream.type == "data" else None) or "unknown"


def _codec_tag(context: Any) -> int:
    try:
        return int.from_bytes(context.codec_tag.encode("ascii"), "little") if context else 0
    except ValueError:  # PyAV decodes it as ASCII, which a tag need not be
        return 0


def _sound(context: Any) -> dict[str, Any]:
    return {
        "bit_rate": max(0, context.bit_rate or 0),
        "sample_rate": max(0, context.sample_rate or 0),
        "sample_format": context.format.name if context.format else "",
        "layout": context.layout.name,
        "channels": context.layout.nb_channels,
        "frame_size": max(0, context.frame_size or 0),
    }


def read_packets(file: BufferedReader, source: Source) -> Iterator[Packets]:
    """Yield the packets of all tracks that `source` describes, in parts, as they come in the file.

    RefusedInput if they are not as many as were counted, or one is larger than MAX_PACKET_BYTES.
    """
    tracks = {track.index: number for number, track in enumerate(source.carried.tracks)}
    parts = [_Part(source, number) for number in tracks.values()]
    waiting = 0
    if not tracks:
        return
    with open_media(file) as container:
        for packet in _demux(container, [stream for stream in container.streams if stream.index in tracks]):
            copied, part = _packet(packet), parts[tracks[packet.stream.index]]
            if not part.has_room(copied):
                waiting -= part.size
                yield part.hand_out()
            waiting += part.take(copied)
            if waiting > _WAITING_BYTES:
                longest = max(parts, key=lambda each: each.size)
                waiting -= longest.size
                yield longest.hand_out()
    yield from (part.hand_out() for part in parts if part.packets)
    _check_counts(source, parts)


def _demux(container: InputContainer, streams: list[Any]) -> Iterator[Any]:
    try:
        for packet in container.demux(streams):
            if packet.size > MAX_PACKET_BYTES:
                raise RefusedInput(
                    f"track {packet.stream.index} has a packet of {packet.size} bytes (MAX_PACKET_BYTES)"
                )
            if is_packet(packet):
                yield packet
    except MEDIA_ERRORS as error:
        raise RefusedInput(f"reading its tracks stopped: {error}") from error


def _check_counts(source: Source, parts: Sequence[_Part]) -> None:
    for track, part in zip(source.carried.tracks, parts, strict=True):
        if part.total != track.packets:
            raise RefusedInput(
                f"track {track.index} gave {part.total} packets, and {track.packets} before: the file changed while it "
                "was read; run again when nobody writes to it"
            )


@dataclass
class _Part:
    """Packets of one track that wait to be handed out together."""

    source: Source
    track: int
    packets: list[Packet] = field(default_factory=list)
    size: int = 0
    number: int = 0
    total: int = 0

    def has_room(self, packet: Packet) -> bool:
        full = self.size + _size(packet) > PART_BYTES or len(self.packets) == PART_PACKETS
        return not (self.packets and full)

    def take(self, packet: Packet) -> int:
        self.packets.append(packet)
        self.size += _size(packet)
        self.total += 1
        return _size(packet)

    def hand_out(self) -> Packets:
        packets = Packets(source=self.source, track=self.track, part=self.number, packets=tuple(self.packets))
        self.packets, self.size, self.number = [], 0, self.number + 1
        return packets


def _size(packet: Packet) -> int:
    return len(packet.data) + sum(len(data) for _, data in packet.side_data)


def _packet(packet: Any) -> Packet:
    return Packet(
        data=bytes(packet),
        pts=packet.pts,
        dts=packet.dts,
        duration=max(0, packet.duration or 0),
        flags=sum(1 << bit for bit, name in enumerate(_FLAGS) if getattr(packet, name)),
        side_data=tuple(_side_data(packet)),
    )


def _side_data(packet: Any) -> Iterator[tuple[str, bytes]]:
    for data in packet.iter_sidedata():
        try:
            yield data.data_type, bytes(data)
        except IndexError:
            _log.warning("%s: side data of a type that is not known here is not kept", packet.stream)
