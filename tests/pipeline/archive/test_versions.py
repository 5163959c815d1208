"""Old readers and new writers: what may be passed over is, and kept; what must be known is refused by number."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from zlib import crc32

import pytest

from framefold.pipeline.archive import ArchiveError, ArchiveReader, ShardReader, verify
from framefold.pipeline.archive.records import FileHeader
from framefold.pipeline.archive.repair import repair_file
from framefold.pipeline.archive.verify import verify_file


@pytest.fixture
def later(rich, pieces, tmp_path):
    """Writes the archive as a later version might: `change` gets its pieces."""

    def write(change):
        apart = pieces(rich.read_bytes())
        change(apart)
        path = tmp_path / "later.fold"
        path.write_bytes(apart.join())
        return path

    return write


@pytest.fixture
def same_as_rich(rich, in_memory, read_everything):
    """Whether a file gives all that the archive gives."""

    def compare(path):
        return read_everything(in_memory(path.read_bytes())) == read_everything(in_memory(rich.read_bytes()))

    return compare


@pytest.fixture
def refused_by_second(fold_reader):
    """The problems that the second reader has with a file."""

    def look(path):
        return [str(says) for _, _, says, _ in fold_reader.Archive(path).examine() if isinstance(says, Exception)]

    return look


def place(apart, kind):
    """Number of the first chunk of a type."""
    return next(number for number, (own, *_) in enumerate(apart.chunks) if own == kind)


def before_the_copy(apart):
    return len(apart.chunks) - 2


@pytest.mark.parametrize("kind", [b"zoom", b"fhsh", b"aAAA", b"zZZZ"])
@pytest.mark.parametrize("payload", [b"", b"anything", bytes(1000)])
def test_an_unknown_ancillary_chunk_is_passed_over(later, same_as_rich, fold_reader, kind, payload):
    fields = {"stream": 12, "t0": -7, "duration": 99, "items": 2**32 - 1, "first_item": 77, "codec": 5}
    path = later(lambda apart: apart.insert(before_the_copy(apart), kind, payload, **fields))
    assert verify(path) == ()
    assert same_as_rich(path)
    archive = fold_reader.Archive(path)
    assert archive.extract(archive.names[-3], raw=False) == payload


def test_the_second_reader_passes_over_them_too(later, refused_by_second):
    assert refused_by_second(later(lambda apart: apart.insert(before_the_copy(apart), b"fhsh", b"x"))) == []


def test_an_unknown_ancillary_chunk_is_checked_like_any_other(later):
    path = later(lambda apart: apart.insert(before_the_copy(apart), b"fhsh", b"precious"))
    data = path.read_bytes()
    at = data.index(b"precious")
    path.write_bytes(data[:at] + b"P" + data[at + 1 :])
    assert [(finding.code, finding.chunk[0]) for finding in verify(path)] == [("F010", "f")]


@pytest.mark.parametrize("kind", [b"Zoom", b"Strm", b"UNIT", b"Aaaa"])
def test_an_unknown_critical_chunk_is_refused(later, fold_reader, kind):
    path = later(lambda apart: apart.insert(before_the_copy(apart), kind, b"?"))
    with pytest.raises(ArchiveError, match="F013"):
        ArchiveReader.open(path)
    with pytest.raises(fold_reader.Problem, match="F013"):
        fold_reader.Archive(path)
    assert "F013" in {finding.code for finding in verify(path)}


ALL = [b"Srce", b"Cdec", b"Unit", b"Tabl", b"Pack", b"qual", b"pckt", b"atch", b"copy", b"Mani"]


@pytest.mark.parametrize("kind", ALL)
def test_a_payload_layout_of_a_later_version_is_refused(rich, tmp_path, pieces, refused_by_second, kind):
    class Later(pieces):
        """The first chunk of this type has the next layout."""

        def _chunk(self, number, own, payload, said):
            raw = super()._chunk(number, own, payload, said)
            return relabelled(raw) if own == kind and number == place(self, kind) else raw

    path = tmp_path / "later.fold"
    path.write_bytes(Later(rich.read_bytes()).join())
    assert "F003" in {finding.code for finding in verify(path)}
    assert "F003" in {problem[:4] for problem in refused_by_second(path)}


def relabelled(raw):
    head = raw[:12] + struct.pack("<H", 2) + raw[14:60]
    return head + struct.pack("<I", crc32(head)) + raw[64:]


@pytest.mark.parametrize("minor", [0, 1, 2, 65_535])
def test_any_minor_version_is_read(later, same_as_rich, refused_by_second, minor):
    def change(apart):
        old = FileHeader.unpack(apart.file_header)
        new = FileHeader(minor=minor, archive_id=old.archive_id, shard_id=old.shard_id, compatible=7)
        apart.file_header = new.pack()
        del apart.chunks[-2]  # the copy, which has the header in it

    path = later(change)
    assert verify(path) == ()
    assert same_as_rich(path)
    assert refused_by_second(path) == []


@pytest.mark.parametrize("kind", [b"Srce", b"Mani", b"qual"])
def test_fields_that_a_later_version_adds_are_kept(later, in_memory, fold_reader, kind):
    def change(apart):
        number = place(apart, kind)
        own, payload, fields = apart.chunks[number]
        document = json.loads(payload) | {"later": {"a": [1, None]}}
        apart.chunks[number] = (own, json.dumps(document).encode(), fields)
        del apart.chunks[-2]  # the copy

    path = later(change)
    assert verify_file(in_memory(path.read_bytes())) == ()
    says = [says for _, entry, says, _ in fold_reader.Archive(path).examine() if entry.kind == kind.decode()]
    assert any(document.get("later") == {"a": [1, None]} for document in says)
    if kind == b"Srce":
        assert ShardReader.open(path).sources[0].document["later"] == {"a": [1, None]}


def test_repair_keeps_what_it_does_not_know(later, tmp_path, fold_reader):
    path = later(lambda apart: apart.insert(before_the_copy(apart), b"fhsh", b"precious", stream=3, items=9))
    data = bytearray(path.read_bytes())
    archive = fold_reader.Archive(path)
    lost = archive.entries[archive.names.index("u000004")]
    data[lost.offset + 70] ^= 1
    path.write_bytes(data)
    assert repair_file(path, tmp_path / "again.fold").state == "rebuilt"
    again = fold_reader.Archive(tmp_path / "again.fold")
    kept = [(name, entry) for name, entry in zip(again.names, again.entries, strict=True) if entry.kind == b"fhsh"]
    assert [(entry.stream, entry.items) for _, entry in kept] == [(3, 9)]
    assert again.extract(kept[0][0], raw=False) == b"precious"


def test_the_archive_of_version_1_0_has_the_minor_version_0():
    old = Path(__file__).parents[2] / "golden" / "archive_v1.fold"
    with ShardReader.open(old) as reader:
        assert reader.header.minor == 0
        assert [reader.read_unit(unit.id).payload for unit in reader.units][-1] == b"picture"
