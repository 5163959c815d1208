"""Sources and codecs get new numbers where others are lost; most often they keep theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from framefold.pipeline.archive.errors import ArchiveError, Code


class Numbers:
    """Sources, or codecs: what the damaged file calls them, and what the new one does."""

    def __init__(self, what: str, spare: Mapping[int, bytes], put: Callable[[bytes], int]) -> None:
        """`spare` are documents that can be written when they are needed, and those below them before."""
        self._what, self._spare, self._put = what, dict(spare), put
        self._hidden: dict[int, bytes] = {}
        self.known: dict[int, int] = {}

    def take(self, number: int, payload: bytes) -> None:
        """Write a document that was found."""
        self.catch_up(number)
        self.known.setdefault(number, self._put(payload))

    def hide(self, documents: Mapping[int, bytes]) -> None:
        """Documents that are written only if something refers to them."""
        self._hidden.update(documents)

    def find(self, number: int) -> int:
        """The new number; F017 if the document is lost."""
        if number not in self.known:
            spare = self._spare.get(number, self._hidden.get(number))
            if spare is None:
                raise ArchiveError(Code.NO_SUCH, f"its {self._what} is lost")
            self.take(number, spare)
        return self.known[number]

    def catch_up(self, stop: int | None = None) -> None:
        """Write the spare documents below `stop`, so that others keep their numbers."""
        for number in sorted(self._spare.keys() - self.known.keys()):
            if stop is None or number < stop:
                with suppress(ArchiveError):
                    self.known[number] = self._put(self._spare[number])
