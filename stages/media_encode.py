"""Frames to files: H.264 in MP4 for players, FFV1 in Matroska and PNG without loss."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from fractions import Fraction
from math import lcm
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from PIL import Image

from framefold.codecs.carried import Track
from framefold.codecs.clip import Frames, Source
from framefold.codecs.rest import Packet
from framefold.pipeline.errors import FramefoldError
from framefold.stages import media_deep_png
from framefold.stages.media_hdr import Hdr, hdr_of
from framefold.stages.media_mkv_header import mend
from framefold.stages.media_mux import NO_FILES, Loss, Muxer
from framefold.stages.media_picture_stream import MAX_INT32, PictureStream, time_base_of
from framefold.stages.media_shown import Shown
from framefold.stages.media_spool import Rest, Spool
from framefold.stages.media_tags import chapters_for, container_tags

_REPEATABLE = {"fflags": "+bitexact"}
"""For a muxer: no random identifiers, no dates, no version numbers."""
_ENCODE_ERRORS = (av.FFmpegError, OSError, ValueError, ArithmeticError)
_PICTURES = "pictures"
_log = logging.getLogger(__name__)


class FrameWriter(ABC):
    """Takes the frames of one source in order."""

    @abstractmethod
    def write(self, frame: Frames, *, number: int, pts: int, duration: int) -> None:
        """Add one frame; `pts` and `duration` in ticks of the source's time base."""

    @abstractmethod
    def finish(self) -> None:
        """Complete what was begun; FramefoldError if that fails."""

    @abstractmethod
    def abort(self) -> None:
        """Let go of everything, without a usable result; must not raise."""


class PngWriter(FrameWriter):
    """A folder of `frame_000000.png`, numbered as in the source, of 8-bit RGB."""

    def __init__(self, folder: Path, source: Source) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._shown = Shown(source)

    def write(self, frame: Frames, *, number: int, pts: int, duration: int) -> None:
        """Write one file; times are not kept."""
        write_png(self._shown.rgb(frame), self._folder / f"frame_{number:06d}.png")

    def finish(self) -> None:
        """Nothing is held back."""

    def abort(self) -> None:
        """Nothing is open."""


def stale_frames(place: Path, folder: Path) -> list[Path]:
    """Return the frames in `place` that `folder` has no successor for: the tail of a longer, older video."""
    return [old for old in place.glob("frame_*.png") if not (folder / old.name).exists()]


def write_png(frame: Frames, path: Path) -> None:
    """One new file of grey (1, H, W) or RGB (3, H, W), of 8 or 16 bits; FileExistsError if there is one."""
    with path.open("xb") as file:
        if frame.shape[0] == 3 and frame.dtype == np.uint16:
            media_deep_png.write(frame, file)
            return
        Image.fromarray(frame[0] if len(frame) == 1 else np.ascontiguousarray(frame.transpose(1, 2, 0))).save(
            file, "PNG"
        )


