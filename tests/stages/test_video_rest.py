from __future__ import annotations

import hashlib
import random
import tracemalloc
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from framefold.codecs.carried import AttachmentRef, Carried, Chapter, PixelTags, Track
from framefold.codecs.clip import Clip, Source
from framefold.codecs.rest import Attachment, Packet, Packets
from framefold.pipeline.stage import Emit, Row
from framefold.stages.media_hdr import hdr_of
from framefold.stages.video_sink import VideoSink
from framefold.stages.video_source import VideoSource


def payloads(path: Path, **options: Any) -> list[Any]:
    outputs = list(VideoSource(VideoSource.Config(path=str(path), **options)).produce())
    assert all(isinstance(output, Emit) for output in outputs), outputs
    return [output.payload for output in outputs]


def described(path: Path) -> Source:
    return next(payload for payload in payloads(path) if isinstance(payload, Clip)).span.source


def sink(path: Path | str, **options: Any) -> VideoSink:
    return VideoSink(VideoSink.Config(path=str(path), **options))


def lost(rows: list[Row]) -> dict[str, Any]:
    return {row.label: row.values["not carried"] for row in rows if "not carried" in row.values}


def seconds(path: Path) -> list[Fraction]:
    clips = [payload for payload in payloads(path) if isinstance(payload, Clip)]
    return [pts * Fraction(*clip.span.source.time_base) for clip in clips for pts in clip.span.pts]


# --- a container to the same container: everything comes back -------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_tracks_come_back_bit_for_bit(
    tmp_path: Path, feed: Callable, rich_video: Callable, copied_packets: Callable, suffix: str
) -> None:
    original = rich_video(tmp_path / f"film{suffix}")
    feed(sink(tmp_path / f"out{suffix}"), payloads(original))
    before, after = copied_packets(original), copied_packets(tmp_path / f"out{suffix}")
    expected = ["aac", "flac", "subrip", "ass"] if suffix == ".mkv" else ["aac", "flac", "mov_text"]
    assert [codec for codec, *_ in after] == expected
    assert min(len(packets) for *_, packets in after) >= 2
    assert before == after


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_pictures_keep_their_times(tmp_path: Path, feed: Callable, rich_video: Callable, suffix: str) -> None:
    original = rich_video(tmp_path / f"film{suffix}")
    feed(sink(tmp_path / f"out{suffix}"), payloads(original))
    times = seconds(original)
    assert len(set(np.diff([float(time) for time in times]).round(6))) > 2
    assert seconds(tmp_path / f"out{suffix}") == times


