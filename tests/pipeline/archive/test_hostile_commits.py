"""A stranger's folder: commits and shards that are not what they should be, refused by number in little memory."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from framefold.pipeline.archive import ArchiveReader
from framefold.pipeline.archive.verify_folder import verify_archive

Change = Callable[[dict[str, Any]], Any]
"""Changes a commit's JSON, which is signed then; what it returns, if anything, is written as it is."""

READ = """
import json, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import fold_reader
from framefold.pipeline.archive import ArchiveError, ArchiveReader
from framefold.pipeline.archive.verify_folder import verify_archive

def read(path):
    with ArchiveReader.open(path) as reader:
        for unit in reader.units:
            reader.read_unit(unit.id)
        for error in reader.problems:
            raise error

def verify(path):
    return " ".join(sorted({finding.code for finding in verify_archive(path).findings}))

def second(path):
    for name, entry, says, carries in fold_reader.examine_folder(Path(path)):
        if isinstance(says, fold_reader.Problem):
            raise says

def outcome(action, path):
    try:
        return action(path) or "nothing"
    except (ArchiveError, fold_reader.Problem) as error:
        return str(error)[:4]
    except BaseException as error:
        return repr(error)

pages = int(Path("/proc/self/statm").read_text().split()[0])
most = pages * resource.getpagesize() + 256 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (most, most))
for path in sys.stdin.read().splitlines():
    print(json.dumps([outcome(action, path) for action in (read, verify, second)]), flush=True)
"""


def changed(**fields: Any) -> Change:
    return lambda document: document.update(fields)


def shard(**fields: Any) -> Change:
    return lambda document: document["shards"][0].update(fields)


def without(name: str) -> Change:
    return lambda document: document.pop(name) and None


def twice(document: dict[str, Any]) -> None:
    document["shards"] *= 2


def retired_too(document: dict[str, Any]) -> None:
    document["retired"] = [{"sha256": document["shards"][0]["sha256"], "reason": "x"}]


def many(document: dict[str, Any]) -> bytes:
    return json.dumps({**document, "more": "x" * 2**24}).encode()


WRONG: dict[str, tuple[Change, str]] = {
    "nothing in it": (lambda _: b"", "F023"),
    "no JSON": (lambda _: b"\xff\xfe\0", "F023"),
    "a list": (lambda _: b"[]", "F023"),
    "a repeated key": (lambda document: json.dumps(document).encode()[:-1] + b',"number":2}', "F023"),
    "deep": (lambda _: b"[" * 10**6, "F023"),
    "too long": (many, "F023"),
    "commas without end": (lambda _: b'{"a":[' + b"1," * (2**20 + 1) + b"1]}", "F023"),
    "another format": (changed(format="bagit"), "F023"),
    "no format": (without("format"), "F023"),
    "a later version": (changed(version=2), "F003"),
    "version true": (changed(version=True), "F023"),
    "a requirement": (changed(requires=["magic"]), "F003"),
    "requirements that are text": (changed(requires="magic"), "F023"),
    "another number": (changed(number=3), "F024"),
    "number 0": (changed(number=0), "F023"),
    "a huge number": (changed(number=2**53 - 1), "F023"),
    "a number with a fraction": (changed(number=2.0), "F023"),
    "another parent": (changed(parent="0" * 64), "F024"),
    "no parent": (changed(parent=None), "F023"),
    "a parent that is a path": (changed(parent="../" * 21 + "a"), "F023"),
    "another archive": (changed(archive_id="0" * 32), "F024"),
    "a short archive id": (changed(archive_id="00"), "F023"),
    "no time": (without("created"), "F023"),
    "a time that is none": (changed(created="soon"), "F023"),
    "a generator that is a number": (changed(generator=1), "F023"),
    "shards that are an object": (changed(shards={}), "F023"),
    "a shard that is text": (changed(shards=["x"]), "F023"),
    "a shard twice": (twice, "F023"),
    "a shard that is retired": (retired_too, "F023"),
    "a shard's name with a path": (shard(sha256="../../../../etc/passwd"), "F023"),
    "a shard's name in capitals": (shard(sha256="A" * 64), "F023"),
    "a shard's name with a NUL": (shard(sha256="0" * 63 + "\0"), "F023"),
    "a shard's name that is too long": (shard(sha256="0" * 65), "F023"),
    "a shard of 2^53 bytes": (
        lambda document: json.dumps(document).replace('"bytes": ', '"bytes": 9007199254740992').encode(),
        "F023",
    ),
    "a shard of -1 bytes": (shard(bytes=-1), "F023"),
    "a shard of true bytes": (shard(bytes=True), "F023"),
    "a shard of no index": (shard(index_sha256=None), "F023"),
    "units below zero": (shard(units=-1), "F023"),
    "retired text": (changed(retired=["x"]), "F023"),
    "retired without a reason": (changed(retired=[{"sha256": "0" * 64}]), "F023"),
    "a shard that is not there": (shard(sha256="0" * 64), "F025"),
    "a shard with another index": (shard(index_sha256="0" * 64), "F026"),
    "a shard with another length": (shard(bytes=1), "F026"),
    "a shard with a huge length": (shard(bytes=2**53 - 1), "F026"),
    "units miscounted": (shard(units=77), "F009"),
}
"""Each in the second commit. What makes that commit none leaves the first; a shard's trouble is the shard's."""

