"""The stage `image_source`: picture files to batches of pictures."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from io import BufferedReader, BytesIO
from typing import Any, ClassVar, Literal

from pydantic import Field

from framefold.codecs.clip import Clip, ImageBatch
from framefold.codecs.rest import Attachment
from framefold.pipeline.errors import RefusedInput
from framefold.pipeline.stage import Emit, Options, Output, PortType, Refused, Stage
from framefold.stages.media_files import Identities, MediaFile, Paths, find_files, nothing_found, open_regular
from framefold.stages.media_origin import legible, with_legible_names
from framefold.stages.media_originals import pieces_of, rest
from framefold.stages.media_pictures import SUFFIXES, Picture, read_picture


class ImageSource(Stage):
    """Read picture files and hand them out in batches, as grey or RGB of 8 or (PNG) 16 bits.

    A file that is missing, damaged, no picture, or that these cannot hold exactly (alpha of 16 bits, CMYK, several
    pictures) is refused by name, and the next one is read. What a file holds beside it
    (alpha channel, colour profile, EXIF, XMP, …) goes out by the port `rest`.
    """

    class Config(Options):
        """Options of `image_source`."""

        path: Paths = Field(description="file, folder, glob, or a list of them; relative to the current directory")
        pixels: Literal["source", "rgb"] = Field(
            default="source",
            exclude_if=lambda pixels: pixels == "source",
            description="code grey pictures as such, or all as RGB",
        )
        batch_size: int = Field(default=1, ge=1, le=4096, description="pictures handed on together")
        keep_original: bool = Field(default=False, description="hand the whole files on too, as attachments")

    emits: ClassVar[Mapping[str, PortType]] = {"out": ImageBatch, "rest": Attachment}
    locators: ClassVar[frozenset[str]] = frozenset({"path", "batch_size", "keep_original", "pixels"})

    @classmethod
    def preflight(cls, config: Any) -> Sequence[tuple[str, str]]:
        """Say if there is nothing to read."""
        problem = nothing_found(config.path, SUFFIXES)
        return [("path", problem)] if problem else []

    def produce(self) -> Iterator[Output]:
        """Batches in the order of the files; the last one may be smaller. Attachments come before their picture."""
        identities, waiting, sent = Identities(), list[Clip](), set[str]()
        for media, name_bytes in with_legible_names(find_files(self.config.path, SUFFIXES)):
            try:
                picture = yield from self._read(media, name_bytes, sent)
                waiting.append(picture.clip)
            except RefusedInput as error:
                yield Refused(label=legible(str(media.path)), reason=str(error))
            if len(waiting) == self.config.batch_size:
                yield _batch(waiting, identities)
                waiting = []
        if waiting:
            yield _batch(waiting, identities)

    def _read(self, media: MediaFile, name_bytes: str | None, sent: set[str]) -> Generator[Output, None, Picture]:
        with open_regular(media) as file:
            picture = read_picture(
                file,
                media.name,
                name_bytes=name_bytes,
                keep_original=self.config.keep_original,
                as_rgb=self.config.pixels == "rgb",
            )
            yield from _attachments(picture, file, sent)
        return picture


def _attachments(picture: Picture, file: BufferedReader, sent: set[str]) -> Iterator[Emit]:
    """What the picture's source names and no source before it named."""
    for ref in picture.clip.span.source.carried.attachments:
        if ref.sha256 in sent:
            continue
        data = picture.attached.get(ref.sha256)
        for piece in pieces_of(file if data is None else BytesIO(data), ref.sha256, ref.size_bytes):
            yield rest(piece)
        sent.add(ref.sha256)


def _batch(pictures: list[Clip], identities: Identities) -> Emit:
    others = f" and {len(pictures) - 1} more" if len(pictures) > 1 else ""
    return Emit(
        ImageBatch(pictures=tuple(pictures)),
        identity="+".join(identities.of(picture.span) for picture in pictures),
        label=pictures[0].span.label + others,
    )
