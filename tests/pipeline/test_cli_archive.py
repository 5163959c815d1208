"""The commands that read an archive, on a real one: a film with sound, cut into clips, and two pictures."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from framefold.codecs.stream import bitstream
from framefold.pipeline import cli
from framefold.pipeline.archive import ArchiveError, ArchiveReader, ArchiveWriter
from framefold.pipeline.archive.folder import FolderWriter
from framefold.pipeline.cli import cat, decode, info, ls, selecting, verify
from framefold.pipeline.errors import FramefoldError, UsageError
from framefold.stages.archive_source import bitstream_of
from framefold.stages.codec_choice import codec_of

FRAMES, CLIP, WIDTH, HEIGHT = 12, 5, 40, 24
MANIFEST = {"generator": "test", "created": "2026-01-31T12:00:00Z"}
PIPELINE = """
pipeline: small
run_dir: {folder}/run
stages:
  frames:   {{stage: video_source, path: {folder}/film.mkv}}
  clips:    {{stage: segment, inputs: [frames], frames_per_clip: 5}}
  moving:   {{stage: fit, inputs: [clips], codec: {{name: nerv, width: 4}}, budget: {{steps: 3}}}}
  pictures: {{stage: image_source, path: {folder}/pictures, keep_original: true}}
  still:    {{stage: fit, inputs: [pictures], codec: {{name: siren, width: 8, depth: 1}}, budget: {{steps: 3}}}}
  symbols:  {{stage: quantize, inputs: [moving, still], bits: 8}}
  bits:     {{stage: entropy_encode, inputs: [symbols]}}
  archive:  {{stage: archive_sink, inputs: [bits, frames.rest, pictures.rest], path: {folder}/small.fold}}
