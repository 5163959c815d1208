"""`archive_source`: which units it reads, in which order, and what it gives back beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from framefold.codecs.clip import Source
from framefold.codecs.network import Bitstream
from framefold.codecs.rest import Attachment, Packets
from framefold.pipeline.archive import (
    ArchiveError,
    ArchiveReader,
    ArchiveWriter,
    CopiedPacket,
    PacketBlock,
)
from framefold.pipeline.archive.folder import FolderWriter
from framefold.pipeline.stage import Emit, Refused
from framefold.pipeline.testing import check_stage
from framefold.stages.archive_source import ArchiveSource

MANIFEST = {"generator": "test", "created": "2026-01-31T12:00:00Z"}
EXTRADATA, FONT, PROFILE = b"how to decode it", b"a font", bytes(range(200))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def document(name: str, **more: Any) -> dict[str, Any]:
    plain = {"name": name, "kind": "video", "sha256": sha256(name.encode()), "size_bytes": 9, "width": 8, "height": 6}
    return {**plain, "time_base": [1, 100], **more}


def carried(*, fonts: int = 1) -> dict[str, Any]:
    """Two tracks in milliseconds and a font, as a source's document describes them."""
    sound = {"index": 1, "kind": "audio", "codec": "aac", "time_base": [1, 1000], "extradata": sha256(EXTRADATA)}
    text = {"index": 2, "kind": "subtitle", "codec": "subrip", "time_base": [1, 1000], "packets": 1}
    font = {"kind": "font", "sha256": sha256(FONT), "size_bytes": len(FONT), "name": "a.ttf"}
    return {"tracks": [sound, text], "attachments": [font] * fonts}


def block(track: int, part: int, first: int, count: int = 10) -> PacketBlock:
    """Packets of 20 ms from packet `first` on."""
    packets = tuple(
        CopiedPacket(data=bytes([track, number]), pts=20 * number, dts=20 * number - 1, duration=20, flags=1)
        for number in range(first, first + count)
    )
    return PacketBlock(key=f"{100 * track + part:064x}", track=track, part=part, packets=packets)


def add_units(writer: Any, source: int, codec: int, *, count: int, salt: int) -> list[str]:
    """Ten frames of 4 ticks each, one second per 2.5 units, written last unit first."""
    return [
        writer.add_unit(
            key=f"{1000 * salt + number:064x}",
            source=source,
            codec=codec,
            first_frame=10 * number,
            pts=[4 * frame for frame in range(10 * number, 10 * number + 10)],
            duration_ticks=4,
            payload=b"%d of source %d" % (number, salt),
        )
        for number in reversed(range(count))
    ]


def fill(writer: Any) -> None:
    codec = writer.add_codec("any", {"size": 1})
    film, other = writer.add_source(document("film.mp4", carried=carried())), writer.add_source(document("b.mp4"))
    picture = writer.add_source(document("c.png", kind="image", time_base=[1, 1]))
    add_units(writer, film, codec, count=5, salt=1)
    add_units(writer, other, codec, count=2, salt=2)
    one = {"key": "f" * 64, "source": picture, "codec": codec, "first_frame": 0, "pts": [0], "duration_ticks": 1}
    writer.add_unit(**one, payload=b"picture")
    writer.add_packets(film, block(1, 0, 40, 1))
    for part in range(10):
        writer.add_packets(film, block(0, part, 10 * part))
    for data in (EXTRADATA, FONT, b"nobody names it"):
        writer.add_attachment(sha256(data), len(data), 0, data)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    with ArchiveWriter(tmp_path / "a.fold") as writer:
        fill(writer)
        writer.commit(MANIFEST)
    return tmp_path / "a.fold"


@pytest.fixture
def read() -> Callable[..., list[Any]]:
    """Emits and refusals of the stage with these options."""

    def outputs(path: Path | str, **options: Any) -> list[Any]:
        config = ArchiveSource.Config.model_validate({"path": path, **options})
        return list(ArchiveSource(config).produce())

    return outputs


def units(outputs: list[Any]) -> list[str]:
    """`film.mp4[0:10]`, …"""
    return [output.payload.span.label for output in outputs if isinstance(output, Emit) and output.port == "out"]


