"""Picture files to grey or RGB, exactly or not at all, and all that they hold beside it.

Grey stays grey, black and white becomes grey, and what 8-bit RGB can hold is converted without loss: palettes are
expanded. An alpha channel is taken off and kept apart, unless it is opaque everywhere. Of 16 bits a sample, PNGs
without alpha are read. Anything else (more than 8 bits, CMYK, several pictures in one file) is refused by name, for
Pillow would cut it down without a word. Pixels stay as stored: an orientation is kept, not applied.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError
from pydantic import ValidationError

from framefold.codecs.carried import AttachmentRef, Carried, PixelTags
from framefold.codecs.clip import MAX_PIXELS, MAX_SIDE, Clip, Frames, Source, Span
from framefold.codecs.pixel_format import GRAY, GRAY_16, RGB, RGB_16, PixelFormat
from framefold.pipeline.errors import RefusedInput
from framefold.stages import media_alpha, media_deep_png
from framefold.stages.media_beside import MAX_BYTES, MAX_PARTS, Beside, Part, found_beside
from framefold.stages.media_files import sha256_and_size
from framefold.stages.media_origin import modified
from framefold.stages.media_originals import attached
from framefold.stages.media_tiff import TooManyBytes

Image.init()
FORMATS = tuple(sorted(Image.OPEN.keys() & {"PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "QOI", "AVIF"}))
"""Pillow's names of the readers that may run; none starts another program, as the one for EPS does."""

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm", ".pbm", ".pnm"),
    *(".qoi", ".avif"),
)
"""What is taken for a picture in a folder."""

_EXACT_MODES = ("1", "L", "P", "RGB", "LA", "PA", "RGBA")
_GRAY_MODES = ("1", "L", "LA")
_DEEP_MODES = {"I;16": GRAY_16, "RGB": RGB_16}
"""Pillow's modes of PNGs with 16 bits a sample; it would read RGB as 8."""
_UNTURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""EXIF orientation to what undoes its display rotation."""
_ORIENTATION = 0x0112
_BITS_PER_SAMPLE = 258
_EXTRA_SAMPLES, _ASSOCIATED_ALPHA = 338, 1

_log = logging.getLogger(__name__)

Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # one limit for the whole program; beyond it Pillow warns, made an error below


@dataclass(frozen=True)
class Picture:
    """What a file held."""

    clip: Clip
    """One frame, (1, C, H, W), grey or RGB."""
    attached: Mapping[str, bytes]
    """SHA-256 to the bytes of every attachment that the clip's source names, save the original."""


@dataclass(frozen=True)
class _Stored:
    """A file as Pillow and we read it."""

    samples: Frames
    """(C, H, W)."""
    pixels: PixelFormat
    beside: Beside
    alpha: bytes | None
    pixel: PixelTags
    container: str
    codec: str
    media_type: str


def read_picture(
    file: BufferedReader,
    name: str,
    *,
    name_bytes: str | None = None,
    keep_original: bool = False,
    as_rgb: bool = False,
) -> Picture:
    """Read an open file; RefusedInput says why it cannot be had.

    With `as_rgb` grey becomes 8-bit RGB. With `keep_original` the source names the whole file as an attachment, and
    metadata that is too much to be kept apart is left to it.
    """
    sha256, size_bytes = sha256_and_size(file)
    stored = _read(file, metadata_may_stay_behind=keep_original, as_rgb=as_rgb)
    parts = [*stored.beside.parts, *_alpha_part(stored)]
    refs = [attached(part.data, part.kind, name=part.name, media_type=part.media_type) for part in parts]
    data = {ref.sha256: part.data for ref, part in zip(refs, parts, strict=True)}
    if keep_original:
        original = AttachmentRef(kind="original", sha256=sha256, size_bytes=size_bytes, media_type=stored.media_type)
        refs.append(original)
    try:
        source = Source(
            name=name,
            kind="image",
            sha256=sha256,
            size_bytes=size_bytes,
            width=stored.samples.shape[2],
            height=stored.samples.shape[1],
            color=stored.beside.color,
            carried=Carried(
                modified=modified(file),
                name_bytes=name_bytes,
                pixel=stored.pixel,
                container=stored.container,
                codec=stored.codec,
                metadata=tuple(stored.beside.texts),
                track_metadata=tuple(stored.beside.small),
                attachments=tuple(refs),
            ),
            pixels=stored.pixels,
        )
    except ValidationError as error:
        raise RefusedInput(f"cannot be described: {error.errors()[0]['msg']}") from error
    return Picture(Clip(span=Span(source=source, pts=(0,)), frames=stored.samples[None]), data)


def _alpha_part(stored: _Stored) -> list[Part]:
    return [] if stored.alpha is None else [Part(media_alpha.KIND, stored.alpha, media_type=media_alpha.MEDIA_TYPE)]


def _read(file: BufferedReader, *, metadata_may_stay_behind: bool, as_rgb: bool) -> _Stored:
    with _opened(file) as image:
        if image.format == "PNG":
            image.verify()  # walks all chunks: a PNG cut off behind its pixels decodes without complaint
    with _opened(file) as image:
        _check_size(*image.size)
        pixels = _format_of(image, file, as_rgb=as_rgb)
        beside = _beside(image, file, metadata_may_stay_behind)
        compression, pixel = image.info.get("compression"), _pixel_tags(image, beside, pixels)
        premultiplied = isinstance(image, TiffImagePlugin.TiffImageFile) and _is_premultiplied(image)
        stored = _as_stored(image)
        alpha = media_alpha.alpha_of(stored)
        if alpha and premultiplied:
            raise RefusedInput(
                "colours premultiplied with alpha, which 8 bits cannot undo exactly; convert it to straight alpha"
            )
        return _Stored(
            alpha=alpha,
            samples=_samples(stored, pixels, file),
            pixels=pixels,
            beside=beside,
            pixel=pixel,
            container=image.format or "",
            codec=compression if isinstance(compression, str) else "",
            media_type=image.get_format_mimetype() or "",
        )