SECOND_TAKES = {"a shard twice", "a shard that is retired", "retired without a reason"}
"""It reads what is listed, however often, and does not ask what was retired."""


@pytest.fixture
def second_commit(tmp_path: Path, clips: Any) -> Callable[[str, Change], Path]:
    """Writes a folder of one shard with a commit that is changed."""
    whole = tmp_path / "whole"
    clips.write(whole, range(2))
    document = json.loads(commit_of(whole, 2).read_bytes())

    def write(name: str, change: Change) -> Path:
        place = tmp_path / name.replace(" ", "_").replace("'", "")
        subprocess.run(["cp", "-a", whole, place], check=True)
        changed_document = json.loads(json.dumps(document))
        data = change(changed_document)
        rewrite(commit_of(place, 2), signed(changed_document) if data is None else data)
        return place

    return write


def signed(document: dict[str, Any]) -> bytes:
    """The bytes of a commit that says of itself what it is."""
    rest = {name: value for name, value in document.items() if name != "sha256"}
    plain = json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()
    return json.dumps({**rest, "sha256": hashlib.sha256(plain).hexdigest()}).encode()


def commit_of(place: Path, number: int) -> Path:
    return place / "data" / "commits" / f"{number:08d}.json"


def rewrite(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


def read_apart(places: list[Path]) -> list[list[Any]]:
    command = [sys.executable, "-c", READ, str(Path(__file__).parents[3] / "tools")]
    names = "\n".join(map(str, places))
    done = subprocess.run(command, input=names, capture_output=True, text=True, timeout=240, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_commits_that_are_wrong_are_named_by_number_in_little_memory(second_commit: Any) -> None:
    places = [second_commit(name, change) for name, (change, _) in WRONG.items()]
    outcomes = dict(zip(WRONG, read_apart(places), strict=True))
    asked = {name: code for name, (_, code) in WRONG.items()}
    assert {name: found for name, (_, found, _) in outcomes.items() if found != asked[name]} == {}
    # Nobody but `verify` asks how many units the commit counts.
    assert {name for name, (strict, *_) in outcomes.items() if strict[:2] != "F0"} == {"units miscounted"}
    assert {name for name, (*_, second) in outcomes.items() if second[:2] != "F0"} == SECOND_TAKES


def test_the_first_commit_damaged_leaves_nothing(tmp_path: Path, clips: Any) -> None:
    place = tmp_path / "folder"
    clips.write(place, range(2))
    first = commit_of(place, 1)
    for data in (b"", b"{}", first.read_bytes().replace(b"commit", b"Commit")):
        rewrite(first, data)
        assert read_apart([place])[0][0] in ("F023", "F024")


def test_a_commit_that_no_chain_reaches_is_reported_and_not_read(tmp_path: Path, clips: Any) -> None:
    place = tmp_path / "folder"
    for number in range(3):
        clips.write(place, [number])
    commit_of(place, 3).unlink()
    with ArchiveReader.open(place) as reader:
        assert len(reader.units) == 1
    assert {finding.code for finding in verify_archive(place).findings} == {"F024"}


def test_a_commit_after_one_that_was_changed_is_not_read(tmp_path: Path, clips: Any) -> None:
    place = tmp_path / "folder"
    for number in range(3):
        clips.write(place, [number])
    third = commit_of(place, 3)
    document = json.loads(third.read_bytes())
    rewrite(third, signed({**document, "more": "it is whole, but the next one knows another"}))
    with ArchiveReader.open(place) as reader:
        assert len(reader.units) == 2
        assert [error.code for error in reader.problems] == ["F024"]
    assert {finding.code for finding in verify_archive(place).findings} == {"F024"}


@pytest.mark.parametrize("kind", ["fifo", "folder", "loop", "device"])
def test_what_is_no_file_is_never_waited_for(tmp_path: Path, clips: Any, kind: str) -> None:
    places = [tmp_path / "commit", tmp_path / "shard"]
    for place in places:
        clips.write(place, range(2))
    shard_path = next((places[1] / "data" / "shards").iterdir())
    for path in (commit_of(places[0], 2), shard_path):
        path.unlink()
        {
            "fifo": lambda path=path: os.mkfifo(path),
            "folder": path.mkdir,
            "loop": lambda path=path: path.symlink_to(path),
            "device": lambda path=path: path.symlink_to("/dev/zero"),
        }[kind]()
    for strict, found, second in read_apart(places):
        assert strict[:2] == "F0"
        assert found[:2] == "F0"
        assert second[:2] == "F0"


def test_names_beside_commits_and_shards_are_passed_over(tmp_path: Path, clips: Any) -> None:
    place = tmp_path / "folder"
    clips.write(place, range(3))
    stranger = place / "data" / "shards" / f"{hashlib.sha256(b'x').hexdigest()}.fold"
    for path in (stranger, place / "data" / "commits" / "99999999.json.tmp", place / "data" / "shards" / "x.fold"):
        path.write_bytes(b"x")
    with ArchiveReader.open(place) as reader:
        assert len(reader.units) == 3
    assert verify_archive(place).findings == []
