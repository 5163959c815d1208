"""The stage `video_source`: video files to clips of frames."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BufferedReader
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, ValidationError

from framefold.codecs.carried import AttachmentRef, Carried
from framefold.codecs.clip import Clip, Source, Span
from framefold.codecs.rest import Attachment, Packets
from framefold.pipeline.errors import RefusedInput
from framefold.pipeline.stage import Emit, Options, Output, PortType, Refused, Stage
from framefold.stages.media_belongings import Belongings, belongings
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
from framefold.stages.media_look import FirstLook
from framefold.stages.media_origin import legible, with_legible_names
from framefold.stages.media_originals import pieces_of, rest
from framefold.stages.media_probe import SUFFIXES, VideoProbe, probe
from framefold.stages.media_tracks import read_packets

BATCH_FRAMES = 16
BATCH_BYTES = 64 * 2**20
"""A batch holds at most this much, or one frame: a film never lies in memory as a whole."""
_log = logging.getLogger(__name__)


class VideoSource(Stage):
    """Read video files and hand out their frames, in order, a few at a time.

    Frames keep their size, odd ones too, their exact times, also where the frame rate varies, and their samples: YUV of
    any subsampling, grey or RGB, of 8 to 16 bits, with alpha or without, as the decoder gives them. All else that a
    file holds is described in `Source.carried`, and its bytes go out by the port `rest`: the packets of audio,
    subtitle and data tracks as they are, fonts, cover pictures and the like. A file that is missing, empty,
    truncated or no video is refused by name, and the next one is read.
    """

    class Config(Options):
        """Options of `video_source`."""

        pixels: Literal["source", "rgb"] = Field(
            default="source",
            exclude_if=lambda pixels: pixels == "source",
            description="code pictures as they are in the file, or as 8-bit RGB",
        )

        path: Paths = Field(description="file, folder, glob, or a list of them; relative to the current directory")
        keep_original: bool = Field(default=False, description="give the whole file to `rest`, byte for byte")

    emits: ClassVar[Mapping[str, PortType]] = {"out": Clip, "rest": Attachment | Packets}
    locators: ClassVar[frozenset[str]] = frozenset({"path", "keep_original", "pixels"})

    @classmethod
    def preflight(cls, config: Any) -> Sequence[tuple[str, str]]:
        """Say if there is nothing to read."""
        problem = nothing_found(config.path, SUFFIXES)
        return [("path", problem)] if problem else []

    def produce(self) -> Iterator[Output]:
        """Of each file its attachments, then clips of at most 16 frames, then the packets of its tracks."""
        identities, sent = Identities(), set[str]()
        for media, name_bytes in with_legible_names(find_files(self.config.path, SUFFIXES)):
            video = OpenVideo(
                media,
                name_bytes=name_bytes,
                keep_original=self.config.keep_original,
                as_rgb=self.config.pixels == "rgb",
            )
            problems = []
            for part in (_pictures(video, identities, sent), _rest(video, identities, sent)):
                try:
                    yield from part
                except RefusedInput as error:
                    problems.append(str(error))
            if problems:
                yield Refused(label=legible(str(media.path)), reason="; ".join(problems))


def _pictures(video: OpenVideo, identities: Identities, sent: set[str]) -> Iterator[Output]:
    passed_on = 0
    try:
        for clip in video.clips():
            if not passed_on:
                yield from _emitted(video.attachments(), identities, sent)
            passed_on += clip.span.frame_count
            yield Emit(clip, identity=identities.of(clip.span), label=clip.span.label)
    except RefusedInput as error:
        kept = f"; frames 0 to {passed_on - 1} were passed on" if passed_on else ""
        raise RefusedInput(f"{error}{kept}") from error


def _rest(video: OpenVideo, identities: Identities, sent: set[str]) -> Iterator[Output]:
    try:
        yield from _emitted(video.rest(), identities, sent)
    except RefusedInput as error:
        raise RefusedInput(f"beside its pictures: {error}") from error


def _emitted(items: Iterable[Attachment | Packets], identities: Identities, sent: set[str]) -> Iterator[Emit]:
    """Name what goes out by `rest`; what several files hold alike is `sent` once."""
    whole = set[str]()
    for item in items:
        if isinstance(item, Packets):
            owner = identities.of(Span(source=item.source, pts=(0,)))
            yield Emit(item, identity=f"packets:{owner}:{item.track}:{item.part}", port="rest")
        elif item.sha256 not in sent:
            whole.add(item.sha256)
            yield rest(item)
    sent |= whole


class OpenVideo:
    """One file: first its frames, then what belongs to it."""

    def __init__(
        self, media: MediaFile, *, name_bytes: str | None = None, keep_original: bool = False, as_rgb: bool = False
    ) -> None:
        self.media = media
        self._as_rgb = as_rgb
        self._name_bytes = name_bytes
        self._keep_original = keep_original
        self._source: Source | None = None
        self._belongings: Belongings | None = None
        self._state: tuple[int, ...] = ()

    def clips(self) -> Iterator[Clip]:
        """Yield the frames in batches; RefusedInput after the last says why there are no more."""
        with open_regular(self.media) as file:
            self._state = _state_of(file)
            digest = sha256_and_size(file)
            found = probe(file)
            self._belongings = belongings(file, found.packets, found.picture_bytes)
            for first, batch, end in _batches(file, found, as_rgb=self._as_rgb):
                self._source = self._source or self._describe(self._belongings, digest, found, batch[0])
                yield _clip(self._source, first, batch, end)

    def attachments(self) -> Iterator[Attachment]:
        """Yield what is small; all is known once there is a clip."""
        if self._belongings:
            yield from self._belongings.pieces()

    def rest(self) -> Iterator[Attachment | Packets]:
        """Yield packets, then perhaps the file; nothing if it gave no frames."""
        if self._source is None:
            return
        with open_regular(self.media) as file:
            if _state_of(file) != self._state:
                raise RefusedInput("the file changed while it was read; run again when nobody writes to it")
            yield from read_packets(file, self._source)
            if self._keep_original:
                yield from pieces_of(file, self._source.sha256, self._source.size_bytes)

    def _describe(self, belonging: Belongings, digest: tuple[str, int], found: VideoProbe, picture: Picture) -> Source:
        if picture.look:
            belonging.see(picture.look)
            _warn_of_less(self.media.name, picture)
        carried = belonging.carried.model_copy(update={"name_bytes": self._name_bytes})
        if self._keep_original:
            original = AttachmentRef(kind="original", sha256=digest[0], size_bytes=digest[1], name=self.media.name)
            carried = carried.model_copy(update={"attachments": (*carried.attachments, original)})
        return _source(self.media, digest, found, picture, carried)


def _state_of(file: BufferedReader) -> tuple[int, ...]:
    """What changes when somebody writes to a file or puts another in its place."""
    status = os.fstat(file.fileno())
    return status.st_ino, status.st_size, status.st_mtime_ns


def _warn_of_less(name: str, picture: Picture) -> None:
    """Say what is lost where pictures become 8-bit RGB."""
    look = picture.look or FirstLook()
    if look.bits > picture.pixels.depth:
        _log.warning("%s: its pictures are coded at 8 bits per channel; the original's %s has more", name, look.format)
    if look.has_alpha and not picture.pixels.alpha:
        _log.warning("%s: the alpha channel of its pictures (%s) is not kept", name, look.format)


def _batches(file: BufferedReader, found: VideoProbe, *, as_rgb: bool) -> Iterator[tuple[int, list[Picture], int]]:
    """Yield (number of the first frame, pictures, pts at which the last of them ends)."""
    first, batch, failure = 0, list[Picture](), None
    pictures = decode_pictures(file, found, as_rgb=as_rgb)
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
    return max(1, min(BATCH_FRAMES, BATCH_BYTES // picture.samples.nbytes))


def _source(media: MediaFile, digest: tuple[str, int], found: VideoProbe, picture: Picture, carried: Carried) -> Source:
    rate, base = found.frame_rate, found.time_base
    try:
        return Source(
            name=media.name,
            kind="video",
            sha256=digest[0],
            size_bytes=digest[1],
            width=picture.samples.shape[2],
            height=picture.samples.shape[1],
            time_base=(base.numerator, base.denominator),
            frame_rate=(rate.numerator, rate.denominator) if rate else None,
            color=picture.color,
            carried=carried,
            pixels=picture.pixels,
        )
    except ValidationError as error:
        raise RefusedInput(f"cannot be described: {error.errors()[0]['msg']}") from error


def _clip(source: Source, first: int, batch: list[Picture], end: int) -> Clip:
    pts = tuple(picture.pts for picture in batch)
    try:
        span = Span(source=source, first_frame=first, pts=pts, duration_ticks=max(0, end - pts[-1]))
    except ValidationError as error:
        raise RefusedInput(f"times of the frames from {first} on: {error.errors()[0]['msg']}") from error
    frames = np.empty(span.shape, source.pixels.dtype)
    return Clip(span=span, frames=np.stack([picture.samples for picture in batch], out=frames))
