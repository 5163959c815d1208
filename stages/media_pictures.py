"""Picture files to RGB, exactly or not at all.

What 8-bit RGB can hold is converted without loss: grey, black and white, and palette pictures are expanded;
an alpha channel that is opaque everywhere is dropped. Anything else (transparency, more than 8 bits, CMYK,
several pictures in one file) is refused by name, for Pillow would cut it down without a word. Pixels stay as
stored: an EXIF orientation is not applied.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError
from pydantic import ValidationError

from framefold.codecs.clip import MAX_PIXELS, MAX_SIDE, Clip, Source, Span
from framefold.pipeline.errors import RefusedInput
from framefold.stages.media_files import MediaFile, open_regular, sha256_and_size

Image.init()
FORMATS = tuple(sorted(Image.OPEN.keys() & {"PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "QOI", "AVIF"}))
"""Pillow's names of the readers that may run; none starts another program, as the one for EPS does."""

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm", ".pbm", ".pnm"),
    *(".qoi", ".avif"),
)
"""What is taken for a picture in a folder."""

_EXACT_MODES = ("1", "L", "P", "RGB", "LA", "PA", "RGBA")
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

Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # one limit for the whole program; beyond it Pillow warns, made an error below


def read_picture(media: MediaFile) -> Clip:
    """Return the picture as a one-frame clip, (1, 3, H, W) uint8; RefusedInput says why it cannot be had."""
    with open_regular(media) as file:
        sha256, size_bytes = sha256_and_size(file)
        rgb = read_rgb(file)
    try:
        source = Source(
            name=media.name,
            kind="image",
            sha256=sha256,
            size_bytes=size_bytes,
            width=rgb.shape[1],
            height=rgb.shape[0],
        )
    except ValidationError as error:
        raise RefusedInput(f"cannot be described: {error.errors()[0]['msg']}") from error
    frames = np.ascontiguousarray(rgb.transpose(2, 0, 1))[None]
    return Clip(span=Span(source=source, pts=(0,)), frames=frames)


def read_rgb(file: BufferedReader) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8."""
    with _opened(file) as image:
        if image.format == "PNG":
            image.verify()  # walks all chunks: a PNG cut off behind its pixels decodes without complaint
    with _opened(file) as image:
        _check_size(*image.size)
        _check_depth(image, file)
        stored = _as_stored(image)
        _check_alpha(stored)
        return np.asarray(stored.convert("RGB"))


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


def _check_depth(image: ImageFile.ImageFile, file: BufferedReader) -> None:
    count = getattr(image, "n_frames", 1)
    if count > 1:
        raise RefusedInput(
            f"holds {count} pictures (animated, or {image.format} with several pages); save each as a file of its own"
        )
    if image.mode.startswith("I;16") or _has_deep_samples(image, file):
        raise RefusedInput("more than 8 bits per sample, which 8-bit RGB cannot hold; convert it to 8 bits first")
    if image.mode not in _EXACT_MODES:
        raise RefusedInput(f"pixel mode {image.mode}, which 8-bit RGB cannot hold exactly; convert it to RGB first")


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
        turn = _UNTURN.get(image.tag_v2.get(_ORIENTATION, 1))
    image.load()
    return image.transpose(turn) if turn is not None else image


def _check_alpha(image: Image.Image) -> None:
    if not image.has_transparency_data:
        return
    if image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        raise RefusedInput("has transparent pixels, which RGB cannot hold; flatten it onto a background first")