@pytest.mark.parametrize("pixels", ["source", "rgb"])
@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_every_tag_comes_back_or_is_named(
    tmp_path: Path, feed: Callable, rich_video: Callable, suffix: str, pixels: str
) -> None:
    original = rich_video(tmp_path / f"film{suffix}")
    rows = feed(sink(tmp_path / f"out{suffix}"), payloads(original, pixels=pixels))
    before, after = described(original), described(tmp_path / f"out{suffix}")
    old, new = before.carried, after.carried
    of_rgb = {"bit depth", "colour tags"} if suffix == ".mkv" else {"bit depth"}
    assert lost(rows).keys() == (of_rgb if pixels == "rgb" else set())
    assert lost(rows).get("bit depth", "10 bits (yuv420p10le)").startswith("10 bits (yuv420p10le)")
    assert after.color == before.color or pixels == "rgb"
    assert (after.color.primaries, after.color.transfer) == (before.color.primaries, before.color.transfer) == (9, 16)
    assert (new.pixel.aspect, new.pixel.display_matrix) == (old.pixel.aspect, old.pixel.display_matrix)
    assert new.pixel.aspect == (4, 3)
    assert new.pixel.display_matrix == (0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    assert new.disposition == old.disposition == 1
    assert [in_seconds(chapter) for chapter in new.chapters] == [in_seconds(chapter) for chapter in old.chapters]
    assert [dict(chapter.metadata)["title"] for chapter in new.chapters] == ["One", "Zwei"]
    assert dict(new.track_metadata)["language"] == "swe"
    assert [track.metadata for track in new.tracks] == [track.metadata for track in old.tracks]
    assert [track.disposition for track in new.tracks] == [track.disposition for track in old.tracks]
    assert {"title": "Film"}.items() <= dict(new.metadata).items()
    assert {ref for ref in old.attachments if ref.kind != "side_data"} <= set(new.attachments)


def in_seconds(chapter: Chapter) -> tuple[Fraction, Fraction]:
    return chapter.start * Fraction(*chapter.time_base), chapter.end * Fraction(*chapter.time_base)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_hdr_metadata_comes_back(tmp_path: Path, feed: Callable, rich_video: Callable, suffix: str) -> None:
    items = payloads(rich_video(tmp_path / f"film{suffix}"))
    feed(sink(tmp_path / f"out{suffix}"), items)
    found = hdr_in(payloads(tmp_path / f"out{suffix}"))
    assert found == hdr_in(items)
    assert found.light == (1000, 400)
    assert found.luminance == (Fraction(50, 10_000), 1000)
    assert found.primaries is not None
    assert found.primaries[:2] == (Fraction(34_000, 50_000), Fraction(16_000, 50_000))


def hdr_in(items: list[Any]) -> Any:
    data = {item.sha256: item.data for item in items if isinstance(item, Attachment)}
    source = next(item for item in items if isinstance(item, Clip)).span.source
    found = hdr_of({ref.name: data[ref.sha256] for ref in source.carried.attachments if ref.kind == "side_data"})
    rounded = {
        name: value and tuple(Fraction(x).limit_denominator(100_000) for x in value)
        for name, value in vars(found).items()
    }
    return type(found)(**rounded)


# --- another container: what it cannot hold is named ----------------------------------------------------------------


def test_mp4_names_what_only_matroska_holds(
    tmp_path: Path, feed: Callable, rich_video: Callable, copied_packets: Callable
) -> None:
    original = rich_video(tmp_path / "film.mkv")
    named = lost(feed(sink(tmp_path / "out.mp4"), payloads(original)))
    assert {"subtitle track 3 (subrip, deu)", "subtitle track 4 (ass, fra)", "font Font.ttf"} < named.keys()
    assert "MP4 does not hold subrip" in named["subtitle track 3 (subrip, deu)"]
    before, after = copied_packets(original)[:2], copied_packets(tmp_path / "out.mp4")
    for (codec, base, header, packets), (new_codec, new_base, new_header, new_packets) in zip(
        before, after, strict=True
    ):
        assert (codec, header) == (new_codec, new_header)
        assert [packet[0] for packet in packets] == [packet[0] for packet in new_packets]
        offsets = [abs(a[1] * base - b[1] * new_base) for a, b in zip(packets, new_packets, strict=True)]
        assert max(offsets) <= new_base / 2
    cover = next(ref for ref in described(original).carried.attachments if ref.kind == "cover")
    assert cover.sha256 in {ref.sha256 for ref in described(tmp_path / "out.mp4").carried.attachments}


def test_matroska_names_what_it_rounds_and_does_not_hold(
    tmp_path: Path, feed: Callable, rich_video: Callable, copied_packets: Callable
) -> None:
    original = rich_video(tmp_path / "film.mp4")
    named = lost(feed(sink(tmp_path / "out.mkv"), payloads(original)))
    assert "subtitle track 3 (mov_text, deu)" in named
    assert "to 1/1000 s" in named["times of audio track 1 (aac, deu)"]
    before, after = copied_packets(original)[:2], copied_packets(tmp_path / "out.mkv")
    for (_, base, _, packets), (_, new_base, _, new_packets) in zip(before, after, strict=True):
        assert [packet[0] for packet in packets] == [packet[0] for packet in new_packets]
        assert max(abs(a[1] * base - b[1] * new_base) for a, b in zip(packets, new_packets, strict=True)) <= Fraction(
            1, 1000
        )


def test_mp4_names_odd_metadata_dispositions_and_empty_tracks(
    tmp_path: Path, feed: Callable, make_clip: Callable, make_source: Callable
) -> None:
    sound = {"kind": "audio", "codec": "ac3", "time_base": (1, 48_000), "sample_rate": 48_000, "channels": 2}
    odd = Track(**{**sound, "index": 1, "disposition": 1 << 2 | 1, "metadata": (("foo", "bar"),), "packets": 1})
    tracks = (Track(**{**sound, "index": 2}), odd)
    source = make_source(time_base=(1, 25), carried=Carried(container="mpegts", tracks=tracks))
    packet = Packet(data=b"\x0b\x77" + bytes(100), pts=0, dts=0, duration=1536, flags=1)
    copied = Packets(source=source, track=1, part=0, packets=(packet,))
    assert lost(feed(sink(tmp_path / "out.mp4"), [copied, make_clip(source, pictures(2))])) == {
        "audio track 2 (ac3)": "it is empty, and MP4 has no empty tracks",
        "metadata of audio track 1 (ac3): foo": "MP4 has no place for it",
        "disposition of audio track 1 (ac3): original": "MP4 has no place for it",
    }
    assert len(described(tmp_path / "out.mp4").carried.tracks) == 1


def test_a_folder_of_pictures_names_all_the_rest_once(tmp_path: Path, feed: Callable, rich_video: Callable) -> None:
    films = [rich_video(tmp_path / name, frames=2) for name in ("a.mkv", "b.mp4")]
    rows = feed(sink(tmp_path / "out"), [item for film in films for item in payloads(film)])
    first, second = lost(rows)
    assert first.startswith(
        "a.mkv: audio track 1 (aac, deu), audio track 2 (flac, eng), subtitle track 3 (subrip, deu)"
    )
    assert "font Font.ttf" in first
    assert second.startswith("b.mp4: audio track 1")


def test_a_source_that_tells_nothing_lacks_nothing(
    tmp_path: Path, feed: Callable, make_clip: Callable, make_source: Callable
) -> None:
    for name in ("out.mkv", "out.mp4", "out"):
        rows = feed(sink(tmp_path / name), [make_clip(make_source(time_base=(1, 25)), pictures(2))])
        assert [row.label for row in rows] == [str(tmp_path / name)]


def pictures(count: int, height: int = 6, width: int = 8) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 3, height, width), dtype=np.uint8)


