"""Copied tracks, attached files and cover pictures into a container, beside pictures that were coded anew."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av

from framefold.codecs.carried import AttachmentRef, Track
from framefold.codecs.clip import Source
from framefold.codecs.rest import Packet
from framefold.stages.media_lanes import Lane
from framefold.stages.media_spool import Rest
from framefold.stages.media_subtitles import fit_packets
from framefold.stages.media_tags import titled
from framefold.stages.media_templates import NoTemplate, describe, encoder_stream, template

MUX_ERRORS = (av.FFmpegError, ValueError, OverflowError, RuntimeError)
"""What PyAV raises over a stream or packet that a container does not take."""

CONTAINERS = {"mp4": "MP4", "matroska": "Matroska"}
"""FFmpeg's names of the muxers, and people's."""

_ATTACHED_PICTURE = 1 << 10
_OF_STILLS = _ATTACHED_PICTURE | 1 << 11 | 1 << 20
"""Dispositions of streams that are pictures."""
_MAX_INT32 = 2**31 - 1
_COVERS = {b"\xff\xd8\xff": "mjpeg", b"\x89PNG": "png"}
NO_FILES = frozenset(("extradata", "side_data", "original"))
"""Attachments that are not files in a container: what they say is written in other ways."""


@dataclass(frozen=True)
class Loss:
    """Something of an original that a written file does not hold."""

    item: str
    reason: str


def track_label(track: Track) -> str:
    """Name a track for people: `audio track 2 (aac, deu)`."""
    language = dict(track.metadata).get("language", "und")
    return f"{track.kind} track {track.index} ({', '.join((track.codec, language)[: 1 + (language != 'und')])})"


def disposition_of(bits: int) -> int:
    """Return FFmpeg's bits without those that would make a stream a still picture."""
    return bits & ~_OF_STILLS & _MAX_INT32


@dataclass
class Muxer:
    """Adds to a container, before its header is written, what belongs to a source; then writes packets by time."""

    container: Any
    source: Source
    rest: Rest
    losses: list[Loss] = field(default_factory=list)
    added: list[Track] = field(default_factory=list)
    """The tracks that go into the file, in its order."""

    def __post_init__(self) -> None:
        self._format: str = self.container.format.name
        self._lanes: list[Lane] = []
        self._covers: list[tuple[Any, bytes]] = []

    def add(self) -> None:
        """Add a stream for each track and file; what cannot be added becomes a loss."""
        for number, track in enumerate(self.source.carried.tracks):
            try:
                self._add_track(number, track)
            except NoTemplate as error:
                self.losses.append(Loss(track_label(track), str(error)))
        for ref in self.source.carried.attachments:
            if ref.kind not in NO_FILES:
                self._add_file(ref)

    def _add_track(self, number: int, track: Track) -> None:
        if track.kind == "data":
            raise NoTemplate("data and further videos stay in the archive, bit for bit, and are not written")
        first = next(self.rest.packets(self.source, number), None)
        if first is None and track.packets:
            raise NoTemplate("none of its packets came; connect the port `rest`, as in inputs: [frames, bits.rest]")
        if first is None and self._format == "mp4":
            raise NoTemplate("it is empty, and MP4 has no empty tracks")
        recipe = _Recipe(track, self._header_of(track), _delay(first))

        def packets() -> Iterator[Packet]:
            return fit_packets(track.codec, self.rest.packets(self.source, number))

        unfit = recipe.rehearse(self._format, packets)
        if unfit and recipe.rehearse(self._format, packets, left_out=unfit):
            raise NoTemplate(f"{CONTAINERS[self._format]} does not take its packets")
        lane = recipe.lane(self.container, packets, left_out=unfit)
        lane.stream.metadata.update(titled(track.metadata))
        lane.stream.disposition = disposition_of(track.disposition)
        self._lanes.append(lane)
        self.added.append(track)
        if unfit:
            reason = f"{len(unfit)} of its packets, the first of them number {min(unfit)}, are not taken"
            self.losses.append(Loss(track_label(track), f"{reason} by {CONTAINERS[self._format]}"))

    def _header_of(self, track: Track) -> bytes | None:
        if track.extradata is None:
            return None
        extradata = self.rest.attachment(track.extradata)
        if extradata is None:
            raise NoTemplate(f"the header that its decoder needs (attachment {track.extradata[:8]}) did not come whole")
        return extradata

    def _add_file(self, ref: AttachmentRef) -> None:
        label = f"{ref.kind} {ref.name}".strip()
        data = self.rest.attachment(ref.sha256)
        if not data:
            self.losses.append(Loss(label, "it is empty" if ref.size_bytes == 0 else "its bytes did not come whole"))
        elif self._format == "matroska":
            name = ref.name or ("cover.jpg" if ref.kind == "cover" else ref.sha256[:8])
            self.container.add_attachment(name, ref.media_type or "application/octet-stream", data)
        elif ref.kind == "cover" and _cover_codec(data):
            self._add_cover(_cover_codec(data), data)
        else:
            self.losses.append(Loss(label, "MP4 holds no attached files but JPEG and PNG covers; .mkv does"))

    def _add_cover(self, codec: str, data: bytes) -> None:
        with ExitStack() as files:
            stream = self.container.add_stream_from_template(encoder_stream(files, codec), opaque=True)
        stream.disposition, stream.time_base = _ATTACHED_PICTURE, Fraction(1, 90_000)
        self._covers.append((stream, data))

    def write(self, pictures: Iterable[Packet], stream: Any, base: Fraction) -> None:
        """Write everything in order of time; `base` is seconds per tick of the pictures."""
        self.container.start_encoding()
        for cover, data in self._covers:
            packet: Any = av.Packet(data)
            packet.stream, packet.time_base, packet.pts, packet.dts = cover, cover.time_base, 0, 0
            packet.is_keyframe = True
            self.container.mux_one(packet)
        lanes = [Lane(stream, base, lambda: iter(pictures)), *self._lanes]
        for *_, packet in heapq.merge(*(_numbered(number, lane) for number, lane in enumerate(lanes))):
            self.container.mux_one(packet)
        for track, lane in zip(self.added, self._lanes, strict=True):
            self._note(track, lane)

    def _note(self, track: Track, lane: Lane) -> None:
        container, label = CONTAINERS[self._format], track_label(track)
        if lane.empty:
            self.losses.append(
                Loss(label, f"{lane.empty} packets that hold nothing, or nothing whole, are not written")
            )
        if lane.moved:
            self.losses.append(Loss(label, f"{lane.moved} times that do not grow are put behind the one before"))
        if lane.rounded:
            tick = lane.stream.time_base
            self.losses.append(Loss(f"times of {label}", f"{container} rounds {lane.rounded} of them to {tick} s"))


