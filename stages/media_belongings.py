"""What belongs to a video beside its pictures: described for `Source.carried`, with the bytes that it names.

Bytes lie in memory here, held to MAX_ATTACHED_BYTES, for FFmpeg has read them anyway. Packets do not.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from io import BufferedReader, BytesIO
from typing import Any, cast

from av.container import InputContainer
from pydantic import ValidationError

from framefold.codecs.carried import AttachmentRef, Carried, PixelTags
from framefold.codecs.rest import Attachment
from framefold.pipeline.errors import RefusedInput
from framefold.stages.media_look import FirstLook
from framefold.stages.media_origin import modified
from framefold.stages.media_originals import attached, pieces_of
from framefold.stages.media_probe import MEDIA_ERRORS, open_media, picture_track
from framefold.stages.media_tags import TagKeeper, chapters_of
from framefold.stages.media_tracks import codec_name, copied_streams, is_cover, track_of

MAX_ATTACHED_BYTES = 2**28
"""Fonts, cover pictures and codec headers of one file together."""

_FONTS = (".ttf", ".otf", ".ttc", ".woff", ".woff2", ".pfb")
_PICTURES = {"mjpeg": "image/jpeg", "png": "image/png", "bmp": "image/bmp", "gif": "image/gif", "webp": "image/webp"}
_log = logging.getLogger(__name__)


@dataclass
class Belongings:
    """A file's description, and the attachments that it names."""

    carried: Carried = field(default_factory=Carried)
    attachments: dict[str, bytes] = field(default_factory=dict)
    """By SHA-256."""
    refs: list[AttachmentRef] = field(default_factory=list)

    def attach(self, data: bytes, kind: str, *, name: str = "", media_type: str = "") -> str:
        """Take an attachment and return its SHA-256; RefusedInput if all of them are too large."""
        ref = attached(data, kind, name=name, media_type=media_type)
        if ref not in self.refs:
            self.refs.append(ref)
        self.attachments[ref.sha256] = data
        if sum(map(len, self.attachments.values())) > MAX_ATTACHED_BYTES:
            raise RefusedInput(f"attachments of more than {MAX_ATTACHED_BYTES} bytes (MAX_ATTACHED_BYTES)")
        return ref.sha256

    def see(self, look: FirstLook) -> None:
        """Add what the first decoded frame shows."""
        for name, data in look.side_data:
            self.attach(data, "side_data", name=name)
        update = {
            "format": look.format,
            "bits": look.bits,
            "chroma_location": look.chroma_location,
            "display_matrix": look.display_matrix,
        }
        pixel = self.carried.pixel.model_copy(update=update)
        self.carried = self.carried.model_copy(update={"pixel": pixel, "attachments": tuple(self.refs)})

    def pieces(self) -> Iterator[Attachment]:
        """Yield the attachments as they travel."""
        for sha256, data in self.attachments.items():
            yield from pieces_of(BytesIO(data), sha256, len(data))


def belongings(file: BufferedReader, packets: Mapping[int, int], picture_bytes: int = 0) -> Belongings:
    """Describe an open file, whose packets were counted, but for what only a decoded frame shows.

    RefusedInput says what is too much, or in a way that cannot be described.
    """
    found, tags = Belongings(), TagKeeper()
    with open_media(file) as container:
        try:
            found.carried = _carried(container, packets, tags, found)
        except ValidationError as error:
            first = error.errors()[0]
            raise RefusedInput(f"its {'.'.join(map(str, first['loc']))} cannot be described: {first['msg']}") from error
        except MEDIA_ERRORS as error:
            raise RefusedInput(f"its description cannot be read: {error}") from error
    elsewhere = tags.elsewhere()
    if elsewhere:
        found.attach(elsewhere, "metadata", name="metadata.json", media_type="application/json")
    update = {"attachments": tuple(found.refs), "codec_bytes": picture_bytes, "modified": modified(file)}
    found.carried = found.carried.model_copy(update=update)
    return found


def _carried(container: InputContainer, packets: Mapping[int, int], tags: TagKeeper, found: Belongings) -> Carried:
    pictures = picture_track(container)
    _take_files(container, tags, found)

    def header(data: bytes, place: str) -> str:
        return found.attach(data, "extradata", name=place)

    return Carried(
        container=container.format.name,
        codec=codec_name(pictures),
        pixel=PixelTags(aspect=_aspect(pictures), field_order=pictures.codec_context.field_order & 0xFF),
        metadata=tags.keep("file", container.metadata),
        track_metadata=tags.keep("pictures", pictures.metadata),
        disposition=int(pictures.disposition),
        tracks=tuple(track_of(each, packets.get(each.index, 0), tags, header) for each in copied_streams(container)),
        chapters=chapters_of(container.chapters(), tags),
    )


def _aspect(stream: Any) -> tuple[int, int]:
    aspect = stream.sample_aspect_ratio or Fraction(1)
    return (aspect.numerator, aspect.denominator) if aspect > 0 else (1, 1)


def _take_files(container: InputContainer, tags: TagKeeper, found: Belongings) -> None:
    """Attach fonts and whatever else a container brings, and the pictures that stand for it."""
    for stream in container.streams:
        if stream.type == "attachment":
            name, media_type = (tags.text("attachment", stream.metadata.get(key)) for key in ("filename", "mimetype"))
            found.attach(cast("Any", stream).data, _file_kind(name, media_type), name=name, media_type=media_type)
    covers = {stream.index for stream in container.streams.video if is_cover(stream)}
    for packet in container.demux() if covers else ():
        if packet.stream.index in covers and packet.size:
            covers.remove(packet.stream.index)
            _take_cover(packet, tags, found)
        elif packet.size:
            break  # covers come before everything else
    if covers:
        _log.warning("%d cover pictures cannot be read and are not kept", len(covers))


def _take_cover(packet: Any, tags: TagKeeper, found: Belongings) -> None:
    stream = packet.stream
    codec, metadata = codec_name(stream), stream.metadata
    name = tags.text("cover", metadata.get("filename") or metadata.get("title"))
    media_type = tags.text("cover", metadata.get("mimetype")) or _PICTURES.get(codec, f"image/{codec}")
    found.attach(bytes(packet), "cover", name=name, media_type=media_type)


def _file_kind(name: str, media_type: str) -> str:
    return "font" if "font" in media_type or name.lower().endswith(_FONTS) else "file"
