from __future__ import annotations

import hashlib
import io
import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, PngImagePlugin, TiffImagePlugin

from framefold.codecs.carried import AttachmentRef, Carried
from framefold.codecs.clip import Clip, ColorTags, ImageBatch, Source, Span
from framefold.codecs.rest import Attachment
from framefold.pipeline.errors import FramefoldError
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Emit, Refused, Row, StageContext
from framefold.stages import media_beside
from framefold.stages.image_sink import ImageSink
from framefold.stages.image_source import ImageSource

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">J\xc3\xbcrgen</x:xmpmeta>'
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
EXACT = {"WEBP": {"lossless": True, "exact": True}, "AVIF": {"quality": 100}, "TIFF": {"compression": "tiff_lzw"}}


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


def exif() -> Image.Exif:
    made = Image.Exif()
    made[ExifTags.Base.Orientation] = 6
    made[ExifTags.Base.ImageDescription] = "a picture"
    made.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2020:02:29 23:59:58"
    made.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (48.0, 12.0, 30.5)})
    return made


def tags(exif: Image.Exif, xmp: bytes) -> TiffImagePlugin.ImageFileDirectory_v2:
    made = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in {**exif, 700: xmp}.items():
        made[tag] = value
    for tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        made[tag] = exif.get_ifd(tag)
    return made


def facts(exif: Image.Exif) -> list[Any]:
    base = {tag: exif.get(tag) for tag in (ExifTags.Base.Orientation, ExifTags.Base.ImageDescription)}
    return [base, exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.GPSInfo)]


def rich(kind: str) -> bytes:
    file, options = io.BytesIO(), {"exif": exif(), "xmp": XMP, "icc_profile": ICC[:200], "dpi": (72, 36)}
    if kind == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode(), zip=True)
        options["pnginfo"].add_text("Title", "one", zip=True)
    if kind == "TIFF":
        options = {"tiffinfo": tags(exif(), XMP), "dpi": (72, 36)}
    Image.fromarray(noise(12, 10, 3)).save(file, kind, **options)
    return file.getvalue()


RICH = {kind: rich(kind) for kind in ("PNG", "JPEG", "WEBP", "TIFF", "AVIF")}


@pytest.fixture
def ingest(tmp_path: Path) -> Callable[..., list[Any]]:
    """Payloads of `image_source` for everything in the folder `in`."""

    def run(**options: Any) -> list[Any]:
        outputs = list(ImageSource(ImageSource.Config(path=str(tmp_path / "in" / "*"), **options)).produce())
        assert [output for output in outputs if isinstance(output, Refused)] == []
        return [output.payload for output in outputs]

    (tmp_path / "in").mkdir()
    return run


@pytest.fixture
def through(tmp_path: Path, ingest: Callable, feed: Callable) -> Callable[..., list[Row]]:
    """From the folder `in` to the folder `out`, and the rows that the sink gives."""

    def run(arrange: Callable[[list[Any]], Iterable[Any]] = list, **options: Any) -> list[Row]:
        payloads = arrange(ingest(**options))
        return rows(feed(ImageSink(ImageSink.Config(path=str(tmp_path / "out"))), payloads))

    return run


def rows(outputs: list[Any]) -> list[Row]:
    return [output for output in outputs if isinstance(output, Row)]


def png_chunks(path: Path) -> Iterator[tuple[bytes, bytes]]:
    data, position = path.read_bytes(), 8
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        content = data[position + 8 : position + 8 + length]
        assert zlib.crc32(kind + content) == struct.unpack_from(">I", data, position + 8 + length)[0]
        yield kind, content
        position += 12 + length


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_profile_exif_and_xmp_come_back(tmp_path: Path, through: Callable, kind: str) -> None:
    path, options = tmp_path / "in" / "a.bin", {"exif": exif(), "xmp": XMP, **EXACT.get(kind, {})}
    if kind == "PNG":  # Pillow writes no `xmp=` into these two, and says nothing
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())
    if kind == "TIFF":
        options = {"tiffinfo": tags(exif(), XMP)}
    Image.fromarray(noise(7, 11, 3)).save(path, kind, icc_profile=ICC, **options)
    assert rows_of(through()) == {"pictures": 1}
    with Image.open(tmp_path / "out" / "a.png") as out:
        assert (out.size, out.mode) == ((11, 7), "RGB")  # as stored, not turned
        assert (out.info["icc_profile"], out.info["xmp"]) == (ICC, XMP)
        assert facts(out.getexif()) == facts(exif())


