"""prune: each method's fine-tuning goes on from its checkpoint, and what is done is kept without its pixels."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framefold.codecs import fitting
from framefold.codecs.base import Codec, FitSettings, Fitting, Masks
from framefold.codecs.clip import Clip
from framefold.codecs.gridnerv import Grid, GridNerv, GridNervConfig
from framefold.codecs.metrics import psnr
from framefold.codecs.network import FittedNetwork
from framefold.codecs.pruning.prune import weights_of
from framefold.codecs.testing import make_clip, moving_shapes, run_fit
from framefold.pipeline import keepsake, spec
from framefold.pipeline.errors import SpecError
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Progress, StageContext
from framefold.pipeline.testing import check_stage
from framefold.stages.prune import Prune, PruneConfig

STEPS = 30


@pytest.fixture(autouse=True)
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A progress after each step."""
    monkeypatch.setattr(fitting, "SECONDS_BETWEEN_REPORTS", 0.0)


@pytest.fixture
def prune() -> Prune:
    made = Prune(PruneConfig.model_validate({"keep": 0.6, "finetune": {"steps": STEPS}}))
    made.setup(StageContext("pruned", seed=3))
    return made


@pytest.fixture
def network() -> FittedNetwork:
    clip = make_clip(moving_shapes(3, 20, 30))
    return run_fit(GridNerv(GridNervConfig(width=5)).fit(clip, FitSettings(steps=10)))


def item(payload: Any, checkpoint: Any = None) -> Item:
    return Item("key", "the item", (0, 0), payload, checkpoint=checkpoint)


def through_a_file(value: Any, folder: Path) -> Any:
    keepsake.write(folder / "kept", value)
    return keepsake.read(folder / "kept")


def states(made: Prune, payload: Any, folder: Path) -> Iterator[Any]:
    """Each checkpoint that the engine could write."""
    for output in made.process(item(payload)):
        if isinstance(output, Progress):
            assert output.state is not None
            yield through_a_file(output.state(), folder)


def assert_same(one: FittedNetwork, other: FittedNetwork) -> None:
    assert replace(one, tensors={}) == replace(other, tensors={})
    assert list(one.tensors) == list(other.tensors)
    assert all(np.array_equal(value, other.tensors[name]) for name, value in one.tensors.items())


def test_fine_tuning_goes_on_from_a_checkpoint(prune: Prune, network: FittedNetwork, tmp_path: Path) -> None:
    *_, whole = prune.process(item(network))
    seen = list(states(prune, network, tmp_path))
    assert len(seen) == STEPS + 2
    for at in (0, 1, 17, STEPS, STEPS + 1):
        first, *_, pruned = prune.process(item(network, seen[at]))
        assert first.fraction == pytest.approx(min(at, STEPS) / STEPS)
        assert_same(pruned, whole)


def test_a_checkpoint_that_is_none_is_not_used_and_said_so(
    prune: Prune, network: FittedNetwork, caplog: pytest.LogCaptureFixture
) -> None:
    *_, whole = prune.process(item(network))
    with caplog.at_level(logging.WARNING):
        *_, pruned = prune.process(item(network, {"codec": "nerv"}))
    assert_same(pruned, whole)
    assert "shapes[0:3]: the half-done fit cannot be gone on with" in caplog.text


def test_what_is_kept_has_no_frames_and_comes_back_whole(prune: Prune, network: FittedNetwork, tmp_path: Path) -> None:
    *_, pruned = prune.process(item(network))
    kept = prune.packed(pruned)
    assert kept.target is None
    assert kept.nbytes == sum(tensor.nbytes for tensor in pruned.tensors.values())
    again = prune.restored(item(network), through_a_file(kept, tmp_path))
    assert_same(again, pruned)
    assert again.target is network.target


def test_a_network_without_pixels_is_pruned_and_kept_without(prune: Prune, network: FittedNetwork) -> None:
    bare = replace(network, target=None)
    (pruned,) = prune.process(item(bare))
    assert_same(prune.restored(item(bare), prune.packed(pruned)), pruned)


def test_a_kept_network_of_another_span_is_damage(prune: Prune, network: FittedNetwork) -> None:
    *_, pruned = prune.process(item(network))
    other = replace(network, span=network.span.part(0, 2), target=None)
    with pytest.raises(keepsake.DamagedKeepsake, match=r"shapes\[0:2\].*shapes\[0:3\]"):
        prune.restored(item(other), prune.packed(pruned))


METHODS = {
    "size_normalised": {"method": "size_normalised"},
    "sensitivity": {"method": "sensitivity"},
    "channels": {"method": "channels"},
    "l0": {"method": "l0"},
    "l0 of rows": {"method": "l0", "gates": "row"},
}


