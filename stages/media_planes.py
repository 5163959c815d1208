"""FFmpeg's pixel formats and ours: samples in and out of its frames as they are, without a converter.

A format that is one of ours is read plane by plane. One that holds the same samples in another order (`REORDERED`) is
put in order by swscale first, which loses nothing there. All others (palettes, packed samples of few bits, XYZ, …) have
no counterpart and become 8-bit RGB.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import Interpolation, VideoReformatter

from framefold.codecs.clip import Frames
from framefold.codecs.pixel_format import RGB, SUBSAMPLINGS, PixelFormat

EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.BITEXACT
"""How swscale converts: full chroma, and the same result on every processor."""

RGBA = PixelFormat(alpha=True)

REORDERED = {
    **dict.fromkeys(("nv12", "nv21"), "yuv420p"),
    **dict.fromkeys(("nv16", "yuyv422", "uyvy422", "yvyu422"), "yuv422p"),
    **dict.fromkeys(("nv24", "nv42"), "yuv444p"),
    "p210le": "yuv422p10le",
    "p410le": "yuv444p10le",
    **dict.fromkeys(("bgr24", "gbrp", "rgb0", "bgr0", "0rgb", "0bgr"), "rgb24"),
    **dict.fromkeys(("bgra", "argb", "abgr", "gbrap"), "rgba"),
    **dict.fromkeys(("rgb48le", "rgb48be", "bgr48le", "bgr48be"), "gbrp16le"),
    **dict.fromkeys(("rgba64le", "rgba64be", "bgra64le", "bgra64be"), "gbrap16le"),
}
"""Formats that hold the same samples as another one."""

_YUV = re.compile(r"yuv(?:j|(?P<alpha>a))?(?P<chroma>4\d\d)p(?P<depth>\d*)(?:le|be)?")
_GBR = re.compile(r"gbr(?P<alpha>a?)p(?P<depth>\d+)(?:le|be)")
_GRAY = re.compile(r"gray(?P<depth>\d*)(?:le|be)?")
_CHROMA = {name: cells for cells, name in SUBSAMPLINGS.items()}
_GBRA = (2, 0, 1, 3)
"""Planes of FFmpeg's planar RGB in the order R, G, B, alpha."""


def format_of(name: str) -> PixelFormat | None:
    """Say what FFmpeg's format of this name is here; None if nothing is like it."""
    name = REORDERED.get(name, name)
    if name in ("rgb24", "rgba"):
        return RGBA if name == "rgba" else RGB
    for model, pattern in (("yuv", _YUV), ("rgb", _GBR), ("gray", _GRAY)):
        if found := pattern.fullmatch(name):
            parts = found.groupdict()
            given = {"model": model, "depth": int(parts["depth"] or 8), "alpha": bool(parts.get("alpha"))}
            return _known({**given, "chroma": _CHROMA.get(parts.get("chroma", "444"))})
    return None


def _known(parts: dict[str, object]) -> PixelFormat | None:
    try:
        return PixelFormat.model_validate(parts)
    except ValueError:
        return None


def name_of(pixels: PixelFormat) -> str:
    """FFmpeg's name of the format whose planes are ours; ValueError if it has none."""
    depth, alpha = "" if pixels.depth == 8 else f"{pixels.depth}le", "a" * pixels.alpha
    names = {
        "yuv": f"yuv{alpha}{SUBSAMPLINGS[pixels.chroma]}p{depth}",
        "rgb": f"gbr{alpha}p{depth}" if depth else f"rgb{alpha or 24}",
        "gray": f"gray{depth}",
    }
    return VideoFormat(names[pixels.model]).name


def samples_of(frame: VideoFrame, reformatter: VideoReformatter) -> Frames:
    """Read (C, H, W) of a frame whose format is one of ours."""
    name = frame.format.name
    if name in REORDERED:
        frame = reformatter.reformat(frame, format=REORDERED[name], threads=1)
    pixels = format_of(name)
    if pixels is None:
        raise ValueError(f"pixel format {name} is none of ours")
    if pixels in (RGB, RGBA):
        packed: npt.NDArray[np.uint8] = np.asarray(frame.to_ndarray(), np.uint8)
        return packed.transpose(2, 0, 1)
    planes = [_rows(plane, frame.format) for plane in frame.planes]
    ordered = [planes[place] for place in _order(pixels)]
    return pixels.spread([*_grouped(ordered, pixels)], frame.height, frame.width)


def _order(pixels: PixelFormat) -> tuple[int, ...]:
    """Places of R, G, B or Y, U, V and alpha among FFmpeg's planes."""
    return (_GBRA if pixels.model == "rgb" else (0, 1, 2, 3))[: pixels.channels]


def _rows(plane: VideoPlane, form: VideoFormat) -> Frames:
    """(h, w) of a plane, without the padding at the ends of its rows."""
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    if form.components[0].bits == 8:
        return rows[:, : plane.width]
    wide = rows[:, : 2 * plane.width].view(">u2" if form.is_big_endian else "<u2")
    return wide.astype(np.uint16, copy=False)


def _grouped(planes: list[Frames], pixels: PixelFormat) -> Iterator[Frames]:
    """(c, h, w) for each of the format's `planes`."""
    for group in pixels.planes:
        yield np.stack(planes[group.channels])


def frame_of(samples: Frames, pixels: PixelFormat) -> VideoFrame:
    """Make a frame of (C, H, W); ValueError if FFmpeg has no such format."""
    if pixels in (RGB, RGBA):
        packed = np.ascontiguousarray(samples.transpose(1, 2, 0), np.uint8)
        return VideoFrame.from_ndarray(packed, name_of(pixels))
    frame = VideoFrame(samples.shape[2], samples.shape[1], name_of(pixels))
    planes = [plane for group in pixels.stored(samples) for plane in group]
    for place, plane in zip(_order(pixels), planes, strict=True):
        _fill(frame.planes[place], plane)
    return frame


def _fill(plane: VideoPlane, samples: Frames) -> None:
    rows = np.zeros((plane.height, plane.line_size // samples.itemsize), samples.dtype.newbyteorder("<"))
    rows[:, : plane.width] = samples
    plane.update(rows.tobytes())


def with_rows_of_fields(samples: Frames, pixels: PixelFormat) -> Frames:
    """Give each row of an interlaced (C, H, W) the chroma that its own field has there, one sample to a pixel."""
    rows, height = pixels.chroma[0], samples.shape[1]
    y = np.arange(height)
    stored = np.minimum(2 * (y // 2 // rows) + y % 2, (height - 1) // rows)
    whole = samples.copy()
    whole[1:3] = samples[1:3, rows * stored]
    return whole


def fitted(samples: Frames, pixels: PixelFormat, wanted: PixelFormat) -> Frames:
    """(C, H, W) in another depth of the same model, rounded, with or without alpha; chroma stays at full size."""
    kept, fewer = samples[: wanted.channels].astype(np.int32), pixels.depth - wanted.depth
    if fewer > 0:
        kept = np.minimum((kept + (1 << (fewer - 1))) >> fewer, wanted.peak)
    levels: Frames = (kept << max(0, -fewer)).astype(wanted.dtype)
    return levels
