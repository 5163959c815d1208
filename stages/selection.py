"""Which part of a source is wanted: the options `frames` and `seconds`, and what they mean exactly.

Times are those of the source's own clock, as `pipeline ls` prints them, and are held against a range in whole
microseconds: 0.033367 is the second frame of a film at 30000/1001. Ranges that meet share no frame and lose none.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import groupby
from typing import Annotated

from pydantic import AfterValidator, Field

from framefold.codecs.clip import Span
from framefold.pipeline.stage import Options

MICROSECONDS = 10**6

_Frame = Annotated[int, Field(ge=0, le=2**53 - 1)]
_Second = Annotated[float, Field(allow_inf_nan=False, ge=-(10**12), le=10**12)]


def _ordered(limits: tuple[float, float | None]) -> tuple[float, float | None]:
    first, stop = limits
    if stop is not None and stop <= first:
        raise ValueError(f"got {first:g} to {stop:g}; the second number must be larger, or null for no end")
    return limits


Frames = Annotated[tuple[_Frame, _Frame | None], AfterValidator(_ordered)]
Seconds = Annotated[tuple[_Second, _Second | None], AfterValidator(_ordered)]


class Selection(Options, frozen=True):
    """A range of frames, of time, or both: then what lies in both."""

    frames: Frames | None = Field(default=None, description="[first, stop]: frames from first up to stop - 1; else all")
    seconds: Seconds | None = Field(default=None, description="[start, end): by presentation time; else all")

    @property
    def is_all(self) -> bool:
        """Nothing is left out."""
        return self.frames is None and self.seconds is None

    def has_frame(self, number: int, pts: int, time_base: tuple[int, int]) -> bool:
        """Whether the frame with this number in its source and this time (ticks) is wanted."""
        return _inside(number, self.frames) and _inside(microseconds(pts, time_base), self._microseconds)

    def runs(self, span: Span) -> Iterator[range]:
        """Places of the frames that are wanted, 0 .. T - 1, run by run; times that grow make one run at most."""
        places = range(span.frame_count)
        for wanted, run in groupby(places, key=lambda place: self._has_place(span, place)):
            if wanted:
                members = list(run)
                yield range(members[0], members[-1] + 1)

    def _has_place(self, span: Span, place: int) -> bool:
        return self.has_frame(span.first_frame + place, span.pts[place], span.source.time_base)

    def meets_frames(self, first: int, count: int) -> bool:
        """Whether any of the frames `first ... first + count - 1` is wanted, as far as numbers tell."""
        return self.frames is None or _meets(first, first + count - 1, self.frames)

    def meets_times(self, start: int, end: int, time_base: tuple[int, int]) -> bool:
        """Whether something that lasts from `start` to `end` (ticks) is wanted in part, as far as times tell.

        Its last moment counts, for a last frame may stand for no time at all.
        """
        return _meets(microseconds(start, time_base), microseconds(end, time_base), self._microseconds)

    @property
    def _microseconds(self) -> tuple[int, int | None] | None:
        if self.seconds is None:
            return None
        start, end = self.seconds
        return _rounded(start), None if end is None else _rounded(end)


def microseconds(ticks: int, time_base: tuple[int, int]) -> int:
    """Nearest whole number of microseconds."""
    return round(Fraction(ticks * time_base[0] * MICROSECONDS, time_base[1]))


def _rounded(seconds: float) -> int:
    return round(Fraction(repr(seconds)) * MICROSECONDS)  # as it was written: 0.52, not the float beside it


def _inside(value: int, limits: tuple[int, int | None] | None) -> bool:
    return limits is None or (limits[0] <= value and (limits[1] is None or value < limits[1]))


def _meets(first: int, last: int, limits: tuple[int, int | None] | None) -> bool:
    return limits is None or (limits[0] <= last and (limits[1] is None or first < limits[1]))
