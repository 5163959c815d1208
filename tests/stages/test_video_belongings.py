from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from framefold.codecs.carried import Carried
from framefold.codecs.clip import Clip
from framefold.codecs.rest import Attachment, Packets
from framefold.pipeline.stage import Emit, Refused
from framefold.stages import media_belongings, media_originals, media_tags, media_tracks
from framefold.stages.video_source import VideoSource


def run(path: Path | list[str], **options: Any) -> tuple[list[Emit], list[Refused]]:
    wanted = path if isinstance(path, list) else str(path)
    outputs = list(VideoSource(VideoSource.Config(path=wanted, **options)).produce())
    return [o for o in outputs if isinstance(o, Emit)], [o for o in outputs if isinstance(o, Refused)]


def carried_of(emitted: list[Emit]) -> Carried:
    carried: Carried = next(emit.payload for emit in emitted if emit.port == "out").span.source.carried
    return carried


def attachments_of(emitted: list[Emit]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for emit in emitted:
        if isinstance(emit.payload, Attachment):
            assert len(found.get(emit.payload.sha256, b"")) == emit.payload.start
            found[emit.payload.sha256] = found.get(emit.payload.sha256, b"") + emit.payload.data
    assert all(hashlib.sha256(data).hexdigest() == sha256 for sha256, data in found.items())
    return found


def test_all_of_a_matroska_film_is_described(tmp_path: Path, rich_video: Callable) -> None:
    path = rich_video(tmp_path / "film.mkv")
    emitted, refused = run(path)
    assert refused == []
    carried = carried_of(emitted)
    assert (carried.container, carried.codec, carried.disposition) == ("matroska,webm", "h264", 1)
    pixel = carried.pixel
    assert (pixel.format, pixel.bits, pixel.aspect) == ("yuv420p10le", 10, (4, 3))
    assert pixel.display_matrix == (0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    assert {"title": "Film", "COMMENT": "für später"}.items() <= dict(carried.metadata).items()
    assert {"language": "swe", "title": "Bild"}.items() <= dict(carried.track_metadata).items()
    assert [(t.index, t.kind, t.codec) for t in carried.tracks] == [
        (1, "audio", "aac"),
        (2, "audio", "flac"),
        (3, "subtitle", "subrip"),
        (4, "subtitle", "ass"),
    ]
    aac = carried.tracks[0]
    assert (aac.sample_rate, aac.channels, aac.layout, aac.sample_format) == (44_100, 2, "stereo", "fltp")
    assert (aac.time_base, aac.frame_size, aac.profile, aac.disposition) == ((1, 1000), 1024, "LC", 1)
    assert {"language": "deu", "title": "Ton"}.items() <= dict(aac.metadata).items()
    assert carried.tracks[2].disposition == 1 << 6
    assert [dict(chapter.metadata)["title"] for chapter in carried.chapters] == ["One", "Zwei"]
    with av.open(str(path)) as container:
        assert carried.codec_bytes == sum(packet.size for packet in container.demux(video=0))
    seconds, _, nanoseconds = (carried.modified or "").partition(".")
    assert int(seconds) * 10**9 + int(nanoseconds) == path.stat().st_mtime_ns


def test_attachments_are_named_and_come_before_the_first_clip(tmp_path: Path, rich_video: Callable) -> None:
    emitted, _ = run(rich_video(tmp_path / "film.mkv"))
    refs = {(ref.kind, ref.name): ref for ref in carried_of(emitted).attachments}
    data = attachments_of(emitted)
    assert refs.keys() == {
        ("font", "Font.ttf"),
        ("cover", "cover.png"),
        *(("extradata", f"track {index}") for index in (1, 2, 4)),
        *(("side_data", name) for name in ("content_light_level", "mastering_display_metadata")),
    }
    assert data[refs["font", "Font.ttf"].sha256][:4] == b"\x00\x01\x00\x00"
    assert data[refs["cover", "cover.png"].sha256].endswith(b"a picture that nobody decodes")
    assert data[refs["side_data", "content_light_level"].sha256] == b"\xe8\3\0\0\x90\1\0\0"
    assert {ref.sha256 for ref in refs.values()} == data.keys()
    assert all(ref.size_bytes == len(data[ref.sha256]) for ref in refs.values())
    kinds = [type(emit.payload) for emit in emitted]
    assert kinds == sorted(kinds, key=[Attachment, Clip, Packets].index)


def test_packets_are_those_of_the_demuxer_in_parts(
    tmp_path: Path, rich_video: Callable, copied_packets: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = rich_video(tmp_path / "film.mkv")
    monkeypatch.setattr(media_tracks, "PART_BYTES", 4000)
    emitted, _ = run(path)
    parts = [emit.payload for emit in emitted if isinstance(emit.payload, Packets)]
    assert {part.source for part in parts} == {part.source for part in parts[:1]}
    for number, (_, base, header, packets) in enumerate(copied_packets(path)):
        mine = [part for part in parts if part.track == number]
        track = mine[0].source.carried.tracks[number]
        assert [part.part for part in mine] == list(range(len(mine)))
        assert all(sum(len(p.data) for p in part.packets) <= 4000 for part in mine if len(part.packets) > 1)
        found = [
            (p.data, p.pts, p.dts, p.duration, bool(p.flags & 1), list(p.side_data))
            for part in mine
            for p in part.packets
        ]
        assert found == packets
        assert (track.packets, track.time_base) == (len(packets), (base.numerator, base.denominator))
        assert attachments_of(emitted).get(track.extradata or "") == header
    assert max(part.part for part in parts) > 3


def test_many_short_tracks_do_not_pile_up(
    tmp_path: Path, rich_video: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = rich_video(tmp_path / "film.mkv")
    monkeypatch.setattr(media_tracks, "_WAITING_BYTES", 2000)
    sizes = [
        sum(len(packet.data) for packet in emit.payload.packets)
        for emit in run(path)[0]
        if isinstance(emit.payload, Packets)
    ]
    assert len(sizes) > 10
    assert sorted(sizes)[-2] <= 4000


def test_identities_are_unique_and_the_same_in_every_run(tmp_path: Path, rich_video: Callable) -> None:
    path = rich_video(tmp_path / "a.mkv")
    (tmp_path / "b.mkv").write_bytes(path.read_bytes())
    runs = [[(emit.identity, emit.port) for emit in run(tmp_path)[0]] for _ in range(2)]
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == len(runs[0])
    packets = [identity for identity, _ in runs[0] if identity and identity.startswith("packets:")]
    assert len([identity for identity in packets if ":b.mkv:" in identity]) == len(packets) / 2 == 4


def test_the_whole_file_is_kept_on_request(
    tmp_path: Path, rich_video: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = rich_video(tmp_path / "film.mp4")
    monkeypatch.setattr(media_originals, "PIECE_BYTES", 10_000)
    plain, kept = run(path)[0], run(path, keep_original=True)[0]
    clips = [[emit.identity for emit in emitted if emit.port == "out"] for emitted in (plain, kept)]
    assert clips[0] == clips[1]
    (ref,) = [ref for ref in carried_of(kept).attachments if ref.kind == "original"]
    assert (ref.sha256, ref.name) == (hashlib.sha256(path.read_bytes()).hexdigest(), "film.mp4")
    assert attachments_of(kept)[ref.sha256] == path.read_bytes()
    assert max(len(emit.payload.data) for emit in kept if isinstance(emit.payload, Attachment)) == 10_000
    assert ref.sha256 not in attachments_of(plain)


def test_keeping_originals_changes_no_unit_key() -> None:
    assert "keep_original" in VideoSource.locators


def test_a_second_video_is_copied_as_data_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with av.open(str(tmp_path / "two.mkv"), "w") as container:
        streams = [container.add_stream("ffv1", rate=25, width=16, height=8, pix_fmt="bgr0") for _ in range(2)]
        for stream in streams:
            stream.time_base = Fraction(1, 25)
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(np.full((8, 16, 3), number, np.uint8), "rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            for stream in streams:
                container.mux(stream.encode(frame))
    emitted, _ = run(tmp_path / "two.mkv")
    (track,) = carried_of(emitted).tracks
    assert (track.kind, track.codec, track.packets) == ("data", "ffv1", 3)
    assert "track 1 is a second video (ffv1): it is copied as data" in caplog.text


def test_a_picture_coded_video_with_a_colour_profile_is_read(tmp_path: Path) -> None:
    coded = BytesIO()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.new("RGB", (16, 8), (200, 30, 4)).save(coded, "PNG", icc_profile=profile)
    with av.open(str(tmp_path / "stills.mov"), "w") as container:
        stream: Any = container.add_mux_stream("png", rate=25, width=16, height=8)
        for number in range(3):
            packet: Any = av.Packet(coded.getvalue())
            packet.pts = packet.dts = 40 * number
            packet.duration, packet.time_base, packet.stream, packet.is_keyframe = 40, Fraction(1, 1000), stream, True
            container.mux(packet)
    emitted, refused = run(tmp_path / "stills.mov")
    assert refused == []
    frames = emitted[0].payload.frames
    assert frames.shape == (3, 3, 8, 16)
    assert {tuple(pixel) for pixel in frames.transpose(0, 2, 3, 1).reshape(-1, 3)} == {(200, 30, 4)}


def test_a_file_that_changes_meanwhile_gives_no_packets(tmp_path: Path, rich_video: Callable) -> None:
    path = rich_video(tmp_path / "film.mkv")
    outputs = VideoSource(VideoSource.Config(path=str(path))).produce()
    seen = [next(outputs)]
    while not isinstance(seen[-1].payload, Clip) or seen[-1].payload.span.first_frame == 0:
        seen.append(next(outputs))
    path.write_bytes(path.read_bytes() + b"more")
    (refusal,) = list(outputs)
    assert isinstance(refusal, Refused)
    assert refusal.reason.startswith("beside its pictures: the file changed while it was read")


def test_a_name_that_is_no_utf8_is_kept_as_bytes(tmp_path: Path, rich_video: Callable) -> None:
    path = rich_video(tmp_path / "film.mp4", frames=2).rename(tmp_path / "caf\udce9.mp4")
    emitted, refused = run(tmp_path)
    assert refused == []
    assert emitted[-1].payload.source.name == "caf%E9.mp4"
    assert carried_of(emitted).name_bytes == b"caf\xe9.mp4".hex()
    assert path.exists()


# --- limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ((media_tracks, "MAX_TRACKS", 3), "4 tracks beside the pictures; at most 3 (MAX_TRACKS)"),
        ((media_belongings, "MAX_ATTACHED_BYTES", 300), "attachments of more than 300 bytes (MAX_ATTACHED_BYTES)"),
        ((media_tags, "MAX_CHAPTERS", 1), "2 chapters; at most 1 (MAX_CHAPTERS)"),
        ((media_tracks, "MAX_PACKET_BYTES", 99), "bytes (MAX_PACKET_BYTES)"),
    ],
)
def test_too_much_is_refused_by_name(
    tmp_path: Path, rich_video: Callable, monkeypatch: pytest.MonkeyPatch, limit: tuple[Any, str, int], reason: str
) -> None:
    monkeypatch.setattr(*limit)
    _, refused = run(rich_video(tmp_path / "film.mkv"))
    assert [reason in refusal.reason for refusal in refused] == [True]


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_long_texts_go_into_an_attachment(
    tmp_path: Path, rich_video: Callable, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(media_tags, "_MAX_TEXT", 9)
    emitted, refused = run(rich_video(tmp_path / f"film{suffix}"))
    assert refused == []
    carried = carried_of(emitted)
    assert not {"comment", "COMMENT"} & dict(carried.metadata).keys()
    (ref,) = [ref for ref in carried.attachments if ref.kind == "metadata"]
    elsewhere = json.loads(attachments_of(emitted)[ref.sha256])
    name = "COMMENT" if suffix == ".mkv" else "comment"
    assert {"of": "file", "name": name, "value": "für später"} in elsewhere


def test_bytes_that_are_no_text_are_kept_as_bytes(tmp_path: Path, rich_video: Callable) -> None:
    path = rich_video(tmp_path / "film.mp4")
    path.write_bytes(path.read_bytes().replace("für später".encode(), b"f\xfcr sp\xe4ter.."))
    emitted, refused = run(path)
    assert refused == []
    assert dict(carried_of(emitted).metadata)["comment"] == "f\ufffdr sp\ufffdter.."
    (ref,) = [ref for ref in carried_of(emitted).attachments if ref.kind == "metadata"]
    (entry,) = json.loads(attachments_of(emitted)[ref.sha256])
    assert bytes.fromhex(entry["value_hex"]) == b"f\xfcr sp\xe4ter.."


@pytest.fixture(scope="module")
def rich_files(tmp_path_factory: pytest.TempPathFactory, rich_video: Callable) -> list[bytes]:
    folder = tmp_path_factory.mktemp("rich")
    return [rich_video(folder / f"film{suffix}", frames=2).read_bytes() for suffix in (".mkv", ".mp4")]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(which=st.integers(0, 1), at_the_end=st.booleans(), data=st.data())
def test_no_broken_description_brings_the_source_down(
    rich_files: list[bytes], tmp_path: Path, which: int, at_the_end: bool, data: st.DataObject
) -> None:
    content = bytearray(rich_files[which])
    places = st.integers(-4000, -1) if at_the_end else st.integers(0, 4000)
    for position, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=8)):
        content[position] = value
    (tmp_path / "fuzzed.mkv").write_bytes(content)
    emitted, refused = run(tmp_path / "fuzzed.mkv")
    assert emitted or refused
    assert len(refused) <= 1
