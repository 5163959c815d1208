"""Remove what belongs to no archive: shards that no commit lists, and files that dead writers left. Nothing else."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from framefold.pipeline.archive.chain import Chain
from framefold.pipeline.archive.disk import DISK, Disk
from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.layout import OPEN, OPEN_SUFFIX, PROBE, SHARDS, TEMPORARY_SUFFIX, shard_of
from framefold.pipeline.archive.lock import is_held
from framefold.pipeline.archive.shards import as_store, spool_of
from framefold.pipeline.archive.stores import LocalStore, Place, Store, Stored

_DAY_SECONDS = 86_400
_OURS = re.compile(f"[0-9a-f]{{32}}({re.escape(OPEN_SUFFIX)}|{re.escape(TEMPORARY_SUFFIX)})|{PROBE}[0-9a-f]{{32}}")
"""Names that writers give to files under `open/`; whatever else lies there was put there by somebody."""


@dataclass(frozen=True)
class Removed:
    """A file that was removed, or would have been."""

    name: str
    bytes: int


def collect(
    place: Place | Store,
    older_than_days: float,
    dry_run: bool = False,
    *,
    spool: Path | None = None,
    disk: Disk = DISK,
    clock: Callable[[], float] = time.time,
) -> list[Removed]:
    """Remove orphans that were not written for so many days (at least 1); what was removed.

    An orphan is a shard that no commit lists, not even an old one, or a writer's file under `open/` (or in `spool`, for
    an object store) whose lock nobody holds. *Why days?* A living writer's newest shard is an orphan too, for a moment,
    and not every file system has locks. With `dry_run` nothing is removed. If a commit is damaged, nothing is removed
    either (F023, F024): it might list what seems to be an orphan.
    """
    if not older_than_days >= 1:
        message = f"older_than_days is {older_than_days}; at least 1 is needed, or living writers lose their work"
        raise ArchiveError(Code.LIMIT, message)
    store, before = as_store(place, disk=disk), clock() - older_than_days * _DAY_SECONDS
    orphans = [_Orphan(store, stored.name, stored) for stored in _unlisted(store)]
    orphans += _left(store, spool or spool_of(store), disk)
    old = [orphan for orphan in orphans if orphan.stored.modified_seconds < before]
    if not dry_run:
        for orphan in old:
            orphan.store.delete(orphan.stored.name)
    return [Removed(orphan.name, orphan.stored.bytes) for orphan in old]


@dataclass(frozen=True)
class _Orphan:
    store: Store
    name: str
    """In the archive, or its path if it lies elsewhere."""
    stored: Stored


def _unlisted(store: Store) -> list[Stored]:
    shards = [stored for stored in store.list(SHARDS) if shard_of(stored.name)]  # first: what comes later stays
    listed = _listed(store)
    return [stored for stored in shards if shard_of(stored.name) not in listed]


def _listed(store: Store) -> set[str]:
    """SHA-256 of every shard that any commit lists."""
    chain = Chain(store)
    listed = set[str]()
    for commit in chain.advance():
        listed.update(shard.sha256 for shard in commit.shards)
        listed.update(shard.sha256 for shard in commit.retired)
    if chain.broken:
        raise chain.broken
    if chain.newest is None:
        message = "there is no commit, so it cannot be said what belongs to the archive"
        raise ArchiveError(Code.NOT_AN_ARCHIVE, message, archive=store.url)
    chain.check_end()
    return listed


def _left(store: Store, spool: Path, disk: Disk) -> list[_Orphan]:
    """Files of writers, in the archive and in the spool, that no living writer holds."""
    found = [_Orphan(store, stored.name, stored) for stored in _ours(store, OPEN)]
    if not isinstance(store, LocalStore) or spool != store.root / OPEN:
        home = LocalStore(spool.parent, disk=disk)
        found += [_Orphan(home, str(home.path(stored.name)), stored) for stored in _ours(home, spool.name)]
    return [orphan for orphan in found if not _is_held(orphan)]


def _is_held(orphan: _Orphan) -> bool:
    store = orphan.store
    return isinstance(store, LocalStore) and is_held(store.path(orphan.stored.name))


def _ours(store: Store, folder: str) -> Iterator[Stored]:
    return (stored for stored in store.list(folder) if _OURS.fullmatch(stored.name.rpartition("/")[2]))