"""


def run(module: Any, *words: str | Path) -> tuple[int, str, str]:
    """One command, in this process: its exit code and what it printed."""
    parser = argparse.ArgumentParser()
    module.add(parser.add_subparsers(required=True))
    name = module.__name__.rpartition(".")[2]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        args = parser.parse_args([name, *map(str, words)])
        code = int(args.run(args))
    return code, out.getvalue(), err.getvalue()


def json_of(module: Any, *words: str | Path, expect: int = 0) -> Any:
    code, out, err = run(module, *words, "--json")
    assert code == expect, out + err
    return json.loads(out)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("originals")
    (folder / "pictures").mkdir()
    for number, name in enumerate(("a.png", "b.png")):
        picture = np.random.default_rng(number).integers(0, 256, (9, 13 + number, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / "pictures" / name)
    with av.open(str(folder / "film.mkv"), "w") as container:
        film = container.add_stream("ffv1", rate=25)
        film.width, film.height, film.pix_fmt = WIDTH, HEIGHT, "bgr0"
        sound = container.add_stream("pcm_s16le", rate=8000)
        sound.metadata["language"] = "nld"
        for number in range(FRAMES):
            picture = np.full((HEIGHT, WIDTH, 3), 20 * number, np.uint8)
            container.mux(film.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
            noise = np.random.default_rng(number).integers(-99, 99, (1, 320), dtype=np.int16)
            samples = av.AudioFrame.from_ndarray(noise, "s16", "mono")
            samples.sample_rate, samples.pts = 8000, 320 * number
            container.mux(sound.encode(samples))
        container.mux(film.encode())
    return folder


@pytest.fixture(scope="module")
def archive(originals: Path) -> Path:
    (originals / "small.yaml").write_text(PIPELINE.format(folder=originals))
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        assert cli.main(["run", str(originals / "small.yaml"), "--local"]) == 0, output.getvalue()
    return originals / "small.fold"


@pytest.fixture(scope="module")
def reconstructed(archive: Path) -> list[np.ndarray[Any, Any]]:
    """(H, W, 3) of all frames, straight from the codec."""
    frames: list[np.ndarray[Any, Any]] = []
    with ArchiveReader.open(archive) as reader:
        for unit in sorted(reader.units, key=lambda unit: unit.first_frame):
            if reader.sources[unit.source].kind == "video":
                bits = bitstream_of(reader.read_unit(unit.id))
                symbols = bitstream.decode(bits.payload, span=bits.span, codec=bits.codec, config=bits.config)
                clip = codec_of(bits.codec, bits.config).reconstruct(symbols.dequantize(), device="cpu")
                frames += [frame.transpose(1, 2, 0) for frame in clip.frames]
    return frames


def damaged(archive: Path, target: Path, at: int) -> Path:
    data = bytearray(archive.read_bytes())
    data[at] ^= 1
    target.write_bytes(data)
    return target


def unit_of(archive: Path, name: str, first_frame: int = 0) -> Any:
    """What `ls` says of a unit."""
    units = json_of(ls, archive)["units"]
    return next(unit for unit in units if (unit["source"], unit["first_frame"]) == (name, first_frame))


def offset_of(archive: Path, chunk: str) -> int:
    return next(row["offset"] for row in json_of(ls, archive, "--chunks")["chunks"] if row["id"] == chunk)


# ls


def test_ls_lists_units_tracks_and_attachments(archive: Path, originals: Path) -> None:
    document = json_of(ls, archive)
    film = [unit for unit in document["units"] if unit["source"] == "film.mkv"]
    assert [(unit["first_frame"], unit["frames"]) for unit in film] == [(0, 5), (5, 5), (10, 2)]
    assert [(unit["start_seconds"], unit["end_seconds"]) for unit in film] == [(0.0, 0.2), (0.2, 0.4), (0.4, 0.48)]
    assert {unit["codec"] for unit in film} == {"nerv"}
    stills = [unit for unit in document["units"] if unit["source"] != "film.mkv"]
    assert [(unit["source"], unit["start_seconds"]) for unit in stills] == [("a.png", None), ("b.png", None)]
    (track,) = document["tracks"]
    assert (track["kind"], track["codec"], track["language"]) == ("audio", "pcm_s16le", "nld")
    assert track["packets"] == track["packets_held"] == FRAMES
    assert (track["start_seconds"], track["end_seconds"]) == (0.0, 0.48)
    kept = {row["source"]: row for row in document["attachments"] if row["kind"] == "original"}
    for name in ("a.png", "b.png"):
        data = (originals / "pictures" / name).read_bytes()
        assert (kept[name]["bytes"], kept[name]["is_held"]) == (len(data), True)
        assert kept[name]["sha256"] == hashlib.sha256(data).hexdigest()
    _, out, _ = run(ls, archive)
    for word in ("5 units", "0 film.mkv", "0.200000-0.400000", "1 track", "12 of 12", "nld", "2 attachments"):
        assert word in out


def test_ls_chunks_are_the_files_bytes_from_end_to_end(archive: Path) -> None:
    chunks = json_of(ls, archive, "--chunks")["chunks"]
    data = archive.read_bytes()
    assert chunks[0]["offset"] == 64
    for row, following in itertools.pairwise(chunks):
        assert row["offset"] + row["bytes"] == following["offset"]
    assert chunks[-1]["offset"] + chunks[-1]["bytes"] == len(data) - 64
    for row in chunks:
        body = data[row["offset"] : row["offset"] + 64 + row["payload_bytes"]]
        assert hashlib.sha256(body).hexdigest() == row["sha256"]
        assert body[8:12].decode() == row["type"]
    assert chunks[-1]["type"] == "Indx"


# info


def test_info_answers_like_ffprobe(archive: Path, originals: Path) -> None:
    document = json_of(info, archive)
    film = next(source for source in document["sources"] if source["name"] == "film.mkv")
    path = originals / "film.mkv"
    expected = {
        "kind": "video",
        "frames": FRAMES,
        "duration_seconds": 0.48,
        "start_seconds": 0.0,
        "frames_per_second": 25.0,
        "is_constant_rate": True,
        "size_bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "codec": "ffv1",
        "pixel_format": "bgr0",
        "bits_per_sample": 8,
        "rotation_degrees": 0,
    }
    assert expected.items() <= film.items()
    assert 0 < film["codec_bytes"] < film["size_bytes"]
    assert [track["codec"] for track in film["tracks"]] == ["pcm_s16le"]
    assert film["bytes"] == sum(unit["bytes"] for unit in document["chunks"] if unit["source"] == "film.mkv")
    assert (document["form"], document["shards"], document["is_sealed"]) == ("file", 1, None)
    assert sum(document["bytes_by_kind"].values()) == document["bytes"] == archive.stat().st_size
    assert document["bytes_by_kind"]["packets"] > FRAMES * 640
    assert document["bytes_by_codec"].keys() == {"nerv", "siren"}
    assert document["units_with_frame_hashes"] == len(document["chunks"]) == 5
    _, out, _ = run(info, archive)
    for word in ("25 frames per second, constant rate", "ffv1", "bgr0", "nld", "one whole file", "packets", "nerv"):
        assert word in out


@pytest.mark.parametrize(
    ("times", "constant"),
    [
        ([0, 40, 80, 120], True),
        ([0, 42, 83, 125], True),  # 1/24 s in milliseconds
        ([0, 40, 90, 120], False),
        ([0, 40, 80, 220], False),
    ],
)
def test_info_tells_constant_from_variable_rates(tmp_path: Path, times: list[int], constant: bool) -> None:
    document = {"name": "a.mp4", "kind": "video", "width": 8, "height": 8, "time_base": [1, 1000]}
    with ArchiveWriter(tmp_path / "a.fold") as writer:
        source, codec = writer.add_source(document), writer.add_codec("any", {})
        unit = {"source": source, "codec": codec, "first_frame": 0, "pts": times, "payload": b"x"}
        writer.add_unit(key="0" * 64, duration_ticks=41 if times[1] == 42 else 40, **unit)
        writer.commit(MANIFEST)
    assert json_of(info, tmp_path / "a.fold")["sources"][0]["is_constant_rate"] is constant


@pytest.mark.parametrize(
    ("matrix", "turned", "mirrored"),
    [
        (None, 0, False),
        ([0, 65536, 0, -65536, 0, 0, 0, 0, 2**30], 90, False),
        ([-65536, 0, 0, 0, -65536, 0, 0, 0, 2**30], 180, False),
        ([0, -65536, 0, 65536, 0, 0, 0, 0, 2**30], 270, False),
        ([-65536, 0, 0, 0, 65536, 0, 0, 0, 2**30], 0, True),
        (["x"] * 9, 0, False),
        ([0] * 9, 0, False),
    ],
)
def test_info_says_how_frames_are_meant_to_be_turned(tmp_path: Path, matrix: Any, turned: int, mirrored: bool) -> None:
    document = {"name": "a.mp4", "kind": "video", "width": 8, "height": 8, "time_base": [1, 25]}
    carried = {"pixel": {"format": "yuv420p10le", "bits": 10, "aspect": [4, 3], "display_matrix": matrix}}
    with ArchiveWriter(tmp_path / "a.fold") as writer:
        writer.add_source(document | {"carried": carried})
        writer.commit(MANIFEST)
    (source,) = json_of(info, tmp_path / "a.fold")["sources"]
    assert (source["rotation_degrees"], source["is_mirrored"]) == (turned, mirrored)
    assert (source["pixel_format"], source["bits_per_sample"], source["pixel_aspect"]) == ("yuv420p10le", 10, [4, 3])


STRANGE = "\x1b[2J\x9b31m\x07é\ud800"


@pytest.mark.parametrize("value", [STRANGE, 5, None, [], {}, [STRANGE], [{"kind": STRANGE, "codec": [1]}], {"a": {}}])
def test_whatever_a_stranger_wrote_is_shown_and_steers_nothing(tmp_path: Path, value: Any) -> None:
    fields = ("tracks", "attachments", "pixel", "codec", "container", "chapters", "codec_bytes", "modified")
    document = {"name": STRANGE, "kind": "video", "width": 8, "height": 8, "time_base": [1, 25]}
    more = {"carried": dict.fromkeys(fields, value), "color": value, "sha256": value, "frame_rate": value}
    with ArchiveWriter(tmp_path / "a.fold") as writer:
        source, codec = writer.add_source(document | more), writer.add_codec(STRANGE, {})
        unit = {"source": source, "codec": codec, "first_frame": 0, "pts": [0, 1], "duration_ticks": 1}
        writer.add_unit(key="0" * 64, payload=b"x", **unit)
        writer.commit({"generator": STRANGE, "created": "2026-01-31T12:00:00Z"})
    for module, *words in ((info,), (ls,), (ls, "--chunks"), (verify,)):
        code, out, err = run(module, tmp_path / "a.fold", *words)
        assert code == 0
        assert not {char for char in out + err if not char.isprintable()} - {"\n"}
        json_of(module, tmp_path / "a.fold", *words)
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        assert cli.main(["decode", str(tmp_path / "a.fold"), f"{tmp_path}/out"]) == 1
    assert not {char for char in output.getvalue() if not char.isprintable()} - {"\n"}


# cat


def shown(path: Path, form: str, **options: str) -> list[av.VideoFrame]:
    with av.open(str(path), format=form, options=options) as container:
        return list(container.decode(video=0))


def test_cat_gives_the_very_frames(archive: Path, reconstructed: Any, tmp_path: Path) -> None:
    assert run(cat, archive, "-o", tmp_path / "x.rgb")[0] == 0
    assert (tmp_path / "x.rgb").read_bytes() == b"".join(frame.tobytes() for frame in reconstructed)
    assert run(cat, archive, "-o", tmp_path / "x.nut")[0] == 0
    frames = shown(tmp_path / "x.nut", "nut")
    assert [frame.pts * frame.time_base for frame in frames] == [Fraction(n, 25) for n in range(FRAMES)]
    for frame, expected in zip(frames, reconstructed, strict=True):
        assert np.array_equal(frame.to_ndarray(format="rgb24"), expected)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("--start", "0.12", "--end", "0.36"), range(3, 9)),
        (("--start", "0:00.36"), range(9, 12)),
        (("--end", "0.04"), range(1)),
        (("--frames", "4:6"), range(4, 6)),
        (("--frames", "10:"), range(10, 12)),
        (("--frames", ":6", "--start", "0.2"), range(5, 6)),
    ],
)
def test_cat_cuts_exactly(
    archive: Path, reconstructed: Any, tmp_path: Path, words: tuple[str, ...], wanted: range
) -> None:
    assert run(cat, archive, *words, "-o", tmp_path / "x.rgb")[0] == 0
    assert (tmp_path / "x.rgb").read_bytes() == b"".join(reconstructed[number].tobytes() for number in wanted)


def test_cat_writes_frames_to_a_pipe_and_all_else_to_standard_error(archive: Path, reconstructed: Any) -> None:
    program = "import sys; from framefold.pipeline import cli; from framefold.pipeline.cli import cat\n"
    program += "cli.COMMANDS = ('cat',); sys.exit(cli.main())"
    command = [sys.executable, "-c", program, "cat", str(archive), "--format", "rawvideo"]
    whole = subprocess.run(command, check=True, capture_output=True)
    assert whole.stdout == b"".join(frame.tobytes() for frame in reconstructed)
    assert b"ffplay -f rawvideo -pixel_format rgb24 -video_size 40x24 -framerate 25 -" in whole.stderr
    assert b"2880 bytes a frame" in whole.stderr


def test_cat_shows_what_is_left_of_a_damaged_film(archive: Path, reconstructed: Any, tmp_path: Path) -> None:
    unit = unit_of(archive, "film.mkv", 5)["id"]
    bad = damaged(archive, tmp_path / "bad.fold", offset_of(archive, unit) + 200)
    code, out, err = run(cat, bad, "-o", tmp_path / "x.rgb")
    assert code == 3
    assert out == ""
    assert f"{unit}: F010" in err
    left = [*reconstructed[:5], *reconstructed[10:]]
    assert (tmp_path / "x.rgb").read_bytes() == b"".join(frame.tobytes() for frame in left)


def test_cat_shows_a_picture_too(archive: Path, tmp_path: Path) -> None:
    assert run(cat, archive, "--source", "b.png", "-o", tmp_path / "x.rgb")[0] == 0
    assert (tmp_path / "x.rgb").stat().st_size == 9 * 14 * 3


def test_cat_wants_one_source(tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path / "a.fold") as writer:
        for name in ("a.mp4", "b.mp4"):
            writer.add_source({"name": name, "kind": "video", "width": 8, "height": 8, "time_base": [1, 25]})
        writer.commit(MANIFEST)
    with pytest.raises(UsageError, match=r"2 sources.*--source; 0 'a\.mp4', 1 'b\.mp4'"):
        run(cat, tmp_path / "a.fold", "-o", tmp_path / "x")
    with pytest.raises(ArchiveError, match=r"F017.*no source 'c\.mp4'"):
        run(cat, tmp_path / "a.fold", "-o", tmp_path / "x", "--source", "c.mp4")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--frames", "5"), "two numbers such as 24:48"),
        (("--frames", "6:5"), "is empty"),
        (("--start", "2", "--end", "1"), "is empty"),
        (("--start", "soon"), "give seconds such as 83.5"),
        (("--start", "1:2:3:4"), "give seconds"),
    ],
)
def test_ranges_that_make_no_sense_are_explained(archive: Path, words: tuple[str, ...], said: str) -> None:
    for module in (cat, decode):
        with pytest.raises(UsageError, match=said):
            run(module, archive, *words, *(["out"] if module is decode else ["-o", "out"]))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("83.5", 83.5), ("1:23.5", 83.5), ("1:01:23.5", 3683.5), ("-2", -2.0), (".5", 0.5), ("-0:01", -1.0)],
)
def test_times_are_seconds_or_clocks(text: str, seconds: float) -> None:
    args = argparse.Namespace(frames=None, start=text, end=None)
    assert selecting.selection(args) == {"seconds": [seconds, None]}


# decode


def test_decode_cuts_pictures_and_sound_alike(archive: Path, reconstructed: Any, tmp_path: Path) -> None:
    code, _, err = run(decode, archive, tmp_path / "x.mkv", "--start", "0.12", "--end", "0.36")
    assert code == 0, err
    with av.open(str(tmp_path / "x.mkv")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 6
    for frame, expected in zip(frames, reconstructed[3:9], strict=True):
        assert np.array_equal(frame, expected)
    with av.open(str(tmp_path / "x.mkv")) as container:
        times = [packet.pts * packet.time_base for packet in container.demux(audio=0) if packet.size]
    assert times == [Fraction(number, 25) for number in range(3, 9)]


def test_decode_gives_one_source(archive: Path, tmp_path: Path) -> None:
    assert run(decode, archive, tmp_path / "out", "--source", "a.png")[0] == 0
    assert [path.name for path in (tmp_path / "out").rglob("*.*")] == ["a.png"]


def test_decode_gives_everything(archive: Path, tmp_path: Path) -> None:
    code, _, err = run(decode, archive, tmp_path / "out")
    assert code == 0, err
    names = sorted(path.name for path in (tmp_path / "out").rglob("*.png"))
    assert names == ["a.png", "b.png", *(f"frame_{number:06d}.png" for number in range(FRAMES))]


def test_decode_gives_originals_that_were_kept(archive: Path, originals: Path, tmp_path: Path) -> None:
    code, _, err = run(decode, archive, tmp_path / "out", "--originals", "--source", "a.png")
    assert code == 0, err
    assert (tmp_path / "out" / "a.png").read_bytes() == (originals / "pictures" / "a.png").read_bytes()


def test_decode_explains_what_it_cannot_do(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pictures have none"):
        run(decode, archive, tmp_path / "out", "--source", "a.png", "--start", "1")
    with pytest.raises(UsageError, match="whole files"):
        run(decode, archive, tmp_path / "out", "--originals", "--start", "1")


# verify


@pytest.mark.parametrize("level", ["fixity", "chunks", "decode"])
def test_verify_passes_what_is_whole(archive: Path, level: str) -> None:
    document = json_of(verify, archive, "--level", level)
    assert document["ok"]
    assert (document["level"], document["findings"], document["next"]) == (level, [], [])
    if level == "decode":
        assert document["decoded"] == {"units": 5, "exact": 5, "rounded": 0, "different": 0, "unrecorded": 0}
    code, out, _ = run(verify, archive, "--level", level)
    assert code == 0
    assert out.splitlines()[-1].startswith("ok:")


def test_verify_names_what_is_damaged_and_what_to_do(archive: Path, tmp_path: Path) -> None:
    unit = unit_of(archive, "film.mkv", 5)["id"]
    bad = damaged(archive, tmp_path / "bad.fold", offset_of(archive, unit) + 200)
    assert json_of(verify, bad, "--level", "fixity")["ok"]
    document = json_of(verify, bad, "--level", "decode", expect=1)
    (finding,) = document["findings"]
    assert (finding["code"], finding["chunk"], finding["offset"]) == ("F010", unit, offset_of(archive, unit))
    assert finding["affected"] == "film.mkv frames 5-9, 0.200000-0.400000 s"
    assert finding["remedy"]
    assert document["decoded"] is None
    assert document["next"] == [f"pipeline repair {bad}"]
    code, out, _ = run(verify, bad)
    assert code == 1
    assert "film.mkv frames 5-9, 0.200000-0.400000 s" in out
    assert out.splitlines()[-1].strip() == f"pipeline repair {bad}"


@pytest.mark.parametrize("at", [3, -3])
def test_verify_finds_a_damaged_header_or_footer_at_every_level(archive: Path, tmp_path: Path, at: int) -> None:
    bad = damaged(archive, tmp_path / "bad.fold", at)
    for level in ("fixity", "chunks", "decode"):
        document = json_of(verify, bad, "--level", level, expect=1)
        assert {finding["code"] for finding in document["findings"]} <= {"F002", "F005"}


def test_damage_that_is_gone_at_a_second_look_is_only_noted(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The medium errs once: the file is mended when the system's cache is dropped for the second look."""
    unit = unit_of(archive, "film.mkv", 5)["id"]
    bad = damaged(archive, tmp_path / "bad.fold", offset_of(archive, unit) + 200)
    dropped: list[Any] = []

    def mended(*_: Any) -> None:
        dropped.append(1)
        with bad.open("r+b") as file:
            file.write(archive.read_bytes())

    monkeypatch.setattr("os.posix_fadvise", mended)
    document = json_of(verify, bad)
    assert dropped == [1]
    assert document["ok"]
    (note,) = document["notes"]
    assert "read differently the second time" in note
    assert "F010" in note


