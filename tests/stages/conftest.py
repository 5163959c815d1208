"""Small real media, made on the spot, and a way to drive one stage without an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from framefold.codecs.clip import Clip, Source, Span
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Emit, Stage, StageContext


def moving_pattern(count: int, height: int, width: int) -> np.ndarray:
    """(T, H, W, 3) uint8: every frame differs from every other in every row."""
    rng = np.random.default_rng(count * height * width)
    base = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.stack([np.roll(base, shift, axis=1) + np.uint8(shift) for shift in range(count)])


def _write_video(
    path: Path,
    frames: np.ndarray,
    *,
    codec: str = "ffv1",
    pix_fmt: str = "bgr0",
    pts: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 25),
    last_duration: int | None = None,
    container_options: dict[str, str] | None = None,
    codec_options: dict[str, str] | None = None,
    raw_format: str | None = None,
) -> Path:
    """RGB frames (T, H, W, 3) to a file; FFV1 in `bgr0` by default, which is lossless."""
    times = list(range(len(frames))) if pts is None else list(pts)
    with av.open(str(path), "w", format=raw_format, options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=25, options=codec_options or {})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pix_fmt
        stream.time_base = stream.codec_context.time_base = time_base
        durations = dict(zip(times, [*np.diff(times), last_duration or 1], strict=True))
        for frame, time in zip(frames, times, strict=True):
            picture = av.VideoFrame.from_ndarray(frame, "rgb24").reformat(format=pix_fmt)
            picture.pts, picture.time_base = time, time_base
            _mux(container, stream.encode(picture), durations)
        _mux(container, stream.encode(None), durations)
    return path


def _mux(container: Any, packets: Iterable[Any], durations: dict[int, int]) -> None:
    for packet in packets:
        packet.duration = int(durations[packet.pts])
        container.mux(packet)


def _clip(source: Source, frames: np.ndarray, first: int = 0, pts: Sequence[int] | None = None) -> Clip:
    times = tuple(pts) if pts else tuple(range(first, first + len(frames)))
    return Clip(span=Span(source=source, first_frame=first, pts=times), frames=frames)


def _feed(stage: Stage, payloads: Iterable[Any], *, finish: bool = True) -> list[Any]:
    """What the stage hands out, without the envelopes."""
    stage.setup(StageContext("node"))
    outputs = []
    for number, payload in enumerate(payloads):
        outputs += list(stage.process(Item(f"key{number}", f"item {number}", (number,), payload)))
    if finish:
        outputs += list(stage.finish())
        stage.close()
    return [output.payload if isinstance(output, Emit) else output for output in outputs]


@pytest.fixture
def write_video() -> Callable[..., Path]:
    return _write_video


@pytest.fixture
def pattern() -> Callable[[int, int, int], np.ndarray]:
    return moving_pattern


@pytest.fixture
def make_clip() -> Callable[..., Clip]:
    return _clip


@pytest.fixture
def feed() -> Callable[..., list[Any]]:
    return _feed


@pytest.fixture
def make_source() -> Callable[..., Source]:
    def make(name: str = "film.mp4", *, width: int = 8, height: int = 6, kind: Any = "video", **more: Any) -> Source:
        return Source(name=name, kind=kind, sha256="ab" * 32, size_bytes=10, width=width, height=height, **more)

    return make
