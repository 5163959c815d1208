"""Archives that are nearly right: fields changed, checksums made right again up to some depth. They may be refused.

A few hundred by default, always the same; `FRAMEFOLD_FUZZ_RUNS=50000 pytest tests/fuzz` tries that many. A failure
names the run, and `FRAMEFOLD_FUZZ_FIRST=12345 FRAMEFOLD_FUZZ_RUNS=1` repeats it alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
import zlib
from base64 import b64decode
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from copy import deepcopy
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from framefold.pipeline.archive import ArchiveError, Bank, Code, ShardReader
from framefold.pipeline.archive.commits import Commit, ShardRecord
from framefold.pipeline.archive.files import InputFile
from framefold.pipeline.archive.verify import verify_file

ROOT = Path(__file__).parents[2]
Guard = Callable[[], AbstractContextManager[None]]
FIRST, RUNS = int(os.environ.get("FRAMEFOLD_FUZZ_FIRST", "0")), int(os.environ.get("FRAMEFOLD_FUZZ_RUNS", "300"))
NUMBERS = (0, 1, 2, 3, 7, 8, 63, 64, 65, 255, 2**16, 2**20, 2**28, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**64 - 1)
VALUES = (
    None,
    True,
    -1,
    0,
    1,
    2**53 - 1,
    2**53,
    1e308,
    "",
    "..",
    "a/b",
    "0" * 64,
    "u000002",
    "\0",
    [],
    {},
    [[]],
    [0] * 99,
)
HEADER, ENTRY = struct.Struct("<8s4sHHIIIIqqIIII"), struct.Struct("<QIIqqI4sII32s")
KINDS = (
    b"Srce",
    b"Cdec",
    b"Unit",
    b"Tabl",
    b"Pack",
    b"qual",
    b"pckt",
    b"atch",
    b"copy",
    b"Mani",
    b"Indx",
    b"Zoom",
    b"zoom",
)


class Bytes:
    """A file in memory."""

    path = "memory.fold"

    def __init__(self, data: bytes) -> None:
        self.data, self.size = data, len(data)

    def read(self, offset: int, length: int) -> bytes:
        if offset + length > self.size:
            raise ArchiveError(Code.CUT, "the file ends early")
        return self.data[offset : offset + length]

    def close(self) -> None:
        pass


class Chunk:
    """A chunk's fields by their names in the specification; its checksums are made when it is joined to others."""

    def __init__(self, header: tuple[Any, ...], entry: tuple[Any, ...], payload: bytes) -> None:
        self.header, self.entry, self.payload = list(header), list(entry), payload

    def sign(self, depth: int, number: int, offset: int) -> bytes:
        """Header, payload and padding, after numbers and checksums were made right down to `depth`."""
        if depth > 0:
            self.header[6] = self.header[11] = len(self.payload)
            self.header[7], self.header[12] = number, crc32(self.payload)
            self.header[13] = crc32(HEADER.pack(*self.header)[:60])
        raw = HEADER.pack(*self.header) + self.payload
        if depth > 1:
            self.entry[0], self.entry[1], self.entry[9] = offset, len(self.payload), hashlib.sha256(raw).digest()
        return raw + bytes(-len(raw) % 8)


class Parts:
    """A file taken apart."""

    def __init__(self, data: bytes) -> None:
        self.head, self.foot = bytearray(data[:64]), bytearray(data[-64:])
        index, length = struct.unpack_from("<QQ", self.foot)
        entries = [*ENTRY.iter_unpack(data[index + 64 : index + 64 + length])]
        self.chunks = [self._chunk(data, entry) for entry in entries]
        self.index = Chunk(HEADER.unpack(data[index : index + 64]), entries[0], b"")

    def _chunk(self, data: bytes, entry: tuple[Any, ...]) -> Chunk:
        start, size = entry[:2]
        header = HEADER.unpack(data[start : start + 64])
        return Chunk(header, entry, data[start + 64 : start + 64 + size])

    def join(self, depth: int) -> bytes:
        """The file, with right checksums: from 1 on of chunks, 2 in the index, 3 of it, 4 of header and footer."""
        if depth > 3:
            self.head[60:] = struct.pack("<I", crc32(self.head[:60]))
        data = bytes(self.head)
        for number, chunk in enumerate(self.chunks):
            data += chunk.sign(depth, number, len(data))
        self.index.payload = b"".join(ENTRY.pack(*chunk.entry) for chunk in self.chunks)
        raw = self.index.sign(min(depth, 1), len(self.chunks), 0) if depth > 2 else self.index.sign(0, 0, 0)
        if depth > 3:
            place = (len(data), len(self.index.payload), len(self.chunks), hashlib.sha256(raw).digest())
            self.foot[:56] = struct.pack("<QQQ32s", *place)
            self.foot[56:60] = struct.pack("<I", crc32(self.foot[:56]))
        return data + raw + bytes(self.foot)


