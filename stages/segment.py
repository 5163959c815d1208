"""The stage `segment`: clips of any length to clips of one length, the units that a codec fits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from framefold.codecs.clip import Clip, Span, join
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Emit, Options, Output, PortType, Stage
from framefold.stages.media_files import Identities


class Segment(Stage):
    """Cut video into clips of a fixed number of frames; the last clip of a file may be shorter.

    Cuts lie at multiples of `frames_per_clip`, counted from the file's first frame: if frames are missing
    because an item before was set aside, the clips after the gap are still those of every other run.
    """

    class Config(Options):
        """Options of `segment`."""

        frames_per_clip: int = Field(default=24, ge=1, le=65_536, description="frames in each clip")

    accepts: ClassVar[PortType] = Clip
    emits: ClassVar[Mapping[str, PortType]] = {"out": Clip}
    stateful: ClassVar[bool] = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._held: tuple[Clip, ...] = ()
        """Less than one clip, consecutive frames of one source."""
        self._identities = Identities()

    def process(self, item: Item) -> Iterator[Output]:
        """Emit the clips that are complete now; what is left waits for the next item."""
        held = self._held
        for piece in cut(item.payload, self.config.frames_per_clip):
            if held and not _continues(held[-1].span, piece.span):
                yield self._emit(held)
                held = ()
            held = (*held, piece)
            if _stop(piece.span) % self.config.frames_per_clip == 0:
                yield self._emit(held)
                held = ()
        self._held = tuple(_own(piece) for piece in held)  # only now: the same item may come again after a failure

    def finish(self) -> Iterator[Output]:
        """Emit the last, shorter clip."""
        if self._held:
            yield self._emit(self._held)
        self._held = ()

    def _emit(self, held: Sequence[Clip]) -> Emit:
        clip = join(held)
        return Emit(clip, identity=self._identities.of(clip.span), label=clip.span.label)


def cut(clip: Clip, frames_per_clip: int) -> Iterator[Clip]:
    """`clip` in pieces, none of which reaches over a multiple of `frames_per_clip`."""
    start = 0
    while start < clip.span.frame_count:
        room = frames_per_clip - (clip.span.first_frame + start) % frames_per_clip
        stop = min(start + room, clip.span.frame_count)
        yield clip.part(start, stop)
        start = stop


def _stop(span: Span) -> int:
    return span.first_frame + span.frame_count


def _continues(before: Span, after: Span) -> bool:
    return before.source == after.source and _stop(before) == after.first_frame


def _own(clip: Clip) -> Clip:
    """Return a copy, made once: a view would keep the whole incoming item alive."""
    if clip.frames.base is None:
        return clip
    return Clip(span=clip.span, frames=clip.frames.copy())
