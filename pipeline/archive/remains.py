"""What is still whole of a damaged file: chunks found by a scan, held against the index if that is left."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any, TypeVar
from zlib import crc32

from framefold.pipeline.archive.attachments import AttachmentPiece
from framefold.pipeline.archive.chunks import read_file_header, read_footer, read_index
from framefold.pipeline.archive.copies import Copy
from framefold.pipeline.archive.deflated import inflate
from framefold.pipeline.archive.documents import unpack_document
from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.files import Readable
from framefold.pipeline.archive.index import Index
from framefold.pipeline.archive.limits import MAX_CHUNKS
from framefold.pipeline.archive.records import (
    ATTACHMENT,
    CODEC,
    COPY,
    HEADER_BYTES,
    INDEX,
    KNOWN,
    MANIFEST,
    SOURCE,
    TABLE,
    ChunkHeader,
    FileHeader,
    IndexEntry,
    is_critical,
)
from framefold.pipeline.archive.scan import Found, Gap, scan

T = TypeVar("T")

_COPY_RATIO, _MAX_COPY = 64, 64 * 2**20
"""Bytes to which a copy is inflated where no index says how many there are: times its own, and at most."""


@dataclass(frozen=True, kw_only=True)
class Spare:
    """Documents from the copy, by number of source and codec, whether their chunks are whole or not."""

    header: FileHeader | None = None
    sources: Mapping[int, bytes] = field(default_factory=dict)
    codecs: Mapping[int, bytes] = field(default_factory=dict)
    chunks: Mapping[int, tuple[bytes, int]] = field(default_factory=dict)
    """Chunk number to type and number of source or codec; empty if the index is lost."""
    keys: Sequence[str] = ()
    """Of all `Unit` chunks in file order, lost ones too; empty if the index is lost."""


class Remains:
    """The whole chunks of a file by number. A file that holds critical chunks of a later version is refused."""

    def __init__(self, file: Readable) -> None:
        self.file = file
        self._own_header = _or_none(lambda: read_file_header(file))
        self._footer = _or_none(lambda: read_footer(file))
        index, tag = _or_none(lambda: read_index(file)) or (None, None)
        self.tag = self._own_header.shard_tag if self._own_header else tag
        """Of this file's chunks; None if not even one was found."""
        self.index = index if tag == self.tag else None
        """Only if it is whole."""
        self.whole: dict[int, Found] = {}
        self.damaged: dict[int, ChunkHeader] = {}
        """Headers of chunks whose payload is not as it was."""
        for piece in self._pieces():
            self._note(piece)
        self.damaged = {number: header for number, header in self.damaged.items() if number not in self.whole}
        self._check_known()

    @cached_property
    def header(self) -> FileHeader | None:
        """The file's header, or its copy."""
        return self._own_header or self.spare.header

    @cached_property
    def count(self) -> int:
        """How many chunks there were before the index, as far as that can be told; never more than find room here."""
        return min(self._said_count, self.file.size // HEADER_BYTES)

    @property
    def _said_count(self) -> int:
        if self.index is not None:
            return len(self.index)
        if self._footer:
            return self._footer.entries
        indexes = [number for number, header in self._headers() if header.kind == INDEX]
        return min(indexes, default=max((number for number, _ in self._headers()), default=-1) + 1)

    @cached_property
    def is_cut(self) -> bool:
        """Whether nothing tells where the file ended."""
        ends = (header.kind in (MANIFEST, INDEX) for _, header in self._headers())
        return self.index is None and self._footer is None and not any(ends)

    def payload(self, number: int) -> bytes:
        """The payload of a whole chunk; F010 if the medium gives other bytes than before."""
        found = self.whole[number]
        data = self.file.read(found.offset + HEADER_BYTES, found.header.payload_bytes)
        if crc32(data) != found.header.payload_crc:
            message = "the medium gives other bytes each time it is read"
            raise ArchiveError(Code.PAYLOAD, message, archive=self.file.path, chunk=found.header.id)
        return data

    def of_kind(self, kind: bytes) -> list[int]:
        """Numbers of the whole chunks of a type, in file order."""
        return sorted(number for number, found in self.whole.items() if found.header.kind == kind)

    def entry(self, number: int) -> IndexEntry | None:
        """What the index says of a chunk, if it is left."""
        return self.index[number] if self.index is not None and number < len(self.index) else None

    def whole_attachments(self) -> dict[int, str]:
        """Chunk number to SHA-256 of all pieces of attachments that are there from beginning to end."""
        started: dict[tuple[str, int], tuple[int, list[int]]] = {}
        for number in self.of_kind(ATTACHMENT):
            with suppress(ArchiveError):
                piece = AttachmentPiece.unpack(self.payload(number))
                end, numbers = started.get((piece.sha256, piece.total_bytes), (0, []))
                if piece.start == end and (piece.data or not numbers):
                    numbers.append(number)
                    started[piece.sha256, piece.total_bytes] = (piece.end, numbers)
        whole = ((sha256, numbers) for (sha256, total), (end, numbers) in started.items() if end == total)
        return {number: sha256 for sha256, numbers in whole if self._has_sha256(numbers, sha256) for number in numbers}

    def _has_sha256(self, numbers: Sequence[int], sha256: str) -> bool:
        found = hashlib.sha256()
        for number in numbers:
            found.update(AttachmentPiece.unpack(self.payload(number)).data)
        return found.hexdigest() == sha256

    @cached_property
    def spare(self) -> Spare:
        """What the copy holds, if that is whole."""
        for number in self.of_kind(COPY):
            with suppress(ArchiveError):
                return self._spare(self.payload(number))
        return Spare()

    def _pieces(self) -> Iterator[Found]:
        tag = self.tag
        pieces = scan(self.file, end=self.file.size, shard_tag=tag)
        with suppress(ArchiveError):  # too much overlaps: what was found until then is whole all the same
            for count, piece in enumerate(pieces):
                if count > MAX_CHUNKS:
                    return
                if not isinstance(piece, Gap):
                    yield piece

    def _note(self, piece: Found) -> None:
        header = piece.header
        self.tag = header.shard_tag
        if header.kind == INDEX:
            self.damaged.setdefault(header.number, header)
            if self.index is None and piece.error is None:
                self.index = _or_none(lambda: Index(piece.index))
        elif piece.error is None and header.number not in self.whole:
            self.whole[header.number] = piece
        else:
            self.damaged.setdefault(header.number, header)

    def _check_known(self) -> None:
        if self.index is not None:
            self._drop_unproven(self.index)
        for found in self.whole.values():
            header = found.header
            if header.kind in KNOWN and header.version != 1:
                message = f"payload layout {header.version} of {header.kind.decode()} is unknown"
                raise ArchiveError(Code.UNSUPPORTED, message, archive=self.file.path, chunk=header.id)
            if header.kind not in KNOWN and is_critical(header.kind):
                message = f"chunks of type {header.kind.decode()} are unknown"
                raise ArchiveError(Code.UNKNOWN_CRITICAL, message, archive=self.file.path, chunk=header.id)

    def _drop_unproven(self, index: Index) -> None:
        """Take only what the index says, where there is one: a CRC-32 may fit by chance, or by somebody's will."""
        for number, found in list(self.whole.items()):
            if number >= len(index) or found.sha256 != index[number].sha256:
                self.damaged[number] = self.whole.pop(number).header

    def _headers(self) -> Iterator[tuple[int, ChunkHeader]]:
        yield from self.damaged.items()
        yield from ((number, found.header) for number, found in self.whole.items())

    def _spare(self, payload: bytes) -> Spare:
        if self.index is None or self.tag is None:
            return self._guessed(inflate(payload, min(_COPY_RATIO * len(payload), _MAX_COPY)))
        copy = Copy.unpack(payload, self.index, self.tag)
        chunks = {number: (self.index[number].kind, self.index[number].stream) for number in copy.documents}
        sources, codecs = (
            {stream: copy.documents[number] for number, (of, stream) in chunks.items() if of == kind}
            for kind in (SOURCE, CODEC)
        )
        return Spare(header=copy.header, sources=sources, codecs=codecs, chunks=chunks, keys=copy.keys)

    def _guessed(self, data: bytes) -> Spare:
        """Without the index no length is known: braces tell where documents end, and the whole ones must agree."""
        header = FileHeader.unpack(data[:HEADER_BYTES])
        documents = list(islice(_documents(data[HEADER_BYTES:].decode("latin-1")), self.count))
        codecs = [spelled for spelled, document in documents if document.keys() == {"name", "config"}]
        sources = [spelled for spelled, document in documents if document.keys() != {"name", "config"}]
        taken = {number for start, items in self._of_tables() for number in range(start, start + items)}
        free = (number for number in range(len(sources) + len(taken)) if number not in taken)
        guess = {SOURCE: dict(zip(free, sources, strict=False)), CODEC: dict(enumerate(codecs))}
        for kind, known in guess.items():
            for number in self.of_kind(kind):
                if known.get(self.whole[number].header.stream) != self.payload(number):
                    return Spare(header=header)
        return Spare(header=header, sources=guess[SOURCE], codecs=guess[CODEC])

    def _of_tables(self) -> Iterator[tuple[int, int]]:
        headers = (header for _, header in self._headers() if header.kind == TABLE)
        return ((header.stream, min(header.items, MAX_CHUNKS)) for header in headers)


def _documents(text: str) -> Iterator[tuple[bytes, dict[str, Any]]]:
    decoder, at = json.JSONDecoder(), 0
    while text[at : at + 1] == "{":
        try:
            _, end = decoder.raw_decode(text, at)
            spelled = text[at:end].encode("latin-1")
            yield spelled, unpack_document(spelled)
        except (ValueError, RecursionError, ArchiveError):  # the keys, which are no text, begin with a brace
            return
        at = end


def _or_none(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except ArchiveError:
        return None