def rows_of(found: list[Row]) -> dict[str, Any]:
    (row,) = found
    return dict(row.values)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_exif_is_kept_byte_for_byte(tmp_path: Path, ingest: Callable, through: Callable, kind: str) -> None:
    block = exif().tobytes()[6:] + b"maker's own notes, which nobody understands"
    Image.fromarray(noise(4, 4, 3)).save(tmp_path / "in" / "a.bin", kind, exif=b"Exif\0\0" + block)
    through()
    assert dict(png_chunks(tmp_path / "out" / "a.png"))[b"eXIf"] == block


TRANSPARENT = {
    "RGBA.png": ("RGBA", {}),
    "RGBA.webp": ("RGBA", EXACT["WEBP"]),
    "RGBA.tiff": ("RGBA", {}),
    "RGBA.qoi": ("RGBA", {}),
    "LA.png": ("LA", {}),
    "LA.tiff": ("LA", {}),
    "PA.tiff": ("PA", {}),
    "P.png": ("P", {"transparency": bytes(range(0, 36, 4))}),
    "P.gif": ("P", {"transparency": 3}),
    "RGB.png": ("RGB", {"transparency": (1, 2, 3)}),
    "L.png": ("L", {"transparency": 77}),
    "1.png": ("1", {"transparency": 1}),
}


def transparent(mode: str) -> Image.Image:
    rgb, alpha = noise(9, 8, 3), noise(9, 8)
    rgb[2, 3], alpha[:3] = (1, 2, 3), 0  # also where nothing is seen, colours stay
    if mode == "RGBA":
        return Image.fromarray(np.dstack([rgb, alpha]))
    if mode == "LA":
        return Image.fromarray(np.dstack([rgb[..., 0], alpha]), "LA")
    if mode in ("P", "PA"):
        image = Image.fromarray(rgb).quantize(9)
        if mode == "PA":
            image = image.convert("PA")
            image.putalpha(Image.fromarray(alpha))
        return image
    if mode == "L":
        rgb[0, 0] = 77
    return Image.fromarray(rgb if mode == "RGB" else rgb[..., 0] if mode == "L" else rgb[..., 0] > 127)


@pytest.mark.parametrize("name", TRANSPARENT)
def test_alpha_comes_back_without_loss(tmp_path: Path, through: Callable, name: str) -> None:
    mode, options = TRANSPARENT[name]
    transparent(mode).save(tmp_path / "in" / name, **options)
    with Image.open(tmp_path / "in" / name) as original:
        assert (original.mode, original.has_transparency_data) == (mode, True)
        rgba = np.asarray(original.convert("RGBA"))
    assert len(np.unique(rgba[..., 3])) > 1
    assert rows_of(through()) == {"pictures": 1}
    with Image.open(tmp_path / "out" / f"{mode}.png") as out:
        assert out.mode == ("LA" if mode in ("1", "L", "LA") else "RGBA")
        np.testing.assert_array_equal(np.asarray(out.convert("RGBA")), rgba)


def test_alpha_of_avif_comes_back_as_it_was_decoded(tmp_path: Path, through: Callable) -> None:
    transparent("RGBA").save(tmp_path / "in" / "a.avif", quality=90)
    with Image.open(tmp_path / "in" / "a.avif") as original:
        rgba = np.asarray(original)
    through()
    with Image.open(tmp_path / "out" / "a.png") as out:
        np.testing.assert_array_equal(np.asarray(out), rgba)


