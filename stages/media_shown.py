"""Frames as a screen shows them: 8-bit RGB, whatever they are stored as."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from av.video.reformatter import VideoReformatter

from framefold.codecs.clip import Frames, Source
from framefold.codecs.pixel_format import RGB
from framefold.pipeline.errors import FramefoldError
from framefold.stages.media_decode import to_rgb
from framefold.stages.media_planes import frame_of
from framefold.stages.media_sites import Placing


class Shown:
    """Converts the frames of one source by its tags, as `video_source` does with `pixels: rgb`."""

    def __init__(self, source: Source) -> None:
        self._source = source
        tags = source.carried.pixel
        self._placing = Placing(tags.chroma_location, tags.field_order)
        self._reformatter = VideoReformatter()

    def rgb(self, frame: Frames) -> npt.NDArray[np.uint8]:
        """(C, H, W) to (3, H, W) uint8; alpha is left away. FramefoldError for a colour matrix that is not known."""
        if self._source.pixels == RGB:
            return frame.astype(np.uint8, copy=False)
        try:
            stored = self._placing.of(frame_of(frame, self._source.pixels))
            stored.colorspace, stored.color_range = self._source.color.matrix, self._source.color.range
            return to_rgb(stored, self._reformatter).transpose(2, 0, 1)
        except (FramefoldError, ValueError) as error:
            raise FramefoldError(f"{self._source.name}: its frames cannot be shown as RGB: {error}") from error
