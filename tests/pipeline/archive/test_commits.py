"""Commits: checked field by field, chained by their SHA-256, created by one writer each."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from framefold.pipeline.archive import ArchiveError, Code
from framefold.pipeline.archive.chain import Chain, append, newest
from framefold.pipeline.archive.commits import Commit, Retired, ShardRecord
from framefold.pipeline.archive.layout import commit_name, commit_number, shard_name, shard_of
from framefold.pipeline.archive.limits import MAX_COMMITS, MAX_JSON
from framefold.pipeline.archive.stores import LocalStore, NotThere

SHARD = ShardRecord(sha256="ab" * 32, bytes=1200, index_sha256="cd" * 32, units=3)
COMMIT = Commit(
    number=2,
    parent="ef" * 32,
    archive_id=bytes(range(16)),
    created="2026-01-31T12:00:00Z",
    generator="framefold test",
    shards=(SHARD,),
    retired=(Retired(sha256="12" * 32, reason="damaged"),),
)


def document(**changes: Any) -> bytes:
    return signed(json.loads(COMMIT.pack()) | changes)


def signed(document: dict[str, Any]) -> bytes:
    """The document as JSON, with the SHA-256 that belongs to it."""
    document.pop("sha256", None)
    digest = hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode())
    return json.dumps({**document, "sha256": digest.hexdigest()}).encode()


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def listing(number: int):
    """Adds a shard, made up from a number."""
    digest = hashlib.sha256(b"%d" % number).hexdigest()
    return lambda commit: replace(commit, shards=(*commit.shards, replace(SHARD, sha256=digest)))


def grown(store: LocalStore, commits: int) -> Chain:
    chain = Chain(store)
    chain.begin(bytes(16))
    for number in range(commits - 1):
        chain.append(listing(number))
    return chain


def test_a_commit_is_spelled_as_specified():
    fields = (
        b'{"archive_id":"000102030405060708090a0b0c0d0e0f","created":"2026-01-31T12:00:00Z","format":"framefold-commit",'
        b'"generator":"framefold test","number":2,"parent":"' + b"ef" * 32 + b'","requires":[],'
        b'"retired":[{"reason":"damaged","sha256":"' + b"12" * 32 + b'"}],',
        b'"shards":[{"bytes":1200,"index_sha256":"' + b"cd" * 32 + b'","sha256":"' + b"ab" * 32 + b'","units":3}],'
        b'"version":1}',
    )
    digest = hashlib.sha256(b"".join(fields)).hexdigest()
    assert COMMIT.pack() == fields[0] + f'"sha256":"{digest}",'.encode() + fields[1]
    assert Commit.unpack(COMMIT.pack()) == COMMIT


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("format", ["framefold", None, 1]),
        ("version", [0, "1", True, None]),
        ("number", [0, -1, MAX_COMMITS + 1, "2", 2.0, True, None]),
        ("parent", [None, "ef" * 31, "EF" * 32, "xy" * 32, 7]),
        ("archive_id", ["00" * 15, "00" * 32, None, "0x" * 16]),
        ("created", ["yesterday", "2026-01-31T12:00:00", 5]),
        ("generator", ["", None]),
        ("requires", [None, {}]),
        ("shards", [None, {}, [None], [{}], [SHARD.sha256]]),
        ("retired", [None, {}, [None], [{"sha256": "12" * 32}], [{"sha256": "12" * 32, "reason": 1}]]),
    ],
)
def test_each_field_is_checked(field, values):
    for value in values:
        with pytest.raises(ArchiveError, match=r"F023"):
            Commit.unpack(document(**{field: value}))
    whole = json.loads(document())
    del whole[field]
    with pytest.raises(ArchiveError, match=rf"F023 .*a commit without {field}"):
        Commit.unpack(signed(whole))


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("sha256", ["../../etc/passwd", "ab" * 31, "AB" * 32, None, "ab" * 32 + "\n"]),
        ("index_sha256", ["", "0" * 63, None]),
        ("bytes", [0, -1, 2**53, 1.5, None, True]),
        ("units", [-1, 2**53, "3", None]),
    ],
)
def test_each_field_of_a_shard_is_checked(field, values):
    for value in values:
        with pytest.raises(ArchiveError) as caught:
            Commit.unpack(document(shards=[SHARD.document() | {field: value}]))
        assert caught.value.code == Code.COMMIT


def test_a_shard_counts_once_or_no_more():
    with pytest.raises(ArchiveError, match=r"F023 .*is listed twice"):
        Commit.unpack(document(shards=[SHARD.document(), SHARD.document()]))
    with pytest.raises(ArchiveError, match=r"F023 .*is listed twice"):
        Commit.unpack(document(retired=[{"sha256": SHARD.sha256, "reason": "damaged"}]))


def test_a_first_commit_has_no_parent():
    assert Commit.unpack(document(number=1, parent=None)).parent is None
    with pytest.raises(ArchiveError, match=r"F023 .*null is needed"):
        Commit.unpack(document(number=1))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'{"a":1,"a":1}', b"[" * 10**6, b" " * (MAX_JSON + 1)])
def test_what_is_no_json_is_refused(data):
    with pytest.raises(ArchiveError, match=r"F023"):
        Commit.unpack(data)


def test_what_needs_a_later_version_is_not_guessed_at(store):
    for changes in ({"version": 2}, {"requires": ["encryption"]}):
        with pytest.raises(ArchiveError, match=r"F003"):
            Commit.unpack(document(**changes))
    chain = grown(store, 2)
    later = {"number": 3, "parent": hashlib.sha256(store.tail(commit_name(2), 10**6)[0]).hexdigest()}
    store.create(commit_name(3), document(**later, archive_id="00" * 16, requires=["encryption"]))
    for read in (lambda: newest(store), chain.refresh, lambda: append(store, listing(7))):
        with pytest.raises(ArchiveError, match=r"F003 .*00000003.json: .*requires \['encryption'\]"):
            read()


def test_fields_of_a_later_version_are_carried_on(store):
    shard = SHARD.document() | {"parity": "9.parity"}
    commit = Commit.unpack(document(shards=[shard], note={"by": "somebody"}))
    assert json.loads(commit.pack()) == json.loads(document(shards=[shard], note={"by": "somebody"}))
    grown(store, 1)
    append(store, lambda first: replace(commit, number=first.number, archive_id=first.archive_id))
    after = append(store, listing(1))
    assert (after.more, after.shards[0].more) == ({"note": {"by": "somebody"}}, {"parity": "9.parity"})


def test_commits_are_chained(store):
    grown(store, 12)
    files = [store.tail(commit_name(number), 10**6)[0] for number in range(1, 13)]
    parents = [json.loads(data)["parent"] for data in files]
    assert parents == [None, *(hashlib.sha256(data).hexdigest() for data in files[:-1])]
    commit = newest(store)
    assert (commit.number, len(commit.shards)) == (12, 11)
    assert [commit.number for commit in Chain(store).advance()] == list(range(1, 13))


def test_without_commits_there_is_nothing(store):
    assert newest(store) is None
    with pytest.raises(ArchiveError, match=r"F024 .*there is no first commit"):
        append(store, listing(1))


def test_what_changes_nothing_creates_nothing(store):
    chain = grown(store, 3)
    assert chain.append(lambda commit: commit).number == 3
    assert len(list(store.list("data/commits"))) == 3


def test_the_first_commit_decides_the_archives_id(store):
    assert Chain(store).begin(b"a" * 16).archive_id == b"a" * 16
    assert Chain(store).begin(b"b" * 16).archive_id == b"a" * 16


@pytest.mark.parametrize("damage", ["flipped", "cut", "emptied", "gone", "another archive's", "another's parent"])
def test_a_damaged_commit_ends_the_chain_and_stops_writers(tmp_path, damage):
    store, other = LocalStore(tmp_path / "a"), LocalStore(tmp_path / "b")
    grown(store, 9)
    Chain(other).begin(b"b" * 16)
    for number in range(8):
        append(other, listing(number))
    path = store.path(commit_name(5))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    parent = json.loads(path.read_bytes()) | {"parent": "00" * 32}
    path.write_bytes(
        {
            "flipped": bytes(content),
            "cut": path.read_bytes()[:-10],
            "emptied": b"",
            "another archive's": other.tail(commit_name(5), 10**6)[0],
            "another's parent": signed(parent),
        }.get(damage, b"")
    )
    if damage == "gone":
        path.unlink()
    chain = Chain(store)
    assert chain.refresh().number == 4
    files = sorted(stored.name for stored in store.list("data"))
    with pytest.raises(ArchiveError) as caught:
        append(store, listing(99))
    assert caught.value.code in {Code.COMMIT, Code.CHAIN}
    assert "0000000" in str(caught.value) or "commit 9 is there" in str(caught.value)
    assert sorted(stored.name for stored in store.list("data")) == files


@pytest.mark.parametrize("number", [2, 3])
def test_every_byte_of_a_commit_is_covered(store, number):
    grown(store, 3)
    path = store.path(commit_name(number))
    sound = path.read_bytes()
    for offset in range(len(sound)):
        content = bytearray(sound)
        content[offset] ^= 1 << offset % 8
        path.write_bytes(content)
        chain = Chain(store)
        assert chain.refresh().number == number - 1
        assert chain.broken


class Slow(LocalStore):
    """Lets another writer be quicker, the first few times that a commit is created."""

    def __init__(self, root: Path, others: int) -> None:
        super().__init__(root)
        self.others = others

    def create(self, name: str, data: bytes | Path) -> bool:
        if commit_number(name) and self.others:
            self.others -= 1
            append(LocalStore(self.root), listing(1000 + self.others))
        return super().create(name, data)


def test_a_slower_writer_takes_the_next_number(store, tmp_path):
    grown(store, 2)
    commit = append(Slow(tmp_path, others=3), listing(1))
    assert (commit.number, len(commit.shards)) == (6, 5)
    assert newest(store) == commit


def test_a_change_that_always_changes_is_made_once(store):
    chain, asked = grown(store, 1), []

    def change(commit: Commit) -> Commit:
        asked.append(commit.number)
        return listing(len(asked))(commit)

    assert [chain.append(change).number for _ in range(3)] == [2, 3, 4]
    assert asked == [1, 2, 3]


def test_an_unreadable_commit_is_not_taken_for_the_end(store, monkeypatch):
    """Falling back to an older commit would pass old contents off as the newest."""
    grown(store, 4)
    tail = LocalStore.tail

    def fail(self: LocalStore, name: str, length: int) -> tuple[bytes, int]:
        if name == commit_name(3):
            raise ArchiveError(Code.IO, "made to fail")
        return tail(self, name, length)

    monkeypatch.setattr(LocalStore, "tail", fail)
    with pytest.raises(ArchiveError, match=r"F018 .*made to fail"):
        newest(store)


def test_reading_a_chain_again_asks_for_what_is_new(store, monkeypatch):
    chain, asked = grown(store, 20), []
    tail = LocalStore.tail

    def noted(self: LocalStore, name: str, length: int) -> tuple[bytes, int]:
        asked.append(name)
        return tail(self, name, length)

    monkeypatch.setattr(LocalStore, "tail", noted)
    assert chain.refresh().number == 20
    assert asked == [commit_name(21)]
    with pytest.raises(NotThere):
        store.open(commit_name(21))


def test_names_say_what_they_are():
    assert (commit_name(7), commit_name(1_048_576)) == ("data/commits/00000007.json", "data/commits/01048576.json")
    assert commit_number("data/commits/00000007.json") == 7
    for name in (
        "data/commits/7.json",
        "data/commits/00000000.json.tmp",
        "data/commits/+0000007.json",
        "00000007.json",
    ):
        assert commit_number(name) is None
    assert shard_of(shard_name("ab" * 32)) == "ab" * 32
    for name in ("data/shards/x.fold", f"data/shards/{'AB' * 32}.fold", f"{'ab' * 32}.fold", "ab" * 32):
        assert shard_of(name) is None
