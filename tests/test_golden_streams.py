"""What was archived once must decode the same for ever: a tiny archive for each codec, and what comes out of it.

`golden/streams_CODEC.fold` holds a few barely fitted networks, `.txt` for each of them the SHA-256 of its stream, of
its symbols and of its decoded frames, `.npz` the frames. Streams and symbols must be equal on every machine. Frames
are float32 arithmetic, which not every processor rounds alike: where they are not equal, a line on the terminal says
how far off they are. Written only on request, FRAMEFOLD_WRITE_GOLDEN=1 pytest tests/test_golden_streams.py, and only
those that are missing.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
import warnings
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from framefold.codecs.base import FitSettings
from framefold.codecs.carried import AttachmentRef, Carried, PixelTags
from framefold.codecs.clip import Clip, ColorTags, Frames, ImageBatch, Source, Span
from framefold.codecs.network import SymbolTensors
from framefold.codecs.quantizing.quantize import quantize
from framefold.codecs.sizing import MAX_PARAMETERS
from framefold.codecs.stream import bitstream
from framefold.codecs.testing import moving_shapes, run_fit
from framefold.pipeline import registry
from framefold.pipeline.archive import ArchiveReader, ArchiveWriter, verify
from framefold.stages.archive_source import bitstream_of
from framefold.stages.codec_choice import CodecChoice, codec_of
from framefold.stages.measure import measure
from framefold.stages.media_alpha import with_alpha

GOLDEN = Path(__file__).parent / "golden"
MAX_SHARE = 1 / 1000
"""Of a codec's samples that may be off by one level, never more: 78 dB. Kernels of other processors were seen to move
one in 18,000; cutting where rounding is meant moves every second one."""

CODECS: Mapping[str, Mapping[str, Any]] = {
    "coin": {"preset": "5x20"},
    "siren": {"width": 10, "depth": 3},
    "nerv": {"width": 3, "stem_width": 8, "strides": [3, 2]},
    "enerv": {"width": 4, "token_width": 6, "head_width": 2, "block_widths": [6, 5], "strides": [3, 2]},
    "hnerv": {"width": 6, "embedding_width": 3, "strides": [3, 2], "kernels": [1, 3]},
    "pyramid": {"widths": [6, 5], "bottlenecks": [4, 5], "grids": [[[3, 2]], [[2, 1], [1, 2]], [[1, 1]]]},
    "gridnerv": {"width": 8, "strides": [3, 2], "kernels": [3, 5], "grids": [[[2, 3], [3, 2]], [[2, 2]]]},
}

ALPHA = b64decode(
    b"iVBORw0KGgoAAAANSUhEUgAAABgAAAAQCAAAAAApT+BJAAAAFUlEQVR42mNk4MIOmBhxgFEJWkoAAH4MAm4QwAThAAAAAElFTkSuQmCC"
)
"""A grey PNG, 24x16: 10 x + y."""
ALPHA_REF = AttachmentRef(
    kind="alpha", sha256=hashlib.sha256(ALPHA).hexdigest(), size_bytes=len(ALPHA), media_type="image/png"
)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What one original looks like, and how its network is quantized."""

    bits: int = 8
    granularity: Any = "tensor"
    height: int = 16
    width: int = 24
    pts: tuple[int, ...] = (0,)
    first_frame: int = 0
    duration_ticks: int = 1
    source: Mapping[str, Any] = field(default_factory=dict)

    def span(self, name: str) -> Span:
        """All frames of the original."""
        known = {"name": f"{name}.mkv", "kind": "video", "sha256": "ab" * 32, "size_bytes": 4321}
        source = Source(**known | {"width": self.width, "height": self.height} | self.source)
        return Span(source=source, pts=self.pts, first_frame=self.first_frame, duration_ticks=self.duration_ticks)


VARIANTS = {
    "constant": Variant(
        height=40,
        width=64,
        pts=(24, 25, 26),
        first_frame=24,
        source={"time_base": (1, 25), "frame_rate": (25, 1), "color": ColorTags(matrix=1, range=1)},
    ),
    "variable": Variant(
        bits=6,
        granularity="channel",
        pts=(-3, 40, 41, 90_000),
        duration_ticks=17,
        source={"time_base": (1, 1000)},
    ),
    "ten_bit": Variant(
        granularity="channel",
        pts=(0, 1001, 2002),
        duration_ticks=1001,
        source={
            "time_base": (1, 60_000),
            "frame_rate": (60_000, 1001),
            "color": ColorTags(primaries=9, transfer=16, matrix=9, range=1),
            "carried": Carried(
                pixel=PixelTags(format="yuv420p10le", bits=10, aspect=(4, 3), chroma_location=3, field_order=1),
                codec="hevc",
                modified="1600000000.123456789",
            ),
        },
    ),
    "one_frame": Variant(bits=4, pts=(7,), duration_ticks=0, source={"time_base": (1, 25)}),
    "odd_size": Variant(bits=5, granularity="channel", height=13, width=17, pts=(0, 1, 2), duration_ticks=1),
    "picture": Variant(source={"name": "picture.png", "kind": "image"}),
    "alpha": Variant(
        bits=2,
        source={
            "name": "folder/alpha.png",
            "kind": "image",
            "carried": Carried(pixel=PixelTags(format="RGBA"), container="PNG", attachments=(ALPHA_REF,)),
        },
    ),
}