def copy_with(archive: Path, target: Path, change: Callable[[str, dict[str, Any]], dict[str, Any] | None]) -> Path:
    """The same archive, with other measurements: `change` is asked for each unit's."""
    with ArchiveReader.open(archive) as reader, ArchiveWriter(target) as writer:
        for unit in reader.units:
            record, source = reader.read_unit(unit.id), reader.sources[unit.source]
            name = writer.add_unit(
                key=record.key,
                source=writer.add_source(source.document),
                codec=writer.add_codec(record.codec_name, record.codec_config),
                first_frame=record.first_frame,
                pts=record.pts,
                duration_ticks=record.duration_ticks,
                payload=record.payload,
            )
            measured = change(f"{source.name}:{unit.first_frame}", dict(reader.quality(unit.id) or {}))
            if measured is not None:
                writer.add_quality(name, measured)
        writer.commit(MANIFEST)
    return target


def test_verify_notices_frames_that_are_not_those_recorded(archive: Path, originals: Path, tmp_path: Path) -> None:
    def change(unit: str, measured: dict[str, Any]) -> dict[str, Any] | None:
        if unit == "a.png:0":
            return None
        others = {"frames_sha256": "ab" * 32, "frames_levels": "ff" * 12}
        return measured | (others if unit == "film.mkv:5" else {})

    other = copy_with(archive, tmp_path / "other.fold", change)
    document = json_of(verify, other, "--level", "decode", expect=1)
    assert document["decoded"] == {"units": 5, "exact": 3, "rounded": 0, "different": 1, "unrecorded": 1}
    (finding,) = document["findings"]
    assert (finding["code"], finding["chunk"]) == ("F030", unit_of(other, "film.mkv", 5)["id"])
    assert "3 of 5 units decoded bit-exact, 1 to other frames" in document["notes"][0]
    assert "--against" in document["notes"][1]

    confirmed = json_of(verify, other, "--against", originals / "film.mkv", originals / "pictures")
    assert confirmed["ok"]  # its PSNR is the recorded one: another machine's rounding, not damage
    assert confirmed["decoded"]["different"] == 1


