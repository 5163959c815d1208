"""Small real media, made on the spot, and a way to drive one stage without an engine."""

from __future__ import annotations

import io
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


# --- a film with everything: two audio tracks, subtitles, uneven times, rotation, 10 bits, HDR, chapters, fonts ------

_HDR = "mastering-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
_ASS_HEADER = b"[Script Info]\nScriptType: v4.00+\n\n[Events]\nFormat: Layer, Start, End, Style, Text\n"
_TX3G_HEADER = bytes.fromhex(
    "00000000 01 01 00000000 0000000000000000 0000 0000 0001 00 12 00000000 00000012 66746162 0001 0001 05 417269616c"
)
TURNED = (0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
"""A quarter turn, as a display matrix."""
FONT = b"\x00\x01\x00\x00" + bytes(range(200))
COVER = bytes.fromhex("89504e470d0a1a0a") + b"a picture that nobody decodes"


def _rich_video(path: Path, *, frames: int = 24) -> Path:
    """Write a `.mkv` or `.mp4` of 48x32 pixels that holds all that its container can."""
    is_mkv = path.suffix == ".mkv"
    options = {"fflags": "+bitexact", **({"default_mode": "passthrough"} if is_mkv else {"movflags": "+faststart"})}
    with av.open(str(path), "w", options=options) as container:
        container.metadata.update({"title": "Film", "comment": "für später", "creation_time": "2020-01-02T03:04:05Z"})
        base = Fraction(1, 1000)
        chapters = ((0, 400, "One"), (400, 1000, "Zwei"))
        container.set_chapters(
            [
                {"id": number, "start": start, "end": end, "time_base": base, "metadata": {"title": title}}
                for number, (start, end, title) in enumerate(chapters, start=1)
            ]
        )
        pictures = _rich_pictures(container)
        packets = [_rich_sound(container, "aac", 44_100, 1024, language="deu", title="Ton", default=True)]
        packets += [_rich_sound(container, "flac", 48_000, 4608, language="eng", title="Remarks", default=False)]
        if is_mkv:
            container.add_attachment("Font.ttf", "font/ttf", FONT)
            container.add_attachment("cover.png", "image/png", COVER)
            texts = [_rich_texts(container, "subrip", ["eins", "zwei"], language="deu", disposition=1 << 6)]
            texts += [_rich_texts(container, "ass", ["0,0,D,Ö", "1,0,D,P"], language="fra", header=_ASS_HEADER)]
        else:
            texts = [_rich_texts(container, "mov_text", ["\0\4eins", "\0\4zwei"], language="deu", header=_TX3G_HEADER)]
        step = [0, 40, 41, 100, 133]
        times = [step[i % 5] + 160 * (i // 5) for i in range(frames)]
        for picture, time in zip(moving_pattern(frames, 32, 48), times, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv420p10le")
            frame.pts, frame.time_base = time * (1 if is_mkv else 90), base if is_mkv else Fraction(1, 90_000)
            packets.append(pictures.encode(frame))
        packets += [pictures.encode(None), *texts]
        flat = [packet for group in packets for packet in group]
        for packet in sorted(flat, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


def _rich_pictures(container: Any) -> Any:
    stream = container.add_stream("libx264", rate=25, options={"x264-params": f"{_HDR}:cll=1000,400"})
    stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p10le"
    base = Fraction(1, 1000) if container.format.name == "matroska" else Fraction(1, 90_000)
    stream.time_base = stream.codec_context.time_base = base
    context = stream.codec_context
    context.color_primaries, context.color_trc, context.colorspace, context.color_range = 9, 16, 9, 1
    context.sample_aspect_ratio = Fraction(4, 3)
    stream.set_display_matrix(TURNED)
    stream.metadata["title"], stream.metadata["language"] = "Bild", "swe"
    stream.disposition = 1
    return stream


def _rich_sound(container: Any, codec: str, rate: int, size: int, *, default: bool, **tags: str) -> list[Any]:
    stream = container.add_stream(codec, rate=rate)
    stream.metadata.update(tags)
    stream.disposition = int(default)
    form = "fltp" if codec == "aac" else "s16"
    packets = []
    for number in range(rate // size):
        wave = np.sin(np.arange(number * size, (number + 1) * size) / 20)
        both = np.stack([wave, wave / 2])
        data = both.astype(np.float32) if form == "fltp" else (both.T * 9000).astype(np.int16).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(data), form, "stereo")
        frame.sample_rate, frame.pts, frame.time_base = rate, number * size, Fraction(1, rate)
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def _rich_texts(
    container: Any,
    codec: str,
    lines: Sequence[str],
    *,
    language: str,
    header: bytes | None = None,
    disposition: int = 0,
) -> list[Any]:
    with av.open(io.BytesIO(), "w", format="mov" if codec == "mov_text" else "matroska") as model:
        stream = container.add_stream_from_template(model.add_stream(codec))
    stream.codec_context.extradata = header
    stream.time_base = Fraction(1, 1000)
    stream.metadata["language"] = language
    stream.disposition = disposition
    packets = []
    for number, line in enumerate(lines):
        packet: Any = av.Packet(line.encode())
        packet.pts = packet.dts = 100 + 400 * number
        packet.duration, packet.time_base, packet.stream, packet.is_keyframe = 300, Fraction(1, 1000), stream, True
        packets.append(packet)
    return packets


@pytest.fixture(scope="session")
def rich_video() -> Callable[..., Path]:
    return _rich_video


def _copied_packets(path: Path) -> list[tuple[str, Fraction, bytes | None, list[tuple[Any, ...]]]]:
    """Of each audio and subtitle track: (codec, time base, extradata, its packets with times and side data)."""
    with av.open(str(path)) as container:
        found: dict[int, list[tuple[Any, ...]]] = {
            stream.index: [] for stream in container.streams if stream.type in ("audio", "subtitle")
        }
        for packet in container.demux():
            if packet.size and packet.stream.index in found:
                side_data = [(data.data_type, bytes(data)) for data in packet.iter_sidedata()]
                times = (packet.pts, packet.dts, packet.duration)
                found[packet.stream.index].append((bytes(packet), *times, packet.is_keyframe, side_data))
        contexts = [(container.streams[index], packets) for index, packets in found.items()]
        return [
            (stream.codec_context.codec.canonical_name, stream.time_base, stream.codec_context.extradata, packets)
            for stream, packets in contexts
        ]


@pytest.fixture
def copied_packets() -> Callable[[Path], list[tuple[str, Fraction, bytes | None, list[tuple[Any, ...]]]]]:
    return _copied_packets
