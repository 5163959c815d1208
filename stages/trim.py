"""The stage `trim`: clips to just the frames that are wanted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
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
        """Each run of wanted frames is a clip; times that grow make one run of them at most."""
        clip = item.payload
        if isinstance(clip, ImageBatch):
            yield clip
            return
        for wanted, run in groupby(range(clip.span.frame_count), key=lambda place: self._is_wanted(clip, place)):
            places = list(run)
            if wanted:
                yield clip if len(places) == clip.span.frame_count else clip.part(places[0], places[-1] + 1)

    def _is_wanted(self, clip: Clip, place: int) -> bool:
        span = clip.span
        return self.config.has_frame(span.first_frame + place, span.pts[place], span.source.time_base)
