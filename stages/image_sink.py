"""The stage `image_sink`: pictures to PNG files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from framefold.codecs.clip import ImageBatch
from framefold.pipeline.errors import FramefoldError
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Options, Output, PortType, Row, Stage, StageContext
from framefold.stages.media_encode import write_png
from framefold.stages.media_names import beneath, picture_names
from framefold.stages.media_output import StagedFolder, folder_problem


class ImageSink(Stage):
    """Write pictures as lossless PNGs under their own names into a folder.

    `a.png` stays `a.png`, `a.jpg` becomes `a.png`, or `a.jpg.png` if there is another picture of that name.
    The folder appears when all pictures are written.
    """

    class Config(Options):
        """Options of `image_sink`."""

        path: str = Field(min_length=1, description="folder for the pictures; made if it is missing")
        overwrite: bool = Field(default=False, description="write into a folder that already holds something")

    accepts: ClassVar[PortType] = ImageBatch
    stateful: ClassVar[bool] = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._target = Path(config.path).expanduser()
        self._node = ""
        self._drafts: StagedFolder | None = None
        """Numbered files: their names are settled when all are known."""
        self._written: dict[tuple[str, int], tuple[Path, str]] = {}
        """(item key, place in its batch) to draft and original name; a repeated item writes nothing twice."""

    @classmethod
    def preflight(cls, config: Any) -> Sequence[tuple[str, str]]:
        """Say if the folder cannot be made or is in use."""
        problem = folder_problem(Path(config.path).expanduser(), overwrite=config.overwrite)
        return [("path", problem)] if problem else []

    def setup(self, context: StageContext) -> None:
        """Several sinks may fill one folder: each writes under its own name before."""
        self._node = context.node

    def process(self, item: Item) -> Iterator[Output]:
        """Write the pictures of one batch."""
        self._drafts = self._drafts or StagedFolder(self._target, self._node)
        for place, picture in enumerate(item.payload):
            beneath(self._drafts.path, picture.span.source.name)
            if (item.key, place) not in self._written:
                draft = self._drafts.path / f"{len(self._written)}.draft"
                draft.unlink(missing_ok=True)
                write_png(picture.frames[0], draft)
                self._written[item.key, place] = (draft, picture.span.source.name)
        yield from ()

    def finish(self) -> Iterator[Output]:
        """Give the pictures their names and move the folder to its place."""
        if self._drafts is None:
            raise FramefoldError(f"nothing reached {self._target}, so it was not written")
        folder = self._drafts.path / "named"
        for (draft, _), name in zip(self._written.values(), self._final_names(), strict=True):
            place = beneath(folder, name)
            place.parent.mkdir(parents=True, exist_ok=True)
            draft.rename(place)
        self._drafts.commit(overwrite=self.config.overwrite, content=folder)
        self._drafts = None
        yield Row(str(self._target), {"pictures": len(self._written)})

    def _final_names(self) -> list[str]:
        return picture_names([name for _, name in self._written.values()])

    def close(self) -> None:
        """Remove what was not completed."""
        if self._drafts:
            self._drafts.discard()
