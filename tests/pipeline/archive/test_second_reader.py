"""`tools/fold_reader.py`, written from the specification alone, reads what framefold writes and refuses the rest."""

from __future__ import annotations

import ast
import hashlib
import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
READER = ROOT / "tools" / "fold_reader.py"


@pytest.fixture
def run(tmp_path):
    """Runs the reader as an archivist would: by a bare Python that knows nothing of framefold."""

    def call(*arguments):
        command = [sys.executable, "-I", str(READER), *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=False)

    return call


@pytest.fixture
def problems(fold_reader):
    """Codes of all problems that it finds in a file or a folder."""

    def look(path):
        try:
            found = fold_reader.examine_folder(path) if path.is_dir() else fold_reader.Archive(path).examine()
            return [str(said)[:4] for _, _, said, _ in found if isinstance(said, fold_reader.Problem)]
        except fold_reader.Problem as problem:
            return [str(problem)[:4]]

    return look


def test_it_is_one_short_file_of_the_standard_library_alone():
    text = READER.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    assert max(map(len, text.splitlines())) <= 120
    tree = ast.parse(text, feature_version=(3, 8))
    plain = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    named = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert plain | named <= sys.stdlib_module_names


def test_it_reads_the_worked_example_of_the_specification(tmp_path, run):
    page = (ROOT / "docs" / "archive-format.md").read_text(encoding="utf-8")
    rows = re.findall(r"^[0-9a-f]{4}  ((?:[0-9a-f]{2} ){16})", page, re.MULTILINE)
    path = tmp_path / "example.fold"
    path.write_bytes(bytes.fromhex("".join(rows)))
    assert path.stat().st_size == 1200
    assert run("verify", path).returncode == 0
    assert run("extract", path, "u000002").stdout == bytes((1, 2, 3))


def test_it_lists_what_is_in_a_file(rich, run):
    lines = run("list", rich).stdout.decode().splitlines()
    assert lines[0].split() == "s000000 64 150 0 0 0 0 Srce s000000".split()
    packed = next(line.split() for line in lines if " Pack " in line)
    assert packed[-3:] == [f"{packed[0]}.{place}" for place in range(3)]
    assert [line.split()[7] for line in lines[-4:]] == ["qual", "zoom", "copy", "Mani"]


def test_it_extracts_units_packed_units_attachments_and_payloads(rich, run, read_everything, in_memory, tmp_path):
    units, _, attached, _ = read_everything(in_memory(rich.read_bytes()))
    for unit, record, _ in units:
        assert run("extract", rich, unit.id).stdout == record.payload
    for sha256, data in attached.items():
        assert run("extract", rich, sha256).stdout == data
    assert run("extract", rich, "s000000").stdout.startswith(b'{"height":18')
    assert len(run("extract", rich, "u000004", "--raw").stdout) == 72 + 50
    assert run("extract", rich, "u000004", "-o", tmp_path / "out").stdout == b""
    assert (tmp_path / "out").read_bytes() == bytes(range(50))


@pytest.mark.parametrize("name", ["u999999", "p000010.3", "p000010.-1", "u000004.0", "", "x", "00" * 32, "u000004\n"])
def test_what_is_not_there_cannot_be_extracted(rich, run, name):
    done = run("extract", rich, name)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"F017" in done.stderr


def test_its_dump_is_one_line_of_json_for_each_chunk(rich, run, fold_reader):
    done = run("dump", rich)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == fold_reader.Archive(rich).names
    assert done.returncode == 0


def test_names_of_any_alphabet_and_half_surrogates_can_be_printed(tmp_path, run, pieces, rich):
    apart = pieces(rich.read_bytes())
    kind, payload, fields = apart.chunks[0]
    del apart.chunks[-2]  # the copy
    apart.chunks[0] = (kind, payload.replace(b'"a.mp4"', b'"\\udc00\xe6\x98\xa0"'), fields)
    path = tmp_path / "names.fold"
    path.write_bytes(apart.join())
    done = run("dump", path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout.splitlines()[0])[2]["name"] == "\udc00映"


def test_problems_are_printed_with_their_codes_and_chunks(rich, run, fold_reader):
    data = bytearray(rich.read_bytes())
    archive = fold_reader.Archive(rich)
    for name in ("u000006", "q000005"):
        data[archive.entries[archive.names.index(name)].offset + 64] ^= 1
    rich.write_bytes(data)
    done = run("verify", rich)
    assert done.returncode == 1
    assert [line.split()[0] + " " + line.split()[-1] for line in done.stdout.decode().splitlines()] == [
        "F010 q000005",
        "F010 u000006",
        "F035 c000022",
    ]
    assert run("extract", rich, "u000004").returncode == 0
    assert run("extract", rich, "u000006").returncode == 1


@pytest.mark.parametrize("content", [b"", b"RIFF", bytes(64), bytes(5000), b"\x89FLD\r\n\x1a\n" * 100])
def test_other_files_are_not_archives(tmp_path, run, content):
    path = tmp_path / "a.fold"
    path.write_bytes(content)
    for command in ("list", "verify", "dump"):
        done = run(command, path)
        assert done.returncode == 1
        assert done.stderr.startswith(b"F0")
    assert run("verify", tmp_path / "missing").stderr.startswith(b"F0")