# --- how things come ------------------------------------------------------------------------------------------------


def test_what_belongs_to_the_pictures_may_come_in_any_order_and_twice(
    tmp_path: Path, feed: Callable, rich_video: Callable
) -> None:
    items = payloads(rich_video(tmp_path / "film.mkv"))
    clips = [item for item in items if isinstance(item, Clip)]
    others = [item for item in items if not isinstance(item, Clip)]
    made = set()
    for seed in range(4):
        mixed: list[Any] = [*others, *others[::2]]
        random.Random(seed).shuffle(mixed)
        for place, clip in zip(sorted(random.Random(seed).choices(range(len(mixed)), k=2)), clips, strict=True):
            mixed.insert(place + sum(clip is not each for each in clips[:1]), clip)  # frames stay in order
        feed(sink(tmp_path / "out.mkv"), mixed)
        made.add((tmp_path / "out.mkv").read_bytes())
    assert len(made) == 1


def test_without_the_port_rest_each_track_is_named(tmp_path: Path, feed: Callable, rich_video: Callable) -> None:
    items = payloads(rich_video(tmp_path / "film.mkv"))
    named = lost(feed(sink(tmp_path / "out.mkv"), [item for item in items if isinstance(item, Clip)]))
    assert "connect the port `rest`" in named["audio track 1 (aac, deu)"]
    assert {
        "audio track 2 (flac, eng)",
        "subtitle track 4 (ass, fra)",
        "font Font.ttf",
        "cover cover.png",
    } < named.keys()
    assert "side data content_light_level" in named
    assert described(tmp_path / "out.mkv").carried.tracks == ()


