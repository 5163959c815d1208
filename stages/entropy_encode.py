"""entropy_encode: integers become bits."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from framefold.codecs.network import Bitstream, SymbolTensors
from framefold.codecs.stream.bitstream import Coder, Effort
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Options, Output, Stage
from framefold.stages.streams import encoded


class EntropyEncodeConfig(Options, frozen=True):
    """Options of `entropy_encode`."""

    # Keys of units depend on all options that are written down: one that is as ever is none.
    coder: Coder = Field(
        default="range",
        exclude_if=lambda coder: coder == "range",
        description="range, or huffman or zstd: those of the papers, for comparison",
    )
    contexts: bool = Field(
        default=True,
        exclude_if=lambda contexts: contexts,
        description="let neighbours in a tensor foretell a symbol where that pays; false: 3 to 10 times as fast, up to "
        "17 % more bytes",
    )
    effort: Effort = Field(
        default="best",
        exclude_if=lambda effort: effort == "best",
        description="best: the cheapest model of each tensor. fast: one that quartiles and moments point to, and no "
        "contexts; 14 to 23 times as fast, about 0.1 % more bytes than best without contexts",
    )


class EntropyEncode(Stage):
    """Code a quantized network without loss; of one that names a parent, the difference."""

    Config = EntropyEncodeConfig
    config: EntropyEncodeConfig
    accepts = SymbolTensors
    emits = {"out": Bitstream}

    def process(self, item: Item) -> Iterator[Output]:
        """One stream per clip."""
        options = self.config
        yield encoded(item.payload, coder=options.coder, contexts=options.contexts, effort=options.effort)
