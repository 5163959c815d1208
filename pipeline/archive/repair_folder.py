"""Repair a folder archive: every shard that is damaged, what dead writers left, and the chain of commits itself.

Nothing is deleted. A shard that parity heals is again the file that it was, under its name; for one that can only be
rebuilt, a new shard and a new commit come, and the damaged one is retired.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from framefold.pipeline.archive import parity
from framefold.pipeline.archive.chain_mending import mend_chain
from framefold.pipeline.archive.chunks import read_file_header
from framefold.pipeline.archive.commits import Commit, Retired, ShardRecord
from framefold.pipeline.archive.disk import DISK
from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.files import InputFile
from framefold.pipeline.archive.fresh import Fresh, scratch_file
from framefold.pipeline.archive.layout import OPEN, OPEN_SUFFIX, shard_name
from framefold.pipeline.archive.lock import is_held
from framefold.pipeline.archive.losses import Loss
from framefold.pipeline.archive.newcomer import content_of, record_of
from framefold.pipeline.archive.repair import HEALED, REBUILT, WHOLE, check, mended, rebuild
from framefold.pipeline.archive.stores import LocalStore

MISSING, ADOPTED = "missing", "adopted"


@dataclass(frozen=True, kw_only=True)
class ShardRepair:
    """What became of one shard."""

    sha256: str
    """Its name; of an open file, the name that it has there."""
    state: str
    """`whole`, `healed`, `rebuilt`, `missing` (gone, or not one chunk is whole), or `adopted` from a dead writer."""
    new: ShardRecord | None = None
    """The shard that takes its place."""
    healed_bytes: int = 0
    losses: tuple[Loss, ...] = field(default=(), repr=False)


@dataclass(frozen=True, kw_only=True)
class FolderRepair:
    """What became of an archive."""

    commit: int
    """Number of the newest commit."""
    shards: tuple[ShardRepair, ...]
    set_aside: tuple[str, ...]
    """Names that damaged commits have now."""
    losses: tuple[Loss, ...]
    """Of all shards, without the units that another shard has too."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing was wrong."""
        return not self.set_aside and all(shard.state == WHOLE for shard in self.shards)


def repair_folder(folder: Path) -> FolderRepair:
    """Repair what can be repaired, and commit it; living writers are not disturbed.

    May be repeated: what was done is not done again. `ArchiveError` if there is no archive, or the system fails.
    """
    store = LocalStore(folder)
    mended_chain = mend_chain(store)
    chain = mended_chain.chain
    store.have_folder(folder / OPEN)
    newest = chain.refresh()
    mending = _Mending(store, newest.archive_id if newest else b"")
    shards = [mending.repair(record) for record in (newest.shards if newest else ())]
    mending.hold(shards, is_asked=bool(mended_chain.strays))
    shards += mending.recovered(mended_chain.strays)
    shards += mending.adopted()
    commit = chain.append(lambda newest: _changed(newest, shards))
    losses = tuple(mending.not_elsewhere(loss for shard in shards for loss in shard.losses))
    return FolderRepair(commit=commit.number, shards=tuple(shards), set_aside=mended_chain.set_aside, losses=losses)


