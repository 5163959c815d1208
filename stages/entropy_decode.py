"""entropy_decode: bits become integers, the twin of entropy_encode."""

from __future__ import annotations

from collections.abc import Iterator

from framefold.codecs.network import Bitstream, SymbolTensors
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Output, Stage
from framefold.stages.streams import decoded


class EntropyDecode(Stage):
    """Give the integers of a coded network back."""

    accepts = Bitstream
    emits = {"out": SymbolTensors}

    def process(self, item: Item) -> Iterator[Output]:
        """Exact on every machine: the probability models are integers."""
        yield decoded(item.payload)
