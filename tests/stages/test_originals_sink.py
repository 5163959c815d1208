from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from framefold.codecs.carried import AttachmentRef, Carried
from framefold.codecs.clip import Source, Span
from framefold.codecs.network import Bitstream
from framefold.codecs.rest import Attachment
from framefold.pipeline.errors import FramefoldError
from framefold.pipeline.stage import Refused, Row
from framefold.pipeline.testing import check_stage
from framefold.stages import media_originals
from framefold.stages.image_source import ImageSource
from framefold.stages.originals_sink import OriginalsSink


def bits(source: Source) -> Bitstream:
    return Bitstream(span=Span(source=source, pts=(0,)), codec="coin", config={}, payload=b"never decoded")


def kept(name: str, data: bytes, **carried: Any) -> tuple[Source, Attachment]:
    sha256 = hashlib.sha256(data).hexdigest()
    ref = AttachmentRef(kind="original", sha256=sha256, size_bytes=len(data))
    source = Source(
        name=name,
        kind="image",
        sha256=sha256,
        size_bytes=len(data),
        width=1,
        height=1,
        carried=Carried(attachments=(ref,), **carried),
    )
    return source, Attachment(sha256=sha256, total_bytes=len(data), data=data)


def sink(path: Path, **options: bool) -> OriginalsSink:
    return OriginalsSink(OriginalsSink.Config(path=str(path), **options))


def files_under(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("arrange", [list, reversed, lambda items: [*items, *items]])
def test_originals_come_back_byte_for_byte(
    tmp_path: Path, feed: Callable, monkeypatch: pytest.MonkeyPatch, arrange: Callable
) -> None:
    monkeypatch.setattr(media_originals, "PIECE_BYTES", 1000)
    odd = os.fsdecode(b"caf\xe9.png")
    for place in ("x/a.png", "y/a.png", "deep.tiff", odd):
        path = tmp_path / "in" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.frombytes("RGBA", (20, 30), os.urandom(2400)).save(path)
        os.utime(path, ns=(7, 1_234_567_890_123_456_789 + len(place)))
    (tmp_path / "in" / "y" / "a.png").write_bytes((tmp_path / "in" / "x" / "a.png").read_bytes())
    source = ImageSource(ImageSource.Config(path=str(tmp_path / "in"), keep_original=True))
    payloads = [output.payload for output in source.produce()]
    assert max(len(each.data) for each in payloads if isinstance(each, Attachment)) == 1000
    items = [each if isinstance(each, Attachment) else bits(each.pictures[0].span.source) for each in payloads]
    (row,) = feed(sink(tmp_path / "out"), arrange(items))
    assert files_under(tmp_path / "out") == files_under(tmp_path / "in")
    assert row.values["originals"] == 4
    for path in (tmp_path / "in").rglob("*.*"):
        assert (tmp_path / "out" / path.relative_to(tmp_path / "in")).stat().st_mtime_ns == path.stat().st_mtime_ns


def test_what_was_not_kept_or_is_damaged_is_named(tmp_path: Path, feed: Callable) -> None:
    (whole, data), (damaged, bad), (cut, _), (alone, _) = (kept(f"{n}.png", b"x" * (10 + n)) for n in range(4))
    left_out = Source(name="none.png", kind="image", sha256="ab" * 32, size_bytes=1, width=1, height=1)
    items = [*map(bits, (whole, damaged, cut, alone, left_out)), data]
    items.append(Attachment(sha256=bad.sha256, total_bytes=bad.total_bytes, data=b"y" * bad.total_bytes))
    items.append(Attachment(sha256=cut.sha256, total_bytes=12, start=5, data=b"x" * 7))
    outputs = feed(sink(tmp_path / "out"), items)
    refused = {output.label: output.reason for output in outputs if isinstance(output, Refused)}
    assert refused.keys() == {"1.png", "2.png", "3.png", "none.png"}
    assert "did not come whole" in refused["1.png"]
    assert "keep_original" in refused["none.png"]
    assert files_under(tmp_path / "out") == {"0.png": b"x" * 10}
    assert [output.values for output in outputs if isinstance(output, Row)] == [{"originals": 1, "bytes": 10}]


def test_an_attachment_that_is_not_the_sources_own_file_is_no_original(tmp_path: Path, feed: Callable) -> None:
    source, piece = kept("a.png", b"one")
    lying = source.model_copy(update={"sha256": "ab" * 32})
    stage = sink(tmp_path / "out")
    with pytest.raises(FramefoldError, match="no original reached"):
        feed(stage, [bits(lying), piece])
    stage.close()
    assert list(tmp_path.iterdir()) == []


def test_two_originals_of_one_name_are_both_written(tmp_path: Path, feed: Callable) -> None:
    pairs = [kept("a.b/c.png", data) for data in (b"one", b"two", b"three")]
    feed(sink(tmp_path / "out"), [item for source, piece in pairs for item in (bits(source), piece)])
    assert files_under(tmp_path / "out") == {"a.b/c.png": b"one", "a.b/c-2.png": b"two", "a.b/c-3.png": b"three"}


def test_a_file_where_another_one_needs_a_folder_is_named(tmp_path: Path, feed: Callable) -> None:
    pairs = [kept("a", b"one"), kept("a/b", b"two")]
    outputs = feed(sink(tmp_path / "out"), [item for source, piece in pairs for item in (bits(source), piece)])
    assert [output.label for output in outputs if isinstance(output, Refused)] == ["a/b"]
    assert files_under(tmp_path / "out") == {"a": b"one"}


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "CON"])
def test_a_bad_name_is_refused_and_nothing_appears(tmp_path: Path, feed: Callable, name: str) -> None:
    source, piece = kept(name, b"x")
    stage = sink(tmp_path / "inside" / "out")
    with pytest.raises(FramefoldError, match="is not written to disk"):
        feed(stage, [piece, bits(source)])
    stage.close()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_nothing_is_replaced_unasked(tmp_path: Path, feed: Callable) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_text("precious")
    ((option, message),) = OriginalsSink.preflight(OriginalsSink.Config(path=str(tmp_path / "out")))
    assert (option, "overwrite: true" in message) == ("path", True)
    source, piece = kept("a", b"new")
    stage = sink(tmp_path / "out")
    with pytest.raises(FramefoldError, match="is there already"):
        feed(stage, [bits(source), piece])
    stage.close()
    assert files_under(tmp_path) == {"out/a": b"precious"}
    feed(sink(tmp_path / "out", overwrite=True), [bits(source), piece])
    assert files_under(tmp_path) == {"out/a": b"new"}


def test_it_passes_the_suite(tmp_path: Path) -> None:
    source, piece = kept("a", b"new")
    assert check_stage(OriginalsSink, {"path": str(tmp_path / "out"), "overwrite": True}, [bits(source), piece]) == []


@pytest.mark.parametrize("fed", [0, 1])
def test_nothing_kept_means_no_folder(tmp_path: Path, feed: Callable, fed: int) -> None:
    source = Source(name="a.png", kind="image", sha256="ab" * 32, size_bytes=1, width=1, height=1)
    stage = sink(tmp_path / "out")
    with pytest.raises(FramefoldError, match="keep_original: true"):
        feed(stage, [bits(source)][:fed])
    stage.close()
    assert list(tmp_path.iterdir()) == []
