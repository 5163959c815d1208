"""`fixity`: whether decoded frames are those whose SHA-256 an archive recorded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framefold.codecs.clip import Clip, ImageBatch
from framefold.pipeline.archive import ArchiveError, ArchiveWriter
from framefold.pipeline.testing import check_stage
from framefold.stages.fixity import Fixity
from framefold.stages.measure import levels

MANIFEST = {"generator": "test", "created": "2026-01-31T12:00:00Z"}


@pytest.fixture
def clip(make_clip: Any, make_source: Any) -> Callable[..., Clip]:
    """Two frames of one grey level, from frame `first` on; or a picture."""

    def make(level: int, *, first: int = 0, name: str = "a.mp4", kind: str = "video") -> Clip:
        count = 2 if kind == "video" else 1
        return make_clip(make_source(name, kind=kind), np.full((count, 3, 6, 8), level, np.uint8), first)

    return make


def add(writer: ArchiveWriter, clip: Clip, key: int, measured: dict[str, Any] | None, *, packed: bool = False) -> None:
    """The clip's unit with what was measured; its payload does not matter here."""
    codec, span = writer.add_codec("any", {"key": key}), clip.span
    document = span.source.model_dump(mode="json", exclude_defaults=True) | {"time_base": [1, 1]}
    if packed:
        writer.add_picture(source=document, codec=codec, key=f"{key:064x}", payload=b"x", measured=measured)
        return
    unit = {"source": writer.add_source(document), "codec": codec, "first_frame": span.first_frame, "pts": span.pts}
    name = writer.add_unit(key=f"{key:064x}", payload=b"x", duration_ticks=1, **unit)
    if measured is not None:
        writer.add_quality(name, measured)


def recorded(clip: Clip) -> dict[str, Any]:
    sha256 = hashlib.sha256(clip.frames.tobytes()).hexdigest()
    return {"psnr_db": 30.0, "frames_sha256": sha256, "frames_levels": levels(clip.frames)}


@pytest.fixture
def archive(tmp_path: Path, clip: Any) -> Path:
    """Four units: two with a record, one without, one with a strange one; and a packed picture."""
    with ArchiveWriter(tmp_path / "a.fold") as writer:
        for number in range(2):
            add(writer, clip(number, first=2 * number), number, recorded(clip(number)))
        add(writer, clip(2, first=4), 2, None)
        add(writer, clip(3, first=6), 3, {"frames_sha256": 5})
        picture = clip(9, name="b.png", kind="image")
        add(writer, picture, 4, recorded(picture), packed=True)
        writer.commit(MANIFEST)
    return tmp_path / "a.fold"


def rows(feed: Any, archive: Path, payloads: list[Any]) -> list[tuple[Any, ...]]:
    found = feed(Fixity(Fixity.Config(path=archive)), payloads)
    return [(row.label, *row.values.values()) for row in found]


def test_it_is_a_stage_like_others(archive: Path, clip: Any) -> None:
    assert check_stage(Fixity, {"path": str(archive)}, [clip(0), clip(1, first=2)]) == []


def test_each_unit_is_held_against_its_own_record(archive: Path, clip: Any, feed: Any) -> None:
    clips = [clip(0), clip(7, first=2), clip(2, first=4), clip(3, first=6)]
    assert rows(feed, archive, clips) == [
        ("a.mp4[0:2]", "u000002", 2, True, True),
        ("a.mp4[2:4]", "u000005", 2, False, False),
        ("a.mp4[4:6]", "u000008", 2, None, None),
        ("a.mp4[6:8]", "u000010", 2, None, None),
    ]


def test_one_level_of_one_sample_makes_a_difference(archive: Path, clip: Any, feed: Any) -> None:
    frames = clip(0).frames.copy()
    frames[1, 2, 5, 7] = 1
    (row,) = rows(feed, archive, [Clip(span=clip(0).span, frames=frames)])
    assert row[3:] == (False, True)


@pytest.mark.parametrize(
    ("quarter", "is_alike"), [(np.s_[:3, :4], False), (np.s_[3:, 4:], False), (np.s_[0, :1], True)]
)
def test_frames_that_are_rounded_otherwise_are_told_from_other_frames(
    archive: Path, clip: Any, feed: Any, quarter: Any, is_alike: bool
) -> None:
    frames = clip(0).frames.copy()
    frames[:, 1][(slice(None), *quarter)] += 2
    (row,) = rows(feed, archive, [Clip(span=clip(0).span, frames=frames)])
    assert row[3:] == (False, is_alike)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 1), (5, 7)])
def test_levels_of_any_size(size: tuple[int, int]) -> None:
    frames = np.zeros((2, 3, *size), np.uint8)
    frames[:, 1], frames[:, 2] = 100, 255
    assert levels(frames) == "0064ff" * 4


def test_pictures_in_packs_too(archive: Path, clip: Any, feed: Any) -> None:
    batch = ImageBatch(pictures=tuple(clip(level, name="b.png", kind="image") for level in (9, 8)))
    assert [row[3] for row in rows(feed, archive, [batch])] == [True, False]


def test_frames_that_are_no_unit_have_no_record(archive: Path, clip: Any, feed: Any) -> None:
    assert rows(feed, archive, [clip(0, first=1), clip(0, name="c.mp4")]) == [
        ("a.mp4[1:3]", None, 2, None, None),
        ("c.mp4[0:2]", None, 2, None, None),
    ]


def test_two_codecs_for_the_same_frames_are_told_apart(tmp_path: Path, clip: Any, feed: Any) -> None:
    with ArchiveWriter(tmp_path / "a.fold") as writer:
        for number in range(2):
            add(writer, clip(0), number, recorded(clip(number)))
        writer.commit(MANIFEST)
    found = rows(feed, tmp_path / "a.fold", [clip(1), clip(0), clip(2)])
    assert [(row[1], row[3]) for row in found] == [("u000005", True), ("u000002", True), ("u000002", False)]


def test_a_missing_archive_is_found_before_anything_starts(tmp_path: Path, feed: Any) -> None:
    config = Fixity.Config(path=tmp_path / "no.fold")
    assert "no archive at" in Fixity.preflight(config)[0][1]
    with pytest.raises(ArchiveError, match="F001"):
        feed(Fixity(config), [])
