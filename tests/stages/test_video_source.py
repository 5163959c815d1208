from __future__ import annotations

import os
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from framefold.codecs.clip import Clip
from framefold.pipeline.stage import Emit, Refused
from framefold.stages import media_probe, video_source
from framefold.stages.media_decode import to_rgb
from framefold.stages.video_source import VideoSource

H264 = {"codec": "libx264", "pix_fmt": "yuv420p", "time_base": Fraction(1, 12800)}
EXAMPLE = Path(__file__).parents[2] / "examples" / "bunny.mp4"


def run(path: Any, **options: Any) -> tuple[list[Emit], list[Refused]]:
    outputs = list(VideoSource(VideoSource.Config(path=path, **options)).produce())
    return [o for o in outputs if isinstance(o, Emit)], [o for o in outputs if isinstance(o, Refused)]


def clips_of(path: Any) -> list[Clip]:
    emitted, refused = run(path)
    assert refused == []
    return [emit.payload for emit in emitted]


def frames_of(clips: list[Clip]) -> np.ndarray:
    return np.concatenate([clip.frames for clip in clips]).transpose(0, 2, 3, 1)


def ticks(count: int, step: int = 512) -> list[int]:
    return [step * i for i in range(count)]


def test_every_frame_once_in_order_with_odd_size(tmp_path: Path, write_video: Callable, pattern: Callable) -> None:
    original = pattern(37, 17, 33)
    clips = clips_of(str(write_video(tmp_path / "odd.mkv", original)))
    assert [clip.span.frame_count for clip in clips] == [16, 16, 5]
    assert [clip.span.first_frame for clip in clips] == [0, 16, 32]
    np.testing.assert_array_equal(frames_of(clips), original)
    assert clips[0].span.source.name == "odd.mkv"


def test_the_example_clip() -> None:
    emitted, _ = run(str(EXAMPLE))
    source = emitted[0].payload.span.source
    assert (source.width, source.height, source.frame_rate) == (320, 180, (25, 1))
    assert sum(emit.payload.span.frame_count for emit in emitted) == 48
    assert source.size_bytes == EXAMPLE.stat().st_size
    places = [f"{source.sha256}:{a}-{a + 16}" for a in (0, 16, 32)]
    assert [emit.identity for emit in emitted] == [f"{place}:yuv420p" for place in places]
    assert [emit.identity for emit in run(str(EXAMPLE), pixels="rgb")[0]] == places
    assert emitted[1].label == "bunny.mp4[16:32]"


def test_variable_frame_rate_is_exact(tmp_path: Path, write_video: Callable, pattern: Callable) -> None:
    pts = list(np.cumsum([0, *np.random.default_rng(1).integers(1, 9000, 35)]).tolist())
    base = Fraction(1, 90_000)
    path = write_video(
        tmp_path / "vfr.mp4",
        pattern(36, 32, 32),
        codec="libx264",
        pix_fmt="yuv420p",
        pts=pts,
        time_base=base,
        last_duration=4321,
    )
    clips = clips_of(str(path))
    scale = Fraction(*clips[0].span.source.time_base) / base
    found = [t * scale for clip in clips for t in clip.span.pts]
    assert found == pts
    assert [clip.span.duration_ticks * scale for clip in clips[:2]] == [pts[16] - pts[15], pts[32] - pts[31]]
    assert clips[-1].span.duration_ticks * scale == 4321


