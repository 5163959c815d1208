"""Repair: what is whole is in the new archive and nothing else, what is lost is named, and the old file stays."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from framefold.pipeline.archive import ArchiveError, ArchiveReader, ArchiveWriter, ShardReader, parity, verify
from framefold.pipeline.archive.chain import Chain, newest
from framefold.pipeline.archive.chain_mending import mend_chain
from framefold.pipeline.archive.folder import FolderWriter
from framefold.pipeline.archive.layout import commit_name
from framefold.pipeline.archive.parity_layout import Plan
from framefold.pipeline.archive.repair import Repair, output_beside, repair_file
from framefold.pipeline.archive.repair_folder import repair_folder
from framefold.pipeline.archive.stores import LocalStore
from framefold.pipeline.archive.verify_folder import verify_archive

Content = Mapping[str, Any]


def content_of(path: Path) -> Content:
    """All that an archive holds, by keys that do not depend on numbers."""
    with ArchiveReader.open(path) as reader:
        assert reader.problems == ()
        found: dict[str, Any] = {}
        for unit in reader.units:
            record = reader.read_unit(unit.id)
            found[record.key] = (record, reader.quality(unit.id))
        for entry in reader.packet_blocks:
            block = reader.read_packets(entry.id)
            found[block.key] = (block, reader.sources[entry.source].name)
        return found | {sha256: reader.read_attachment(sha256) for sha256 in reader.attachments}


class Patient:
    """An archive of one file, its chunks, and what becomes of it after damage."""

    def __init__(self, path: Path) -> None:
        self.path, self.data, self.out = path, path.read_bytes(), path.with_name("out.fold")
        self.content = content_of(path)
        with ShardReader.open(path) as reader:
            self.ids = [reader.index.id(number) for number in range(len(reader.index))]
            self.starts = [entry.offset for entry in reader.index]
            self.sizes = [entry.payload_bytes for entry in reader.index]
        self.index_at = self.starts[-1] + 64 + -(-self.sizes[-1] // 8) * 8

    def flip(self, *places: int) -> None:
        data = bytearray(self.data)
        for place in places:
            data[place] ^= 1
        self.path.write_bytes(data)

    def payload(self, number: int) -> int:
        """Where a chunk's payload begins."""
        return self.starts[number] + 64

    def repair(self) -> tuple[Repair, Content]:
        """Repair, and hold what comes out against what went in; the result and its content."""
        before = self.path.read_bytes()
        self.out.unlink(missing_ok=True)
        repair = repair_file(self.path, self.out)
        assert self.path.read_bytes() == before
        assert verify(self.out) == ()
        content = content_of(self.out)
        for key, value in content.items():
            if isinstance(value, bytes):
                assert value == self.content[key]
            else:  # the last measurement of a unit may be lost, and an earlier one come to light
                assert value[0] == self.content[key][0]
        return repair, content

    def lost(self, content: Content) -> list[str]:
        return sorted(key for key, value in self.content.items() if content.get(key) != value)


@pytest.fixture
def patient(rich):
    return Patient(rich)


def chunks_of(repair: Repair) -> set[str]:
    return {loss.chunk.split(".")[0] for loss in repair.losses if loss.chunk}


# One file


def test_nothing_is_written_where_nothing_is_wrong(patient):
    assert repair_file(patient.path, patient.out) == Repair(state="whole")
    assert list(patient.path.parent.iterdir()) == [patient.path]


def test_names(tmp_path):
    assert output_beside(tmp_path / "a.fold") == tmp_path / "a.repaired.fold"
    assert output_beside(tmp_path / ".a.fold.part") == tmp_path / ".a.fold.part.repaired.fold"


def test_what_can_be_derived_comes_back_bit_for_bit(patient):
    """File header, index, footer, copy, padding, and the documents that the copy has too."""
    redundant = [number for number, name in enumerate(patient.ids) if name[0] == "s" or name.startswith("c")]
    assert len(redundant) == 5  # two sources, two codecs, the copy
    places = [20, len(patient.data) - 30, patient.index_at + 10, patient.index_at + 200]
    places += [patient.payload(number) for number in redundant] + [patient.starts[number] for number in redundant]
    padded = next(number for number, size in enumerate(patient.sizes) if size % 8)
    places.append(patient.payload(padded) + patient.sizes[padded])
    for place in places:
        patient.flip(place)
        repair, _ = patient.repair()
        assert (repair.state, repair.losses) == ("rebuilt", ()), place
        assert patient.out.read_bytes() == patient.data, place


