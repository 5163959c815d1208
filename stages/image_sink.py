"""The stage `image_sink`: pictures to PNG files."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from framefold.codecs.clip import Clip, Frames, ImageBatch, Source
from framefold.codecs.pixel_format import GRAY, GRAY_16, RGB, RGB_16
from framefold.codecs.rest import Attachment, Packets
from framefold.pipeline.errors import FramefoldError
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Options, Output, PortType, Progress, Row, Stage, StageContext
from framefold.stages.media_encode import write_png
from framefold.stages.media_names import picture_names
from framefold.stages.media_origin import original_name, place_beneath, restore_modified
from framefold.stages.media_output import StagedFolder, folder_problem
from framefold.stages.media_restore import Missing, write_whole
from framefold.stages.media_shown import Shown
from framefold.stages.media_spool import Rest

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Written:
    """One picture's pixels on disk."""

    draft: Path
    source: Source


class ImageSink(Stage):
    """Write pictures as lossless PNGs under their own names into a folder.

    `a.png` stays `a.png`, `a.jpg` becomes `a.png`, or `a.jpg.png` if there is another picture of that name. Alpha
    channel, colour profile, EXIF, XMP and text are put back from the attachments, which may come before the pictures
    or after them, and files get their originals' time of the last change. The folder appears when all is written.
    """

    class Config(Options):
        """Options of `image_sink`."""

        path: str = Field(min_length=1, description="folder for the pictures; made if it is missing")
        overwrite: bool = Field(default=False, description="write into a folder that already holds something")

    accepts: ClassVar[PortType] = ImageBatch | Attachment | Packets
    stateful: ClassVar[bool] = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._target = Path(config.path).expanduser()
        self._node = ""
        self._drafts: StagedFolder | None = None
        """Numbered files: their names are settled when all are known."""
        self._written: dict[tuple[str, int], _Written] = {}
        """By item key and place in its batch; a repeated item writes nothing twice."""
        self._rest: Rest | None = None

    @classmethod
    def preflight(cls, config: Any) -> Sequence[tuple[str, str]]:
        """Say if the folder cannot be made or is in use."""
        problem = folder_problem(Path(config.path).expanduser(), overwrite=config.overwrite)
        return [("path", problem)] if problem else []

    def setup(self, context: StageContext) -> None:
        """Several sinks may fill one folder: each writes under its own name before."""
        self._node = context.node

    def process(self, item: Item) -> Iterator[Output]:
        """Write the pixels of one batch, or hold an attachment; packets belong to no picture."""
        if isinstance(item.payload, ImageBatch):
            self._write(item.key, item.payload)
        elif isinstance(item.payload, Attachment):
            self._opened()[1].take(item.payload)
        yield from ()

    def _opened(self) -> tuple[StagedFolder, Rest]:
        self._drafts = self._drafts or StagedFolder(self._target, self._node)
        self._rest = self._rest or Rest(self._drafts.path)
        return self._drafts, self._rest

    def _write(self, key: str, pictures: ImageBatch) -> None:
        for place, picture in enumerate(pictures):
            source = picture.span.source
            original_name(source)  # a name that cannot be written is refused before anything is
            if (key, place) not in self._written:
                draft = self._opened()[0].path / f"{len(self._written)}.draft"
                draft.unlink(missing_ok=True)
                write_png(_as_png_holds_it(picture), draft)
                self._written[key, place] = _Written(draft, source)

    def finish(self) -> Iterator[Output]:
        """Put everything together, give the pictures their names and move the folder to its place."""
        if not self._written:
            raise FramefoldError(f"no picture reached {self._target}, so it was not written")
        drafts, rest = self._opened()
        folder = drafts.path / "named"
        written = list(self._written.values())
        names = picture_names([original_name(picture.source) for picture in written])
        without_place = Counter[str]()
        for number, (picture, name) in enumerate(zip(written, names, strict=True)):
            missing = _complete(picture, rest, place_beneath(folder, name))
            without_place.update(set(missing.without_place))
            if missing.lost:
                yield Row(picture.source.name, {"lost": "; ".join(missing.lost)})
            yield Progress((number + 1) / len(written))
        drafts.commit(overwrite=self.config.overwrite, content=folder)
        self._drafts = None
        yield Row(str(self._target), {"pictures": len(written), **_columns(without_place)})

    def close(self) -> None:
        """Remove what was not completed."""
        if self._rest:
            self._rest.close()
        if self._drafts:
            self._drafts.discard()


def _as_png_holds_it(picture: Clip) -> Frames:
    """Grey and RGB of 8 or 16 bits as they are, anything else as 8-bit RGB."""
    is_held = picture.pixels in (RGB, RGB_16, GRAY, GRAY_16)
    return picture.frames[0] if is_held else Shown(picture.span.source).rgb(picture.frames[0])


def _complete(picture: _Written, rest: Rest, place: Path) -> Missing:
    place.parent.mkdir(parents=True, exist_ok=True)
    missing = write_whole(picture.draft, picture.source, rest, place)
    late = restore_modified(place, picture.source)
    missing.lost += [late] if late else []
    for problem in missing.lost:
        _log.warning("%s: written without %s", picture.source.name, problem)
    return missing


def _columns(without_place: Counter[str]) -> dict[str, str]:
    """What PNG cannot hold, and of how many pictures."""
    text = ", ".join(f"{what} ({count})" for what, count in sorted(without_place.items()))
    return {"not_in_png": text} if text else {}