def test_verify_forgives_what_another_machine_rounds_otherwise(archive: Path, tmp_path: Path) -> None:
    other = copy_with(archive, tmp_path / "other.fold", lambda _, measured: measured | {"frames_sha256": "ab" * 32})
    document = json_of(verify, other, "--level", "decode")
    assert document["decoded"] == {"units": 5, "exact": 0, "rounded": 5, "different": 0, "unrecorded": 0}
    assert "5 to the frames recorded but for rounding" in document["notes"][0]


def test_verify_notices_another_distortion_than_recorded(archive: Path, originals: Path, tmp_path: Path) -> None:
    def change(unit: str, measured: dict[str, Any]) -> dict[str, Any]:
        return measured | ({"psnr_db": measured["psnr_db"] + 0.06} if unit == "film.mkv:5" else {})

    other = copy_with(archive, tmp_path / "other.fold", change)
    assert json_of(verify, other, "--level", "decode")["ok"]
    document = json_of(verify, other, "--against", originals / "film.mkv", originals / "pictures", expect=1)
    assert [finding["code"] for finding in document["findings"]] == ["F031"]
    assert document["findings"][0]["message"].startswith("film.mkv[5:10]: decodes to ")


def test_verify_compares_with_the_originals(archive: Path, originals: Path) -> None:
    document = json_of(verify, archive, "--against", originals / "film.mkv", originals / "pictures")
    assert document["level"] == "decode"
    assert sorted(row["label"] for row in document["compared"]) == [
        "a.png",
        "b.png",
        "film.mkv[0:5]",
        "film.mkv[10:12]",
        "film.mkv[5:10]",
    ]
    assert all(row["same_times"] and row["same_original"] for row in document["compared"])
    _, out, _ = run(verify, archive, "--against", originals / "film.mkv", originals / "pictures")
    assert "compares with the originals as recorded" in out


