from __future__ import annotations

import io
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from framefold.pipeline import spec
from framefold.pipeline.stage import Emit, Refused
from framefold.pipeline.testing import check_stage
from framefold.stages import media_deep_png
from framefold.stages.image_source import ImageSource


def run(path: Any, **options: Any) -> tuple[list[Emit], list[Refused]]:
    """Batches of pictures, and refusals; what goes out by port `rest` is tested with the sink."""
    outputs = list(ImageSource(ImageSource.Config(path=path, **options)).produce())
    batches = [o for o in outputs if isinstance(o, Emit) and o.port == "out"]
    return batches, [o for o in outputs if isinstance(o, Refused)]


def one(path: Path, **options: Any) -> np.ndarray:
    """(H, W, C) of the only picture."""
    emitted, refused = run(str(path), **options)
    assert refused == []
    (picture,) = emitted[0].payload
    return picture.frames[0].transpose(1, 2, 0)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)


def png16(color_type: int) -> bytes:
    """A PNG of 4x4 pixels with 16 bits per sample, which Pillow would read as 8."""
    samples = {0: 1, 2: 3, 4: 2, 6: 4}[color_type]

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress((b"\0" + bytes(range(8 * samples))) * 4)
    header = struct.pack(">IIBBBBB", 4, 4, 16, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.ppm", "a.tiff", "a.webp", "a.qoi"])
def test_rgb_is_read_exactly_with_odd_size(tmp_path: Path, name: str) -> None:
    pixels = noise(7, 11, 3)
    Image.fromarray(pixels).save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    np.testing.assert_array_equal(one(tmp_path / name), pixels)


@pytest.mark.parametrize(("pixels", "channels"), [("source", 1), ("rgb", 3)])
def test_grey_and_black_and_white_are_grey_unless_rgb_is_wanted(tmp_path: Path, pixels: str, channels: int) -> None:
    grey = noise(5, 6)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    wanted = np.repeat(grey[..., None], channels, axis=2)
    np.testing.assert_array_equal(one(tmp_path / "grey.png", pixels=pixels), wanted)
    Image.fromarray(grey > 127).save(tmp_path / "bw.png")
    wanted = np.repeat(255 * (grey > 127)[..., None], channels, axis=2)
    np.testing.assert_array_equal(one(tmp_path / "bw.png", pixels=pixels), wanted)


@pytest.mark.parametrize(("color_type", "name"), [(0, "gray16"), (2, "rgb16")])
def test_16_bits_are_read_as_they_are(tmp_path: Path, color_type: int, name: str) -> None:
    (tmp_path / "deep.png").write_bytes(png16(color_type))
    (emit,), _ = run(str(tmp_path / "deep.png"))
    (clip,) = emit.payload.pictures
    assert (clip.pixels.name, clip.span.source.carried.pixel.bits) == (name, 16)
    channels = 1 if color_type == 0 else 3
    rows = np.frombuffer(bytes(range(8 * channels)) * 4, ">u2").reshape(4, 4, channels)
    np.testing.assert_array_equal(clip.frames[0], rows.transpose(2, 0, 1))


@settings(max_examples=30, deadline=None)
@given(size=st.tuples(st.integers(1, 9), st.integers(1, 9)), seed=st.integers(0, 99))
def test_rgb_of_16_bits_is_written_and_read(size: tuple[int, int], seed: int) -> None:
    frame = np.random.default_rng(seed).integers(0, 65_536, (3, *size), np.uint16)
    with tempfile.TemporaryFile() as file:
        media_deep_png.write(frame, file)
        np.testing.assert_array_equal(media_deep_png.read(file), frame)
        with Image.open(file) as image:
            assert image.format == "PNG"
            assert np.abs(np.asarray(image).transpose(2, 0, 1).astype(int) - (frame >> 8)).max() <= 1


def test_palettes_become_rgb(tmp_path: Path) -> None:
    few = Image.fromarray(noise(5, 6, 3)).quantize(9)
    few.save(tmp_path / "few.png")
    np.testing.assert_array_equal(one(tmp_path / "few.png"), np.asarray(few.convert("RGB")))


def test_opaque_alpha_is_dropped(tmp_path: Path) -> None:
    pixels = np.dstack([noise(5, 6, 3), np.full((5, 6), 255, np.uint8)])
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(one(tmp_path / "a.png"), pixels[..., :3])
    carried = run(str(tmp_path))[0][0].payload.pictures[0].span.source.carried
    assert (carried.pixel.format, carried.attachments) == ("RGBA", ())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_pixels_stay_as_stored(tmp_path: Path, name: str, orientation: int) -> None:
    pixels, exif = noise(4, 9, 3), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / name, exif=exif)
    np.testing.assert_array_equal(one(tmp_path / name), pixels)


