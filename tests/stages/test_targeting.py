"""A target in a pipeline file, all the way to the archive and the report."""

import io
import json
import textwrap

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from framefold.codecs.rate.fit_to_target import STREAM_BYTES
from framefold.codecs.rate.targets import RateTarget
from framefold.codecs.siren import Siren, SirenConfig
from framefold.codecs.testing import make_clip, moving_shapes
from framefold.pipeline import runner, spec
from framefold.pipeline.archive import ArchiveReader
from framefold.pipeline.errors import SpecError

HEAD = """\
pipeline: rates
run_dir: run
{target}
stages:
  pictures: {{stage: image_source, path: pictures}}
  fitted: {{stage: fit, inputs: [pictures], codec: {codec}, budget: {{steps: 40}}}}
"""
TAIL = """\
  {name}: {{stage: quantize, inputs: [fitted]{options}}}
  {name}_bits: {{stage: entropy_encode, inputs: [{name}]}}
  {name}_archive: {{stage: archive_sink, inputs: [{name}_bits, pictures.rest], path: {name}.fold}}
"""
SHAPES = make_clip(moving_shapes(1, 24, 36), kind="image")


@pytest.fixture(autouse=True)
def pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    pixels = SHAPES.frames[0].transpose(1, 2, 0)
    Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / "pictures" / "shapes.png")


def load(tmp_path, *tails, target="", codec="{name: siren}", overrides=()):
    text = HEAD.format(target=target, codec=codec)
    text += "".join(TAIL.format(name=name, options=options) for name, options in tails)
    (tmp_path / "p.yaml").write_text(textwrap.dedent(text))
    return spec.load(tmp_path / "p.yaml", overrides)


def reported(pipeline, tmp_path):
    """The rows of the report, by archive, and how often each node worked."""
    runner.run(pipeline, Console(file=io.StringIO()), runner.Manner(local=True))
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    rows = {}
    for row in report["rows"]:
        rows.setdefault(row["stage"].removesuffix("_archive"), {})[row["label"]] = row
    return rows, {name: node["done"] for name, node in report["stages"].items()}


def test_several_rates_from_one_fit(tmp_path):
    targets = {"a": {"bytes": 300}, "b": {"bpp": 4}}
    tails = [(name, f", target: {json.dumps(target)}") for name, target in targets.items()]
    rows, done = reported(load(tmp_path, *tails, codec="{name: siren, width: 12, depth: 3}"), tmp_path)
    assert (done["fitted"], done["a"], done["b"]) == (1, 1, 1)
    for name, target in targets.items():
        wanted, row = RateTarget.model_validate(target), rows[name]["shapes.png"]
        assert row["target"] == str(wanted)
        assert wanted.is_met_by(float(row["reached"].split()[0]))
        assert rows[name][f"{name}.fold"]["target"] == "1 of 1 met"
    sizes = [rows[name]["shapes.png"]["bytes"] for name in targets]
    assert sizes == sorted(sizes)


def test_a_target_at_the_top_chooses_the_size_too(tmp_path):
    checked = load(tmp_path, ("a", ""), target="target: {bytes: 900}", codec="{name: siren, depth: 3}")
    assert checked.graph["fitted"].config.target == checked.graph["a"].config.target == RateTarget(bytes=900)
    rows, _ = reported(checked, tmp_path)
    assert rows["a"]["a.fold"]["target"] == "1 of 1 met"
    with ArchiveReader.open("a.fold") as archive:
        (codec,) = archive.codecs
    sized = Siren(SirenConfig(depth=3)).sized(SHAPES.span, 8 * (900 - STREAM_BYTES) / Siren.bits_per_weight)
    assert codec.config["width"] == sized.config.width


def test_a_quality_that_cannot_be_is_told_with_its_reason(tmp_path, caplog):
    tail = ("a", ", target: {psnr_db: 70}")
    rows, _ = reported(load(tmp_path, tail, codec="{name: siren, width: 8, depth: 2}"), tmp_path)
    assert rows["a"]["a.fold"]["target"] == "0 of 1 met"
    assert "1 of 1 units missed their target" in caplog.text
    assert "the network itself gives" in caplog.text
    assert "take a larger size or a longer fit" in caplog.text


def test_keys_change_with_the_target(tmp_path):
    plain = load(tmp_path, ("a", ""))
    one = load(tmp_path, ("a", ""), target="target: {bpp: 1}")
    other = load(tmp_path, ("a", ""), target="target: {bpp: 1}", overrides=["target.bpp=2"])
    for name in ("fitted", "a"):
        assert len({pipeline.graph[name].digest for pipeline in (plain, one, other)}) == 3
    assert len({pipeline.graph["pictures"].digest for pipeline in (plain, one, other)}) == 1


def test_a_target_of_old_gives_the_keys_of_old(tmp_path):
    checked = load(tmp_path, ("a", ""), codec="{name: siren}, target: {psnr_db: 35}")
    assert checked.graph["fitted"].config.model_dump(mode="json")["target"] == {"psnr_db": 35.0}
    assert set(checked.graph["a"].config.model_dump(mode="json")) == {"bits", "granularity"}


def test_two_targets_in_one_are_refused_at_their_place(tmp_path):
    with pytest.raises(SpecError) as caught:
        load(tmp_path, ("a", ""), target="target: {bpp: 1, bytes: 2}")
    (problem,) = caught.value.problems
    assert problem.where.endswith("p.yaml:3:1")
    assert str(problem).endswith(
        "target: give exactly one of bpp, bytes, psnr_db and bits_per_weight, as in {bpp: 0.05} or {psnr_db: 35} "
        "(an option of fitted and a)"
    )
