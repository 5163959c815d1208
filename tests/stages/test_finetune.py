"""finetune: the codec's tuning as a stage, gone on with from a checkpoint, kept without pixels."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framefold.codecs import fitting
from framefold.codecs.base import FitSettings, RateSettings
from framefold.codecs.network import FittedNetwork, SymbolTensors
from framefold.codecs.rate.targets import RateTarget
from framefold.codecs.siren import Siren, SirenConfig
from framefold.codecs.stream import bitstream
from framefold.codecs.testing import make_clip, moving_shapes, run_fit
from framefold.pipeline import keepsake
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Progress, StageContext
from framefold.pipeline.testing import check_stage
from framefold.stages.finetune import Finetune, FinetuneConfig

STEPS = 8


@pytest.fixture(autouse=True)
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A progress after each step."""
    monkeypatch.setattr(fitting, "SECONDS_BETWEEN_REPORTS", 0.0)


@pytest.fixture(scope="module")
def network() -> FittedNetwork:
    clip = make_clip(moving_shapes(1, 12, 16), kind="image")
    return run_fit(Siren(SirenConfig(width=10, depth=2)).fit(clip, FitSettings(steps=60)))


def stage(**options: Any) -> Finetune:
    made = Finetune(FinetuneConfig.model_validate({"budget": {"steps": STEPS}, "target": {"bytes": 180}, **options}))
    made.setup(StageContext("tuned", seed=3))
    return made


def item(payload: Any, checkpoint: Any = None) -> Item:
    return Item("key", "the item", (0,), payload, checkpoint=checkpoint)


def through_a_file(value: Any, folder: Path) -> Any:
    keepsake.write(folder / "kept", value)
    return keepsake.read(folder / "kept")


def symbols_of(outputs: list[Any]) -> SymbolTensors:
    (symbols,) = (output for output in outputs if isinstance(output, SymbolTensors))
    assert symbols is outputs[-1]
    return symbols


def assert_same(one: SymbolTensors, other: SymbolTensors) -> None:
    assert replace(one, tensors={}) == replace(other, tensors={})
    for name, tensor in one.tensors.items():
        assert np.array_equal(tensor.symbols, other.tensors[name].symbols)
        assert np.array_equal(tensor.steps, other.tensors[name].steps)


def test_it_is_the_codecs_tuning_with_the_seed_of_the_node(network: FittedNetwork) -> None:
    symbols = symbols_of(list(stage().process(item(network))))
    settings = FitSettings(steps=STEPS, seed=3)
    rate = RateSettings(target=RateTarget(bytes=180))
    assert_same(symbols, run_fit(Siren().tune_for_rate(network, rate, settings)))
    assert len(bitstream.encode(symbols)) == pytest.approx(180, rel=0.03)
    assert symbols.outcome is not None
    assert symbols.outcome.reason == ""


def test_it_goes_on_from_a_checkpoint(network: FittedNetwork, tmp_path: Path) -> None:
    tuned = stage()
    checkpoints, whole = [], None
    for output in tuned.process(item(network)):
        if isinstance(output, Progress) and output.state is not None:
            checkpoints.append(through_a_file(output.state(), tmp_path))
        elif isinstance(output, SymbolTensors):
            whole = output
    assert whole is not None
    assert len(checkpoints) == STEPS + 2
    for at in (4, STEPS + 1):
        assert_same(symbols_of(list(tuned.process(item(network, checkpoints[at])))), whole)


def test_a_checkpoint_of_other_work_is_not_used_and_said_so(
    network: FittedNetwork, caplog: pytest.LogCaptureFixture
) -> None:
    tuned = stage()
    with caplog.at_level(logging.WARNING):
        again = symbols_of(list(tuned.process(item(network, {"made by": "nobody"}))))
    assert "the half-done fit cannot be gone on with" in caplog.text
    assert_same(again, symbols_of(list(tuned.process(item(network)))))


def test_progress_tells_the_quality_and_at_last_the_bits(network: FittedNetwork) -> None:
    told = [output for output in stage().process(item(network)) if isinstance(output, Progress)]
    assert (told[0].fraction, told[-1].fraction) == (0.0, 1.0)
    assert [progress.fraction for progress in told] == sorted(progress.fraction for progress in told)
    assert told[STEPS].values["psnr_db"] > 5
    assert told[-1].values["bits"] > 8 * 150


def test_what_is_kept_has_no_pixels_and_comes_back_whole(network: FittedNetwork, tmp_path: Path) -> None:
    tuned = stage()
    symbols = symbols_of(list(tuned.process(item(network))))
    kept = tuned.packed(symbols)
    assert kept.target is None
    assert_same(tuned.restored(item(network), through_a_file(kept, tmp_path)), symbols)


def test_kept_symbols_of_another_span_are_damage(network: FittedNetwork) -> None:
    tuned = stage()
    symbols = symbols_of(list(tuned.process(item(network))))
    other = make_clip(moving_shapes(1, 12, 16), kind="image", name="other")
    with pytest.raises(keepsake.DamagedKeepsake, match="kept symbols are of shapes"):
        tuned.restored(item(replace(network, span=other.span, target=other)), tuned.packed(symbols))


def test_a_network_without_pixels_is_refused(network: FittedNetwork) -> None:
    with pytest.raises(ValueError, match="rate-aware tuning needs the pixels"):
        list(stage().process(item(replace(network, target=None))))


def test_it_keeps_the_promises_of_a_stage(network: FittedNetwork) -> None:
    (symbols,) = check_stage(Finetune, {"budget": {"steps": 3}}, [network])
    assert isinstance(symbols, SymbolTensors)