def rest(outputs: list[Any]) -> list[Any]:
    return [output.payload for output in outputs if isinstance(output, Emit) and output.port == "rest"]


def damage(path: Path, at: bytes) -> Path:
    """Flip a bit of these bytes in the file."""
    data = bytearray(path.read_bytes())
    data[data.index(at)] ^= 1
    path.write_bytes(data)
    return path


def packet_pts(outputs: list[Any], track: int = 0) -> list[int]:
    blocks = [one for one in rest(outputs) if isinstance(one, Packets) and one.track == track]
    return [packet.pts for one in blocks for packet in one.packets]


FILM = [f"film.mp4[{first}:{first + 10}]" for first in range(0, 50, 10)]
OTHER = ["b.mp4[0:10]", "b.mp4[10:20]"]


def test_it_is_a_stage_like_others(archive: Path) -> None:
    payloads = check_stage(ArchiveSource, {"path": str(archive)})
    assert {type(payload) for payload in payloads} == {Bitstream, Attachment, Packets}


def test_units_come_source_by_source_in_frame_order(archive: Path, read: Any) -> None:
    assert units(read(archive)) == [*FILM, *OTHER, "c.png"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"kind": "image"}, ["c.png"]),
        ({"kind": "video", "source": "b.mp4"}, OTHER),
        ({"source": "1"}, OTHER),
        ({"source": 2}, ["c.png"]),
        ({"source": 0, "frames": (19, 20)}, FILM[1:2]),
        ({"source": 0, "frames": (19, 21)}, FILM[1:3]),
        ({"source": 0, "frames": (40, None)}, FILM[4:]),
        ({"source": 0, "seconds": (0.4, 0.8)}, FILM[0:2]),  # the first one's last frame ends at 0.4
        ({"source": 0, "seconds": (0.41, 0.8)}, FILM[1:2]),
        ({"source": 0, "seconds": (0.41, 0.81)}, FILM[1:3]),
        ({"source": 0, "seconds": (-5, 0.0)}, []),
        ({"source": 0, "seconds": (1.5, None), "frames": (0, 40)}, FILM[3:4]),
        ({"units": ["u000008", "u000004"]}, [FILM[0], FILM[4]]),
    ],
)
def test_only_what_is_wanted_is_read(archive: Path, read: Any, options: Any, expected: list[str]) -> None:
    assert units(read(archive, **options)) == expected


def test_units_outside_a_range_are_not_even_looked_at(archive: Path, read: Any) -> None:
    damage(archive, b"4 of source 1")
    outputs = read(archive, source=0, frames=(0, 40))
    assert units(outputs) == FILM[:4]
    assert not [output for output in outputs if isinstance(output, Refused)]


def test_an_unknown_source_lists_what_there_is(archive: Path, read: Any) -> None:
    with pytest.raises(ArchiveError, match=r"F017 .*no source 'filn.mp4'; did you mean 'film.mp4'\? .*1 'b.mp4'"):
        read(archive, source="filn.mp4")
    with pytest.raises(ArchiveError, match="F017"):
        read(archive, source=3)


def test_two_sources_of_one_name_are_told_apart_by_number(tmp_path: Path, read: Any) -> None:
    with ArchiveWriter(tmp_path / "a.fold") as writer:
        codec = writer.add_codec("any", {})
        for salt in (1, 2):
            add_units(writer, writer.add_source(document("a.mp4", size_bytes=salt)), codec, count=1, salt=salt)
        writer.commit(MANIFEST)
    with pytest.raises(ArchiveError, match=r"2 sources are called 'a.mp4'; give one's number: 0, 1"):
        read(tmp_path / "a.fold", source="a.mp4")
    (one,) = read(tmp_path / "a.fold", source="1")
    assert one.payload.span.source.size_bytes == 2


