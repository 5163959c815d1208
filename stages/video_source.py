"""The stage `video_source`: video files to clips of RGB frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from io import BufferedReader
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, ValidationError

from framefold.codecs.clip import Clip, Source, Span
from framefold.pipeline.errors import RefusedInput
from framefold.pipeline.stage import Emit, Options, Output, PortType, Refused, Stage
from framefold.stages.media_decode import Picture, decode_pictures
from framefold.stages.media_files import (
    Identities,
    MediaFile,
    Paths,
    find_files,
    nothing_found,
    open_regular,
    sha256_and_size,
)
from framefold.stages.media_probe import SUFFIXES, VideoProbe, probe

BATCH_FRAMES = 16
BATCH_BYTES = 64 * 2**20
"""A batch holds at most this much, or one frame: a film never lies in memory as a whole."""


class VideoSource(Stage):
    """Read video files and hand out their frames, in order, a few at a time.

    Frames keep their size, odd ones too, and their exact times, also where the frame rate varies. A file that
    is missing, empty, truncated or no video is refused by name, and the next one is read.
    """

    class Config(Options):
        """Options of `video_source`."""

        path: Paths = Field(description="file, folder, glob, or a list of them; relative to the current directory")

    emits: ClassVar[Mapping[str, PortType]] = {"out": Clip}
    locators: ClassVar[frozenset[str]] = frozenset({"path"})

    @classmethod
    def preflight(cls, config: Any) -> Sequence[tuple[str, str]]:
        """Say if there is nothing to read."""
        problem = nothing_found(config.path, SUFFIXES)
        return [("path", problem)] if problem else []

    def produce(self) -> Iterator[Output]:
        """Clips of at most 16 frames, file after file."""
        identities = Identities()
        for media in find_files(self.config.path, SUFFIXES):
            passed_on = 0
            try:
                for clip in read_clips(media):
                    passed_on += clip.span.frame_count
                    yield Emit(clip, identity=identities.of(clip.span), label=clip.span.label)
            except RefusedInput as error:
                kept = f"; frames 0 to {passed_on - 1} were passed on" if passed_on else ""
                yield Refused(label=str(media.path), reason=f"{error}{kept}")


def read_clips(media: MediaFile) -> Iterator[Clip]:
    """Yield the frames of one file in batches; RefusedInput after the last says why there are no more."""
    with open_regular(media) as file:
        sha256, size_bytes = sha256_and_size(file)
        found = probe(file)
        source: Source | None = None
        for first, batch, end in _batches(file, found):
            source = source or _source(media, sha256, size_bytes, found, batch[0])
            yield _clip(source, first, batch, end)


def _batches(file: BufferedReader, found: VideoProbe) -> Iterator[tuple[int, list[Picture], int]]:
    """Yield (number of the first frame, pictures, pts at which the last of them ends)."""
    first, batch, failure = 0, list[Picture](), None
    pictures = decode_pictures(file, found)
    while True:
        try:
            picture = next(pictures, None)
        except RefusedInput as error:
            picture, failure = None, error
        if picture is None:
            break
        if batch and len(batch) == _batch_length(batch[0]):
            yield first, batch, picture.pts
            first, batch = first + len(batch), []
        batch.append(picture)
    if batch:
        yield first, batch, batch[-1].pts + batch[-1].duration
    if failure:
        raise failure


def _batch_length(picture: Picture) -> int:
    return max(1, min(BATCH_FRAMES, BATCH_BYTES // picture.rgb.nbytes))


def _source(media: MediaFile, sha256: str, size_bytes: int, found: VideoProbe, picture: Picture) -> Source:
    rate, base = found.frame_rate, found.time_base
    try:
        return Source(
            name=media.name,
            kind="video",
            sha256=sha256,
            size_bytes=size_bytes,
            width=picture.rgb.shape[1],
            height=picture.rgb.shape[0],
            time_base=(base.numerator, base.denominator),
            frame_rate=(rate.numerator, rate.denominator) if rate else None,
            color=picture.color,
        )
    except ValidationError as error:
        raise RefusedInput(f"cannot be described: {error.errors()[0]['msg']}") from error


def _clip(source: Source, first: int, batch: list[Picture], end: int) -> Clip:
    pts = tuple(picture.pts for picture in batch)
    try:
        span = Span(source=source, first_frame=first, pts=pts, duration_ticks=max(0, end - pts[-1]))
    except ValidationError as error:
        raise RefusedInput(f"times of the frames from {first} on: {error.errors()[0]['msg']}") from error
    frames = np.empty(span.shape, np.uint8)
    for frame, picture in zip(frames, batch, strict=True):
        frame[:] = picture.rgb.transpose(2, 0, 1)
    return Clip(span=span, frames=frames)