def test_a_header_that_did_not_come_is_named(tmp_path: Path, feed: Callable, rich_video: Callable) -> None:
    items = payloads(rich_video(tmp_path / "film.mkv"))
    header = next(item for item in items if isinstance(item, Packets)).source.carried.tracks[1].extradata
    kept = [item for item in items if not (isinstance(item, Attachment) and item.sha256 == header)]
    named = lost(feed(sink(tmp_path / "out.mkv"), kept))
    assert "did not come whole" in named["audio track 2 (flac, eng)"]
    assert [track.codec for track in described(tmp_path / "out.mkv").carried.tracks] == ["aac", "subrip", "ass"]


def test_pieces_of_blu_ray_subtitles_are_joined_and_junk_is_named(
    tmp_path: Path, feed: Callable, make_clip: Callable, make_source: Callable, copied_packets: Callable
) -> None:
    first, last = b"\x16\0\x0b" + bytes(11), b"\x80\0\0"
    track = Track(index=1, kind="subtitle", codec="hdmv_pgs_subtitle", time_base=(1, 90_000), packets=5)
    source = make_source(time_base=(1, 25), carried=Carried(container="mpegts", tracks=(track,)))
    pieces = [b"junk", first, last, first + last, first]
    packets = tuple(Packet(data=data, pts=900 * n, dts=900 * n) for n, data in enumerate(pieces))
    copied = Packets(source=source, track=0, part=0, packets=packets)
    frames = pictures(3)
    named = lost(feed(sink(tmp_path / "out.mkv"), [copied, make_clip(source, frames)]))
    assert named.keys() == {"subtitle track 1 (hdmv_pgs_subtitle)"}
    assert named.popitem()[1] == "2 packets that hold nothing, or nothing whole, are not written"
    ((_, _, _, written),) = copied_packets(tmp_path / "out.mkv")
    assert [(data, pts) for data, pts, *_ in written] == [(first + last, 10), (first + last, 30)]
    clips = [payload for payload in payloads(tmp_path / "out.mkv") if isinstance(payload, Clip)]
    np.testing.assert_array_equal(clips[0].frames, frames)


def test_an_original_is_not_written_into_a_file(tmp_path: Path, feed: Callable, rich_video: Callable) -> None:
    original = rich_video(tmp_path / "film.mkv")
    for number, kept in enumerate((False, True)):
        feed(sink(tmp_path / f"{number}.mkv"), payloads(original, keep_original=kept))
    assert (tmp_path / "0.mkv").read_bytes() == (tmp_path / "1.mkv").read_bytes()


