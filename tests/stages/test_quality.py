"""`quality` finds the originals whatever order they come in, and finds them again for a second attempt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from framefold.codecs.clip import Clip, ImageBatch, Span
from framefold.pipeline.errors import FramefoldError
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Output, StageContext
from framefold.stages import quality
from framefold.stages.quality import Quality
from framefold.stages.video_source import VideoSource

Feed = Callable[..., list[Any]]


@pytest.fixture
def films(tmp_path: Path, write_video: Callable[..., Path], pattern: Callable[..., np.ndarray]) -> list[Path]:
    """Two films of 20 frames: more than one batch of the source each."""
    return [write_video(tmp_path / name, pattern(20, 16, size)) for name, size in (("a.mkv", 16), ("b.mkv", 32))]


@pytest.fixture
def against() -> Callable[..., Quality]:
    def make(*paths: Path) -> Quality:
        return Quality(Quality.Config(against=[str(path) for path in paths]))

    return make


def clips(*paths: Path) -> list[Clip]:
    """What the films hold, decoded without loss."""
    source = VideoSource(VideoSource.Config(path=[str(path) for path in paths]))
    return [output.payload for output in source.produce()]


def test_originals_may_come_in_another_order(films: list[Path], against: Callable[..., Quality], feed: Feed) -> None:
    decoded = clips(*films)
    rows = feed(against(*reversed(films)), decoded)
    assert [row.label for row in rows] == [clip.span.label for clip in decoded]
    assert len(rows) == 4
    assert all(row.values["psnr_db"] == 100 and row.values["same_original"] for row in rows)


def test_originals_are_read_once_where_the_order_is_the_same(
    films: list[Path], against: Callable[..., Quality], feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded, passes = clips(*films), []
    produce = VideoSource.produce

    def counted(self: VideoSource) -> Iterator[Output]:
        passes.append(self)
        yield from produce(self)

    monkeypatch.setattr(VideoSource, "produce", counted)
    assert len(feed(against(*films), decoded)) == 4
    assert len(passes) == 1


def test_a_second_attempt_finds_the_original_again(
    films: list[Path], against: Callable[..., Quality], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded, measure, calls = clips(films[0]), quality.measure, []

    def stumble(*pair: Clip) -> Any:
        calls.append(pair)
        if len(calls) == 2:
            raise MemoryError("just now")
        return measure(*pair)

    monkeypatch.setattr(quality, "measure", stumble)
    stage = against(films[0])
    stage.setup(StageContext("quality"))
    items = [Item(str(number), "", (number,), clip) for number, clip in enumerate(decoded)]
    assert len(list(stage.process(items[0]))) == 1
    with pytest.raises(MemoryError):
        list(stage.process(items[1]))
    (row,) = stage.process(items[1])
    assert row.values["psnr_db"] == 100
    assert row.values["frames"] == 4


def test_what_the_originals_lack_is_named_and_costs_no_other_clip(
    tmp_path: Path, films: list[Path], against: Callable[..., Quality]
) -> None:
    (broken := tmp_path / "aa.mkv").write_bytes(b"no film")
    decoded = clips(*films)
    stage = against(broken, films[1])
    stage.setup(StageContext("quality"))
    with pytest.raises(FramefoldError, match=r"a\.mkv\[0:16\] is not whole among the originals.*aa\.mkv was refused"):
        list(stage.process(Item("0", "", (0,), decoded[0])))
    rows = [row for clip in decoded[2:] for row in stage.process(Item("1", "", (1,), clip))]
    assert [row.values["psnr_db"] for row in rows] == [100, 100]


def test_pictures_too(tmp_path: Path, feed: Feed, make_source: Callable[..., Any]) -> None:
    values = {"x.png": 10, "y.png": 200}
    for name, value in values.items():
        Image.new("RGB", (8, 6), (value,) * 3).save(tmp_path / name)
    batches = []
    for name in ("y.png", "x.png"):
        span = Span(source=make_source(name, kind="image"), pts=(0,))
        batches.append(ImageBatch(pictures=(Clip(span=span, frames=np.full(span.shape, values[name], np.uint8)),)))
    rows = feed(Quality(Quality.Config(against=str(tmp_path))), batches)
    assert [(row.label, row.values["psnr_db"]) for row in rows] == [("y.png", 100), ("x.png", 100)]
