"""Sources and codecs of a writer that fills several shards, each of which counts its own."""

from __future__ import annotations

from framefold.pipeline.archive.errors import ArchiveError, Code


class Numbered:
    """JSON documents by number, equal ones once."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._documents: list[bytes] = []

    def number(self, data: bytes) -> int:
        """The number of a document, from 0."""
        number = self._numbers.setdefault(data, len(self._documents))
        if number == len(self._documents):
            self._documents.append(data)
        return number

    def document(self, what: str, number: int) -> bytes:
        """The document with a number; `what` it is, for messages."""
        if not 0 <= number < len(self._documents):
            raise ArchiveError(Code.NO_SUCH, f"{what} {number} of {len(self._documents)}: add it before the unit")
        return self._documents[number]
