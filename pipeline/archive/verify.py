"""Check a whole file and name everything that is damaged, not only the first thing."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self, TypeVar

from framefold.pipeline.archive.chunks import (
    read_chunk,
    read_file_header,
    read_footer,
    read_index,
)
from framefold.pipeline.archive.contents import UnitRecord
from framefold.pipeline.archive.errors import REMEDY, ArchiveError, Code, located
from framefold.pipeline.archive.files import InputFile, Readable
from framefold.pipeline.archive.index import Index
from framefold.pipeline.archive.pack import split_packed_id
from framefold.pipeline.archive.records import INDEX, FileHeader, Footer, IndexEntry, chunk_id
from framefold.pipeline.archive.scan import Found, Gap, scan
from framefold.pipeline.archive.shard_reader import ShardReader

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong with an archive."""

    code: Code
    chunk: str | None
    """Id of the chunk; `?000005` if it is lost and its type with it; None for the file's own records."""
    offset: int | None
    """Where it begins in the file, bytes."""
    message: str

    @classmethod
    def of(cls, error: ArchiveError) -> Self:
        """Take over what an error says."""
        return cls(code=error.code, chunk=error.chunk, offset=error.offset, message=error.message)

    @property
    def remedy(self) -> str:
        """What to do next."""
        return REMEDY[self.code]

    def __str__(self) -> str:
        return str(ArchiveError(self.code, self.message, chunk=self.chunk, offset=self.offset))


def verify(path: str | os.PathLike[str], *, is_alone: bool = True) -> tuple[Finding, ...]:
    """List all findings, in file order where there is one; none means that every byte is as it was written.

    With a whole index each chunk is read where the index says. Without, the file is scanned, so that the
    damage is told apart from what is still whole. What units need must be in the file too, unless others may have
    it (`is_alone`). `ArchiveError` only if the file cannot be opened.
    """
    with InputFile.open(path) as file:
        return verify_file(file, is_alone=is_alone)


def verify_file(file: Readable, *, is_alone: bool = True) -> tuple[Finding, ...]:
    """The same of a file that is open, wherever it lies."""
    return _Verification(file, is_alone=is_alone).run()


def lacking(sha256: str, codec: str) -> Finding:
    """Units of a codec need an attachment that is not there."""
    message = f"its units need the attachment {sha256}, which is not here"
    return Finding(code=Code.MISSING, chunk=codec, offset=None, message=message)


class _Verification:
    def __init__(self, file: Readable, *, is_alone: bool) -> None:
        self.file, self.is_alone = file, is_alone
        self.findings: list[Finding] = []

    def run(self) -> tuple[Finding, ...]:
        header = self.attempt(lambda: read_file_header(self.file))
        index = self.attempt(lambda: read_index(self.file))
        if index is None:
            self.attempt(lambda: self.check_by_scan(header))
        else:
            self.check_by_index(index[0], header.shard_tag if header else index[1])
        if not self.findings:
            self.attempt(self.read_everything)
        return tuple(self.findings)

    def attempt(self, action: Callable[[], T]) -> T | None:
        try:
            return action()
        except ArchiveError as error:
            self.findings.append(Finding.of(error))
            return None

    def check_by_index(self, entries: Sequence[IndexEntry], tag: int) -> None:
        for number, entry in enumerate(entries):
            try:
                read_chunk(self.file, entry, number, tag)
            except ArchiveError as error:
                self.findings.append(Finding.of(error))

    def check_by_scan(self, header: FileHeader | None) -> None:
        footer = self.footer()
        end = footer.index_offset if footer else self.file.size
        found: dict[int, Found] = {}
        for piece in scan(self.file, end=end, shard_tag=header.shard_tag if header else None):
            if isinstance(piece, Gap):
                self.report_gap(piece)
                continue
            found.setdefault(piece.header.number, piece)
            if piece.error:
                self.findings.append(Finding.of(piece.error))
        self.report_lost(found, footer.entries if footer else max(found, default=-1) + 1)

    def footer(self) -> Footer | None:
        try:
            return read_footer(self.file)
        except ArchiveError:  # reported already: the index was looked for first
            return None

    def report_gap(self, gap: Gap) -> None:
        message = f"{gap.length} bytes belong to no whole chunk"
        self.findings.append(Finding(code=Code.FOREIGN_BYTES, chunk=None, offset=gap.offset, message=message))

    def report_lost(self, found: dict[int, Found], count: int) -> None:
        """Name the chunks not found among the `count` that must have existed."""
        entries = self.surviving_index(found)
        # A stranger's numbers may be huge, but no file holds more chunks than headers fit into it.
        for number in range(min(count, self.file.size // 64)):
            entry = entries[number] if number < len(entries) else None
            name = chunk_id(entry.kind, number) if entry else f"?{number:06d}"
            if number not in found:
                self.report(Code.CHUNK_HEADER, name, "the chunk is lost: no whole header carries its number")
            elif entry and found[number].error is None and found[number].sha256 != entry.sha256:
                self.report(Code.DIGEST, name, "the chunk's SHA-256 is not the one in the index")

    def report(self, code: Code, chunk: str, message: str) -> None:
        self.findings.append(Finding(code=code, chunk=chunk, offset=None, message=message))

    def surviving_index(self, found: dict[int, Found]) -> Sequence[IndexEntry]:
        """Return the entries of the index if the scan found it whole: the footer is lost, or bytes moved."""
        for piece in found.values():
            if piece.header.kind == INDEX and piece.error is None:
                try:
                    return Index(piece.index)
                except ArchiveError:
                    break
        return ()

    def read_everything(self) -> None:
        """Every byte is as it was written; ask whether a reader accepts what it means."""
        reader = ShardReader(self.file)
        self.check_keys(reader, [self.attempt(partial(reader.read_unit, unit.id)) for unit in reader.units])
        for unit in reader.units:
            self.attempt(partial(reader.quality, unit.id))
        for block in reader.packet_blocks:
            self.attempt(partial(reader.read_packets, block.id))
        for sha256 in reader.attachments:
            self.attempt(partial(deque, reader.attachment_pieces(sha256), 0))
        self.findings += map(Finding.of, (*reader.problems, *reader.attachment_damage))
        for name in reader.lone_pieces:
            self.report(Code.MISSING, name, "other pieces of this attachment are missing, or do not follow each other")
        if self.is_alone:
            needed = ((sha256, codec.id) for codec in reader.codecs for sha256 in codec.needs)
            self.findings += (lacking(sha256, codec) for sha256, codec in needed if sha256 not in reader.attachments)
        self.attempt(lambda: check_header(self.file, reader))

    def check_keys(self, reader: ShardReader, records: Sequence[UnitRecord | None]) -> None:
        """No key comes twice, and those in the copy are those of the units."""
        pairs = [(unit.id, record.key) for unit, record in zip(reader.units, records, strict=True) if record]
        for unit, key in pairs:
            if reader.keys.get(key, unit) != unit:
                self.report(Code.LAYOUT, unit, f"it has the key of {reader.keys[key]}")
        alone = tuple(key for unit, key in pairs if not split_packed_id(unit))
        if reader.copy and reader.copy.keys != alone:
            message = "the keys in the copy are not those of the units"
            self.findings.append(Finding(code=Code.COPY, chunk=None, offset=None, message=message))


def check_header(file: Readable, reader: ShardReader) -> None:
    """Hold the file header in a copy against the file's own."""
    with located(archive=file.path, offset=0):
        if reader.copy and read_file_header(file) != reader.copy.header:
            raise ArchiveError(Code.COPY, "the file header is not the one in the copy")
