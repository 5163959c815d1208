"""entropy_decode: bits become integers, the twin of entropy_encode."""

from __future__ import annotations

from collections.abc import Iterator

from framefold.codecs import bitstream
from framefold.codecs.network import Bitstream, SymbolTensors
from framefold.codecs.sizing import MAX_PARAMETERS
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Output, Stage


class EntropyDecode(Stage):
    """Give the integers of a range-coded network back."""

    accepts = Bitstream
    emits = {"out": SymbolTensors}

    def process(self, item: Item) -> Iterator[Output]:
        """Exact on every machine: the probability models are integers."""
        bits: Bitstream = item.payload
        yield bitstream.decode(
            bits.payload, span=bits.span, codec=bits.codec, config=bits.config, max_elements=MAX_PARAMETERS
        )