def test_verify_notices_other_originals_and_missing_ones(archive: Path, originals: Path, tmp_path: Path) -> None:
    shutil.copy(originals / "film.mkv", tmp_path / "film.mkv")
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (13, 9)).save(tmp_path / "pictures" / "a.png")
    document = json_of(verify, archive, "--against", tmp_path / "film.mkv", tmp_path / "pictures", expect=1)
    assert sorted(finding["code"] for finding in document["findings"]) == ["F017", "F032"]
    differs = next(finding for finding in document["findings"] if finding["code"] == "F032")
    assert differs["message"].startswith("a.png: this is not the original file")
    assert document["next"] == [f"pipeline info {archive}"]


def test_parts_are_disjoint_and_together_everything(archive: Path, tmp_path: Path) -> None:
    chunks = [row for row in json_of(ls, archive, "--chunks")["chunks"] if row["type"] != "Indx"]
    found: dict[str, list[int]] = {}
    for row in chunks:
        bad = damaged(archive, tmp_path / "bad.fold", row["offset"] + 64)
        for part in range(1, 4):
            code, out, _ = run(verify, bad, "--subset", f"{part}/3", "--json")
            named = {finding["chunk"] for finding in json.loads(out)["findings"]}
            assert named <= {row["id"]}
            assert code == bool(named)
            found.setdefault(row["id"], []).extend([part] * len(named))
    opened = {row["id"] for row in chunks if row["type"] in ("Srce", "Cdec", "Mani", "Tabl", "copy")}
    assert all(len(found[row["id"]]) == 1 for row in chunks if row["id"] not in opened)
    assert all(found[name] in ([1, 2, 3], [1], [2], [3]) for name in opened)
    assert len({tuple(parts) for name, parts in found.items() if name not in opened}) == 3


