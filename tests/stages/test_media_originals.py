from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import pytest

from framefold.codecs.clip import Source
from framefold.pipeline.errors import FramefoldError, RefusedInput
from framefold.stages import media_originals
from framefold.stages.media_files import MediaFile
from framefold.stages.media_origin import (
    legible,
    modified,
    name_bytes,
    original_name,
    restore_modified,
    with_legible_names,
)
from framefold.stages.media_originals import PIECE_BYTES, attached, pieces_of, rest


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 30])
def test_pieces_make_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(media_originals, "PIECE_BYTES", 10)
    data = os.urandom(size)
    (tmp_path / "a").write_bytes(data)
    with (tmp_path / "a").open("rb") as file:
        file.seek(size)
        pieces = list(pieces_of(file, sha256(data), size))
    assert b"".join(piece.data for piece in pieces) == data
    assert [piece.start for piece in pieces] == list(range(0, max(size, 1), 10))
    assert {(piece.sha256, piece.total_bytes) for piece in pieces} == {(sha256(data), size)}


def test_a_piece_is_small_enough_to_travel() -> None:
    first = next(pieces_of(io.BytesIO(bytes(PIECE_BYTES + 1)), "ab" * 32, PIECE_BYTES + 1))
    assert len(first.data) == 2**25


@pytest.mark.parametrize(
    ("now", "passed"), [(b"shorter", 0), (b"what it was at last!", 10), (b"what it was at fi", 10), (b"", 0)]
)
def test_a_file_that_changed_gives_no_whole(monkeypatch: pytest.MonkeyPatch, now: bytes, passed: int) -> None:
    monkeypatch.setattr(media_originals, "PIECE_BYTES", 10)
    was = b"what it was at first"
    passed_on = 0
    with pytest.raises(RefusedInput, match="changed"):
        for piece in pieces_of(io.BytesIO(now), sha256(was), len(was)):
            passed_on += len(piece.data)
    assert passed_on == passed


def test_what_is_yielded_is_named_by_its_content() -> None:
    ref = attached(b"abc", "icc", name="sRGB", media_type="x/y")
    assert (ref.kind, ref.sha256, ref.size_bytes, ref.name) == ("icc", sha256(b"abc"), 3, "sRGB")
    (piece,) = pieces_of(io.BytesIO(b"abc"), ref.sha256, 3)
    emit = rest(piece)
    assert (emit.port, emit.identity, emit.payload) == ("rest", f"attachment:{sha256(b'abc')}:0", piece)


def test_odd_names_are_shown_and_kept() -> None:
    odd = os.fsdecode(b"x/50%caf\xe9.png")
    assert legible(odd) == "x/50%25caf%E9.png"
    assert bytes.fromhex(name_bytes(odd) or "") == b"x/50%caf\xe9.png"
    assert (legible("50%J\xfcrgen.png"), name_bytes("50%J\xfcrgen.png")) == ("50%J\xfcrgen.png", None)


def test_names_stay_different_when_they_are_shown() -> None:
    files = [MediaFile(Path(os.fsdecode(name)), os.fsdecode(name)) for name in (b"\xe9", b"%E9", b"%E9-2")]
    shown = [(media.name, raw) for media, raw in with_legible_names(files)]
    assert shown == [("%E9-3", "e9"), ("%E9", None), ("%E9-2", None)]


def source(make: type[Source] = Source, **carried: str) -> Source:
    return make(name="a.png", kind="image", sha256="ab" * 32, size_bytes=1, width=1, height=1, carried=dict(carried))


def test_the_name_to_write_is_checked() -> None:
    assert os.fsencode(original_name(source(name_bytes=b"caf\xe9".hex()))) == b"caf\xe9"
    assert original_name(source()) == "a.png"
    with pytest.raises(FramefoldError, match="is not written to disk"):
        original_name(source(name_bytes=b"../\xe9".hex()))


@pytest.mark.parametrize("nanoseconds", [0, 5, -1, -(10**9), 1_234_567_890_987_654_321])
def test_times_are_text_and_back(tmp_path: Path, nanoseconds: int) -> None:
    path = tmp_path / "a"
    path.touch()
    os.utime(path, ns=(nanoseconds, nanoseconds))
    with path.open("rb") as file:
        text = modified(file)
    assert text is not None
    os.utime(path, ns=(7, 7))
    assert restore_modified(path, source(modified=text)) is None
    assert path.stat().st_mtime_ns == nanoseconds


def test_a_time_that_cannot_be_set_is_told(tmp_path: Path) -> None:
    told = restore_modified(tmp_path / "missing", source(modified="1.000000000"))
    assert told is not None
    assert "1.000000000" in told