Change = Callable[[Parts, random.Random], None]


def change_field(parts: Parts, dice: random.Random) -> None:
    """A number in a header, in its index entry or, most of the time, in both alike."""
    chunk, way = dice.choice(parts.chunks), dice.random()
    name, at, place, form = dice.choice(
        [("stream", 4, 2, "I"), ("t0", 8, 3, "q"), ("duration", 9, 4, "q"), ("items", 10, 5, "I"), ("first", 2, 7, "H")]
    )
    value = number(dice, struct.calcsize(form), signed=form == "q")
    if way < 0.8 and name != "first":
        chunk.header[at] = value
    if way > 0.1:
        chunk.entry[place] = value


def change_entry(parts: Parts, dice: random.Random) -> None:
    """A number that only the index has, or that all checksums hide."""
    place = dice.choice((0, 1, 2, 5, 7, 8))
    dice.choice(parts.chunks).entry[place] = number(dice, 8 if place == 0 else 4)


def change_layout(parts: Parts, dice: random.Random) -> None:
    """Version, flags or shard tag of a chunk."""
    place = dice.choice((2, 3, 5))
    dice.choice(parts.chunks).header[place] = number(dice, 4 if place == 5 else 2)


def change_kind(parts: Parts, dice: random.Random) -> None:
    chunk, kind = dice.choice(parts.chunks), dice.choice((*KINDS, dice.randbytes(4)))
    chunk.header[1] = chunk.entry[6] = kind


def change_order(parts: Parts, dice: random.Random) -> None:
    """A chunk is lost, comes twice or stands elsewhere."""
    place = dice.randrange(len(parts.chunks))
    chunk = parts.chunks[place] if dice.random() < 0.4 else parts.chunks.pop(place)
    if dice.random() < 0.6:
        parts.chunks.insert(dice.randrange(len(parts.chunks) + 1), deepcopy(chunk))
    if not parts.chunks:
        parts.chunks.append(chunk)


def change_payload(parts: Parts, dice: random.Random) -> None:
    chunk = dice.choice(parts.chunks)
    chunk.payload = spoil(chunk.payload, dice)


def change_deflated(parts: Parts, dice: random.Random) -> None:
    """What is inside a table, a copy or a packet table."""
    chunk = dice.choice(
        [chunk for chunk in parts.chunks if chunk.entry[6] in (b"Tabl", b"copy", b"pckt")] or parts.chunks
    )
    start, size = 0, len(chunk.payload)
    if chunk.entry[6] == b"pckt" and size >= 48:
        start, size = 48, struct.unpack_from("<I", chunk.payload, 44)[0]
    with suppress(zlib.error):
        plain = zlib.decompress(chunk.payload[start : start + size])
        changed = json_or_bytes(plain, dice) + (b"\0" * 10**7 if dice.random() < 0.02 else b"")
        packed = zlib.compress(changed, dice.choice((0, 9)))
        head = chunk.payload[:start]
        if start:
            head = head[:44] + struct.pack("<I", len(packed))
        chunk.payload = head + packed + chunk.payload[start + size :]


def change_document(parts: Parts, dice: random.Random) -> None:
    chunk = dice.choice([chunk for chunk in parts.chunks if chunk.payload[:1] == b"{"] or parts.chunks)
    chunk.payload = json_or_bytes(chunk.payload, dice)