def test_a_failed_run_leaves_nothing(tmp_path: Path, feed: Callable, rich_video: Callable) -> None:
    items = payloads(rich_video(tmp_path / "film.mkv"))
    stage = sink(tmp_path / "out.mkv")
    feed(stage, items, finish=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.mkv.partial", "film.mkv"]
    stage.close()
    assert [path.name for path in tmp_path.iterdir()] == ["film.mkv"]


def test_the_time_of_the_last_change_comes_back(tmp_path: Path, feed: Callable, rich_video: Callable) -> None:
    original = rich_video(tmp_path / "film.mp4", frames=2)
    items = payloads(original)
    feed(sink(tmp_path / "out.mp4"), items)
    assert (tmp_path / "out.mp4").stat().st_mtime_ns == original.stat().st_mtime_ns


def test_a_long_track_is_never_in_memory(
    tmp_path: Path, feed: Callable, make_clip: Callable, make_source: Callable
) -> None:
    parts, size = 48, 2**19
    track = Track(
        index=1, kind="audio", codec="pcm_s16le", time_base=(1, 48_000), sample_rate=48_000, channels=2, packets=parts
    )
    source = make_source(time_base=(1, 25), carried=Carried(container="avi", tracks=(track,)))

    def items() -> Iterator[Any]:
        for part in range(parts):
            packet = Packet(data=bytes(size), pts=part * size // 4, dts=part * size // 4, duration=size // 4)
            yield Packets(source=source, track=0, part=part, packets=(packet,))
        yield make_clip(source, pictures(2))

    tracemalloc.start()
    try:
        feed(sink(tmp_path / "out.mkv"), items())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "out.mkv").stat().st_size > parts * size
    assert peak < parts * size / 4


# --- a stranger's archive -------------------------------------------------------------------------------------------


def attachment(data: bytes) -> Attachment:
    return Attachment(sha256=hashlib.sha256(data).hexdigest(), total_bytes=len(data), data=data)


def hostile_track(**changes: Any) -> Track:
    return Track(**{"index": 1, "kind": "audio", "codec": "aac", "time_base": (1, 1000), "packets": 3, **changes})


GARBAGE = attachment(b"\xff" * 50)
HOSTILE = {
    "codec of another kind": Carried(tracks=(hostile_track(kind="subtitle"),)),
    "codec that nobody knows": Carried(tracks=(hostile_track(codec="../../evil"),)),
    "subtitle that is a sound": Carried(tracks=(hostile_track(codec="subrip"),)),
    "vast time base": Carried(tracks=(hostile_track(time_base=(2**53 - 1, 1)),)),
    "vast rate": Carried(tracks=(hostile_track(sample_rate=2**31 - 1, channels=65_535, bit_rate=2**53 - 1),)),
    "odd layout": Carried(tracks=(hostile_track(layout="65535 channels", sample_format="\0", channels=1),)),
    "garbage header": Carried(tracks=(hostile_track(codec="flac", extradata=GARBAGE.sha256),)),
    "garbage subtitles": Carried(tracks=(hostile_track(kind="subtitle", codec="hdmv_pgs_subtitle"),)),
    "odd dispositions": Carried(disposition=2**31 - 1, tracks=(hostile_track(disposition=2**31 - 1),)),
    "odd texts": Carried(metadata=(("ti\0tle", "\0"), ("timecode", "x")), track_metadata=(("language", "x" * 4096),)),
    "chapters that end first": Carried(chapters=(Chapter(start=5, end=1, time_base=(1, 1000)),)),
    "chapters beyond time": Carried(chapters=(Chapter(start=0, end=2**53 - 1, time_base=(2**53 - 1, 1)),)),
    "odd shape": Carried(pixel=PixelTags(aspect=(2**53 - 1, 1), field_order=255, display_matrix=(2**31 - 1,) * 9)),
    "odd side data": Carried(
        attachments=(
            AttachmentRef(kind="side_data", name="mastering_display_metadata", sha256=GARBAGE.sha256, size_bytes=50),
            AttachmentRef(kind="cover", name="\0/../x", sha256=GARBAGE.sha256, size_bytes=50),
            AttachmentRef(kind="font", sha256="ab" * 32, size_bytes=2**40),
        )
    ),
}


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_stranger_wrote_costs_no_picture(
    tmp_path: Path, feed: Callable, make_clip: Callable, name: str, suffix: str
) -> None:
    source = Source(
        name="a.mkv",
        kind="video",
        sha256="ab" * 32,
        size_bytes=9,
        width=16,
        height=16,
        time_base=(1, 25),
        carried=HOSTILE[name],
    )
    times = [(0, 0), (2**62, None), (-(2**63) + 1, 5)]
    packets = tuple(Packet(data=b"\xff\xf1junk", pts=pts, dts=dts, side_data=(("palette", b""),)) for pts, dts in times)
    tracks = [Packets(source=source, track=n, part=0, packets=packets) for n in range(len(source.carried.tracks))]
    frames = pictures(3, 16, 16)
    rows = feed(sink(tmp_path / f"out{suffix}"), [GARBAGE, *tracks, make_clip(source, frames)])
    assert rows[0].values["frames"] == 3
    with av.open(str(tmp_path / f"out{suffix}")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 3
    assert lost(rows)