def test_damage_costs_the_chunk_that_it_touches_and_it_is_named(patient):
    for number, name in enumerate(patient.ids):
        for place in (patient.starts[number] + 3, patient.payload(number) + 1):
            if place >= patient.payload(number) + patient.sizes[number]:
                continue  # an empty attachment
            patient.flip(place)
            repair, content = patient.repair()
            if name[0] in "sc":
                continue
            assert repair.losses, name
            blamed = chunks_of(repair)
            expected = patient.ids[number + 1] if name[0] == "t" else name  # of a table its pack tells
            assert expected in blamed, name
            # other pieces of an attachment are lost with one, and so are pictures whose source a lost table told
            with_it = {"a": "a", "t": "p"}.get(name[0], "-")
            assert blamed <= {expected, *(other for other in patient.ids if other[0] == with_it)}, name
            assert bool(patient.lost(content)) == (name[0] not in "mz"), name


def test_after_any_flipped_bit_all_else_is_there(patient):
    dice = random.Random(1)
    for place in dice.sample(range(len(patient.data)), 80):
        patient.flip(place)
        repair, content = patient.repair()
        lost = patient.lost(content)
        assert bool(lost) <= bool(repair.losses), place
        assert repair.kept.units >= 3, place  # a table at most, with what two packs have of it
        keys = {loss.key for loss in repair.losses if loss.key}
        assert keys <= set(lost), place