def _samples(image: Image.Image, pixels: PixelFormat, file: BufferedReader) -> Frames:
    """What is coded, (C, H, W) in storage of its own order."""
    if pixels == RGB_16:
        return media_deep_png.read(file)
    if pixels == GRAY_16:
        return np.asarray(image, np.uint16)[None]
    if pixels == GRAY:
        return np.asarray(image.convert("L"), np.uint8)[None]
    return np.ascontiguousarray(np.asarray(image.convert("RGB"), np.uint8).transpose(2, 0, 1))


def _beside(image: ImageFile.ImageFile, file: BufferedReader, may_stay_behind: bool) -> Beside:
    try:
        return found_beside(image, file)
    except TooManyBytes as error:
        if may_stay_behind:
            _log.warning("%s: its metadata is too much to be kept apart; it stays in the original", file.name)
            return Beside()
        raise RefusedInput(
            f"holds more beside its pixels than {MAX_BYTES} bytes (MAX_BYTES) in {MAX_PARTS} parts (MAX_PARTS); "
            "remove metadata that is not needed, or set keep_original: true"
        ) from error


def _is_premultiplied(image: TiffImagePlugin.TiffImageFile) -> bool:
    return _ASSOCIATED_ALPHA in image.tag_v2.get(_EXTRA_SAMPLES, ())


def _pixel_tags(image: ImageFile.ImageFile, beside: Beside, pixels: PixelFormat) -> PixelTags:
    bits = 1 if image.mode == "1" else pixels.depth
    return PixelTags(format=image.mode, bits=bits, aspect=beside.aspect)


@contextmanager
def _opened(file: BufferedReader) -> Iterator[ImageFile.ImageFile]:
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of broken metadata, which is not read here
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(file, formats=FORMATS) as image:
                yield image
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise RefusedInput(f"more than {MAX_PIXELS} pixels (MAX_PIXELS)") from error
        except UnidentifiedImageError as error:
            raise RefusedInput(f"not a picture of a kind that is read here ({', '.join(FORMATS)})") from error
        except RefusedInput:
            raise
        except Exception as error:  # over damaged files, Pillow's readers raise whatever comes up in them
            raise RefusedInput(f"truncated or damaged: {error}") from error


def _check_size(width: int, height: int) -> None:
    if max(width, height) > MAX_SIDE:
        raise RefusedInput(f"{width}x{height} pixels; at most {MAX_SIDE} per side (MAX_SIDE) are allowed")
    if width * height > MAX_PIXELS:
        raise RefusedInput(f"{width}x{height} pixels; at most {MAX_PIXELS} in all (MAX_PIXELS) are allowed")


def _format_of(image: ImageFile.ImageFile, file: BufferedReader, *, as_rgb: bool) -> PixelFormat:
    """Say as what a picture is coded exactly; RefusedInput if nothing can hold it."""
    count = getattr(image, "n_frames", 1)
    if count > 1:
        raise RefusedInput(
            f"holds {count} pictures (animated, or {image.format} with several pages); save each as a file of its own"
        )
    if image.mode.startswith("I;16") or _has_deep_samples(image, file):
        deep = _DEEP_MODES.get(image.mode) if image.format == "PNG" and not as_rgb else None
        if deep is None or image.has_transparency_data:
            raise RefusedInput(
                "more than 8 bits per sample, which are kept of PNGs without alpha only; convert it to 8 bits first"
            )
        return deep
    if image.mode not in _EXACT_MODES:
        raise RefusedInput(f"pixel mode {image.mode}, which 8-bit RGB cannot hold exactly; convert it to RGB first")
    return GRAY if image.mode in _GRAY_MODES and not as_rgb else RGB


def _has_deep_samples(image: ImageFile.ImageFile, file: BufferedReader) -> bool:
    """Whether the file holds more bits than Pillow's mode admits."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return bool(max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,))) > 8)
    if image.format == "AVIF":
        return _deep_avif(file)
    arguments = [part for tile in image.tile for part in _flat(tile.args)]
    if image.format == "PPM":  # its argument is the largest value
        return any(isinstance(part, int) and part > 255 for part in arguments)
    return any(isinstance(part, str) and ";16" in part for part in arguments)


def _flat(arguments: object) -> tuple[object, ...]:
    return tuple(arguments) if isinstance(arguments, tuple | list) else (arguments,)


def _deep_avif(file: BufferedReader) -> bool:
    """Find the bit `high_bitdepth` of any AV1CodecConfigurationBox (AV1-ISOBMFF 1.2, section 2.3.3)."""
    file.seek(0)
    boxes = file.read(65_536).split(b"av1C")[1:]
    return any(len(box) > 2 and box[2] & 0x40 for box in boxes)


def _as_stored(image: ImageFile.ImageFile) -> Image.Image:
    """Return the decoded picture, before any display rotation; Pillow turns a TIFF while loading it."""
    turn = None
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        turn = _UNTURN.get(image.getexif().get(_ORIENTATION, 1))  # like Pillow, which also looks into the XMP
    image.load()
    return image.transpose(turn) if turn is not None else image
