"""The attachments of one file: which are whole, and their bytes piece by piece."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property

from framefold.pipeline.archive.attachments import AttachmentPiece
from framefold.pipeline.archive.errors import ArchiveError, Code, located
from framefold.pipeline.archive.records import ATTACHMENT, HEADER_BYTES
from framefold.pipeline.archive.shelf import Shelf


class Attached:
    """Attachments by their SHA-256. What each is to its source, the source's document says."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    @property
    def whole(self) -> Mapping[str, int]:
        """SHA-256 to length in bytes, of the attachments that have all their pieces."""
        return {sha256: total for sha256, (total, _) in self._pieces.items()}

    @property
    def chunks(self) -> Mapping[str, str]:
        """Id of every chunk to the SHA-256 that its head has: of the whole attachment, and unchecked."""
        return {self._shelf.index.id(number): self._head(number)[0] for number in self._shelf.numbers(ATTACHMENT)}

    def pieces(self, sha256: str) -> Iterator[bytes]:
        """Yield an attachment's bytes, a chunk at a time; at the end, F011 if its SHA-256 is another."""
        if sha256 not in self._pieces:
            raise ArchiveError(Code.NO_SUCH, f"there is no attachment {sha256!r:.70}", archive=self._shelf.file.path)
        found = hashlib.sha256()
        for number in self._pieces[sha256][1]:
            data = self._piece(number).data
            found.update(data)
            yield data
        if found.hexdigest() != sha256:
            message = f"the attachment's bytes have the SHA-256 {found.hexdigest()}, not {sha256}"
            raise ArchiveError(Code.DIGEST, message, archive=self._shelf.file.path)

    def _piece(self, number: int) -> AttachmentPiece:
        payload, entry = self._shelf.payload(number), self._shelf.index[number]
        with located(archive=self._shelf.file.path, chunk=self._shelf.index.id(number), offset=entry.offset):
            return AttachmentPiece.unpack(payload)

    @cached_property
    def incomplete(self) -> tuple[str, ...]:
        """Names of the chunks that are whole, and belong to no whole attachment: others are missing."""
        damaged = {error.chunk for error in self.damage}
        whole = {number for _, numbers in self._pieces.values() for number in numbers}
        names = (self._shelf.index.id(number) for number in self._shelf.numbers(ATTACHMENT) if number not in whole)
        return tuple(name for name in names if name not in damaged)

    @cached_property
    def damage(self) -> tuple[ArchiveError, ...]:
        """Why pieces that belong to no whole attachment are not what was written; none if some are just missing."""
        whole = {number for _, numbers in self._pieces.values() for number in numbers}
        found = []
        for number in self._shelf.numbers(ATTACHMENT):
            try:
                if number not in whole:
                    self._piece(number)
            except ArchiveError as error:
                found.append(error)
        return tuple(found)

    @cached_property
    def _pieces(self) -> dict[str, tuple[int, list[int]]]:
        """SHA-256 to length and chunk numbers in order; pieces that leave a gap are not taken."""
        # (SHA-256, length) to where the next piece begins, and those before it
        started: dict[tuple[str, int], tuple[int, list[int]]] = {}
        for number in self._shelf.numbers(ATTACHMENT):
            sha256, total, start, length = self._head(number)
            end, numbers = started.get((sha256, total), (0, []))
            if start == end and (length or not numbers):
                numbers.append(number)
                started[sha256, total] = (end + length, numbers)
        return {sha256: (total, numbers) for (sha256, total), (end, numbers) in started.items() if end == total}

    def _head(self, number: int) -> tuple[str, int, int, int]:
        entry = self._shelf.index[number]
        size = AttachmentPiece.HEAD.size
        # Only the head is read: it is used to find the pieces, each of which is then read and checked as a whole.
        head = self._shelf.file.read(entry.offset + HEADER_BYTES, min(size, entry.payload_bytes))
        if len(head) < size:
            return "", 0, 1, 0  # no piece of anything; `damage` says so
        return *AttachmentPiece.head(head), entry.payload_bytes - size
