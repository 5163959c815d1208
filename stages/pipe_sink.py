"""The stage `pipe_sink`: frames as a stream for players, to standard output, a FIFO or a file."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from framefold.codecs.clip import Clip, ImageBatch, Source
from framefold.pipeline.errors import FramefoldError
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Options, Output, PortType, Stage, StageContext
from framefold.stages.fit import clips_of
from framefold.stages.media_output import unwritable
from framefold.stages.pipe_formats import FORMATS, Format, FrameStream
from framefold.stages.pipe_target import STANDARD_OUTPUT, Target, is_special, open_target

_log = logging.getLogger(__name__)


class PipeSinkConfig(Options, frozen=True):
    """Options of `pipe_sink`."""

    path: str = Field(default=STANDARD_OUTPUT, min_length=1, description="file or FIFO; - for standard output")
    format: Format = Field(default="y4m", description="y4m (4:2:0), rawvideo (RGB) or nut (RGB with exact times)")


class PipeSink(Stage):
    """Write the frames of one source as y4m, raw RGB or NUT while they come, for a player at the pipe's other end.

    For runs in one process. Standard output is taken over: whatever else is printed goes to standard error. When nobody
    reads on, the process ends as other commands in a pipe do, by SIGPIPE.
    """

    Config = PipeSinkConfig
    config: PipeSinkConfig
    accepts: ClassVar[PortType] = Clip | ImageBatch
    stateful: ClassVar[bool] = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._target: Target | None = None
        self._stream: FrameStream | None = None
        self._pace: _Pace | None = None
        self._source: Source | None = None
        self._next_frame = 0
        self._current_item = ""

    @classmethod
    def preflight(cls, config: Any) -> Sequence[tuple[str, str]]:
        """Say if a file cannot be made where it is asked for."""
        if config.path == STANDARD_OUTPUT or is_special(config.path):
            return []
        path = Path(config.path)
        problem = f"{path} is a folder; name a file" if path.is_dir() else unwritable(path)
        return [("path", problem)] if problem else []

    def setup(self, context: StageContext) -> None:
        """Open what is written to."""
        self._target = open_target(self.config.path)

    def process(self, item: Item) -> Iterator[Output]:
        """Write the frames, but none again that a failed attempt at the same item wrote."""
        for clip in clips_of(item.payload):
            self._begin(clip)
            self._check_order(clip, item)
            self._current_item = item.key
            self._write(clip)
        yield from ()

    def finish(self) -> Iterator[Output]:
        """End the stream; a file gets its name."""
        if self._stream is None or self._target is None:
            raise FramefoldError("no frame came, so there is nothing to show")
        self._stream.end()
        self._target.commit()
        yield from ()

    def close(self) -> None:
        """Let go; a file that is not whole is removed."""
        target, self._target = self._target, None
        if target is not None:
            target.close()

    def _begin(self, clip: Clip) -> None:
        source = clip.span.source
        if self._source is None and self._target is not None:
            rate = _rate(clip)
            self._stream = FORMATS[self.config.format](self._target.write, source, rate)
            self._pace = None if self._stream.keeps_times else _Pace(source, rate)
            self._source, self._next_frame = source, clip.span.first_frame
        elif source != self._source:
            raise FramefoldError(f"a stream shows one source, and {source.name!r} is another; choose one")

    def _check_order(self, clip: Clip, item: Item) -> None:
        first, name = clip.span.first_frame, clip.span.source.name
        if first < self._next_frame and item.key != self._current_item:
            raise FramefoldError(f"{clip.span.label} comes after frame {self._next_frame - 1}; clips must be in order")
        if first > self._next_frame:
            _log.warning("%s: frames %d to %d are missing", name, self._next_frame, first - 1)

    def _write(self, clip: Clip) -> None:
        for number, (frame, pts) in enumerate(zip(clip.frames, clip.span.pts, strict=True), clip.span.first_frame):
            if number >= self._next_frame and self._stream is not None:
                if self._pace:
                    self._pace.take(number, pts)
                self._stream.frame(frame, pts)
                self._next_frame = number + 1


class _Pace:
    """Holds times against a constant rate, and says once that they are others."""

    def __init__(self, source: Source, rate: Fraction) -> None:
        self._name, self._rate, self._base = source.name, rate, Fraction(*source.time_base)
        self._first: tuple[int, int] | None = None
        self._is_said = False

    def take(self, number: int, pts: int) -> None:
        """One frame; a tick to and fro is rounding."""
        self._first = self._first or (number, pts)
        due = (number - self._first[0]) / self._rate / self._base
        if not self._is_said and abs(pts - self._first[1] - due) > 1:
            self._is_said = True
            shown = f"{float(self._rate):g} frames per second"
            _log.warning(
                "%s: from frame %d on its times are not those of %s; nut keeps them", self._name, number, shown
            )


def _rate(clip: Clip) -> Fraction:
    """Frames per second: what the source says, else as in its first clip."""
    span = clip.span
    seconds = (span.pts[-1] - span.pts[0] + span.duration_ticks) * Fraction(*span.source.time_base)
    first = span.frame_count / seconds if seconds > 0 else Fraction(25)
    said = Fraction(*span.source.frame_rate) if span.source.frame_rate else first
    return said if max(said.numerator, said.denominator) < 2**31 else said.limit_denominator(10**4)
