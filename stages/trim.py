"""The stage `trim`: clips to just the frames that are wanted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from framefold.codecs.clip import Clip, ImageBatch
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Output, PortType, Stage
from framefold.stages.selection import Selection


class TrimConfig(Selection, frozen=True):
    """Options of `trim`."""


class Trim(Stage):
    """Cut clips to a range of frames or of seconds, exactly; clips outside are dropped, pictures pass.

    An archive is read in whole clips: `archive_source` with the same range gives those that overlap it.
    """

    Config = TrimConfig
    config: TrimConfig
    accepts: ClassVar[PortType] = Clip | ImageBatch
    emits: ClassVar[Mapping[str, PortType]] = {"out": Clip | ImageBatch}

    def process(self, item: Item) -> Iterator[Output]:
        """Each run of wanted frames is a clip."""
        clip = item.payload
        if isinstance(clip, ImageBatch):
            yield clip
            return
        for run in self.config.runs(clip.span):
            yield clip if len(run) == clip.span.frame_count else clip.part(run.start, run.stop)
