"""What only a decoded frame shows: its pixel format, how it is to be turned, and the light it was graded for."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Any

from av.video.frame import VideoFrame

from framefold.stages.media_sites import chroma_location

Matrix = tuple[int, ...]
"""9 integers, row by row: 16.16 fixed point, the third column 2.30 (ISO/IEC 14496-12, section 6.2.2)."""

MATRIX = Struct("=9i")
_WITH_SIDE_DATA = frozenset(
    "h264 hevc vvc av1 vp8 vp9 mpeg1video mpeg2video mpeg4 h263 vc1 ffv1 prores dnxhd theora rawvideo v210".split()
)
"""PyAV 18.1 crashes over the side data of some still pictures, so only decoders of video are asked for it."""
_OF_ALL_FRAMES = frozenset(
    "mastering_display_metadata content_light_level ambient_viewing_environment spherical stereo3d icc_profile".split()
)
_OF_THE_CODING = frozenset("sei_unregistered motion_vectors video_enc_params video_hint displaymatrix".split())
_TURNS: dict[int, Matrix] = {
    -90: (0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30),
    90: (0, -1 << 16, 0, 1 << 16, 0, 0, 0, 0, 1 << 30),
    180: (-1 << 16, 0, 0, 0, -1 << 16, 0, 0, 0, 1 << 30),
    -180: (-1 << 16, 0, 0, 0, -1 << 16, 0, 0, 0, 1 << 30),
}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FirstLook:
    """Of the first frame, and taken to hold for all."""

    format: str = ""
    """FFmpeg's name, such as `yuv420p10le`."""
    bits: int = 8
    """Of one sample."""
    has_alpha: bool = False
    display_matrix: Matrix | None = None
    chroma_location: int = 0
    """FFmpeg's code, as far as it makes a difference; see `media_sites`."""
    side_data: tuple[tuple[str, bytes], ...] = ()
    """(FFmpeg's name of the type in lower case, its bytes): HDR and the like."""


def look_at(frame: VideoFrame, codec: str, *, shares_chroma: bool = True) -> FirstLook:
    """Describe a frame that FFmpeg's decoder of `codec` made; where chroma lies only if that will matter."""
    side_data = dict(_side_data(frame)) if codec in _WITH_SIDE_DATA else {}
    matrix = side_data.get("displaymatrix")
    fleeting = sorted(side_data.keys() - _OF_ALL_FRAMES - _OF_THE_CODING)
    if fleeting:
        _log.warning(
            "every picture may have its own %s, which is not kept; the option keep_original keeps the whole file",
            ", ".join(fleeting),
        )
    return FirstLook(
        format=frame.format.name,
        has_alpha=any(component.is_alpha for component in frame.format.components),
        bits=max((component.bits for component in frame.format.components), default=8),
        display_matrix=MATRIX.unpack(matrix) if matrix and len(matrix) == MATRIX.size else _TURNS.get(frame.rotation),
        chroma_location=chroma_location(frame) if shares_chroma else 0,
        side_data=tuple((name, side_data[name]) for name in sorted(_OF_ALL_FRAMES & side_data.keys())),
    )


def _side_data(frame: VideoFrame) -> Iterator[tuple[str, bytes]]:
    try:
        container: Any = frame.side_data  # PyAV's hints call its items text
        for data in container:
            yield data.type.name.lower(), bytes(data)
    except ValueError as error:  # a type that is newer than PyAV's list
        _log.warning("side data of its pictures cannot be read (%s); the option keep_original keeps the file", error)