def change_record(parts: Parts, dice: random.Random) -> None:
    """The file's own header, footer or the index's header."""
    record = dice.choice((parts.head, parts.foot))
    if dice.random() < 0.3:
        parts.index.header[dice.choice((2, 4, 6, 7, 10))] = number(dice, 2)
    else:
        struct.pack_into("<I", record, 4 * dice.randrange(15), number(dice, 4))


CHANGES: tuple[Change, ...] = (
    *(change_field, change_entry, change_layout, change_kind, change_order),
    *(change_payload, change_payload, change_deflated, change_deflated, change_document, change_record),
)


def number(dice: random.Random, size: int, *, signed: bool = False) -> int:
    """A number of so many bytes, rather a notable one."""
    value = dice.choice(NUMBERS) if dice.random() < 0.8 else dice.randrange(2 ** (8 * size))
    value %= 2 ** (8 * size)
    return value - 2 ** (8 * size) if signed and value >= 2 ** (8 * size - 1) else value


def spoil(data: bytes, dice: random.Random) -> bytes:
    """Bytes that change, come or go."""
    at, size = dice.randrange(len(data) + 1), dice.choice((1, 1, 4, 8))
    way = dice.randrange(4)
    if way == 0:
        return data[:at] + dice.randbytes(size) + data[at:]
    if way == 1:
        return data[:at] + data[at + size :]
    if way == 2:
        return data[:at] + dice.choice(NUMBERS).to_bytes(8, "little")[:size] + data[at + size :]
    return data[: at - at % 4] + dice.randbytes(size) + data[at - at % 4 + size :]


def json_or_bytes(data: bytes, dice: random.Random) -> bytes:
    """A document with a value of another kind in it, or bytes with other bytes."""
    with suppress(ValueError):
        if dice.random() < 0.8:
            document = json.loads(data)
            replace_value(document, dice)
            return json.dumps(document).encode()
    return spoil(data, dice)


def replace_value(document: Any, dice: random.Random) -> None:
    """Somewhere inside; a field may also go, or come."""
    while True:
        keys = list(document) if isinstance(document, dict) else list(range(len(document)))
        if not keys:
            break
        key = dice.choice(keys)
        if isinstance(document[key], dict | list) and document[key] and dice.random() < 0.8:
            document = document[key]
            continue
        if dice.random() < 0.2:
            del document[key]
        else:
            document[key] = deepcopy(dice.choice(VALUES))
        break
    if dice.random() < 0.1 and isinstance(document, dict):
        document["later"] = dice.choice(VALUES)


def vectors() -> list[bytes]:
    lines = (ROOT / "tests" / "golden" / "archive_v1_1.jsonl").read_text(encoding="ascii").splitlines()
    old = (ROOT / "tests" / "golden" / "archive_v1.fold").read_bytes()
    return [old, *(zlib.decompress(b64decode(json.loads(line)["archive"])) for line in lines)]


@pytest.fixture(scope="module")
def seeds() -> list[bytes]:
    return vectors()


