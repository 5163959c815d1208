"""Where in its cell a chroma sample lies: left, in the middle, in a corner.

PyAV neither tells nor sets it, but FFmpeg's converter to RGB goes by it. So it is found out by converting: a frame of
noise with the properties of the one asked about gives the picture that the same noise gives with just one of the
known places. And it is set by a filter.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, VideoReformatter

from framefold.stages.media_planes import EXACT, format_of
from framefold.stages.media_probe import MEDIA_ERRORS

PLACES = {1: "left", 3: "topleft", 4: "top", 5: "bottomleft", 6: "bottom"}
"""FFmpeg's codes and words; 2, the middle, is what the converter takes 0, unspecified, for."""

FIELDS = {2: "tff", 3: "bff", 4: "bff", 5: "tff"}
"""FFmpeg's codes of interlaced pictures; which field is shown first."""

_SIDE = 16
_Filter = tuple[str, str | None]
"""Name and arguments."""


def chroma_location(frame: VideoFrame) -> int:
    """Find out where a frame's chroma samples lie: FFmpeg's code, 0 for unspecified, the middle, or no difference."""
    pixels = format_of(frame.format.name)
    if pixels is None or pixels.chroma == (1, 1):
        return 0
    try:
        noise = _noise_like(frame)
        seen = _rgb(noise)
        unspecified = _rgb(_filtered(noise, ("setparams", "chroma_location=unspecified")))
        places = (place for place in PLACES if np.array_equal(seen, _rgb(Placing(place).of(noise))))
        return 0 if np.array_equal(seen, unspecified) else next(places, 0)
    except MEDIA_ERRORS:  # the picture is there all the same
        return 0


class Placing:
    """Gives frames of one size and format their place of chroma, and says whether each is two fields."""

    def __init__(self, location: int, field_order: int = 0) -> None:
        """Take FFmpeg's codes; of two fields, chroma is shared by pixels of one, and converted field by field."""
        words = [f"chroma_location={PLACES[location]}"] if location in PLACES else []
        self._words = ":".join([*words, *([f"field_mode={FIELDS[field_order]}"] if field_order in FIELDS else [])])
        self._graph: Graph | None = None

    def of(self, frame: VideoFrame) -> VideoFrame:
        """Return a frame that differs in these properties alone."""
        if not self._words:
            return frame
        self._graph = self._graph or _graph(frame, ("setparams", self._words))
        return _through(self._graph, frame)


def _noise_like(frame: VideoFrame) -> VideoFrame:
    """A corner of the frame, its samples replaced; a decoder may still need the frame itself."""
    size = f"{min(frame.width, _SIDE)}:{min(frame.height, _SIDE)}:0:0:exact=1"
    corner = _filtered(frame, ("crop", size), ("copy", None))
    for plane in corner.planes:
        plane.update(np.random.default_rng(plane.buffer_size).integers(0, 256, plane.buffer_size, np.uint8).tobytes())
    return corner


def _filtered(frame: VideoFrame, *filters: _Filter) -> VideoFrame:
    return _through(_graph(frame, *filters), frame)


def _graph(frame: VideoFrame, *filters: _Filter) -> Graph:
    graph = Graph()
    links: list[Any] = [
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 25))
    ]
    links += [graph.add(*each) for each in filters]
    links.append(graph.add("buffersink"))
    for before, after in pairwise(links):
        before.link_to(after)
    graph.configure()
    return graph


def _through(graph: Any, frame: VideoFrame) -> VideoFrame:
    graph.push(frame)
    out: VideoFrame = graph.pull()
    return out


def _rgb(frame: VideoFrame) -> Any:
    converted = VideoReformatter().reformat(
        frame, format="rgb24", src_colorspace=Colorspace.ITU601, interpolation=EXACT, threads=1
    )
    return converted.to_ndarray()
