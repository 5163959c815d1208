from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from framefold.codecs.clip import ImageBatch
from framefold.pipeline.errors import FramefoldError
from framefold.pipeline.item import Item
from framefold.pipeline.stage import StageContext
from framefold.pipeline.testing import check_stage
from framefold.stages.image_sink import ImageSink
from framefold.stages.image_source import ImageSource


@pytest.fixture
def batch(make_clip: Callable, make_source: Callable) -> Callable[..., ImageBatch]:
    def make(*names: str) -> ImageBatch:
        pictures = []
        for name in names:
            pixels = np.random.default_rng(len(name)).integers(0, 256, (1, 3, 5 + len(name), 7), dtype=np.uint8)
            source = make_source(name, kind="image", width=7, height=5 + len(name))
            pictures.append(make_clip(source, pixels))
        return ImageBatch(pictures=tuple(pictures))

    return make


def sink(path: Path, **options: bool) -> ImageSink:
    return ImageSink(ImageSink.Config(path=str(path), **options))


def names_under(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_pictures_come_back_under_their_names_and_sizes(tmp_path: Path, feed: Callable, batch: Callable) -> None:
    batches = [batch("one.png", "photo.jpg"), batch("sub/three.PNG")]
    feed(sink(tmp_path / "out"), batches)
    assert names_under(tmp_path) == ["out/one.png", "out/photo.png", "out/sub/three.PNG"]
    for path, picture in zip(("one.png", "photo.png"), batches[0], strict=True):
        read = np.asarray(Image.open(tmp_path / "out" / path))
        np.testing.assert_array_equal(read, picture.frames[0].transpose(1, 2, 0))


def test_source_to_sink_and_back(tmp_path: Path, feed: Callable) -> None:
    (tmp_path / "in").mkdir()
    pixels = np.random.default_rng(1).integers(0, 256, (9, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in" / "a.webp", lossless=True)
    source = ImageSource(ImageSource.Config(path=str(tmp_path / "in")))
    feed(sink(tmp_path / "out"), [emit.payload for emit in source.produce()])
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "a.png")), pixels)


def test_names_that_meet_are_all_kept(tmp_path: Path, feed: Callable, batch: Callable) -> None:
    feed(sink(tmp_path / "out"), [batch("a.jpg"), batch("a.webp", "a.png")])
    assert names_under(tmp_path / "out") == ["a.jpg.png", "a.png", "a.webp.png"]


@pytest.mark.parametrize("name", ["../evil.png", "/srv/evil.png", "a/../../evil.png", "..\\evil.png", "COM1.png"])
def test_a_bad_name_is_refused_and_nothing_appears(tmp_path: Path, feed: Callable, batch: Callable, name: str) -> None:
    stage = sink(tmp_path / "inside" / "out")
    with pytest.raises(FramefoldError, match="is not written to disk"):
        feed(stage, [batch(name)])
    stage.close()
    assert names_under(tmp_path) == []


def test_a_failed_run_leaves_nothing(tmp_path: Path, feed: Callable, batch: Callable) -> None:
    stage = sink(tmp_path / "out")
    feed(stage, [batch("a.png")], finish=False)
    stage.close()
    assert list(tmp_path.iterdir()) == []


def test_the_same_item_again_writes_nothing_twice(tmp_path: Path, feed: Callable, batch: Callable) -> None:
    stage, item = sink(tmp_path / "out"), Item("key", "", (0,), batch("a.png", "b.png"))
    for _ in range(2):
        list(stage.process(item))
    feed(stage, [])
    assert names_under(tmp_path / "out") == ["a.png", "b.png"]


def test_a_full_folder_is_only_written_into_on_request(tmp_path: Path, feed: Callable, batch: Callable) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "a.png").write_text("precious")
    (target / "mine.txt").write_text("mine")
    ((option, message),) = ImageSink.preflight(ImageSink.Config(path=str(target)))
    assert (option, "overwrite: true" in message) == ("path", True)
    stage = sink(target)
    with pytest.raises(FramefoldError, match=r"a\.png is there already"):
        feed(stage, [batch("a.png")])
    stage.close()
    assert (target / "a.png").read_text() == "precious"
    feed(sink(target, overwrite=True), [batch("a.png")])
    assert names_under(tmp_path) == ["out/a.png", "out/mine.txt"]
    assert Image.open(target / "a.png").size == (7, 10)


def test_two_sinks_may_share_a_folder(tmp_path: Path, feed: Callable, batch: Callable) -> None:
    first, second = sink(tmp_path / "out"), sink(tmp_path / "out")
    first.setup(StageContext("first"))
    list(first.process(Item("key", "", (0,), batch("a.png"))))
    feed(second, [batch("b.png", "c/d.png")])
    list(first.finish())
    assert names_under(tmp_path) == ["out/a.png", "out/b.png", "out/c/d.png"]


def test_it_passes_the_suite(tmp_path: Path, batch: Callable) -> None:
    assert check_stage(ImageSink, {"path": str(tmp_path / "out"), "overwrite": True}, [batch("a.png", "b.jpg")]) == []


def test_preflight_wants_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ((option, message),) = ImageSink.preflight(ImageSink.Config(path=str(tmp_path / "file")))
    assert (option, "is a file" in message) == ("path", True)
    assert ImageSink.preflight(ImageSink.Config(path=str(tmp_path / "new" / "folder"))) == []