def test_alpha_that_is_nearly_opaque_comes_back(tmp_path: Path, through: Callable) -> None:
    rgba = np.dstack([noise(9, 9, 3), 255 - noise(9, 9) % 2])
    Image.fromarray(rgba).save(tmp_path / "in" / "a.png")
    through()
    with Image.open(tmp_path / "out" / "a.png") as out:
        np.testing.assert_array_equal(np.asarray(out), rgba)


def test_alpha_is_a_grey_png_of_one_bit_where_that_is_enough(tmp_path: Path, ingest: Callable) -> None:
    mask = noise(40, 40) > 127
    Image.fromarray(np.dstack([noise(40, 40, 3), np.uint8(255) * mask])).save(tmp_path / "in" / "a.png")
    attachment, batch = ingest()
    (ref,) = batch.pictures[0].span.source.carried.attachments
    assert (ref.kind, ref.media_type, ref.sha256) == ("alpha", "image/png", attachment.sha256)
    (tmp_path / "alpha.png").write_bytes(attachment.data)
    with Image.open(tmp_path / "alpha.png") as alpha:
        assert alpha.mode == "1"
        np.testing.assert_array_equal(np.asarray(alpha), mask)


def test_texts_come_back(tmp_path: Path, through: Callable) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "one")
    info.add_text("Title", "two", zip=True)  # of texts with one keyword, Pillow gives only the last
    info.add_itxt("Author", "J\xfcrgen \u263a")
    info.add_itxt("Description", "fremd", "de", "Beschreibung")
    info.add_text("Long", "x" * 5000)
    Image.fromarray(noise(4, 4, 3)).save(tmp_path / "in" / "a.png", pnginfo=info)
    Image.fromarray(noise(4, 4, 3)).save(tmp_path / "in" / "b.jpg", comment="gr\xfc\xdfe".encode())
    Image.fromarray(noise(4, 4)).save(tmp_path / "in" / "c.gif", comment="hi")
    through()
    with Image.open(tmp_path / "out" / "a.png") as out:
        assert (out.text["Author"], out.text["Long"]) == ("J\xfcrgen \u263a", "x" * 5000)
        description = out.text["Description"]
        assert (description, description.lang, description.tkey) == ("fremd", "de", "Beschreibung")
    titles = [content for _, content in png_chunks(tmp_path / "out" / "a.png") if content.startswith(b"Title")]
    assert titles == [b"Title\0one", b"Title\0two"]
    assert [Image.open(tmp_path / "out" / name).text["Comment"] for name in ("b.png", "c.png")] == ["gr\xfc\xdfe", "hi"]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "AVIF"])
