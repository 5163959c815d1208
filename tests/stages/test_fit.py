"""fit: what is half-done goes on from its checkpoint, what is done is kept without its pixels."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framefold.codecs import fitting
from framefold.codecs.clip import Clip, ImageBatch
from framefold.codecs.network import FittedNetwork, SymbolTensors
from framefold.codecs.testing import make_clip, moving_shapes
from framefold.pipeline import keepsake, spec
from framefold.pipeline.errors import SpecError
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Progress, StageContext
from framefold.stages.fit import Fit, FitConfig

STEPS = 30


@pytest.fixture(autouse=True)
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A progress after each step."""
    monkeypatch.setattr(fitting, "SECONDS_BETWEEN_REPORTS", 0.0)


def stage(codec: dict[str, Any], **options: Any) -> Fit:
    made = Fit(FitConfig.model_validate({"codec": codec, "budget": {"steps": STEPS}, **options}))
    made.setup(StageContext("fitted", seed=3))
    return made


@pytest.fixture
def siren() -> Fit:
    return stage({"name": "siren", "width": 5, "depth": 2})


@pytest.fixture
def grid() -> Fit:
    return stage({"name": "gridnerv", "width": 5})


@pytest.fixture
def clip() -> Clip:
    return make_clip(moving_shapes(3, 20, 30))


@pytest.fixture
def pictures() -> ImageBatch:
    sizes = ((12, 16), (16, 12), (14, 14))
    return ImageBatch(
        pictures=tuple(
            make_clip(moving_shapes(1, *size), kind="image", name=f"{number}.png") for number, size in enumerate(sizes)
        )
    )


def item(payload: Any, checkpoint: Any = None) -> Item:
    return Item("key", "the item", (0, 0), payload, checkpoint=checkpoint)


def networks(outputs: list[Any]) -> list[FittedNetwork]:
    return [output for output in outputs if isinstance(output, FittedNetwork)]


def through_a_file(value: Any, folder: Path) -> Any:
    keepsake.write(folder / "kept", value)
    return keepsake.read(folder / "kept")


def checkpoint(made: Fit, payload: Any, *, at: int, folder: Path) -> Any:
    """The checkpoint at the n-th progress of an item; the work is broken off there."""
    seen = 0
    for output in made.process(item(payload)):
        if isinstance(output, Progress):
            if seen == at:
                assert output.state is not None
                return through_a_file(output.state(), folder)
            seen += 1
    raise AssertionError(f"only {seen} progresses")


def assert_same(one: FittedNetwork, other: FittedNetwork) -> None:
    assert replace(one, tensors={}) == replace(other, tensors={})
    assert list(one.tensors) == list(other.tensors)
    for name, value in one.tensors.items():
        assert value.dtype == other.tensors[name].dtype
        assert np.array_equal(value, other.tensors[name])


@pytest.mark.parametrize("at", [0, 1, 12, STEPS, STEPS + 1])
def test_a_clip_is_fitted_on_from_a_checkpoint(grid: Fit, clip: Clip, tmp_path: Path, at: int) -> None:
    (whole,) = networks(list(grid.process(item(clip))))
    outputs = list(grid.process(item(clip, checkpoint(grid, clip, at=at, folder=tmp_path))))
    (network,) = networks(outputs)
    assert_same(network, whole)
    assert outputs[0].fraction == pytest.approx(min(at, STEPS) / STEPS)
    assert sum(isinstance(output, Progress) for output in outputs) == STEPS + 2 - min(at, STEPS)


PER_PICTURE = STEPS + 2
"""Progresses: the first, one per step, the last."""


@pytest.mark.parametrize(("picture", "step"), [(0, 0), (0, 7), (0, STEPS + 1), (1, 0), (1, 20), (2, 0), (2, STEPS)])
def test_pictures_that_are_done_are_handed_out_again_and_not_fitted_again(
    siren: Fit, pictures: ImageBatch, tmp_path: Path, picture: int, step: int
) -> None:
    whole = networks(list(siren.process(item(pictures))))
    kept = checkpoint(siren, pictures, at=picture * PER_PICTURE + step, folder=tmp_path)
    outputs = list(siren.process(item(pictures, kept)))
    assert all(isinstance(output, FittedNetwork) for output in outputs[:picture])
    assert isinstance(outputs[picture], Progress)
    assert outputs[picture].fraction == pytest.approx((picture + min(step, STEPS) / STEPS) / 3)
    for again, before, shown in zip(networks(outputs), whole, pictures, strict=True):
        assert_same(again, before)
        assert again.target is shown


def test_progress_is_that_of_the_whole_item(siren: Fit, pictures: ImageBatch) -> None:
    fractions = [output.fraction for output in siren.process(item(pictures)) if isinstance(output, Progress)]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)


def test_a_checkpoint_holds_no_frames(siren: Fit, pictures: ImageBatch, tmp_path: Path) -> None:
    kept = checkpoint(siren, pictures, at=PER_PICTURE + 3, folder=tmp_path)
    assert [network.target for network in kept["done"]] == [None]


