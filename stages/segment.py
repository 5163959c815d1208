"""The stage `segment`: clips of any length to clips of one length, the units that a codec fits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from framefold.codecs.clip import Clip, Span, join
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Emit, Options, Output, PortType, Stage
from framefold.stages.media_files import Identities
from framefold.stages.scene_cuts import SceneWatch


class Segment(Stage):
    """Cut video into clips of a fixed number of frames; the last clip of a file may be shorter.

    Clips end at multiples of `frames_per_clip`, counted from the file's first frame: if frames are missing
    because an item before was set aside, the clips after the gap are still those of every other run. With
    `scene_cuts` a clip also ends where the film cuts to another shot, and counting begins anew there.
    """

    class Config(Options):
        """Options of `segment`."""

        frames_per_clip: int = Field(default=24, ge=1, le=65_536, description="frames in each clip, at most")
        scene_cuts: bool = Field(
            default=False,
            exclude_if=lambda wanted: not wanted,
            description="end a clip where the film cuts to another shot, too",
        )

    accepts: ClassVar[PortType] = Clip
    emits: ClassVar[Mapping[str, PortType]] = {"out": Clip}
    stateful: ClassVar[bool] = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._held: tuple[Clip, ...] = ()
        """Less than one clip, consecutive frames of one source."""
        self._watch = SceneWatch()
        self._origin = 0
        """The frame that clips are counted from."""
        self._identities = Identities()

    def process(self, item: Item) -> Iterator[Output]:
        """Emit the clips that are complete now; what is left waits for the next item."""
        held, size = self._held, self.config.frames_per_clip
        origin = self._origin if self._watch.goes_on(item.payload.span) else 0
        cuts, watch = self._watch.over(item.payload) if self.config.scene_cuts else ((), self._watch)
        for piece in cut(item.payload, size, origin=origin, scenes=cuts):
            begins_scene = piece.span.first_frame in cuts
            if held and (begins_scene or not _continues(held[-1].span, piece.span)):
                yield self._emit(held)
                held = ()
            origin = piece.span.first_frame if begins_scene else origin
            held = (*held, piece)
            if (_stop(piece.span) - origin) % size == 0:
                yield self._emit(held)
                held = ()
        self._held = tuple(_own(piece) for piece in held)  # only now: the same item may come again after a failure
        self._origin, self._watch = origin, watch

    def finish(self) -> Iterator[Output]:
        """Emit the last, shorter clip."""
        if self._held:
            yield self._emit(self._held)
        self._held = ()

    def _emit(self, held: Sequence[Clip]) -> Emit:
        clip = join(held)
        return Emit(clip, identity=self._identities.of(clip.span), label=clip.span.label)


def cut(clip: Clip, frames_per_clip: int, *, origin: int = 0, scenes: Sequence[int] = ()) -> Iterator[Clip]:
    """`clip` in pieces; none reaches over a multiple of `frames_per_clip`, counted from `origin`, or into a scene.

    Each of `scenes`, numbers of frames in ascending order, is the next origin.
    """
    end = clip.span.first_frame + clip.span.frame_count
    start = clip.span.first_frame
    while start < end:
        origin = max((scene for scene in scenes if scene <= start), default=origin)
        regular = start + frames_per_clip - (start - origin) % frames_per_clip
        stop = min(regular, end, *(scene for scene in scenes if scene > start))
        yield clip.part(start - clip.span.first_frame, stop - clip.span.first_frame)
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
