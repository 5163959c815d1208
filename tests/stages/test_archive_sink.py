"""`archive_sink` interrupted, tried again and set up again: every unit once, and no measuring twice."""

from __future__ import annotations

import hashlib
import json
import pickle
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framefold.codecs.base import FitSettings
from framefold.codecs.carried import AttachmentRef, Carried, Track
from framefold.codecs.clip import Clip, Source, Span
from framefold.codecs.network import Bitstream
from framefold.codecs.quantizing.quantize import quantize
from framefold.codecs.rest import Attachment, Packet, Packets
from framefold.codecs.stream import bitstream
from framefold.pipeline.archive import ArchiveError, ArchiveReader, ArchiveWriter, ShardReader, lock, verify
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Row, StageContext
from framefold.stages import archive_sink
from framefold.stages.archive_sink import ArchiveSink, ArchiveSinkConfig
from framefold.stages.codec_choice import CodecChoice

KILLED = """
import json, os, pickle, signal, sys
from pathlib import Path
import torch
from framefold.pipeline.stage import StageContext
from framefold.stages.archive_sink import ArchiveSink, ArchiveSinkConfig

def killed_at(number):
    calls = 0
    def dying(name, real):
        def call(*args, **options):
            nonlocal calls
            calls += 1
            if calls == number:
                if name == "pwrite":
                    fd, data, offset = args
                    real(fd, data[: len(data) // 2], offset)
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **options)
        return call
    for name in ("pwrite", "ftruncate", "fdatasync", "fsync", "replace"):
        setattr(os, name, dying(name, getattr(os, name)))

def run(path):
    sink = ArchiveSink(ArchiveSinkConfig(path=path))
    sink.setup(StageContext("archive"))
    for item in items:
        list(sink.process(item))
    list(sink.finish())

folder, items = Path(sys.argv[1]), pickle.loads(Path(sys.argv[2]).read_bytes())
torch.set_num_threads(1)  # a thread would not survive the fork
run(folder / "warm" / "x.fold")
ends = []
for name in sys.argv[3:]:
    for number in map(int, name.split(",")):
        child = os.fork()
        if not child:
            killed_at(number)
            run(folder / name / "x.fold")
            os._exit(0)
        ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(ends))
"""


def kill(folder: Path, items: Sequence[Item], *names: str) -> list[int]:
    """Runs of the sink in `folder/name`, SIGKILLed one after the other at the calls that the name lists; their ends.

    Calls that change files count; a write gets half of its bytes down before. Of an undisturbed run of three items
    these are: 1 header; 2 source, 3 codec, 4 unit, 5 measurement; 6, 7, 8 and 9, 10, 11 source, unit and measurement;
    12 manifest, 13 index; 14 fdatasync, 15 rename, 16 fsync of the folder.
    """
    (folder / "items").write_bytes(pickle.dumps(items))
    command = [sys.executable, "-c", KILLED, str(folder), str(folder / "items"), *names]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.fixture(scope="module")
def items() -> list[Item]:
    """Three clips of one frame, each with a barely fitted network and a chunk of its own."""
    codec = CodecChoice(name="siren", width=4, depth=1).build()
    made = []
    for number in range(3):
        source = Source(name=f"{number}.mp4", kind="video", sha256=f"{number:064x}", size_bytes=9, width=16, height=16)
        frames = np.random.default_rng(number).integers(0, 256, (1, 3, 16, 16), dtype=np.uint8)
        clip = Clip(span=Span(source=source, pts=(0,)), frames=frames)
        symbols = quantize(_last(codec.fit(clip, FitSettings(steps=1, seed=number))), bits=8, granularity="tensor")
        bits = Bitstream(
            span=clip.span,
            codec=symbols.codec,
            config=symbols.config,
            payload=bitstream.encode(symbols),
            target=clip,
        )
        made.append(Item(f"{number + 1:064x}", source.name, (0, number), bits, seconds=10.5 + number))
    return made


