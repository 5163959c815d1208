"""Coded video to pictures, one at a time, with their exact times.

Samples are taken as the decoder gives them (`media_planes`), with the tags that say what colours they mean; unspecified
stays unspecified. What is to be RGB, or has no pixel format of ours, is converted by each frame's own matrix and range
tags, with bit-exact rounding, so that every machine gets the same pixels. An untagged matrix is read as players read
it: BT.709 from 1280 pixels of width or more than 576 lines on, BT.601 below; an untagged range is limited for YUV and
full for RGB and `yuvj` formats. Samples of more than 8 bits then become 8, and alpha is dropped. Frames stay as coded:
rotation and pixel aspect are not applied.

Decoding runs on one thread: only then does FFmpeg mark each picture in which it had to hide damage. Its HEVC
decoder hides some damage without a mark, so a whole decode is no proof that the file is as it was made.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from io import BufferedReader

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, VideoReformatter

from framefold.codecs.clip import MAX_PIXELS, ColorTags, Frames
from framefold.codecs.pixel_format import RGB, PixelFormat
from framefold.pipeline.errors import RefusedInput
from framefold.stages.media_look import FirstLook, look_at
from framefold.stages.media_planes import EXACT, format_of, samples_of
from framefold.stages.media_probe import MEDIA_ERRORS, VideoProbe, open_media, picture_track

MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
}
MATRICES |= {9: Colorspace.BT2020}
"""Code points of ISO/IEC 23091-2 that swscale converts."""

_UNSPECIFIED = 2
_FULL = 2
_Form = tuple[int, int, PixelFormat]
"""Width, height, pixels."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Picture:
    """One decoded frame."""

    samples: Frames
    """(C, H, W)."""
    pixels: PixelFormat
    pts: int
    """Presentation time in ticks of the stream."""
    duration: int
    """Ticks; 0 if the file does not say and no rate is known."""
    color: ColorTags
    look: FirstLook | None = None
    """Of the first frame only."""


def decode_pictures(file: BufferedReader, probe: VideoProbe, *, as_rgb: bool = False) -> Iterator[Picture]:
    """Yield the pictures in presentation order; RefusedInput names the frame from which there are none."""
    clock, first = _Clock(probe), None
    reformatter = VideoReformatter()
    for number, (frame, codec) in enumerate(_frames(file)):
        pixels = (None if as_rgb else format_of(frame.format.name)) or RGB
        first = first or (frame.width, frame.height, pixels)
        _check_alike(first, (frame.width, frame.height, pixels), number)
        samples = _rgb_samples(frame, reformatter) if pixels == RGB else samples_of(frame, reformatter)
        look = None if number else look_at(frame, codec, shares_chroma=pixels.chroma != (1, 1))
        yield Picture(samples, pixels, *clock.time_of(frame), color_of(frame), look)


def _check_alike(first: _Form, now: _Form, number: int) -> None:
    """RefusedInput if frame `number` is not like the first one."""
    if now[:2] != first[:2]:
        raise RefusedInput(
            f"the frame size changes from {first[0]}x{first[1]} to {now[0]}x{now[1]} at frame {number}; "
            "split the file there"
        )
    if now != first:
        raise RefusedInput(
            f"the pixel format changes from {first[2].name} to {now[2].name} at frame {number}; "
            "split the file there, or take all as 8-bit RGB with pixels: rgb"
        )


def _rgb_samples(frame: VideoFrame, reformatter: VideoReformatter) -> Frames:
    return to_rgb(frame, reformatter).transpose(2, 0, 1)


def _frames(file: BufferedReader) -> Iterator[tuple[VideoFrame, str]]:
    """Yield each frame with the name of its codec."""
    count = 0
    with open_media(file) as container:
        stream = picture_track(container)
        # The decoder compares sizes padded to whole blocks, so it gets some room; Source checks exactly.
        stream.codec_context.options = {"max_pixels": str(2 * MAX_PIXELS)}
        stream.codec_context.thread_count = 1
        codec = stream.codec_context.codec.canonical_name
        try:
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    raise RefusedInput(f"damaged from frame {count} on: part of the picture could not be decoded")
                yield frame, codec
                count += 1
        except MEDIA_ERRORS as error:
            cause = getattr(error, "strerror", None) or error
            raise RefusedInput(f"damaged from frame {count} on: {cause}") from error
    if count == 0:
        raise RefusedInput("its video track cannot be decoded to any picture")


def to_rgb(frame: VideoFrame, reformatter: VideoReformatter) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8."""
    try:
        rgb = reformatter.reformat(
            frame, format="rgb24", src_colorspace=_source_matrix(frame), interpolation=EXACT, threads=1
        )
    except MEDIA_ERRORS as error:
        raise RefusedInput(f"pixel format {frame.format.name} cannot be converted to RGB: {error}") from error
    return np.asarray(rgb.to_ndarray(), dtype=np.uint8)


def _source_matrix(frame: VideoFrame) -> int | None:
    """Return what swscale calls the frame's matrix; None where none is needed."""
    if frame.format.is_rgb:
        return None
    if frame.colorspace == _UNSPECIFIED:
        return Colorspace.ITU709 if frame.width >= 1280 or frame.height > 576 else Colorspace.ITU601
    if frame.colorspace not in MATRICES:
        raise RefusedInput(
            f"colour matrix {frame.colorspace} (ISO/IEC 23091-2) cannot be converted to RGB; convert the "
            "file to BT.601, BT.709 or BT.2020 first"
        )
    return MATRICES[frame.colorspace]


def color_of(frame: VideoFrame) -> ColorTags:
    """Return the frame's tags as they are; a range out of bounds counts as unspecified, that of `yuvj` as full."""
    color_range = _FULL if frame.format.name.startswith("yuvj") else int(frame.color_range)
    return ColorTags(
        primaries=int(frame.color_primaries),
        transfer=int(frame.color_trc),
        matrix=int(frame.colorspace),
        range=color_range if color_range in (1, 2) else 0,
    )


class _Clock:
    """Times of the frames: the file's own, or counted on from the last known one at the average rate."""

    def __init__(self, probe: VideoProbe) -> None:
        self._step = 1 / (probe.frame_rate or Fraction(25)) / probe.time_base
        """Ticks per frame, not rounded: a hundred thousand frames on, the time is still right."""
        self._last_known = -self._step
        self._since = 0
        self._warned = False

    def time_of(self, frame: VideoFrame) -> tuple[int, int]:
        """(pts, duration) in ticks."""
        duration = frame.duration or max(1, round(self._step))
        if frame.pts is not None:
            self._last_known, self._since = Fraction(frame.pts), 0
            return frame.pts, duration
        if not self._warned:
            _log.warning("the file lacks presentation times; they are counted from its average frame rate")
            self._warned = True
        self._since += 1
        return round(self._last_known + self._since * self._step), duration
