"""The picture track of a container that is being written: frames in, coded packets out, with the source's tags."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from fractions import Fraction
from typing import Any, Literal, cast

from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream

from framefold.codecs.clip import Frames, Source
from framefold.codecs.pixel_format import PixelFormat
from framefold.pipeline.errors import FramefoldError
from framefold.stages.media_decode import MATRICES
from framefold.stages.media_hdr import Hdr
from framefold.stages.media_mkv_header import ROOM
from framefold.stages.media_mux import disposition_of
from framefold.stages.media_planes import EXACT, fitted, frame_of, name_of, with_rows_of_fields
from framefold.stages.media_sites import FIELDS, PLACES, Placing
from framefold.stages.media_tags import picture_tags

MAX_INT32 = 2**31 - 1
_AS_FFV1_TAKES_IT = {"rgb24": "bgr0", "rgba": "bgra"}
"""The same samples in another order."""
_H264_CHROMA = ((1, 1), (1, 2), (2, 2))
_BT709 = 1
_UNSPECIFIED = 2
_LIMITED, _FULL = 1, 2
_MATRICES = frozenset((1, 2, *range(4, 18)))
_PRIMARIES = frozenset((1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 22))
_TRANSFERS = frozenset((1, *range(4, 19)))
"""Code points of ISO/IEC 23091-2 that are not reserved; encoders refuse the others."""


class PictureStream:
    """H.264, or FFV1 without loss; set up completely before the container's header is written."""

    def __init__(
        self, container: OutputContainer, source: Source, *, crf: int | None, threads: int, hdr: Hdr, roomy: bool
    ) -> None:
        """H.264 with this `crf`, or FFV1 if it is None; `roomy` leaves room for `media_mkv_header.mend`."""
        self._source = source
        self._lossless = crf is None
        self._pixels = source.pixels if crf is None else _for_h264(source)
        """Of the coded pictures."""
        self._in_fields = crf is not None and _shares_rows_of_fields(source) and self._pixels.chroma[0] > 1
        self._placing = Placing(0, source.carried.pixel.field_order)
        self._matrix, self._range = _matrix_and_range(source, lossless=crf is None)
        self._reformatter = VideoReformatter()
        options = _lossless_options() if crf is None else _h264_options(crf, hdr)
        self.stream: VideoStream = container.add_stream(
            "ffv1" if crf is None else "libx264",
            rate=_rate(source),
            options={**options, **self._chroma_location(), **({"flags": "+ildct"} if self._in_fields else {})},
        )
        self._set_up(threads)
        self._tag(roomy=roomy)

    def _set_up(self, threads: int) -> None:
        source, context = self._source, self.stream.codec_context
        context.width, context.height = source.width, source.height
        context.pix_fmt = self._pixel_format()
        context.thread_count = threads
        self.stream.time_base = context.time_base = time_base_of(source)
        color = source.color
        context.colorspace, context.color_range = self._matrix, self._range
        context.color_primaries = color.primaries if color.primaries in _PRIMARIES else _UNSPECIFIED
        context.color_trc = color.transfer if color.transfer in _TRANSFERS else _UNSPECIFIED

    def _tag(self, *, roomy: bool) -> None:
        carried, stream = self._source.carried, self.stream
        context: Any = stream.codec_context
        with suppress(OverflowError):  # a stranger's number; what is not taken is found missing afterwards
            context.sample_aspect_ratio = Fraction(*carried.pixel.aspect)
        if self._lossless or self._in_fields:
            context.field_order = carried.pixel.field_order
        cast("Any", stream).set_display_matrix(carried.pixel.display_matrix)
        stream.disposition = cast("Any", disposition_of(carried.disposition))
        stream.metadata.update(picture_tags(carried))
        if roomy:
            stream.metadata["title"] = stream.metadata.get("title", "") + ROOM

    def _pixel_format(self) -> str:
        try:
            name = name_of(self._pixels)
        except ValueError as error:
            raise FramefoldError(f"{self._source.name}: FFmpeg has no format for {self._pixels.name}") from error
        return _AS_FFV1_TAKES_IT.get(name, name) if self._lossless else name

    def _chroma_location(self) -> Mapping[str, str]:
        """An option of the encoder, where samples of chroma go on being shared."""
        own, coded = self._source.pixels.chroma, self._pixels.chroma
        place = PLACES.get(self._source.carried.pixel.chroma_location)
        return {"chroma_sample_location": place} if place and own == coded != (1, 1) else {}

    def encode(self, frame: Frames | None, pts: int = 0) -> list[Any]:
        """Return the packets that are ready; no frame means that no more will come."""
        if frame is None:
            return list(self.stream.encode(None))
        picture = self._convert(frame)
        picture.pts, picture.time_base = pts, time_base_of(self._source)
        return list(self.stream.encode(picture))

    def _convert(self, frame: Frames) -> VideoFrame:
        own, form = self._source.pixels, self._pixel_format()
        if own.model == self._pixels.model != "rgb":
            if _shares_rows_of_fields(self._source) and self._pixels.chroma[0] == 1:
                frame = with_rows_of_fields(frame, own)
            return self._placing.of(frame_of(fitted(frame, own, self._pixels), self._pixels))
        picture = frame_of(frame, own)
        if self._lossless:
            return self._reformatter.reformat(picture, format=form, threads=1)
        return self._reformatter.reformat(
            picture,
            format=form,
            dst_colorspace=MATRICES[self._matrix],
            dst_color_range=self._range,
            interpolation=EXACT | Interpolation.FULL_CHR_H_INP,
            threads=1,
        )