def test_parts_of_a_decode_are_parts_of_the_units(archive: Path) -> None:
    counts = [
        json_of(verify, archive, "--level", "decode", "--subset", f"{part}/4")["decoded"]["units"]
        for part in range(1, 5)
    ]
    assert sum(counts) == 5
    assert max(counts) < 5


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3", "1/2/3"])
def test_a_part_that_is_none_is_explained(archive: Path, text: str) -> None:
    with pytest.raises(UsageError, match="--subset"):
        run(verify, archive, f"--subset={text}")


def test_against_needs_decoding(archive: Path) -> None:
    with pytest.raises(UsageError, match="leave out --level chunks"):
        run(verify, archive, "--level", "chunks", "--against", "x")


# The folder form


@pytest.fixture
def folder(archive: Path, tmp_path: Path) -> Path:
    """The units of the archive in four shards, one after the other, in four commits and the first."""
    with ArchiveReader.open(archive) as reader:
        units = [(unit, reader.read_unit(unit.id), reader.quality(unit.id)) for unit in reader.units]
        documents = [source.document for source in reader.sources]
    for number in range(4):
        writer = FolderWriter(f"{tmp_path}/folder.fold/")
        for unit, record, measured in units[number::4]:
            place = {
                "source": writer.add_source(documents[unit.source]),
                "codec": writer.add_codec(record.codec_name, record.codec_config),
            }
            times = {"first_frame": record.first_frame, "pts": record.pts, "duration_ticks": record.duration_ticks}
            name = writer.add_unit(key=record.key, payload=record.payload, **place, **times)
            writer.add_quality(name, measured or {})
        writer.commit(MANIFEST)
    return tmp_path / "folder.fold"