def test_a_tiff_that_is_turned_by_its_xmp_alone_stays_as_stored(tmp_path: Path) -> None:
    pixels = noise(4, 9, 3)
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="6"/></x:xmpmeta>'
    Image.fromarray(pixels).save(tmp_path / "a.tiff", tiffinfo={700: xmp})
    np.testing.assert_array_equal(one(tmp_path / "a.tiff"), pixels)


def test_what_the_file_was_is_noted(tmp_path: Path) -> None:
    Image.fromarray(noise(4, 9) > 127).save(tmp_path / "a.tiff", compression="group4", dpi=(200, 100))
    carried = run(str(tmp_path))[0][0].payload.pictures[0].span.source.carried
    assert (carried.container, carried.codec, carried.pixel.format) == ("TIFF", "group4", "1")
    assert (carried.pixel.bits, carried.pixel.aspect) == (1, (1, 2))


def test_keys_of_pictures_do_not_depend_on_what_else_is_handed_on(tmp_path: Path) -> None:
    Image.new("RGB", (3, 3)).save(tmp_path / "a.png")

    def lineage(**options: bool) -> str:
        stages = {"pictures": {"stage": "image_source", "path": str(tmp_path), **options}}
        sink = {"stage": "image_sink", "path": str(tmp_path / "out"), "inputs": ["pictures", "pictures.rest"]}
        return (
            spec.from_mapping("test", {"pipeline": "test", "stages": {**stages, "files": sink}})
            .graph["pictures"]
            .lineage
        )

    assert lineage() == lineage(keep_original=True)


def _save(path: Path, image: Image.Image, kind: str, **options: Any) -> None:
    image.save(path, kind, **options)


def _animation(path: Path) -> None:
    frames = [Image.fromarray(noise(8, 8, 3)).quantize(8), Image.new("P", (8, 8))]
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:])


def _deep_tiff(path: Path) -> None:
    """Baseline TIFF 6.0 with three samples of 16 bits, which Pillow would read as 8."""
    entries = [(256, 3, 1, 2), (257, 3, 1, 2), (258, 3, 3, 134), (259, 3, 1, 1), (262, 3, 1, 2)]
    entries += [(273, 4, 1, 140), (277, 3, 1, 3), (278, 3, 1, 2), (279, 4, 1, 24), (284, 3, 1, 1)]
    body = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(struct.pack("<HHII", *e) for e in entries)
    body += bytes(4)
    path.write_bytes(body.ljust(134, b"\0") + struct.pack("<HHH", 16, 16, 16) + bytes(range(24)))


def _premultiplied(path: Path) -> None:
    _save(path, Image.fromarray(noise(4, 4, 4)), "TIFF")
    straight, premultiplied = (struct.pack("<HHIHH", 338, 3, 1, value, 0) for value in (2, 1))
    path.write_bytes(path.read_bytes().replace(straight, premultiplied))


def _bomb(path: Path) -> None:
    Image.new("1", (33_000, 9)).save(path, "PNG")


def _vast(path: Path) -> None:
    data = bytearray(png16(0))
    data[16:24] = struct.pack(">II", 30_000, 30_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)


def _broken_png(path: Path, keep: int) -> None:
    buffer = io.BytesIO()
    Image.fromarray(noise(20, 20, 3)).save(buffer, "PNG")
    path.write_bytes(buffer.getvalue()[:keep])