def test_packets_and_attachments_come_back_as_they_were(archive: Path, read: Any) -> None:
    given = rest(read(archive))
    assert [one.data for one in given if isinstance(one, Attachment)] == [FONT, EXTRADATA]
    blocks = [one for one in given if isinstance(one, Packets)]
    assert [(one.track, one.part) for one in blocks] == [*((0, part) for part in range(10)), (1, 0)]
    with ArchiveReader.open(archive) as reader:
        stored = [reader.read_packets(entry.id).packets for entry in reader.packet_blocks]
    fields = ("data", "pts", "dts", "duration", "flags", "side_data")
    told = [[tuple(getattr(packet, name) for name in fields) for packet in one.packets] for one in blocks]
    assert told == [
        [tuple(getattr(packet, name) for name in fields) for packet in packets] for packets in [*stored[1:], stored[0]]
    ]
    assert isinstance(blocks[0].source, Source)
    assert blocks[0].label == "film.mp4 track 1 part 0"


def test_what_belongs_to_sources_that_are_not_wanted_stays(archive: Path, read: Any) -> None:
    assert rest(read(archive, source="b.mp4")) == []
    assert rest(read(archive, kind="image")) == []
    assert rest(read(archive, rest=False)) == []


@pytest.mark.parametrize(
    ("options", "first", "last"),
    [
        ({"seconds": (0.4, 0.8)}, 400, 780),
        ({"frames": (10, 20)}, 400, 780),
        ({"frames": (15, 16)}, 600, 620),  # 0.60 to 0.64 s
        ({"seconds": (0.41, 0.45)}, 440, 460),  # the frame at 0.44 begins in it
    ],
)
def test_packets_of_a_range_are_those_that_sound_meanwhile(
    archive: Path, read: Any, options: Any, first: int, last: int
) -> None:
    outputs = read(archive, source="film.mp4", **options)
    assert packet_pts(outputs) == list(range(first, last + 20, 20))
    assert packet_pts(outputs, track=1) == ([800] if first <= 800 <= last else [])


def test_a_range_and_its_other_part_make_different_items_of_one_block(archive: Path, read: Any) -> None:
    emits = [*read(archive, source=0, frames=(0, 13)), *read(archive, source=0, frames=(13, 50))]
    cut = [one.identity for one in emits if isinstance(one.payload, Packets) and one.payload.part == 2]
    assert len(cut) == len(set(cut)) == 2


def test_a_large_attachment_comes_in_pieces(tmp_path: Path, read: Any) -> None:
    whole = b"framefold" * (70 * 2**20 // 18)  # 35 MiB in one chunk
    original = {"kind": "original", "sha256": sha256(whole), "size_bytes": len(whole)}
    with ArchiveWriter(tmp_path / "a.fold") as writer:
        writer.add_source(document("a.mp4", carried={"attachments": [original]}))
        writer.add_attachment(sha256(whole), len(whole), 0, whole)
        writer.commit(MANIFEST)
    emits = read(tmp_path / "a.fold")
    assert [len(emit.payload.data) for emit in emits] == [32 * 2**20, len(whole) - 32 * 2**20]
    assert [emit.payload.start for emit in emits] == [0, 32 * 2**20]
    assert len({emit.identity for emit in emits}) == 2
    assert b"".join(emit.payload.data for emit in emits) == whole


def test_an_empty_attachment_is_one_empty_piece(tmp_path: Path, read: Any) -> None:
    with ArchiveWriter(tmp_path / "a.fold") as writer:
        empty = {"kind": "font", "sha256": sha256(b""), "size_bytes": 0}
        writer.add_source(document("a.mp4", carried={"attachments": [empty]}))
        writer.add_attachment(sha256(b""), 0, 0, b"")
        writer.commit(MANIFEST)
    (piece,) = rest(read(tmp_path / "a.fold"))
    assert (piece.data, piece.total_bytes) == (b"", 0)


def test_an_attachment_of_several_sources_comes_once(tmp_path: Path, read: Any) -> None:
    profile = {"kind": "icc", "sha256": sha256(PROFILE), "size_bytes": len(PROFILE)}
    with ArchiveWriter(tmp_path / "a.fold") as writer:
        for name in ("a.png", "b.png"):
            writer.add_source(document(name, kind="image", carried={"attachments": [profile]}))
        writer.add_attachment(sha256(PROFILE), len(PROFILE), 0, PROFILE)
        writer.commit(MANIFEST)
    assert [one.data for one in rest(read(tmp_path / "a.fold"))] == [PROFILE]


@pytest.mark.parametrize(
    ("at", "label"),
    [
        (bytes([0, 33, 0, 34]), "film.mp4 p"),
        (FONT, f"film.mp4 attachment {sha256(FONT)[:8]}"),
        (bytes.fromhex(sha256(FONT)), "attachment in a"),
        (b"picture", "u"),
        (b"0 of source 2", "u"),
    ],
)
def test_what_is_damaged_is_refused_by_name_and_the_others_go_on(
    archive: Path, read: Any, at: bytes, label: str
) -> None:
    whole = read(archive)
    outputs = read(damage(archive, at))
    (refused,) = [output for output in outputs if isinstance(output, Refused)]
    assert refused.label.startswith(label)
    assert "F010" in refused.reason
    assert len(outputs) == len(whole)
    given = {output.identity for output in outputs if isinstance(output, Emit)}
    assert given < {output.identity for output in whole}


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"carried": {"tracks": [{"index": -1}]}}, "carried.tracks.0.index"),
        ({"carried": {"pixel": {"display_matrix": [1, 2]}}}, "carried.pixel.display_matrix"),
        ({"carried": []}, "carried"),
        ({"sha256": "x"}, "sha256"),
    ],
)
def test_a_strangers_description_is_refused_by_its_field(tmp_path: Path, read: Any, wrong: Any, field: str) -> None:
    with ArchiveWriter(tmp_path / "a.fold") as writer:
        codec = writer.add_codec("any", {})
        add_units(writer, writer.add_source(document("bad.mp4", **wrong)), codec, count=2, salt=1)
        add_units(writer, writer.add_source(document("good.mp4")), codec, count=1, salt=2)
        writer.commit(MANIFEST)
    outputs = read(tmp_path / "a.fold")
    assert outputs[0].label == "bad.mp4"
    assert f"not as allowed: {field}" in outputs[0].reason
    assert units(outputs[1:]) == ["good.mp4[0:10]"]