def shards_of(folder: Path) -> list[Path]:
    return sorted((folder / "data" / "shards").iterdir())


def test_a_folder_is_read_by_every_command(folder: Path, reconstructed: Any, tmp_path: Path) -> None:
    document = json_of(info, folder)
    assert (document["form"], document["shards"], document["is_sealed"]) == ("folder", 4, False)
    assert document["commits"] >= 4
    assert len(json_of(ls, folder)["units"]) == 5
    assert {row["shard"] for row in json_of(ls, folder, "--chunks")["chunks"]} == {
        one.stem for one in shards_of(folder)
    }
    assert run(cat, folder, "-o", tmp_path / "x.rgb")[0] == 0
    assert (tmp_path / "x.rgb").read_bytes() == b"".join(frame.tobytes() for frame in reconstructed)
    for level in ("fixity", "chunks", "decode"):
        document = json_of(verify, folder, "--level", level)
        assert document["ok"]
        assert document["files"] == 4


@pytest.mark.parametrize("level", ["fixity", "chunks"])
def test_a_damaged_shard_is_named_by_its_sha256(folder: Path, level: str) -> None:
    shard = shards_of(folder)[1]
    with ArchiveReader.open(shard) as reader:
        unit = reader.units[0].id
        at = next(entry.offset for number, entry in enumerate(reader.shards[0][1].index) if number == int(unit[1:]))
    damaged(shard, shard, at + 200)
    findings = json_of(verify, folder, "--level", level, expect=1)["findings"]
    assert findings[0]["code"] == "F026"
    assert findings[0]["chunk"] == f"data/shards/{shard.name}"
    assert [finding["chunk"] for finding in findings[1:]] == ([f"{shard.stem[:8]}/{unit}"] if level == "chunks" else [])


