"""`trim` and what a range means: exactly the frames that are wanted, however times are counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from framefold.codecs.clip import ImageBatch
from framefold.pipeline.testing import check_stage
from framefold.stages.trim import Trim


@pytest.fixture
def trim(make_clip: Any, make_source: Any, feed: Any) -> Callable[..., list[tuple[int, tuple[int, ...], int]]]:
    """(first frame, times, how long the last one stands) of what is left of frames 10 to 14, 4 ticks each."""

    def trimmed(pts: tuple[int, ...] = (40, 44, 48, 52, 56), **options: Any) -> list[tuple[int, tuple[int, ...], int]]:
        clip = make_clip(make_source(time_base=(1, 100)), np.zeros((5, 3, 6, 8), np.uint8), first=10, pts=pts)
        clips = feed(Trim(Trim.Config.model_validate(options)), [clip])
        return [(one.span.first_frame, one.span.pts, one.span.duration_ticks) for one in clips]

    return trimmed


def test_it_is_a_stage_like_others(make_clip: Any, make_source: Any) -> None:
    frames = np.arange(5 * 3 * 6 * 8, dtype=np.uint8).reshape(5, 3, 6, 8)
    clip = make_clip(make_source(), frames)
    (left,) = check_stage(Trim, {"frames": [1, 3]}, [clip])
    assert np.array_equal(left.frames, frames[1:3])


def test_pictures_pass(make_clip: Any, make_source: Any, feed: Any) -> None:
    picture = make_clip(make_source("a.png", kind="image"), np.zeros((1, 3, 6, 8), np.uint8))
    batch = ImageBatch(pictures=(picture,))
    assert feed(Trim(Trim.Config(frames=(5, 6))), [batch]) == [batch]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [(10, (40, 44, 48, 52, 56), 1)]),
        ({"frames": (0, 10)}, []),
        ({"frames": (0, 12)}, [(10, (40, 44), 4)]),
        ({"frames": (12, None)}, [(12, (48, 52, 56), 1)]),
        ({"seconds": (0.44, 0.52)}, [(11, (44, 48), 4)]),
        ({"seconds": (0.4400001, 0.5200004)}, [(11, (44, 48), 4)]),  # the same microseconds
        ({"seconds": (0.440001, 0.520001)}, [(12, (48, 52), 4)]),
        ({"seconds": (0.44, None), "frames": (0, 13)}, [(11, (44, 48), 4)]),
    ],
)
def test_trim_cuts_to_the_frame(trim: Any, options: Any, expected: Any) -> None:
    assert trim(**options) == expected


def test_trim_keeps_what_is_wanted_where_times_go_back(trim: Any) -> None:
    assert trim((40, 44, 40, 44, 48), seconds=(0.44, 0.48)) == [(11, (44,), 0), (13, (44,), 4)]


@pytest.mark.parametrize("base", [(1001, 30000), (1, 90000), (1, 1000), (7, 3)])
def test_ranges_that_meet_share_no_frame_and_lose_none(base: tuple[int, int]) -> None:
    times = [number * base[0] / base[1] for number in range(200)]
    borders = [-1.0, *sorted({round(time, 6) for time in times[::7]}), 1e6]

    def kept() -> Iterator[int]:
        for start, end in pairwise(borders):
            wanted = Trim.Config(seconds=(start, end))
            yield from (number for number in range(200) if wanted.has_frame(number, number, base))

    assert list(kept()) == list(range(200))


@pytest.mark.parametrize("options", [{"frames": (5, 5)}, {"frames": (-1, 5)}, {"seconds": (1.0, 0.5)}])
def test_an_empty_range_is_refused(options: Any) -> None:
    with pytest.raises(ValueError, match=r"larger|greater"):
        Trim.Config.model_validate(options)
