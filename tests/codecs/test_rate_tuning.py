"""Rate-aware tuning of small real networks: targets, and better than rounding alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from framefold.codecs import fitting
from framefold.codecs.base import Codec, FitSettings, FitState, RateSettings, RateTuning
from framefold.codecs.gridnerv import GridNerv
from framefold.codecs.metrics import psnr
from framefold.codecs.network import FittedNetwork, Parent, SymbolTensors
from framefold.codecs.quantizing.allocation import Allocation
from framefold.codecs.quantizing.steps import step_exponents
from framefold.codecs.rate.targets import RateTarget
from framefold.codecs.siren import Siren
from framefold.codecs.stream import bitstream
from framefold.codecs.testing import run_fit

CODECS: Mapping[str, Codec] = {"gridnerv": GridNerv(), "siren": Siren()}


def tuning(network: FittedNetwork, settings: FitSettings, **target: float) -> RateTuning:
    wanted = RateTarget.model_validate(target) if target else None
    return CODECS[network.codec].tune_for_rate(network, RateSettings(target=wanted), settings)


def tuned(network: FittedNetwork, steps: int, **target: float) -> SymbolTensors:
    return run_fit(tuning(network, FitSettings(steps=steps), **target))


def size(symbols: SymbolTensors) -> int:
    return len(bitstream.encode(symbols))


def quality(network: FittedNetwork) -> float:
    assert network.target is not None
    return psnr(CODECS[network.codec].reconstruct(network).frames, network.target.frames)


def same(one: SymbolTensors, other: SymbolTensors) -> bool:
    return all(
        np.array_equal(tensor.symbols, other.tensors[name].symbols)
        and np.array_equal(tensor.steps, other.tensors[name].steps)
        for name, tensor in one.tensors.items()
    )


@pytest.fixture(scope="module")
def good_enough(fitted_clip: FittedNetwork) -> SymbolTensors:
    """Tuned to be 0.7 dB worse than the network before."""
    return tuned(fitted_clip, 80, psnr_db=quality(fitted_clip) - 0.7)


def test_a_quality_is_reached_and_the_symbols_are_those_of_a_stream(
    fitted_clip: FittedNetwork, good_enough: SymbolTensors
) -> None:
    wanted = quality(fitted_clip) - 0.7
    decoded = bitstream.decode(
        bitstream.encode(good_enough), span=good_enough.span, codec=good_enough.codec, config=good_enough.config
    )
    assert same(good_enough, decoded)
    assert wanted - 0.1 <= quality(replace(decoded.dequantize(), target=fitted_clip.target)) < wanted + 0.4
    assert good_enough.outcome is not None
    assert good_enough.outcome.reason == ""
    assert good_enough.outcome.weights == sum(tensor.size for tensor in fitted_clip.tensors.values())
    assert all(step_exponents(tensor.steps) is not None for tensor in good_enough.tensors.values())


def test_tuning_gives_a_better_picture_in_fewer_bytes_than_rounding_alone(
    fitted_clip: FittedNetwork, good_enough: SymbolTensors
) -> None:
    allocation = Allocation.of(fitted_clip, GridNerv().sensitivity(fitted_clip))
    rounded = (allocation.at(fineness) for fineness in np.arange(-7, -12, -1 / 4))
    alone = next(symbols for symbols in rounded if size(symbols) >= size(good_enough))
    assert quality(good_enough.dequantize()) > quality(alone.dequantize()) + 0.15


@pytest.mark.parametrize("kind", ["bytes", "bpp", "bits_per_weight"])
def test_a_size_is_reached(fitted_clip: FittedNetwork, kind: str) -> None:
    frames, _, height, width = fitted_clip.span.shape
    weights = sum(tensor.size for tensor in fitted_clip.tensors.values())
    wanted = {"bytes": 900, "bpp": 2.2, "bits_per_weight": 3.0}[kind]
    bytes_ = {"bytes": 900, "bpp": 2.2 * frames * height * width / 8, "bits_per_weight": 3.0 * weights / 8}[kind]
    symbols = tuned(fitted_clip, 40, **{kind: wanted})
    assert size(symbols) == pytest.approx(bytes_, rel=0.03)
    assert symbols.outcome is not None
    assert (symbols.outcome.reason, symbols.outcome.target.kind) == ("", kind)


def test_a_quality_out_of_reach_is_said_to_be_and_costs_neither_bits_nor_the_picture(
    fitted_clip: FittedNetwork,
) -> None:
    symbols = tuned(fitted_clip, 40, psnr_db=90)
    assert symbols.outcome is not None
    assert symbols.outcome.reason.startswith("the network itself gives ")
    assert quality(symbols.dequantize()) > quality(fitted_clip) - 0.3
    assert 8 * size(symbols) < 8 * symbols.outcome.weights


def test_more_bytes_than_can_be_of_use_do_not_spoil_the_picture(fitted_picture: FittedNetwork) -> None:
    symbols = tuned(fitted_picture, 40, bits_per_weight=30)
    assert symbols.outcome is not None
    assert symbols.outcome.reason.endswith("take a larger network")
    assert quality(symbols.dequantize()) > quality(fitted_picture) - 0.1


def test_without_a_target_bits_are_spent_while_they_better_the_picture(fitted_picture: FittedNetwork) -> None:
    symbols = tuned(fitted_picture, 40)
    assert symbols.outcome is None
    assert symbols.target is fitted_picture.target
    assert quality(symbols.dequantize()) > quality(fitted_picture) - 1.5
    assert 8 * size(symbols) < 8 * sum(tensor.size for tensor in fitted_picture.tensors.values())


def test_what_was_pruned_stays_zero(fitted_picture: FittedNetwork) -> None:
    masks = {name: np.abs(tensor) > np.median(np.abs(tensor)) for name, tensor in fitted_picture.tensors.items()}
    pruned = {
        name: tensor * masks[name] if tensor.ndim > 1 else tensor for name, tensor in fitted_picture.tensors.items()
    }
    symbols = tuned(replace(fitted_picture, tensors=pruned), 12, bits_per_weight=4)
    for name, tensor in symbols.tensors.items():
        if tensor.symbols.ndim > 1:
            assert not tensor.symbols[~masks[name]].any()
            assert np.count_nonzero(tensor.symbols) > 0.2 * tensor.symbols.size


def test_the_parents_own_tensors_stay_and_are_not_stored_again(fitted_picture: FittedNetwork) -> None:
    base = Allocation.of(fitted_picture, Siren().sensitivity(fitted_picture)).at(-8.0, rounding="nearest")
    parent = Parent(payload=bitstream.encode(base), tensors=base.tensors)
    own = base.dequantize()
    moved = {**own.tensors, "head.bias": own.tensors["head.bias"] + np.float32(0.1)}
    symbols = tuned(replace(own, tensors=moved, parent=parent), 12)
    assert symbols.parent is parent
    kept = {
        name for name, tensor in base.tensors.items() if np.array_equal(tensor.symbols, symbols.tensors[name].symbols)
    }
    assert kept >= {"layers.1.weight", "layers.2.weight"}
    assert size(symbols) < len(parent.payload) / 2


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch, fitted_picture: FittedNetwork) -> tuple[SymbolTensors, list[FitState]]:
    """An uninterrupted tuning, and its state after each step."""
    monkeypatch.setattr(fitting, "SECONDS_BETWEEN_REPORTS", 0.0)
    collected: list[FitState] = []
    run = tuning(fitted_picture, FitSettings(steps=14, seed=2), bits_per_weight=5)
    while True:
        try:
            progress = next(run)
        except StopIteration as end:
            return end.value, collected
        if progress.state is not None:
            collected.append(progress.state())


def test_a_resumed_tuning_gives_the_same_symbols_as_an_uninterrupted_one(
    fitted_picture: FittedNetwork, states: tuple[SymbolTensors, list[FitState]]
) -> None:
    whole, collected = states
    assert len(collected) == 14 + 2
    for state in (collected[8], collected[-1]):
        again = run_fit(tuning(fitted_picture, FitSettings(steps=14, seed=2, resume=state), bits_per_weight=5))
        assert same(again, whole)
        assert again.outcome == whole.outcome


def test_the_state_of_other_work_is_refused(
    fitted_picture: FittedNetwork, states: tuple[SymbolTensors, list[FitState]]
) -> None:
    for other in ({"made by": "nobody"}, {**states[1][3], "work": "fit"}):
        with pytest.raises(ValueError, match="the state to go on from has"):
            run_fit(tuning(fitted_picture, FitSettings(steps=14, seed=2, resume=other)))


def test_without_pixels_there_is_nothing_to_tune_to(fitted_picture: FittedNetwork) -> None:
    with pytest.raises(ValueError, match="rate-aware tuning needs the pixels"):
        tuned(replace(fitted_picture, target=None), 5)


def test_progress_goes_from_nothing_to_all_and_tells_the_bits_in_the_end(fitted_picture: FittedNetwork) -> None:
    told = list(tuning(fitted_picture, FitSettings(steps=5), bits_per_weight=5))
    fractions = [progress.fraction for progress in told]
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert fractions == sorted(fractions)
    assert told[-1].bits is not None
