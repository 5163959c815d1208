"""What an original holds beside the pixels that are coded: described in `Source.carried`.

`Carried` is small and travels with every clip. The bytes that it names travel once (`codecs.rest`), from a source's
port `rest` into the archive. Attachments are named by their SHA-256, so equal ones are stored once.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

_TICK = 2**53 - 1
_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Text = Annotated[str, Field(max_length=4096)]
_Tags = Annotated[tuple[tuple[_Text, _Text], ...], Field(max_length=256)]
"""(name, value) pairs in the original's order."""
_Positive = Annotated[int, Field(ge=1, le=_TICK)]
_Rational = tuple[_Positive, _Positive]
_Int32 = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]


class AttachmentRef(BaseModel, frozen=True):
    """Bytes that belong to a source, by their SHA-256."""

    kind: str = Field(min_length=1, max_length=64)
    """`icc`, `exif`, `xmp`, `alpha` (a grey PNG of the straight alpha channel), `chunk` (name: type of a PNG chunk),
    `segment` (of a JPEG), `tag` (name: number of a TIFF tag), `file` and `font` (of a container), `cover`, `extradata`
    (of a track), `side_data` (name: FFmpeg's name of the type; its structure, little-endian), `metadata` (JSON of texts
    that are too long or too many for a document), `original` (the whole file)."""
    sha256: _Sha256
    size_bytes: int = Field(ge=0, le=2**40)
    name: _Text = ""
    media_type: _Text = ""


class Track(BaseModel, frozen=True):
    """One audio, subtitle or data track whose packets are copied as they are."""

    index: int = Field(ge=0, le=65_535)
    """Of the stream in the original container."""
    kind: Literal["audio", "subtitle", "data"]
    codec: str = Field(min_length=1, max_length=64)
    """FFmpeg's name, such as `aac`."""
    codec_tag: int = Field(default=0, ge=0, le=2**32 - 1)
    profile: _Text = ""
    time_base: _Rational
    """Seconds per tick of the packets' times."""
    extradata: _Sha256 | None = None
    """The attachment that the decoder needs first."""
    disposition: int = Field(default=0, ge=0, le=2**31 - 1)
    """FFmpeg's bits: 1 default, 2 dub, 64 forced, …"""
    metadata: _Tags = ()
    """`language`, `title`, …"""
    bit_rate: int = Field(default=0, ge=0, le=_TICK)
    sample_rate: int = Field(default=0, ge=0, le=2**31 - 1)
    sample_format: _Text = ""
    layout: _Text = ""
    """Channel layout, such as `stereo`."""
    channels: int = Field(default=0, ge=0, le=65_535)
    frame_size: int = Field(default=0, ge=0, le=2**31 - 1)
    """Samples per packet, where it is constant."""
    packets: int = Field(default=0, ge=0, le=2**31 - 1)
    """All of them, in all parts."""


class Chapter(BaseModel, frozen=True):
    """A named stretch of time."""

    start: int = Field(ge=-_TICK, le=_TICK)
    end: int = Field(ge=-_TICK, le=_TICK)
    time_base: _Rational
    metadata: _Tags = ()


class PixelTags(BaseModel, frozen=True):
    """How the original stores and shows its pixels; what is coded is in `Source.pixels`, as stored, not turned."""

    format: _Text = ""
    """FFmpeg's or, for pictures, Pillow's name: `yuv420p10le`, `RGBA`."""
    bits: int = Field(default=8, ge=1, le=64)
    """Of one sample."""
    aspect: _Rational = (1, 1)
    """Width of a pixel to its height, as shown."""
    chroma_location: int = Field(default=0, ge=0, le=255)
    """FFmpeg's code; 0 unspecified, 1 left, 2 centre, …"""
    field_order: int = Field(default=0, ge=0, le=255)
    """FFmpeg's code; 0 unknown, 1 progressive, …"""
    display_matrix: tuple[_Int32, ...] | None = Field(default=None, min_length=9, max_length=9)
    """ISO/IEC 14496-12, section 6.2.2: 16.16 fixed point, the third column 2.30; None: shown as stored."""


class Carried(BaseModel, frozen=True):
    """Everything of an original but its coded pixels; all of it may be absent."""

    modified: str | None = Field(default=None, pattern=r"^-?[0-9]{1,12}\.[0-9]{9}$")
    """Time of the last change, in seconds since 1970 UTC: text, for JSON's numbers are too coarse."""
    name_bytes: str | None = Field(default=None, pattern="^([0-9a-f]{2}){1,4096}$")
    """The file name in hex, where it is no valid UTF-8."""
    pixel: PixelTags = PixelTags()
    container: _Text = ""
    """FFmpeg's or Pillow's name of the file format."""
    codec: _Text = ""
    """How the original codes its pictures."""
    codec_bytes: int = Field(default=0, ge=0, le=_TICK)
    """Bytes of the original's coded pictures, its packets alone."""
    metadata: _Tags = ()
    """Of the container."""
    track_metadata: _Tags = ()
    """Of the picture track; of a picture `dpi`, and `png:gAMA` and the like in hex."""
    disposition: int = Field(default=0, ge=0, le=2**31 - 1)
    """Of the picture track."""
    tracks: tuple[Track, ...] = Field(default=(), max_length=256)
    chapters: tuple[Chapter, ...] = Field(default=(), max_length=65_536)
    attachments: tuple[AttachmentRef, ...] = Field(default=(), max_length=4096)
