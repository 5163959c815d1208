"""A third-party distribution adds a stage and a codec: `tests/plugin_example`, built, installed and run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from framefold.codecs.base import FitSettings, Fitting
from framefold.codecs.clip import Clip, Source, Span
from framefold.codecs.network import FittedNetwork
from framefold.pipeline import registry
from framefold.pipeline.item import Item

ROOT = Path(__file__).parents[1]
PIPELINE = Path(sys.executable).with_name("pipeline")

GRAY = f"""\
pipeline: gray
stages:
  frames:  {{stage: video_source, path: "{ROOT}/examples/bunny.mp4"}}
  clips:   {{stage: segment, inputs: [frames], frames_per_clip: 24}}
  gray:    {{stage: grayscale, inputs: [clips], matrix: bt601}}
  fitted:  {{stage: fit, inputs: [gray], codec: {{name: mean_image, pixels_per_cell: 4}}}}
  pruned:  {{stage: prune, inputs: [fitted], keep: 0.95, finetune: {{steps: 5}}}}
  symbols: {{stage: quantize, inputs: [pruned], bits: 8}}
  bits:    {{stage: entropy_encode, inputs: [symbols]}}
  archive: {{stage: archive_sink, inputs: [bits], path: gray.fold}}
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like site-packages with the plugin in it, put there by pip without any network."""
    source = tmp_path_factory.mktemp("source") / "plugin"
    shutil.copytree(
        ROOT / "tests" / "plugin_example", source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
    )
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    offline = ["--no-build-isolation", "--no-index", "--target", str(target)]
    built = subprocess.run([*pip, *offline, str(source)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return target


@pytest.fixture(scope="module")
def plugin(installed: Path) -> Iterator[Path]:
    """The plugin, importable and registered in this process too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(installed)
        yield installed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "gray.yaml").write_text(GRAY)
    return tmp_path


