"""RGB frames to files: H.264 in MP4 for players, FFV1 in Matroska and PNG without loss."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream
from PIL import Image

from framefold.codecs.clip import Source
from framefold.pipeline.errors import FramefoldError
from framefold.stages.media_decode import EXACT, MATRICES

Rgb = npt.NDArray[np.uint8]
"""One frame, (3, H, W), 0..255."""

_BT709, _BT601 = 1, 6
_UNSPECIFIED = 2
_LIMITED, _FULL = 1, 2
_PRIMARIES = frozenset((1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 22))
_TRANSFERS = frozenset((1, *range(4, 19)))
"""Code points of ISO/IEC 23091-2 that are not reserved; encoders refuse the others."""
_MAX_INT32 = 2**31 - 1
_REPEATABLE = {"fflags": "+bitexact"}
"""For a muxer: no random identifiers, no dates, no version numbers."""
_ENCODE_ERRORS = (av.FFmpegError, OSError, ValueError, ArithmeticError)
_log = logging.getLogger(__name__)


class FrameWriter(ABC):
    """Takes the frames of one source in order."""

    @abstractmethod
    def write(self, frame: Rgb, *, number: int, pts: int, duration: int) -> None:
        """Add one frame; `pts` and `duration` in ticks of the source's time base."""

    @abstractmethod
    def finish(self) -> None:
        """Complete what was begun; FramefoldError if that fails."""

    @abstractmethod
    def abort(self) -> None:
        """Let go of everything, without a usable result; must not raise."""


