"""What an archive holds, as its readers see it: sources, codecs and units, checked against each other."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from framefold.pipeline.archive.chunks import read_chunk
from framefold.pipeline.archive.documents import Document, unpack_document
from framefold.pipeline.archive.errors import ArchiveError, Code, located
from framefold.pipeline.archive.files import Readable
from framefold.pipeline.archive.limits import MAX_FRAMES, MAX_JSON, MAX_NAME, MAX_PIXELS, MAX_SIDE, MAX_TICK
from framefold.pipeline.archive.needs import parted
from framefold.pipeline.archive.pack import PackedUnit
from framefold.pipeline.archive.records import UNIT, IndexEntry, chunk_id
from framefold.pipeline.archive.unit import UnitHead

_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|\+00:00)", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class SourceEntry:
    """One original file."""

    number: int
    """0, 1, 2, … among the sources: what a unit refers to."""
    id: str
    document: Document = field(repr=False)
    """As given to `add_source`; only the fields below are understood here."""
    name: str
    """File name, 1 to 1024 characters; folders before it are separated by `/` and lead nowhere upwards."""
    kind: str
    """`video` or `image`."""
    width: int
    height: int
    """Pixels, 1 to 32,768 and at most 2^28 together."""
    time_base: tuple[int, int]
    """Seconds per tick, as numerator and denominator, both at least 1."""
    is_lost: bool = False
    """Its description is damaged: nothing is known of it but its number."""

    @classmethod
    def of(cls, number: int, chunk: str, document: Document) -> Self:
        """Check the fields that the archive itself reads."""
        name, kind = _text(document, "name"), document.get("kind")
        if kind not in ("video", "image"):
            raise ArchiveError(Code.RECORD, f"source kind is {kind!r:.80}; video or image is needed")
        if set(name.split("/")) & {"", ".", ".."} or set(name) & {"\\", "\0"}:
            allowed = "a file name, or folders and a file name separated by single slashes"
            raise ArchiveError(Code.RECORD, f"source name is {name!r}; allowed is {allowed}, without . and ..")
        width, height = _number(document, "width", MAX_SIDE), _number(document, "height", MAX_SIDE)
        if width * height > MAX_PIXELS:
            raise ArchiveError(Code.LIMIT, f"a source of {width}x{height} pixels; {MAX_PIXELS} are allowed")
        return cls(
            number=number,
            id=chunk,
            document=document,
            name=name,
            kind=kind,
            width=width,
            height=height,
            time_base=_rational(document, "time_base"),
        )

    @classmethod
    def lost(cls, number: int, chunk: str) -> Self:
        """What stands for a source whose table is damaged; its name is that of its place."""
        return cls(
            number=number,
            id=chunk,
            document={},
            name=chunk,
            kind="image",
            width=1,
            height=1,
            time_base=(1, 1),
            is_lost=True,
        )


@dataclass(frozen=True, kw_only=True)
class CodecEntry:
    """One codec with its configuration, shared by the units that name it."""

    number: int
    id: str
    name: str
    """1 to 1024 characters; a key to look up, never a module to import."""
    config: Document = field(repr=False)
    needs: tuple[str, ...] = field(default=(), repr=False)
    """SHA-256 of the attachments without which its units cannot be decoded."""

    @classmethod
    def of(cls, number: int, chunk: str, document: Document) -> Self:
        """From `{"name": …, "config": {…}}`."""
        config = document.get("config")
        if document.keys() != {"name", "config"} or not isinstance(config, dict):
            got = sorted(document)[:8]
            raise ArchiveError(Code.RECORD, f"a codec has the fields {got}; name and config (an object) are needed")
        own, needs = parted(config)
        return cls(number=number, id=chunk, name=_text(document, "name"), config=own, needs=needs)


@dataclass(frozen=True, kw_only=True)
class UnitEntry:
    """One coded clip or picture, as the index describes it."""

    id: str
    source: int
    """Number of its source."""
    codec: int
    """Number of its codec."""
    first_frame: int
    frame_count: int
    t0: int
    """Earliest presentation time, ticks."""
    duration: int
    """Until the latest frame's disappearance, ticks."""
    payload_bytes: int
    """Head (52 bytes and 20 for each run of times) and the codec's own bytes; these alone for a packed unit."""
    disk_bytes: int
    """Header, payload and padding, its index entry takes 80 more; a packed unit has only its payload."""

    @classmethod
    def of(cls, entry: IndexEntry, number: int, *, sources: int, codecs: int) -> Self:
        """Check that an index entry's references exist among so many sources and codecs."""
        name = chunk_id(UNIT, number)
        if entry.stream >= sources or entry.codec >= codecs or not 1 <= entry.items <= MAX_FRAMES:
            got = f"source {entry.stream} of {sources}, codec {entry.codec} of {codecs}, {entry.items} frames"
            raise ArchiveError(Code.RECORD, f"a unit of {got}", chunk=name, offset=entry.offset)
        return cls(
            id=name,
            source=entry.stream,
            codec=entry.codec,
            first_frame=entry.first_item,
            frame_count=entry.items,
            t0=entry.t0,
            duration=entry.duration,
            payload_bytes=entry.payload_bytes,
            disk_bytes=entry.disk_bytes,
        )

    @classmethod
    def of_packed(cls, unit: PackedUnit, name: str, *, sources: int, codecs: int) -> Self:
        """The same for a row of a table."""
        head = unit.head
        if unit.source >= sources or head.codec >= codecs:
            got = f"source {unit.source} of {sources}, codec {head.codec} of {codecs}"
            raise ArchiveError(Code.RECORD, f"a unit of {got}", chunk=name)
        return cls(
            id=name,
            source=unit.source,
            codec=head.codec,
            first_frame=head.first_frame,
            frame_count=len(head.pts),
            t0=head.t0,
            duration=head.duration,
            payload_bytes=unit.payload_bytes,
            disk_bytes=unit.payload_bytes,
        )