Digests = tuple[str, str, str]
"""SHA-256 of stream, symbols and frames, in hex."""
Decoded = dict[str, tuple[Digests, Frames]]
"""`variant first_frame` to what came out."""


def spans(codec: str) -> Iterator[tuple[str, Variant, Span]]:
    """(label, variant, span) of every unit; a codec of pictures gets one for each frame of a film."""
    alone = registry.load_codec(codec).accepts is ImageBatch
    for name, variant in VARIANTS.items():
        whole = variant.span(name)
        parts = [whole.part(at, at + 1) for at in range(whole.frame_count)] if alone else [whole]
        yield from ((f"{name} {part.first_frame}", variant, part) for part in parts)


def key_of(codec: str, label: str) -> str:
    return sha256(f"{codec} {label}".encode())


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# ---- writing


def write(codec: str) -> None:
    """Make the three files of a codec."""
    with ArchiveWriter(fold(codec), archive_id=bytes(range(16))) as writer:
        writer.add_attachment(ALPHA_REF.sha256, len(ALPHA), 0, ALPHA)
        for label, variant, span in spans(codec):
            add(writer, key_of(codec, label), fitted(codec, variant, span))
        writer.commit({"generator": "framefold golden", "created": "2026-01-31T12:00:00Z"})
    units = decode(codec)
    lines = [" ".join((label, *digests)) for label, (digests, _) in units.items()]
    text(codec).write_text("\n".join(lines) + "\n", encoding="utf-8")
    np.savez_compressed(frames_file(codec), **{label: frames for label, (_, frames) in units.items()})


def fitted(codec: str, variant: Variant, span: Span) -> SymbolTensors:
    start = span.first_frame - variant.first_frame
    frames = moving_shapes(len(variant.pts), variant.height, variant.width)[start : start + span.frame_count]
    fit = CodecChoice(name=codec, **CODECS[codec]).build().fit(Clip(span=span, frames=frames), FitSettings(steps=300))
    return quantize(run_fit(fit), bits=variant.bits, granularity=variant.granularity)


def add(writer: ArchiveWriter, key: str, symbols: SymbolTensors) -> None:
    """As `archive_sink` does: pictures share a chunk."""
    span, payload = symbols.span, bitstream.encode(symbols)
    document = span.source.model_dump(mode="json", exclude_defaults=True) | {"time_base": list(span.source.time_base)}
    codec = writer.add_codec(symbols.codec, symbols.config)
    measured = measure(codec_of(symbols.codec, symbols.config).reconstruct(symbols.dequantize()), symbols.target)
    unit = {"key": key, "codec": codec, "payload": payload}
    if span.source.kind == "image":
        writer.add_picture(source=document, **unit, measured=measured.as_dict())
        return
    times = {"first_frame": span.first_frame, "pts": span.pts, "duration_ticks": span.duration_ticks}
    writer.add_quality(writer.add_unit(source=writer.add_source(document), **unit, **times), measured.as_dict())


# ---- reading


def fold(codec: str) -> Path:
    return GOLDEN / f"streams_{codec}.fold"


def text(codec: str) -> Path:
    return fold(codec).with_suffix(".txt")


def frames_file(codec: str) -> Path:
    return fold(codec).with_suffix(".npz")


def decode(codec: str) -> Decoded:
    with ArchiveReader.open(fold(codec)) as reader:
        records = {label: reader.read_unit(reader.keys[key_of(codec, label)]) for label, _, _ in spans(codec)}
    return {label: decoded(record) for label, record in records.items()}


def decoded(record: Any) -> tuple[Digests, Frames]:
    bits = bitstream_of(record)
    network = {"span": bits.span, "codec": bits.codec, "config": bits.config}
    symbols = bitstream.decode(bits.payload, **network, max_elements=MAX_PARAMETERS)
    frames = codec_of(bits.codec, bits.config).reconstruct(symbols.dequantize()).frames
    return (sha256(bits.payload), sha256(serial(symbols)), sha256(frames.tobytes())), frames


def serial(symbols: SymbolTensors) -> bytes:
    """Names, shapes, steps and integers in the order of the stream."""
    parts = []
    for name, tensor in symbols.tensors.items():
        parts.append(f"{name} {tensor.symbols.shape} {tensor.steps.shape} {tensor.axis}\n".encode())
        parts += [tensor.steps.astype("<f4").tobytes(), tensor.symbols.astype("<i4").tobytes()]
    return b"".join(parts)


