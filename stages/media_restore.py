"""A decoded picture as a PNG with all that its original held beside the pixels, as far as PNG has a place for it."""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from framefold.codecs.carried import AttachmentRef, Carried
from framefold.codecs.clip import Source
from framefold.stages import media_alpha, media_png
from framefold.stages.media_png import Chunk
from framefold.stages.media_spool import Rest

NOT_IN_PNG = frozenset(("segment", "tag", "original"))
"""Kinds of attachments that a PNG has no place for, or that are no part of the picture."""

_PROFILES = (b"RGB ", b"GRAY")
"""How a colour profile says what it is for (ICC.1:2022, section 7.2.6): RGB, grey."""
_INCH = 0.0254
_DENSITY = re.compile(r"([0-9.e+-]{1,32}) x ([0-9.e+-]{1,32})")
_UNSPECIFIED = 2
_MAX_UINT32 = 2**32 - 1
_REPEATABLE = (*media_png.TEXT, "sPLT")


@dataclass
class Missing:
    """What a file was written without."""

    lost: list[str] = field(default_factory=list)
    """What should be there and is not, with the reason."""
    without_place: list[str] = field(default_factory=list)
    """What PNG cannot hold: `segment APP13`."""


def write_whole(draft: Path, source: Source, rest: Rest, target: Path) -> Missing:
    """Make `target` of a PNG of the bare pixels, which is gone afterwards; say what had to be left out."""
    missing = Missing()
    has_alpha = _put_alpha(draft, source, rest, missing)
    channels = source.pixels.channels + has_alpha
    chunks = list(_fitting(_chunks(source, rest, missing), missing, channels=channels))
    if not chunks:
        draft.rename(target)
        return missing
    with target.open("xb") as file:
        media_png.insert(chunks, draft, file)
    if _is_readable(target):
        draft.unlink()
    else:  # an archive may hold what no reader of PNGs takes
        draft.replace(target)
        missing.lost.append("metadata: with it, the file could not be read")
    return missing


def _put_alpha(draft: Path, source: Source, rest: Rest, missing: Missing) -> bool:
    refs = (ref for ref in source.carried.attachments if ref.kind == media_alpha.KIND)
    ref = next(refs, None)
    alpha = _fetched(ref, rest, missing) if ref else None
    if alpha is None:
        return False
    with Image.open(draft, formats=["PNG"]) as rgb:
        rgb.load()
        try:
            whole = media_alpha.with_alpha(rgb, alpha)
        except media_alpha.Unusable as error:
            missing.lost.append(f"{media_alpha.KIND}: {error}")
            return False
    whole.save(draft, "PNG")
    return True


def _fetched(ref: AttachmentRef, rest: Rest, missing: Missing) -> bytes | None:
    data = rest.attachment(ref.sha256)
    if data is None:
        missing.lost.append(f"{_called(ref)}: attachment {ref.sha256[:8]} did not come")
    return data


def _called(ref: AttachmentRef) -> str:
    return f"{ref.kind} {ref.name}" if ref.kind in ("chunk", *NOT_IN_PNG) and ref.name else ref.kind


def _fitting(chunks: Iterable[Chunk], missing: Missing, *, channels: int) -> Iterator[Chunk]:
    """Those that may stand in the file, most of them once."""
    seen: set[str] = set()
    for kind, content in chunks:
        if not media_png.may_stay(kind, content, channels=channels):
            missing.without_place.append(f"chunk {kind}")
        elif kind not in seen:
            seen |= {kind} - {*_REPEATABLE}
            yield kind, content


def _chunks(source: Source, rest: Rest, missing: Missing) -> Iterator[Chunk]:
    carried = source.carried
    found = [*_small(carried), *_attached(source, rest, missing), *_texts(carried, missing)]
    yield from found
    yield from _density(carried)
    if not {"iCCP", "sRGB"} & {kind for kind, _ in found}:  # they say more, and of the original's own mind
        yield from _code_points(source)


def _small(carried: Carried) -> Iterator[Chunk]:
    for name, value in carried.track_metadata:
        prefix, _, kind = name.partition(":")
        if prefix == "png" and re.fullmatch("([0-9a-f]{2})*", value):
            yield kind, bytes.fromhex(value)


def _attached(source: Source, rest: Rest, missing: Missing) -> Iterator[Chunk]:
    for ref in source.carried.attachments:
        if ref.kind in NOT_IN_PNG - {"original"}:
            missing.without_place.append(_called(ref))
        if ref.kind in (media_alpha.KIND, *NOT_IN_PNG):
            continue
        data = _fetched(ref, rest, missing)
        if data is not None:
            yield from _chunk(ref, data, missing, _PROFILES[source.pixels.model == "gray"])


def _chunk(ref: AttachmentRef, data: bytes, missing: Missing, profile: bytes) -> Iterator[Chunk]:
    """`profile`: which colours a profile must be for."""
    if ref.kind == "exif":
        yield "eXIf", data
    elif ref.kind == "xmp":
        yield media_png.international_chunk(media_png.XMP_KEYWORD, data)
    elif ref.kind == "chunk":
        yield ref.name, data
    elif ref.kind == "icc" and data[16:20] == profile and len(data) <= media_png.MAX_INFLATED:
        yield media_png.profile_chunk(ref.name, data)
    else:  # a profile that is for other colours, or larger than readers of PNGs take; something of a later version
        missing.without_place.append(_called(ref))


def _texts(carried: Carried, missing: Missing) -> Iterator[Chunk]:
    for keyword, text in carried.metadata:
        if media_png.is_keyword(keyword) and "\0" not in text:
            yield media_png.text_chunk(keyword, text)
        else:
            missing.without_place.append(f"text {keyword!r}")


def _density(carried: Carried) -> Iterator[Chunk]:
    """Resolution in pixels per metre, or else the shape of a pixel."""
    match = _DENSITY.fullmatch(dict(carried.track_metadata).get("dpi", ""))
    across, down = (_per_metre(text) for text in match.groups()) if match else (0, 0)
    width, height = carried.pixel.aspect
    if across and down:
        yield "pHYs", struct.pack(">IIB", across, down, 1)
    elif width != height and max(width, height) <= _MAX_UINT32:
        yield "pHYs", struct.pack(">IIB", height, width, 0)


def _per_metre(text: str) -> int:
    """0 for what is no number, or too large."""
    try:
        value = float(text) / _INCH
    except ValueError:
        return 0
    return int(value + 0.5) if 0 < value < _MAX_UINT32 else 0


def _code_points(source: Source) -> Iterator[Chunk]:
    color = source.color
    if (color.primaries, color.transfer) != (_UNSPECIFIED, _UNSPECIFIED):
        yield "cICP", bytes((color.primaries, color.transfer, 0, 1))  # RGB, full range: that of the PNG


def _is_readable(png: Path) -> bool:
    try:
        with warnings.catch_warnings(), Image.open(png, formats=["PNG"]) as image:
            warnings.simplefilter("ignore")
            image.verify()
    except Exception:  # Pillow's readers raise whatever comes up in them, and others may stumble too
        return False
    return True