def test_every_byte_is_watched(rich, problems):
    whole, dice = rich.read_bytes(), random.Random(6)
    assert problems(rich) == []
    with rich.open("r+b", buffering=0) as file:
        for offset in range(0, len(whole), 5):
            file.seek(offset)
            file.write(bytes([whole[offset] ^ 1 << dice.randrange(8)]))
            assert problems(rich), offset
            file.seek(offset)
            file.write(whole[offset : offset + 1])
    assert problems(rich) == []


def test_cut_anywhere_it_is_no_archive(rich, problems):
    whole = rich.read_bytes()
    for length in range(0, len(whole), 13):
        rich.write_bytes(whole[:length])
        assert problems(rich), length


def test_bytes_that_come_in_or_go_are_noticed(rich, problems):
    whole, dice = rich.read_bytes(), random.Random(7)
    for _ in range(150):
        at, size = dice.randrange(len(whole)), dice.randint(1, 20)
        rich.write_bytes(whole[:at] + dice.randbytes(size) + whole[at + dice.choice((0, 2 * size)) :])
        assert problems(rich), at


@pytest.fixture
def folder(tmp_path, clips):
    """An archive of three shards and four commits."""
    place = tmp_path / "folder.fold"
    for first in range(0, 9, 3):
        clips.write(place, range(first, first + 3))
    return place


def commits_of(folder):
    return sorted((folder / "data" / "commits").iterdir())


def signed(document):
    """The bytes of a commit that says of itself what it is."""
    rest = {name: value for name, value in document.items() if name != "sha256"}
    plain = json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()
    return json.dumps({**rest, "sha256": hashlib.sha256(plain).hexdigest()}).encode()


def shards_of(folder):
    return sorted((folder / "data" / "shards").iterdir())


def test_a_whole_folder_has_no_problem(folder, run, clips):
    done = run("verify", folder)
    assert (done.returncode, done.stdout) == (0, b"")
    assert clips.found(folder) == list(range(9))


@pytest.fixture
def shards_read(fold_reader):
    """How many whole shards it reads in a folder."""

    def count(folder):
        return sum(bool(entry) and entry.kind == "Mani" for _, entry, *_ in fold_reader.examine_folder(folder))

    return count


def test_it_reads_every_shard_of_a_folder(folder, problems, shards_read):
    assert shards_read(folder) == len(shards_of(folder)) == 3
    shards_of(folder)[1].unlink()
    assert problems(folder) == ["F025"]
    assert shards_read(folder) == 2


def test_a_shard_with_other_bytes_is_named(folder, problems):
    shard = shards_of(folder)[0]
    data = shard.read_bytes()
    for changed in (data[:-1], data + b"\0", data[:200] + bytes([data[200] ^ 1]) + data[201:], b""):
        shard.chmod(0o644)
        shard.write_bytes(changed)
        assert problems(folder) == ["F026"]


def test_a_whole_shard_of_another_archive_is_named(folder, problems, rich):
    commit, data = commits_of(folder)[-1], rich.read_bytes()
    document = json.loads(commit.read_bytes())
    name = hashlib.sha256(data).hexdigest()
    document["shards"][0] |= {"sha256": name, "bytes": len(data), "index_sha256": data[-40:-8].hex(), "units": 8}
    (folder / "data" / "shards" / f"{name}.fold").write_bytes(data)
    commit.chmod(0o644)
    commit.write_bytes(signed(document))
    assert problems(folder) == ["F009"]


WRONG_COMMITS = {
    "parent": ("0" * 64, "F024"),
    "number": (2, "F024"),
    "format": ("other", "F024"),
    "created": ("yesterday", "F016"),
    "shards": ([{"sha256": "../../x", "bytes": 1, "index_sha256": "0" * 64, "units": 1}], "F016"),
    "retired": ({}, "F016"),
}


@pytest.mark.parametrize("field", WRONG_COMMITS)
def test_a_commit_that_is_wrong_is_reported_and_the_one_before_counts(folder, problems, shards_read, field):
    commit, (value, code) = commits_of(folder)[-1], WRONG_COMMITS[field]
    document = json.loads(commit.read_bytes()) | {field: value}
    commit.chmod(0o644)
    commit.write_bytes(signed(document))
    assert problems(folder) == [code]
    assert shards_read(folder) == 2


def test_a_commit_whose_bytes_changed_is_reported(folder, problems, shards_read):
    commit = commits_of(folder)[-1]
    commit.chmod(0o644)
    commit.write_bytes(commit.read_bytes().replace(b'"units":3', b'"units":4'))
    assert problems(folder) == ["F023"]
    assert shards_read(folder) == 2


@pytest.mark.parametrize("field", [{"version": 2}, {"requires": ["magic"]}])
def test_a_commit_of_a_later_version_is_not_replaced_by_an_older_one(folder, problems, run, field):
    commit = commits_of(folder)[-1]
    document = json.loads(commit.read_bytes()) | field
    commit.chmod(0o644)
    commit.write_bytes(signed(document))
    assert run("verify", folder).stdout.startswith(b"F003")
    assert problems(folder) == ["F024"]


def test_a_folder_whose_first_commit_is_lost_is_no_archive(folder, problems):
    commits_of(folder)[0].unlink()
    assert set(problems(folder)) == {"F024"}
    for commit in commits_of(folder):
        commit.unlink()
    assert set(problems(folder)) == {"F024"}
