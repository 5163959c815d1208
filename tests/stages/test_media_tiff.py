from __future__ import annotations

import struct
from pathlib import Path

import pytest
from PIL import Image

from framefold.stages.media_tiff import LARGE, TooManyBytes, tags_as_exif

Tags = list[tuple[int, int, int, bytes]]
"""Tag, type, count, and the four or eight bytes in the list."""


def tiff(order: str, tags: Tags, tail: bytes = b"", *, big: bool = False) -> bytes:
    """A list of tags at the beginning, and `tail` behind it, which begins at 8 + 2 + 12 n + 4 (16 + 8 + 20 n + 8)."""
    mark = b"II" if order == "<" else b"MM"
    if big:
        rows = b"".join(struct.pack(order + "HHQ8s", *tag) for tag in tags)
        head = mark + struct.pack(order + "HHHQ", 43, 8, 0, 16) + struct.pack(order + "Q", len(tags))
        return head + rows + bytes(8) + tail
    rows = b"".join(struct.pack(order + "HHI4s", *tag) for tag in tags)
    return mark + struct.pack(order + "HIH", 42, 8, len(tags)) + rows + bytes(4) + tail


def kept(path: Path, data: bytes, *, max_bytes: int = 10**6) -> tuple[bytes | None, dict[int, bytes]]:
    path.write_bytes(data)
    with path.open("rb") as file:
        return tags_as_exif(file, resolution=False, max_bytes=max_bytes)


def read(block: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(b"Exif\0\0" + block)
    return exif


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_tags_keep_their_bytes(tmp_path: Path, order: str, big: bool) -> None:
    tail = 16 + 8 + 3 * 20 + 8 if big else 8 + 2 + 3 * 12 + 4
    word = order + ("Q" if big else "I")
    artist = "J\xfcrgen, who is no ASCII\0".encode("latin-1")
    tags = [
        (256, 3, 1, struct.pack(order + "H", 7)),
        (274, 3, 1, struct.pack(order + "H", 6)),
        (315, 2, len(artist), struct.pack(word, tail)),
    ]
    block, large = kept(tmp_path / "a.tiff", tiff(order, tags, artist, big=big))
    expected = [(274, 3, 1, struct.pack(order + "H", 6)), (315, 2, len(artist), struct.pack(order + "I", 38))]
    assert (block, large) == (tiff(order, expected, artist), {})


def test_lists_below_are_kept(tmp_path: Path) -> None:
    below = struct.pack("<HHHI4sI", 1, 1, 2, 2, b"N\0\0\0", 0)  # latitude is north
    tags = [(34853, 4, 1, struct.pack("<I", 8 + 2 + 12 + 4))]
    block, _ = kept(tmp_path / "a.tiff", tiff("<", tags, below))
    assert block is not None
    assert read(block).get_ifd(34853) == {1: "N"}


def test_bytes_begin_at_even_places(tmp_path: Path) -> None:
    tags = [(305, 2, 5, struct.pack("<I", 38)), (315, 2, 5, struct.pack("<I", 44))]
    data = tiff("<", tags, b"edit\0\0J\xfcrg\0\0")
    assert kept(tmp_path / "a.tiff", data)[0] == data


def test_what_describes_the_pixels_alone_makes_no_exif(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "a.tiff", compression="tiff_lzw", dpi=(300, 300))
    assert kept(tmp_path / "b.tiff", (tmp_path / "a.tiff").read_bytes()) == (None, {})


def test_a_large_tag_is_kept_by_itself(tmp_path: Path) -> None:
    layers = bytes(range(256)) * (LARGE // 256) + b"x"
    tags = [(305, 2, 4, b"ed\0\0"), (37724, 7, len(layers), struct.pack("<I", 8 + 2 + 24 + 4))]
    block, large = kept(tmp_path / "a.tiff", tiff("<", tags, layers))
    assert (block, large) == (tiff("<", tags[:1]), {37724: layers})


@pytest.mark.parametrize(
    "tags",
    [
        [(34665, 4, 1, struct.pack("<I", 10**9))],
        [(34665, 4, 1, b"")],
        [(305, 2, 2**32 - 1, struct.pack("<I", 8))],
        [(305, 2, 5, struct.pack("<I", 2**32 - 1))],
        [(305, 99, 1, b"xx")],
        [(305, 2, 0, b"xx")],
    ],
)
def test_what_leads_nowhere_is_passed_over(tmp_path: Path, tags: Tags) -> None:
    block, large = kept(tmp_path / "a.tiff", tiff("<", [*tags, (315, 2, 2, b"A\0")]))
    assert block is not None
    assert (read(block)[315], large) == ("A", {})
    assert set(read(block)) == {315}


def test_a_list_that_is_its_own_ends(tmp_path: Path) -> None:
    block, _ = kept(tmp_path / "a.tiff", tiff("<", [(315, 2, 2, b"A\0"), (34665, 4, 1, struct.pack("<I", 8))]))
    assert block is not None
    assert read(block).get_ifd(34665)[315] == "A"


@pytest.mark.parametrize("cut", range(0, 30, 3))
def test_a_file_that_is_cut_off_gives_what_is_there(tmp_path: Path, cut: int) -> None:
    assert kept(tmp_path / "a.tiff", tiff("<", [(315, 2, 2, b"A\0")])[:cut])[1] == {}


@pytest.mark.parametrize("big", [False, True])
def test_many_tags_that_share_their_bytes_are_refused(tmp_path: Path, big: bool) -> None:
    size, place = 50_000, 30_000
    tags = [(40_000 + n, 7, size, struct.pack("<Q" if big else "<I", place)) for n in range(1000)]
    with pytest.raises(TooManyBytes):
        kept(tmp_path / "a.tiff", tiff("<", tags, bytes(100_000), big=big), max_bytes=10**6)
