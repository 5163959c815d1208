"""What a picture's file holds beside its pixels: colour profile, EXIF, XMP, text, resolution, and what else there is.

Read of an image that is open but not loaded: Pillow turns a TIFF while loading, and then forgets how. Bytes are kept as
they are, whether they make sense or not; only a TIFF's tags, which lie scattered in it, are put together anew.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass, field
from fractions import Fraction
from io import BufferedReader
from typing import Any

from PIL import ImageFile, JpegImagePlugin, TiffImagePlugin

from framefold.codecs.clip import ColorTags
from framefold.stages import media_png
from framefold.stages.media_tiff import TooManyBytes, tags_as_exif

MAX_BYTES = 64 * 2**20
"""Of everything beside the pixels of one picture, alpha channel and original not counted."""
MAX_PARTS = 1024
MAX_TEXTS = 64
MAX_TEXT = 4096
SMALL = 64
"""A PNG chunk up to this size travels as text: an attachment of its own would cost more than it holds."""
COMMENT = "Comment"
"""The PNG keyword under which comments of JPEG and GIF files are kept."""

_PROFILE, _EXIF, _XMP = "application/vnd.iccprofile", "image/tiff", "application/rdf+xml"
_SEEN_BY_PILLOW = (b"JFIF\0", b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"Adobe", b"MPF\0")
_ANIMATION = ("acTL", "fcTL", "fdAT")


@dataclass(frozen=True)
class Part:
    """Bytes that become an attachment; see `AttachmentRef`."""

    kind: str
    """`icc`, `exif`, `xmp`; `chunk` of a PNG (name: type), `segment` of a JPEG, `tag` of a TIFF (name: number)."""
    data: bytes = field(repr=False)
    name: str = ""
    media_type: str = ""


@dataclass
class Beside:
    """All that was found, as it is found."""

    parts: list[Part] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)
    """(keyword, text)."""
    small: list[tuple[str, str]] = field(default_factory=list)
    """`dpi` as `300.0 x 300.0`; `png:gAMA` and the like in hex."""
    aspect: tuple[int, int] = (1, 1)
    """Width of a pixel to its height."""
    color: ColorTags = field(default_factory=ColorTags)

    def add(self, kind: str, data: object, *, name: str = "", media_type: str = "") -> None:
        """Keep bytes, if they are any; TooManyBytes if they are too many with what is there."""
        if isinstance(data, bytes) and data:
            self.parts.append(Part(kind, data, name[:MAX_TEXT], media_type))
        if sum(len(part.data) for part in self.parts) > MAX_BYTES or len(self.parts) > MAX_PARTS:
            raise TooManyBytes

    def add_text(self, keyword: str, text: str) -> bool:
        """Keep a text, if it is short and not one too many."""
        fits = len(text) <= MAX_TEXT and len(self.texts) < MAX_TEXTS
        if fits:
            self.texts.append((keyword, text))
        return fits

    def set_density(self, across: float, down: float) -> None:
        """Keep the resolution, in pixels per inch."""
        if all(math.isfinite(value) and 0 < value < 1e9 for value in (across, down)):
            self.small.append(("dpi", f"{across!r} x {down!r}"))
            self.set_aspect(Fraction(across), Fraction(down))

    def set_aspect(self, across: Fraction, down: Fraction) -> None:
        """Keep the shape of a pixel, from numbers of pixels in equal lengths."""
        if across > 0 and down > 0:
            ratio = (down / across).limit_denominator(1000)
            self.aspect = (ratio.numerator or 1, ratio.denominator)


def found_beside(image: ImageFile.ImageFile, file: BufferedReader) -> Beside:
    """Collect it; TooManyBytes if it is more than is kept. The file stays where it is."""
    found, position = Beside(), file.tell()
    if image.format == "PNG":
        _of_png(found, file)
    else:
        _of_others(found, image, file)
    file.seek(position)
    return found


def _of_others(found: Beside, image: ImageFile.ImageFile, file: BufferedReader) -> None:
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        _of_jpeg(found, image)
    elif isinstance(image, TiffImagePlugin.TiffImageFile):
        _of_tiff(found, image, file)
    elif isinstance(comment := image.info.get("comment"), bytes):
        _add_comment(found, comment)
    if image.format == "AVIF":
        _of_avif(found, file)
    found.add("icc", image.info.get("icc_profile"), media_type=_PROFILE)
    exif = image.info.get("exif")
    found.add("exif", re.sub(b"^(Exif\0\0)+", b"", exif) if isinstance(exif, bytes) else None, media_type=_EXIF)
    found.add("xmp", image.info.get("xmp"), media_type=_XMP)
    if image.format != "JPEG" or image.info.get("jfif_unit") in (1, 2):  # Pillow makes one up for a broken EXIF
        _add_density(found, image.info.get("dpi"))


def _add_density(found: Beside, density: Any) -> None:
    try:
        across, down = map(float, density)
    except (TypeError, ValueError, ArithmeticError):
        return  # none, or tags that make no sense
    found.set_density(across, down)


def _of_png(found: Beside, file: BufferedReader) -> None:
    for kind, content in media_png.ancillary_chunks(file):
        if kind == "pHYs" and len(content) == 9:
            across, down = int.from_bytes(content[:4]), int.from_bytes(content[4:8])
            if content[8] == 1:
                found.set_density(across * 0.0254, down * 0.0254)
            else:
                found.set_aspect(Fraction(across), Fraction(down))
        elif kind == "eXIf":
            found.add("exif", content, media_type=_EXIF)
        elif kind == "iCCP" and (profile := media_png.profile_of(content)):
            found.add("icc", profile[1], name=profile[0], media_type=_PROFILE)
        elif kind == "iTXt" and (xmp := media_png.xmp_of(content)):
            found.add("xmp", xmp, media_type=_XMP)
        elif kind not in ("tRNS", *_ANIMATION):
            _add_chunk(found, kind, content)


def _add_chunk(found: Beside, kind: str, content: bytes) -> None:
    text = media_png.text_of(kind, content) if kind in media_png.TEXT else None
    if text and found.add_text(*text):
        return
    if kind not in media_png.TEXT and len(content) <= SMALL and len(found.small) < MAX_TEXTS - 1:
        found.small.append((f"png:{kind}", content.hex()))
    else:
        found.add("chunk", content, name=kind, media_type="image/png")


def _of_jpeg(found: Beside, image: JpegImagePlugin.JpegImageFile) -> None:
    known = (*_SEEN_BY_PILLOW, *([b"ICC_PROFILE\0"] if image.info.get("icc_profile") else []))
    for name, segment in image.applist:
        if name == "COM":
            _add_comment(found, segment)
        elif not segment.startswith(known):
            found.add("segment", segment, name=name, media_type="image/jpeg")
    if image.info.get("jfif_unit") == 0:
        found.set_aspect(*map(Fraction, image.info["jfif_density"]))


def _add_comment(found: Beside, comment: bytes) -> None:
    try:
        text = comment.decode()
    except UnicodeDecodeError:
        text = comment.decode("latin-1")
    if "\0" in text or not found.add_text(COMMENT, text):
        found.add("segment", comment, name="COM", media_type="image/jpeg")


def _of_tiff(found: Beside, image: TiffImagePlugin.TiffImageFile, file: BufferedReader) -> None:
    exif, large = tags_as_exif(file, resolution="dpi" not in image.info, max_bytes=MAX_BYTES)
    found.add("exif", exif, media_type=_EXIF)
    for tag, data in large.items():
        found.add("tag", data, name=str(tag), media_type="image/tiff")


def _of_avif(found: Beside, file: BufferedReader) -> None:
    """Read the first ColourInformationBox with code points (ISO/IEC 14496-12, section 12.1.5)."""
    file.seek(0)
    box = file.read(65_536).partition(b"colrnclx")[2][:7]
    if len(box) == 7:
        primaries, transfer, matrix, full = struct.unpack(">HHHB", box)
        if max(primaries, transfer, matrix) <= 255:
            found.color = ColorTags(
                primaries=primaries, transfer=transfer, matrix=matrix, range=2 if full & 0x80 else 1
            )