def test_a_checkpoint_of_other_options_is_not_used_and_said_so(
    grid: Fit, clip: Clip, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = checkpoint(stage({"name": "gridnerv", "width": 6}), clip, at=9, folder=tmp_path)
    with caplog.at_level(logging.WARNING):
        (network,) = networks(list(grid.process(item(clip, kept))))
    (whole,) = networks(list(grid.process(item(clip))))
    assert_same(network, whole)
    assert "shapes[0:3]: the half-done fit cannot be gone on with" in caplog.text


def test_a_checkpoint_that_is_none_is_not_used_and_said_so(
    siren: Fit, pictures: ImageBatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = networks(list(siren.process(item(pictures))))
    good = checkpoint(siren, pictures, at=PER_PICTURE + 3, folder=tmp_path)
    of_others = [replace(network, span=pictures.pictures[2].span) for network in good["done"]]
    for bad in (5, {**good, "version": 2}, {**good, "done": of_others}, {**good, "done": [1]}, {**good, "done": whole}):
        caplog.clear()
        again = networks(list(siren.process(item(pictures, bad))))
        assert len(again) == 3
        assert_same(again[1], whole[1])
        assert "the item: its checkpoint is of another version or of other clips" in caplog.text


def test_a_mistake_that_is_not_the_checkpoints_is_still_an_error(tmp_path: Path, clip: Clip) -> None:
    kept = checkpoint(stage({"name": "gridnerv", "width": 5}), clip, at=9, folder=tmp_path)
    with pytest.raises(ValueError, match="one picture per network"):
        list(stage({"name": "siren"}).process(item(clip, kept)))


def test_what_is_kept_has_no_frames_and_comes_back_whole(siren: Fit, pictures: ImageBatch, tmp_path: Path) -> None:
    for network in networks(list(siren.process(item(pictures)))):
        kept = siren.packed(network)
        assert kept.target is None
        assert kept.nbytes == sum(tensor.nbytes for tensor in network.tensors.values())
        assert_same(siren.restored(item(pictures), through_a_file(kept, tmp_path)), network)


def test_a_clips_network_comes_back_with_the_clip(grid: Fit, clip: Clip, tmp_path: Path) -> None:
    (network,) = networks(list(grid.process(item(clip))))
    again = grid.restored(item(clip), through_a_file(grid.packed(network), tmp_path))
    assert_same(again, network)
    assert again.target is clip


def test_a_kept_network_of_other_pixels_is_damage(siren: Fit, pictures: ImageBatch) -> None:
    network = networks(list(siren.process(item(pictures))))[0]
    others = ImageBatch(pictures=pictures.pictures[1:])
    with pytest.raises(keepsake.DamagedKeepsake, match=r"the item holds no 0\.png"):
        siren.restored(item(others), siren.packed(network))


def tuned_networks(outputs: list[Any]) -> list[SymbolTensors]:
    return [output for output in outputs if isinstance(output, SymbolTensors)]


def assert_same_symbols(one: SymbolTensors, other: SymbolTensors) -> None:
    assert replace(one, tensors={}) == replace(other, tensors={})
    for name, tensor in one.tensors.items():
        assert np.array_equal(tensor.symbols, other.tensors[name].symbols)
        assert np.array_equal(tensor.steps, other.tensors[name].steps)


@pytest.fixture
def with_rate() -> Fit:
    return stage({"name": "siren", "width": 8, "depth": 2}, budget={"steps": 10}, rate={"share": 0.4})


@pytest.mark.parametrize("at", [3, 7, 13])
def test_a_fit_with_rate_gives_integers_and_goes_on_from_either_part(
    with_rate: Fit, pictures: ImageBatch, tmp_path: Path, at: int
) -> None:
    whole = tuned_networks(list(with_rate.process(item(pictures))))
    assert [symbols.target for symbols in whole] == list(pictures)
    kept = checkpoint(with_rate, pictures, at=at, folder=tmp_path)
    assert kept["fit"]["part"] == ("fit" if at < 8 else "tune")
    for one, other in zip(tuned_networks(list(with_rate.process(item(pictures, kept)))), whole, strict=True):
        assert_same_symbols(one, other)
    packed = through_a_file(with_rate.packed(whole[1]), tmp_path)
    assert packed.target is None
    assert_same_symbols(with_rate.restored(item(pictures), packed), whole[1])


PIPELINE = """\
pipeline: rate
stages:
  pictures: {stage: image_source, path: .}
  fitted: {stage: fit, inputs: [pictures], codec: {name: siren}, rate: {share: 0.5}}
  next: {stage: NEXT, inputs: [fitted]}
"""


@pytest.mark.parametrize("after", ["entropy_encode", "quantize", "prune", "finetune"])
def test_integers_connect_to_the_coder_and_to_nothing_that_wants_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.yaml").write_text(PIPELINE.replace("NEXT", after))
    with pytest.raises(SpecError) as caught:
        spec.load(tmp_path / "p.yaml")
    wrong = [str(problem) for problem in caught.value.problems if "next.inputs" in str(problem)]
    if after == "entropy_encode":
        assert wrong == []
    else:
        (problem,) = wrong
        assert "SymbolTensors" in problem
        assert "FittedNetwork" in problem


def test_rate_is_a_part_of_the_keys_only_where_it_is_used() -> None:
    plain, tuned = (FitConfig.model_validate({"codec": {"name": "siren"}, **more}) for more in ({}, {"rate": {}}))
    assert "rate" not in plain.model_dump(mode="json")
    assert tuned.model_dump(mode="json")["rate"] == {"share": 0.3}
    assert Fit.ports(plain).emits == {"out": FittedNetwork}
    assert Fit.ports(tuned).emits == {"out": SymbolTensors}