def test_looking_beside_the_pixels_leaves_the_file_where_it_was(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a").write_bytes(RICH[kind])
    with (tmp_path / "a").open("rb") as file, Image.open(file) as image:
        position = file.tell()
        assert media_beside.found_beside(image, file).parts
        assert file.tell() == position


def test_very_many_texts_come_back(tmp_path: Path, ingest: Callable, through: Callable) -> None:
    info = PngImagePlugin.PngInfo()
    for number in range(200):
        info.add_text("Note", str(number))
    Image.fromarray(noise(4, 4, 3)).save(tmp_path / "in" / "a.png", pnginfo=info)
    carried = ingest()[-1].pictures[0].span.source.carried
    assert (len(carried.metadata), len(carried.attachments)) == (media_beside.MAX_TEXTS, 200 - media_beside.MAX_TEXTS)
    through()
    notes = {content for kind, content in png_chunks(tmp_path / "out" / "a.png") if kind == b"tEXt"}
    assert notes == {b"Note\0%d" % number for number in range(200)}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP"])
def test_resolution_comes_back(tmp_path: Path, through: Callable, kind: str) -> None:
    Image.fromarray(noise(4, 4, 3)).save(tmp_path / "in" / "a.bin", kind, dpi=(300, 150))
    through()
    chunks = dict(png_chunks(tmp_path / "out" / "a.png"))
    assert chunks.pop(b"pHYs") == struct.pack(">IIB", 11_811, 5906, 1)
    assert chunks.keys() == {b"IHDR", b"IDAT", b"IEND"}


def test_a_resolution_that_is_made_up_is_none(tmp_path: Path, through: Callable) -> None:
    path = tmp_path / "in" / "a.jpg"
    Image.fromarray(noise(4, 4, 3)).save(path, exif=b"Exif\0\0broken")
    path.write_bytes(path.read_bytes()[:2] + path.read_bytes()[20:])  # without the segment that would say it
    with Image.open(path) as image:
        assert image.info["dpi"] == (72, 72)
    through()
    assert b"pHYs" not in dict(png_chunks(tmp_path / "out" / "a.png"))


def test_the_shape_of_pixels_comes_back(tmp_path: Path, ingest: Callable, through: Callable) -> None:
    path = tmp_path / "in" / "a.jpg"
    Image.fromarray(noise(4, 4, 3)).save(path)
    path.write_bytes(path.read_bytes().replace(b"JFIF\0\x01\x01\0\0\x01\0\x01", b"JFIF\0\x01\x01\0\0\x10\0\x0b"))
    assert ingest()[0].pictures[0].span.source.carried.pixel.aspect == (11, 16)  # more pixels across: narrower
    through()
    assert dict(png_chunks(tmp_path / "out" / "a.png"))[b"pHYs"] == struct.pack(">IIB", 16, 11, 0)


def test_colour_and_private_chunks_come_back_where_they_may(tmp_path: Path, through: Callable) -> None:
    info = PngImagePlugin.PngInfo()
    small = {b"gAMA": struct.pack(">I", 45_455), b"cHRM": bytes(range(32)), b"sRGB": b"\1", b"sBIT": b"\5\6\5"}
    for kind, content in small.items():
        info.add(kind, content)
    info.add(b"prVt", b"safe to copy" * 9)
    info.add(b"prVX", b"not safe with other pixels", True)
    Image.fromarray(noise(4, 4, 3)).save(tmp_path / "in" / "a.png", pnginfo=info)
    assert rows_of(through()) == {"pictures": 1, "not_in_png": "chunk prVX (1)"}
    chunks = dict(png_chunks(tmp_path / "out" / "a.png"))
    assert {kind: chunks.get(kind) for kind in small} == small
    assert (chunks[b"prVt"], b"prVX" in chunks) == (b"safe to copy" * 9, False)


def test_a_broken_profile_stays_as_it_is(tmp_path: Path, ingest: Callable, through: Callable) -> None:
    path, content = tmp_path / "in" / "a.png", b"x\0\0" + zlib.compress(ICC)[:-9]
    Image.fromarray(noise(4, 4, 3)).save(path)
    chunk = struct.pack(">I", len(content)) + b"iCCP" + content + struct.pack(">I", zlib.crc32(b"iCCP" + content))
    path.write_bytes(path.read_bytes()[:33] + chunk + path.read_bytes()[33:])
    (ref,) = ingest()[-1].pictures[0].span.source.carried.attachments
    assert (ref.kind, ref.name) == ("chunk", "iCCP")
    through()
    assert dict(png_chunks(tmp_path / "out" / "a.png"))[b"iCCP"] == content


def test_bits_of_an_alpha_channel_that_is_no_more_are_left_out(tmp_path: Path, through: Callable) -> None:
    info = PngImagePlugin.PngInfo()
    info.add(b"sBIT", b"\5\6\5\1")
    Image.new("RGBA", (4, 4), (1, 2, 3, 255)).save(tmp_path / "in" / "a.png", pnginfo=info)
    assert rows_of(through()) == {"pictures": 1, "not_in_png": "chunk sBIT (1)"}


def test_colours_of_avif_are_named(tmp_path: Path, ingest: Callable, through: Callable) -> None:
    Image.fromarray(noise(8, 8, 3)).save(tmp_path / "in" / "a.avif")
    color = ingest()[0].pictures[0].span.source.color
    assert (color.primaries, color.transfer, color.range) == (1, 13, 2)
    through()
    assert dict(png_chunks(tmp_path / "out" / "a.png"))[b"cICP"] == bytes((1, 13, 0, 1))


def test_what_png_cannot_hold_is_kept_and_named(tmp_path: Path, ingest: Callable, through: Callable) -> None:
    path = tmp_path / "in" / "a.jpg"
    Image.fromarray(noise(4, 4, 3)).save(path)
    iptc = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0\0\0\0\x08\x1c\x02\x05\0\x03xyz"
    data = path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xed" + struct.pack(">H", len(iptc) + 2) + iptc + data[2:])
    segment, _ = ingest()
    assert segment.data == iptc
    assert rows_of(through()) == {"pictures": 1, "not_in_png": "segment APP13 (1)"}


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 3)])
@pytest.mark.parametrize("space", [b"GRAY", b"RGB "])
def test_a_profile_is_put_into_a_png_of_its_own_colours(
    tmp_path: Path, through: Callable, shape: tuple[int, ...], space: bytes
) -> None:
    profile = ICC[:16] + space + ICC[20:]
    Image.fromarray(noise(*shape)).save(tmp_path / "in" / "a.jpg", icc_profile=profile)
    fits = (space == b"GRAY") == (len(shape) == 2)
    assert rows_of(through()) == {"pictures": 1, **({} if fits else {"not_in_png": "icc (1)"})}
    assert (b"iCCP" in dict(png_chunks(tmp_path / "out" / "a.png"))) == fits


