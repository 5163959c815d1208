"""The payload of `copy`: what opening needs, once more at the file's end, each piece proven by the index."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

from framefold.pipeline.archive.chunks import header_of
from framefold.pipeline.archive.deflated import deflate, inflate_exactly
from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.index import Index
from framefold.pipeline.archive.records import CODEC, HEADER_BYTES, SOURCE, UNIT, FileHeader, IndexEntry, chunk_id

KEY_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class Copy:
    """The file header, the documents of sources and codecs, and the units' keys."""

    header: FileHeader
    documents: dict[int, bytes] = field(repr=False)
    """Chunk number to payload, of all `Srce` and `Cdec` chunks."""
    raw_keys: bytes = field(repr=False)
    """Of all `Unit` chunks, in file order: 32 bytes each."""

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The same in hex, 64 digits each."""
        return tuple(self.raw_keys[at : at + KEY_BYTES].hex() for at in range(0, len(self.raw_keys), KEY_BYTES))

    def pack(self) -> bytes:
        """Return the payload: one zlib stream."""
        return deflate(
            b"".join(
                (self.header.pack(), *(self.documents[number] for number in sorted(self.documents)), self.raw_keys)
            )
        )

    @classmethod
    def unpack(cls, payload: bytes, index: Index, shard_tag: int) -> Self:
        """Read a payload; each document is held against its entry's SHA-256."""
        numbers = copied(index)
        lengths = {number: index[number].payload_bytes for number in numbers}
        keys = len(index.numbers(UNIT))
        data = inflate_exactly(payload, HEADER_BYTES + sum(lengths.values()) + KEY_BYTES * keys)
        documents, at = {}, HEADER_BYTES
        for number, length in lengths.items():
            documents[number] = data[at : at + length]
            _check_proven(documents[number], index[number], number, shard_tag)
            at += length
        header = FileHeader.unpack(data[:HEADER_BYTES])
        return cls(header=header, documents=documents, raw_keys=data[at:])


def copied(index: Index) -> list[int]:
    """Numbers of the chunks that a copy repeats."""
    return sorted(index.numbers(SOURCE) + index.numbers(CODEC))


def _check_proven(payload: bytes, entry: IndexEntry, number: int, shard_tag: int) -> None:
    header = header_of(entry, number, shard_tag, payload)
    if hashlib.sha256(header.pack() + payload).digest() != entry.sha256:
        name = chunk_id(entry.kind, number)
        raise ArchiveError(Code.COPY, f"the copy of {name} is not what the index says of it", chunk=name)
