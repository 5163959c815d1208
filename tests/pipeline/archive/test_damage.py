"""Whatever happens to the bytes: no wrong data, and the damage is named."""

from __future__ import annotations

import os
import random
from bisect import bisect_right
from pathlib import Path

import pytest

from framefold.pipeline.archive import ArchiveError, ArchiveReader, ArchiveWriter, Code, verify
from framefold.pipeline.archive.chunks import read_chunk, read_file_header, read_index
from framefold.pipeline.archive.files import InputFile
from framefold.pipeline.archive.records import CODEC, HEADER_BYTES, INDEX, KNOWN, SOURCE, chunk_id
from framefold.pipeline.archive.scan import Found, scan
from framefold.pipeline.archive.verify import verify_file


class Map:
    """Which chunk a byte of the whole archive belongs to; None for the file's own header and footer."""

    def __init__(self, path: Path) -> None:
        with InputFile.open(path) as file:
            entries, _ = read_index(file)
            self.size = file.size
        self.ids = [chunk_id(entry.kind, number) for number, entry in enumerate(entries)]
        self.starts = [entry.offset for entry in entries]
        self.index = f"i{len(entries):06d}"
        self.end = entries[-1].offset + entries[-1].disk_bytes

    def at(self, offset: int) -> str | None:
        if offset < HEADER_BYTES or offset >= self.size - HEADER_BYTES:
            return None
        if offset >= self.end:
            return self.index
        return self.ids[bisect_right(self.starts, offset) - 1]

    def span(self, number: int) -> slice:
        return slice(self.starts[number], [*self.starts, self.end][number + 1])


@pytest.fixture
def layout(small):
    return Map(small)


def named(path):
    return {finding.chunk for finding in verify(path)}


def outcome(path, read_all):
    try:
        return read_all(path)
    except ArchiveError as error:
        return error


def test_a_whole_archive_has_no_findings(small):
    assert verify(small) == ()
    assert small.stat().st_size < 10_000


def test_every_byte_is_watched_and_verify_names_its_chunk_alone(small, read_all, layout):
    dice = random.Random(1)
    with small.open("r+b", buffering=0) as file:
        for offset, byte in enumerate(small.read_bytes()):
            file.seek(offset)
            file.write(bytes([byte ^ 1 << dice.randrange(8)]))
            assert named(small) == {layout.at(offset)}, offset
            assert isinstance(outcome(small, read_all), ArchiveError), offset
            file.seek(offset)
            file.write(bytes([byte]))
    assert verify(small) == ()


def test_cut_anywhere_it_never_opens_and_the_whole_chunks_are_not_blamed(small, read_all, layout):
    for length in reversed(range(small.stat().st_size)):
        os.truncate(small, length)
        assert isinstance(outcome(small, read_all), ArchiveError), length
        if length % 5:  # one in five takes a second instead of six
            continue
        findings = verify(small)
        assert findings, length
        stops = [*layout.starts[1:], layout.end]
        whole = {name for name, stop in zip(layout.ids, stops, strict=True) if stop <= length}
        assert not whole & {finding.chunk for finding in findings}, length


class Sealed:
    """An archive with every chunk type in memory, its items by chunk number, and what reading all of it gives."""

    def __init__(self, data, in_memory, read_everything):
        self.whole, self.data, self.in_memory, self.read_everything = data, bytearray(data), in_memory, read_everything
        self.entries, self.tag = read_index(in_memory(data))
        self.stops = [entry.offset + entry.disk_bytes for entry in self.entries]
        self.payloads = [read_chunk(in_memory(data), *self.place(number)) for number in range(len(self.entries))]
        self.values = read_everything(in_memory(data))

    def place(self, number):
        return self.entries[number], number, self.tag

    def at(self, offset):
        """Number of the chunk that a byte lies in; None for the file's own records and the index."""
        number = bisect_right(self.stops, offset)
        return number if offset >= HEADER_BYTES and number < len(self.stops) else None

    def outcome(self, data):
        """The error of reading everything; None where all was read, and right."""
        try:
            assert self.read_everything(self.in_memory(data)) == self.values
        except ArchiveError as error:
            return error
        return None

    def kept(self, data):
        """Numbers of the chunks that a scan finds whole; none of them is another than it was."""
        numbers = []
        for piece in scan(self.in_memory(data), end=len(data), shard_tag=self.tag):
            if isinstance(piece, Found) and piece.error is None and piece.header.kind != INDEX:
                start, header = piece.offset + HEADER_BYTES, piece.header
                payload = bytes(data[start : start + header.payload_bytes])
                assert (payload, header.kind) == (self.payloads[header.number], self.entries[header.number].kind)
                numbers.append(header.number)
        assert len(set(numbers)) == len(numbers)
        return numbers