def test_cut_anywhere_the_whole_chunks_before_are_kept(patient):
    ends = [start + 64 + -(-size // 8) * 8 for start, size in zip(patient.starts, patient.sizes, strict=True)]
    dice = random.Random(2)
    seen = set()
    for length in sorted(dice.sample(range(patient.starts[4], len(patient.data)), 40)):
        patient.path.write_bytes(patient.data[:length])
        whole = {name for name, end in zip(patient.ids, ends, strict=True) if end <= length}
        repair, content = patient.repair()
        if patient.ids[-1] not in whole:
            assert repair.losses[-1].what in ("end", "manifest"), length
        else:
            assert (repair.losses, patient.out.read_bytes()) == ((), patient.data)
        units = [name for name in whole if name[0] == "u"]
        assert repair.kept.units >= len(units), length
        seen.add(len(content))
    assert len(seen) > 5


def test_inserted_and_removed_bytes_cost_one_chunk(patient):
    dice = random.Random(3)
    for _ in range(40):
        number = dice.randrange(5, len(patient.ids))
        at = patient.starts[number] + dice.randrange(1, 64)
        size = dice.randint(1, 20)
        after = at if dice.random() < 0.5 else at + size
        patient.path.write_bytes(patient.data[:at] + dice.randbytes(size if after == at else 0) + patient.data[after:])
        repair, _ = patient.repair()
        if patient.ids[number][0] not in "sct":
            assert len(chunks_of(repair) - {name for name in patient.ids if name[0] == "a"}) <= 1


def test_a_zeroed_sector_costs_only_what_it_touches(patient):
    for start in range(700, len(patient.data), 300):
        stop = min(start + 512, len(patient.data))
        patient.path.write_bytes(patient.data[:start] + bytes(stop - start) + patient.data[stop:])
        repair, content = patient.repair()
        touched = {
            name
            for name, begin, end in zip(
                patient.ids, patient.starts, [*patient.starts[1:], patient.index_at], strict=True
            )
            if begin < stop and end > start
        }
        untouched_units = [name for name in patient.ids if name[0] == "u" and name not in touched]
        assert repair.kept.units >= len(untouched_units)
        if not touched & {name for name in patient.ids if name[0] in "apqtu"}:
            assert content == patient.content


def test_without_index_sources_come_back_from_the_copy(patient):
    sources = [number for number, name in enumerate(patient.ids) if name.startswith("s")]
    for number in sources:
        patient.flip(patient.payload(number), patient.index_at + 100, len(patient.data) - 30)
        repair, content = patient.repair()
        assert content == patient.content
        assert [loss.what for loss in repair.losses] == []


def test_a_file_that_was_cut_says_so(patient):
    os.truncate(patient.path, patient.starts[8])
    repair, _ = patient.repair()
    assert [str(loss) for loss in repair.losses] == [
        "end: the file was cut: what came after its last whole chunk is lost"
    ]


def test_losses_are_told_in_frames_and_seconds(patient):
    units = [number for number, name in enumerate(patient.ids) if name[0] == "u"]
    patient.flip(patient.payload(units[1]))
    repair, _ = patient.repair()
    (loss,) = repair.losses
    assert loss.document() == {
        "what": "frames",
        "why": "its chunk is damaged or lost",
        "chunk": patient.ids[units[1]],
        "source": "a.mp4",
        "first_frame": 24,
        "items": 24,
        "start_seconds": 1.0,
        "end_seconds": 2.0,
    }
    assert str(loss).startswith("frames 24-47 of a.mp4 from 1.000 s to 2.000 s (u")
    assert loss.key == f"{1:064x}"
    patient.flip(patient.payload(units[2]))
    assert [str(loss).split(" (")[0] for loss in patient.repair()[0].losses] == ["picture b.png"]


def test_of_a_lost_pack_each_picture_is_named(patient):
    pack = next(number for number, name in enumerate(patient.ids) if name[0] == "p")
    patient.flip(patient.payload(pack))
    repair, _ = patient.repair()
    assert [(loss.what, loss.source, loss.chunk) for loss in repair.losses] == [
        ("pictures", f"p/{place}.png", f"{patient.ids[pack]}.{place}") for place in range(3)
    ]


def test_without_index_gaps_in_frames_are_told(tmp_path, source, manifest):
    path = tmp_path / "a.fold"
    with ArchiveWriter(path) as writer:
        place = {"source": writer.add_source(source("a.mp4")), "codec": writer.add_codec("nerv", {})}
        for number in range(5):
            times = {"first_frame": 24 * number, "pts": [25 * frame for frame in range(24 * number, 24 * number + 24)]}
            writer.add_unit(key=f"{number:064x}", **place, **times, duration_ticks=25, payload=b"x" * 100)
        writer.commit(manifest)
    patient = Patient(path)
    hit = [number for number, name in enumerate(patient.ids) if name[0] == "u"][1:3]
    patient.flip(*(patient.starts[number] for number in hit), patient.index_at + 90, len(patient.data) - 10)
    repair, content = patient.repair()
    assert sorted(content) == [f"{number:064x}" for number in (0, 3, 4)]
    unknown = [loss for loss in repair.losses if loss.what == "unknown"]
    assert [loss.chunk for loss in unknown] == [f"?{number:06d}" for number in hit]
    gap = repair.losses[-1]
    assert (gap.source, gap.first_frame, gap.items) == ("a.mp4", 24, 48)
    assert (gap.start_seconds, gap.end_seconds) == (1.0, 3.0)


def test_a_lost_codec_without_copy_costs_its_units_and_numbers_move(small):
    patient = Patient(small)
    first = patient.ids.index("c000002")
    patient.flip(patient.payload(first))
    repair, content = patient.repair()
    assert list(content) == ["f" * 64]
    assert [loss.what for loss in repair.losses] == ["frames", "frames", "codec"]
    assert "its codec is lost" in repair.losses[0].why
    with ShardReader.open(patient.out) as reader:
        assert [codec.name for codec in reader.codecs] == ["coin"]
        assert reader.units[0].codec == 0


def test_a_lost_table_source_is_kept_for_others_that_need_it(patient):
    """The second pack shares a source with the first one's table."""
    packs = [number for number, name in enumerate(patient.ids) if name[0] == "p"]
    patient.flip(patient.payload(packs[0]))
    repair, content = patient.repair()
    with ShardReader.open(patient.out) as reader:
        names = [source.name for source in reader.sources]
    assert sorted(names) == ["a.mp4", "b.png", "p/0.png", "p/1.png"]
    assert repair.kept.units == 5
    assert patient.lost(content) == [f"{number + 16:064x}" for number in range(3)]


def test_unknown_ancillary_chunks_are_taken_over(patient, pieces):
    patient.flip(patient.payload(4))
    patient.repair()
    (kept,) = [one for one in pieces(patient.out.read_bytes()).chunks if one[0] == b"zoom"]
    assert kept[1] == b"of a later version"
    assert (kept[2]["stream"], kept[2]["items"]) == (7, 9)


@pytest.mark.parametrize(("kind", "code"), [(b"Zoom", "F013"), (b"zoom", None)])
def test_what_a_later_version_needs_is_refused(rich, pieces, kind, code):
    apart = pieces(rich.read_bytes())
    apart.insert(3, kind, b"x")
    rich.write_bytes(apart.join()[:-1])
    if code:
        with pytest.raises(ArchiveError, match=code):
            repair_file(rich, rich.with_name("out.fold"))
        assert list(rich.parent.iterdir()) == [rich]


def test_the_manifest_says_that_it_was_repaired_unless_nothing_was_lost(patient):
    with ArchiveReader.open(patient.path) as reader:
        before = reader.manifest
    unit = next(number for number, name in enumerate(patient.ids) if name[0] == "u")
    patient.flip(patient.payload(unit))
    patient.repair()
    with ShardReader.open(patient.out) as reader:
        assert {name: reader.manifest[name] for name in before} == before
        (repair,) = reader.manifest["repairs"]
        assert repair["losses"] == 1
        own_id, shard_id = reader.header.archive_id, reader.header.shard_id
    header = patient.data[:48]
    assert own_id == header[16:32]
    assert shard_id != header[32:48]
    again = Patient(patient.out)
    again.flip(again.payload(again.ids.index(next(name for name in again.ids if name[0] == "u"))))
    again.out = patient.out.with_name("again.fold")
    again.repair()
    with ShardReader.open(again.out) as reader:
        assert len(reader.manifest["repairs"]) == 2


@pytest.mark.parametrize("data", [b"", b"RIFF", bytes(5000), b"\x89FLD\r\n\x1a\n" * 50])
def test_what_holds_nothing_is_refused(tmp_path, data):
    path = tmp_path / "a.fold"
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match="F034"):
        repair_file(path, tmp_path / "out.fold")
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_there_is_not_replaced(patient):
    patient.flip(100)
    patient.out.write_bytes(b"mine")
    with pytest.raises(ArchiveError, match="F018"):
        repair_file(patient.path, patient.out)
    assert patient.out.read_bytes() == b"mine"
    with pytest.raises(ArchiveError, match="F001"):
        repair_file(patient.path.with_name("missing"), patient.out)


@pytest.mark.parametrize("name", ["pwrite", "fdatasync"])
def test_a_disk_that_fails_leaves_nothing(patient, monkeypatch, name):
    patient.flip(100)

    def fail(*_: object) -> None:
        raise OSError(28, "made to fail")

    monkeypatch.setattr(os, name, fail)
    with pytest.raises(ArchiveError, match="F018"):
        repair_file(patient.path, patient.out)
    assert list(patient.path.parent.iterdir()) == [patient.path]


def test_sectors_that_cannot_be_read_cost_what_is_in_them(patient, monkeypatch):
    unit = next(number for number, name in enumerate(patient.ids) if name[0] == "u")
    real, inode = os.pread, patient.path.stat().st_ino

    def failing(fd: int, length: int, offset: int) -> bytes:
        if os.fstat(fd).st_ino == inode and offset <= patient.payload(unit) < offset + length:
            raise OSError(5, "made to fail")
        return real(fd, length, offset)

    monkeypatch.setattr(os, "pread", failing)
    monkeypatch.setattr("framefold.pipeline.archive.worn.WornFile.read.__defaults__", (64,))
    repair = repair_file(patient.path, patient.out)
    assert patient.ids[unit] in chunks_of(repair)
    assert repair.findings[0].code == "F018"
    assert set(content_of(patient.out)) == set(patient.content) - {f"{0:064x}"}


def test_forged_chunks_make_no_other_error(rich, pieces):
    """Chunks with right checksums and wrong contents are left out, or the whole is refused."""
    dice, data, out = random.Random(5), rich.read_bytes(), rich.with_name("out.fold")
    repaired = 0
    for _ in range(80):
        apart = pieces(data)
        number = dice.randrange(len(apart.chunks))
        kind, payload, fields = apart.chunks[number]
        spoilt = bytearray(payload)
        for _ in range(dice.randint(0, 3)):
            if spoilt:
                spoilt[dice.randrange(len(spoilt))] = dice.randrange(256)
        name = dice.choice(list(fields))
        changed = fields | {name: max(0, min(fields[name] + dice.randint(-3, 3), 2**31))}
        apart.chunks[number] = (kind, bytes(spoilt), changed)
        forged = bytearray(apart.join())
        forged[dice.randrange(len(forged) - 500, len(forged))] ^= 1
        rich.write_bytes(forged)
        try:
            repair_file(rich, out)
        except ArchiveError:
            continue
        assert verify(out) == ()
        out.unlink()
        repaired += 1
    assert repaired > 40


def test_where_an_index_is_left_a_chunk_must_have_its_sha256(patient):
    """Checksums of the chunk itself may be right by chance, or by somebody's will."""
    number = patient.ids.index("u000004")
    at, size = patient.starts[number], patient.sizes[number]
    data = bytearray(patient.data)
    data[at + 64 + size - 1] ^= 1
    data[at + 56 : at + 60] = crc32(data[at + 64 : at + 64 + size]).to_bytes(4, "little")
    data[at + 60 : at + 64] = crc32(data[at : at + 60]).to_bytes(4, "little")
    patient.path.write_bytes(data)
    repair, content = patient.repair()
    assert [loss.chunk for loss in repair.losses] == ["u000004"]
    assert patient.lost(content) == ["0" * 64]


def test_a_claim_of_a_million_chunks_costs_nothing(patient, pieces):
    apart = pieces(patient.data)
    apart.insert(0, b"last", b"")
    data = bytearray(apart.join()[: patient.starts[3]])
    header = bytearray(data[64:124])
    header[28:32] = (2**20).to_bytes(4, "little")
    data[64:128] = header + crc32(header).to_bytes(4, "little")
    patient.path.write_bytes(data)
    repair = repair_file(patient.path, patient.out)
    assert len(repair.losses) < 20


# With parity


def protect(path: Path) -> Path:
    size = path.stat().st_size
    plan = Plan(file_bytes=size, block_bytes=64, piece_bytes=64, data_blocks=10, parity_blocks=2)
    return parity.create(path, plan=plan)


def test_parity_heals_bit_for_bit(patient):
    protect(patient.path)
    patient.path.write_bytes(patient.data[:500] + bytes(700) + patient.data[1200:])
    repair, _ = patient.repair()
    assert (repair.state, repair.losses) == ("healed", ())
    assert repair.healed_bytes >= 700 - 64
    assert patient.out.read_bytes() == patient.data


def test_parity_elsewhere_can_be_named(patient):
    beside = protect(patient.path)
    other = beside.rename(beside.with_name("elsewhere"))
    patient.flip(500)
    assert repair_file(patient.path, patient.out, beside=other).state == "healed"
    with pytest.raises(ArchiveError, match="F001"):
        repair_file(patient.path, patient.out.with_name("x"), beside=other.with_name("missing"))


def test_what_parity_mends_in_part_counts(patient):
    protect(patient.path)
    unit = next(number for number, name in enumerate(patient.ids) if name[0] == "u")
    at = patient.payload(unit) // 64 * 64
    groups = (len(patient.data) + 639) // 640
    hopeless = [at + row * groups * 64 for row in range(3) if at + row * groups * 64 < len(patient.data)]
    mendable = [place for place in range(0, len(patient.data), 64) if place // 64 % groups != at // 64 % groups][:20]
    patient.flip(*hopeless, *mendable)
    with_parity, _ = patient.repair()
    parity.path_beside(patient.path).unlink()
    without, _ = patient.repair()
    assert with_parity.state == without.state == "rebuilt"
    assert 1 <= len(with_parity.losses) < len(without.losses)
    assert list(patient.path.parent.glob(".*")) == []


def test_parity_of_an_older_archive_is_not_believed(tmp_path, write_small, source, manifest):
    path = tmp_path / "a.fold"
    with ArchiveWriter(path, archive_id=bytes(16)) as writer:
        writer.add_source(source("old.mp4"))
        writer.commit(manifest)
    whole = Plan(file_bytes=path.stat().st_size, block_bytes=2048, piece_bytes=64, data_blocks=1, parity_blocks=1)
    parity.create(path, plan=whole)  # such a parity gives the whole file back
    write_small(path)
    patient = Patient(path)
    patient.flip(patient.payload(patient.ids.index("u000004")))
    repair, _ = patient.repair()
    assert (repair.state, len(repair.losses)) == ("rebuilt", 1)


def test_a_damaged_parity_file_does_not_keep_from_repairing(patient):
    beside = protect(patient.path)
    patient.flip(patient.payload(patient.ids.index("u000004")))
    for data in (b"", b"junk" * 1000, beside.read_bytes()[:300]):
        beside.write_bytes(data)
        assert patient.repair()[0].state == "rebuilt"


# A folder


@pytest.fixture
def folder(tmp_path, clips):
    place = tmp_path / "collection.fold"
    for start in (0, 10, 20):
        clips.write(place, range(start, start + 10))
    return place


def shards_of(folder: Path) -> list[Path]:
    commit = newest(LocalStore(folder))
    return [folder / "data" / "shards" / f"{record.sha256}.fold" for record in commit.shards]


def spoil(path: Path, *, chunk: str = "u") -> None:
    """Damage the first chunk of a kind."""
    with ShardReader.open(path) as reader:
        number = next(number for number in range(len(reader.index)) if reader.index.id(number)[0] == chunk)
        at = reader.index[number].offset + 70
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def commits_of(folder: Path) -> int:
    return len(list((folder / "data" / "commits").glob("*.json")))


def test_a_whole_folder_is_left_alone(folder):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    repair = repair_folder(folder)
    assert repair.is_whole
    assert [shard.state for shard in repair.shards] == ["whole"] * 3
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_damaged_shard_is_rebuilt_and_retired(folder, clips):
    first, damaged, last = shards_of(folder)
    spoil(damaged)
    bytes_before = damaged.read_bytes()
    repair = repair_folder(folder)
    assert [shard.state for shard in repair.shards] == ["whole", "rebuilt", "whole"]
    assert [(loss.what, loss.source, loss.first_frame) for loss in repair.losses] == [("frames", "clip1.mp4", 10)]
    assert clips.found(folder) == [number for number in range(30) if number != 10]
    assert damaged.read_bytes() == bytes_before
    commit = newest(LocalStore(folder))
    assert commit.number == repair.commit
    assert [record.sha256 for record in commit.shards][::2] == [first.stem, last.stem]  # the new one in its place
    assert [(gone.sha256, bool(gone.reason)) for gone in commit.retired] == [(damaged.stem, True)]
    for path in shards_of(folder):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.stem
        assert verify(path) == ()
    count = commits_of(folder)
    assert repair_folder(folder).is_whole
    assert commits_of(folder) == count
    assert verify_archive(folder).findings == []


@pytest.mark.parametrize("part", ["index", "footer"])
def test_a_shard_of_which_nothing_is_lost_is_itself_again(folder, part):
    _, path, _ = shards_of(folder)
    data = path.read_bytes()
    at = {"index": len(data) - 200, "footer": len(data) - 20}[part]
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    count = commits_of(folder)
    assert [shard.state for shard in repair_folder(folder).shards] == ["whole", "healed", "whole"]
    assert path.read_bytes() == data
    assert commits_of(folder) == count


def test_a_shard_without_its_header_gets_another_name_and_loses_nothing(folder, clips):
    _, path, _ = shards_of(folder)
    path.write_bytes(bytes(64) + path.read_bytes()[64:])
    repair = repair_folder(folder)
    assert ([shard.state for shard in repair.shards], repair.losses) == (["whole", "rebuilt", "whole"], ())
    assert clips.found(folder) == list(range(30))
    with ArchiveReader.open(folder) as reader:
        assert {shard.header.archive_id for _, shard in reader.shards} == {reader.archive_id}


def test_parity_gives_a_shard_back_under_its_name(folder, clips):
    _, path, _ = shards_of(folder)
    beside = parity.path_for(folder, path.stem)
    beside.parent.mkdir()
    parity.create(path, beside)
    data = path.read_bytes()
    path.write_bytes(data[:300] + bytes(200) + data[500:])
    count = commits_of(folder)
    repair = repair_folder(folder)
    assert [shard.state for shard in repair.shards] == ["whole", "healed", "whole"]
    assert repair.shards[1].healed_bytes >= 200
    assert path.read_bytes() == data
    assert commits_of(folder) == count
    assert clips.found(folder) == list(range(30))


def test_a_shard_that_is_gone_stays_listed_and_is_told(folder, clips):
    _, gone, _ = shards_of(folder)
    data = gone.read_bytes()
    beside = parity.path_for(folder, gone.stem)
    beside.parent.mkdir()
    parity.create(gone, beside)
    gone.unlink()
    count = commits_of(folder)
    repair = repair_folder(folder)
    assert [shard.state for shard in repair.shards] == ["whole", "missing", "whole"]
    assert [(loss.what, loss.chunk, loss.items) for loss in repair.losses] == [("shard", gone.stem, 10)]
    assert commits_of(folder) == count
    assert parity.create(_written(gone, data), beside, data_blocks=1, parity_blocks=1) == beside
    gone.unlink()
    assert [shard.state for shard in repair_folder(folder).shards] == ["whole", "healed", "whole"]
    assert clips.found(folder) == list(range(30))


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_unit_that_another_shard_has_is_not_lost(folder, clips, monkeypatch, manifest):
    monkeypatch.setattr("framefold.pipeline.archive.shard_writer.TAIL", 0)  # the copy tells the lost unit's key
    other = folder.with_name("other")
    clips.write(other, range(40, 45), archive_id=newest(LocalStore(folder)).archive_id)
    clips.write(folder, range(40, 45))
    _, *_, twice = shards_of(folder)
    (second,) = shards_of(other)
    shutil.copy(second, folder / "data" / "shards")
    (record,) = newest(LocalStore(other)).shards
    chain = Chain(LocalStore(folder))
    chain.refresh()
    chain.append(lambda commit: replace(commit, shards=(*commit.shards, record)))
    spoil(twice)
    repair = repair_folder(folder)
    assert [shard.state for shard in repair.shards] == ["whole"] * 3 + ["rebuilt", "whole"]
    assert repair.losses == ()
    assert clips.found(folder) == [*range(30), *range(40, 45)]


def test_what_dead_writers_left_becomes_a_shard(folder, clips):
    with FolderWriter(folder) as writer:
        clips.fill(writer, range(50, 55))
        with FolderWriter(folder) as living:
            clips.fill(living, range(60, 62))
            assert repair_folder(folder).is_whole  # both live
    left = sorted((folder / "open").glob("*.fold.open"))
    assert len(left) == 2
    with left[0].open("ab") as file:
        file.write(b"torn")
    repair = repair_folder(folder)
    assert [shard.state for shard in repair.shards] == ["whole"] * 3 + ["adopted"] * 2
    assert repair.losses == ()
    assert clips.found(folder) == [*range(30), *range(50, 55), 60, 61]
    assert sorted((folder / "open").iterdir()) == left  # nothing is deleted
    count = commits_of(folder)
    assert repair_folder(folder).is_whole  # and nothing is adopted twice
    assert commits_of(folder) == count


def test_strange_files_among_the_open_ones_are_left_alone(folder, write_small, tmp_path):
    small = write_small(tmp_path / "small.fold")
    shutil.copy(small, folder / "open" / f"{'0' * 32}.fold.open")  # of another archive
    (folder / "open" / f"{'1' * 32}.fold.open").write_bytes(b"")
    (folder / "open" / f"{'2' * 32}.fold.open").write_bytes(bytes(1000))
    assert repair_folder(folder).is_whole


def test_a_shard_of_nothing_but_noise_stays_listed(folder):
    _, path, _ = shards_of(folder)
    path.write_bytes(random.Random(1).randbytes(5000))
    repair = repair_folder(folder)
    assert repair.shards[1].state == "missing"
    assert "not one whole chunk" in repair.losses[0].why


# The chain of commits


@pytest.mark.parametrize(
    ("number", "damage"),  # of the last commit, if it is gone, nothing tells that it was there
    [(1, "flipped"), (2, "flipped"), (3, "flipped"), (4, "flipped"), (1, "gone"), (2, "gone"), (3, "gone")],
)
def test_a_broken_chain_is_mended(folder, clips, number, damage):
    commit = folder / commit_name(number)
    data = commit.read_bytes()
    if damage == "gone":
        commit.unlink()
    else:
        commit.write_bytes(data[:-3] + b"?" + data[-2:])
    repair = repair_folder(folder)
    assert clips.found(folder) == list(range(30))
    assert set(repair.set_aside) == {
        f"{commit_name(above)}.damaged" for above in range(number, 5) if damage == "flipped" or above != number
    }
    aside = [path for path in (folder / "data" / "commits").iterdir() if ".damaged" in path.name]
    assert len(aside) == len(repair.set_aside)
    assert verify_archive(folder).findings == []
    clips.write(folder, range(70, 72))  # and writers can go on
    assert clips.found(folder) == [*range(30), 70, 71]
    assert repair_folder(folder).is_whole


@pytest.mark.parametrize("protected", [True, False])
def test_a_damaged_shard_that_only_a_damaged_commit_listed_is_not_forgotten(folder, clips, protected, write_small):
    *_, last = shards_of(folder)
    if protected:
        beside = parity.path_for(folder, last.stem)
        beside.parent.mkdir()
        parity.create(last, beside)
    spoil(last)
    spoil(shutil.copy(write_small(folder.with_name("b.fold")), folder / "data" / "shards" / f"{'0' * 64}.fold"))
    (folder / "data" / "shards" / f"{'1' * 64}.fold").write_bytes(bytes(100))
    commit = folder / commit_name(4)
    commit.write_bytes(commit.read_bytes()[1:])
    repair = repair_folder(folder)
    states = {shard.sha256: shard.state for shard in repair.shards}
    assert states.pop("1" * 64) == "missing"
    assert states.pop(last.stem) == ("healed" if protected else "rebuilt")
    assert list(states.values()) == ["whole"] * 2
    assert clips.found(folder) == [number for number in range(30) if number != 20 or protected]
    assert verify_archive(folder).findings == []
    assert sorted(loss.what for loss in repair.losses) == ["frames"] * (not protected) + ["shard"]
    assert repair_folder(folder).is_whole


def test_a_retired_shard_does_not_come_back(folder, clips):
    _, damaged, _ = shards_of(folder)
    spoil(damaged)
    whole = damaged.read_bytes()
    number = repair_folder(folder).commit
    clips.write(folder, range(80, 81))
    damaged.write_bytes(whole)
    broken = folder / commit_name(number)
    broken.write_bytes(broken.read_bytes().replace(b'"', b"'", 1))
    repair_folder(folder)
    commit = newest(LocalStore(folder))
    assert damaged.stem in {gone.sha256 for gone in commit.retired}
    assert damaged.stem not in {record.sha256 for record in commit.shards}
    assert clips.found(folder) == sorted({*range(30), 80} - {10})


def test_commits_set_aside_twice_do_not_replace_each_other(folder):
    for _ in range(2):
        last = folder / commit_name(newest(LocalStore(folder)).number)
        last.write_bytes(last.read_bytes() + b" x")
        mend_chain(LocalStore(folder))
    names = sorted(path.name for path in (folder / "data" / "commits").glob("*.damaged*"))
    assert names == ["00000004.json.damaged", "00000004.json.damaged1"]


def test_only_archives_are_repaired(tmp_path):
    with pytest.raises(ArchiveError, match="F002"):
        repair_folder(tmp_path / "folder")
    (tmp_path / "folder" / "data" / "commits").mkdir(parents=True)
    (tmp_path / "folder" / "data" / "commits" / "00000001.json").write_bytes(b"{}")
    with pytest.raises(ArchiveError, match="F034"):
        repair_folder(tmp_path / "folder")


@pytest.mark.parametrize("call", ["link", "replace", "fdatasync"])
def test_interrupted_anywhere_it_can_be_repaired_again(folder, clips, monkeypatch, call):
    _, damaged, _ = shards_of(folder)
    spoil(damaged)
    real: Callable[..., Any] = getattr(os, call)
    for stop in range(12):
        calls = []

        def fail(*args: Any, _calls: list[Any] = calls, _stop: int = stop, **options: Any) -> Any:
            _calls.append(args)
            if len(_calls) > _stop:
                raise OSError(28, "made to fail")
            return real(*args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            try:
                repair_folder(folder)
            except ArchiveError as error:
                assert error.code == "F018"
            else:
                break
        listed = {path.stem for path in shards_of(folder)}
        assert len(listed) == 3  # the old state or the new one
        assert not list((folder / "open").glob("*.tmp"))
    repair_folder(folder)
    assert clips.found(folder) == [number for number in range(30) if number != 10]
