"""Seal a folder archive as a BagIt 1.0 bag (RFC 8493), so that tools that know nothing of us can check it.

Sealing adds four small files beside `data/`, and in `data/spec/` the specification and a reader in plain Python.
Nothing is moved. An archive that has grown since is sealed again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

from framefold.pipeline.archive.bag_check import (
    BAGIT,
    DECLARATION,
    INFO,
    MANIFEST,
    TAGS,
    payload_of,
    system,
    tag_files_of,
)
from framefold.pipeline.archive.chain import Chain
from framefold.pipeline.archive.commits import Commit, ShardRecord, generator
from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.fresh import fresh_file
from framefold.pipeline.archive.layout import OPEN, OPEN_SUFFIX, README, README_TEXT, SHARDS, shard_name
from framefold.pipeline.archive.lock import is_held
from framefold.pipeline.archive.newcomer import record_of, sha256_of
from framefold.pipeline.archive.shard_reader import ShardReader
from framefold.pipeline.archive.stores import LocalStore, probe
from framefold.pipeline.archive.verify import Finding
from framefold.pipeline.archive.verify_folder import verify_archive

SPEC = "data/spec/"
SPEC_FILES = ("archive-format.md", "archive-parity.md", "fold_reader.py")


def seal(folder: Path) -> Path:
    """Make a valid bag of a folder archive, in place; its path. May be repeated, also after it was interrupted.

    Refused are an archive that somebody is writing (F022), and one with damage, which is named: a seal says that all is
    as it was written.
    """
    store = LocalStore(folder)
    with system(folder):
        _refuse_writers(folder)
        commit = _checked(store)
        _add_texts(folder)
        payload = {name: sha256_of(folder / name) for name in payload_of(folder)}
        _check_shards(folder, commit, payload)
        _write_tags(folder, commit, payload)
    return folder


def seal_file(path: Path, folder: Path) -> Path:
    """Make a sealed folder archive of one shard out of an archive of one file, which stays as it is; its path.

    `folder` is new, or what an earlier call for the same file has begun.
    """
    for finding in verify_archive(path).findings:
        raise _refused(path, finding)
    with ShardReader.open(path) as reader, system(folder):
        _begin(folder, path, record_of(path), reader.header.archive_id)
    return seal(folder)


def _begin(folder: Path, path: Path, record: ShardRecord, archive_id: bytes) -> None:
    store = LocalStore(folder)
    name = shard_name(record.sha256)
    if folder.exists() and not (folder / README).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArchiveError(Code.RECORD, "there is something else already; name a new folder", archive=str(folder))
    probe(store)
    store.create(README, README_TEXT)
    chain = Chain(store)
    known = chain.begin(archive_id)
    if known.archive_id != archive_id or {shard.sha256 for shard in known.shards} - {record.sha256}:
        raise ArchiveError(Code.RECORD, "another archive is there already; name a new folder", archive=str(folder))
    store.have_folder(folder / OPEN)
    store.have_folder(folder / SHARDS)
    if not (folder / name).exists():
        with fresh_file(folder / name, scratch=folder / OPEN) as out:
            _copy(path, out.fd)
            _check_is(record.sha256, sha256_of(out.part), out.part)
    chain.append(lambda commit: replace(commit, shards=(record,)))


def _copy(path: Path, fd: int) -> None:
    with path.open("rb") as source, open(fd, "wb", closefd=False) as target:
        while piece := source.read(2**20):
            target.write(piece)


def _refuse_writers(folder: Path) -> None:
    for path in sorted((folder / OPEN).glob(f"*{OPEN_SUFFIX}")):
        if is_held(path):
            raise ArchiveError(Code.LOCKED, f"a writer is at work on {path.name}", archive=str(folder))


def _checked(store: LocalStore) -> Commit:
    """The newest commit of an archive without any damage."""
    chain = Chain(store)
    chain.check_end()
    if chain.newest is None:
        raise ArchiveError(Code.NOT_AN_ARCHIVE, "there is no archive in the folder form", archive=store.url)
    for finding in verify_archive(store.url).findings:
        if finding.code != Code.BAG:  # it has grown since it was sealed
            raise _refused(store.root, finding)
    return chain.newest


def _refused(path: Path, finding: Finding) -> ArchiveError:
    message = f"not sealed, for it is damaged: {finding.message}"
    return ArchiveError(finding.code, message, archive=str(path), chunk=finding.chunk, offset=finding.offset)


def _add_texts(folder: Path) -> None:
    """Put the specification, the reader and plain words into the archive."""
    LocalStore(folder).create(README, README_TEXT)
    LocalStore(folder).have_folder(folder / SPEC)
    for name in SPEC_FILES:
        data = files("framefold.pipeline.archive").joinpath("spec", name).read_bytes()
        path = folder / SPEC / name
        if not path.exists() or path.read_bytes() != data:
            _write(folder, f"{SPEC}{name}", data)


def _write(folder: Path, name: str, data: bytes) -> None:
    """Write a small file as a whole, in place of one that has the name already."""
    LocalStore(folder).have_folder(folder / OPEN)
    with fresh_file(folder / name, replace=True, scratch=folder / OPEN) as out:
        out.write(data, 0)


def _check_shards(folder: Path, commit: Commit, payload: Mapping[str, str]) -> None:
    for shard in commit.shards:
        name = shard_name(shard.sha256)
        _check_is(shard.sha256, payload.get(name), folder / name)


def _check_is(wanted: str, found: str | None, path: Path) -> None:
    if found != wanted:
        raise ArchiveError(Code.SHARD_DIGEST, f"its bytes have the SHA-256 {found}", archive=str(path))


def _write_tags(folder: Path, commit: Commit, payload: Mapping[str, str]) -> None:
    size = sum((folder / name).stat().st_size for name in payload)
    info = {
        "Bagging-Date": datetime.now(UTC).date().isoformat(),
        "Bag-Software-Agent": generator(),
        "External-Identifier": commit.archive_id.hex(),
        "Payload-Oxum": f"{size}.{len(payload)}",
    }
    _write(folder, BAGIT, DECLARATION)
    _write(folder, INFO, "".join(f"{name}: {value}\n" for name, value in info.items()).encode())
    _write(folder, MANIFEST, _manifest(payload))
    tags = {name: sha256_of(folder / name) for name in tag_files_of(folder)}
    _write(folder, TAGS, _manifest(tags))


def _manifest(digests: Mapping[str, str]) -> bytes:
    return "".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode()
