"""What is in a video file, found out before a frame is decoded; nothing here trusts the file.

Only containers on a list are opened, from a file object, and any wish of a demuxer to open a second file is
refused: a `.mp4` that is really an ffconcat list or an HLS playlist would otherwise show other local files.

What counts as truncated: a file that ends before the length that it states itself; packets cut short; fewer
packets than the sample index lists; Matroska whose demuxer reports damage. MPEG-TS and raw streams state no
length, so a tail missing there cannot be told from a shorter film.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from io import BufferedReader
from typing import Any

import av
import av.logging
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from framefold.codecs.clip import MAX_PIXELS, MAX_SIDE
from framefold.pipeline.errors import RefusedInput
from framefold.stages.media_tail import missing_tail

FORMATS = tuple(
    "mov mp4 m4a 3gp 3g2 mj2 matroska webm avi mpegts mpeg flv ogg nut "
    "asf mxf dv yuv4mpegpipe ivf h264 hevc obu m4v mpegvideo".split()
)
"""FFmpeg's names of the demuxers that may run. None of them follows a reference to another file by itself."""

SUFFIXES = tuple(
    ".mp4 .m4v .mov .3gp .mkv .webm .avi .ts .m2ts .mts .mpg .mpeg .vob "
    ".flv .ogv .nut .wmv .asf .mxf .dv .y4m .ivf .h264 .264 .hevc .265 .obu".split()
)
"""What is taken for a video in a folder."""

MAX_FRAMES = 2_592_000
"""12 hours at 60 frames per second: longer than any film, short enough to index in memory."""

MEDIA_ERRORS = (av.FFmpegError, OSError, ValueError, ArithmeticError, LookupError)
"""What PyAV raises over a file that is not what it says."""


@dataclass(frozen=True)
class VideoProbe:
    """What the demuxer says of the picture track."""

    time_base: Fraction
    """Seconds per tick."""
    frame_rate: Fraction | None
    """Average frames per second, if the container knows."""
    picture_bytes: int = 0
    """Of the packets of the picture track."""
    packets: Mapping[int, int] = field(default_factory=dict)
    """Of each stream, by its index."""


def open_media(file: BufferedReader) -> InputContainer:
    """Open the file's container, from its beginning; RefusedInput if it is none of `FORMATS`."""
    file.seek(0)
    try:
        return av.open(
            file,
            "r",
            options={"format_whitelist": ",".join(FORMATS)},
            metadata_errors="surrogateescape",  # bytes that are no UTF-8 are kept as what they are
            io_open=_refuse_second_file,
        )
    except MEDIA_ERRORS as error:
        raise RefusedInput(
            "not a video file of a kind that is read here (MP4/MOV, Matroska/WebM, AVI, MPEG, FLV, Ogg, NUT, "
            "ASF, MXF, DV, Y4M, IVF, raw H.264/HEVC/AV1); playlists and lists of files are never followed"
        ) from error


def _refuse_second_file(url: str, flags: int, options: dict[str, str]) -> Any:
    raise PermissionError(f"the file refers to another one ({url}), which is not opened")


def probe(file: BufferedReader) -> VideoProbe:
    """Read every packet; RefusedInput says what is wrong with the file or its picture track."""
    cut = missing_tail(file)
    if cut:
        raise RefusedInput(f"truncated: {cut}; copy the file again from where it came")
    with open_media(file) as container:
        stream = picture_track(container)
        _check_size(stream.codec_context.width, stream.codec_context.height)
        listed = len(stream.index_entries) if "mp4" in container.format.name else 0
        packets, picture_bytes = _count_packets(container, stream)
        frames = packets[stream.index]
        if frames < listed:
            raise RefusedInput(f"truncated: {frames} of the {listed} frames that its index lists are there")
        if frames == 0 or stream.time_base is None:
            raise RefusedInput("its video track holds no frames")
        rate = stream.average_rate or stream.guessed_rate
        return VideoProbe(stream.time_base, Fraction(rate) if rate else None, picture_bytes, packets)


def picture_track(container: InputContainer) -> VideoStream:
    """Return the first video stream that is not a cover picture."""
    for stream in container.streams.video:
        if stream.disposition & Disposition.attached_pic:
            continue
        if not stream.codec_context:  # None, whatever PyAV's type hints say
            raise RefusedInput("its video track is coded in a way that is not known here")
        return stream
    kinds = sorted({stream.type for stream in container.streams})
    raise RefusedInput(f"holds no video track, only {', '.join(kinds) or 'an empty container'}")


def _check_size(width: int, height: int) -> None:
    if min(width, height) < 1:
        raise RefusedInput("states no frame size, or one far beyond what can be decoded")
    if max(width, height) > MAX_SIDE:
        raise RefusedInput(f"frames of {width}x{height} pixels; at most {MAX_SIDE} per side (MAX_SIDE) are allowed")
    if width * height > MAX_PIXELS:
        raise RefusedInput(f"frames of {width}x{height} pixels; at most {MAX_PIXELS} in all (MAX_PIXELS) are allowed")


def _count_packets(container: InputContainer, stream: VideoStream) -> tuple[Counter[int], int]:
    """Packets of each stream, and bytes of those of the picture track, of which empty ones do not count."""
    counts, size, pictures = Counter[int](), 0, stream.index
    with _DemuxerErrors() as errors:
        try:
            for packet in container.demux():
                if packet.stream.index != pictures:
                    counts[packet.stream.index] += is_packet(packet)
                    continue
                if packet.is_corrupt:
                    raise RefusedInput(f"truncated or damaged: the data of frame {counts[pictures]} is cut short")
                counts[pictures] += packet.size > 0
                size += packet.size
                if counts[pictures] > MAX_FRAMES:
                    raise RefusedInput(f"more than {MAX_FRAMES} frames (MAX_FRAMES); split the file")
        except MEDIA_ERRORS as error:
            raise RefusedInput(
                f"truncated or damaged: reading stops after {counts[pictures]} frames ({error})"
            ) from error
    if errors.messages and "matroska" in container.format.name:  # it skips damage and only says so in its log
        raise RefusedInput(f"truncated or damaged, {counts[pictures]} frames are left: {errors.messages[0]}")
    return counts, size


def is_packet(packet: Any) -> bool:
    """Whether this is a packet of the file, not the empty one with which PyAV ends each stream."""
    return bool(packet.size or packet.pts is not None or packet.dts is not None)


class _DemuxerErrors:
    """Collects what libavformat reports as errors on this thread, which PyAV keeps silent otherwise."""

    def __enter__(self) -> _DemuxerErrors:
        self.messages: list[str] = []
        self._level, self._skip = av.logging.get_level(), av.logging.get_skip_repeated()
        av.logging.set_skip_repeated(False)  # else a second file with the same fault seems whole
        av.logging.set_level(av.logging.ERROR)
        self._capture = av.logging.Capture(local=True)
        self._logs = self._capture.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._capture.__exit__(None, None, None)
        av.logging.set_level(self._level)
        av.logging.set_skip_repeated(self._skip)
        self.messages = [text.strip() for _, name, text in self._logs if "matroska" in name]
