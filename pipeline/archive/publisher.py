"""From finished shards to committed ones: a name that must not exist, then a commit that lists it, then all else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from framefold.pipeline.archive.chain import Chain
from framefold.pipeline.archive.commits import Commit, ShardRecord
from framefold.pipeline.archive.disk import Disk
from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.growing import GrowingShard
from framefold.pipeline.archive.layout import COMMITS, README, README_TEXT, SHARDS, shard_name
from framefold.pipeline.archive.receipts import Receipts
from framefold.pipeline.archive.shards import ShardFile
from framefold.pipeline.archive.stores import LocalStore, Store, probe


class Publisher:
    """An archive in the folder form as one of its writers sees it: commits, keys, and shards on their way there."""

    def __init__(self, store: Store, spool: Path, disk: Disk, archive_id: bytes | None) -> None:
        """Make the archive, unless it is there; `archive_id` is random if it is not given."""
        self._store, self._spool, self._disk = store, spool, disk
        self._chain, self.receipts = Chain(store), Receipts(store)
        self._finished: list[GrowingShard] = []
        self._begin(archive_id)
        self.receipts.load(self.newest.shards)

    @property
    def newest(self) -> Commit:
        """The newest commit that this writer knows of."""
        if self._chain.newest is None:
            raise AssertionError("an archive is begun before it is used")
        return self._chain.newest

    @property
    def waiting(self) -> Sequence[GrowingShard]:
        """Finished shards that no commit lists yet."""
        return self._finished

    def begin_shard(self) -> GrowingShard:
        """A new shard, empty."""
        return GrowingShard(self._spool, self.newest.archive_id, self._disk)

    def take(self, shard: GrowingShard) -> None:
        """Take over a finished shard."""
        self._finished.append(shard)

    def publish(self) -> None:
        """Commit all finished shards. If it fails, those that are left wait for the next time."""
        for shard in tuple(self._finished):
            record = shard.record
            waiting = LocalStore(self._spool).open(shard.path.name)
            self.receipts.take(record.sha256, waiting, shard.label)
            self._store.create(shard_name(record.sha256), shard.path)
            stored = ShardFile(self._store, record)
            stored.check()
            self._chain.append(partial(_with, record))
            self.receipts.take(record.sha256, stored, shard.label)
            self._finished.remove(shard)
            shard.discard()

    def leave(self) -> None:
        """Let go of finished shards where they lie."""
        for shard in self._finished:
            shard.leave()

    def _begin(self, archive_id: bytes | None) -> None:
        """If several writers begin the archive at once, the first commit decides what its id is."""
        self._have_folders()
        if self._chain.refresh() is None and self._chain.broken is None:
            probe(self._store)
            self._store.create(README, README_TEXT)
            self._chain.begin(archive_id or os.urandom(16))
        self._chain.check_end()
        if archive_id not in {None, self.newest.archive_id}:
            message = f"archive {self.newest.archive_id.hex()} is there; another id was given"
            raise ArchiveError(Code.RECORD, message, archive=self._store.url)

    def _have_folders(self) -> None:
        try:
            if isinstance(self._store, LocalStore):
                self._check_free(self._store)
                for name in (SHARDS, COMMITS):
                    self._store.have_folder(self._store.root / name)
                self._store.have_folder(self._spool)
            else:
                LocalStore(self._spool, disk=self._disk).have_folder(self._spool)
        except (OSError, ValueError) as error:
            raise ArchiveError(Code.IO, f"cannot begin the archive: {error}", archive=self._store.url) from error

    def _check_free(self, store: LocalStore) -> None:
        """Refuse a folder that holds other things and no archive: it was given by mistake."""
        names = {path.name for path in store.root.iterdir()} if store.root.is_dir() else set[str]()
        if names and not names & {"data", "open"}:
            message = f"a folder that holds {sorted(names)[0]!r}, and no archive; name a new or an empty one"
            raise ArchiveError(Code.NOT_AN_ARCHIVE, message, archive=store.url)


def _with(record: ShardRecord, commit: Commit) -> Commit:
    if any(shard.sha256 == record.sha256 for shard in commit.shards):
        return commit
    return replace(commit, shards=(*commit.shards, record))
