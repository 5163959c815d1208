"""From pixels to symbols in one go: two parts of one budget, to be gone on with from anywhere."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from framefold.codecs import fitting
from framefold.codecs.base import FitProgress, FitSettings, FitState, Fitting, RateSettings
from framefold.codecs.network import SymbolTensors
from framefold.codecs.rate.fit_and_tune import FitAndTune
from framefold.codecs.rate.fit_to_target import fit_to
from framefold.codecs.rate.targets import RateTarget
from framefold.codecs.siren import Siren, SirenConfig
from framefold.codecs.stream import bitstream
from framefold.codecs.testing import make_clip, moving_shapes, run_fit

CODEC = Siren(SirenConfig(width=10, depth=2))
PICTURE = make_clip(moving_shapes(1, 12, 16), kind="image")
SETTINGS = FitSettings(steps=20, seed=3)
WANTED = RateTarget(bytes=180)


def both(**options: object) -> FitAndTune:
    usual = {"codec": CODEC, "fit": partial(CODEC.fit, PICTURE), "clip": PICTURE, "rate": RateSettings(target=WANTED)}
    return FitAndTune(**{**usual, "share": 0.3, **options})


def run(settings: FitSettings = SETTINGS) -> tuple[SymbolTensors, list[FitProgress], list[FitState]]:
    """The symbols, every progress, and the states of those that have one."""
    told, states, running = [], [], both().run(settings)
    while True:
        try:
            progress = next(running)
        except StopIteration as end:
            return end.value, told, states
        told.append(progress)
        if progress.state is not None:
            states.append(progress.state())


@pytest.fixture(autouse=True)
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A progress after each step."""
    monkeypatch.setattr(fitting, "SECONDS_BETWEEN_REPORTS", 0.0)


def assert_same(one: SymbolTensors, other: SymbolTensors) -> None:
    assert replace(one, tensors={}) == replace(other, tensors={})
    for name, tensor in one.tensors.items():
        assert np.array_equal(tensor.symbols, other.tensors[name].symbols)
        assert np.array_equal(tensor.steps, other.tensors[name].steps)


def test_the_budget_is_shared_and_the_target_met() -> None:
    symbols, told, states = run()
    assert [state["part"] for state in states] == ["fit"] * (14 + 2) + ["tune"] * (6 + 2)
    fractions = [progress.fraction for progress in told]
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert fractions == sorted(fractions)
    assert len(bitstream.encode(symbols)) == pytest.approx(180, rel=0.03)
    assert symbols.outcome is not None
    assert symbols.outcome.reason == ""


def test_from_any_state_it_ends_like_the_uninterrupted_one() -> None:
    whole, _, states = run()
    for at in (9, 20):
        again, told, _ = run(replace(SETTINGS, resume=states[at]))
        assert_same(again, whole)
        assert told[-1].fraction == 1.0
        if states[at]["part"] == "tune":
            assert told[0].fraction == pytest.approx(0.7)


def test_the_first_part_is_the_fit_alone_and_the_second_the_tuning_alone() -> None:
    network = run_fit(CODEC.fit(PICTURE, replace(SETTINGS, steps=14)))
    tuned = run_fit(CODEC.tune_for_rate(network, RateSettings(target=WANTED), replace(SETTINGS, steps=6)))
    assert_same(run_fit(both().run(SETTINGS)), tuned)


def test_a_learning_rate_is_that_of_the_first_part() -> None:
    seen: list[FitSettings] = []

    def fit(settings: FitSettings) -> Fitting:
        seen.append(settings)
        return CODEC.fit(PICTURE, settings)

    faster = replace(SETTINGS, learning_rate=1e-2)
    symbols = run_fit(both(fit=fit).run(faster))
    assert seen == [replace(faster, steps=14)]
    network = run_fit(CODEC.fit(PICTURE, seen[0]))
    usual = replace(SETTINGS, steps=6)
    assert_same(symbols, run_fit(CODEC.tune_for_rate(network, RateSettings(target=WANTED), usual)))


def test_a_size_that_the_first_part_chose_is_kept() -> None:
    target = RateTarget(bytes=300)
    fit = partial(fit_to, Siren(SirenConfig(depth=2)), target, PICTURE, choose_size=True)
    chosen = both(codec=Siren(SirenConfig(depth=2)), fit=fit, rate=RateSettings(target=target))
    symbols = run_fit(chosen.run(SETTINGS))
    assert symbols.config == run_fit(fit(replace(SETTINGS, steps=1))).config
    assert len(bitstream.encode(symbols)) < 400


@pytest.mark.parametrize(
    "state",
    [
        {"made by": "nobody"},
        {"part": "other", "run": None},
        {"part": "tune", "run": None},
        {"part": "tune", "config": None, "tensors": {}, "run": None},
        {"part": "fit"},
        {"part": "fit", "run": {"made by": "nobody"}},
    ],
)
def test_the_state_of_other_work_is_refused(state: FitState) -> None:
    with pytest.raises(ValueError, match="the state to go on from"):
        run_fit(both().run(replace(SETTINGS, resume=state)))