def test_packets_of_a_track_that_nobody_describes_are_refused(tmp_path: Path, read: Any) -> None:
    with ArchiveWriter(tmp_path / "a.fold") as writer:
        writer.add_packets(writer.add_source(document("a.mp4", carried=carried())), block(2, 0, 0))
        writer.commit(MANIFEST)
    (refused,) = read(tmp_path / "a.fold")
    assert "F017" in refused.reason
    assert "track 2" in refused.reason


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The film in two shards, by two writers that did not know of each other: both copied the sound."""
    for shard in range(2):
        writer = FolderWriter(f"{tmp_path}/folder.fold/")
        codec, film = writer.add_codec("any", {}), writer.add_source(document("film.mp4", carried=carried()))
        frames = {"first_frame": 10 * shard, "pts": [4 * number for number in range(10 * shard, 10 * shard + 10)]}
        unit = {"key": f"{shard:064x}", "source": film, "codec": codec, "duration_ticks": 4, "payload": bytes([shard])}
        writer.add_unit(**unit, **frames)
        writer.add_packets(film, block(0, 0, 0))
        writer.add_attachment(sha256(FONT), len(FONT), 0, FONT)
        writer.commit(MANIFEST)
    return tmp_path / "folder.fold"


def test_what_two_shards_hold_comes_once(folder: Path, read: Any) -> None:
    outputs = read(folder)
    assert units(outputs) == FILM[:2]
    assert [type(one) for one in rest(outputs)] == [Attachment, Packets]


def test_a_shard_that_is_gone_is_named_and_the_others_are_read(folder: Path, read: Any) -> None:
    gone = sorted((folder / "data" / "shards").iterdir())[0]
    gone.unlink()
    refused, *outputs = read(folder)
    assert gone.stem in refused.label
    assert "F025" in refused.reason
    assert len(units(outputs)) == 1


def test_an_archive_that_is_not_there_is_found_before_anything_starts(tmp_path: Path) -> None:
    (problem,) = ArchiveSource.preflight(ArchiveSource.Config(path=tmp_path / "no.fold"))
    assert "no archive at" in problem[1]
    assert ArchiveSource.preflight(ArchiveSource.Config(path=tmp_path)) == []
    assert ArchiveSource.preflight(ArchiveSource.Config(path="s3://bucket/a.fold/")) == []