class PngWriter(FrameWriter):
    """A folder of `frame_000000.png`, numbered as in the source."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder

    def write(self, frame: Rgb, *, number: int, pts: int, duration: int) -> None:
        """Write one file; times are not kept."""
        write_png(frame, self._folder / f"frame_{number:06d}.png")

    def finish(self) -> None:
        """Nothing is held back."""

    def abort(self) -> None:
        """Nothing is open."""


def stale_frames(place: Path, folder: Path) -> list[Path]:
    """Return the frames in `place` that `folder` has no successor for: the tail of a longer, older video."""
    return [old for old in place.glob("frame_*.png") if not (folder / old.name).exists()]


def write_png(frame: Rgb, path: Path) -> None:
    """One new file; FileExistsError if there is one."""
    with path.open("xb") as file:
        Image.fromarray(np.ascontiguousarray(frame.transpose(1, 2, 0))).save(file, "PNG")


class ContainerWriter(FrameWriter):
    """One video track in a file; times and colour tags are the source's.

    MP4 keeps times exactly. Matroska counts milliseconds: each time is rounded to the nearest one.
    """

    def __init__(self, path: Path, source: Source, *, crf: int | None, threads: int) -> None:
        """H.264 in MP4 with this `crf`, or FFV1 in Matroska if it is None."""
        self._path, self._source = path, source
        self._last_pts: int | None = None
        self._durations: dict[int, int] = {}
        """Of the frames inside the encoder, by pts."""
        self._lossless = crf is None
        self._reformatter = VideoReformatter()
        self._matrix, self._range = (0, _FULL) if crf is None else _matrix_and_range(source)
        name, options = ("matroska", dict(_REPEATABLE)) if crf is None else ("mp4", _mp4_options(_time_base(source)))
        url = f"file:{path}"  # a bare "a:b.mp4" would name a protocol called a
        self._container = av.open(url, "w", format=name, options=options)
        self._stream = self._add_stream("ffv1" if crf is None else "libx264", _codec_options(crf))
        self._stream.codec_context.thread_count = threads

    def _add_stream(self, codec: str, options: Mapping[str, str]) -> VideoStream:
        source = self._source
        added = self._container.add_stream(codec, rate=_rate(source), options=dict(options))
        stream = cast("VideoStream", added)  # both codecs make video
        context = stream.codec_context
        context.width, context.height = source.width, source.height
        context.pix_fmt = self._pixel_format()
        stream.time_base = context.time_base = _time_base(source)
        color = source.color
        context.colorspace, context.color_range = self._matrix, self._range
        context.color_primaries = color.primaries if color.primaries in _PRIMARIES else _UNSPECIFIED
        context.color_trc = color.transfer if color.transfer in _TRANSFERS else _UNSPECIFIED
        return stream

    def _pixel_format(self) -> str:
        if self._lossless:
            return "bgr0"  # 8-bit RGB as FFV1 takes it, bit for bit
        odd = self._source.width % 2 or self._source.height % 2
        return "yuv444p" if odd else "yuv420p"  # halved chroma needs even sizes

    def write(self, frame: Rgb, *, number: int, pts: int, duration: int) -> None:
        """Encode one frame; the encoder may hold it back for a while."""
        picture = self._convert(frame)
        picture.pts, picture.time_base = self._next_pts(pts, number), _time_base(self._source)
        self._durations[picture.pts] = duration
        try:
            self._mux(picture)
        except _ENCODE_ERRORS as error:
            raise FramefoldError(f"frame {number} of {self._source.name} cannot be written: {error}") from error

    def _convert(self, frame: Rgb) -> VideoFrame:
        rgb = VideoFrame.from_ndarray(np.ascontiguousarray(frame.transpose(1, 2, 0)), "rgb24")
        if self._lossless:
            return self._reformatter.reformat(rgb, format="bgr0", threads=1)
        return self._reformatter.reformat(
            rgb,
            format=self._pixel_format(),
            dst_colorspace=MATRICES[self._matrix],
            dst_color_range=self._range,
            interpolation=EXACT | Interpolation.FULL_CHR_H_INP,
            threads=1,
        )

    def _next_pts(self, pts: int, number: int) -> int:
        """Make times grow, as containers want: one that does not is put a tick behind the one before."""
        if self._last_pts is not None and pts <= self._last_pts:
            _log.warning("%s: frame %d has the time %d, not after the frame before", self._source.name, number, pts)
            pts = self._last_pts + 1
        self._last_pts = pts
        return pts

    def _mux(self, picture: VideoFrame | None) -> None:
        for packet in self._stream.encode(picture):
            if packet.pts is not None:
                packet.duration = self._durations.pop(packet.pts, packet.duration)
            self._container.mux(packet)

    def finish(self) -> None:
        """Take the last frames out of the encoder and write the index."""
        try:
            self._mux(None)
            self._container.close()
        except _ENCODE_ERRORS as error:
            raise FramefoldError(f"{self._source.name} cannot be completed: {error}") from error

    def abort(self) -> None:
        """Close the file as it is."""
        try:
            self._container.close()
        except _ENCODE_ERRORS as error:
            _log.debug("closing %s: %s", self._path, error)


def _mp4_options(time_base: Fraction) -> dict[str, str]:
    """Return options of the MP4 muxer: index first, and edit lists that count as finely as the track.

    By default they count milliseconds, and players drop a last frame that begins behind a rounded end.
    """
    scale = time_base.denominator
    while scale < 10_000:  # as the muxer does for the track
        scale *= 2
    return {**_REPEATABLE, "movflags": "+faststart", "movie_timescale": str(scale)}


def _codec_options(crf: int | None) -> dict[str, str]:
    if crf is None:
        return {"level": "3", "slicecrc": "1", "g": "1"}
    # x264's macroblock tree decides differently from run to run; without it, equal frames give equal bytes.
    return {"crf": str(crf), "preset": "medium", "mbtree": "0"}


def _matrix_and_range(source: Source) -> tuple[int, int]:
    """Return what YUV is made with and tagged as: the source's own, else BT.709 and limited range."""
    matrix = source.color.matrix if source.color.matrix in MATRICES else _BT709
    return matrix, source.color.range or _LIMITED


def _time_base(source: Source) -> Fraction:
    base = Fraction(*source.time_base)
    if max(base.numerator, base.denominator) > _MAX_INT32:
        raise FramefoldError(
            f"{source.name}: a time base of {base} s is finer than containers allow; write PNGs instead"
        )
    return base


def _rate(source: Source) -> Fraction:
    """Nominal frame rate, which containers want; the true times are those of the frames."""
    rate = Fraction(*source.frame_rate) if source.frame_rate else Fraction(25)
    return rate if max(rate.numerator, rate.denominator) <= _MAX_INT32 else Fraction(25)