@pytest.fixture
def sealed(rich, in_memory, read_everything):
    return Sealed(rich.read_bytes(), in_memory, read_everything)


def test_the_archive_of_these_tests_has_every_chunk_type(sealed):
    assert {entry.kind for entry in sealed.entries} == KNOWN - {INDEX} | {b"zoom"}
    assert len(sealed.whole) > 9500
    assert verify_file(sealed.in_memory(sealed.whole)) == ()


def test_every_single_bit_is_watched(sealed):
    file = sealed.in_memory(sealed.data)
    for offset, byte in enumerate(sealed.whole):
        number = sealed.at(offset)
        for bit in range(8):
            sealed.data[offset] = byte ^ 1 << bit
            with pytest.raises(ArchiveError):
                read_file_header(file) if number is None else read_chunk(file, *sealed.place(number))
                read_index(file)
        sealed.data[offset] = byte


def test_every_byte_is_watched_by_the_reader(sealed):
    dice, elsewhere = random.Random(3), (SOURCE, CODEC, b"zoom")
    for offset, byte in enumerate(sealed.whole):
        sealed.data[offset] = byte ^ 1 << dice.randrange(8)
        if sealed.outcome(sealed.data) is None:
            # All was read, and right: the copy gave it, or nobody asked for it. `verify` sees it all the same.
            number = sealed.at(offset)
            assert offset < HEADER_BYTES or sealed.entries[number].kind in elsewhere, offset
            assert verify_file(sealed.in_memory(sealed.data)), offset
        sealed.data[offset] = byte


def test_a_scan_of_a_damaged_file_finds_all_other_chunks_and_none_that_is_wrong(sealed):
    dice = random.Random(4)
    for offset, byte in enumerate(sealed.whole):
        sealed.data[offset] = byte ^ 1 << dice.randrange(8)
        assert set(range(len(sealed.entries))) - set(sealed.kept(sealed.data)) <= {sealed.at(offset)}, offset
        sealed.data[offset] = byte


def test_cut_anywhere_the_scan_gives_the_exact_prefix_of_whole_chunks(sealed):
    for length in range(len(sealed.whole)):
        data = sealed.whole[:length]
        assert sealed.outcome(data) is not None, length
        ends = [entry.offset + HEADER_BYTES + entry.payload_bytes for entry in sealed.entries]
        whole = [number for number, stop in enumerate(sealed.stops) if stop <= length]
        kept = sealed.kept(data)
        assert kept[: len(whole)] == whole, length
        assert kept in (whole, [*whole, len(whole)]), length  # of the last only padding may be missing
        assert len(kept) == len(whole) or ends[len(whole)] <= length, length


def spoil(data, dice):
    """Something that happens to files: bytes come in or are lost, a sector is zero, a span is reversed."""
    at, size, way = dice.randrange(len(data)), dice.randint(1, 20), dice.randrange(4)
    if way == 0:
        return data[:at] + dice.randbytes(size) + data[at:]
    if way == 1:
        return data[:at] + data[at + size :]
    if way == 2:
        start = at - at % 512
        return data[:start] + bytes(len(data[start : start + 512])) + data[start + 512 :]
    stop = min(at + dice.randint(2, 400), len(data))
    return data[:at] + data[at:stop][::-1] + data[stop:]


def test_whatever_happens_to_a_file_is_noticed_and_what_is_kept_is_right(sealed):
    dice, kept = random.Random(5), []
    for _ in range(3000):
        data = spoil(sealed.whole, dice)
        if data != sealed.whole:
            kept.append(len(sealed.kept(data)))
            if sealed.outcome(data) is None:
                assert verify_file(sealed.in_memory(data))
    assert sum(kept) / len(kept) > 0.9 * len(sealed.entries)


def test_all_of_several_damaged_chunks_are_named(small, layout):
    data = bytearray(small.read_bytes())
    hit = [1, 4, 7]
    for number in hit:
        data[layout.starts[number] + 70] ^= 1
    small.write_bytes(data)
    assert [finding.chunk for finding in verify(small)] == [layout.ids[number] for number in hit]
    assert {finding.code for finding in verify(small)} == {Code.PAYLOAD}


@pytest.mark.parametrize("ruined", ["header", "footer", "index", "header and index", "index and footer", "all"])
def test_damaged_chunks_are_named_even_without_header_index_or_footer(small, layout, ruined):
    data = bytearray(small.read_bytes())
    own = {"header": 20, "index": layout.end + 100, "footer": len(data) - 30}
    for name, offset in own.items():
        if name in ruined or ruined == "all":
            data[offset] ^= 1
    data[layout.starts[2] + 70] ^= 1  # a payload
    data[layout.starts[4] + 3] ^= 1  # a sync mark
    small.write_bytes(data)
    chunks = named(small)
    known = ruined in ("header", "footer")  # the index still tells the type of the lost chunk
    assert {layout.ids[2], layout.ids[4] if known else "?000004"} <= chunks
    whole = {name for number, name in enumerate(layout.ids) if number not in (2, 4)}
    assert not chunks & whole


