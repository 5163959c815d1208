"""Clips that end where the film cuts: only there, and the same however the frames arrive."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefold.codecs.clip import Clip, Frames, Source, Span
from framefold.codecs.pixel_format import PixelFormat
from framefold.pipeline.item import Item
from framefold.stages.scene_cuts import SceneWatch, thumbnails
from framefold.stages.segment import Segment
from framefold.stages.video_source import VideoSource

BUNNY = Path(__file__).parents[2] / "examples" / "bunny.mp4"
HEIGHT, WIDTH = 40, 72


def shot(seed: int, frames: int, *, pan: int = 0, shimmer: int = 2) -> Frames:
    """A picture of soft blots that moves by `pan` pixels a frame, with a little noise."""
    generator = np.random.default_rng(seed)
    blots = np.kron(generator.integers(0, 256, (3, 8, 60)), np.ones((1, 5, 6)))
    pictures = [np.roll(blots, pan * frame, axis=2)[:, :HEIGHT, :WIDTH] for frame in range(frames)]
    noise = generator.integers(-shimmer, shimmer + 1, (frames, 3, HEIGHT, WIDTH))
    return (np.stack(pictures) + noise).clip(0, 255).astype(np.uint8)


def film(*shots: Frames) -> Clip:
    frames = np.concatenate(shots)
    source = Source(name="film", kind="video", sha256=64 * "0", size_bytes=1, width=WIDTH, height=HEIGHT)
    return Clip(span=Span(source=source, pts=tuple(range(len(frames)))), frames=frames)


FILM = film(shot(1, 13), shot(2, 11, pan=1), shot(3, 20), shot(4, 9, pan=2))
CUTS = (13, 24, 44)


def lengths(pieces: list[Clip], frames_per_clip: int) -> list[tuple[int, int]]:
    stage = Segment(Segment.Config(frames_per_clip=frames_per_clip, scene_cuts=True))
    emitted = [out for i, piece in enumerate(pieces) for out in stage.process(Item(str(i), "", (i,), piece))]
    spans = [out.payload.span for out in (*emitted, *stage.finish())]
    return [(span.first_frame, span.frame_count) for span in spans]


def in_pieces(clip: Clip, ends: set[int]) -> list[Clip]:
    return [clip.part(first, stop) for first, stop in pairwise(sorted({0, clip.span.frame_count, *ends}))]


def test_each_cut_is_found_and_nothing_else() -> None:
    cuts, _ = SceneWatch().over(FILM)
    assert cuts == CUTS


def test_a_clip_ends_at_a_cut_and_counting_begins_anew() -> None:
    assert lengths([FILM], 10) == [(0, 10), (10, 3), (13, 10), (23, 1), (24, 10), (34, 10), (44, 9)]


@given(ends=st.sets(st.integers(1, FILM.span.frame_count - 1), max_size=12), frames_per_clip=st.integers(1, 30))
def test_clips_are_the_same_however_the_frames_arrive(ends: set[int], frames_per_clip: int) -> None:
    assert lengths(in_pieces(FILM, ends), frames_per_clip) == lengths([FILM], frames_per_clip)


@given(ends=st.sets(st.integers(1, FILM.span.frame_count - 1), max_size=12))
def test_every_frame_is_in_one_clip_and_no_clip_straddles_a_cut(ends: set[int]) -> None:
    clips = lengths(in_pieces(FILM, ends), 10)
    assert [frame for first, count in clips for frame in range(first, first + count)] == list(range(53))
    assert {first for first, _ in clips} >= set(CUTS)


@pytest.mark.parametrize("pan", [1, 3, 7])
def test_a_pan_is_no_cut_however_fast(pan: int) -> None:
    assert SceneWatch().over(film(shot(5, 30, pan=pan)))[0] == ()


def test_a_flash_is_one_cut_at_most() -> None:
    flash = np.full((1, 3, HEIGHT, WIDTH), 255, np.uint8)
    assert len(SceneWatch().over(film(shot(1, 10), flash, shot(1, 10)))[0]) == 1


def test_a_picture_that_stood_still_may_stir() -> None:
    still = np.full((9, 3, HEIGHT, WIDTH), 100, np.uint8)
    assert SceneWatch().over(film(still, still + 5))[0] == ()
    assert SceneWatch().over(film(still, still + 50))[0] == (9,)


def test_after_a_gap_clips_lie_where_they_would_without_cuts() -> None:
    assert lengths([FILM.part(0, 20), FILM.part(30, 42)], 10) == [(0, 10), (10, 3), (13, 7), (30, 10), (40, 2)]


def test_the_bundled_film_is_one_shot() -> None:
    watch, cuts = SceneWatch(), []
    for emitted in VideoSource(VideoSource.Config(path=str(BUNNY))).produce():
        if isinstance(emitted.payload, Clip):
            found, watch = watch.over(emitted.payload)
            cuts += found
    assert cuts == []
    assert watch.frame > 40


@given(height=st.integers(1, 70), width=st.integers(1, 70))
def test_small_pictures_are_means_of_brightness(height: int, width: int) -> None:
    frames = np.broadcast_to(np.array([250, 100, 50], np.uint8)[None, :, None, None], (2, 3, height, width))
    small = thumbnails(frames)
    assert small.shape[0] == 2
    assert small == pytest.approx(0.299 * 250 + 0.587 * 100 + 0.114 * 50, abs=1e-2)
    assert 1 <= small.shape[1] < 64
    assert 1 <= small.shape[2] < 64


def test_the_option_leaves_keys_of_old_as_they_were() -> None:
    assert Segment.Config(frames_per_clip=24).model_dump(mode="json") == {"frames_per_clip": 24}


@pytest.mark.parametrize(
    "pixels", [PixelFormat(model="yuv", chroma=(2, 2)), PixelFormat(model="gray", depth=16)], ids=lambda each: each.name
)
def test_brightness_is_that_of_the_first_channel_whatever_its_depth(pixels: PixelFormat) -> None:
    grey = shot(1, 2)[:, :1]
    deep = grey.repeat(pixels.channels, 1).astype(pixels.dtype) * (pixels.peak // 255)
    deep[:, 1:] = 0
    np.testing.assert_allclose(thumbnails(deep, pixels), thumbnails(grey.repeat(3, 1)), rtol=1e-4)
