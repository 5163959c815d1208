from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from framefold.pipeline.archive import ArchiveError, ArchiveReader, ArchiveWriter, Code, verify
from framefold.pipeline.archive.documents import pack_document, unpack_document
from framefold.pipeline.archive.records import ChunkHeader, FileHeader, Footer, IndexEntry
from framefold.pipeline.archive.unit import UnitHead, runs_of

TICK = 2**53 - 1
timeless = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
ticks = st.integers(-TICK, TICK)
u20 = st.integers(0, 2**20)
kinds = st.sampled_from([b"Srce", b"Unit", b"qual", b"abCD"])
json_values = st.recursive(
    st.none() | st.booleans() | ticks | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
documents = st.dictionaries(st.text(), json_values, max_size=5)


@timeless
@given(documents)
def test_documents_come_back_and_equal_ones_are_equal_bytes(document):
    data = pack_document(document)
    assert unpack_document(data) == document
    assert pack_document(dict(reversed(document.items()))) == data
    assert data.isascii()


@timeless
@given(st.lists(ticks, min_size=1, max_size=40), st.binary(max_size=50))
def test_any_list_of_times_is_exact(pts, rest):
    head = UnitHead(key="0a" * 32, codec=3, first_frame=7, duration_ticks=5, pts=tuple(pts))
    data = head.pack()
    assert UnitHead.unpack(data + rest) == (head, len(data))


@given(ticks.map(lambda start: start // 2**18), st.integers(-(2**30), 2**30), st.integers(1, 65_536))
@settings(timeless, max_examples=25)
def test_a_constant_rate_takes_one_run(start, step, count):
    pts = tuple(start + step * index for index in range(count))
    head = UnitHead(key="0a" * 32, codec=0, first_frame=0, duration_ticks=1, pts=pts)
    assert len(runs_of(pts)) == 1
    assert len(head.pack()) == 72
    assert UnitHead.unpack(head.pack())[0].pts == pts


@timeless
@given(st.builds(FileHeader, archive_id=st.binary(min_size=16, max_size=16), shard_id=st.just(bytes(16))))
def test_file_headers_come_back(header):
    assert FileHeader.unpack(header.pack()) == header
    assert len(header.pack()) == 64


@timeless
@given(
    st.builds(
        ChunkHeader,
        kind=kinds,
        version=st.integers(0, 2**16 - 1),
        stream=u20,
        shard_tag=st.integers(0, 2**32 - 1),
        payload_bytes=st.integers(0, 2**28),
        number=u20,
        t0=ticks,
        duration=st.integers(0, TICK),
        items=st.integers(0, 2**32 - 1),
        payload_crc=st.integers(0, 2**32 - 1),
    )
)
def test_chunk_headers_come_back(header):
    assert ChunkHeader.unpack(header.pack()) == header
    assert len(header.pack()) == 64


@timeless
@given(
    st.builds(
        IndexEntry,
        offset=st.integers(64, 2**63 - 1),
        kind=kinds,
        payload_bytes=st.integers(0, 2**28),
        stream=u20,
        t0=ticks,
        duration=st.integers(0, TICK),
        items=st.integers(0, 2**32 - 1),
        first_item=st.integers(0, 2**32 - 1),
        codec=u20,
        sha256=st.binary(min_size=32, max_size=32),
    ),
    st.integers(1, 2**20),
)
def test_index_entries_and_footers_come_back(entry, count):
    assert IndexEntry.unpack(entry.pack()) == entry
    assert len(entry.pack()) == 80
    footer = Footer(index_offset=entry.offset, index_bytes=80 * count, entries=count, index_sha256=entry.sha256)
    assert Footer.unpack(footer.pack()) == footer
    assert len(footer.pack()) == 64


units = st.fixed_dictionaries(
    {
        "key": st.integers(0, 5).map(lambda number: f"{number:064x}"),
        "source": st.integers(0, 1),
        "codec": st.integers(0, 1),
        "first_frame": st.integers(0, 2**32 - 1),
        "pts": st.lists(ticks, min_size=1, max_size=6),
        "duration_ticks": st.integers(0, TICK),
        "payload": st.binary(max_size=300),
    }
)


@given(
    st.lists(units, max_size=6),
    st.lists(documents, min_size=2, max_size=2, unique_by=repr),
    st.dictionaries(st.integers(0, 5), documents),
)
@settings(timeless, max_examples=60)
def test_whatever_is_written_is_read(given_units, extras, measured):
    created = {"generator": "test", "created": "2026-01-31T12:00:00.5+00:00"}
    facts = {"name": "x", "kind": "video", "width": 1, "height": 2, "time_base": [1, 3]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "new" / "a.fold"
        stored = {}
        with ArchiveWriter(path) as writer:
            sources = [writer.add_source({"extra": extra, "n": n, **facts}) for n, extra in enumerate(extras)]
            codecs = [writer.add_codec(f"c{n}", extra) for n, extra in enumerate(extras)]
            assert sources == codecs == [0, 1]
            for unit in given_units:
                chunk = writer.add_unit(**unit)
                first = stored.setdefault(unit["key"], (chunk, unit))
                assert first[0] == chunk
                record = writer.read_unit(chunk)
                assert (record.payload, record.pts) == (first[1]["payload"], tuple(first[1]["pts"]))
            qualities = {chunk: measured.get(number) for number, (chunk, _) in enumerate(stored.values())}
            for chunk, document in qualities.items():
                if document is not None:
                    writer.add_quality(chunk, document)
            assert writer.commit(created) == path
        assert verify(path) == ()
        with ArchiveReader.open(path) as reader:
            assert [entry.document["extra"] for entry in reader.sources] == extras
            assert [entry.config for entry in reader.codecs] == extras
            assert [entry.id for entry in reader.units] == [chunk for chunk, _ in stored.values()]
            assert reader.manifest == created
            for entry, (chunk, unit) in zip(reader.units, stored.values(), strict=True):
                record = reader.read_unit(chunk)
                for name in ("key", "first_frame", "duration_ticks", "payload"):
                    assert getattr(record, name) == unit[name]
                assert record.pts == tuple(unit["pts"])
                assert record.source_document == reader.sources[unit["source"]].document
                assert record.codec_name == f"c{unit['codec']}"
                assert (entry.source, entry.codec) == (unit["source"], unit["codec"])
                assert (entry.t0, entry.frame_count) == (min(unit["pts"]), len(unit["pts"]))
                assert entry.duration == max(unit["pts"]) - min(unit["pts"]) + unit["duration_ticks"]
                assert reader.quality(chunk) == qualities[chunk]


def test_equal_documents_are_stored_once(tmp_path, source, manifest):
    with ArchiveWriter(tmp_path / "a.fold") as writer:
        first = writer.add_source(source("a"))
        again = writer.add_source(dict(reversed(source("a").items())))
        other = writer.add_source(source("b"))
        assert (first, again, other) == (0, 0, 1)
        assert [
            writer.add_codec("x", {"a": 1}),
            writer.add_codec("x", {"a": 1}),
            writer.add_codec("y", {}),
        ] == [0, 0, 1]
        writer.commit(manifest)
    with ArchiveReader.open(tmp_path / "a.fold") as reader:
        assert [entry.name for entry in reader.sources] == ["a", "b"]
        assert [entry.name for entry in reader.codecs] == ["x", "y"]


def test_an_archive_without_units_is_one(tmp_path, manifest):
    with ArchiveWriter(tmp_path / "a.fold") as writer:
        writer.commit(manifest)
    assert verify(tmp_path / "a.fold") == ()


def test_the_last_measurement_counts_and_an_equal_one_is_not_stored(tmp_path, fill, manifest):
    path = tmp_path / "a.fold"
    with ArchiveWriter(path) as writer:
        unit = fill(writer)[2]
        for value in (1.0, 2.0, 2.0):
            writer.add_quality(unit, {"psnr_db": value})
        writer.commit(manifest)
    assert path.read_bytes().count(b'"measured":{"psnr_db":2.0}') == 1
    with ArchiveReader.open(path) as reader:
        assert reader.quality(unit) == {"psnr_db": 2.0}


def test_same_content_and_id_make_the_same_bytes(tmp_path, write_small):
    first, second = write_small(tmp_path / "a.fold"), write_small(tmp_path / "b.fold")
    assert first.read_bytes() == second.read_bytes()


def test_a_large_archive_is_read_beyond_its_tail(tmp_path, source, manifest):
    path = tmp_path / "a.fold"
    payloads = [hashlib.sha256(bytes([n])).digest() * 4096 for n in range(4)]
    with ArchiveWriter(path) as writer:
        place = {"source": writer.add_source(source("a")), "codec": writer.add_codec("x", {})}
        ids = [
            writer.add_unit(key=f"{n:064x}", **place, first_frame=n, pts=[n], duration_ticks=1, payload=payload)
            for n, payload in enumerate(payloads)
        ]
        writer.commit(manifest)
    with ArchiveReader.open(path) as reader:
        assert [reader.read_unit(chunk).payload for chunk in ids] == payloads


@pytest.mark.parametrize("chunk", ["u000099", "s000000", "u000000", "", "u", "u-1", "u²", "000002", "../u000004"])
def test_units_that_are_not_there_are_named(small, tmp_path, fill, chunk):
    with ArchiveReader.open(small) as reader:
        with pytest.raises(ArchiveError, match="F017"):
            reader.read_unit(chunk)
        with pytest.raises(ArchiveError, match="F017"):
            reader.quality(chunk)
    with ArchiveWriter(tmp_path / "b.fold") as writer:
        fill(writer)
        with pytest.raises(ArchiveError, match="F017"):
            writer.read_unit(chunk)


def test_the_writer_refuses_what_a_reader_would(tmp_path, source, manifest, monkeypatch):
    monkeypatch.setattr("framefold.pipeline.archive.shard_writer.MAX_PAYLOAD", 10_000)
    unit = {"key": "0" * 64, "source": 0, "codec": 0, "first_frame": 0, "pts": [0], "duration_ticks": 1}
    with ArchiveWriter(tmp_path / "a.fold") as writer:
        writer.add_source(source("a"))
        writer.add_codec("x", {})
        end = writer._file.part.stat().st_size
        for code, change in [
            (Code.RECORD, {"key": "0" * 63}),
            (Code.RECORD, {"key": "G" * 64}),
            (Code.NO_SUCH, {"source": 1}),
            (Code.NO_SUCH, {"source": -1}),
            (Code.NO_SUCH, {"codec": 1}),
            (Code.LIMIT, {"pts": []}),
            (Code.LIMIT, {"pts": [0] * 65_537}),
            (Code.LIMIT, {"pts": [2**53]}),
            (Code.LIMIT, {"first_frame": 2**32}),
            (Code.LIMIT, {"duration_ticks": -1}),
            (Code.LIMIT, {"payload": bytes(9_999)}),
        ]:
            with pytest.raises(ArchiveError) as caught:
                writer.add_unit(**{**unit, "payload": b"", **change})
            assert caught.value.code == code, change
        for change in [
            {"name": "a//b"},
            {"name": "a/../b"},
            {"name": "/a"},
            {"name": "a\\\\b"},
            {"name": ".."},
            {"name": "a\0"},
            {"name": ""},
            {"name": 3},
            {"kind": None},
            {"width": 0},
            {"width": True},
            {"height": 32_769},
            {"width": 32_768, "height": 32_768},
            {"time_base": [1, 0]},
            {"time_base": 1.5},
            {"time_base": [1, 2, 3]},
        ]:
            with pytest.raises(ArchiveError, match=r"F01[46]"):
                writer.add_source(source("b") | change)
        for bad in [float("nan"), float("inf"), 2**53, b"bytes", {1, 2}, object()]:
            with pytest.raises(ArchiveError, match="F015"):
                writer.add_codec("x", {"value": bad})
        for change in [{"created": "yesterday"}, {"created": None}, {"generator": ""}]:
            with pytest.raises(ArchiveError, match="F016"):
                writer.commit(manifest | change)
        assert writer._file.part.stat().st_size == end
        writer.commit(manifest)
        for call in (lambda: writer.commit(manifest), lambda: writer.add_codec("new", {})):
            with pytest.raises(ArchiveError, match="F019"):
                call()
    assert verify(tmp_path / "a.fold") == ()


def test_errors_say_code_place_and_remedy_and_travel_between_processes(small):
    import pickle

    small.write_bytes(small.read_bytes()[:-1])
    with pytest.raises(ArchiveError) as caught:
        ArchiveReader.open(small)
    text = str(caught.value)
    assert text.startswith(f"F005 {small} at byte ")
    assert caught.value.remedy in text
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.code, copy.offset) == (text, Code.FOOTER, caught.value.offset)