def test_a_missing_shard_and_strangers_are_told_apart(folder: Path) -> None:
    gone, renamed = shards_of(folder)[:2]
    shutil.copy(renamed, renamed.with_name("0" * 64 + ".fold"))
    gone.unlink()
    document = json_of(verify, folder, expect=1)
    (finding,) = document["findings"]
    assert (finding["code"], finding["chunk"]) == ("F025", f"data/shards/{gone.name}")
    assert "1 shard is listed by no commit" in document["notes"][0]


def test_a_shard_of_another_archive_is_noticed_whatever_it_is_called(folder: Path, archive: Path) -> None:
    shard = shards_of(folder)[0]
    shutil.copy(archive, shard)
    assert json_of(verify, folder, "--level", "fixity", expect=1)["findings"][0]["code"] == "F026"


def test_damaged_commits_are_reported_and_older_ones_read(folder: Path) -> None:
    *_, last = sorted((folder / "data" / "commits").iterdir())
    damaged(last, last, 5)
    document = json_of(verify, folder, expect=1)
    (finding,) = document["findings"]
    assert finding["code"] in ("F023", "F024")
    assert finding["chunk"] == f"data/commits/{last.name}"
    assert document["files"] == 3


def test_a_lost_commit_below_others_is_reported(folder: Path) -> None:
    third = sorted((folder / "data" / "commits").iterdir())[2]
    third.unlink()
    findings = json_of(verify, folder, expect=1)["findings"]
    assert [(finding["code"], finding["chunk"]) for finding in findings] == [("F024", f"data/commits/{third.name}")]


def test_parts_of_a_folder_are_its_shards(folder: Path) -> None:
    files = [json_of(verify, folder, "--subset", f"{part}/3")["files"] for part in range(1, 4)]
    assert sum(files) == 4
    shard = shards_of(folder)[2]
    damaged(shard, shard, 100)
    codes = [run(verify, folder, "--subset", f"{part}/3")[0] for part in range(1, 4)]
    assert codes == [int(int(shard.name[:8], 16) % 3 == part) for part in range(3)]


def test_a_folder_that_holds_no_archive_is_refused(tmp_path: Path) -> None:
    for module in (info, ls, verify):
        with pytest.raises(FramefoldError, match=r"F00\d|F02\d"):
            run(module, tmp_path)


def test_a_console_shows_control_characters_as_escapes_and_keeps_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.text import Text

    from framefold.pipeline.cli.safe_console import SafeConsole

    console = SafeConsole(force_terminal=True, color_system="standard", width=60)
    console.print(Text("a\x1b[31mb\x9bc\x7f", style="red"), "two\nlines")
    out = capsys.readouterr().out
    assert out == "\x1b[31ma\\x1b[31mb\\x9bc\\x7f\x1b[0m two\nlines\n"  # only the console's own red is red


def test_warnings_are_printed_safely() -> None:
    from framefold.pipeline.cli.safe_console import printable

    program = "import logging; from framefold.pipeline.cli import screen; screen.console()\n"
    program += f"logging.getLogger('x').warning('%s', {STRANGE[:-1]!r})"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert done.stderr.decode() == printable(STRANGE[:-1]) + "\n"


def test_every_command_is_quick_to_explain_itself() -> None:
    for module in (ls, cat, verify, info, decode):
        with pytest.raises(SystemExit) as ended:
            run(module, "--help")
        assert ended.value.code == 0


def test_many_units_are_decoded_in_several_runs(
    archive: Path, originals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("framefold.pipeline.cli.verify_decoded.BATCH", 2)
    document = json_of(verify, archive, "--against", originals / "film.mkv", originals / "pictures")
    assert document["ok"]
    assert document["decoded"] == {"units": 5, "exact": 5, "rounded": 0, "different": 0, "unrecorded": 0}
    assert len(document["compared"]) == 5
