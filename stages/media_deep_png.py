"""PNGs of RGB with 16 bits a sample, which Pillow reads as 8 and cannot write."""

from __future__ import annotations

import struct
import zlib
from io import BufferedReader
from typing import IO

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from framefold.codecs.clip import Frames
from framefold.pipeline.errors import RefusedInput
from framefold.stages.media_planes import samples_of
from framefold.stages.media_probe import MEDIA_ERRORS

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_RGB, _UP = 2, b"\x02"
"""A colour type, and the filter that stores the difference to the row above (PNG, third edition, sections 6.1, 9.2)."""


def read(file: BufferedReader) -> Frames:
    """(3, H, W) uint16 of a file that Pillow found sound; RefusedInput if FFmpeg does not."""
    file.seek(0)
    decoder = av.CodecContext.create("png", "r")
    try:
        (frame,) = [*decoder.decode(av.Packet(file.read())), *decoder.decode(None)]
        if frame.format.name != "rgb48be":
            raise ValueError(f"it is {frame.format.name}")
        return samples_of(frame, VideoReformatter())
    except MEDIA_ERRORS as error:
        raise RefusedInput(f"more than 8 bits per sample, and FFmpeg cannot read it: {error}") from error


def write(frame: Frames, file: IO[bytes]) -> None:
    """Write (3, H, W) uint16, losslessly: no chunk but those of the pixels."""
    _, height, width = frame.shape
    rows = np.ascontiguousarray(frame.transpose(1, 2, 0).astype(">u2")).view(np.uint8).reshape(height, -1)
    differences = np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))
    filtered = b"".join(_UP + row.tobytes() for row in differences)
    header = struct.pack(">IIBBBBB", width, height, 16, _RGB, 0, 0, 0)
    file.write(_SIGNATURE)
    for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(filtered)), (b"IEND", b"")):
        body = kind + content
        file.write(struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body)))
