"""prune: fine-tuning goes on from its checkpoint, and what is done is kept without its pixels."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framefold.codecs import fitting
from framefold.codecs.base import FitSettings
from framefold.codecs.gridnerv import GridNerv, GridNervConfig
from framefold.codecs.network import FittedNetwork
from framefold.codecs.testing import make_clip, moving_shapes, run_fit
from framefold.pipeline import keepsake
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Progress, StageContext
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