def _lossless_options() -> Mapping[str, str]:
    return {"level": "3", "slicecrc": "1", "g": "1"}


def _h264_options(crf: int, hdr: Hdr) -> Mapping[str, str]:
    # x264's macroblock tree decides differently from run to run; without it, equal frames give equal bytes.
    return {"crf": str(crf), "preset": "medium", "mbtree": "0", **hdr.x264}


def _for_h264(source: Source) -> PixelFormat:
    """YUV or grey as near to the source as the encoder takes it: 8 or 10 bits, halved chroma of even sizes only.

    Where chroma is shared by rows of one field, sizes need to be even in each.
    """
    own = source.pixels
    depth: Literal[8, 10] = 8 if own.depth == 8 else 10
    if own.model == "gray":
        return PixelFormat(model="gray", depth=depth)
    chroma = (2, 2) if own.model == "rgb" else own.chroma
    rows = chroma[0] * (2 if _shares_rows_of_fields(source) else 1)
    fits = chroma in _H264_CHROMA and not (source.height % rows or source.width % chroma[1])
    return PixelFormat(model="yuv", depth=depth, chroma=chroma if fits else (1, 1))


def _shares_rows_of_fields(source: Source) -> bool:
    return source.pixels.chroma[0] > 1 and source.carried.pixel.field_order in FIELDS


def _matrix_and_range(source: Source, *, lossless: bool) -> tuple[int, int]:
    """Return what pictures are tagged as: the source's own tags; YUV made of RGB is BT.709, limited, by default."""
    if source.pixels.model != "rgb":
        return source.color.matrix if source.color.matrix in _MATRICES else _UNSPECIFIED, source.color.range
    if lossless:
        return 0, _FULL
    matrix = source.color.matrix if source.color.matrix in MATRICES else _BT709
    return matrix, source.color.range or _LIMITED


def time_base_of(source: Source) -> Fraction:
    """Seconds per tick; FramefoldError if no container takes it."""
    base = Fraction(*source.time_base)
    if max(base.numerator, base.denominator) > MAX_INT32:
        raise FramefoldError(
            f"{source.name}: a time base of {base} s is finer than containers allow; write PNGs instead"
        )
    return base


def _rate(source: Source) -> Fraction:
    """Nominal frame rate, which containers want; the true times are those of the frames."""
    rate = Fraction(*source.frame_rate) if source.frame_rate else Fraction(25)
    return rate if max(rate.numerator, rate.denominator) <= MAX_INT32 else Fraction(25)
