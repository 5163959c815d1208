"""What a place must be able to do to hold an archive in the folder form."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.files import Readable
from framefold.pipeline.archive.layout import OPEN, PROBE
from framefold.pipeline.archive.limits import TAIL

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_RACERS = 4
"""Threads that try to create one name at once when a place is probed; one may win."""


class NotThere(ArchiveError):
    """Nothing has this name."""


@dataclass(frozen=True)
class Stored:
    """A file in a store."""

    name: str
    bytes: int
    modified_seconds: float
    """When it was last written, seconds since 1970."""


class Store(Protocol):
    """Named files that are written once. Names are relative, with `/` between their parts.

    Every method raises `NotThere` if there is no such name, and else an `ArchiveError` F018 if the system fails.
    Safe to share between threads.
    """

    @property
    def url(self) -> str:
        """Names the place in messages; opens it again."""

    def read(self, name: str, start: int, length: int) -> bytes:
        """Read exactly `length` bytes from `start`; F021 if they are not all there. One request."""

    def tail(self, name: str, length: int) -> tuple[bytes, int]:
        """Read the last `length` bytes, or all if there are fewer; them, and the size of the whole. One request."""

    def list(self, folder: str) -> Iterator[Stored]:
        """All files below a folder such as `data/shards/`, in any order; none if it is not there."""

    def create(self, name: str, data: bytes | Path) -> bool:
        """Create a file of these bytes, or of a local file's; False if the name was taken.

        There is one winner for each name, whoever else tries at the same time. The file appears whole or not
        at all, and when this returns, whatever it returns, what has the name survives a power cut.
        """

    def delete(self, name: str) -> None:
        """Remove a file; nothing happens if it is gone already."""

    def open(self, name: str) -> Readable:
        """Open a file to be read by offset."""


@dataclass(frozen=True)
class StoredFile:
    """A file in a store, its tail already read; every other read is one request. It holds nothing open."""

    store: Store = field(repr=False)
    name: str
    size: int
    tail: bytes = field(repr=False)

    @classmethod
    def of(cls, store: Store, name: str) -> StoredFile:
        """Read the tail."""
        tail, size = store.tail(name, TAIL)
        return cls(store, name, size, tail)

    @property
    def path(self) -> str:
        """Names it in messages."""
        return f"{self.store.url.rstrip('/')}/{self.name}"

    def read(self, offset: int, length: int) -> bytes:
        """Read exactly `length` bytes; the caller has checked `length` against its limit."""
        check_range(offset, length, self.size)
        start = offset - (self.size - len(self.tail))
        if start >= 0:
            return self.tail[start : start + length]
        return self.store.read(self.name, offset, length)

    def close(self) -> None:
        """Nothing is to be let go."""


def check_range(offset: int, length: int, size: int) -> None:
    """Refuse to read beyond the end of a file."""
    if offset + length > size:
        missing = offset + length - size
        raise ArchiveError(Code.CUT, f"{missing} of {length} bytes are missing: the file ends at {size}")


def check_name(name: str) -> str:
    """Return the name, if it leads nowhere but down and hides nothing."""
    if not _NAME.fullmatch(name):
        allowed = "parts of letters, digits, '.', '_' and '-' that do not begin with a dot, separated by '/'"
        raise ArchiveError(Code.RECORD, f"a stored file's name is {name[:200]!r}; allowed are {allowed}")
    return name


def probe(store: Store) -> None:
    """Try whether of several that create a name at once exactly one wins; F027 if not.

    Stores and network file systems have been seen that promise it and do not keep it.
    """
    name = f"{OPEN}{PROBE}{os.urandom(16).hex()}"
    claims = [f"racer {number}".encode() for number in range(_RACERS)]
    try:
        with ThreadPoolExecutor(_RACERS) as pool:
            won = list(pool.map(lambda claim: store.create(name, claim), claims))
        held = store.tail(name, 64)[0]
        is_exclusive = won.count(True) == 1 and held == claims[won.index(True)] and not store.create(name, b"late")
    finally:
        store.delete(name)
    if not is_exclusive:
        message = f"{won.count(True)} of {_RACERS} created the same new name, or its bytes were overwritten"
        raise ArchiveError(Code.NOT_EXCLUSIVE, message, archive=store.url)
