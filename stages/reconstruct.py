"""reconstruct: networks become pixels, the twin of fit."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from framefold.codecs.clip import Clip, ImageBatch
from framefold.codecs.network import FittedNetwork, SymbolTensors
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Output, Stage, StageContext
from framefold.stages.codec_choice import codec_of
from framefold.stages.device import device_of
from framefold.stages.selection import Frames, Seconds, Selection


def _is_none(value: object) -> bool:
    """What older versions had not is not written down where it is not used: keys of work depend on all that is."""
    return value is None


class ReconstructConfig(Selection, frozen=True):
    """Options of `reconstruct`."""

    frames: Frames | None = Field(default=None, exclude_if=_is_none, description="[first, stop]: only these are drawn")
    seconds: Seconds | None = Field(default=None, exclude_if=_is_none, description="[start, end): only these are drawn")


class Reconstruct(Stage):
    """Evaluate networks to decoded clips and pictures; of a clip only the frames that are wanted."""

    Config = ReconstructConfig
    config: ReconstructConfig

    accepts = FittedNetwork | SymbolTensors
    emits = {"out": Clip | ImageBatch}

    def setup(self, context: StageContext) -> None:
        """Choose the device."""
        self._device = device_of(context)

    def process(self, item: Item) -> Iterator[Output]:
        """A clip where the source is a video, or one for each run of wanted frames; a batch of one for a picture."""
        network = item.payload.dequantize() if isinstance(item.payload, SymbolTensors) else item.payload
        codec, span = codec_of(network.codec, network.config), network.span
        if span.source.kind == "image":
            yield ImageBatch(pictures=(codec.reconstruct(network, device=self._device),))
            return
        for run in self.config.runs(span):
            frames = codec.draw(network, run, device=self._device)
            yield Clip(span=span if len(run) == span.frame_count else span.part(run.start, run.stop), frames=frames)
