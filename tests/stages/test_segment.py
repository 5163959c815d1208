from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from framefold.codecs.clip import Clip, Source, Span
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Emit
from framefold.stages.segment import Segment


def source(name: str) -> Source:
    return Source(name=name, kind="video", sha256=f"{len(name):064x}", size_bytes=1, width=2, height=1)


def clip(film: Source, first: int, stop: int) -> Clip:
    """Frames that carry their own number, with irregular times."""
    numbers = np.arange(first, stop, dtype=np.uint32)
    frames = np.broadcast_to(numbers.astype(np.uint8)[:, None, None, None], (stop - first, 3, 1, 2))
    pts = tuple(int(n) ** 2 for n in numbers)
    return Clip(span=Span(source=film, first_frame=first, pts=pts, duration_ticks=2 * stop - 1), frames=frames)


def run(frames_per_clip: int, clips: list[Clip]) -> list[Emit]:
    stage = Segment(Segment.Config(frames_per_clip=frames_per_clip))
    outputs = [o for i, c in enumerate(clips) for o in stage.process(Item(str(i), "", (i,), c))]
    return [*outputs, *stage.finish()]


def in_pieces(film: Source, sizes: list[int]) -> list[Clip]:
    ends = np.cumsum([0, *sizes]).tolist()
    return [clip(film, first, stop) for first, stop in pairwise(ends)]


sizes = st.lists(st.integers(1, 40), max_size=6)


@given(frames_per_clip=st.integers(1, 30), films=st.lists(sizes, max_size=3))
def test_no_frame_is_lost_doubled_or_moved(frames_per_clip: int, films: list[list[int]]) -> None:
    named = [(source("x" * (i + 1)), cut) for i, cut in enumerate(films)]
    clips = [emit.payload for emit in run(frames_per_clip, [c for film, cut in named for c in in_pieces(film, cut)])]
    for film, cut in named:
        mine, total = [c for c in clips if c.span.source == film], sum(cut)
        assert [c.span.frame_count for c in mine] == [
            min(frames_per_clip, total - start) for start in range(0, total, frames_per_clip)
        ]
        assert [n for c in mine for n in range(c.span.first_frame, c.span.first_frame + c.span.frame_count)] == list(
            range(total)
        )
        assert [int(v) for c in mine for v in c.frames[:, 0, 0, 0]] == [n % 256 for n in range(total)]
        assert [t for c in mine for t in c.span.pts] == [n**2 for n in range(total)]
        assert all(
            c.span.pts[-1] + c.span.duration_ticks == (n := c.span.first_frame + c.span.frame_count) * n for c in mine
        )
    assert len(clips) == sum(-(-sum(cut) // frames_per_clip) for cut in films)


@given(first=sizes, second=sizes)
def test_identities_do_not_depend_on_how_frames_arrive(first: list[int], second: list[int]) -> None:
    film, total = source("film"), min(sum(first), sum(second))
    whole = [emit.identity for emit in run(7, [clip(film, 0, total)] if total else [])]
    for cut in (first, second):
        pieces = [c for c in in_pieces(film, cut) if c.span.first_frame + c.span.frame_count <= total]
        done = pieces[-1].span.first_frame + pieces[-1].span.frame_count if pieces else 0
        rest = [clip(film, done, total)] if done < total else []
        assert [emit.identity for emit in run(7, pieces + rest)] == whole


def test_identity_and_label_say_the_frames() -> None:
    film = source("film.mp4")
    emitted = run(24, [clip(film, 0, 16), clip(film, 16, 25)])
    assert [emit.identity for emit in emitted] == [f"{film.sha256}:0-24", f"{film.sha256}:24-25"]
    assert [emit.label for emit in emitted] == ["film.mp4[0:24]", "film.mp4[24:25]"]


def test_after_a_gap_the_cuts_are_those_of_a_whole_run() -> None:
    film = source("film")
    emitted = run(10, [clip(film, 0, 16), clip(film, 32, 48)])
    spans = [(e.payload.span.first_frame, e.payload.span.frame_count) for e in emitted]
    assert spans == [(0, 10), (10, 6), (32, 8), (40, 8)]


def test_an_item_that_failed_midway_can_come_again() -> None:
    film, stage = source("film"), Segment(Segment.Config(frames_per_clip=4))
    assert list(stage.process(Item("a", "", (0,), clip(film, 0, 3)))) == []
    again = Item("b", "", (1,), clip(film, 3, 13))
    next(iter(stage.process(again)))  # the worker dies after the first clip
    emitted = [*stage.process(again), *stage.finish()]
    assert [(e.payload.span.first_frame, e.payload.span.frame_count) for e in emitted] == [
        (0, 4), (4, 4), (8, 4), (12, 1),
    ]  # fmt: skip


def test_what_is_held_does_not_keep_the_incoming_frames_alive() -> None:
    film, stage = source("film"), Segment(Segment.Config(frames_per_clip=100))
    incoming = clip(film, 0, 130)
    list(stage.process(Item("a", "", (0,), incoming)))
    (last,) = stage.finish()
    assert last.payload.span.frame_count == 30
    assert not np.shares_memory(last.payload.frames, incoming.frames)


@pytest.mark.parametrize("value", [0, -1, 65_537, "many"])
def test_bad_lengths_are_refused(value: Any) -> None:
    with pytest.raises(ValidationError, match="frames_per_clip"):
        Segment.Config(frames_per_clip=value)


def test_nothing_in_nothing_out(feed: Callable) -> None:
    assert feed(Segment(Segment.Config()), []) == []