@pytest.mark.parametrize("nanoseconds", [0, 1, 1_234_567_890_123_456_789, -1, -1_500_000_000])
def test_times_come_back_to_the_nanosecond(tmp_path: Path, through: Callable, nanoseconds: int) -> None:
    path = tmp_path / "in" / "a.png"
    Image.fromarray(noise(4, 4, 3)).save(path)
    os.utime(path, ns=(nanoseconds, nanoseconds))
    through()
    assert (tmp_path / "out" / "a.png").stat().st_mtime_ns == nanoseconds


def test_names_in_other_encodings_come_back(tmp_path: Path, ingest: Callable, through: Callable) -> None:
    names = [b"caf\xe9.png", b"caf\xe8.png", b"100%\xff.jpg", "J\xfcrgen \u263a.png".encode(), b"caf%E9.png"]
    for number, name in enumerate(names):
        image = Image.new("RGB", (3, 3), (number, 0, 0))
        image.save(tmp_path / "in" / os.fsdecode(name), "PNG")
    shown = {batch.pictures[0].span.source.name for batch in ingest()}
    assert shown == {"caf%E9.png-2", "caf%E8.png", "100%25%FF.jpg", "J\xfcrgen \u263a.png", "caf%E9.png"}
    through()
    written = [*names[:2], b"100%\xff.png", *names[3:]]
    assert {os.fsencode(place.name) for place in (tmp_path / "out").iterdir()} == set(written)
    for number, name in enumerate(written):
        with Image.open(tmp_path / "out" / os.fsdecode(name)) as out:
            assert out.getpixel((0, 0)) == (number, 0, 0)


@pytest.mark.parametrize("arrange", [reversed, lambda items: [item for item in items for _ in range(2)]])
def test_any_order_and_pieces_that_come_twice_give_the_same(
    tmp_path: Path, ingest: Callable, feed: Callable, arrange: Callable
) -> None:
    for name in ("a.png", "b.png"):
        transparent("RGBA").save(tmp_path / "in" / name, icc_profile=ICC)
    payloads = ingest()
    attachments = [payload for payload in payloads if isinstance(payload, Attachment)]
    batches = [payload for payload in payloads if isinstance(payload, ImageBatch)]
    assert len(attachments) == 2  # what both pictures hold comes once
    feed(ImageSink(ImageSink.Config(path=str(tmp_path / "out"))), arrange([*batches, *arrange(attachments)]))
    for place in sorted((tmp_path / "out").iterdir()):
        with Image.open(place) as out:
            assert out.info["icc_profile"] == ICC
            np.testing.assert_array_equal(np.asarray(out), np.asarray(transparent("RGBA")))


