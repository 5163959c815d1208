"""Streams of a given codec that are empty: what PyAV copies a new output stream from.

A stream that takes packets as they are has to know its codec's settings, and PyAV lets only a stream that was read
from a file pass them on. So that file is made here: a Matroska header in memory, of one track and no packets.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from fractions import Fraction
from io import BytesIO
from typing import Any

import av

from framefold.codecs.carried import Track
from framefold.stages.media_ebml import EBML, SEGMENT, decimal, element, text, unsigned

_AUDIO, _SUBTITLE = 2, 17
_CODECS = {
    "aac": "A_AAC",
    "ac3": "A_AC3",
    "alac": "A_ALAC",
    "dts": "A_DTS",
    "eac3": "A_EAC3",
    "flac": "A_FLAC",
    "mlp": "A_MLP",
    "mp1": "A_MPEG/L1",
    "mp2": "A_MPEG/L2",
    "mp3": "A_MPEG/L3",
    "opus": "A_OPUS",
    "truehd": "A_TRUEHD",
    "tta": "A_TTA1",
    "vorbis": "A_VORBIS",
    "wavpack": "A_WAVPACK4",
    "ass": "S_TEXT/ASS",
    "dvb_subtitle": "S_DVBSUB",
    "dvd_subtitle": "S_VOBSUB",
    "hdmv_pgs_subtitle": "S_HDMV/PGS",
    "subrip": "S_TEXT/UTF8",
    "webvtt": "D_WEBVTT/SUBTITLES",
}
"""FFmpeg's names to Matroska's (RFC 9559, codec mappings)."""
_PCM = re.compile(r"pcm_([usf])(8|16|24|32|64)(le|be|)")
_MP4_TEXT = "mov_text"
"""What Matroska has no track for; but PyAV has an encoder, so no header is needed."""
_MAX_INT32 = 2**31 - 1


class NoTemplate(Exception):
    """There is no way to write this codec here; the message says so."""


@contextmanager
def template(track: Track, *, extradata: bytes | None, delay: int = 0) -> Iterator[Any]:
    """Give a stream like `track`; its decoder drops the first `delay` samples. NoTemplate if there is none."""
    with ExitStack() as files:
        if track.codec == _MP4_TEXT:
            stream = encoder_stream(files, track.codec)
        else:
            stream = _demuxed(files, BytesIO(_header(track, extradata, delay)))
        if stream.type != track.kind:
            raise NoTemplate(f"{track.codec} is no {track.kind}")
        yield stream


def _demuxed(files: ExitStack, header: BytesIO) -> Any:
    try:
        return files.enter_context(av.open(header, "r", format="matroska")).streams[0]
    except (av.FFmpegError, IndexError) as error:
        raise NoTemplate(f"its description makes no track: {error}") from error


def encoder_stream(files: ExitStack, codec: str) -> Any:
    """Return a stream of a codec that has an encoder, from a file that is never written."""
    file = files.enter_context(closing(av.open(BytesIO(), "w", format="null")))
    return file.add_stream(codec)


def _header(track: Track, extradata: bytes | None, delay: int) -> bytes:
    kind = _AUDIO if track.kind == "audio" else _SUBTITLE
    entry = [unsigned(0xD7, 1), unsigned(0x73C5, 1), unsigned(0x83, kind), text(0x86, _codec_id(track.codec))]
    if extradata and track.codec in ("ass", "vorbis", "opus", "dvd_subtitle"):  # the demuxer wants to see them
        entry.append(element(0x63A2, extradata))
    if kind == _AUDIO:
        rate = track.sample_rate or 48_000
        entry.append(unsigned(0x56AA, round(Fraction(delay * 10**9, rate))))
        entry.append(element(0xE1, decimal(0xB5, rate), unsigned(0x9F, track.channels or 2), *_depth(track.codec)))
    head = element(EBML, *(unsigned(i, n) for i, n in _VERSIONS), text(0x4282, "matroska"))
    info = element(0x1549A966, unsigned(0x2AD7B1, 10**6), text(0x4D80, "-"), text(0x5741, "-"))
    return head + element(SEGMENT, info, element(0x1654AE6B, element(0xAE, *entry)), _EMPTY_CLUSTER)


_VERSIONS = ((0x4286, 1), (0x42F7, 1), (0x42F2, 4), (0x42F3, 8), (0x4287, 4), (0x4285, 2))
_EMPTY_CLUSTER = element(0x1F43B675, unsigned(0xE7, 0))


def _codec_id(codec: str) -> str:
    pcm = _PCM.fullmatch(codec)
    if pcm and codec != "pcm_s8":
        kind, _, order = pcm.groups()
        return "A_PCM/FLOAT/IEEE" if kind == "f" else "A_PCM/INT/BIG" if order == "be" else "A_PCM/INT/LIT"
    if codec not in _CODECS:
        raise NoTemplate(f"its codec {codec} cannot be written here")
    return _CODECS[codec]


def _depth(codec: str) -> Iterator[bytes]:
    pcm = _PCM.fullmatch(codec)
    if pcm:
        yield unsigned(0x6264, int(pcm[2]))


def describe(stream: Any, track: Track, extradata: bytes | None) -> None:
    """Tell a stream that was made from a template what only the original's track knows."""
    context = stream.codec_context
    context.extradata = extradata
    stream.time_base = Fraction(*track.time_base)
    if track.kind == "audio":
        for name, value in (("layout", _layout(track)), ("format", track.sample_format)):
            _try_to_set(context, name, value)
        if track.bit_rate <= _MAX_INT32:
            context.bit_rate = track.bit_rate


def _layout(track: Track) -> str:
    """Of one or two channels that are not named, what everybody takes them for: MP4 wants to know."""
    unnamed = track.layout in ("", f"{track.channels} channels")
    return {1: "mono", 2: "stereo"}.get(track.channels, track.layout) if unnamed else track.layout


def _try_to_set(context: Any, name: str, value: str) -> None:
    """Take a text of a stranger's archive; what FFmpeg does not know stays as the template has it."""
    try:
        setattr(context, name, value)
    except (ValueError, RuntimeError, struct.error, OverflowError, av.FFmpegError):
        return
