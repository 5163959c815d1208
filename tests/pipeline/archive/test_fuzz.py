"""Any packets, attachments and packs: what the writer takes, both readers give back."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from framefold.pipeline.archive import ArchiveReader, ArchiveWriter, CopiedPacket, PacketBlock, verify
from framefold.pipeline.archive.attachments import AttachmentPiece

MANIFEST = {"generator": "x", "created": "2026-01-31T12:00:00Z"}
THOROUGH = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

int64 = st.integers(-(2**63) + 1, 2**63 - 1)
texts = st.text(st.characters(codec="utf-8", exclude_characters="/\\\0"), min_size=1, max_size=30).filter(
    lambda name: name not in (".", "..")
)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
documents = st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=9), plain, max_size=4)
names = st.text(st.characters(codec="ascii"), min_size=1, max_size=255)
packets = st.builds(
    CopiedPacket,
    data=st.binary(max_size=60),
    pts=st.none() | int64,
    dts=st.none() | int64,
    duration=int64,
    flags=st.integers(0, 2**32 - 1),
    side_data=st.lists(st.tuples(names, st.binary(max_size=20)), max_size=8).map(tuple),
)
blocks = st.lists(packets, min_size=1, max_size=12).map(tuple)


@st.composite
def sources(draw: Any, kind: str = "image") -> dict[str, Any]:
    width = draw(st.integers(1, 32_768))
    size = {"width": width, "height": draw(st.integers(1, min(32_768, 2**28 // width)))}
    base = draw(st.tuples(st.integers(1, 2**53 - 1), st.integers(1, 2**53 - 1)))
    more = draw(documents)
    return {**more, "name": draw(texts), "kind": kind, **size, "time_base": list(base)}


pictures = st.tuples(sources(), st.binary(max_size=40), st.none() | documents)


def problems(fold_reader: ModuleType, path: Path) -> list[str]:
    return [str(says) for _, _, says, _ in fold_reader.Archive(path).examine() if isinstance(says, Exception)]


def key_of(number: int) -> str:
    return hashlib.sha256(b"%d" % number).hexdigest()


@pytest.fixture
def writer_at(tmp_path: Path) -> Any:
    return lambda: ArchiveWriter(tmp_path / "a.fold", archive_id=bytes(16))


@THOROUGH
@given(st.lists(blocks, min_size=1, max_size=3), st.integers(0, 2**32 - 1))
def test_any_packets(writer_at: Any, fold_reader: ModuleType, given_blocks: list[Any], track: int) -> None:
    with writer_at() as writer:
        source = writer.add_source({"name": "a", "kind": "video", "width": 1, "height": 1, "time_base": [1, 1]})
        whole = [
            PacketBlock(key=key_of(part), track=track, part=part, packets=given_packets)
            for part, given_packets in enumerate(given_blocks)
        ]
        ids = [writer.add_packets(source, block) for block in whole]
        path = writer.commit(MANIFEST)
    with ArchiveReader.open(path) as reader:
        assert [entry.id for entry in reader.packet_blocks] == ids
        assert [reader.read_packets(name) for name in ids] == whole
    assert verify(path) == ()
    assert problems(fold_reader, path) == []
    assert [fold_reader.Archive(path).extract(name, raw=False) for name in ids] == list(map(spelled, whole))


def spelled(block: PacketBlock) -> bytes:
    """The packets and their side data as the specification puts them one after the other."""
    pieces = []
    for packet in block.packets:
        pieces.append(packet.data)
        pieces += [
            bytes((len(name),)) + name.encode() + struct.pack("<I", len(data)) + data for name, data in packet.side_data
        ]
    return b"".join(pieces)


@THOROUGH
@given(st.dictionaries(st.binary(max_size=200), st.integers(1, 90), max_size=5))
def test_any_attachments(writer_at: Any, fold_reader: ModuleType, attached: dict[bytes, int]) -> None:
    wanted = {hashlib.sha256(data).hexdigest(): data for data in attached}
    with writer_at() as writer:
        for (sha256, data), size in zip(wanted.items(), attached.values(), strict=True):
            for start in range(0, max(len(data), 1), size):
                for _ in range(2):  # once more is no more
                    writer.add_attachment(sha256, len(data), start, data[start : start + size])
        path = writer.commit(MANIFEST)
    with ArchiveReader.open(path) as reader:
        assert {name: reader.read_attachment(name) for name in reader.attachments} == wanted
        assert dict(reader.attachments) == {name: len(data) for name, data in wanted.items()}
        assert reader.attachment_damage == ()
    assert verify(path) == ()
    assert problems(fold_reader, path) == []
    assert {name: fold_reader.Archive(path).extract(name, raw=False) for name in wanted} == wanted


@THOROUGH
@given(st.lists(pictures, min_size=1, max_size=12), st.sets(st.integers(0, 12)))
def test_any_packs(writer_at: Any, fold_reader: ModuleType, given_pictures: list[Any], ends: set[int]) -> None:
    with writer_at() as writer:
        codec = writer.add_codec("coin", {"a": [1]})
        for number, (source, payload, measured) in enumerate(given_pictures):
            writer.add_picture(source=source, codec=codec, key=key_of(number), payload=payload, measured=measured)
            if number in ends:
                writer.close_pack()
        path = writer.commit(MANIFEST)
    with ArchiveReader.open(path) as reader:
        names = [reader.keys[key_of(number)] for number in range(len(given_pictures))]
        read = [(reader.read_unit(name), reader.quality(name)) for name in names]
        assert [(record.source_document, record.payload, measured) for record, measured in read] == given_pictures
        assert [unit.id for unit in reader.units] == names
        assert reader.problems == ()
    assert verify(path) == ()
    assert problems(fold_reader, path) == []
    assert [fold_reader.Archive(path).extract(name, raw=False) for name in names] == [
        one for _, one, _ in given_pictures
    ]


@THOROUGH
@given(st.binary(max_size=100), st.integers(0, 2**40), st.integers(0, 2**40))
def test_a_piece_of_an_attachment_is_spelled_as_specified(data: bytes, start: int, more: int) -> None:
    total = min(start + len(data) + more, 2**40)
    if start + len(data) <= total:
        piece = AttachmentPiece(sha256="ab" * 32, total_bytes=total, start=start, data=data)
        assert piece.pack() == struct.pack("<32sQQ", b"\xab" * 32, total, start) + data
        assert AttachmentPiece.unpack(piece.pack()) == piece
