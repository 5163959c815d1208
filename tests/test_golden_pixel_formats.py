"""Units of other pixel formats than 8-bit RGB decode the same for ever, as those of `test_golden_streams`.

`golden/pixel_formats.fold` holds barely fitted networks, `.npz` the frames that they draw. Written only on request,
FRAMEFOLD_WRITE_GOLDEN=1 pytest tests/test_golden_pixel_formats.py, and only if neither exists.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framefold.codecs.base import FitSettings
from framefold.codecs.clip import Clip, Frames, Source, Span
from framefold.codecs.network import Bitstream, SymbolTensors
from framefold.codecs.pixel_format import GRAY_16, RGB_16, PixelFormat
from framefold.codecs.quantizing.quantize import quantize
from framefold.codecs.stream import bitstream
from framefold.codecs.testing import moving_shapes, run_fit
from framefold.pipeline.archive import ArchiveReader, ArchiveWriter, verify
from framefold.stages.archive_pixels import with_pixels
from framefold.stages.archive_source import bitstream_of
from framefold.stages.codec_choice import CodecChoice, codec_of
from framefold.stages.measure import are_alike, measure, sha256_of
from framefold.stages.streams import decoded

GOLDEN = Path(__file__).parent / "golden" / "pixel_formats.fold"
FRAMES = GOLDEN.with_suffix(".npz")
MAX_SHARE = 1 / 1000
"""Of 8-bit samples that may be off by one level, as in `test_golden_streams`; twice as many for each bit more."""

PIXELS = {
    each.name: each
    for each in (
        PixelFormat(model="yuv", chroma=(2, 2)),
        PixelFormat(model="yuv", depth=10, chroma=(1, 2), alpha=True),
        PixelFormat(model="yuv", depth=12),
        PixelFormat(depth=10),
        GRAY_16,
        RGB_16,
    )
}


def fitted(pixels: PixelFormat) -> SymbolTensors:
    """Of a picture where there are 16 bits, else of three frames; odd sizes."""
    count = 1 if pixels.depth == 16 else 3
    full = np.uint16(pixels.peak // 255) * moving_shapes(count, 13, 17)[:, [0, 1, 2, 1][: pixels.channels]]
    stored = [plane.astype(pixels.dtype) for plane in pixels.stored(full)]
    known: Mapping[str, Any] = {"name": pixels.name, "sha256": "ab" * 32, "size_bytes": 4321, "width": 17, "height": 13}
    source = Source(**known, kind="video" if count > 1 else "image", pixels=pixels)
    clip = Clip(span=Span(source=source, pts=tuple(range(count))), frames=pixels.spread(stored, 13, 17))
    options = {"name": "gridnerv", "width": 6, "strides": [3, 2]} if count > 1 else {"name": "siren", "width": 8}
    return quantize(
        run_fit(CodecChoice(**options).build().fit(clip, FitSettings(steps=200))), bits=8, granularity="tensor"
    )


def write() -> None:
    with ArchiveWriter(GOLDEN, archive_id=bytes(range(16))) as writer:
        for pixels in PIXELS.values():
            symbols = fitted(pixels)
            span, codec = symbols.span, codec_of(symbols.codec, symbols.config)
            document = {**span.source.model_dump(mode="json", exclude_defaults=True), "time_base": [1, 1]}
            unit = writer.add_unit(
                key=hashlib.sha256(pixels.name.encode()).hexdigest(),
                source=writer.add_source(document),
                codec=writer.add_codec(symbols.codec, with_pixels(symbols.config, span.source)),
                first_frame=0,
                pts=span.pts,
                duration_ticks=1,
                payload=bitstream.encode(symbols, rules=codec.context_rule),
            )
            assert symbols.target is not None
            writer.add_quality(unit, measure(codec.reconstruct(symbols.dequantize()), symbols.target).as_dict())
        writer.commit({"generator": "framefold golden", "created": "2026-01-31T12:00:00Z"})
    np.savez_compressed(FRAMES, **{name: drawn(unit).frames for name, (unit, _) in read().items()})


def read() -> dict[str, tuple[Bitstream, Mapping[str, Any]]]:
    """Of each format its unit, and what was measured of it."""
    with ArchiveReader.open(str(GOLDEN)) as reader:
        units = [(bitstream_of(reader.read_unit(unit.id)), reader.quality(unit.id) or {}) for unit in reader.units]
    return {bits.span.source.name: (bits, measured) for bits, measured in units}


def drawn(bits: Bitstream) -> Clip:
    return codec_of(bits.codec, bits.config).reconstruct(decoded(bits).dequantize())


@pytest.fixture(scope="module", autouse=True)
def _written() -> None:
    if not GOLDEN.exists() and not FRAMES.exists() and os.environ.get("FRAMEFOLD_WRITE_GOLDEN") == "1":
        write()


def test_the_archive_is_whole() -> None:
    assert verify(GOLDEN) == ()
    assert read().keys() == PIXELS.keys()


@pytest.mark.parametrize("name", PIXELS)
def test_frames_are_what_they_were(name: str) -> None:
    bits, measured = read()[name]
    with np.load(FRAMES) as committed:
        expected: Frames = committed[name]
    clip = drawn(bits)
    assert (clip.pixels, clip.frames.dtype) == (PIXELS[name], expected.dtype)
    assert sha256_of(expected) == measured["frames_sha256"]
    difference = np.abs(clip.frames.astype(int) - expected)
    assert difference.max() <= 1
    assert np.count_nonzero(difference) <= MAX_SHARE * 2 ** (clip.pixels.depth - 8) * difference.size
    again = measure(clip, Clip(span=clip.span, frames=expected))
    assert are_alike(again.frames_levels, measured["frames_levels"])
