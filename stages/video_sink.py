"""The stage `video_sink`: clips, and what belongs to them, to a video file or a folder of PNGs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator

from framefold.codecs.carried import Carried
from framefold.codecs.clip import Clip, Source
from framefold.codecs.rest import Attachment, Packets
from framefold.pipeline.errors import FramefoldError
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Options, Output, PortType, Row, Stage, StageContext
from framefold.stages.media_encode import ContainerWriter, FrameWriter, PngWriter, stale_frames
from framefold.stages.media_losses import Written, losses, losses_to_pictures
from framefold.stages.media_mux import Loss
from framefold.stages.media_names import beneath
from framefold.stages.media_origin import restore_modified
from framefold.stages.media_output import StagedFile, StagedFolder, folder_problem, unwritable
from framefold.stages.media_spool import Rest

_log = logging.getLogger(__name__)


class VideoSink(Stage):
    """Write clips as H.264 (`.mp4`), as lossless FFV1 (`.mkv`), or as lossless PNGs of 8-bit RGB in a folder.

    FFV1 has the pixel format of the clips, H.264 is as near to it as it can be. Times, frame rate, tags, rotation and
    odd sizes are kept; `.mkv` rounds times to milliseconds, PNGs have none. What comes from a source's port `rest` is
    written too: copied audio and subtitle tracks, fonts, cover pictures, in any order. What the file cannot hold is
    named in the result. Several sources go into a folder, each into a subfolder of its name. The result appears when it
    is complete.
    """

    class Config(Options):
        """Options of `video_sink`."""

        path: str = Field(min_length=1, description="file ending in .mp4 or .mkv, or a folder for PNGs")
        crf: int = Field(default=10, ge=0, le=51, description="quality of .mp4; lower is better, 0 nearly lossless")
        overwrite: bool = Field(default=False, description="write into a folder that already holds something")

        @field_validator("path")
        @classmethod
        def _known_kind(cls, path: str) -> str:
            if not _is_folder(path) and Path(path).suffix.lower() not in (".mp4", ".mkv"):
                raise ValueError(
                    f"got {path!r}; allowed is a file ending in .mp4 or .mkv, or a folder for PNGs "
                    "(end its name in '/')"
                )
            return path

    accepts: ClassVar[PortType] = Clip | Packets | Attachment
    stateful: ClassVar[bool] = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._target = Path(config.path).expanduser()
        self._staged: StagedFile | StagedFolder | None = None
        self._writer: FrameWriter | None = None
        self._source: Source | None = None
        self._rest: Rest | None = None
        """Of a file: what came beside the pictures."""
        self._folders: dict[str, Path] = {}
        """Of a folder of PNGs: source name to its staged subfolder."""
        self._next_frame = 0
        self._current_item = ""
        self._node, self._threads = "", 1
        self._videos = self._frames = 0
        self._losses: list[Loss] = []

    @classmethod
    def preflight(cls, config: Any) -> Sequence[tuple[str, str]]:
        """Say if the output cannot be made where it is asked for."""
        target, folder = Path(config.path).expanduser(), _is_folder(config.path)
        problem = folder_problem(target, overwrite=config.overwrite) if folder else unwritable(target)
        return [("path", problem)] if problem else []

    def setup(self, context: StageContext) -> None:
        """Take as many encoder threads as there are cores granted."""
        self._node = context.node
        self._threads = max(1, int(context.cpus))

    def process(self, item: Item) -> Iterator[Output]:
        """Write the clip's frames, but none again that a failed attempt at the same item wrote."""
        if not isinstance(item.payload, Clip):
            self._put_aside(item.payload)
            return
        clip = item.payload
        if clip.span.source != self._source:
            self._begin(clip.span.source)
        self._check_order(clip, item)
        self._current_item = item.key
        self._write(clip)
        yield from ()

    def finish(self) -> Iterator[Output]:
        """Complete the file or folder and move it to its place."""
        writer = self._writer
        self._end_source()
        if self._staged is None:
            raise FramefoldError(f"nothing reached {self._target}, so it was not written")
        if isinstance(self._staged, StagedFile):
            if self._source and isinstance(writer, ContainerWriter):
                self._losses += _losses_of(writer, self._source, self._rest, self._staged.path)
                problem = restore_modified(self._staged.path, self._source)
                self._losses += [Loss("time of the last change", problem)] if problem else []
            self._staged.commit()
        else:
            self._commit_folder(self._staged)
        self._staged = None
        yield Row(str(self._target), {"videos": self._videos, "frames": self._frames})
        for loss in self._losses:
            yield Row(loss.item, {"not carried": loss.reason})

    def close(self) -> None:
        """Remove what was not completed."""
        if self._writer:
            self._writer.abort()
        if self._staged:
            self._staged.discard()
        if self._rest:
            self._rest.close()

    def _put_aside(self, item: Packets | Attachment) -> None:
        """Keep what may go into a file; whole originals and what a folder of PNGs cannot hold are let go."""
        if not _is_folder(self.config.path) and not _is_original(item, self._source):
            self._rest = self._rest or Rest(self._target.absolute().parent)
            self._rest.take(item)

    def _commit_folder(self, staged: StagedFolder) -> None:
        folders = list(self._folders.values())
        content = folders[0] if len(folders) == 1 else staged.path  # a single video needs no subfolder
        places = {folder: self._target / folder.relative_to(content) for folder in folders}
        stale = [old for folder, place in places.items() for old in stale_frames(place, folder)]
        staged.commit(overwrite=self.config.overwrite, content=content)
        for old in stale:
            old.unlink()

    def _begin(self, source: Source) -> None:
        if _is_folder(self.config.path):
            self._begin_folder(source)
        else:
            self._begin_file(source)
        self._source, self._next_frame, self._current_item = source, 0, ""
        self._videos += 1

    def _begin_file(self, source: Source) -> None:
        if self._source:
            raise FramefoldError(
                f"{self._target} holds one video, {self._source.name}, and cannot take {source.name} "
                "as well; name a folder instead: end the path in '/'"
            )
        self._staged = self._staged or StagedFile(self._target)
        crf = self.config.crf if self._target.suffix.lower() == ".mp4" else None
        self._rest = self._rest or Rest(self._staged.path.parent)
        self._writer = ContainerWriter(self._staged.path, source, crf=crf, threads=self._threads, rest=self._rest)

    def _begin_folder(self, source: Source) -> None:
        self._end_source()
        if source.name.casefold() in map(str.casefold, self._folders):
            raise FramefoldError(f"two sources are called {source.name}; decode them one by one")
        self._staged = self._staged or StagedFolder(self._target, self._node)
        folder = beneath(self._staged.path, source.name)
        self._writer = PngWriter(folder, source)
        self._folders[source.name] = folder
        self._losses += losses_to_pictures(source)

    def _check_order(self, clip: Clip, item: Item) -> None:
        first = clip.span.first_frame
        if first < self._next_frame and item.key != self._current_item:
            raise FramefoldError(f"{clip.span.label} comes after frame {self._next_frame - 1}; clips must be in order")
        if first > self._next_frame:
            _log.warning("%s: frames %d to %d are missing", clip.span.source.name, self._next_frame, first - 1)

    def _write(self, clip: Clip) -> None:
        if self._writer is None:
            raise FramefoldError(f"{clip.span.source.name} could not be begun")
        span = clip.span
        ends = (*span.pts[1:], span.pts[-1] + span.duration_ticks)
        for offset, (frame, pts, end) in enumerate(zip(clip.frames, span.pts, ends, strict=True)):
            number = span.first_frame + offset
            if number >= self._next_frame:
                self._writer.write(frame, number=number, pts=pts, duration=max(0, end - pts))
                self._next_frame = number + 1
                self._frames += 1

    def _end_source(self) -> None:
        writer, self._writer = self._writer, None
        if writer:
            writer.finish()


def _is_folder(path: str) -> bool:
    return path.endswith("/") or not Path(path).suffix or Path(path).expanduser().is_dir()


def _is_original(item: Packets | Attachment, source: Source | None) -> bool:
    return isinstance(item, Attachment) and source is not None and item.sha256 == source.sha256


def _losses_of(writer: ContainerWriter, source: Source, rest: Rest | None, path: Path) -> list[Loss]:
    """What the file that was just written lacks; a source that tells nothing of itself lacks nothing."""
    if source.carried == Carried():
        return writer.losses
    return [*writer.losses, *losses(source, rest, Written.read(path), writer.tracks)]
