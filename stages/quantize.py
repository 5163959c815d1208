"""quantize: weights become integers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from framefold.codecs.network import FittedNetwork, SymbolTensors
from framefold.codecs.quantize import quantize
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Options, Output, Stage


class QuantizeConfig(Options, frozen=True):
    """Options of `quantize`."""

    bits: int = Field(default=8, ge=2, le=8, description="per weight; vectors and the smallest tensors get a few more")
    granularity: Literal["tensor", "channel"] = Field(default="channel", description="one step per tensor or channel")


class Quantize(Stage):
    """Round a network's weights to integers on uniform grids."""

    Config = QuantizeConfig
    config: QuantizeConfig
    accepts = FittedNetwork
    emits = {"out": SymbolTensors}

    def process(self, item: Item) -> Iterator[Output]:
        """The only lossy step after the fit; zero stays zero."""
        yield quantize(item.payload, bits=self.config.bits, granularity=self.config.granularity)
