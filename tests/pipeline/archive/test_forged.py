"""Files in which one thing is wrong and every other checksum right: each check on its own finds it."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from zlib import crc32

import pytest

from framefold.pipeline.archive import ArchiveError, ArchiveReader, Code, verify
from framefold.pipeline.archive.chunks import read_index
from framefold.pipeline.archive.files import InputFile
from framefold.pipeline.archive.records import (
    HEADER_BYTES,
    INDEX,
    ChunkHeader,
    FileHeader,
    Footer,
    IndexEntry,
    chunk_id,
)
from framefold.pipeline.archive.unit import UnitHead

QUALITY, UNIT, LAST_UNIT = 5, 4, 8
"""Numbers of chunks in the small archive."""


@dataclass
class Chunk:
    """A chunk that can be changed before the file is put together again."""

    header: bytes
    payload: bytes
    entry: IndexEntry

    def change_header(self, **changes: int) -> None:
        self.header = replace(ChunkHeader.unpack(self.header), **changes).pack()
        self.sign()

    def change_payload(self, payload: bytes) -> None:
        self.payload = payload
        self.entry = replace(self.entry, payload_bytes=len(payload))
        self.change_header(payload_bytes=len(payload), payload_crc=crc32(payload))

    def sign(self) -> None:
        self.entry = replace(self.entry, sha256=sha256(self.header + self.payload).digest())


class Forge:
    """The small archive taken apart."""

    def __init__(self, path: Path) -> None:
        self.path, data = path, path.read_bytes()
        with InputFile.open(path) as file:
            entries, self.tag = read_index(file)
        self.file_header = data[:HEADER_BYTES]
        self.chunks = []
        for entry in entries:
            start = entry.offset + HEADER_BYTES
            payload = data[start : start + entry.payload_bytes]
            self.chunks.append(Chunk(data[entry.offset : start], payload, entry))

    def write(self, *, gap_before: int = -1, shift: int = -1, index_sha256: bytes | None = None) -> None:
        data, entries = self.file_header, b""
        for number, chunk in enumerate(self.chunks):
            data += bytes(8) if number == gap_before else b""
            entries += replace(chunk.entry, offset=len(data) + 8 * (number == shift)).pack()
            data += chunk.header + chunk.payload + bytes(-len(chunk.payload) % 8)
        facts = {"number": len(self.chunks), "payload_bytes": len(entries), "payload_crc": crc32(entries)}
        index = ChunkHeader(kind=INDEX, shard_tag=self.tag, **facts).pack() + entries
        place = {"index_offset": len(data), "index_bytes": len(entries), "entries": len(self.chunks)}
        footer = Footer(**place, index_sha256=index_sha256 or sha256(index).digest())
        self.path.write_bytes(data + index + footer.pack())


@pytest.fixture
def forge(small):
    return Forge(small)


@pytest.fixture
def refused(small, read_all):
    """The code with which reading everything fails; `verify` must report the same, of the same chunk."""

    def look() -> Code:
        with pytest.raises(ArchiveError) as caught:
            read_all(small)
        assert (caught.value.code, caught.value.chunk) in {(one.code, one.chunk) for one in verify(small)}
        return caught.value.code

    return look


def test_putting_it_together_unchanged_changes_nothing(forge, small):
    before = small.read_bytes()
    forge.write()
    assert small.read_bytes() == before


def test_a_payload_replaced_with_its_checksum(forge, refused):
    chunk = forge.chunks[UNIT]
    entry = chunk.entry
    chunk.change_payload(chunk.payload[:-1] + b"!")
    chunk.entry = entry
    forge.write()
    assert refused() == Code.DIGEST


def test_a_payload_replaced_with_its_checksum_where_the_footer_is_lost(forge, small):
    chunk = forge.chunks[UNIT]
    entry = chunk.entry
    chunk.change_payload(chunk.payload[:-1] + b"!")
    chunk.entry = entry
    forge.write()
    small.write_bytes(small.read_bytes()[:-1])
    assert {(one.code, one.chunk) for one in verify(small)} == {(Code.FOOTER, None), (Code.DIGEST, "u000004")}


@pytest.mark.parametrize(
    "change",
    [{"number": 7}, {"shard_tag": 1}, {"stream": 1}, {"t0": 1}, {"duration": 1}, {"items": 1}, {"kind": b"Cdec"}],
    ids=str,
)
def test_a_header_that_says_other_than_the_index(forge, refused, change):
    forge.chunks[UNIT].change_header(**change)
    forge.write()
    assert refused() == Code.DISAGREES


@pytest.mark.parametrize(
    "change", [{"t0": 1}, {"duration": 1}, {"items": 23}, {"first_item": 1}, {"codec": 1}], ids=str
)
def test_a_head_that_says_other_than_the_index(forge, refused, change):
    chunk = forge.chunks[UNIT]
    chunk.entry = replace(chunk.entry, **change)
    chunk.change_header(**{name: value for name, value in change.items() if name not in ("first_item", "codec")})
    forge.write()
    assert refused() == Code.DISAGREES


@pytest.mark.parametrize("number", [0, 1, UNIT, QUALITY, 9])
def test_a_payload_layout_of_the_future(forge, refused, number):
    forge.chunks[number].change_header(version=2)
    forge.write()
    assert refused() == Code.UNSUPPORTED


@pytest.mark.parametrize(("offset", "value"), [(14, 1), (52, 10**9)])
def test_a_compressed_payload(forge, refused, offset, value):
    chunk = forge.chunks[UNIT]
    body = bytearray(chunk.header[:60])
    struct.pack_into("<H" if offset == 14 else "<I", body, offset, value)
    chunk.header = bytes(body) + crc32(body).to_bytes(4, "little")
    chunk.sign()
    forge.write()
    assert refused() == Code.UNSUPPORTED


def test_bytes_between_two_chunks(forge, small):
    forge.write(gap_before=UNIT)
    with pytest.raises(ArchiveError, match="F007"):
        ArchiveReader.open(small)
    codes = [one.code for one in verify(small)]
    assert codes == [Code.LAYOUT, Code.FOREIGN_BYTES]


def test_an_index_that_puts_one_chunk_elsewhere(forge, small):
    forge.write(shift=UNIT)
    with pytest.raises(ArchiveError, match="F007"):
        ArchiveReader.open(small)
    assert [one.code for one in verify(small)] == [Code.LAYOUT]


def test_an_index_replaced_with_its_checksum(forge, small):
    forge.write(index_sha256=bytes(32))
    with pytest.raises(ArchiveError, match="F006"):
        ArchiveReader.open(small)
    assert [(one.code, one.chunk) for one in verify(small)] == [(Code.INDEX, "i000010")]


def test_an_index_of_another_file(forge, small):
    forge.tag ^= 1
    forge.write()
    with pytest.raises(ArchiveError, match="F009"):
        ArchiveReader.open(small)
    assert [one.code for one in verify(small)] == [Code.DISAGREES]


def test_a_source_out_of_turn(forge, refused):
    chunk = forge.chunks[0]
    chunk.entry = replace(chunk.entry, stream=1)
    chunk.change_header(stream=1)
    forge.write()
    assert refused() == Code.LAYOUT


@pytest.mark.parametrize("payload", [b'{"measured":{},"unit":"u000006"}', b'{"measured":1,"unit":"u000004"}', b"{}"])
def test_a_measurement_of_another_unit(forge, refused, payload):
    forge.chunks[QUALITY].change_payload(payload)
    forge.write()
    assert refused() == Code.DISAGREES


@pytest.fixture
def rich_forge(rich):
    return Forge(rich)


@pytest.fixture
def refused_of_rich(rich, in_memory, read_everything):
    """The code and chunk with which reading everything fails; `verify` must report the same."""

    def look() -> tuple[Code, str | None]:
        with pytest.raises(ArchiveError) as caught:
            read_everything(in_memory(rich.read_bytes()))
        assert (caught.value.code, caught.value.chunk) in {(one.code, one.chunk) for one in verify(rich)}
        return caught.value.code, caught.value.chunk

    return look


@pytest.fixture
def first_of(rich_forge):
    """The first chunk of a type and its id."""

    def find(kind):
        number, chunk = next(pair for pair in enumerate(rich_forge.chunks) if pair[1].entry.kind == kind)
        return chunk, chunk_id(kind, number)

    return find


NEW = [b"Tabl", b"Pack", b"pckt", b"atch", b"copy"]


@pytest.mark.parametrize("kind", NEW)
def test_a_new_chunks_payload_replaced_with_its_checksum(rich_forge, first_of, refused_of_rich, kind):
    chunk, name = first_of(kind)
    entry = chunk.entry
    chunk.change_payload(chunk.payload[:-1] + bytes([chunk.payload[-1] ^ 1]))
    chunk.entry = entry
    rich_forge.write()
    assert refused_of_rich() == (Code.DIGEST, name)


@pytest.mark.parametrize("kind", NEW)
@pytest.mark.parametrize("change", [{"number": 99}, {"shard_tag": 1}, {"stream": 9}, {"t0": 7}, {"items": 77}], ids=str)
def test_a_new_chunks_header_that_says_other_than_the_index(rich_forge, first_of, refused_of_rich, kind, change):
    chunk, name = first_of(kind)
    chunk.change_header(**change)
    rich_forge.write()
    assert refused_of_rich() == (Code.DISAGREES, name)


def test_a_pack_of_other_bytes_than_its_table_says(rich_forge, first_of, refused_of_rich):
    chunk, _ = first_of(b"Pack")
    chunk.change_payload(chunk.payload + b"!")
    rich_forge.write()
    assert refused_of_rich()[0] == Code.DISAGREES


def test_a_copy_that_is_another_archives(rich_forge, first_of, refused_of_rich):
    chunk, name = first_of(b"copy")
    plain = bytearray(zlib.decompress(chunk.payload))
    plain[plain.index(b"a.mp4")] = ord("b")
    chunk.change_payload(zlib.compress(plain))
    rich_forge.write()
    code, named = refused_of_rich()
    assert (code, named) in ((Code.COPY, "s000000"), (Code.COPY, name))


def test_an_attachment_replaced_with_all_its_checksums(rich_forge, first_of, rich, in_memory, read_everything):
    chunk, _ = first_of(b"atch")
    chunk.change_payload(chunk.payload[:-1] + b"!")
    rich_forge.write()
    with pytest.raises(ArchiveError, match="F011"):
        read_everything(in_memory(rich.read_bytes()))
    assert {one.code for one in verify(rich)} == {Code.DIGEST}


@pytest.mark.parametrize("module", ["contents", "documents"])
def test_json_too_long(small, refused, monkeypatch, module):
    monkeypatch.setattr(f"framefold.pipeline.archive.{module}.MAX_JSON", 20)
    assert refused() == Code.LIMIT


def test_times_that_would_fill_the_memory(forge, refused):
    head = UnitHead(key="0" * 64, codec=0, first_frame=0, duration_ticks=0, pts=(0,)).pack()
    runs = struct.pack("<qqI", 2**40, 1, 65_536) * 400
    forge.chunks[UNIT].change_payload(head[:48] + struct.pack("<I", 400) + runs)
    forge.write()
    tracemalloc.start()
    assert refused() == Code.LIMIT
    assert tracemalloc.get_traced_memory()[1] < 30 * 10**6
    tracemalloc.stop()


def test_a_file_made_to_be_scanned_for_ever_is_given_up(tmp_path):
    path, count = tmp_path / "a.fold", 3000
    header = FileHeader.first_of(bytes(16))
    data = header.pack()
    for number in range(count):  # each header claims nearly all that follows it
        length = 64 * (count - 1 - number)
        facts = {"number": number, "payload_bytes": length, "payload_crc": 0}
        data += ChunkHeader(kind=b"Unit", shard_tag=header.shard_tag, **facts).pack()
    path.write_bytes(data + b"not zero")
    findings = verify(path)
    assert findings[-1].code == Code.LIMIT
    assert len(findings) < 20
