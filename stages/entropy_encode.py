"""entropy_encode: integers become bits."""

from __future__ import annotations

from collections.abc import Iterator

from framefold.codecs import bitstream
from framefold.codecs.network import Bitstream, SymbolTensors
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Output, Stage


class EntropyEncode(Stage):
    """Range-code a quantized network without loss."""

    accepts = SymbolTensors
    emits = {"out": Bitstream}

    def process(self, item: Item) -> Iterator[Output]:
        """One stream per clip."""
        symbols: SymbolTensors = item.payload
        yield Bitstream(
            span=symbols.span,
            codec=symbols.codec,
            config=symbols.config,
            payload=bitstream.encode(symbols),
            target=symbols.target,
        )
