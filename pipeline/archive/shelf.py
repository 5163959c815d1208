"""The chunks of one open file, by number: opened through footer, index and, where there is one, the copy."""

from __future__ import annotations

from typing import Any

from framefold.pipeline.archive.chunks import read_chunk, read_file_header, read_footer, read_index
from framefold.pipeline.archive.contents import read_document
from framefold.pipeline.archive.copies import Copy
from framefold.pipeline.archive.documents import unpack_document
from framefold.pipeline.archive.errors import ArchiveError, Code, located
from framefold.pipeline.archive.files import Ahead, Readable
from framefold.pipeline.archive.limits import TAIL
from framefold.pipeline.archive.records import COPY, KNOWN, FileHeader, Footer, chunk_id, is_critical


class Shelf:
    """Payloads out of one file, each through every check.

    Opening reads the file's last 64 KiB and as much more as index and copy need: for most files that is one read. Files
    without a copy (small ones, and those of version 1.0) are read at their beginning too.
    """

    def __init__(self, file: Readable) -> None:
        self.file = file
        if file.size <= TAIL:
            read_file_header(file)  # in the tail already; "no archive at all" says more than "no footer"
        self.footer = _footer(file)
        if self.footer.index_offset < file.size - TAIL:
            # The copy before the index has 32 bytes for 80 of the index: with it, both are most often one read.
            start = self.footer.index_offset - self.footer.index_bytes // 2 - 4096
            self.file = file = Ahead.of(file, max(start, 0))
        self.index, self.tag = read_index(file, self.footer)
        with located(archive=file.path):
            self._check_kinds()
        self.copy = self._read_copy()
        self.header: FileHeader = self.copy.header if self.copy else read_file_header(file)
        if self.header.shard_tag != self.tag:
            raise ArchiveError(Code.DISAGREES, "the index belongs to another file than the header", archive=file.path)

    def payload(self, number: int) -> bytes:
        """The checked payload of a chunk."""
        return bytes(read_chunk(self.file, self.index[number], number, self.tag))

    def document(self, number: int) -> dict[str, Any]:
        """The JSON object in a chunk, from the copy if it is there."""
        if self.copy and number in self.copy.documents:
            with located(archive=self.file.path, chunk=self.index.id(number)):
                return unpack_document(self.copy.documents[number])
        return read_document(self.file, self.index[number], number, self.tag)

    def numbers(self, *kinds: bytes) -> list[int]:
        """Numbers of all chunks of these types, in file order."""
        if len(kinds) == 1:
            return self.index.numbers(kinds[0])
        return sorted(number for kind in kinds for number in self.index.numbers(kind))

    def number_of(self, name: str, *kinds: bytes) -> int:
        """The chunk of this name; F017 if there is none, or it is of another type."""
        digits = name[1:11]
        number = int(digits) if digits.isascii() and digits.isdigit() else -1
        if not 0 <= number < len(self.index) or self.index.id(number) != name:
            raise ArchiveError(Code.NO_SUCH, f"there is no chunk {name!r:.40}", archive=self.file.path)
        if self.index.kind(number) not in kinds:
            wanted = " or ".join(kind.decode() for kind in kinds)
            raise ArchiveError(Code.NO_SUCH, f"chunk {name} is no {wanted}", archive=self.file.path)
        return number

    def _check_kinds(self) -> None:
        for kind in self.index.kinds():
            if kind not in KNOWN and is_critical(kind):
                message = f"chunks of type {kind.decode()} are unknown"
                name = chunk_id(kind, self.index.numbers(kind)[0])
                raise ArchiveError(Code.UNKNOWN_CRITICAL, message, chunk=name)

    def _read_copy(self) -> Copy | None:
        for number in self.index.numbers(COPY):
            entry = self.index[number]
            with located(archive=self.file.path, chunk=self.index.id(number), offset=entry.offset):
                return Copy.unpack(self.payload(number), self.index, self.tag)
        return None


def _footer(file: Readable) -> Footer:
    try:
        return read_footer(file)
    except ArchiveError:
        read_file_header(file)
        raise
