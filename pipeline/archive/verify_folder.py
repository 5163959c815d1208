"""Check an archive in either form, and as a whole: the chain of commits, every shard by its name, every chunk.

What is damaged is read a second time, past the system's cache where that is possible, before it is called so: a bad
cable or a bad memory cell must not cost anybody an archive.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from framefold.pipeline.archive.bag_check import check_bag
from framefold.pipeline.archive.chain import Chain
from framefold.pipeline.archive.chunks import read_chunk, read_file_header
from framefold.pipeline.archive.commits import Commit, ShardRecord
from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.files import InputFile, Readable
from framefold.pipeline.archive.layout import SHARDS, commit_name, shard_name, shard_of
from framefold.pipeline.archive.shard_reader import ShardReader
from framefold.pipeline.archive.shards import ShardFile, is_folder
from framefold.pipeline.archive.stores import LocalStore, NotThere, Place, Store, open_file, open_store
from framefold.pipeline.archive.subset import ALL, Subset
from framefold.pipeline.archive.verify import Finding, lacking, verify_file

Level = Literal["fixity", "chunks"]
_BLOCK = 8 * 2**20


@dataclass
class Verified:
    """What a check found."""

    findings: list[Finding] = field(default_factory=list)
    """Ids of chunks in a folder begin with the shard's name; a shard or commit as a whole has its file's name there."""
    notes: list[str] = field(default_factory=list)
    """What is worth knowing and no damage."""
    is_folder: bool = False
    files: int = 0
    """Files of which something was checked."""
    bytes: int = 0
    """Of these files."""


def verify_archive(place: Place, *, level: Level = "chunks", subset: Subset = ALL) -> Verified:
    """Check a file, a folder or what lies at a URL. `ArchiveError` only if it cannot be opened at all.

    `fixity`: file header, footer and index; of a folder the commits, and that every shard has the SHA-256 that it is
    called by. `chunks`: every chunk as well, and what the chunks say of each other.
    """
    if is_folder(place):
        return _Folder(open_store(place), level, subset).run()
    file = open_file(place)
    try:
        found = Verified(files=1, bytes=file.size)
        check = partial(_check_file, file, level, subset)
        found.findings += _confirmed(check, partial(_forget, file), found.notes)
        return found
    finally:
        file.close()


def _confirmed(
    check: Callable[[], Sequence[Finding]], forget: Callable[[], None], notes: list[str]
) -> Sequence[Finding]:
    """Findings of a second look that the first one had too; the others are a note."""
    first = check()
    if not first:
        return ()
    forget()
    second = check()
    both = [one for one in second if one in first]
    doubt = "read differently the second time, so the medium or the memory is to be doubted"
    notes += [f"{doubt}: {one}" for one in dict.fromkeys((*first, *second)) if one not in both]
    return both


def _forget(file: Readable) -> None:
    """Let the system read the file from its medium again."""
    if isinstance(file, InputFile):
        os.posix_fadvise(file.fd, 0, 0, os.POSIX_FADV_DONTNEED)


def _check_file(file: Readable, level: Level, subset: Subset) -> Sequence[Finding]:
    if level == "chunks" and subset.is_all:
        return verify_file(file)
    try:
        read_file_header(file)
        reader = ShardReader(file)
    except ArchiveError as error:
        # Without an index nobody can say what belongs to a part: everything is looked at.
        return verify_file(file) if level == "chunks" else (Finding.of(error),)
    return tuple(_check_part(file, reader, subset)) if level == "chunks" else ()


def _check_part(file: Readable, reader: ShardReader, subset: Subset) -> Iterator[Finding]:
    """The chunks of a part, and what a reader makes of those that are whole."""
    found: list[Finding] = []
    attempt = partial(_attempt, found)
    numbers = [number for number in range(len(reader.index)) if subset.has_chunk(reader.index.id(number))]
    tag = reader.header.shard_tag
    whole = {reader.index.id(one) for one in numbers if attempt(partial(read_chunk, file, reader.index[one], one, tag))}
    readings: list[Callable[[], object]] = []
    listed = attempt(lambda: readings.extend(_readings(reader, whole)))
    if not listed and len(found) > 1:
        found.pop()  # what cannot be listed is damaged, and was named
    for reading in readings:
        attempt(reading)
    yield from found


def _attempt(found: list[Finding], action: Callable[[], object]) -> bool:
    try:
        action()
    except ArchiveError as error:
        found.append(Finding.of(error))
        return False
    return True


def _readings(reader: ShardReader, whole: Set[str]) -> Iterator[Callable[[], object]]:
    """What is to be read of the chunks that are whole."""
    yield from (partial(reader.read_unit, unit.id) for unit in reader.units if unit.id.partition(".")[0] in whole)
    yield from (partial(reader.read_packets, block.id) for block in reader.packet_blocks if block.id in whole)


class _Folder:
    """One pass over a folder's commits and shards."""

    def __init__(self, store: Store, level: Level, subset: Subset) -> None:
        self._store, self._level, self._subset = store, level, subset
        self._found = Verified(is_folder=True)
        self._needed: dict[str, str] = {}
        """SHA-256 of what units need, to a codec that says so."""
        self._held: set[str] = set()
        """SHA-256 of the attachments in shards that need any."""

    def run(self) -> Verified:
        commit = self._commits()
        listed = {record.sha256 for record in commit.shards} | {shard.sha256 for shard in commit.retired}
        for record in commit.shards:
            if self._subset.has_shard(record.sha256):
                self._shard(record, commit)
        if self._subset.is_all:  # one shard may have what another has lost
            self._found.findings += (lacking(*one) for one in self._needed.items() if one[0] not in self._held)
        self._strangers(listed)
        if isinstance(self._store, LocalStore) and self._subset.is_all:  # it reads every file
            self._found.findings += check_bag(Path(self._store.url))
        return self._found

    def _commits(self) -> Commit:
        """The newest whole one. What lies above it is reported, and no reason to stop."""
        chain = Chain(self._store)
        commit = chain.refresh()
        if commit is None:
            message = f"there is no {commit_name(1)}, so this is no archive in the folder form"
            raise chain.broken or ArchiveError(Code.NOT_AN_ARCHIVE, message, archive=self._store.url)
        self._found.findings += _confirmed(self._broken_commits, lambda: None, self._found.notes)
        return commit

    def _broken_commits(self) -> Sequence[Finding]:
        chain = Chain(self._store)
        try:
            chain.check_end()
        except ArchiveError as error:
            return (_of_file(error, commit_name((chain.newest.number if chain.newest else 0) + 1)),)
        return (_of_file(chain.broken, commit_name(1)),) if chain.broken else ()

    def _shard(self, record: ShardRecord, commit: Commit) -> None:
        self._found.files += 1
        self._found.bytes += record.bytes
        check = partial(self._check_shard, record, commit)
        self._found.findings += _confirmed(check, partial(_forget_shard, self._store, record), self._found.notes)

    def _check_shard(self, record: ShardRecord, commit: Commit) -> Sequence[Finding]:
        try:
            self._check_bytes(record)
        except ArchiveError as error:
            if error.code == Code.SHARD_MISSING or self._level == "fixity":
                return (_of_shard(error, record),)
            return (_of_shard(error, record), *self._chunks(record))
        return self._meaning(record, commit) or (self._chunks(record) if self._level == "chunks" else ())

    def _check_bytes(self, record: ShardRecord) -> None:
        """The length and the SHA-256 are those of the commit."""
        name = shard_name(record.sha256)
        try:
            size, sha256 = _digest(self._store, name)
        except NotThere as error:
            raise ArchiveError(Code.SHARD_MISSING, "the shard is not there", archive=name) from error
        if (size, sha256) != (record.bytes, record.sha256):
            message = (
                f"{size} bytes with the SHA-256 {sha256}; its commit says {record.bytes} bytes, its name the SHA-256"
            )
            raise ArchiveError(Code.SHARD_DIGEST, message, archive=name)

    def _meaning(self, record: ShardRecord, commit: Commit) -> Sequence[Finding]:
        """A shard that is as it was written is a whole archive, and the one that its commit describes."""
        try:
            with ShardReader(ShardFile(self._store, record)) as reader:
                said = (record.units, commit.archive_id.hex())
                here = (len(reader.units), reader.header.archive_id.hex())
                if said != here:
                    message = f"units and archive id are {here} in the shard and {said} in the commit"
                    raise ArchiveError(Code.DISAGREES, message, archive=reader.path)
                self._note_needs(reader, record)
        except ArchiveError as error:
            return (_of_shard(error, record),)
        return ()

    def _note_needs(self, reader: ShardReader, record: ShardRecord) -> None:
        needed = {sha256: f"{record.sha256[:8]}/{codec.id}" for codec in reader.codecs for sha256 in codec.needs}
        self._needed |= needed
        self._held |= reader.attachments.keys() if needed else set()

    def _chunks(self, record: ShardRecord) -> Sequence[Finding]:
        """Of a shard whose bytes are others than its commit says, too: that is when it is asked what is left."""
        try:
            file = self._store.open(shard_name(record.sha256))
        except ArchiveError as error:
            return (_of_shard(error, record),)
        try:
            return tuple(_in_shard(finding, record) for finding in verify_file(file, is_alone=False))
        finally:
            file.close()

    def _strangers(self, listed: set[str]) -> None:
        names = (shard_of(stored.name) for stored in self._store.list(SHARDS))
        unlisted = sum(name is not None and name not in listed for name in names)
        if unlisted:
            what = "1 shard is" if unlisted == 1 else f"{unlisted:,} shards are"
            self._found.notes.append(f"{what} listed by no commit, and not read: see `pipeline gc`")


def _digest(store: Store, name: str) -> tuple[int, str]:
    """Length and SHA-256 of a stored file."""
    file, digest = store.open(name), hashlib.sha256()
    try:
        for start in range(0, file.size, _BLOCK):
            digest.update(file.read(start, min(_BLOCK, file.size - start)))
        return file.size, digest.hexdigest()
    finally:
        file.close()


def _forget_shard(store: Store, record: ShardRecord) -> None:
    if isinstance(store, LocalStore):
        with suppress(ArchiveError), InputFile.open(store.path(shard_name(record.sha256))) as file:
            _forget(file)


def _of_shard(error: ArchiveError, record: ShardRecord) -> Finding:
    return _in_shard(Finding.of(error), record)


def _in_shard(finding: Finding, record: ShardRecord) -> Finding:
    chunk = f"{record.sha256[:8]}/{finding.chunk}" if finding.chunk else shard_name(record.sha256)
    return replace(finding, chunk=chunk)


def _of_file(error: ArchiveError, name: str) -> Finding:
    return replace(Finding.of(error), chunk=name)
