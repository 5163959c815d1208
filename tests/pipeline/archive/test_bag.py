"""Sealed archives are bags that any tool accepts, and any change to one is found."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import bagit
import pytest

from framefold.pipeline.archive import ArchiveError, ArchiveReader, Code, bag, bag_check, parity
from framefold.pipeline.archive.bag_check import check_bag
from framefold.pipeline.archive.chain import newest
from framefold.pipeline.archive.folder import FolderWriter
from framefold.pipeline.archive.stores import LocalStore


@pytest.fixture
def folder(tmp_path, manifest, fill):
    with FolderWriter(tmp_path / "collection.fold", archive_id=bytes(range(16))) as writer:
        fill(writer)
        writer.commit(manifest)
    return tmp_path / "collection.fold"


def grow(folder: Path, manifest, source, key: str = "9" * 64) -> None:
    with FolderWriter(folder) as writer:
        place = {"source": writer.add_source(source("later.mp4")), "codec": writer.add_codec("coin", {})}
        writer.add_unit(key=key, **place, first_frame=0, pts=[0], duration_ticks=1, payload=b"later")
        writer.commit(manifest)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def sha256sum(folder: Path, manifest: str) -> None:
    """What an archivist types."""
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", manifest], cwd=folder, check=True)


def validate(folder: Path) -> None:
    """By the reference validator."""
    bagit.Bag(str(folder)).validate()


def test_a_sealed_folder_is_a_bag(folder):
    before = files_of(folder)
    assert check_bag(folder) == ()
    assert not bag_check.is_sealed(folder)
    assert bag.seal(folder) == folder
    after = files_of(folder)
    assert before.items() <= after.items()  # nothing is moved or changed
    spec = {f"data/spec/{name}" for name in bag.SPEC_FILES}
    tags = {"bagit.txt", "bag-info.txt", "manifest-sha256.txt", "tagmanifest-sha256.txt"}
    assert after.keys() - before.keys() == spec | tags
    assert check_bag(folder) == ()
    assert bag_check.is_sealed(folder)
    for manifest in ("manifest-sha256.txt", "tagmanifest-sha256.txt"):
        sha256sum(folder, manifest)
    listed = {line.split("  ")[1] for line in after["manifest-sha256.txt"].decode().splitlines()}
    assert listed == {name for name in after if name.startswith("data/")}
    info = after["bag-info.txt"].decode()
    payload = [data for name, data in after.items() if name.startswith("data/")]
    assert f"Payload-Oxum: {sum(map(len, payload))}.{len(payload)}\n" in info
    assert f"External-Identifier: {bytes(range(16)).hex()}\n" in info


def test_the_reference_validator_accepts_it(folder):
    bag.seal(folder)
    validate(folder)


def test_what_it_carries_is_what_the_repository_has(folder):
    root = Path(__file__).parents[3]
    bag.seal(folder)
    there = [
        root / "docs" / "archive-format.md",
        root / "docs" / "archive-parity.md",
        root / "tools" / "fold_reader.py",
    ]
    assert [(folder / "data" / "spec" / path.name).read_bytes() for path in there] == [
        path.read_bytes() for path in there
    ]


def test_a_sealed_archive_is_read_as_before(folder, read_all):
    wanted = read_all(folder)
    bag.seal(folder)
    assert read_all(folder) == wanted


def test_an_archive_that_grows_is_sealed_again(folder, manifest, source):
    bag.seal(folder)
    grow(folder, manifest, source)
    findings = check_bag(folder)
    assert {finding.code for finding in findings} == {Code.BAG}
    messages = " ".join(finding.message for finding in findings)
    assert "data/commits/00000003.json is not in manifest-sha256.txt: the archive has grown" in messages
    assert "Payload-Oxum" in messages
    bag.seal(folder)
    assert check_bag(folder) == ()
    sha256sum(folder, "manifest-sha256.txt")


def test_sealing_twice_changes_nothing_but_a_date(folder):
    bag.seal(folder)
    first = files_of(folder)
    bag.seal(folder)
    assert files_of(folder) == first


def test_other_tag_files_are_listed_too(folder):
    (folder / "metadata").mkdir()
    (folder / "metadata" / "dc.xml").write_text("<dc/>")
    bag.seal(folder)
    assert "  metadata/dc.xml\n" in (folder / "tagmanifest-sha256.txt").read_text()
    validate(folder)
    (folder / "metadata" / "dc.xml").write_text("<cd/>")
    assert [finding.message for finding in check_bag(folder)] == [
        "metadata/dc.xml has another SHA-256 than tagmanifest-sha256.txt says"
    ]


# Every change is found


def test_every_changed_missing_or_added_file_is_named(folder):
    bag.seal(folder)
    names = [name for name in files_of(folder) if not name.startswith("open/")]
    for name in names:
        path = folder / name
        data = path.read_bytes()
        for change in (data[:-1] + bytes([data[-1] ^ 1]), data + b"x", None):
            if change is None:
                path.unlink()
            else:
                path.write_bytes(change)
            findings = check_bag(folder)
            assert findings, name
            assert {finding.code for finding in findings} == {Code.BAG}
            if name != "tagmanifest-sha256.txt":
                assert any(name in finding.message for finding in findings), name
            path.write_bytes(data)
    assert check_bag(folder) == ()
    (folder / "data" / "more").write_bytes(b"")
    assert "data/more is not in" in check_bag(folder)[0].message


@pytest.mark.parametrize(
    "line", ["", "no digest", "0" * 64, "0" * 64 + "  ", "0" * 63 + "  data/x", f"{'0' * 64}  data/README.txt"]
)
def test_a_manifest_that_is_none_is_named(folder, line):
    bag.seal(folder)
    path = folder / "manifest-sha256.txt"
    path.write_text(path.read_text() + line + "\n")
    assert any(finding.message.startswith("manifest-sha256.txt cannot be read") for finding in check_bag(folder))


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "data/../../x", "data/shards", "data/\u202e"])
def test_a_manifest_leads_nowhere(folder, name):
    bag.seal(folder)
    path = folder / "manifest-sha256.txt"
    path.write_text(f"{path.read_text()}{'0' * 64}  {name}\n")
    messages = [finding.message for finding in check_bag(folder)]
    assert f"manifest-sha256.txt lists {name!r}, which is not there" in messages


def test_manifests_are_read_within_bounds(folder, monkeypatch):
    bag.seal(folder)
    monkeypatch.setattr(bag_check, "_MAX_MANIFEST", 10)
    assert "more than 10 bytes" in check_bag(folder)[0].message


@pytest.mark.parametrize("kind", ["link", "fifo", "percent", "newline"])
def test_what_a_manifest_cannot_name_is_refused(folder, kind):
    odd = folder / "data" / {"percent": "a%0A", "newline": "a\nb"}.get(kind, "odd")
    if kind == "link":
        odd.symlink_to("/etc/passwd")
    elif kind == "fifo":
        os.mkfifo(odd)
    else:
        odd.write_bytes(b"")
    with pytest.raises(ArchiveError, match="F028"):
        bag.seal(folder)
    assert not bag_check.is_sealed(folder)
    odd.unlink()
    bag.seal(folder)
    odd.symlink_to("/etc/passwd")
    assert [finding.code for finding in check_bag(folder)] == [Code.BAG]


# What is not sealed


def test_nothing_is_sealed_while_somebody_writes(folder, source):
    with FolderWriter(folder) as writer:
        place = {"source": writer.add_source(source("b.mp4")), "codec": writer.add_codec("coin", {})}
        writer.add_unit(key="8" * 64, **place, first_frame=0, pts=[0], duration_ticks=1, payload=b"open")
        with pytest.raises(ArchiveError, match="F022"):
            bag.seal(folder)
    assert not bag_check.is_sealed(folder)
    bag.seal(folder)  # what a dead writer left is no part of the bag
    assert check_bag(folder) == ()
    validate(folder)


def test_damage_is_not_sealed(folder):
    (shard,) = (folder / "data" / "shards").iterdir()
    data = shard.read_bytes()
    for damaged in (data[:300] + bytes([data[300] ^ 1]) + data[301:], data[:-1]):
        shard.write_bytes(damaged)
        with pytest.raises(ArchiveError, match=r"F026.*not sealed, for it is damaged"):
            bag.seal(folder)
    shard.unlink()
    with pytest.raises(ArchiveError, match="F025"):
        bag.seal(folder)
    assert not bag_check.is_sealed(folder)


def test_a_shard_under_another_shards_name_is_not_sealed(folder, manifest, source):
    grow(folder, manifest, source)
    first, second = sorted((folder / "data" / "shards").iterdir())
    shutil.copy(first, second)
    with pytest.raises(ArchiveError, match="F026"):
        bag.seal(folder)


def test_a_broken_chain_is_not_sealed(folder, manifest, source):
    grow(folder, manifest, source)
    commit = folder / "data" / "commits" / "00000002.json"
    commit.write_bytes(commit.read_bytes().replace(b'"number":2', b'"number":3'))
    with pytest.raises(ArchiveError, match=r"F02[34]"):
        bag.seal(folder)


def test_only_archives_are_sealed(tmp_path):
    (tmp_path / "folder").mkdir()
    for name in ("folder", "missing"):
        with pytest.raises(ArchiveError, match="F002"):
            bag.seal(tmp_path / name)
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


def test_interrupted_anywhere_it_can_be_sealed_again(folder, manifest, source, monkeypatch):
    bag.seal(folder)
    grow(folder, manifest, source)
    real, calls = os.replace, []
    for stop in range(4):
        with monkeypatch.context() as patch:
            calls.clear()

            def fail(*args: object, stop: int = stop) -> None:
                calls.append(args)
                if len(calls) > stop:
                    raise OSError(28, "made to fail")
                real(*args)

            patch.setattr(os, "replace", fail)
            with pytest.raises(ArchiveError, match="F018"):
                bag.seal(folder)
        assert check_bag(folder), stop
        assert not list((folder / "open").iterdir())
    bag.seal(folder)
    assert check_bag(folder) == ()


# Of one file


def test_one_file_becomes_a_sealed_folder(tmp_path, small, read_all):
    out = bag.seal_file(small, tmp_path / "sealed")
    sha256 = hashlib.sha256(small.read_bytes()).hexdigest()
    shard = out / "data" / "shards" / f"{sha256}.fold"
    assert shard.read_bytes() == small.read_bytes()
    assert not shard.samefile(small)
    assert check_bag(out) == ()
    validate(out)
    commit = newest(LocalStore(out))
    assert [record.sha256 for record in commit.shards] == [sha256]
    assert (commit.archive_id, commit.shards[0].units) == (bytes(range(16)), 3)
    with ArchiveReader.open(out) as folder, ArchiveReader.open(small) as single:
        units = [folder.read_unit(unit.id) for unit in folder.units]
        assert units == [single.read_unit(unit.id) for unit in single.units]
    assert bag.seal_file(small, out) == out  # again: nothing new
    assert newest(LocalStore(out)) == commit


def test_a_file_is_sealed_into_nothing_else(tmp_path, small, folder, manifest, write_small):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    (tmp_path / "taken").write_text("mine")
    before = files_of(folder)
    for out in (tmp_path / "full", tmp_path / "taken", folder):
        with pytest.raises(ArchiveError, match=r"F016.*name a new folder"):
            bag.seal_file(small, out)
    assert files_of(folder) == before
    small.write_bytes(small.read_bytes()[:-1])
    with pytest.raises(ArchiveError, match=r"F005.*not sealed"):
        bag.seal_file(small, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_parity_is_sealed_with_it(folder):
    (shard,) = (folder / "data" / "shards").iterdir()
    (folder / "data" / "parity").mkdir()
    parity.create(shard, folder / "data" / "parity" / f"{shard.stem}.parity")
    bag.seal(folder)
    assert f"  data/parity/{shard.stem}.parity\n" in (folder / "manifest-sha256.txt").read_text()
    validate(folder)


def test_a_lock_on_something_else_does_not_matter(folder):
    fd = os.open(folder / "open" / "notes.txt", os.O_CREAT | os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    bag.seal(folder)
    os.close(fd)
    assert check_bag(folder) == ()