def test_a_zeroed_sector_costs_only_the_chunks_it_touches(small, layout, read_all):
    data = small.read_bytes()
    for start in range(0, len(data), 100):
        small.write_bytes(data[:start] + bytes(512) + data[start + 512 :])
        small.write_bytes(small.read_bytes()[: len(data)])
        touched = {layout.at(offset) for offset in range(start, min(start + 512, len(data)))}
        blamed = {chunk[1:] for chunk in named(small) if chunk}
        assert blamed <= {chunk[1:] for chunk in touched if chunk}, start
        assert {chunk[1:] for chunk in touched if chunk and chunk != layout.index} <= blamed | {
            layout.ids[-1][1:],  # with footer and index gone too, nothing says that there was a last chunk
        }, start
        assert isinstance(outcome(small, read_all), ArchiveError), start


def test_inserted_and_removed_bytes_are_found_and_other_chunks_stay_whole(small, layout, read_all):
    dice, data = random.Random(2), small.read_bytes()
    for _ in range(150):
        number = dice.randrange(len(layout.ids))
        span = layout.span(number)
        at, size = dice.randrange(span.start + 1, span.stop), dice.randint(1, 20)
        insert = dice.random() < 0.5
        after = at if insert else min(at + size, span.stop)
        small.write_bytes(data[:at] + dice.randbytes(size if insert else 0) + data[after:])
        assert isinstance(outcome(small, read_all), ArchiveError)
        blamed = named(small) - {None}
        assert blamed in ({layout.ids[number]}, set()), (number, at, insert, size)
        if at < span.stop - 8:  # the last bytes may be padding: nothing of the chunk is then lost
            assert blamed == {layout.ids[number]}, (number, at, insert, size)


def test_damage_to_a_measurement_does_not_keep_a_unit_from_being_read(small, layout):
    data = bytearray(small.read_bytes())
    number = next(number for number, name in enumerate(layout.ids) if name.startswith("q"))
    data[layout.starts[number] + 80] ^= 1
    small.write_bytes(data)
    with ArchiveReader.open(small) as reader:
        unit = reader.units[0].id
        assert reader.read_unit(unit).payload == bytes(range(50))
        with pytest.raises(ArchiveError) as caught:
            reader.quality(unit)
    assert caught.value.chunk == layout.ids[number]


def test_an_archive_inside_a_payload_is_not_taken_for_chunks(tmp_path, small, fill, manifest, source):
    path = tmp_path / "outer.fold"
    inner = small.read_bytes()
    with ArchiveWriter(path) as writer:
        place = {"source": writer.add_source(source("a")), "codec": writer.add_codec("x", {})}
        unit = writer.add_unit(key="0" * 64, **place, first_frame=0, pts=[0], duration_ticks=1, payload=inner)
        fill(writer)
        writer.commit(manifest)
    data = bytearray(path.read_bytes())
    for offset in (data.index(inner) - 130, 20, len(data) - 10):  # the unit's header, the file's own records
        data[offset] ^= 1
    path.write_bytes(data)
    assert named(path) == {None, unit}


def test_chunks_of_another_archive_are_refused(tmp_path, small, fill, manifest):
    other = tmp_path / "other.fold"
    with ArchiveWriter(other, archive_id=bytes(16)) as writer:
        fill(writer)
        writer.commit(manifest)
    mixed = other.read_bytes()[:64] + small.read_bytes()[64:]
    other.write_bytes(mixed)
    with pytest.raises(ArchiveError, match="F009"):
        ArchiveReader.open(other)
    assert Code.DISAGREES in {finding.code for finding in verify(other)}


@pytest.mark.parametrize(
    "content", [b"", b"RIFF", bytes(64), bytes(5000), b"\x89FLD\r\n\x1a\n", b"\x89FLD\n\x1a\n" * 100]
)
def test_other_files_are_not_archives(tmp_path, content):
    path = tmp_path / "a.fold"
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match=r"F00[24]"):
        ArchiveReader.open(path)
    assert verify(path)[0].code in (Code.NOT_AN_ARCHIVE, Code.FILE_HEADER)


def test_what_is_no_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "missing.fold", tmp_path / "fifo", "a\0b"):
        for look in (ArchiveReader.open, verify):
            with pytest.raises(ArchiveError, match="F001"):
                look(path)


def test_a_folder_without_commits_is_no_archive(tmp_path):
    with pytest.raises(ArchiveError, match="F002"):
        ArchiveReader.open(tmp_path)
    with pytest.raises(ArchiveError, match="F001"):
        verify(tmp_path)
