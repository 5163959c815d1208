"""Finds the fineness of the steps at which a stream has the bytes, or the picture the quality, that are wanted.

The knob is the fineness: log2 of a scale that all steps share, smaller is finer. Both goals are nearly straight lines
of it, which is why few streams have to be made: a fine step costs one bit per weight and octave, and what rounding
adds to the squared error grows by four per octave. The secant through the two nearest points does the rest, kept
within a bracket, because steps lie on a grid and a function made of symbols is monotone only roughly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from framefold.codecs.network import SymbolTensors

MAX_EVALUATIONS = 8
BYTES_TOLERANCE = 0.01
"""A stream that takes up to this share less than is allowed, and no more, is not improved upon."""
PSNR_TOLERANCE_DB = 0.03
PSNR_SLACK_DB = 0.05
"""A picture worse than its target by more than this is taken only if there is none better."""
LARGEST_STRIDE = 6.0
"""Octaves between two tries, while the goal has been passed by none."""
LEAST_STRIDE = 1 / 256
"""Octaves: nearer to each other, tries would not differ."""
SATURATED_DB = 0.02
"""A picture this near to that of the network before rounding is not made better by finer steps."""
SATURATED_BITS = 4.0
"""Bits per weight from which on it is worth while to look for that."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A network quantized at one fineness."""

    symbols: SymbolTensors = field(repr=False)
    bytes: int
    """Of its stream."""
    measure: Callable[[], float] = field(repr=False, compare=False)
    """PSNR in dB of its decoded frames."""

    @cached_property
    def psnr_db(self) -> float:
        """Measured when it is asked for."""
        return min(self.measure(), 100.0)

    @property
    def weights(self) -> int:
        """Parameters of the network."""
        return sum(tensor.symbols.size for tensor in self.symbols.tensors.values())


class Goal(Protocol):
    """What is wanted of a candidate."""

    @property
    def slope(self) -> float:
        """How `excess` changes per octave, roughly; below 0."""
        ...

    def excess(self, candidate: Candidate) -> float:
        """Above 0 where the steps could be coarser, 0 at the goal; about a straight line of the fineness."""
        ...

    def is_met(self, candidate: Candidate) -> bool:
        """Near enough to stop."""
        ...

    def badness(self, candidate: Candidate) -> tuple[float, ...]:
        """Of several the one with the least is taken."""
        ...

    def is_saturated(self, candidate: Candidate) -> bool:
        """Whether steps that are finer than the candidate's are of no use, whatever the goal."""
        ...


@dataclass(frozen=True, kw_only=True)
class BytesGoal:
    """As many bytes as are allowed, rather a few less than a few more."""

    bytes: float
    ceiling_db: Callable[[], float | None] = field(repr=False)
    """PSNR of the network before rounding; gives None if it cannot be measured."""
    slope: float = -1.0

    def excess(self, candidate: Candidate) -> float:
        """Octaves, about: log2(2**b - 1) of b bits per weight is b for fine steps and log2(b) for coarse ones."""
        weights = max(1, candidate.weights)
        return _octaves(8 * candidate.bytes / weights) - _octaves(8 * self.aim / weights)

    @property
    def aim(self) -> float:
        """Bytes in the middle of what is good enough."""
        return (1 - BYTES_TOLERANCE / 2) * self.bytes

    def is_met(self, candidate: Candidate) -> bool:
        """Within the tolerance below."""
        return (1 - BYTES_TOLERANCE) * self.bytes <= candidate.bytes <= self.bytes

    def badness(self, candidate: Candidate) -> tuple[float, ...]:
        """Distance from where is aimed at, which is a little below what is allowed."""
        return (abs(candidate.bytes - self.aim),)

    def is_saturated(self, candidate: Candidate) -> bool:
        """Fewer bytes than allowed, many per weight, and the picture is as good as the network's own."""
        if candidate.bytes > self.bytes or 8 * candidate.bytes < SATURATED_BITS * candidate.weights:
            return False
        ceiling_db = self.ceiling_db()
        return ceiling_db is not None and candidate.psnr_db >= ceiling_db - SATURATED_DB


@dataclass(frozen=True, kw_only=True)
class PsnrGoal:
    """At least this quality, in as few bytes as possible."""

    psnr_db: float
    ceiling_db: float
    """PSNR of the network before rounding, above `psnr_db`."""
    slope: float = -2.0

    def excess(self, candidate: Candidate) -> float:
        """How many times the error that rounding may add is the one that it does add, as log2."""
        return math.log2(self.added_mse / self._added_mse(candidate.psnr_db))

    @property
    def added_mse(self) -> float:
        """What rounding may add to the mean squared error, samples 0..1."""
        return self._added_mse(self.psnr_db)

    def _added_mse(self, psnr_db: float) -> float:
        own = _mse(self.ceiling_db)
        return max(_mse(psnr_db) - own, 1e-3 * own)

    def is_met(self, candidate: Candidate) -> bool:
        """Within the tolerance, either way."""
        return abs(candidate.psnr_db - self.psnr_db) <= PSNR_TOLERANCE_DB

    def badness(self, candidate: Candidate) -> tuple[float, ...]:
        """Good enough ones by their bytes, the others by what they lack."""
        lacking = self.psnr_db - candidate.psnr_db
        return (lacking if lacking > PSNR_SLACK_DB else 0.0, candidate.bytes, lacking)

    def is_saturated(self, candidate: Candidate) -> bool:
        """Never: the goal itself lies below the ceiling."""
        return False