def committed(codec: str) -> Decoded:
    rows = [line.split(" ") for line in text(codec).read_text(encoding="utf-8").splitlines()]
    with np.load(frames_file(codec)) as frames:
        return {f"{name} {first}": (tuple(digests), frames[f"{name} {first}"]) for name, first, *digests in rows}


def difference(got: Decoded, golden: Decoded) -> str:
    """What the frames are off by; empty if they are equal. Streams and symbols must be."""
    assert list(got) == list(golden)
    samples = off = 0
    for label, (digests, frames) in got.items():
        known, expected = golden[label]
        assert digests[:2] == known[:2], label
        samples += frames.size
        if digests[2] != known[2]:
            off += np.count_nonzero(frames != expected)
            assert np.abs(frames.astype(int) - expected).max() == 1, label
    assert off <= samples * MAX_SHARE
    return f"{off} of {samples} samples off by one level" if off else ""


# ---- tests


@pytest.fixture(scope="module", autouse=True)
def _written() -> None:
    for codec in CODECS:
        if missing := [path.name for path in (fold(codec), text(codec), frames_file(codec)) if not path.exists()]:
            if os.environ.get("FRAMEFOLD_WRITE_GOLDEN") != "1" or len(missing) < 3:
                remedy = "if none of a codec's three ever existed, write them with FRAMEFOLD_WRITE_GOLDEN=1"
                pytest.fail(f"{', '.join(missing)} missing in {GOLDEN}; {remedy}")
            write(codec)


@pytest.fixture
def compare(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Callable[[str, Decoded], None]:
    def check(codec: str, got: Decoded) -> None:
        if off := difference(got, committed(codec)):
            with capsys.disabled():
                sys.stdout.write(f"\n{request.node.name}: {codec}: {off}")

    return check


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def without_onednn() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TF32 acceleration")  # of Intel's GPUs, where torch knows none
        with torch.backends.mkldnn.flags(enabled=False):
            yield


def test_there_are_streams_of_every_codec_of_ours() -> None:
    ours = distribution("framefold").entry_points.select(group=registry.CODECS)
    assert {entry.name for entry in ours} == set(CODECS)


@pytest.mark.parametrize("codec", CODECS)
def test_the_committed_frames_are_those_of_the_text_file(codec: str) -> None:
    for label, (digests, frames) in committed(codec).items():
        assert sha256(frames.tobytes()) == digests[2], label


@pytest.mark.parametrize("codec", CODECS)
def test_sources_times_and_tags_come_back(codec: str) -> None:
    assert verify(fold(codec)) == ()
    with ArchiveReader.open(fold(codec)) as reader:
        assert len(reader.units) == len(list(spans(codec)))
        for label, _, span in spans(codec):
            unit = reader.keys[key_of(codec, label)]
            assert bitstream_of(reader.read_unit(unit)).span == span
            assert reader.quality(unit)["frames_sha256"] == committed(codec)[label][0][2]


@pytest.mark.parametrize("codec", CODECS)
def test_the_alpha_channel_comes_back(codec: str) -> None:
    with ArchiveReader.open(fold(codec)) as reader:
        record = reader.read_unit(reader.keys[key_of(codec, "alpha 0")])
        (ref,) = bitstream_of(record).span.source.carried.attachments
        png = reader.read_attachment(ref.sha256)
    _, frames = decoded(record)
    whole = np.asarray(with_alpha(Image.fromarray(frames[0].transpose(1, 2, 0)), png))
    assert np.array_equal(whole[..., :3], frames[0].transpose(1, 2, 0))
    y, x = np.indices((16, 24))
    assert np.array_equal(whole[..., 3], 10 * x + y)


SETTINGS: Mapping[str, Callable[[], Any]] = {
    "as it is": nullcontext,
    "one thread": lambda: threads(1),
    "two threads": lambda: threads(2),
    "without oneDNN": without_onednn,
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("codec", CODECS)
def test_streams_decode_as_they_did(codec: str, setting: str, compare: Callable[[str, Decoded], None]) -> None:
    with SETTINGS[setting]():
        compare(codec, decode(codec))


CHILD = """
import pickle, runpy, sys
from pathlib import Path
import torch
assert torch.backends.cpu.get_cpu_capability() == "DEFAULT"
functions = runpy.run_path(sys.argv[1])
Path(sys.argv[2]).write_bytes(pickle.dumps({codec: functions["decode"](codec) for codec in functions["CODECS"]}))
"""


@pytest.mark.parametrize(
    "older",
    [
        {"ATEN_CPU_CAPABILITY": "default"},
        {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
    ],
    ids=["torch's plainest kernels", "everything for an old processor"],
)
def test_an_older_processor_decodes_the_same(
    older: dict[str, str], tmp_path: Path, compare: Callable[[str, Decoded], None]
) -> None:
    command = [sys.executable, "-c", CHILD, __file__, str(tmp_path / "decoded")]
    subprocess.run(command, check=True, env={**os.environ, **older})
    for codec, units in pickle.loads((tmp_path / "decoded").read_bytes()).items():
        compare(codec, units)
