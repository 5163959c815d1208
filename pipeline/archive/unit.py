"""The head of a `Unit` payload: which frames the codec's bytes stand for, in 72 bytes at a constant rate.

Presentation times are stored as runs (start, step, count): any list of integers is exact, and a constant
frame rate is one run.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.limits import MAX_FRAMES, MAX_TICK

_KEY = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Run:
    """The times `start, start + step, …`, `count` of them."""

    start: int
    step: int
    count: int

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<qqI")

    def __post_init__(self) -> None:
        last = self.start + self.step * (self.count - 1)
        if not 1 <= self.count <= MAX_FRAMES or max(abs(self.start), abs(last)) > MAX_TICK:
            allowed = f"count 1 to {MAX_FRAMES}, times within +-{MAX_TICK}"
            raise ArchiveError(Code.LIMIT, f"a run of times is {self}; allowed: {allowed}")

    def times(self) -> Iterator[int]:
        """Spell the run out."""
        return (self.start + self.step * index for index in range(self.count))


def runs_of(pts: Sequence[int]) -> list[Run]:
    """Cut the times, from the front, into the longest runs; `pts` must not be empty."""
    runs, start = [], 0
    while start < len(pts):
        stop = start + 1
        step = pts[stop] - pts[start] if stop < len(pts) else 0
        while stop < len(pts) and pts[stop] - pts[stop - 1] == step:
            stop += 1
        runs.append(Run(start=pts[start], step=step, count=stop - start))
        start = stop
    return runs


@dataclass(frozen=True, kw_only=True)
class UnitHead:
    """What a unit's payload begins with; the codec's bytes follow."""

    key: str
    """64 hex digits."""
    codec: int
    """Number of the `Cdec` chunk among those of its type."""
    first_frame: int
    """Number of the first frame in its source."""
    duration_ticks: int
    """How long the last frame stands."""
    pts: tuple[int, ...]
    """Presentation times in ticks, 1 to 65,536 of them, any integers within +-(2^53 - 1)."""

    _FIXED: ClassVar[struct.Struct] = struct.Struct("<32sIIQI")

    def __post_init__(self) -> None:
        if not _KEY.fullmatch(self.key):
            raise ArchiveError(Code.RECORD, f"unit key is {self.key[:80]!r}; 64 lower-case hex digits are needed")
        if not 1 <= len(self.pts) <= MAX_FRAMES:
            raise ArchiveError(Code.LIMIT, f"a unit has {len(self.pts)} frames; allowed are 1 to {MAX_FRAMES}")
        for name, high in (("codec", 2**32 - 1), ("first_frame", 2**32 - 1), ("duration_ticks", MAX_TICK)):
            value = getattr(self, name)
            if not 0 <= value <= high:
                raise ArchiveError(Code.LIMIT, f"a unit's {name} is {value}; allowed are 0 to {high}")

    @property
    def t0(self) -> int:
        """Earliest presentation time, in ticks."""
        return min(self.pts)

    @property
    def duration(self) -> int:
        """From the earliest frame's appearance to the latest one's disappearance, in ticks."""
        return max(self.pts) - self.t0 + self.duration_ticks

    def pack(self) -> bytes:
        """Return 52 bytes and 20 for each run."""
        runs = runs_of(self.pts)
        frames = (self.first_frame, self.duration_ticks, len(runs))
        fixed = self._FIXED.pack(bytes.fromhex(self.key), self.codec, *frames)
        return fixed + b"".join(Run.LAYOUT.pack(run.start, run.step, run.count) for run in runs)

    @classmethod
    def unpack(cls, payload: bytes | memoryview) -> tuple[Self, int]:
        """Return the head, and where in `payload` the codec's bytes begin."""
        key, end = cls.key_and_end(payload)
        _, codec, first_frame, duration, _ = cls._FIXED.unpack_from(payload)
        pts = _spell_out(payload[cls._FIXED.size : end])
        return cls(key=key, codec=codec, first_frame=first_frame, duration_ticks=duration, pts=pts), end

    @classmethod
    def key_and_end(cls, payload: bytes | memoryview) -> tuple[str, int]:
        """Return the key, and where in `payload` the codec's bytes begin; the times are not looked at."""
        if len(payload) < cls._FIXED.size:
            raise ArchiveError(Code.RECORD, f"a unit of {len(payload)} bytes has no room for its head")
        key, _, _, _, count = cls._FIXED.unpack_from(payload)
        end = cls._FIXED.size + count * Run.LAYOUT.size
        if not 1 <= count <= MAX_FRAMES or end > len(payload):
            allowed = f"1 to {MAX_FRAMES}, inside {len(payload)} bytes"
            raise ArchiveError(Code.LIMIT, f"a unit's head says {count} runs of times; allowed are {allowed}")
        return key.hex(), end


def _spell_out(data: bytes | memoryview) -> tuple[int, ...]:
    times: list[int] = []
    for start, step, count in Run.LAYOUT.iter_unpack(data):
        run = Run(start=start, step=step, count=count)
        if len(times) + count > MAX_FRAMES:
            raise ArchiveError(Code.LIMIT, f"a unit has more than the {MAX_FRAMES} frames allowed")
        times.extend(run.times())
    return tuple(times)
