"""x264, x265 and SVT-AV1 through PyAV: frames to a file, one thread each."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from clips import Footage, film_frames
from record import Run

from framefold.codecs.clip import Frames

os.environ.setdefault("SVT_LOG", "1")  # errors only


@dataclass(frozen=True)
class Anchor:
    """A library with its preset and the qualities that are measured."""

    library: str
    preset: str
    qualities: Sequence[float]
    options: Mapping[str, str]


ANCHORS = (
    Anchor("libx264", "medium", (20, 24, 28, 32, 36), {"threads": "1"}),
    Anchor("libx265", "medium", (20, 24, 28, 32, 36), {"x265-params": "pools=none:frame-threads=1:log-level=error"}),
    Anchor("libsvtav1", "6", (25, 35, 45, 55), {"svtav1-params": "lp=1"}),
)
X264, X265, SVT_AV1 = ANCHORS


def encode(path: Path, frames: Frames, anchor: Anchor, crf: float) -> None:
    """yuv420p, BT.709, 25 frames/s, default distance of key frames; the container is what the path's ending says."""
    options = {"crf": f"{crf:g}", "preset": anchor.preset, **anchor.options}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(anchor.library, rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = frames.shape[2], frames.shape[3], "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1
        for index, picture in enumerate(frames.transpose(0, 2, 3, 1)):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=1, dst_color_range=1)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def anchor_run(footage: Footage, anchor: Anchor, crf: float, folder: Path) -> Run:
    """Encode, read back, measure."""
    path = folder / f"{anchor.library}.mp4"
    cpu, wall = timed(lambda: encode(path, footage.frames, anchor, crf))
    decoded = film_frames(path, len(footage.frames))
    first, _ = timed(lambda: film_frames(path, len(footage.frames)))
    run = Run(
        tier="T2",
        clip=footage.name,
        system=f"{anchor.library} {anchor.preset}",
        preset=f"crf {crf:g}",
        commit=f"PyAV {av.__version__}",
        bytes=path.stat().st_size,
        enc_cpu_s=cpu,
        enc_wall_s=wall,
        dec_fps_steady=len(decoded) / first,
    )
    return run.showing(decoded, footage.frames)


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """CPU seconds, of children too, and wall seconds of a call."""
    before, start = os.times(), time.monotonic()
    call()
    after = os.times()
    return sum(after[:4]) - sum(before[:4]), time.monotonic() - start