@dataclass(frozen=True, kw_only=True)
class PacketEntry:
    """Copied packets of one track, as the index describes them."""

    id: str
    source: int
    """Number of its source."""
    track: int
    """Position in the list `tracks` of the source's document."""
    packets: int
    t0: int
    """Earliest time, in ticks of the track."""
    duration: int
    disk_bytes: int
    """Header, payload and padding."""


@dataclass(frozen=True, kw_only=True)
class UnitRecord:
    """All that a decoder needs of one unit, verified."""

    key: str
    """64 hex digits."""
    source_document: Document = field(repr=False)
    codec_name: str
    codec_config: Document = field(repr=False)
    first_frame: int
    pts: tuple[int, ...]
    """Presentation times, ticks."""
    duration_ticks: int
    """How long the last frame stands."""
    payload: bytes = field(repr=False)
    """The codec's own bytes."""
    needs: tuple[str, ...] = field(default=(), repr=False)
    """SHA-256 of the attachments without which these bytes cannot be decoded."""


def read_document(file: Readable, entry: IndexEntry, number: int, shard_tag: int) -> dict[str, Any]:
    """Return the JSON object in a chunk."""
    with located(archive=file.path, chunk=chunk_id(entry.kind, number), offset=entry.offset):
        if entry.payload_bytes > MAX_JSON:
            raise ArchiveError(Code.LIMIT, f"JSON of {entry.payload_bytes} bytes; {MAX_JSON} are allowed")
        return unpack_document(bytes(read_chunk(file, entry, number, shard_tag)))


def read_unit(
    file: Readable,
    entry: IndexEntry,
    number: int,
    shard_tag: int,
    *,
    source: Callable[[int], SourceEntry],
    codecs: Sequence[CodecEntry],
) -> UnitRecord:
    """Return a unit, its head held against the index."""
    payload = read_chunk(file, entry, number, shard_tag)
    with located(archive=file.path, chunk=chunk_id(UNIT, number), offset=entry.offset):
        head, start = UnitHead.unpack(payload)
        here = (head.codec, head.first_frame, len(head.pts), head.t0, head.duration)
        there = (entry.codec, entry.first_item, entry.items, entry.t0, entry.duration)
        if here != there:
            names = "codec, first frame, frames, t0, duration"
            raise ArchiveError(Code.DISAGREES, f"{names} are {here} in the unit and {there} in the index")
    return record_of(head, source(entry.stream), codecs[head.codec], bytes(payload[start:]))


def record_of(head: UnitHead, source: SourceEntry, codec: CodecEntry, payload: bytes) -> UnitRecord:
    """Put together what a decoder needs."""
    return UnitRecord(
        key=head.key,
        source_document=source.document,
        codec_name=codec.name,
        codec_config=codec.config,
        first_frame=head.first_frame,
        pts=head.pts,
        duration_ticks=head.duration_ticks,
        payload=payload,
        needs=codec.needs,
    )


def checked_manifest(manifest: Document) -> Document:
    """Return the manifest, if it says when (UTC) and by what the archive was made."""
    created, generator = manifest.get("created"), manifest.get("generator")
    if not isinstance(generator, str) or not generator:
        raise ArchiveError(Code.RECORD, f"manifest generator is {generator!r}; the writing program's name is needed")
    if not isinstance(created, str) or not _UTC.fullmatch(created):
        raise ArchiveError(Code.RECORD, f"manifest created is {created!r}; UTC such as 2026-01-31T12:00:00Z is needed")
    return manifest


def _text(document: Document, name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_NAME:
        got = repr(value)[:80]
        raise ArchiveError(Code.RECORD, f"{name} is {got}; a text of 1 to {MAX_NAME} characters is needed")
    return value


def _number(document: Document, name: str, high: int) -> int:
    value = document.get(name)
    if type(value) is not int or not 1 <= value <= high:
        raise ArchiveError(Code.RECORD, f"{name} is {value!r:.80}; an integer from 1 to {high} is needed")
    return value


def _rational(document: Document, name: str) -> tuple[int, int]:
    value = document.get(name)
    parts = value if isinstance(value, list | tuple) else ()
    if len(parts) != 2 or not all(type(part) is int and 1 <= part <= MAX_TICK for part in parts):
        raise ArchiveError(
            Code.RECORD, f"{name} is {value!r:.80}; [numerator, denominator] are needed, both 1 to {MAX_TICK}"
        )
    return (parts[0], parts[1])
