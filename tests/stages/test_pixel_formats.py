"""Files of many pixel formats through a whole pipeline and back: what comes out is stored as what went in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from PIL import Image
from rich.console import Console

from framefold.codecs.clip import Clip, ColorTags, Frames, join
from framefold.codecs.pixel_format import GRAY, GRAY_16, RGB, RGB_16, PixelFormat
from framefold.pipeline import cli, runner, spec
from framefold.pipeline.archive import ArchiveReader
from framefold.stages.archive_source import bitstream_of
from framefold.stages.codec_choice import codec_of
from framefold.stages.media_decode import to_rgb
from framefold.stages.media_encode import write_png
from framefold.stages.media_pictures import read_picture
from framefold.stages.media_planes import format_of, frame_of
from framefold.stages.streams import decoded
from framefold.stages.video_source import VideoSource

PTS = (3, 4, 9, 10)
TAGS = ColorTags(primaries=6, transfer=7, matrix=5, range=2)
"""Of 4:2:0 video; none of them is a default."""


def picture(pixels: PixelFormat, height: int, width: int, time: int = 0) -> Frames:
    """(C, H, W): smooth, over all levels but the first and last tenth, another one in each channel and frame."""
    y, x = np.ogrid[:height, :width]
    waves = [0.5 + 0.4 * np.sin(x / 6 + time / 3 + channel) * np.cos(y / 5) for channel in range(pixels.channels)]
    full = np.stack([np.round(wave * pixels.peak).astype(pixels.dtype) for wave in waves])
    return pixels.spread([plane.copy() for plane in pixels.stored(full)], height, width)


def film(path: Path, form: str, size: tuple[int, int], pts: tuple[int, ...], codec: str = "ffv1") -> Path:
    pixels = format_of(form)
    assert pixels is not None
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = *size, form
        context: Any = stream.codec_context
        stream.time_base = context.time_base = Fraction(1, 25)
        if pixels.model == "yuv":
            context.color_primaries, context.color_trc, context.colorspace, context.color_range = vars(TAGS).values()
        for time in pts:
            frame = frame_of(picture(pixels, *size, time), pixels)
            frame = frame if frame.format.name == form else frame.reformat(format=form)
            frame.pts, frame.time_base = time, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def clip_of(path: Path, **options: Any) -> Clip:
    outputs = (output.payload for output in VideoSource(VideoSource.Config(path=str(path), **options)).produce())
    return join([payload for payload in outputs if isinstance(payload, Clip)])


def archived(path: Path, archive: Path, *, codec: str = "gridnerv", source: str = "video_source") -> Path:
    stages = {
        "frames": {"stage": source, "path": str(path)},
        "fitted": {"stage": "fit", "inputs": ["frames"], "codec": {"name": codec, "width": 8}, "budget": {"steps": 60}},
        "symbols": {"stage": "finetune", "inputs": ["fitted"], "budget": {"steps": 20}},
        "bits": {"stage": "entropy_encode", "inputs": ["symbols"]},
        "archive": {"stage": "archive_sink", "inputs": ["bits", "frames.rest"], "path": str(archive)},
    }
    checked = spec.from_mapping("formats", {"run_dir": str(archive.parent / "run"), "stages": stages})
    assert runner.run(checked, Console(quiet=True), runner.Manner(local=True, report=False)).exit_code == 0
    return archive


def stored_in(archive: Path) -> Clip:
    """The frames that the archive's units draw, joined."""
    with ArchiveReader.open(str(archive)) as reader:
        units = [bitstream_of(reader.read_unit(unit.id)) for unit in reader.units]
    return join([codec_of(bits.codec, bits.config).reconstruct(decoded(bits).dequantize()) for bits in units])


FILMS = {
    "yuv420p": ((24, 36), PTS),
    "yuv422p": ((23, 35), PTS[:2]),
    "yuv444p": ((16, 17), PTS[:1]),
    "yuv411p": ((10, 19), PTS[:1]),
    "yuv420p10le": ((23, 35), PTS),
    "yuv422p12le": ((16, 22), PTS[:1]),
    "gray": ((17, 18), PTS[:2]),
    "gray10le": ((17, 18), PTS[:2]),
    "gray16le": ((17, 18), PTS[:1]),
    "yuva420p": ((21, 33), PTS[:2]),
    "yuva444p10le": ((16, 16), PTS[:1]),
    "gbrp10le": ((16, 17), PTS[:1]),
    "bgra": ((16, 17), PTS[:1]),
    "bgr0": ((17, 18), PTS[:2]),
}


