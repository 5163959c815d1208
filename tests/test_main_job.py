"""The main job as a user does it: the real command on real files, in this process so that it is quick."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from framefold.pipeline.archive import ArchiveReader, verify
from framefold.pipeline.cli import main

ROOT = Path(__file__).parent.parent
QUICK_VIDEO = ("fitted.codec={name: gridnerv, size: S}", "fitted.budget={steps: 40}", "symbols.budget={steps: 20}")
QUICK_IMAGES = ("fitted.codec={name: siren}", "fitted.budget={steps: 60}")


def pipeline(*arguments: str | Path, expect: int = 0) -> str:
    """Run the command from the repository's folder, in this process; its output."""
    output = io.StringIO()
    with contextlib.chdir(ROOT), contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        code = main([*map(str, arguments)])
    assert code == expect, output.getvalue()
    return output.getvalue()


def run(file: str, folder: Path, *overrides: str, expect: int = 0) -> str:
    settings = (f"run_dir={folder / 'run'}", *overrides)
    return pipeline("run", file, "--local", *(word for one in settings for word in ("--set", one)), expect=expect)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled clip, archived in a hurry."""
    folder = tmp_path_factory.mktemp("video")
    output = run("pipeline.yaml", folder, f"archive.path={folder / 'bunny.fold'}", *QUICK_VIDEO)
    assert "PSNR dB" in output
    assert f"pipeline info {folder / 'bunny.fold'}" in output
    return folder / "bunny.fold"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    run("examples/images.yaml", folder, f"archive.path={folder / 'images.fold'}", *QUICK_IMAGES)
    return folder / "images.fold"


def frames_of(path: Path) -> list[np.ndarray[Any, Any]]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def samples_of(path: Path) -> list[np.ndarray[Any, Any]]:
    """Of each frame its planes as they are stored, one above the other."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    assert {frame.format.name for frame in frames} == {"yuv420p"}
    return [frame.to_ndarray() for frame in frames]


def test_info_says_what_is_inside(video: Path) -> None:
    document = json.loads(pipeline("info", video, "--json"))
    assert document["bytes"] == video.stat().st_size
    assert document["bits_per_pixel"] == pytest.approx(8 * video.stat().st_size / (48 * 320 * 180))
    (source,) = document["sources"]
    expected = {"name": "bunny.mp4", "kind": "video", "width": 320, "height": 180, "frames": 48}
    assert expected.items() <= source.items()
    assert source["duration_seconds"] == pytest.approx(1.92)
    assert [(chunk["codec"], chunk["frames"]) for chunk in document["chunks"]] == [("gridnerv", 24)] * 2
    assert sum(chunk["bytes"] for chunk in document["chunks"]) <= document["bytes"]
    assert len({chunk["id"] for chunk in document["chunks"]}) == 2


def test_the_recorded_psnr_is_that_of_the_decoded_file(video: Path, tmp_path: Path) -> None:
    pipeline("decode", video, tmp_path / "x.mkv")
    decoded, original = samples_of(tmp_path / "x.mkv"), samples_of(ROOT / "examples" / "bunny.mp4")
    per_frame = [
        10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)) for a, b in zip(decoded, original, strict=True)
    ]
    recorded = [chunk["psnr_db"] for chunk in json.loads(pipeline("info", video, "--json"))["chunks"]]
    assert recorded == pytest.approx([np.mean(per_frame[:24]), np.mean(per_frame[24:])], abs=1e-3)