@pytest.fixture(scope="module")
def fold_reader() -> Any:
    spec = spec_from_file_location("fold_reader", ROOT / "tools" / "fold_reader.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(data: bytes) -> dict[str, Any]:
    """Everything that framefold's reader gives."""
    reader = ShardReader(Bytes(data))  # type: ignore[arg-type]  # a Readable whose path cannot be assigned
    units = {unit.id: (reader.read_unit(unit.id).payload, reader.quality(unit.id)) for unit in reader.units}
    packets = {block.id: reader.read_packets(block.id) for block in reader.packet_blocks}
    attached = {sha256: reader.read_attachment(sha256) for sha256 in reader.attachments}
    for error in (*reader.problems, *reader.attachment_damage):
        raise error
    facts = (reader.sources, reader.codecs, reader.keys, reader.manifest, reader.header)
    return {"units": units, "packets": packets, "attachments": attached, "facts": facts}


def read_by_second(fold_reader: Any, path: Path) -> Any:
    """The second reader's archive, if it finds nothing wrong with it."""
    archive = fold_reader.Archive(path)
    for _, _, says, _ in archive.examine():
        if isinstance(says, fold_reader.Problem):
            raise says
    return archive


def make(seeds: list[bytes], run: int) -> bytes:
    dice = random.Random(run)
    parts = Parts(dice.choice(seeds))
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        dice.choice(CHANGES)(parts, dice)
    return parts.join(dice.choice((0, 1, 2, 3, 4, 4, 4, 4, 4, 4)))


def test_taking_apart_and_joining_changes_nothing(seeds: list[bytes]) -> None:
    for data in seeds:
        for depth in range(5):
            assert Parts(data).join(depth) == data


def test_what_is_nearly_right_is_read_or_refused_and_nothing_else(
    seeds: list[bytes], tmp_path: Path, fold_reader: Any, guarded: Guard
) -> None:
    path, outcomes = tmp_path / "fuzzed.fold", {"both": 0, "neither": 0, "one": 0}
    for run in range(FIRST, FIRST + RUNS):
        path.write_bytes(make(seeds, run))
        try:
            with guarded():
                outcomes[try_all(path, fold_reader)] += 1
        except Exception as error:
            raise AssertionError(f"run {run}: {error!r}") from error
    assert min(outcomes.values()) > 0 or RUNS < 300, outcomes


def try_all(path: Path, fold_reader: Any) -> str:
    """Who reads the file; what two readers read is the same."""
    data, ours, theirs = path.read_bytes(), None, None
    Bank.of(path)
    findings = verify_file(Bytes(data))  # type: ignore[arg-type]  # as above
    with suppress(ArchiveError):
        ours = read(data)
    with suppress(fold_reader.Problem):
        theirs = read_by_second(fold_reader, path)
    assert ours is not None or findings, "what cannot be read is not in order"
    if ours is None or theirs is None:
        return "neither" if ours is theirs else "one"
    for name, (payload, _) in ours["units"].items():
        assert theirs.extract(name, raw=False) == payload
    for name, content in ours["attachments"].items():
        assert theirs.extract(name, raw=False) == content
    return "both"


def test_one_flipped_bit_gives_nothing_wrong(seeds: list[bytes]) -> None:
    dice, whole = random.Random(FIRST), {}
    for run in range(RUNS):
        seed = dice.choice(seeds)
        data, at = bytearray(seed), dice.randrange(len(seed))
        data[at] ^= 1 << dice.randrange(8)
        with suppress(ArchiveError):
            if seed not in whole:
                whole[seed] = read(seed)
            assert read(bytes(data)) == whole[seed], (run, at)
            # The copy gave it, or nobody asked for it; whoever verifies sees it all the same.
            assert verify_file(Bytes(bytes(data))), (run, at)  # type: ignore[arg-type]  # as above


def test_commits_that_are_nearly_right_are_read_or_refused() -> None:
    dice = random.Random(FIRST)
    shard = ShardRecord(sha256="0" * 64, bytes=9, index_sha256="1" * 64, units=1)
    place = {"number": 2, "parent": "2" * 64, "archive_id": bytes(16)}
    whole = Commit(**place, created="2026-01-31T12:00:00Z", generator="x", shards=(shard,))
    assert Commit.unpack(whole.pack()) == whole
    for _ in range(RUNS):
        data = json_or_bytes(whole.pack(), dice)
        with suppress(ArchiveError):
            Commit.unpack(signed(data) if dice.random() < 0.9 else data)


def signed(data: bytes) -> bytes:
    """A commit's bytes with the SHA-256 that it should have, if it is JSON."""
    with suppress(ValueError):
        document = json.loads(data)
        if isinstance(document, dict):
            rest = {name: value for name, value in document.items() if name != "sha256"}
            plain = json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()
            return json.dumps({**rest, "sha256": hashlib.sha256(plain).hexdigest()}).encode()
    return data


def test_a_writers_bank_takes_nothing_wrong_from_what_it_finds(
    seeds: list[bytes], tmp_path: Path, guarded: Guard
) -> None:
    path = tmp_path / "left.part"
    for run in range(FIRST, FIRST + RUNS // 10):
        path.write_bytes(make(seeds, run))
        with InputFile.open(path) as file, guarded():
            Bank.read(file)
