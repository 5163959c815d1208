"""The stage `originals_sink`: kept originals back to files, byte for byte."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from framefold.codecs.carried import AttachmentRef
from framefold.codecs.clip import Source
from framefold.codecs.network import Bitstream
from framefold.codecs.rest import Attachment, Packets
from framefold.pipeline.errors import FramefoldError
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Options, Output, PortType, Refused, Row, Stage, StageContext
from framefold.stages.media_origin import original_name, place_beneath, restore_modified
from framefold.stages.media_output import StagedFolder, folder_problem

_log = logging.getLogger(__name__)

_REMEDY = "only what was archived with keep_original: true can be had back byte for byte"


class OriginalsSink(Stage):
    """Write the originals that an archive keeps, byte for byte, under their own names into a folder.

    Each is checked against its SHA-256 and gets its time of the last change. Sources come as bitstreams, which are not
    decoded; one whose original is missing or damaged is named. The folder appears when all is written.
    """

    class Config(Options):
        """Options of `originals_sink`."""

        path: str = Field(min_length=1, description="folder for the files; made if it is missing")
        overwrite: bool = Field(default=False, description="write into a folder that already holds something")

    accepts: ClassVar[PortType] = Bitstream | Attachment | Packets
    stateful: ClassVar[bool] = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._target = Path(config.path).expanduser()
        self._node = ""
        self._staged: StagedFolder | None = None
        self._sources: dict[Source, None] = {}
        """In the order in which they came."""
        self._drafts: dict[str, Path] = {}
        """By SHA-256; of all attachments, for which of them are originals may be known later."""

    @classmethod
    def preflight(cls, config: Any) -> Sequence[tuple[str, str]]:
        """Say if the folder cannot be made or is in use."""
        problem = folder_problem(Path(config.path).expanduser(), overwrite=config.overwrite)
        return [("path", problem)] if problem else []

    def setup(self, context: StageContext) -> None:
        """Several sinks may fill one folder: each writes under its own name before."""
        self._node = context.node

    def process(self, item: Item) -> Iterator[Output]:
        """Note a source, or write a piece of an attachment; copied packets are in the originals anyway."""
        if isinstance(item.payload, Bitstream):
            source = item.payload.span.source
            original_name(source)  # a name that cannot be written is refused before anything is
            self._sources[source] = None
        elif isinstance(item.payload, Attachment):
            self._write(item.payload)
        yield from ()

    def _write(self, piece: Attachment) -> None:
        self._staged = self._staged or StagedFolder(self._target, self._node)
        draft = self._drafts.setdefault(piece.sha256, self._staged.path / f"{len(self._drafts)}.draft")
        draft.touch()
        with draft.open("r+b") as file:
            file.seek(piece.start)
            file.write(piece.data)

    def finish(self) -> Iterator[Output]:
        """Check the originals, give them their names and move the folder to its place."""
        if self._staged is None:
            raise FramefoldError(f"nothing reached {self._target}, so it was not written; {_REMEDY}")
        folder, written, size_bytes = self._staged.path / "named", 0, 0
        waiting = Counter(ref.sha256 for source in self._sources if (ref := _original(source)))
        for source in self._sources:
            problem = self._place(source, folder, waiting)
            if problem:
                yield Refused(source.name, problem)
            else:
                written, size_bytes = written + 1, size_bytes + source.size_bytes
        if not written:
            raise FramefoldError(f"no original reached {self._target} whole, so it was not written; {_REMEDY}")
        self._staged.commit(overwrite=self.config.overwrite, content=folder)
        self._staged = None
        yield Row(str(self._target), {"originals": written, "bytes": size_bytes})

    def _place(self, source: Source, folder: Path, waiting: Counter[str]) -> str | None:
        """Give one original its name, and say what is wrong with it."""
        ref = _original(source)
        if ref is None:
            return f"its original was not kept; {_REMEDY}"
        waiting[ref.sha256] -= 1
        draft = self._drafts.get(ref.sha256)
        if draft is None or not _is_whole(draft, ref):
            return f"its original (attachment {ref.sha256[:8]}) did not come whole"
        try:
            place = _free_place(folder, original_name(source))
        except OSError as error:
            return f"it cannot be written beside another original: {error.strerror}"
        if waiting[ref.sha256]:
            shutil.copyfile(draft, place)
        else:
            draft.rename(place)
        if late := restore_modified(place, source):
            _log.warning("%s: written without %s", source.name, late)
        return None

    def close(self) -> None:
        """Remove what was not completed."""
        if self._staged:
            self._staged.discard()


def _original(source: Source) -> AttachmentRef | None:
    refs = source.carried.attachments
    return next((ref for ref in refs if ref.kind == "original" and ref.sha256 == source.sha256), None)


def _is_whole(draft: Path, ref: AttachmentRef) -> bool:
    with draft.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == ref.sha256


def _free_place(folder: Path, name: str) -> Path:
    """Where a file of this name can lie; another one of the same name, also to a file system, gets a number."""
    place = place_beneath(folder, name)
    place.parent.mkdir(parents=True, exist_ok=True)
    number = 2
    while os.path.lexists(place):
        place = place_beneath(folder, name).with_name(f"{Path(name).stem}-{number}{Path(name).suffix}")
        number += 1
    return place