def _octaves(bits: float) -> float:
    return bits if bits > 50 else math.log2(max(math.expm1(bits * math.log(2)), 1e-12))


def _mse(psnr_db: float) -> float:
    return float(10 ** (-psnr_db / 10))


@dataclass(frozen=True)
class Point:
    """One try."""

    fineness: float
    excess: float
    candidate: Candidate


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search came to."""

    best: Candidate
    points: tuple[Point, ...]
    """All tries, in their order."""
    saturated: bool = False
    """Finer steps would have been of no use."""


Search = Generator[Candidate, None, Found]
"""A search under way: each stream that was made, then what it came to."""


def search(
    encode: Callable[[float], Candidate],
    goal: Goal,
    *,
    start: float,
    finest: float,
    coarsest: float,
    evaluations: int = MAX_EVALUATIONS,
) -> Search:
    """Try finenesses, `finest ... coarsest`, from `start` on; at most `evaluations`, and keep the best."""
    points: list[Point] = []
    fineness: float | None = min(max(start, finest), coarsest)
    saturated = False
    while fineness is not None and len(points) < evaluations:
        candidate = encode(fineness)
        points.append(Point(fineness, goal.excess(candidate), candidate))
        yield candidate
        saturated = goal.is_saturated(candidate)
        fineness = None if saturated or goal.is_met(candidate) else next_fineness(points, goal.slope, finest, coarsest)
    best = points[-1].candidate if saturated else min((point.candidate for point in points), key=goal.badness)
    return Found(best=best, points=tuple(points), saturated=saturated)


def next_fineness(points: list[Point], slope: float, finest: float, coarsest: float) -> float | None:
    """Where to try next; None where no other place is worth it."""
    in_order = sorted(points, key=lambda point: point.fineness)
    fine = min((point for point in in_order[::-1] if point.excess > 0), key=_distance, default=None)
    coarse = min((point for point in in_order if point.excess <= 0), key=_distance, default=None)
    if fine is not None and coarse is not None:
        return _between(points, fine, coarse)
    return _beyond(points, slope, finest, coarsest)


def _between(points: list[Point], fine: Point, coarse: Point) -> float | None:
    """Where the line through the nearest two crosses zero, else that through `fine` and `coarse`.

    The middle where the last try came no nearer; None if the two are too near, or the wrong way round.
    """
    width = coarse.fineness - fine.fineness
    if width < 2 * LEAST_STRIDE:
        return None
    if len(points) > 2 and _distance(points[-1]) > min(map(_distance, points[:-1])) / 2:
        return fine.fineness + width / 2
    zero, margin = _secant(points), max(LEAST_STRIDE / 2, 0.01 * width)
    if zero is None or not fine.fineness < zero < coarse.fineness:
        zero, margin = fine.fineness + width * fine.excess / (fine.excess - coarse.excess), 0.15 * width
    return min(max(zero, fine.fineness + margin), coarse.fineness - margin)


def _beyond(points: list[Point], slope: float, finest: float, coarsest: float) -> float | None:
    """On along the line, and a little further, so that the goal comes to lie between two tries."""
    last = min(points, key=_distance)
    zero = _secant(points)
    wanted = (last.fineness - last.excess / slope if zero is None else zero) - last.fineness
    direction = 1.0 if last.excess > 0 else -1.0
    least = 4 ** len(points) * LEAST_STRIDE  # where the line misleads, each stride is longer than the one before
    stride = min(max(1.1 * direction * wanted, least), LARGEST_STRIDE)
    outermost = max(direction * point.fineness for point in points)
    fineness = min(max(direction * outermost + direction * stride, finest), coarsest)
    return None if any(point.fineness == fineness for point in points) else fineness


def _secant(points: list[Point]) -> float | None:
    """Where the line through the two tries nearest to the goal crosses it; None if it does not fall."""
    if len(points) < 2:
        return None
    near, other = sorted(points, key=_distance)[:2]
    run, fall = other.fineness - near.fineness, other.excess - near.excess
    return near.fineness - near.excess * run / fall if run * fall < 0 else None


def _distance(point: Point) -> float:
    return abs(point.excess)
