"""The stage `image_source`: picture files to batches of RGB pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from framefold.codecs.clip import Clip, ImageBatch
from framefold.pipeline.errors import RefusedInput
from framefold.pipeline.stage import Emit, Options, Output, PortType, Refused, Stage
from framefold.stages.media_files import Identities, Paths, find_files, nothing_found
from framefold.stages.media_pictures import SUFFIXES, read_picture


class ImageSource(Stage):
    """Read picture files and hand them out as RGB, in batches.

    A file that is missing, damaged, no picture, or that 8-bit RGB cannot hold exactly (transparency, 16 bits,
    CMYK, several pictures) is refused by name, and the next one is read. Grey pictures become RGB.
    """

    class Config(Options):
        """Options of `image_source`."""

        path: Paths = Field(description="file, folder, glob, or a list of them; relative to the current directory")
        batch_size: int = Field(default=1, ge=1, le=4096, description="pictures handed on together")

    emits: ClassVar[Mapping[str, PortType]] = {"out": ImageBatch}
    locators: ClassVar[frozenset[str]] = frozenset({"path", "batch_size"})

    @classmethod
    def preflight(cls, config: Any) -> Sequence[tuple[str, str]]:
        """Say if there is nothing to read."""
        problem = nothing_found(config.path, SUFFIXES)
        return [("path", problem)] if problem else []

    def produce(self) -> Iterator[Output]:
        """Batches in the order of the files; the last one may be smaller."""
        identities, waiting = Identities(), list[Clip]()
        for media in find_files(self.config.path, SUFFIXES):
            try:
                waiting.append(read_picture(media))
            except RefusedInput as error:
                yield Refused(label=str(media.path), reason=str(error))
            if len(waiting) == self.config.batch_size:
                yield _batch(waiting, identities)
                waiting = []
        if waiting:
            yield _batch(waiting, identities)


def _batch(pictures: list[Clip], identities: Identities) -> Emit:
    others = f" and {len(pictures) - 1} more" if len(pictures) > 1 else ""
    return Emit(
        ImageBatch(pictures=tuple(pictures)),
        identity="+".join(identities.of(picture.span) for picture in pictures),
        label=pictures[0].span.label + others,
    )
