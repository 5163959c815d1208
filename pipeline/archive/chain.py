"""The commits of an archive: each names the SHA-256 of the one before, and is created only if its name is free."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from framefold.pipeline.archive.commits import Commit, generator, now
from framefold.pipeline.archive.errors import ArchiveError, Code, located
from framefold.pipeline.archive.layout import COMMITS, commit_name, commit_number
from framefold.pipeline.archive.limits import MAX_COMMITS, MAX_JSON
from framefold.pipeline.archive.stores import NotThere, Store

_AHEAD = 8
"""Commits that are asked for at once: a store's answer takes long, and there is one for each commit."""


class Chain:
    """The commits of an archive, as far as each is whole and names the one before it.

    What was read once is not read again: commits never change.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.newest: Commit | None = None
        """The highest whole commit, as of the last `refresh`; None if there is none."""
        self.broken: ArchiveError | None = None
        """What is wrong with the one after it, if there is one."""
        self._sha256: str | None = None

    def refresh(self) -> Commit | None:
        """Take in what was committed since; the newest commit."""
        for _ in self.advance():
            pass
        return self.newest

    def advance(self) -> Iterator[Commit]:
        """Take in one commit after the other, from the first that was not read yet."""
        self.broken, count = None, 1
        while True:
            for data in self._read_next(count):
                if isinstance(data, NotThere):
                    return
                try:
                    yield self._add(data)
                except ArchiveError as error:
                    if error.code not in {Code.COMMIT, Code.CHAIN}:  # it may be whole: an older one is not the newest
                        raise
                    self.broken = error
                    return
            count = min(2 * count, _AHEAD)

    def append(self, change: Callable[[Commit], Commit]) -> Commit:
        """Create the next commit: what `change` makes of the newest one, its number, parent, time and generator aside.

        If another writer is quicker, `change` is asked again about that one's commit; where it changes nothing, nothing
        is created. The archive must have its first commit.
        """
        while True:
            newest = self._whole_newest()
            changed = change(newest)
            if changed == newest or self._create(replace(changed, number=newest.number + 1)):
                return self._whole_newest()

    def begin(self, archive_id: bytes) -> Commit:
        """Create the first commit, of no shards, unless there is one; whichever came first."""
        if self.refresh() is None and self.broken is None:
            self._create(Commit(number=1, parent=None, archive_id=archive_id, created="", generator=""))
        return self._whole_newest()

    def check_end(self) -> None:
        """Refuse a chain above which other commits lie (F024): its next number would fork the archive's history."""
        listed = list(self._listed())
        self.refresh()
        last = self.newest.number if self.newest else 0
        above = [number for number in listed if number > last]
        if above:
            message = f"commit {max(above)} is there, and {last + 1} is not whole, on which it builds"
            raise self.broken or ArchiveError(Code.CHAIN, message, archive=self._store.url)

    def _listed(self) -> Iterator[int]:
        numbers = (commit_number(stored.name) for stored in self._store.list(COMMITS))
        return (number for number in numbers if number is not None)

    def _whole_newest(self) -> Commit:
        newest = self.refresh()
        if self.broken:
            raise self.broken
        if newest is None:
            raise ArchiveError(Code.CHAIN, "there is no first commit", archive=self._store.url)
        return newest

    def _create(self, commit: Commit) -> bool:
        """Create it; False if another one has its number. Who has is read back, for answers get lost on networks."""
        signed = replace(commit, parent=self._sha256, created=now(), generator=generator())
        data = signed.pack()
        Commit.unpack(data)
        if signed.number > MAX_COMMITS:
            message = f"{MAX_COMMITS} commits are allowed, and all are there"
            raise ArchiveError(Code.LIMIT, message, archive=self._store.url)
        self._store.create(signed.name, data)
        return any(taken == signed for taken in self.advance() if taken.number == signed.number)

    def _read_next(self, count: int) -> list[bytes | ArchiveError]:
        """The bytes of the next commits, or why they cannot be read."""
        first = self.newest.number + 1 if self.newest else 1
        if count == 1:
            return [self._read(first)]
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(self._read, range(first, first + count)))

    def _read(self, number: int) -> bytes | ArchiveError:
        name = commit_name(number)
        try:
            data, size = self._store.tail(name, MAX_JSON)
        except ArchiveError as error:
            return error
        if size > MAX_JSON:
            return ArchiveError(Code.COMMIT, f"{size} bytes; {MAX_JSON} are allowed", archive=self._path(number))
        return data

    def _add(self, data: bytes | ArchiveError) -> Commit:
        """Hold the next commit against the newest; it is the newest then."""
        if isinstance(data, ArchiveError):
            raise data
        number = self.newest.number + 1 if self.newest else 1
        with located(archive=self._path(number)):
            commit = Commit.unpack(data)
            here = (commit.number, commit.parent, commit.archive_id.hex())
            there = (number, self._sha256, (self.newest or commit).archive_id.hex())
            if here != there:
                message = f"number, parent and archive are {here}; {there} belong here"
                raise ArchiveError(Code.CHAIN, message)
        self.newest, self._sha256 = commit, hashlib.sha256(data).hexdigest()
        return commit

    def _path(self, number: int) -> str:
        return f"{self._store.url.rstrip('/')}/{commit_name(number)}"


def newest(store: Store) -> Commit | None:
    """Return the highest commit whose chain is whole; None if there is none."""
    return Chain(store).refresh()


def append(store: Store, change: Callable[[Commit], Commit]) -> Commit:
    """As `Chain.append`, where one change is all that is to be made."""
    chain = Chain(store)
    chain.refresh()
    chain.check_end()
    return chain.append(change)