@pytest.fixture(scope="module")
def archive(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled clip, archived through both."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "gray.yaml").write_text(GRAY)
    done = pipeline(folder, "run", "gray.yaml", "--local", plugins=installed)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "gray.fold"


def pipeline(folder: Path, *arguments: str, plugins: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1"} | ({"PYTHONPATH": str(plugins)} if plugins else {})
    command = [str(PIPELINE), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def result_of(fitting: Fitting) -> FittedNetwork:
    while True:
        try:
            next(fitting)
        except StopIteration as end:
            network: FittedNetwork = end.value
            return network


def clip_of(frames: np.ndarray[Any, np.dtype[np.uint8]]) -> Clip:
    count, _, height, width = frames.shape
    source = Source(name="a.mp4", kind="video", sha256="0" * 64, size_bytes=1, width=width, height=height)
    return Clip(span=Span(source=source, pts=tuple(range(count))), frames=frames)


def squared_error(codec: Any, network: FittedNetwork, clip: Clip) -> float:
    """Of the picture before it is rounded, summed over the clip's mean frame."""
    rows, columns = codec._stretch(clip.span)
    picture = rows @ network.tensors["grid"].astype(np.float64) @ columns.T
    return float(np.square(picture - clip.frames.mean(axis=0) / 255).sum())


clips = st.builds(
    lambda seed, count, height, width: clip_of(
        np.random.default_rng(seed).integers(0, 256, (count, 3, height, width), np.uint8)
    ),
    st.integers(0, 2**32 - 1),
    st.integers(1, 4),
    st.integers(1, 33),
    st.integers(1, 33),
)


# The command finds it, or says that it does not


def test_both_are_listed_with_their_options_and_their_distribution(installed: Path, tmp_path: Path) -> None:
    done = pipeline(tmp_path, "plugins", "--json", plugins=installed)
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    stages = {stage["name"]: stage for stage in listed["stages"]}
    codecs = {codec["name"]: codec for codec in listed["codecs"]}
    assert stages["grayscale"]["distribution"] == codecs["mean_image"]["distribution"] == "framefold-plugin-example"
    assert stages["grayscale"]["summary"] == "Replace the three channels of every frame by its luma."
    assert stages["grayscale"]["accepts"] == ["Clip"]
    assert stages["grayscale"]["emits"] == {"out": ["Clip"]}
    assert stages["grayscale"]["options"]["properties"]["matrix"]["enum"] == ["bt601", "bt709"]
    assert codecs["mean_image"]["options"]["properties"]["pixels_per_cell"]["default"] == 8
    assert {"fit", "segment"} <= set(stages)
    assert "gridnerv" in codecs


def test_without_it_both_names_are_refused_and_the_known_ones_listed(folder: Path) -> None:
    refused = pipeline(folder, "check", "gray.yaml")
    assert refused.returncode == 2
    stage, codec = (line for line in refused.stderr.splitlines() if "unknown" in line)
    assert "gray.yaml:5:" in stage
    assert "unknown stage 'grayscale'" in stage
    assert "segment" in stage
    assert "gray.yaml:6:" in codec
    assert "unknown codec 'mean_image'" in codec
    assert "gridnerv" in codec


def test_its_options_are_checked_like_any_others(folder: Path, installed: Path) -> None:
    (folder / "gray.yaml").write_text(GRAY.replace("bt601", "bt602").replace("pixels_per_cell: 4", "pixels_per_cel: 4"))
    refused = pipeline(folder, "check", "gray.yaml", plugins=installed)
    assert refused.returncode == 2
    assert "stages.gray.matrix" in refused.stderr
    assert "bt709" in refused.stderr
    assert "stages.fitted.codec.pixels_per_cel" in refused.stderr
    assert "pixels_per_cell" in refused.stderr


# It runs, from a video to an archive and back


def test_a_pipeline_runs_through_both_and_the_archive_decodes(archive: Path, tmp_path: Path, installed: Path) -> None:
    info = json.loads(pipeline(tmp_path, "info", str(archive), "--json", plugins=installed).stdout)
    assert [chunk["codec"] for chunk in info["chunks"]] == ["mean_image", "mean_image"]
    assert min(chunk["psnr_db"] for chunk in info["chunks"]) > 20
    decoded = pipeline(tmp_path, "decode", str(archive), "pictures", plugins=installed)
    assert decoded.returncode == 0, decoded.stdout + decoded.stderr
    files = sorted((tmp_path / "pictures").rglob("*.png"))
    pictures = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files]).astype(int)
    source = info["sources"][0]
    assert pictures.shape == (48, source["height"], source["width"], 3)
    assert np.ptp(pictures, axis=3).max() <= 2, "grey went in; each channel was quantized by its own step"
    assert (pictures[:24] == pictures[0]).all()
    assert (pictures[24:] == pictures[24]).all()


def test_without_it_the_archive_cannot_be_decoded_and_the_codec_is_named(archive: Path, tmp_path: Path) -> None:
    refused = pipeline(tmp_path, "decode", str(archive), "pictures")
    assert refused.returncode != 0
    assert "mean_image" in refused.stdout + refused.stderr
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.ray
@pytest.mark.slow
def test_ray_workers_find_it_too(folder: Path, installed: Path) -> None:
    done = pipeline(folder, "run", "gray.yaml", "--set", "fitted.replicas=2", plugins=installed)
    assert done.returncode == 0, done.stdout + done.stderr
    info = json.loads(pipeline(folder, "info", "gray.fold", "--json", plugins=installed).stdout)
    assert [chunk["frames"] for chunk in info["chunks"]] == [24, 24]


# The stage


@pytest.mark.parametrize(("matrix", "red"), [("bt601", 76), ("bt709", 54)])
def test_grayscale_weighs_the_channels_as_its_option_says(plugin: Path, matrix: str, red: int) -> None:
    stage_class = registry.load_stage("grayscale")
    stage = stage_class(stage_class.Config.model_validate({"matrix": matrix}))
    frames = np.zeros((2, 3, 3, 5), np.uint8)
    frames[0, 0], frames[1] = 255, 200
    clip = clip_of(frames)
    (gray,) = stage.process(Item(key="k", label="a", seq=(0, 0), payload=clip))
    assert gray.span == clip.span
    assert (gray.frames[0] == red).all()
    assert (gray.frames[1] == 200).all()


# The codec


@pytest.fixture
def codec_class(plugin: Path) -> type[Any]:
    return registry.load_codec("mean_image")


def test_its_name_is_the_registered_one(codec_class: type[Any]) -> None:
    assert codec_class.name == "mean_image"


@settings(deadline=None, max_examples=30)
@given(clip=clips, cell=st.integers(2, 40), seed=st.integers(0, 99))
def test_no_other_grid_is_nearer_to_the_clip(plugin: Path, clip: Clip, cell: int, seed: int) -> None:
    codec = registry.load_codec("mean_image").from_config({"pixels_per_cell": cell})
    network = result_of(codec.fit(clip, FitSettings()))
    least = squared_error(codec, network, clip)
    grid = network.tensors["grid"]
    for distance in (0.3, 0.01):
        moved = grid + np.random.default_rng(seed).normal(0, distance, grid.shape).astype(np.float32)
        other = FittedNetwork(span=clip.span, codec="mean_image", config=network.config, tensors={"grid": moved})
        assert least <= squared_error(codec, other, clip)


@settings(deadline=None, max_examples=30)
@given(clip=clips, cell=st.integers(2, 40), seed=st.integers(0, 99))
def test_finetuning_holds_masked_cells_at_zero_and_never_makes_it_worse(
    plugin: Path, clip: Clip, cell: int, seed: int
) -> None:
    codec = registry.load_codec("mean_image").from_config({"pixels_per_cell": cell})
    network = result_of(codec.fit(clip, FitSettings()))
    mask = np.random.default_rng(seed).random(network.tensors["grid"].shape) < 0.8
    pruned = FittedNetwork(
        span=clip.span,
        codec="mean_image",
        config=network.config,
        tensors={"grid": np.where(mask, network.tensors["grid"], np.float32(0))},
        target=clip,
    )
    tuned = result_of(codec.finetune(pruned, {"grid": mask}, FitSettings(steps=7)))
    assert (tuned.tensors["grid"][~mask] == 0).all()
    assert squared_error(codec, tuned, clip) <= squared_error(codec, pruned, clip) * (1 + 1e-5) + 1e-9


def test_a_flat_clip_comes_back_exactly(codec_class: type[Any]) -> None:
    clip = clip_of(np.full((3, 3, 17, 9), 77, np.uint8))
    codec = codec_class()
    assert (codec.reconstruct(result_of(codec.fit(clip, FitSettings()))).frames == clip.frames).all()


def test_a_strangers_tensors_are_refused_by_name(codec_class: type[Any]) -> None:
    clip = clip_of(np.zeros((1, 3, 16, 16), np.uint8))
    stranger = FittedNetwork(
        span=clip.span, codec="mean_image", config={}, tensors={"grid": np.zeros((3, 9, 9), np.float32)}
    )
    with pytest.raises(ValueError, match=r"\(3, 2, 2\).*\(3, 9, 9\)"):
        codec_class().reconstruct(stranger)
