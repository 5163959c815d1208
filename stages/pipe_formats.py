"""Frames as a stream that players read from a pipe: y4m, raw RGB, or NUT. Nothing is sought, each frame is flushed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Literal

import av
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from framefold.codecs.clip import Frames, Source
from framefold.codecs.pixel_format import PixelFormat
from framefold.pipeline.errors import FramefoldError
from framefold.stages.media_decode import MATRICES
from framefold.stages.media_planes import EXACT
from framefold.stages.media_shown import Shown

Rgb = npt.NDArray[np.uint8]
"""One frame, (3, H, W), 0..255."""
Write = Callable[[bytes], int]
"""Takes all of the bytes and gives their number, as a file's `write`."""
Format = Literal["y4m", "rawvideo", "nut"]

_YUV_420 = PixelFormat(model="yuv", chroma=(2, 2))
_BT709, _BT601 = 1, 6
_SAME = {_BT709: (1,), _BT601: (5, 6)}
"""Code points of the same matrix."""
_UNSPECIFIED = 2
_LIMITED, _FULL = 1, 2
_MAX_INT32 = 2**31 - 1


class FrameStream(ABC):
    """Takes the frames of one source in order."""

    keeps_times = False
    """False: frames are taken to come at a constant rate."""

    def __init__(self, write: Write, source: Source, rate: Fraction) -> None:
        """`rate` in frames per second."""
        self.write, self.source, self.rate = write, source, rate
        self.shown = Shown(source)

    @abstractmethod
    def frame(self, frame: Frames, pts: int) -> None:
        """Write one frame, (C, H, W) of the source's format; `pts` in ticks of its time base."""

    def end(self) -> None:
        """Write what comes after the last frame; in most formats that is nothing."""
        self.write(b"")


class Y4m(FrameStream):
    """YUV 4:2:0 of 8 bits with a line of text before each frame: what every player and encoder takes.

    It says the range, but not the matrix: frames are made with the one that players take for this size, BT.709 from
    1280 pixels of width or more than 576 lines on, BT.601 below. Chroma then lies between the pixels, as in JPEG. A
    source that is stored so, with this matrix or none, is written as it is; its chroma is taken to lie as in MPEG-2.
    """

    def __init__(self, write: Write, source: Source, rate: Fraction) -> None:
        super().__init__(write, source, rate)
        self._range = _FULL if source.color.range == _FULL else _LIMITED
        self._matrix = _BT709 if source.width >= 1280 or source.height > 576 else _BT601
        self._as_it_is = source.pixels == _YUV_420 and source.color.matrix in (_UNSPECIFIED, *_SAME[self._matrix])
        self._reformatter = VideoReformatter()
        write(self._header().encode("ascii"))

    def _header(self) -> str:
        rate, aspect = self.rate, self.source.carried.pixel.aspect
        said = "FULL" if self._range == _FULL else "LIMITED"
        size = f"W{self.source.width} H{self.source.height} F{rate.numerator}:{rate.denominator}"
        sites = "mpeg2" if self._as_it_is else "jpeg"
        return f"YUV4MPEG2 {size} Ip A{aspect[0]}:{aspect[1]} C420{sites} XCOLORRANGE={said}\n"

    def frame(self, frame: Frames, pts: int) -> None:
        """The line and the three planes, in one write."""
        planes = self._stored(frame) if self._as_it_is else self._converted(frame)
        self.write(b"".join((b"FRAME\n", *planes)))

    def _stored(self, frame: Frames) -> Iterator[bytes]:
        return (planes.tobytes() for planes in self.source.pixels.stored(frame))

    def _converted(self, frame: Frames) -> Iterator[bytes]:
        picture = self._reformatter.reformat(
            VideoFrame.from_ndarray(_interleaved(self.shown.rgb(frame)), "rgb24"),
            format="yuv420p",
            dst_colorspace=MATRICES[self._matrix],
            dst_color_range=self._range,
            interpolation=EXACT | Interpolation.FULL_CHR_H_INP,
            threads=1,
        )
        return (_plane(picture, number).tobytes() for number in range(3))


class RawVideo(FrameStream):
    """Nothing but pixels: R, G, B, row by row. The reader has to be told size and rate."""

    def frame(self, frame: Frames, pts: int) -> None:
        """H * W * 3 bytes."""
        self.write(_interleaved(self.shown.rgb(frame)).tobytes())


class Nut(FrameStream):
    """Raw RGB in FFmpeg's own container, each frame with its exact time."""

    keeps_times = True

    def __init__(self, write: Write, source: Source, rate: Fraction) -> None:
        super().__init__(write, source, rate)
        self._base = _time_base(source)
        self._container = av.open(_File(write), "w", format="nut", options={"fflags": "+bitexact+flush_packets"})
        self._stream = self._container.add_stream("rawvideo", rate=rate)
        self._stream.width, self._stream.height, self._stream.pix_fmt = source.width, source.height, "rgb24"
        self._stream.time_base = self._stream.codec_context.time_base = self._base
        self._last: int | None = None

    def frame(self, frame: Frames, pts: int) -> None:
        """The container wants times that grow: one that does not is put a tick behind the one before."""
        self._last = pts if self._last is None else max(pts, self._last + 1)
        picture = VideoFrame.from_ndarray(_interleaved(self.shown.rgb(frame)), "rgb24")
        picture.pts, picture.time_base = self._last, self._base
        self._container.mux(self._stream.encode(picture))

    def end(self) -> None:
        """The index."""
        self._container.mux(self._stream.encode(None))
        self._container.close()


FORMATS: dict[str, type[FrameStream]] = {"y4m": Y4m, "rawvideo": RawVideo, "nut": Nut}


class _File:
    """What PyAV needs of a file; it cannot be sought, so that a file and a pipe get the same bytes."""

    def __init__(self, write: Write) -> None:
        self.write = write


def _time_base(source: Source) -> Fraction:
    base = Fraction(*source.time_base)
    if max(base.numerator, base.denominator) > _MAX_INT32:
        raise FramefoldError(f"{source.name}: a time base of {base} s is finer than NUT allows; take y4m or rawvideo")
    return base


def _interleaved(rgb: Rgb) -> Rgb:
    """Turn (3, H, W) into (H, W, 3)."""
    return np.ascontiguousarray(rgb.transpose(1, 2, 0))


def _plane(picture: VideoFrame, number: int) -> Rgb:
    """A plane without the padding at the ends of its rows."""
    plane = picture.planes[number]
    rows: Rgb = np.frombuffer(bytes(plane), np.uint8).reshape(plane.height, plane.line_size)
    return rows[:, : plane.width]
