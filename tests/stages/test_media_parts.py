from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefold.codecs.clip import Source
from framefold.codecs.rest import Attachment, Packet, Packets
from framefold.stages.media_ebml import element, elements, padding
from framefold.stages.media_spool import Rest, Spool
from framefold.stages.media_subtitles import fit_packets
from framefold.stages.media_tags import TagKeeper

# --- media_ebml -----------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from([0xAE, 0x536E, 0x1654AE6B]), st.binary(max_size=300))))
def test_elements_are_read_as_they_were_written(parts: list[tuple[int, bytes]]) -> None:
    data = b"".join(element(identity, content) for identity, content in parts)
    assert [(identity, data[start:end]) for identity, start, end in elements(data)] == parts


@pytest.mark.parametrize("size", [0, 2, 3, 127, 128, 129, 130, 1000])
def test_padding_is_one_element_of_the_size_asked_for(size: int) -> None:
    data = padding(size)
    assert len(data) == size
    assert [identity for identity, _, _ in elements(data)] == [0xEC] * bool(size)


@pytest.mark.parametrize("data", [b"\0", b"\xae", b"\xae\x85four", b"\xae\0\0"])
def test_cut_elements_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="byte"):
        list(elements(data))


# --- media_spool ----------------------------------------------------------------------------------------------------

packets = st.builds(
    Packet,
    data=st.binary(max_size=50),
    pts=st.none() | st.integers(-(2**63) + 1, 2**63 - 1),
    dts=st.none() | st.integers(-(2**63) + 1, 2**63 - 1),
    duration=st.integers(0, 2**63 - 1),
    flags=st.integers(0, 31),
    side_data=st.lists(st.tuples(st.sampled_from(["palette", "x" * 255]), st.binary(max_size=9)), max_size=3).map(
        tuple
    ),
)


@given(lanes=st.lists(st.tuples(st.integers(0, 2), st.lists(packets, max_size=3)), max_size=9))
def test_lanes_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, lanes: list[tuple[int, list[Packet]]]
) -> None:
    spool = Spool(tmp_path_factory.getbasetemp())
    for lane, some in lanes:
        spool.add(lane, some)
    for lane in range(3):
        assert list(spool.read(lane)) == [packet for each, some in lanes if each == lane for packet in some]
    spool.close()


def test_parts_come_in_any_order_and_only_once(tmp_path: Path) -> None:
    source = Source(name="a", kind="video", sha256="ab" * 32, size_bytes=1, width=1, height=1)
    rest = Rest(tmp_path)
    for part in (2, 0, 1, 0, 2):
        rest.take(Packets(source=source, track=0, part=part, packets=(Packet(data=bytes([part])),)))
    assert [packet.data for packet in rest.packets(source, 0)] == [b"\0", b"\1", b"\2"]
    assert list(rest.packets(source, 1)) == []
    assert list(tmp_path.iterdir()) == []
    rest.close()


def test_an_attachment_is_whole_or_not_there(tmp_path: Path) -> None:
    sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    rest = Rest(tmp_path)
    for start, data in ((2, b"llo"), (2, b"llo")):
        rest.take(Attachment(sha256=sha256, total_bytes=5, start=start, data=data))
    assert rest.attachment(sha256) is None
    rest.take(Attachment(sha256=sha256, total_bytes=5, start=0, data=b"he"))
    assert rest.attachment(sha256) == b"hello"
    assert rest.attachment("ab" * 32) is None
    rest.close()


# --- media_subtitles ------------------------------------------------------------------------------------------------

FIRST, PALETTE, LAST = b"\x16\0\x0b" + bytes(11), b"\x14\0\2ab", b"\x80\0\0"


def fitted(codec: str, data: Iterable[bytes]) -> list[bytes]:
    made = fit_packets(codec, [Packet(data=each, pts=number) for number, each in enumerate(data)])
    return [packet.data for packet in made]


@pytest.mark.parametrize(
    ("pieces", "made"),
    [
        ([FIRST + PALETTE + LAST], [FIRST + PALETTE + LAST]),
        ([FIRST, PALETTE, LAST, FIRST + LAST], [FIRST + PALETTE + LAST, FIRST + LAST]),
        ([PALETTE, FIRST + LAST], [b"", FIRST + LAST]),
        ([FIRST, FIRST + LAST], [b"", FIRST + LAST]),
        ([FIRST, b"junk", PALETTE, FIRST + LAST], [b"", b"", b"", FIRST + LAST]),
        ([FIRST + LAST + FIRST, LAST], [b"", b""]),
        ([b"\x16\0\1a" + LAST, FIRST], [b"", b""]),
        ([], []),
    ],
)
def test_blu_ray_subtitles_become_whole_display_sets(pieces: list[bytes], made: list[bytes]) -> None:
    assert fitted("hdmv_pgs_subtitle", pieces) == made


def test_a_display_set_has_the_times_of_its_first_piece() -> None:
    pieces = [Packet(data=data, pts=pts) for data, pts in ((FIRST, 7), (LAST, 8))]
    assert [packet.pts for packet in fit_packets("hdmv_pgs_subtitle", pieces)] == [7]


def test_pauses_of_timed_text_are_left_to_the_muxer() -> None:
    assert fitted("mov_text", [b"\0\0", b"\0\1a", b"\0\0", b"\0\1b", b"\0\0"]) == [b"\0\1a", b"\0\1b", b"\0\0"]
    assert fitted("subrip", [b"\0\0", b"a"]) == [b"\0\0", b"a"]


# --- media_tags -----------------------------------------------------------------------------------------------------


def test_tags_have_an_end() -> None:
    tags = TagKeeper()
    many = {f"name {number}": "v" * 4096 for number in range(300)}
    kept = [tags.keep("file", many), tags.keep("track 1", {"language": "deu"})]
    assert sum(len(name) + len(value) for pairs in kept for name, value in pairs) < 2**17
    assert (tags.elsewhere() or b"").count(b'"of"') == 301 - sum(map(len, kept))


def test_a_small_text_finds_room_behind_one_that_is_too_long() -> None:
    assert TagKeeper().keep("file", {"a": "x" * 5000, "b": "y"}) == (("b", "y"),)