BAD = {
    "missing": (lambda p: None, "No such file"),
    "empty": (lambda p: p.touch(), "empty"),
    "text": (lambda p: p.write_text("no picture"), "not a picture"),
    "postscript": (
        lambda p: p.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        "not a picture",
    ),
    "truncated_png": (lambda p: _broken_png(p, 600), "truncated or damaged"),
    "png_without_end": (lambda p: _broken_png(p, -14), "truncated or damaged"),
    "truncated_jpeg": (
        lambda p: (_save(p, Image.fromarray(noise(64, 64, 3)), "JPEG"), p.write_bytes(p.read_bytes()[:2000])),
        "truncated or damaged",
    ),
    "grey16 with alpha": (lambda p: p.write_bytes(png16(4)), "more than 8 bits"),
    "rgba16": (lambda p: p.write_bytes(png16(6)), "more than 8 bits"),
    "tiff16": (_deep_tiff, "more than 8 bits"),
    "ppm16": (lambda p: p.write_bytes(b"P6 2 2 65535\n" + bytes(24)), "more than 8 bits"),
    "cmyk": (lambda p: _save(p, Image.new("CMYK", (4, 4)), "JPEG"), "pixel mode CMYK"),
    "premultiplied": (_premultiplied, "premultiplied"),
    "float": (lambda p: _save(p, Image.new("F", (4, 4)), "TIFF"), "more than 8 bits"),
    "animated": (_animation, "holds 2 pictures"),
    "wide": (_bomb, "MAX_SIDE"),
    "vast": (_vast, "MAX_PIXELS"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_refused_by_name_and_the_next_one_is_read(tmp_path: Path, kind: str) -> None:
    make, reason = BAD[kind]
    bad, good = tmp_path / "bad.png", tmp_path / "good.png"
    make(bad)
    Image.fromarray(noise(4, 4, 3)).save(good)
    emitted, refused = run([str(bad), str(good)])
    assert [refusal.label for refusal in refused] == [str(bad)]
    assert reason in refused[0].reason
    assert [picture.span.source.name for emit in emitted for picture in emit.payload] == ["good.png"]


@pytest.mark.parametrize(("pix_fmt", "reason"), [("yuv420p", None), ("yuv420p10le", "more than 8 bits")])
def test_ten_bit_avif_is_refused(tmp_path: Path, pix_fmt: str, reason: str | None) -> None:
    path = tmp_path / "a.avif"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libsvtav1", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 64, pix_fmt
        container.mux(stream.encode(av.VideoFrame.from_ndarray(noise(64, 64, 3), "rgb24").reformat(format=pix_fmt)))
        container.mux(stream.encode(None))
    emitted, refused = run(str(path))
    assert len(emitted) == (reason is None)
    assert [reason in refusal.reason for refusal in refused if reason] == [True] * len(refused)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(["PNG", "JPEG", "TIFF", "GIF", "WEBP", "AVIF"]), data=st.data())
def test_no_broken_bytes_bring_the_source_down(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    buffer = io.BytesIO()
    Image.fromarray(noise(12, 10, 3)).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    for position, value in data.draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)))):
        content[position] = value
    (tmp_path / "fuzzed.png").write_bytes(content[: data.draw(st.integers(1, len(content)))])
    emitted, refused = run(str(tmp_path / "fuzzed.png"))
    assert len(emitted) + len(refused) == 1


def test_batches_and_identities(tmp_path: Path) -> None:
    for name in ("c.png", "a.png", "b.png"):
        Image.fromarray(noise(4, len(name) + ord(name[0]), 3)).save(tmp_path / name)
    emitted, _ = run(str(tmp_path), batch_size=2)
    names = [[picture.span.source.name for picture in emit.payload] for emit in emitted]
    assert names == [["a.png", "b.png"], ["c.png"]]
    assert emitted[1].identity == f"{emitted[1].payload.pictures[0].span.source.sha256}:0-1"
    assert [emit.label for emit in emitted] == ["a.png and 1 more", "c.png"]
    assert len({emit.identity for emit in emitted}) == 2


def test_a_folder_is_searched_for_pictures_and_a_glob_taken_as_it_is(tmp_path: Path) -> None:
    Image.new("RGB", (3, 3)).save(tmp_path / "a.png")
    (tmp_path / ".hidden.png").write_text("x")
    (tmp_path / "notes.txt").write_text("x")
    assert [len(found) for found in run(str(tmp_path))] == [1, 0]
    emitted, refused = run(str(tmp_path / "*"))
    assert (len(emitted), [refusal.label for refusal in refused]) == (1, [str(tmp_path / "notes.txt")])


def test_it_passes_the_suite(tmp_path: Path) -> None:
    Image.fromarray(noise(4, 4, 4)).save(tmp_path / "a.png")
    (tmp_path / "bad.png").write_text("x")
    payloads = check_stage(ImageSource, {"path": str(tmp_path), "keep_original": True})
    assert [type(payload).__name__ for payload in payloads] == ["Attachment", "Attachment", "ImageBatch"]


def test_equal_names_are_told_apart(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (3, 3)).save(tmp_path / folder / "a.png")
    emitted, _ = run(str(tmp_path), batch_size=2)
    assert [picture.span.source.name for picture in emitted[0].payload] == ["x/a.png", "y/a.png"]
    assert len(set(emitted[0].identity.split("+"))) == 2


def test_a_name_that_could_not_be_given_back_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (3, 3)).save(tmp_path / "a\\b.png")
    Image.new("RGB", (3, 3)).save(tmp_path / "con.png")
    emitted, refused = run(str(tmp_path))
    assert emitted == []
    assert ["backslash" in refused[0].reason, "reserved" in refused[1].reason] == [True, True]


def test_an_empty_folder_is_found_before_the_run(tmp_path: Path) -> None:
    ((option, message),) = ImageSource.preflight(ImageSource.Config(path=str(tmp_path)))
    assert option == "path"
    assert str(tmp_path) in message
    assert ".png" in message


def test_bad_options_are_refused(feed: Callable) -> None:
    for options in ({"path": ""}, {"path": []}, {"path": "a", "batch_size": 0}, {"path": "a", "colour": 1}):
        with pytest.raises(ValueError, match="validation error"):
            ImageSource.Config(**options)