@pytest.mark.parametrize("form", FILMS)
def test_a_film_comes_back_as_what_it_was(tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    size, pts = FILMS[form]
    original = film(tmp_path / "film.mkv", form, size, pts)
    archive = archived(original, tmp_path / "film.fold")
    drawn = stored_in(archive)
    assert cli.main(["decode", str(archive), str(tmp_path / "out.mkv")]) == 0
    assert "not carried" not in capsys.readouterr().out
    before, after = clip_of(original), clip_of(tmp_path / "out.mkv")
    np.testing.assert_array_equal(after.frames, drawn.frames)
    assert after.frames.shape == before.frames.shape == (len(pts), format_of(form).channels, *size)  # type: ignore[union-attr]
    assert after.pixels == before.pixels == format_of(form)
    assert after.span.pts == before.span.pts
    for field in ("width", "height", "time_base", "frame_rate"):
        assert getattr(after.span.source, field) == getattr(before.span.source, field), field
    if form.startswith("yuv"):
        assert after.span.source.color == before.span.source.color == TAGS
    assert after.span.source.carried.pixel.format == before.span.source.carried.pixel.format == form
    assert cli.main(["verify", str(archive), "--level", "decode", "--against", str(original)]) == 0


def test_ten_bits_are_ten_bits(tmp_path: Path) -> None:
    archive = archived(film(tmp_path / "film.mkv", "yuv420p10le", (24, 36), PTS[:2]), tmp_path / "film.fold")
    frames = stored_in(archive).frames
    assert (frames.dtype, frames.max() > 255) == (np.uint16, True)
    assert len(np.unique(frames % 4)) == 4
    with ArchiveReader.open(str(archive)) as reader:
        (unit,) = reader.units
        measured = reader.quality(unit.id) or {}
    assert measured["psnr_db"] > 20


@pytest.mark.parametrize(
    ("form", "written"), [("yuv420p", "yuv420p"), ("yuva422p12le", "yuv422p10le"), ("gray", "yuv420p")]
)
def test_h264_gets_samples_of_the_same_kind(tmp_path: Path, form: str, written: str) -> None:
    """FFmpeg's decoder of H.264 gives 8-bit grey as YUV without colours."""
    archive = archived(film(tmp_path / "film.mkv", form, (24, 36), PTS[:2]), tmp_path / "film.fold")
    assert cli.main(["decode", str(archive), str(tmp_path / "out.mp4")]) == 0
    back = clip_of(tmp_path / "out.mp4")
    assert back.span.source.carried.pixel.format in (written, written.replace("yuv", "yuvj"))
    assert back.span.source.color == (TAGS if form.startswith("yuv") else back.span.source.color)
    drawn = stored_in(archive)
    channels = min(drawn.pixels.channels, back.pixels.channels)
    difference = drawn.frames[:, :channels] / drawn.pixels.peak - back.frames[:, :channels] / back.pixels.peak
    assert np.abs(difference).mean() < 0.01


@pytest.mark.parametrize("form", ["yuv420p", "yuv422p10le", "gray", "yuva420p", "gbrp12le"])
def test_frames_are_shown_as_the_source_would_show_them(tmp_path: Path, form: str) -> None:
    archive = archived(film(tmp_path / "film.mkv", form, (23, 35), PTS[:1]), tmp_path / "film.fold")
    assert cli.main(["decode", str(archive), str(tmp_path / "exact.mkv")]) == 0
    assert cli.main(["decode", str(archive), str(tmp_path / "pictures")]) == 0
    assert cli.main(["cat", str(archive), "--format", "rawvideo", "-o", str(tmp_path / "out.rgb")]) == 0
    shown = clip_of(tmp_path / "exact.mkv", pixels="rgb").frames[0].transpose(1, 2, 0)
    with Image.open(tmp_path / "pictures" / "frame_000000.png") as png:
        np.testing.assert_array_equal(np.asarray(png), shown)
    assert (tmp_path / "out.rgb").read_bytes() == shown.tobytes()


def test_y4m_holds_the_stored_samples_where_it_can(tmp_path: Path) -> None:
    archive = archived(film(tmp_path / "film.mkv", "yuv420p", (23, 35), PTS), tmp_path / "film.fold")
    assert cli.main(["cat", str(archive), "-o", str(tmp_path / "out.y4m")]) == 0
    back = clip_of(tmp_path / "out.y4m")
    np.testing.assert_array_equal(back.frames, stored_in(archive).frames)
    assert back.span.source.color.range == TAGS.range


@pytest.mark.parametrize("form", ["yuv444p", "yuv420p10le", "gray", "yuva420p"])
def test_y4m_holds_other_formats_converted(tmp_path: Path, form: str) -> None:
    archive = archived(film(tmp_path / "film.mkv", form, (24, 36), PTS[:1]), tmp_path / "film.fold")
    for name in ("out.y4m", "exact.mkv"):
        command = ["cat", str(archive), "-o"] if name == "out.y4m" else ["decode", str(archive)]
        assert cli.main([*command, str(tmp_path / name)]) == 0
    back, exact = (clip_of(tmp_path / name, pixels="rgb").frames for name in ("out.y4m", "exact.mkv"))
    assert np.abs(back.astype(int) - exact).mean() < 8  # chroma became coarser


@pytest.mark.parametrize(("pixels", "mode"), [(GRAY, "L"), (GRAY_16, "I;16"), (RGB, "RGB"), (RGB_16, "RGB")])
def test_a_picture_comes_back_as_what_it_was(tmp_path: Path, pixels: PixelFormat, mode: str) -> None:
    write_png(picture(pixels, 19, 23), tmp_path / "a.png")
    archive = archived(tmp_path / "a.png", tmp_path / "a.fold", codec="siren", source="image_source")
    assert cli.main(["decode", str(archive), str(tmp_path / "out")]) == 0
    with Image.open(tmp_path / "out" / "a.png") as back:
        assert (back.mode, back.size) == (mode, (23, 19))
    with (tmp_path / "out" / "a.png").open("rb") as file:
        after = read_picture(file, "a.png").clip
    assert after.pixels == pixels
    np.testing.assert_array_equal(after.frames, stored_in(archive).frames)
    assert cli.main(["verify", str(archive), "--level", "decode", "--against", str(tmp_path / "a.png")]) == 0


def test_rgb_is_taken_where_it_is_wanted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    original = film(tmp_path / "film.mkv", "yuva420p10le", (23, 35), PTS[:1])
    clip = clip_of(original, pixels="rgb")
    assert (clip.pixels, clip.frames.dtype, clip.frames.shape) == (PixelFormat(), np.uint8, (1, 3, 23, 35))
    assert [part in caplog.text for part in ("coded at 8 bits", "alpha channel")] == [True, True]
    with av.open(str(original)) as container:
        frame = next(container.decode(video=0))
    np.testing.assert_array_equal(clip.frames[0], to_rgb(frame, VideoReformatter()).transpose(2, 0, 1))


def test_a_format_that_changes_in_the_middle_is_named(tmp_path: Path, write_video: Callable, pattern: Callable) -> None:
    parts = [
        write_video(tmp_path / f"{form}.h264", pattern(10, 32, 32), codec="libx264", pix_fmt=form).read_bytes()
        for form in ("yuv420p", "yuv444p")
    ]
    (tmp_path / "both.h264").write_bytes(b"".join(parts))
    outputs = list(VideoSource(VideoSource.Config(path=str(tmp_path / "both.h264"))).produce())
    assert "the pixel format changes from yuv420p to yuv444p" in outputs[-1].reason  # type: ignore[union-attr]
    assert clip_of(tmp_path / "both.h264", pixels="rgb").span.frame_count == 20


def test_another_reader_is_told_what_is_drawn(tmp_path: Path) -> None:
    archive = archived(film(tmp_path / "film.mkv", "yuv420p", (16, 16), PTS[:1]), tmp_path / "film.fold")
    with ArchiveReader.open(str(archive)) as reader:
        record = reader.read_unit(reader.units[0].id)
    assert record.source_document["pixels"] == {"model": "yuv", "chroma": [2, 2]}
    assert record.codec_config["pixels"] == "yuv420p"
    with pytest.raises(ValueError, match="pixels"):  # as an older version reads it
        codec_of(record.codec_name, record.codec_config)
    plain = {name: value for name, value in record.source_document.items() if name != "pixels"}
    with pytest.raises(ValueError, match="pixels"):
        codec_of("gridnerv", bitstream_of(replace(record, source_document=plain)).config)
    with pytest.raises(ValueError, match="draws 'gray'"):
        bitstream_of(replace(record, codec_config={**record.codec_config, "pixels": "gray"}))
