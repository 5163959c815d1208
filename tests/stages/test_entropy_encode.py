"""entropy_encode: its options reach the stream, and those that are as ever leave the keys of units alone."""

from __future__ import annotations

import numpy as np
import pytest

from framefold.codecs.network import Bitstream, QuantizedTensor, SymbolTensors
from framefold.codecs.stream import bitstream
from framefold.codecs.testing import make_clip
from framefold.pipeline.item import Item
from framefold.stages.entropy_encode import EntropyEncode, EntropyEncodeConfig
from framefold.stages.streams import decoded


@pytest.fixture(scope="module")
def symbols() -> SymbolTensors:
    rows = np.random.default_rng(0).laplace(0, np.geomspace(0.5, 40, 60)[:, None], (60, 80))
    tensors = {"layers.0.weight": QuantizedTensor(symbols=np.rint(rows).astype(np.int32), steps=np.ones(1, np.float32))}
    span = make_clip(np.zeros((1, 3, 1, 1), np.uint8), kind="image").span
    return SymbolTensors(span=span, codec="siren", config={}, tensors=tensors)


def coded(symbols: SymbolTensors, **options: object) -> Bitstream:
    made = EntropyEncode(EntropyEncodeConfig.model_validate(options))
    (stream,) = made.process(Item("key", "the item", (0,), symbols))
    assert isinstance(stream, Bitstream)
    return stream


def test_options_that_are_as_ever_are_not_written_down() -> None:
    assert EntropyEncodeConfig(coder="range", contexts=True, effort="best").model_dump() == {}
    assert EntropyEncodeConfig(effort="fast").model_dump() == {"effort": "fast"}


@pytest.mark.parametrize("options", [{}, {"contexts": False}, {"effort": "fast"}, {"coder": "zstd"}])
def test_options_reach_the_stream(symbols: SymbolTensors, options: dict[str, object]) -> None:
    stream = coded(symbols, **options)
    assert stream.payload == bitstream.encode(symbols, **options)
    back = decoded(stream).tensors["layers.0.weight"].symbols
    assert np.array_equal(back, symbols.tensors["layers.0.weight"].symbols)


def test_fast_looks_at_no_neighbours(symbols: SymbolTensors) -> None:
    best, without, fast = (
        len(coded(symbols, **options).payload) for options in ({}, {"contexts": False}, {"effort": "fast"})
    )
    assert best < 0.9 * without <= 0.9 * fast < 0.92 * without