def _last(steps: Any) -> Any:
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the pictures that are decoded and measured from now on."""
    names: list[str] = []
    real = archive_sink.measure

    def counting(decoded: Any, original: Any) -> Any:
        names.append(original.span.source.name)
        return real(decoded, original)

    monkeypatch.setattr(archive_sink, "measure", counting)
    return names


def opened(path: Path, **options: Any) -> ArchiveSink:
    sink = ArchiveSink(ArchiveSinkConfig(path=path, **options))
    sink.setup(StageContext("archive"))
    return sink


def rows(outputs: Iterable[Any]) -> list[Row]:
    return [output for output in outputs if isinstance(output, Row)]


def run(path: Path, items: Iterable[Item], **options: Any) -> list[Row]:
    """A whole run of the sink; its rows."""
    sink = opened(path, **options)
    outputs = [output for item in items for output in sink.process(item)]
    outputs += sink.finish()
    sink.close()
    assert [path.name] == [entry.name for entry in path.parent.iterdir()]
    return rows(outputs)


def content(path: Path) -> Any:
    assert verify(path) == ()
    with ArchiveReader.open(path) as reader:
        units = [(unit, reader.read_unit(unit.id), reader.quality(unit.id)) for unit in reader.units]
        return reader.sources, reader.codecs, units


@pytest.fixture
def whole(tmp_path: Path, items: list[Item]) -> tuple[list[Row], Any]:
    """Rows and content of an undisturbed run."""
    path = tmp_path / "whole" / "x.fold"
    return run(path, items), content(path)


def test_killed_at_any_write_the_next_run_measures_what_was_not_measured(
    tmp_path: Path, items: list[Item], whole: tuple[list[Row], Any], measured: list[str]
) -> None:
    done_before = {call: (call > 5) + (call > 8) + (call > 11) for call in range(1, 16)}
    left_to_do = {str(call): 3 - done for call, done in done_before.items()}
    left_to_do |= {"16": 3}  # committed already: this is a new run
    ends = kill(tmp_path, items, *left_to_do, "17")
    assert ends == [-9] * 16 + [0]
    assert content(tmp_path / "17" / "x.fold") == whole[1]
    for name, count in left_to_do.items():
        path = tmp_path / name / "x.fold"
        assert path.exists() == (name == "16"), name
        measured.clear()
        assert run(path, items) == whole[0], name
        assert content(path) == whole[1], name
        assert len(measured) == count, name
        assert measured == [item.label for item in items][3 - count :], name


def test_a_run_killed_early_does_not_cost_what_the_one_before_had_measured(
    tmp_path: Path, items: list[Item], whole: tuple[list[Row], Any], measured: list[str]
) -> None:
    """With a file left behind the first call is its renaming, and the others come one later."""
    left_to_do = {"10,7": 1, "10,1": 1, "7,10": 1, "14,7,7,1": 0, "14,15": 0}
    assert set(kill(tmp_path, items, *left_to_do)) == {-9}
    for name, count in left_to_do.items():
        measured.clear()
        assert run(tmp_path / name / "x.fold", items) == whole[0], name
        assert content(tmp_path / name / "x.fold") == whole[1], name
        assert len(measured) == count, name


def test_a_run_that_was_stopped_leaves_what_it_measured_and_no_archive(
    tmp_path: Path, items: list[Item], whole: tuple[list[Row], Any], measured: list[str]
) -> None:
    path = tmp_path / "stopped" / "x.fold"
    sink = opened(path)
    for item in items[:2]:
        list(sink.process(item))
    sink.close()
    assert [entry.name for entry in path.parent.iterdir()] == [".x.fold.part"]
    measured.clear()
    again = [replace(item, seconds=0.0) for item in items[:2]]  # taken from where an earlier run kept them
    assert run(path, [*again, items[2]]) == whole[0]
    assert content(path) == whole[1]
    assert measured == ["2.mp4"]


def test_a_run_that_was_stopped_before_its_first_unit_leaves_nothing(tmp_path: Path) -> None:
    sink = opened(tmp_path / "x.fold")
    sink.close()
    assert list(tmp_path.iterdir()) == []


def test_other_bytes_under_the_same_key_are_measured(tmp_path: Path, items: list[Item], measured: list[str]) -> None:
    path = tmp_path / "x.fold"
    sink = opened(path)
    for item in items:
        list(sink.process(item))
    sink.close()
    measured.clear()
    swapped = replace(items[0], payload=replace(items[0].payload, payload=items[1].payload.payload))
    run(path, [swapped, *items[1:]])
    assert measured == ["0.mp4"]


def test_a_damaged_unit_is_measured_again(
    tmp_path: Path, items: list[Item], whole: tuple[list[Row], Any], measured: list[str]
) -> None:
    path = tmp_path / "damaged" / "x.fold"
    sink = opened(path)
    for item in items:
        list(sink.process(item))
    sink.close()
    part = path.with_name(".x.fold.part")
    data = bytearray(part.read_bytes())
    data[data.index(items[1].payload.payload) + 3] ^= 1
    part.write_bytes(data)
    measured.clear()
    assert run(path, items) == whole[0]
    assert content(path) == whole[1]
    assert measured == ["1.mp4"]


@pytest.mark.parametrize(
    "change",
    [
        {"psnr_db": "30"},
        {"psnr_db": -1},
        {"psnr_db": 1e300},
        {"ms_ssim": None},
        {"frames_sha256": "x"},
        {"frames_levels": ""},
        {"more": 1},
    ],
    ids=str,
)
def test_a_measurement_that_the_sink_would_not_make_is_not_believed(
    tmp_path: Path, items: list[Item], measured: list[str], change: dict[str, Any]
) -> None:
    path, bits = tmp_path / "x.fold", items[0].payload
    writer = ArchiveWriter(path)
    place = {
        "source": writer.add_source({"name": "a", "kind": "image", "width": 16, "height": 16, "time_base": [1, 1]}),
        "codec": writer.add_codec("siren", {}),
    }
    frames = {"first_frame": 0, "pts": [0], "duration_ticks": 1}
    unit = writer.add_unit(key=items[0].key, **place, **frames, payload=bits.payload)
    sound = {"psnr_db": 30.5, "ms_ssim": 0.5, "frames_sha256": "ab" * 32}
    sound |= {"frames_levels": "00" * 12, "encode_seconds": 1.0}
    writer.add_quality(unit, sound | change)
    writer.suspend()
    (row, _) = run(path, items[:1])
    assert row.values["psnr_db"] != 30.5
    assert measured == ["0.mp4"]


class Panic(BaseException):
    """As native code raises it."""


@pytest.mark.parametrize("error", [MemoryError, Panic])
def test_a_unit_whose_measuring_fails_is_not_in_the_archive(
    tmp_path: Path, items: list[Item], monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    real = archive_sink.measure

    def failing(decoded: Any, original: Any) -> Any:
        if original.span.source.name == "1.mp4":
            raise error("no measuring today")
        return real(decoded, original)

    without, path = tmp_path / "without" / "x.fold", tmp_path / "failed" / "x.fold"
    expected = run(without, [items[0], items[2]])
    monkeypatch.setattr(archive_sink, "measure", failing)
    sink = opened(path)
    outputs = list(sink.process(items[0]))
    with pytest.raises(error, match="no measuring today"):
        list(sink.process(items[1]))
    outputs += [*sink.process(items[2]), *sink.finish()]
    assert rows(outputs) == expected
    assert content(path) == content(without)


def test_a_unit_that_failed_and_comes_again_is_as_if_it_had_not_failed(
    tmp_path: Path, items: list[Item], whole: tuple[list[Row], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "again" / "x.fold"
    sink = opened(path)
    with monkeypatch.context() as patch:
        patch.delattr(archive_sink, "measure")
        with pytest.raises(NameError):
            list(sink.process(items[0]))
    outputs = [output for item in items for output in sink.process(item)]
    assert rows([*outputs, *sink.finish()]) == whole[0]
    assert content(path) == whole[1]


def test_the_same_unit_twice_counts_once_and_says_the_same(
    tmp_path: Path, items: list[Item], whole: tuple[list[Row], Any], measured: list[str]
) -> None:
    path = tmp_path / "twice" / "x.fold"
    sink = opened(path)
    for number, item in enumerate(items):
        abandoned = sink.process(item)
        assert [next(abandoned)] == rows(sink.process(item)) == [whole[0][number]]
        abandoned.close()
    assert rows(sink.finish()) == whole[0][3:]
    assert content(path) == whole[1]
    assert measured == ["0.mp4", "1.mp4", "2.mp4"]


@pytest.mark.parametrize("closed", [True, False])
def test_set_up_again_it_begins_afresh_but_measures_nothing_twice(
    tmp_path: Path,
    items: list[Item],
    whole: tuple[list[Row], Any],
    measured: list[str],
    closed: bool,
) -> None:
    path = tmp_path / "generations" / "x.fold"
    sink = opened(path)
    for item in items[:2]:
        list(sink.process(item))
    if closed:
        sink.close()
    sink.setup(StageContext("archive"))
    outputs = [output for item in items for output in sink.process(item)]
    assert rows([*outputs, *sink.finish()]) == whole[0]
    assert content(path) == whole[1]
    assert measured == ["0.mp4", "1.mp4", "2.mp4"]


def test_without_measuring_nothing_is_taken_from_the_run_before(tmp_path: Path, items: list[Item]) -> None:
    path = tmp_path / "x.fold"
    sink = opened(path)
    list(sink.process(items[0]))
    sink.close()
    shown = run(path, items, measure=False)
    assert [row.values["psnr_db"] for row in shown] == [None] * 4
    assert [quality for *_, quality in content(path)[2]] == [None] * 3


def test_two_sinks_of_one_archive_do_not_get_into_each_others_way(
    tmp_path: Path,
    items: list[Item],
    whole: tuple[list[Row], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0)
    path = tmp_path / "both" / "x.fold"
    first = opened(path)
    outputs = list(first.process(items[0]))
    second = ArchiveSink(ArchiveSinkConfig(path=path))
    with pytest.raises(ArchiveError, match=r"F022 .*x\.fold: .*process.* is writing it"):
        second.setup(StageContext("archive"))
    second.close()
    outputs += [output for item in items[1:] for output in first.process(item)]
    assert rows([*outputs, *first.finish()]) == whole[0]
    assert content(path) == whole[1]


def test_the_last_row_says_what_the_originals_take(items: list[Item], whole: tuple[list[Row], Any]) -> None:
    sources = {item.payload.span.source.name: item.payload.span.source for item in items}
    assert whole[0][-1].values["original_bytes"] == sum(source.size_bytes for source in sources.values()) > 0


def test_the_row_says_the_bytes_that_the_unit_takes(items: list[Item], whole: tuple[list[Row], Any]) -> None:
    shown, (_, _, units) = whole
    assert [row.values["bytes"] for row in shown[:3]] == [unit.disk_bytes for unit, _, _ in units]
    assert [row.values["encode_seconds"] for row in shown[:3]] == [item.seconds for item in items]
    assert shown[3].values["frames"] == 3


@pytest.fixture(scope="module")
def pictures(items: list[Item]) -> list[Item]:
    """The same as pictures: small ones, which share a chunk."""
    made = []
    for item in items:
        bits: Bitstream = item.payload
        source = bits.span.source.model_copy(update={"kind": "image", "name": f"{item.seq[1]}.png"})
        span = Span(source=source, pts=(0,))
        target = Clip(span=span, frames=bits.target.frames) if bits.target else None
        key = f"{item.seq[1] + 101:064x}"
        made.append(replace(item, key=key, label=source.name, payload=replace(bits, span=span, target=target)))
    return made


def test_small_pictures_share_a_chunk(tmp_path: Path, pictures: list[Item]) -> None:
    path = tmp_path / "pictures" / "x.fold"
    shown = run(path, pictures)
    sources, codecs, units = content(path)
    assert [source.name for source in sources] == [row.label for row in shown[:3]] == ["0.png", "1.png", "2.png"]
    assert [unit.id for unit, _, _ in units] == ["p000002.0", "p000002.1", "p000002.2"]
    assert [record.payload for _, record, _ in units] == [item.payload.payload for item in pictures]
    assert [quality["psnr_db"] for *_, quality in units] == [row.values["psnr_db"] for row in shown[:3]]
    assert len(codecs) == 1
    assert len(ShardReader.open(path).index) == 4  # codec, table, pack, manifest


def test_a_large_picture_has_a_chunk_of_its_own(
    tmp_path: Path, pictures: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_sink, "_PACKED_BYTES", len(pictures[0].payload.payload) - 1)
    run(tmp_path / "large" / "x.fold", pictures[:1])
    ((unit, _, quality),) = content(tmp_path / "large" / "x.fold")[2]
    assert unit.id == "u000002"
    assert quality["encode_seconds"] == 10.5


def test_pictures_of_a_run_that_was_stopped_are_not_measured_again(
    tmp_path: Path, pictures: list[Item], measured: list[str]
) -> None:
    path = tmp_path / "stopped" / "x.fold"
    whole = run(tmp_path / "undisturbed" / "x.fold", pictures)
    sink = opened(path)
    for item in pictures[:2]:
        list(sink.process(item))
    sink.close()
    measured.clear()
    assert run(path, pictures) == whole
    assert measured == ["2.png"]


def carrying(items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """Items whose source names a sound track and a profile, and what a source gives beside them."""
    profile = b"a colour profile"
    ref = AttachmentRef(kind="icc", sha256=hashlib.sha256(profile).hexdigest(), size_bytes=len(profile))
    track = Track(index=1, kind="audio", codec="aac", time_base=(1, 48000), packets=2)
    named = []
    for item in items:
        bits: Bitstream = item.payload
        carried = Carried(tracks=(track,), attachments=(ref,))
        source = bits.span.source.model_copy(update={"carried": carried})
        span = Span(source=source, pts=(0,))
        target = Clip(span=span, frames=bits.target.frames) if bits.target else None
        named.append(replace(item, payload=replace(bits, span=span, target=target)))
    packets = (Packet(data=b"\1\2", pts=0, dts=-1, duration=1024, flags=1, side_data=(("skip_samples", b"\0" * 10),)),)
    source = named[0].payload.span.source
    beside: list[Any] = [
        Attachment(sha256=ref.sha256, total_bytes=ref.size_bytes, data=profile),
        Packets(source=source, track=0, part=0, packets=packets),
        Packets(source=source, track=0, part=1, packets=(Packet(data=b"\3", pts=1024),)),
    ]
    return named, [Item(f"{9 + number:064x}", rest.label, (0, 9 + number), rest) for number, rest in enumerate(beside)]


@pytest.mark.parametrize("order", ["before", "after"])
def test_what_is_carried_beside_the_pictures_is_stored_bit_for_bit(
    tmp_path: Path, items: list[Item], order: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "carried" / "x.fold"
    named, beside = carrying(items[:1])
    shown = run(path, [*beside, *named] if order == "before" else [*named, *beside, *beside])
    assert [row.label for row in shown] == ["0.mp4[0:1]", "tracks and attachments", "x.fold"]
    with ArchiveReader.open(path) as reader:
        assert [source.name for source in reader.sources] == ["0.mp4"]
        blocks = [reader.read_packets(entry.id) for entry in reader.packet_blocks]
        assert [(block.track, block.part) for block in blocks] == [(0, 0), (0, 1)]
        first = blocks[0].packets[0]
        assert (first.data, first.pts, first.dts, first.duration, first.flags) == (b"\1\2", 0, -1, 1024, 1)
        assert first.side_data == (("skip_samples", b"\0" * 10),)
        assert [reader.read_attachment(sha256) for sha256 in reader.attachments] == [b"a colour profile"]
    assert verify(path) == ()
    assert not caplog.records


def test_what_is_named_and_does_not_come_is_said(
    tmp_path: Path, items: list[Item], caplog: pytest.LogCaptureFixture
) -> None:
    named, beside = carrying(items[:1])
    run(tmp_path / "lacking" / "x.fold", [*named, beside[0]])
    assert [record.getMessage() for record in caplog.records] == [
        "not kept: 0.mp4: audio track 1; add the source's port `rest` to this node's inputs to keep it"
    ]


def test_a_folder_grows_with_every_run_and_stores_nothing_twice(
    tmp_path: Path, items: list[Item], pictures: list[Item], measured: list[str]
) -> None:
    path = f"{tmp_path / 'collection'}/"
    named, beside = carrying(items[:1])
    for batch in ([*named, *beside], [*named, *beside, *pictures], items[1:]):
        sink = opened(path)
        for item in batch:
            list(sink.process(item))
        list(sink.finish())
        sink.close()
    assert measured == ["0.mp4", "0.png", "1.png", "2.png", "1.mp4", "2.mp4"]
    with ArchiveReader.open(path) as reader:
        assert reader.problems == ()
        keys = [reader.read_unit(unit.id).key for unit in reader.units]
        assert sorted(keys) == sorted(item.key for item in [*items, *pictures])
        assert len(reader.packet_blocks) == 2
        assert len(reader.shards) == 3


def test_a_folder_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    ((option, message),) = ArchiveSink.preflight(ArchiveSinkConfig(path=tmp_path / "notes"))
    assert option == "path"
    assert "is a folder and no archive" in message
    (tmp_path / "empty").mkdir()
    assert ArchiveSink.preflight(ArchiveSinkConfig(path=f"{tmp_path / 'empty'}/")) == []
    assert ArchiveSink.preflight(ArchiveSinkConfig(path="s3://bucket/archive")) == []
