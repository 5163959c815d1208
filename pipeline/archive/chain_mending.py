"""Mend the commits of a folder archive: damaged ones are set aside, and a new one lists what they listed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from framefold.pipeline.archive.chain import Chain
from framefold.pipeline.archive.commits import Commit, ShardRecord
from framefold.pipeline.archive.disk import DISK
from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.layout import COMMITS, SHARDS, commit_number, shard_name, shard_of
from framefold.pipeline.archive.newcomer import record_of
from framefold.pipeline.archive.shard_reader import ShardReader
from framefold.pipeline.archive.stores import LocalStore

SET_ASIDE = ".damaged"


@dataclass(frozen=True)
class Mended:
    """A chain that is whole, and what became of it."""

    chain: Chain
    set_aside: tuple[str, ...] = ()
    """Names that damaged commits, and those behind them, have now."""
    strays: tuple[str, ...] = ()
    """SHA-256 in the names of shards that no readable commit knows, and that are damaged."""


def mend_chain(store: LocalStore) -> Mended:
    """Make the chain of commits whole.

    The new commit lists the shards of the last whole commit, those that a damaged chain's later commits list, and
    whole shards of this archive that no readable commit knows.
    """
    chain = Chain(store)
    newest = chain.refresh()
    above = sorted(number for number in _numbers(store) if number > (newest.number if newest else 0))
    if newest is None and not above:
        raise ArchiveError(Code.NOT_AN_ARCHIVE, "there is no archive in the folder form", archive=store.url)
    if not above:
        return Mended(chain)
    later = list(_later(store, above, newest))
    archive_id = newest.archive_id if newest else _archive_id(store, later)
    found = _merged(store, archive_id, [*([newest] if newest else []), *later])
    known = {shard.sha256 for shard in found.shards} | {shard.sha256 for shard in found.retired}
    strays = tuple(sha256 for sha256 in _shards(store) if sha256 not in known)
    names = tuple(_set_aside(store, name) for name in _names(store, above))
    mended = Chain(store)
    mended.begin(archive_id)
    mended.append(lambda commit: replace(commit, shards=found.shards, retired=found.retired))
    return Mended(mended, names, strays)


def _shards(store: LocalStore) -> list[str]:
    """The SHA-256 in the names of all shards that lie there."""
    return sorted(sha256 for stored in store.list(SHARDS) if (sha256 := shard_of(stored.name)))


def _numbers(store: LocalStore) -> Iterator[int]:
    return (number for number in (commit_number(stored.name) for stored in store.list(COMMITS)) if number is not None)


def _names(store: LocalStore, numbers: list[int]) -> list[str]:
    return sorted(stored.name for stored in store.list(COMMITS) if commit_number(stored.name) in set(numbers))


def _later(store: LocalStore, above: list[int], newest: Commit | None) -> Iterator[Commit]:
    """Commits above the break that can be read and are of the same archive."""
    for name in _names(store, above):
        with suppress(ArchiveError):
            commit = Commit.unpack(store.path(name).read_bytes())
            if newest is None or commit.archive_id == newest.archive_id:
                yield commit


def _archive_id(store: LocalStore, later: list[Commit]) -> bytes:
    """The archive's, where its first commit is lost: a later commit's, or a shard's."""
    if later:
        return later[-1].archive_id
    for sha256 in _shards(store):
        with suppress(ArchiveError), ShardReader.open(store.path(shard_name(sha256))) as reader:
            return reader.header.archive_id
    raise ArchiveError(Code.LOST, "no commit and no shard is whole", archive=store.url)


def _merged(store: LocalStore, archive_id: bytes, commits: list[Commit]) -> Commit:
    """A commit of all shards that these list and that stand here; what any of them retired stays retired."""
    retired = {gone.sha256: gone for commit in commits for gone in commit.retired}
    shards = {shard.sha256: shard for commit in commits for shard in commit.shards}
    shards |= {record.sha256: record for record in _unlisted(store, archive_id, shards.keys() | retired.keys())}
    counted = tuple(shard for sha256, shard in shards.items() if sha256 not in retired)
    blank = Commit(number=1, parent=None, archive_id=archive_id, created="", generator="")
    return replace(blank, shards=counted, retired=tuple(retired.values()))


def _unlisted(store: LocalStore, archive_id: bytes, known: set[str]) -> Iterator[ShardRecord]:
    for sha256 in _shards(store):
        if sha256 in known:
            continue
        path = store.path(shard_name(sha256))
        with suppress(ArchiveError), ShardReader.open(path) as reader:
            record = record_of(path)
            if record.sha256 == sha256 and reader.header.archive_id == archive_id:
                yield record


def _set_aside(store: LocalStore, name: str) -> str:
    """Give a commit another name, which no reader takes for a commit's; that name."""
    path, count = store.path(name), 0
    while (other := path.with_name(f"{path.name}{SET_ASIDE}{count or ''}")).exists():
        count += 1
    try:
        DISK.replace(path, other)
        DISK.sync_folder(path.parent)
    except OSError as error:
        raise ArchiveError(Code.IO, f"cannot rename {name}: {error}", archive=store.url) from error
    return other.relative_to(store.root).as_posix()
