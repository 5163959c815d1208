"""The folder form to a reader: the newest whole commit and the shards that it lists."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from framefold.pipeline.archive.chain import Chain
from framefold.pipeline.archive.commits import Commit, ShardRecord
from framefold.pipeline.archive.disk import DISK, Disk
from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.files import Readable
from framefold.pipeline.archive.layout import OPEN, commit_name, shard_name
from framefold.pipeline.archive.limits import TAIL
from framefold.pipeline.archive.records import HEADER_BYTES
from framefold.pipeline.archive.stores import (
    LocalStore,
    NotThere,
    Place,
    Store,
    StoredFile,
    check_range,
    is_url,
    open_store,
)

_INDEX_SHA256 = slice(24, 56)
"""Where a footer has it."""


class ShardFile:
    """A shard as its commit describes it, opened by the first read.

    Its length and the SHA-256 of its index are then held against the commit; each of its chunks is held against the
    index by whoever reads it. Holds nothing open. Safe to share between threads.
    """

    def __init__(self, store: Store, record: ShardRecord) -> None:
        self._store, self.record = store, record
        self._file: StoredFile | None = None

    @property
    def path(self) -> str:
        """Names it in messages."""
        return f"{self._store.url.rstrip('/')}/{shard_name(self.record.sha256)}"

    @property
    def size(self) -> int:
        """Bytes, as the commit says."""
        return self.record.bytes

    def read(self, offset: int, length: int) -> bytes:
        """Read exactly `length` bytes; F025 if the shard is not there, F026 if it is another than the commit says."""
        check_range(offset, length, self.size)
        if self._file is None:
            self._file = self._opened()
        return self._file.read(offset, length)

    def check(self) -> None:
        """Read the end of it, and raise what `read` would."""
        self.read(self.size - HEADER_BYTES, HEADER_BYTES)

    def close(self) -> None:
        """Forget what was read."""
        self._file = None

    def _opened(self) -> StoredFile:
        name = shard_name(self.record.sha256)
        try:
            tail, size = self._store.tail(name, TAIL)
        except NotThere as error:
            raise ArchiveError(Code.SHARD_MISSING, "the shard is not there", archive=self.path) from error
        index_sha256 = tail[-HEADER_BYTES:][_INDEX_SHA256].hex()
        if (size, index_sha256) != (self.record.bytes, self.record.index_sha256):
            got = f"{size} bytes with index {index_sha256[:8]}"
            want = f"{self.record.bytes} with {self.record.index_sha256[:8]}"
            raise ArchiveError(Code.SHARD_DIGEST, f"a shard of {got}; its commit says {want}", archive=self.path)
        return StoredFile(self._store, name, size, tail)


@dataclass(frozen=True)
class Snapshot:
    """An archive in the folder form as of one commit."""

    commit: Commit
    """The highest whole one."""
    files: Sequence[tuple[str, Readable]]
    """SHA-256 and file of each shard that it lists, none of them read yet."""
    problem: ArchiveError | None
    """What is wrong with the commit after it, if there is one: newer shards may be missing here."""


def snapshot(place: Place | Store) -> Snapshot:
    """The archive as it is now; F002 if there is no commit, F023 or F024 if not even the first one is whole."""
    store = as_store(place)
    chain = Chain(store)
    commit = chain.refresh()
    if commit is None:
        message = f"there is no {commit_name(1)}, so this is no archive in the folder form"
        raise chain.broken or ArchiveError(Code.NOT_AN_ARCHIVE, message, archive=store.url)
    files = [(record.sha256, ShardFile(store, record)) for record in commit.shards]
    return Snapshot(commit, files, chain.broken)


def open_shards(place: Place | Store) -> tuple[Commit, list[tuple[str, Readable]]]:
    """Commit and files of `snapshot`."""
    now = snapshot(place)
    return now.commit, list(now.files)


def is_folder(place: Place) -> bool:
    """Whether an archive lies there in the folder form: a folder, an object store's prefix, or a URL that ends in `/`.

    A URL that ends in `.fold` names one file, unless there are commits below it.
    """
    text = os.fspath(place)
    if not is_url(text):
        return Path(text).is_dir()
    if text.endswith("/"):
        return True
    if text.startswith("file://"):
        return Path(open_store(text).url).is_dir()
    if text.startswith(("http://", "https://")):
        return False
    return not text.endswith(".fold") or _has(open_store(text), commit_name(1))


def as_store(place: Place | Store, *, disk: Disk = DISK) -> Store:
    """The store itself, or the one at a path or URL."""
    return open_store(place, disk=disk) if isinstance(place, str | os.PathLike) else place


def spool_of(store: Store) -> Path:
    """Where a writer keeps its open shards: in a local archive itself, for a store in the user's cache folder."""
    if isinstance(store, LocalStore):
        return store.root / OPEN
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "framefold" / "open" / hashlib.sha256(store.url.encode()).hexdigest()[:16]


def _has(store: Store, name: str) -> bool:
    try:
        store.tail(name, 1)
    except NotThere:
        return False
    return True