class ContainerWriter(FrameWriter):
    """One video track in a file, and what `rest` brings; times and tags are the source's.

    MP4 keeps times exactly. Matroska counts milliseconds: each time is rounded to the nearest one. If there are
    tracks or files to go with the pictures, these wait on disk once they are coded, for those may come last.
    """

    def __init__(self, path: Path, source: Source, *, crf: int | None, threads: int, rest: Rest | None = None) -> None:
        """H.264 in MP4 with this `crf`, or FFV1 in Matroska if it is None."""
        self.losses: list[Loss] = []
        self.tracks: list[Track] = []
        """What is known after `finish`: what could not be written, and the tracks that were."""
        self._path, self._source, self._rest = path, source, rest
        self._last_pts: int | None = None
        self._durations: dict[int, int] = {}
        """Of the frames inside the encoder, by pts."""
        self._rounded = 0
        self._matroska = crf is None
        self._roomy = crf is None and _needs_mending(source)
        self._spool = Spool(path.parent) if rest and _has_company(source) else None
        self._container = self._open()
        self._pictures = PictureStream(
            self._container, source, crf=crf, threads=threads, hdr=self._hdr(), roomy=self._roomy
        )

    def _open(self) -> Any:
        url = f"file:{self._path}"  # a bare "a:b.mp4" would name a protocol called a
        carried = self._source.carried
        if self._matroska:
            # The muxer would mark the first track of each kind as the default one; the original's marks are known.
            options = {**_REPEATABLE, **({"default_mode": "passthrough"} if carried.container else {})}
            container = av.open(url, "w", format="matroska", options=options)
        else:
            container = av.open(url, "w", format="mp4", options=_mp4_options(self._source))
        container.metadata.update(container_tags(carried))
        container.set_chapters(cast("Any", chapters_for(carried.chapters)))
        return container

    def _hdr(self) -> Hdr:
        """Read from side data, as far as it came by now."""
        refs = [ref for ref in self._source.carried.attachments if ref.kind == "side_data"]
        found = {ref.name: self._rest.attachment(ref.sha256) for ref in refs} if self._rest else {}
        return hdr_of({name: data for name, data in found.items() if data})

    def write(self, frame: Frames, *, number: int, pts: int, duration: int) -> None:
        """Encode one frame; the encoder may hold it back for a while."""
        pts = self._next_pts(pts, number)
        self._durations[pts] = duration
        try:
            self._put(self._pictures.encode(frame, pts))
        except _ENCODE_ERRORS as error:
            raise FramefoldError(f"frame {number} of {self._source.name} cannot be written: {error}") from error

    def _next_pts(self, pts: int, number: int) -> int:
        """Make times grow, as containers want: one that does not is put a tick behind the one before."""
        if self._last_pts is not None and pts <= self._last_pts:
            _log.warning("%s: frame %d has the time %d, not after the frame before", self._source.name, number, pts)
            pts = self._last_pts + 1
        self._last_pts = pts
        self._rounded += (1000 * pts * time_base_of(self._source)).denominator > 1
        return pts

    def _put(self, packets: list[Any]) -> None:
        for packet in packets:
            if packet.pts is not None:
                packet.duration = self._durations.pop(packet.pts, packet.duration)
            if self._spool is None:
                self._container.mux(packet)
            else:
                self._spool.add(_PICTURES, [_copied(packet)])

    def finish(self) -> None:
        """Take the last frames out of the encoder, add what belongs to them, and write the index."""
        try:
            self._put(self._pictures.encode(None))
            if self._spool and self._rest:
                self._add_company(self._spool, self._rest)
            self._container.close()
            if self._roomy:
                mend(self._path, aspect=Fraction(*self._source.carried.pixel.aspect), hdr=self._hdr())
        except _ENCODE_ERRORS as error:
            raise FramefoldError(f"{self._source.name} cannot be completed: {error}") from error
        finally:
            self._let_go()
        if self._matroska and self._rounded:
            reason = f"Matroska rounds {self._rounded} of them to 1/1000 s; .mp4 keeps them"
            self.losses.append(Loss("times of pictures", reason))

    def _add_company(self, pictures: Spool, rest: Rest) -> None:
        muxer = Muxer(self._container, self._source, rest)
        muxer.add()
        muxer.write(pictures.read(_PICTURES), self._pictures.stream, time_base_of(self._source))
        self.losses += muxer.losses
        self.tracks += muxer.added

    def abort(self) -> None:
        """Close the file as it is."""
        try:
            self._container.close()
        except _ENCODE_ERRORS as error:
            _log.debug("closing %s: %s", self._path, error)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        if self._spool:
            self._spool.close()


def _has_company(source: Source) -> bool:
    files = any(ref.kind not in NO_FILES for ref in source.carried.attachments)
    return bool(source.carried.tracks) or files


def _needs_mending(source: Source) -> bool:
    carried = source.carried
    return carried.pixel.aspect != (1, 1) or any(ref.kind == "side_data" for ref in carried.attachments)


def _copied(packet: Any) -> Packet:
    return Packet(
        data=bytes(packet),
        pts=packet.pts,
        dts=packet.dts,
        duration=packet.duration or 0,
        flags=int(packet.is_keyframe),
    )


def _mp4_options(source: Source) -> dict[str, str]:
    """Return options of the MP4 muxer: index first, and edit lists that count as finely as all the tracks.

    By default they count milliseconds, and players drop a last frame that begins behind a rounded end.
    """
    scale = time_base_of(source).denominator
    while scale < 10_000:  # as the muxer does for the track
        scale *= 2
    for track in source.carried.tracks:
        finer = lcm(scale, track.sample_rate or 1)
        scale = finer if finer <= MAX_INT32 else scale
    # Bit rates would be appended to a text track's header, which says them already if it is from an MP4.
    rates = {"write_btrt": "0"} if any(track.codec == "mov_text" for track in source.carried.tracks) else {}
    return {**_REPEATABLE, "movflags": "+faststart", "movie_timescale": str(scale), **rates}