def test_a_stream_without_times_is_counted_at_its_rate(
    tmp_path: Path, write_video: Callable, pattern: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_video(tmp_path / "raw.h264", pattern(20, 32, 32), codec="libx264", pix_fmt="yuv420p")
    clips = clips_of(str(path))
    base = Fraction(*clips[0].span.source.time_base)
    assert [t * base for clip in clips for t in clip.span.pts] == [Fraction(i, 25) for i in range(20)]
    assert "lacks presentation times" in caplog.text


KR_KB = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


def expected_rgb(yuv: tuple[int, int, int], matrix: int, *, full: bool) -> list[float]:
    """ITU-T H.273, equations 31 to 41."""
    kr, kb = KR_KB[matrix]
    scale_y, scale_c, black = (255, 255, 0) if full else (219, 224, 16)
    y, u, v = (yuv[0] - black) / scale_y, (yuv[1] - 128) / scale_c, (yuv[2] - 128) / scale_c
    red, blue = y + 2 * (1 - kr) * v, y + 2 * (1 - kb) * u
    return [255 * c for c in (red, (y - kr * red - kb * blue) / (1 - kr - kb), blue)]


def flat_frame(yuv: tuple[int, int, int], matrix: int, color_range: int, size: tuple[int, int] = (16, 16)) -> Any:
    frame = av.VideoFrame(*size, "yuv444p")
    for plane, value in zip(frame.planes, yuv, strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    frame.colorspace, frame.color_range = matrix, color_range
    return frame


@pytest.mark.parametrize("color_range", [0, 1, 2])
@pytest.mark.parametrize("matrix", KR_KB)
def test_colours_follow_the_frames_tags(matrix: int, color_range: int) -> None:
    yuv = (120, 90, 170)
    rgb = to_rgb(flat_frame(yuv, matrix, color_range), av.video.reformatter.VideoReformatter())
    np.testing.assert_allclose(rgb[5, 5], expected_rgb(yuv, matrix, full=color_range == 2), atol=1)


@pytest.mark.parametrize(("size", "matrix"), [((720, 576), 5), ((1280, 720), 1), ((720, 578), 1)])
def test_untagged_frames_are_read_as_players_read_them(size: tuple[int, int], matrix: int) -> None:
    yuv = (120, 90, 170)
    rgb = to_rgb(flat_frame(yuv, 2, 0, size), av.video.reformatter.VideoReformatter())
    np.testing.assert_allclose(rgb[5, 5], expected_rgb(yuv, matrix, full=False), atol=1)


def test_batches_are_bounded_in_bytes(
    tmp_path: Path, write_video: Callable, pattern: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mkv", pattern(5, 10, 10))
    monkeypatch.setattr(video_source, "BATCH_BYTES", 2 * 300 + 299)
    assert [clip.span.frame_count for clip in clips_of(str(path))] == [2, 2, 1]


# --- refusals: each makes one bad file beside a good one; the good one must still be read -----------------


def _cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def _truncated_mp4(path: Path, write: Callable, pattern: Callable, flags: str) -> None:
    movie = write(
        path,
        pattern(20, 32, 32),
        pts=ticks(20),
        container_options={"movflags": flags} if flags else {},
        **H264,
    )
    _cut(movie, 0.7)


def _vast(path: Path) -> None:
    """An AVI whose header claims another frame size."""
    path.write_bytes(path.read_bytes().replace(struct.pack("<ii", 24, 18), struct.pack("<ii", 20_000, 20_000)))


def _unknown_codec(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"FFV1", b"ZZZ1"))


def _audio_only(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=44_100)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        frame.sample_rate = 44_100
        container.mux([*stream.encode(frame), *stream.encode(None)])


BAD = {
    "missing": (lambda p, w, f: None, "No such file"),
    "empty": (lambda p, w, f: p.touch(), "empty"),
    "text": (lambda p, w, f: p.write_text("this is no film\n" * 500), "not a video file"),
    "truncated": (lambda p, w, f: _truncated_mp4(p, w, f, ""), "truncated"),
    "truncated_faststart": (lambda p, w, f: _truncated_mp4(p, w, f, "+faststart"), "truncated"),
    "truncated_fragments": (lambda p, w, f: _truncated_mp4(p, w, f, "frag_keyframe+empty_moov"), "truncated"),
    "truncated_mkv": (lambda p, w, f: _cut(w(p, f(9, 32, 32), raw_format="matroska"), 0.7), "truncated"),
    "truncated_avi": (lambda p, w, f: _cut(w(p, f(9, 32, 32), raw_format="avi"), 0.7), "truncated"),
    "audio_only": (lambda p, w, f: _audio_only(p), "no video track, only audio"),
    "png": (lambda p, w, f: Image.new("RGB", (9, 9)).save(p, "PNG"), "not a video file"),
    "ffconcat": (
        lambda p, w, f: p.write_text(f"ffconcat version 1.0\nfile {p.parent}/good.mkv\n"),
        "never followed",
    ),
    "playlist": (
        lambda p, w, f: p.write_text(
            f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{p.parent}/good.mkv\n#EXT-X-ENDLIST\n"
        ),
        "never followed",
    ),
    "fifo": (lambda p, w, f: os.mkfifo(p), "not a regular file"),
    "wide": (
        lambda p, w, f: p.write_bytes(b"YUV4MPEG2 W40000 H2 F25:1 C444\nFRAME\n" + bytes(999)),
        "MAX_SIDE",
    ),
    "unknown_codec": (lambda p, w, f: _unknown_codec(w(p, f(2, 18, 24), raw_format="avi")), "not known here"),
    "huge_header": (lambda p, w, f: p.write_bytes(bytes.fromhex("1a45dfa3 01fffffffffffffe") + bytes(99)), "truncated"),
    "vast": (lambda p, w, f: _vast(w(p, f(2, 18, 24), raw_format="avi")), "no frame size"),
}


@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".mkv"])
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_refused_by_name_and_the_next_one_is_read(
    tmp_path: Path, write_video: Callable, pattern: Callable, kind: str, suffix: str
) -> None:
    make, reason = BAD[kind]
    good = write_video(tmp_path / "good.mkv", pattern(3, 16, 16))
    bad = tmp_path / f"bad{suffix}"
    draft = tmp_path / "draft.mp4"  # the muxer is chosen by the suffix
    make(draft, write_video, pattern)
    if draft.exists():
        draft.rename(bad)
    emitted, refused = run([str(bad), str(good)])
    assert [refusal.label for refusal in refused] == [str(bad)]
    assert reason in refused[0].reason
    assert {emit.payload.span.source.name for emit in emitted} == {"good.mkv"}
    np.testing.assert_array_equal(frames_of([emit.payload for emit in emitted]), pattern(3, 16, 16))