@dataclass(frozen=True)
class _Recipe:
    """How to make a stream for a track, in whichever container."""

    track: Track
    extradata: bytes | None
    delay: int

    def lane(
        self, container: Any, packets: Callable[[], Iterator[Packet]], *, left_out: frozenset[int] = frozenset()
    ) -> Lane:
        """Add a stream; NoTemplate says why the container does not take it."""
        try:
            with template(self.track, extradata=self.extradata, delay=self.delay) as model:
                stream = container.add_stream_from_template(model)
            describe(stream, self.track, self.extradata)
        except MUX_ERRORS as error:
            name = CONTAINERS[container.format.name]
            raise NoTemplate(f"{name} does not hold {self.track.codec} ({error})") from error
        strict = container.format.name == "mp4" and self.track.kind == "audio"
        return Lane(stream, Fraction(*self.track.time_base), packets, strict=strict, left_out=left_out)

    def rehearse(
        self, form: str, packets: Callable[[], Iterator[Packet]], *, left_out: frozenset[int] = frozenset()
    ) -> frozenset[int]:
        """Write the track alone, to nowhere, and return the places of packets that fail; NoTemplate if all does."""
        unfit = set()
        try:
            with av.open(_Nowhere(), "w", format=form) as container:
                lane = self.lane(container, packets, left_out=left_out)
                container.start_encoding()
                for _, place, packet in lane.packets():
                    try:
                        container.mux_one(packet)
                    except MUX_ERRORS:
                        unfit.add(place)
        except MUX_ERRORS as error:
            raise NoTemplate(f"{CONTAINERS[form]} does not take it: {error}") from error
        return frozenset(unfit)


class _Nowhere:
    """A file that forgets what is written."""

    def __init__(self) -> None:
        self._at = self._size = 0

    def write(self, data: bytes) -> int:
        self._at += len(data)
        self._size = max(self._size, self._at)
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at


def _numbered(number: int, lane: Lane) -> Iterator[tuple[float, int, int, Any]]:
    return ((seconds, number, place, packet) for seconds, place, packet in lane.packets())


def _delay(first: Packet | None) -> int:
    """Samples that the decoder is to drop at the beginning, as the demuxer told with the first packet."""
    skipped = dict(first.side_data).get("skip_samples", b"") if first else b""
    return min(int.from_bytes(skipped[:4], "little"), 2**20)


def _cover_codec(data: bytes) -> str:
    return next((codec for magic, codec in _COVERS.items() if data.startswith(magic)), "")