@pytest.fixture
def roomy() -> FittedNetwork:
    """Two blocks, and channels to spare."""
    config = GridNervConfig(width=6, strides=(2, 2), block_widths=(6,), grids=((Grid(3, 5), Grid(1, 4)), (Grid(1, 2),)))
    return run_fit(GridNerv(config).fit(make_clip(moving_shapes(3, 20, 30)), FitSettings(steps=10)))


@pytest.mark.parametrize("name", METHODS)
def test_each_method_lives_as_a_stage_must(name: str, roomy: FittedNetwork) -> None:
    options = {**METHODS[name], "keep": 0.7, "finetune": {"steps": 8}}
    (pruned,) = check_stage(Prune, options, [roomy], context=StageContext("pruned", seed=3))
    left = sum(np.count_nonzero(tensor) for tensor in weights_of(pruned.tensors).values())
    total = sum(tensor.size for tensor in weights_of(roomy.tensors).values())
    assert left / total == pytest.approx(0.7, abs={"channels": 0.1, "l0 of rows": 0.15}.get(name, 1 / total))
    if name == "channels":
        assert left == sum(tensor.size for tensor in weights_of(pruned.tensors).values())
        assert pruned.config != roomy.config
    else:
        assert pruned.config == roomy.config
    if options["method"] != "l0":
        assert quality(pruned, roomy) > quality(at_once(options, roomy), roomy)


def quality(network: FittedNetwork, original: FittedNetwork) -> float:
    assert original.target is not None
    return psnr(GridNerv().reconstruct(network).frames, original.target.frames)


def at_once(options: dict[str, Any], network: FittedNetwork) -> FittedNetwork:
    """The same without fine-tuning."""
    made = Prune(PruneConfig.model_validate({**options, "finetune": None}))
    made.setup(StageContext("pruned"))
    (pruned,) = made.process(item(network))
    assert isinstance(pruned, FittedNetwork)
    return pruned


def test_options_of_before_mean_the_same_and_are_written_down_the_same() -> None:
    config = PruneConfig.model_validate({"keep": 0.9})
    assert config.model_dump(mode="json") == {
        "keep": 0.9,
        "finetune": {"steps": 100, "seconds": None},
        "learning_rate": None,
    }
    assert config.method == "magnitude"
    assert PruneConfig.model_validate({"method": "l0", "gates": "row"}).model_dump()["gates"] == "row"


@pytest.mark.parametrize(
    ("options", "place", "message"),
    [
        ("method: l0, finetune: null", "finetune", "learns its gates while it fine-tunes: give {steps: 2000}"),
        ("method: channels, gates: row", "gates", "method channels has no gates: set method: l0"),
        ("gates: weight", "gates", "method magnitude has no gates"),
        ("method: lo", "method", "'l0'"),
        ("method: l0, keep: 0", "keep", "greater than 0"),
    ],
)
def test_options_that_do_not_go_together_are_found_in_the_file(
    options: str, place: str, message: str, tmp_path: Path
) -> None:
    text = f"""pipeline: film
stages:
  frames: {{stage: video_source, path: {Path(__file__)}}}
  clips: {{stage: segment, inputs: [frames]}}
  fitted: {{stage: fit, inputs: [clips], codec: {{name: gridnerv}}}}
  pruned: {{stage: prune, inputs: [fitted], {options}}}
"""
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(SpecError) as caught:
        spec.load(tmp_path / "p.yaml")
    (line,) = [line for line in str(caught.value).splitlines() if f": stages.pruned.{place}: " in line]
    column = text.splitlines()[5].rindex(f"{place}:") + len(f"{place}: ") + 1
    assert f"p.yaml:6:{column}: " in line
    assert message in line


class Plain(Codec):
    """A codec that is no NetworkCodec and measures nothing."""

    name = "plain"

    def fit(self, clip: Clip, settings: FitSettings) -> Fitting:
        raise NotImplementedError

    def finetune(self, network: FittedNetwork, masks: Masks, settings: FitSettings) -> Fitting:
        raise NotImplementedError

    def reconstruct(self, network: FittedNetwork, *, device: str = "cpu") -> Clip:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("sensitivity", "codec 'plain' measures no sensitivity; set method: size_normalised"),
        ("channels", "codec 'plain' is no NetworkCodec, which method channels works on; set method: magnitude"),
        ("l0", "codec 'plain' is no NetworkCodec, which method l0 works on"),
    ],
)
def test_a_codec_that_cannot_is_named(
    method: str, message: str, network: FittedNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("framefold.stages.prune.codec_of", lambda name, config: Plain())
    made = Prune(PruneConfig.model_validate({"method": method}))
    made.setup(StageContext("pruned"))
    with pytest.raises(ValueError, match=message):
        next(made.process(item(network)))