def test_decoding_twice_gives_the_same_frames(video: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        pipeline("decode", video, tmp_path / name)
    first, second = (sorted((tmp_path / name).rglob("*.png")) for name in ("a", "b"))
    assert len(first) == 48
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_mp4_keeps_size_and_times(video: Path, tmp_path: Path) -> None:
    pipeline("decode", video, tmp_path / "x.mp4")
    with av.open(str(tmp_path / "x.mp4")) as container:
        stream = container.streams.video[0]
        times = [float(frame.pts * frame.time_base) for frame in container.decode(stream)]
        assert (stream.width, stream.height) == (320, 180)
    assert times == pytest.approx([index / 25 for index in range(48)])


def test_verify_passes_and_compares_with_the_original(video: Path) -> None:
    assert "ok:" in pipeline("verify", video)
    document = json.loads(pipeline("verify", video, "--against", "examples/bunny.mp4", "--json").partition("\n[")[0])
    assert document["ok"]
    assert all(row["same_times"] and row["same_original"] for row in document["compared"])


def test_verify_notices_another_original(video: Path, tmp_path: Path) -> None:
    other = tmp_path / "bunny.mp4"
    with av.open(str(other), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        for index in range(48):
            picture = np.full((180, 320, 3), 5 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    assert "not the original" in pipeline("verify", video, "--against", other, expect=1)


def test_every_flipped_byte_of_a_chunk_is_noticed_and_its_chunk_named(video: Path, tmp_path: Path) -> None:
    with ArchiveReader.open(video) as reader:
        units = [unit.id for unit in reader.units]
        payloads = [reader.read_unit(unit).payload for unit in units]
    whole, damaged = video.read_bytes(), tmp_path / "damaged.fold"
    for unit, payload in zip(units, payloads, strict=True):
        start = whole.index(payload)
        for offset in (start, start + len(payload) // 2, start + len(payload) - 1):
            data = bytearray(whole)
            data[offset] ^= 1
            damaged.write_bytes(data)
            assert unit in {finding.chunk for finding in verify(damaged)}
    assert units[-1] in pipeline("verify", damaged, expect=1)


def test_a_damaged_chunk_costs_only_itself(video: Path, tmp_path: Path) -> None:
    with ArchiveReader.open(video) as reader:
        payload = reader.read_unit(reader.units[1].id).payload
    data = bytearray(video.read_bytes())
    data[data.index(payload) + 100] ^= 255
    (tmp_path / "damaged.fold").write_bytes(data)
    output = pipeline("decode", tmp_path / "damaged.fold", tmp_path / "frames", expect=3)
    assert "set aside" in output
    assert len(list((tmp_path / "frames").rglob("*.png"))) == 24


def test_images_come_back_under_their_names_and_sizes(images: Path, tmp_path: Path) -> None:
    pipeline("decode", images, tmp_path / "back")
    originals = sorted((ROOT / "examples" / "images").glob("*.png"))
    back = sorted((tmp_path / "back").glob("*"))
    assert [path.name for path in back] == [path.name for path in originals]
    for one, other in zip(back, originals, strict=True):
        with Image.open(one) as decoded, Image.open(other) as original:
            assert decoded.size == original.size
    assert "ok:" in pipeline("verify", images, "--against", "examples/images")


def test_the_decode_graph_as_yaml(video: Path, tmp_path: Path) -> None:
    out = tmp_path / "again.mp4"
    output = run("examples/decode.yaml", tmp_path, f"bits.path={video}", f"file.path={out}", "frames.replicas=1")
    assert "PSNR dB" in output
    assert len(frames_of(out)) == 48


@pytest.mark.parametrize("file", ["pipeline.yaml", "examples/images.yaml", "examples/decode.yaml"])
@pytest.mark.parametrize("form", ["text", "dot", "mermaid"])
def test_graph_draws_the_examples_whether_or_not_their_inputs_are_there(file: str, form: str) -> None:
    graph = pipeline("graph", file, "--format", form)
    assert "SymbolTensors" in graph
    assert "replicas" in graph or form != "text"


def test_check_knows_the_examples(video: Path) -> None:
    for file, override in (
        ("pipeline.yaml", "seed=1"),
        ("examples/images.yaml", "seed=1"),
        ("examples/decode.yaml", f"bits.path={video}"),
    ):
        assert pipeline("check", file, "--set", override).startswith("ok")


def test_plugins_lists_every_stage_and_codec() -> None:
    document = json.loads(pipeline("plugins", "--json"))
    stages = {stage["name"]: stage for stage in document["stages"]}
    assert {"video_source", "segment", "fit", "prune", "quantize", "entropy_encode", "archive_sink"} <= stages.keys()
    assert {"archive_source", "entropy_decode", "reconstruct", "video_sink", "image_sink", "quality"} <= stages.keys()
    assert {"nerv", "enerv", "hnerv", "gridnerv", "coin", "siren"} <= {codec["name"] for codec in document["codecs"]}
    for entry in document["stages"] + document["codecs"]:
        assert entry["summary"]
        assert {"accepts", "emits", "options"} <= entry.keys()
    assert "keep" in stages["prune"]["options"]["properties"]


def test_a_bad_file_is_named_and_the_others_are_archived(tmp_path: Path) -> None:
    shutil.copy(ROOT / "examples" / "bunny.mp4", tmp_path / "good.mp4")
    (tmp_path / "bad.mp4").write_bytes(b"this is no video")
    archive = tmp_path / "x.fold"
    output = run(
        "pipeline.yaml", tmp_path, f"frames.path={tmp_path}", f"archive.path={archive}", *QUICK_VIDEO, expect=3
    )
    assert "bad.mp4" in output
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert [Path(refusal["label"]).name for refusal in report["refused"]] == ["bad.mp4"]
    (source,) = json.loads(pipeline("info", archive, "--json"))["sources"]
    assert source["name"] == "good.mp4"


def test_nothing_to_archive_leaves_no_archive_and_keeps_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"")
    archive = tmp_path / "x.fold"
    archive.write_bytes(b"what was there before")
    output = run("pipeline.yaml", tmp_path, f"frames.path={tmp_path}", f"archive.path={archive}", expect=1)
    assert "bad.mp4" in output
    assert "nothing reached the archive" in output
    assert archive.read_bytes() == b"what was there before"
    assert not list(tmp_path.glob(".*.part"))


def test_a_missing_input_is_found_before_anything_starts(tmp_path: Path) -> None:
    output = run("pipeline.yaml", tmp_path, f"frames.path={tmp_path / 'no.mp4'}", expect=2)
    assert "stages.frames.path" in output
    assert "no.mp4" in output


def test_an_unknown_codec_lists_the_known_ones_and_the_nearest(tmp_path: Path) -> None:
    output = run("pipeline.yaml", tmp_path, "fitted.codec={name: gridnrv}", expect=2)
    assert "gridnerv" in output
    assert "siren" in output
    output = run("pipeline.yaml", tmp_path, "fitted.codec={name: gridnerv, size: XXL}", expect=2)
    assert "stages.fitted.codec.size" in output


def test_a_codec_is_only_fed_what_it_takes(tmp_path: Path) -> None:
    output = run("pipeline.yaml", tmp_path, "fitted.codec={name: siren}", expect=2)
    assert "ImageBatch" in output
    assert "Clip" in output


def test_an_archive_that_is_none_is_refused_kindly(tmp_path: Path) -> None:
    (tmp_path / "x.fold").write_text("hello")
    for command in (("info",), ("verify",), ("decode",)):
        extra = [tmp_path / "out"] if command == ("decode",) else []
        output = pipeline(*command, tmp_path / "x.fold", *extra, expect=1)
        assert "Traceback" not in output


def write_clip(path: Path, *, width: int, height: int, frames: int) -> None:
    """A small FFV1 video: lossless, so any size will do."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "bgr0"
        y, x = np.mgrid[:height, :width]
        for index in range(frames):
            picture = np.stack([(x * 4 + index * 9) % 256, (y * 5) % 256, (x + y + index) % 256], 2).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


MIXED = """
pipeline: mixed
run_dir: {folder}/run
stages:
  frames:   {{stage: video_source, path: {folder}/media/odd.mkv}}
  clips:    {{stage: segment, inputs: [frames], frames_per_clip: 3}}
  moving:   {{stage: fit, inputs: [clips], codec: {{name: nerv, width: 4}}, budget: {{steps: 5}}}}
  pictures: {{stage: image_source, path: {folder}/media/one.png}}
  still:    {{stage: fit, inputs: [pictures], codec: {{name: coin, preset: 5x20}}, budget: {{steps: 5}}}}
  symbols:  {{stage: quantize, inputs: [moving, still], bits: 8}}
  bits:     {{stage: entropy_encode, inputs: [symbols]}}
  archive:  {{stage: archive_sink, inputs: [bits], path: {folder}/mixed.fold}}
"""


def test_odd_sizes_one_frame_tails_and_mixed_archives(tmp_path: Path) -> None:
    """Two branches meet in one archive; an odd-sized video of 3 + 3 + 1 frames and a picture come out of it."""
    media = tmp_path / "media"
    media.mkdir()
    write_clip(media / "odd.mkv", width=37, height=21, frames=7)
    Image.fromarray(np.full((9, 13, 3), (200, 40, 90), np.uint8)).save(media / "one.png")
    (tmp_path / "mixed.yaml").write_text(MIXED.format(folder=tmp_path))
    pipeline("run", tmp_path / "mixed.yaml", "--local")
    document = json.loads(pipeline("info", tmp_path / "mixed.fold", "--json"))
    assert [(source["width"], source["height"], source["frames"]) for source in document["sources"]] == [
        (37, 21, 7),
        (13, 9, 1),
    ]
    assert "ok:" in pipeline("verify", tmp_path / "mixed.fold", "--against", media)
    pipeline("decode", tmp_path / "mixed.fold", tmp_path / "back")
    with Image.open(tmp_path / "back" / "one.png") as picture:
        assert picture.size == (13, 9)
    frames = sorted((tmp_path / "back").rglob("frame_*.png"))
    assert len(frames) == 7
    with Image.open(frames[0]) as picture:
        assert picture.size == (37, 21)


def test_two_files_of_one_name_stay_apart(tmp_path: Path) -> None:
    for folder, shade in (("a", 30), ("b", 220)):
        (tmp_path / "media" / folder).mkdir(parents=True)
        Image.fromarray(np.full((8, 8, 3), shade, np.uint8)).save(tmp_path / "media" / folder / "one.png")
    archive = tmp_path / "two.fold"
    settings = (f"pictures.path={tmp_path / 'media'}", f"archive.path={archive}", *QUICK_IMAGES)
    run("examples/images.yaml", tmp_path, *settings)
    names = [source["name"] for source in json.loads(pipeline("info", archive, "--json"))["sources"]]
    assert names == ["a/one.png", "b/one.png"]
    pipeline("decode", archive, tmp_path / "back")
    shades = []
    for name in names:
        with Image.open(tmp_path / "back" / name) as picture:
            shades.append(np.asarray(picture).mean())
    assert shades[0] < 100 < shades[1]
    assert "ok:" in pipeline("verify", archive, "--against", tmp_path / "media")