def test_attachments_come_once_in_a_run_and_have_lasting_identities(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.jpg"):
        Image.fromarray(noise(4, 4, 3)).save(tmp_path / "in" / name, icc_profile=ICC, exif=exif())
    source = ImageSource(ImageSource.Config(path=str(tmp_path / "in")))
    emitted = [output for output in source.produce() if output.port == "rest"]
    names = {ref.kind: ref for ref in refs_of(source)}
    assert [emit.identity for emit in emitted] == [f"attachment:{names[kind].sha256}:0" for kind in ("icc", "exif")]
    assert all(isinstance(emit, Emit) and emit.payload.total_bytes == len(emit.payload.data) for emit in emitted)


def refs_of(source: ImageSource) -> Iterator[AttachmentRef]:
    for output in source.produce():
        if output.port == "out":
            for picture in output.payload:
                yield from picture.span.source.carried.attachments


def test_what_did_not_come_is_named_and_the_picture_is_written(tmp_path: Path, through: Callable) -> None:
    transparent("RGBA").save(tmp_path / "in" / "a.png", icc_profile=ICC)
    lost, whole = through(lambda items: [item for item in items if isinstance(item, ImageBatch)])
    assert (lost.label, whole.values) == ("a.png", {"pictures": 1})
    assert "alpha: attachment" in str(lost.values["lost"])
    assert "icc: attachment" in str(lost.values["lost"])
    with Image.open(tmp_path / "out" / "a.png") as out:
        np.testing.assert_array_equal(np.asarray(out), np.asarray(transparent("RGBA"))[..., :3])


# What a stranger's file, or archive, may hold.


def bomb(kind: bytes) -> bytes:
    packed = zlib.compress(bytes(2**26), 9)
    head = {b"iCCP": b"x\0\0", b"zTXt": b"x\0\0", b"iTXt": b"x\0\1\0\0\0"}[kind]
    return head + packed


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("kind", [b"iCCP", b"zTXt", b"iTXt"])
def test_a_bomb_in_the_metadata_is_refused(tmp_path: Path, kind: bytes, after: bool) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(noise(4, 4, 3)).save(path)
    data, content = path.read_bytes(), bomb(kind)
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    at = len(data) - 12 if after else 33
    path.write_bytes(data[:at] + chunk + data[at:])
    tracemalloc.start()
    (refused,) = ImageSource(ImageSource.Config(path=str(path))).produce()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(refused, Refused)
    assert "too large" in refused.reason
    assert peak < 2**25


def test_more_metadata_than_is_kept_is_refused_unless_the_original_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media_beside, "MAX_BYTES", 2000)
    info = PngImagePlugin.PngInfo()
    info.add(b"prVt", bytes(3000))
    Image.fromarray(noise(4, 4, 3)).save(tmp_path / "a.png", pnginfo=info)
    Image.fromarray(noise(4, 4, 3)).save(tmp_path / "b.jpg", icc_profile=ICC, xmp=b"x" * 1500)
    Image.fromarray(noise(4, 4, 3)).save(tmp_path / "c.tiff", tiffinfo={65_000: bytes(3000)})
    outputs = list(ImageSource(ImageSource.Config(path=str(tmp_path))).produce())
    assert ["keep_original" in output.reason for output in outputs] == [True] * 3
    outputs = list(ImageSource(ImageSource.Config(path=str(tmp_path), keep_original=True)).produce())
    assert [output.port for output in outputs] == ["rest", "out"] * 3


@pytest.mark.parametrize("damage", [b"", b"no TIFF at all", b"II*\0\xff\xff\xff\xff", bytes(40)])
def test_damaged_exif_and_profiles_are_passed_on(tmp_path: Path, through: Callable, damage: bytes) -> None:
    Image.fromarray(noise(4, 4, 3)).save(tmp_path / "in" / "a.webp", exif=damage, xmp=damage, lossless=True)
    Image.fromarray(noise(4, 4, 3)).save(tmp_path / "in" / "b.jpg", icc_profile=damage + b"?", xmp=damage)
    found = through()
    assert found[-1].values["pictures"] == 2
    assert dict(png_chunks(tmp_path / "out" / "a.png")).get(b"eXIf", b"") == damage