def test_the_limit_on_pixels_is_refused_by_name(
    tmp_path: Path, write_video: Callable, pattern: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mkv", pattern(2, 16, 16))  # FFmpeg's own limit is lower than MAX_PIXELS today
    monkeypatch.setattr(media_probe, "MAX_PIXELS", 255)
    _, refused = run(str(path))
    assert "16x16 pixels; at most 255 in all (MAX_PIXELS)" in refused[0].reason


def test_damage_midway_names_the_frame_and_keeps_those_before(
    tmp_path: Path, write_video: Callable, pattern: Callable
) -> None:
    whole = write_video(tmp_path / "whole.mp4", pattern(40, 64, 64), pts=ticks(40), **H264)
    data = bytearray(whole.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    (tmp_path / "hurt.mp4").write_bytes(data)
    emitted, refused = run(str(tmp_path / "hurt.mp4"))
    kept = sum(emit.payload.span.frame_count for emit in emitted)
    assert 0 < kept < 40
    assert f"damaged from frame {kept} on" in refused[0].reason
    assert f"frames 0 to {kept - 1} were passed on" in refused[0].reason
    before = frames_of([emit.payload for emit in emitted])
    np.testing.assert_array_equal(before, frames_of(clips_of(str(whole)))[:kept])


def test_a_matroska_file_with_a_hole_is_refused(tmp_path: Path, write_video: Callable, pattern: Callable) -> None:
    hurt = write_video(tmp_path / "hurt.mkv", pattern(40, 64, 64))
    data = bytearray(hurt.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 20_000] = bytes(20_000)
    hurt.write_bytes(data)
    for _ in range(2):  # FFmpeg reports a repeated message only once unless told otherwise
        _, refused = run(str(hurt))
        assert "damaged" in refused[0].reason


def test_a_size_that_changes_is_refused_with_the_frame(
    tmp_path: Path, write_video: Callable, pattern: Callable
) -> None:
    parts = [
        write_video(tmp_path / f"{size}.h264", pattern(10, size, size), codec="libx264", pix_fmt="yuv420p")
        for size in (32, 48)
    ]
    joined = tmp_path / "joined.h264"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    emitted, refused = run(str(joined))
    assert sum(emit.payload.span.frame_count for emit in emitted) == 10
    assert "frame size changes from 32x32 to 48x48 at frame 10" in refused[0].reason


@pytest.fixture(scope="module")
def small_files(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    frames = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    folder, made = tmp_path_factory.mktemp("small"), []
    for suffix, codec, pix_fmt in (
        ("mp4", "libx264", "yuv420p"),
        ("mkv", "ffv1", "bgr0"),
        ("avi", "mpeg4", "yuv420p"),
    ):
        path = folder / f"small.{suffix}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 16, 16, pix_fmt
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
            container.mux(stream.encode(None))
        made.append(path.read_bytes())
    return made


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(which=st.integers(0, 2), data=st.data())
def test_no_broken_bytes_bring_the_source_down(
    small_files: list[bytes], tmp_path: Path, which: int, data: st.DataObject
) -> None:
    content = bytearray(small_files[which])
    for position, value in data.draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)))):
        content[position] = value
    path = tmp_path / "fuzzed.mp4"
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    emitted, refused = run(str(path))
    assert emitted or refused
    assert len(refused) <= 1


