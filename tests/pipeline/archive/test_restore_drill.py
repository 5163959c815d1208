"""The drill: a sealed archive, some programs that know nothing of framefold, and the reader that lies inside it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import bagit
import pytest

from framefold.pipeline.archive import ArchiveReader, ShardReader, bag
from framefold.pipeline.archive.protect import protect
from framefold.pipeline.archive.repair_folder import repair_folder
from framefold.pipeline.archive.verify_folder import verify_archive


@pytest.fixture
def vault(tmp_path, clips, rich):
    """Two sealed archives, far from the repository: one of many shards with parity, and one that was a file."""
    for numbers in (range(5), range(5, 9)):
        clips.write(tmp_path / "grown.fold", numbers)
    protect(tmp_path / "grown.fold")
    bag.seal(tmp_path / "grown.fold")
    bag.seal_file(rich, tmp_path / "single.fold")
    return [shutil.copytree(tmp_path / name, tmp_path / "vault" / name) for name in ("grown.fold", "single.fold")]


def bare_python(*command: object, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    """An interpreter without site-packages, environment and current folder: its standard library is all it has."""
    arguments = [sys.executable, "-I", "-S", *map(str, command)]
    return subprocess.run(arguments, cwd=cwd, env={}, capture_output=True, check=False)


def bundled_reader(folder: Path, *command: object) -> bytes:
    done = bare_python(folder / "data" / "spec" / "fold_reader.py", *command, cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_the_bare_interpreter_has_nothing_of_ours(tmp_path):
    for module in ("framefold", "numpy"):
        assert b"ModuleNotFoundError" in bare_python("-c", f"import {module}", cwd=tmp_path).stderr


def test_sha256sum_accepts_all_files(vault):
    for folder in vault:
        for manifest in ("manifest-sha256.txt", "tagmanifest-sha256.txt"):
            subprocess.run(["sha256sum", "--check", "--strict", "--quiet", manifest], cwd=folder, check=True)


def test_what_the_readme_says_works(vault):
    for folder in vault:
        text = (folder / "data" / "README.txt").read_text()
        (command,) = [line.strip() for line in text.splitlines() if "sha256sum --check" in line]
        done = subprocess.run(["sh", "-c", command], cwd=folder / "data", capture_output=True, check=True)
        assert done.stdout == b""


def test_the_bagit_validator_accepts_them(vault):
    for folder in vault:
        bagit.Bag(str(folder)).validate()


def test_the_bundled_reader_verifies_them(vault):
    for folder in vault:
        bundled_reader(folder, "verify", folder)
        for shard in (folder / "data" / "shards").iterdir():
            bundled_reader(folder, "verify", shard)


def test_the_bundled_reader_verifies_an_archive_that_was_repaired(vault):
    """A retired shard stays as damaged as it is, and so do commits that were set aside."""
    folder, _ = vault
    for shard in (folder / "data" / "shards").iterdir():
        shard.write_bytes(shard.read_bytes()[:700])
    shutil.rmtree(folder / "data" / "parity")
    last = sorted((folder / "data" / "commits").iterdir())[-1]
    last.write_bytes(last.read_bytes()[1:])
    assert {shard.state for shard in repair_folder(folder).shards} <= {"rebuilt", "missing"}
    bag.seal(folder)
    bagit.Bag(str(folder)).validate()
    assert verify_archive(folder).findings == []
    bundled_reader(folder, "verify", folder)


def test_the_bundled_reader_finds_damage(vault):
    for folder in vault:
        shard = next((folder / "data" / "shards").iterdir())
        data = shard.read_bytes()
        shard.write_bytes(data[:300] + bytes([data[300] ^ 1]) + data[301:])
        for place in (folder, shard):
            done = bare_python(folder / "data" / "spec" / "fold_reader.py", "verify", place, cwd=folder)
            assert done.returncode == 1
            assert b"F0" in done.stdout + done.stderr


def test_the_bundled_reader_gives_all_payloads_back(vault):
    extracted = 0
    for folder in vault:
        for shard in (folder / "data" / "shards").iterdir():
            listed = bundled_reader(folder, "list", shard).decode()
            with ShardReader.open(shard) as reader:
                wanted = {unit.id: reader.read_unit(unit.id).payload for unit in reader.units}
                wanted |= {sha256: reader.read_attachment(sha256) for sha256 in reader.attachments}
            for name, payload in wanted.items():
                assert name in listed
                assert bundled_reader(folder, "extract", shard, name) == payload
                extracted += 1
    assert extracted == 9 + 8 + 3


def test_framefold_reads_them_as_before(vault, clips, rich):
    grown, single = vault
    assert clips.found(grown) == list(range(9))
    with ArchiveReader.open(single) as reader, ArchiveReader.open(rich) as before:
        assert [reader.read_unit(unit.id) for unit in reader.units] == [
            before.read_unit(unit.id) for unit in before.units
        ]