def hostile(*refs: AttachmentRef, color: ColorTags | None = None, **carried: Any) -> ImageBatch:
    source = Source(
        name="a.png",
        kind="image",
        sha256="ab" * 32,
        size_bytes=1,
        width=4,
        height=4,
        color=color or ColorTags(),
        carried=Carried(attachments=refs, **carried),
    )
    return ImageBatch(pictures=(Clip(span=Span(source=source, pts=(0,)), frames=noise(1, 3, 4, 4)),))


def attachment(data: bytes, kind: str, name: str = "") -> tuple[AttachmentRef, Attachment]:
    sha256 = hashlib.sha256(data).hexdigest()
    ref = AttachmentRef(kind=kind, sha256=sha256, size_bytes=len(data), name=name)
    return ref, Attachment(sha256=sha256, total_bytes=len(data), data=data)


def png(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


HOSTILE = {
    "alpha of another size": (png(Image.new("L", (5, 4))), "alpha", "", "not grey of the picture's size"),
    "alpha in colours": (png(Image.new("RGB", (4, 4))), "alpha", "", "not grey of the picture's size"),
    "alpha that is no PNG": (b"GIF89a", "alpha", "", "it is damaged"),
    "alpha cut off": (png(Image.fromarray(noise(4, 4)))[:60], "alpha", "", "it is damaged"),
    "alpha of a vast size": (
        png(Image.new("L", (4, 4))).replace(struct.pack(">II", 4, 4), struct.pack(">II", 2**31 - 1, 2**31 - 1)),
        "alpha",
        "",
        "it is damaged",
    ),
    "a bomb": (bomb(b"zTXt"), "chunk", "zTXt", "could not be read"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_attachments_cost_no_picture(tmp_path: Path, feed: Callable, case: str) -> None:
    data, kind, name, reason = HOSTILE[case]
    ref, piece = attachment(data, kind, name)
    batch = hostile(ref)
    lost, _ = rows(feed(ImageSink(ImageSink.Config(path=str(tmp_path / "out"))), [batch, piece]))
    assert reason in str(lost.values["lost"])
    with Image.open(tmp_path / "out" / "a.png") as out:
        np.testing.assert_array_equal(np.asarray(out), batch.pictures[0].frames[0].transpose(1, 2, 0))


def test_hostile_facts_cost_no_picture(tmp_path: Path, feed: Callable) -> None:
    chunk, piece = attachment(b"x", "chunk", "IHDR")
    odd, other = attachment(b"x", "of a later version")
    batch = hostile(
        chunk,
        odd,
        metadata=(("", "x"), ("k" * 80, "x"), ("ok", "a\0b"), ("\u263a", "x")),
        track_metadata=(("png:IDAT", "00"), ("png:gAMA", "00"), ("png:\u263aAMA", "00"), ("png:gAMA", "xy")),
        modified="999999999999.999999999",
    )
    found = rows(feed(ImageSink(ImageSink.Config(path=str(tmp_path / "out"))), [batch, piece, other]))
    assert found[-1].values["pictures"] == 1
    assert {kind for kind, _ in png_chunks(tmp_path / "out" / "a.png")} == {b"IHDR", b"IDAT", b"IEND"}
    for name in ("chunk IHDR", "chunk IDAT", "chunk gAMA", "of a later version", "text ''"):
        assert f"{name} (1)" in str(found[-1].values["not_in_png"])


def test_what_may_stand_once_is_written_once(tmp_path: Path, feed: Callable) -> None:
    (profile, one), (first, two), (second, three) = (
        attachment(ICC, "icc"),
        attachment(b"II*\0first", "exif"),
        attachment(b"II*\0second", "exif"),
    )
    twice = (("png:gAMA", "0000b18f"), ("png:gAMA", "0000b190"))
    batch = hostile(profile, first, second, track_metadata=twice, color=ColorTags(primaries=9, transfer=16))
    feed(ImageSink(ImageSink.Config(path=str(tmp_path / "out"))), [one, two, three, batch])
    kinds = [kind for kind, _ in png_chunks(tmp_path / "out" / "a.png")]
    assert kinds == [b"IHDR", b"gAMA", b"iCCP", b"eXIf", b"IDAT", b"IEND"]  # and no code points beside a profile


def test_a_bad_name_costs_its_own_item_alone(tmp_path: Path) -> None:
    stage = ImageSink(ImageSink.Config(path=str(tmp_path / "out")))
    stage.setup(StageContext("node"))
    with pytest.raises(FramefoldError, match="is not written to disk"):
        list(stage.process(Item("bad", "", (0,), hostile(name_bytes=b"../x".hex()))))
    list(stage.process(Item("good", "", (1,), hostile())))
    list(stage.finish())
    stage.close()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]


@pytest.mark.parametrize("text", ["inf x 1", "0 x 0", "-1 x 1", "1e999 x 1", "nan x 1", "1 x", "1e9 x 1e9"])
def test_a_resolution_that_makes_no_sense_is_left_out(tmp_path: Path, feed: Callable, text: str) -> None:
    feed(ImageSink(ImageSink.Config(path=str(tmp_path / "out"))), [hostile(track_metadata=(("dpi", text),))])
    assert b"pHYs" not in dict(png_chunks(tmp_path / "out" / "a.png"))


@pytest.mark.parametrize("raw", [b"../evil.png", b"/evil.png", b"a\0.png", b"..", b"a\\b", b"con.png"])
def test_bytes_of_a_name_lead_nowhere_else(tmp_path: Path, feed: Callable, raw: bytes) -> None:
    stage = ImageSink(ImageSink.Config(path=str(tmp_path / "out")))
    with pytest.raises(FramefoldError, match="is not written to disk"):
        feed(stage, [hostile(name_bytes=raw.hex())])
    stage.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("total", [5, 2**40])
def test_an_attachment_that_is_not_what_it_says_is_left_out(tmp_path: Path, feed: Callable, total: int) -> None:
    ref, _ = attachment(ICC, "icc")
    piece = Attachment(sha256=ref.sha256, total_bytes=total, data=b"other")
    lost, _ = rows(feed(ImageSink(ImageSink.Config(path=str(tmp_path / "out"))), [piece, hostile(ref)]))
    assert "did not come" in str(lost.values["lost"])


def test_originals_that_are_kept_too_do_not_get_in_the_way(tmp_path: Path, through: Callable) -> None:
    transparent("RGBA").save(tmp_path / "in" / "a.png")
    assert rows_of(through(reversed, keep_original=True)) == {"pictures": 1}
    with Image.open(tmp_path / "out" / "a.png") as out:
        np.testing.assert_array_equal(np.asarray(out), np.asarray(transparent("RGBA")))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(sorted(RICH)), data=st.data())
def test_broken_metadata_never_brings_the_stages_down(
    tmp_path_factory: pytest.TempPathFactory, feed: Callable, kind: str, data: st.DataObject
) -> None:
    folder, content = tmp_path_factory.mktemp("fuzz"), bytearray(RICH[kind])
    place = st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255))
    for position, value in data.draw(st.lists(place, max_size=8)):
        content[position] = value
    (folder / "a.bin").write_bytes(content)
    outputs = list(ImageSource(ImageSource.Config(path=str(folder / "a.bin"))).produce())
    if not isinstance(outputs[-1], Refused):
        feed(ImageSink(ImageSink.Config(path=str(folder / "out"))), [output.payload for output in outputs])
        with Image.open(folder / "out" / "a.png") as out:
            np.testing.assert_array_equal(np.asarray(out), outputs[-1].payload.pictures[0].frames[0].transpose(1, 2, 0))