# --- which files, and their names ----------------------------------------------------------------------


def test_equal_names_are_told_apart_by_folder(tmp_path: Path, write_video: Callable, pattern: Callable) -> None:
    for folder in ("a", "b/c"):
        (tmp_path / folder).mkdir(parents=True)
        write_video(tmp_path / folder / "clip.mkv", pattern(2, 8, 8))
    write_video(tmp_path / "b" / "other.mkv", pattern(2, 8, 8))
    emitted, _ = run(str(tmp_path))
    assert [emit.payload.span.source.name for emit in emitted] == ["a/clip.mkv", "b/c/clip.mkv", "other.mkv"]


def test_files_with_the_same_bytes_keep_different_identities(
    tmp_path: Path, write_video: Callable, pattern: Callable
) -> None:
    one = write_video(tmp_path / "one.mkv", pattern(2, 8, 8))
    (tmp_path / "two.mkv").write_bytes(one.read_bytes())
    emitted, _ = run([str(one), str(tmp_path / "two.mkv")])
    assert emitted[0].payload.span.source.sha256 == emitted[1].payload.span.source.sha256
    assert emitted[0].identity != emitted[1].identity


def test_a_name_with_brackets_is_a_name_before_it_is_a_glob(
    tmp_path: Path, write_video: Callable, pattern: Callable
) -> None:
    path = write_video(tmp_path / "film [1].mkv", pattern(2, 8, 8))
    assert clips_of([str(path), str(tmp_path / "*.mkv")])[0].span.source.name == "film [1].mkv"


def test_a_missing_path_is_found_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ((option, message),) = VideoSource.preflight(VideoSource.Config(path="films/nope.mp4"))
    assert option == "path"
    assert str(tmp_path / "films/nope.mp4") in message
    assert "give an existing file" in message


def test_preflight_is_silent_where_one_file_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    for path in (
        str(tmp_path),
        str(tmp_path / "*.mp4"),
        [str(tmp_path / "a.mp4"), str(tmp_path / "gone.mp4")],
    ):
        assert VideoSource.preflight(VideoSource.Config(path=path)) == []
