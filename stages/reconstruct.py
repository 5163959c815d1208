"""reconstruct: networks become pixels, the twin of fit."""

from __future__ import annotations

from collections.abc import Iterator

from framefold.codecs.clip import Clip, ImageBatch
from framefold.codecs.network import FittedNetwork, SymbolTensors
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Output, Stage, StageContext
from framefold.stages.codec_choice import codec_of
from framefold.stages.device import device_of


class Reconstruct(Stage):
    """Evaluate networks to decoded clips and pictures."""

    accepts = FittedNetwork | SymbolTensors
    emits = {"out": Clip | ImageBatch}

    def setup(self, context: StageContext) -> None:
        """Choose the device."""
        self._device = device_of(context)

    def process(self, item: Item) -> Iterator[Output]:
        """A clip where the source is a video, a batch of one where it is a picture."""
        network = item.payload.dequantize() if isinstance(item.payload, SymbolTensors) else item.payload
        clip = codec_of(network.codec, network.config).reconstruct(network, device=self._device)
        yield clip if clip.span.source.kind == "video" else ImageBatch(pictures=(clip,))