class _Mending:
    def __init__(self, store: LocalStore, archive_id: bytes) -> None:
        self._store, self._root, self._archive_id = store, store.root, archive_id
        self._held: set[str] = set()

    def repair(self, record: ShardRecord) -> ShardRepair:
        """Make a shard whole again, or a new one of what is left of it."""
        path = self._root / shard_name(record.sha256)
        if _is_whole(path, record.sha256):
            return ShardRepair(sha256=record.sha256, state=WHOLE)
        protection = self._protection(record.sha256)
        healed = self._healed(path, protection) if protection else None
        if healed is not None:
            return ShardRepair(sha256=record.sha256, state=HEALED, healed_bytes=healed)
        if not path.exists():
            return _missing(record.sha256, record.units, "the file is gone: restore it from another copy")
        try:
            return next(self._rebuilt(path, protection, record.sha256))
        except ArchiveError as error:
            if error.code == Code.IO:
                raise
            return _missing(record.sha256, record.units, error.message)

    def hold(self, shards: Sequence[ShardRepair], *, is_asked: bool) -> None:
        """Note what is in the archive, if anything is to be compared with it."""
        is_asked |= bool(self._left()) or any(loss.key for shard in shards for loss in shard.losses)
        for shard in shards if is_asked else ():
            if shard.state != MISSING:
                name = shard_name(shard.new.sha256 if shard.new else shard.sha256)
                self._held |= content_of(self._root / name)

    def recovered(self, strays: Sequence[str]) -> Iterator[ShardRepair]:
        """Damaged shards that only a damaged commit listed, as far as they hold what the archive has not."""
        for sha256 in strays:
            path, protection = self._root / shard_name(sha256), self._protection(sha256)
            if self._is_foreign(path):
                continue
            healed = self._healed(path, protection) if protection else None
            if healed is not None:
                new = record_of(path)
                yield ShardRepair(sha256=sha256, state=HEALED, new=new, healed_bytes=healed)
                continue
            try:
                yield from self._rebuilt(path, protection, sha256, known=self._held)
            except ArchiveError as error:
                if error.code == Code.IO:
                    raise
                yield _missing(sha256, None, error.message)

    def adopted(self) -> Iterator[ShardRepair]:
        """New shards of what dead writers left, unless it is all in the archive already."""
        for path in self._left():
            with suppress(ArchiveError), InputFile.open(path) as file:  # empty, or of another archive: nobody's
                if read_file_header(file).archive_id == self._archive_id:
                    yield from self._adopt(path)

    def not_elsewhere(self, losses: Iterable[Loss]) -> Iterator[Loss]:
        """Those losses that are real: of a key that is in another shard nothing is lost."""
        return (loss for loss in losses if loss.key is None or loss.key not in self._held)

    def _protection(self, sha256: str) -> Path | None:
        """The shard's parity file, if it is there and its own."""
        path = parity.path_for(self._root, sha256)
        with suppress(ArchiveError):
            return path if parity.read_header(path).file_sha256.hex() == sha256 else None
        return None

    def _healed(self, path: Path, protection: Path) -> int | None:
        """Bytes that parity gave back; None if too much is lost."""
        try:
            return parity.heal(path, protection, path, replace=True, scratch=self._root / OPEN).file_bytes
        except ArchiveError as error:
            if error.code != Code.PARITY:
                raise
            return None

    def _rebuilt(
        self, path: Path, protection: Path | None, sha256: str, *, known: Set[str] | None = None
    ) -> Iterator[ShardRepair]:
        """A new shard of what is left of one, unless that is all `known`."""
        with mended(path, protection, self._root / OPEN) as source, scratch_file(self._root / OPEN) as out:
            kept, losses = rebuild(source, out, archive_id=self._archive_id)
            if known is not None and kept.content <= known:
                if losses:
                    yield ShardRepair(sha256=sha256, state=MISSING, losses=losses)
                return
            check(out)
            record = record_of(out.part)
            if record.sha256 == sha256:  # index, footer or header were damaged, and these follow from the rest
                DISK.replace(out.part, path)
                DISK.sync_folder(path.parent)
                yield ShardRepair(sha256=sha256, state=HEALED, new=record)
                return
            self._place(out, record)
        yield ShardRepair(sha256=sha256, state=REBUILT, new=record, losses=losses)

    def _is_foreign(self, path: Path) -> bool:
        """Whether a file says that it belongs to another archive."""
        with suppress(ArchiveError), InputFile.open(path) as file:
            return read_file_header(file).archive_id != self._archive_id
        return False

    def _adopt(self, path: Path) -> Iterator[ShardRepair]:
        with scratch_file(self._root / OPEN) as out:
            kept, losses = rebuild(path, out, archive_id=self._archive_id, is_unfinished=True)
            if kept.content <= self._held:
                return
            check(out)
            record = record_of(out.part)
            self._place(out, record)
        self._held |= kept.content
        yield ShardRepair(sha256=path.name.removesuffix(OPEN_SUFFIX), state=ADOPTED, new=record, losses=losses)

    def _place(self, out: Fresh, record: ShardRecord) -> None:
        self._store.create(shard_name(record.sha256), out.part)

    def _left(self) -> list[Path]:
        return [path for path in sorted((self._root / OPEN).glob(f"*{OPEN_SUFFIX}")) if not is_held(path)]


def _is_whole(path: Path, sha256: str) -> bool:
    """Whether the file has this SHA-256; asked twice, for a bad cable must not cost a shard."""
    return any(_has_sha256(path, sha256) for _ in range(2))


def _has_sha256(path: Path, sha256: str) -> bool:
    try:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:  # one that cannot be read is as good as damaged
        return False


def _missing(sha256: str, units: int | None, why: str) -> ShardRepair:
    loss = Loss(what="shard", chunk=sha256, items=units, why=why)
    return ShardRepair(sha256=sha256, state=MISSING, losses=(loss,))


def _changed(commit: Commit, shards: Sequence[ShardRepair]) -> Commit:
    """The commit with new shards in the place of damaged ones, and those that it did not list at the end."""
    known = {record.sha256 for record in commit.shards}
    replaced = {shard.sha256: shard.new for shard in shards if shard.state == REBUILT and shard.new}
    added = [shard.new for shard in shards if shard.new and shard.sha256 not in known]
    listed = [*(replaced.get(record.sha256, record) for record in commit.shards), *added]
    gone = {retired.sha256 for retired in commit.retired}
    retired = [
        Retired(sha256=record.sha256, reason="damaged; what was whole is in a new shard")
        for record in commit.shards
        if record.sha256 in replaced
    ]
    counted = {record.sha256: record for record in listed if record.sha256 not in gone}
    return replace(commit, shards=tuple(counted.values()), retired=(*commit.retired, *retired))
