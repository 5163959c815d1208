"""Bits shared out by sensitivity: finer steps where weights matter, and streams that hold what was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from framefold.codecs.base import Codec
from framefold.codecs.gridnerv import GridNerv
from framefold.codecs.metrics import psnr
from framefold.codecs.network import FittedNetwork, FloatTensor, Parent, SymbolTensors
from framefold.codecs.quantizing.allocation import Allocation, Rounding
from framefold.codecs.quantizing.steps import step_exponents
from framefold.codecs.siren import Siren
from framefold.codecs.stream import bitstream
from framefold.codecs.stream.symbol_models import MAX_SYMBOL
from framefold.codecs.testing import make_clip, moving_shapes

CODECS: dict[str, Codec] = {"gridnerv": GridNerv(), "siren": Siren()}
ROUNDINGS: tuple[Rounding, ...] = get_args(Rounding)
SPAN = make_clip(moving_shapes(1, 4, 4)).span


def network(**tensors: FloatTensor) -> FittedNetwork:
    return FittedNetwork(span=SPAN, codec="made_up", config={}, tensors=tensors)


def weights(*shape: int, seed: int = 0) -> FloatTensor:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def even(*shape: int) -> FloatTensor:
    return np.ones(shape, np.float32)


def assert_survives_a_stream(symbols: SymbolTensors) -> None:
    stream = bitstream.encode(symbols, contexts=False)
    decoded = bitstream.decode(stream, span=symbols.span, codec=symbols.codec, config=symbols.config)
    assert list(decoded.tensors) == list(symbols.tensors)
    for name, tensor in symbols.tensors.items():
        assert np.array_equal(decoded.tensors[name].symbols, tensor.symbols)
        assert np.array_equal(decoded.tensors[name].dequantize(), tensor.dequantize())


def squared_error(symbols: SymbolTensors, fitted: FittedNetwork, importance: Mapping[str, FloatTensor]) -> float:
    """As the sensitivity foretells it."""
    return sum(
        float((importance[name] * (tensor.dequantize() - fitted.tensors[name].astype(np.float64)) ** 2).sum())
        for name, tensor in symbols.tensors.items()
    )


def picture_error(fitted: FittedNetwork) -> float:
    assert fitted.target is not None
    return float(10 ** (-psnr(CODECS[fitted.codec].reconstruct(fitted).frames, fitted.target.frames) / 10))


def allocated(fitted: FittedNetwork, sensitivity: Mapping[str, FloatTensor] | None, rounding: Rounding) -> Allocation:
    """For joint rounding weights are taken to move the picture together, each pair a little."""
    if rounding != "joint":
        return Allocation.of(fitted, sensitivity)
    given = sensitivity or {name: np.ones(tensor.shape, np.float32) for name, tensor in fitted.tensors.items()}
    own = np.concatenate([np.zeros(0), *(given[name].ravel() for name in fitted.tensors)])
    return Allocation.together(fitted, np.diag(own) + 0.1 * np.sqrt(np.outer(own, own)))


@pytest.fixture(scope="module")
def clip_allocation(fitted_clip: FittedNetwork) -> Allocation:
    return Allocation.of(fitted_clip, GridNerv().sensitivity(fitted_clip))


@pytest.mark.parametrize("rounding", ["nearest", "rate", "trellis"])
def test_finer_steps_take_more_bytes_and_leave_less_error(clip_allocation: Allocation, rounding: Rounding) -> None:
    rates = []
    for fineness in (-11.0, -9.5, -8.0, -6.5):
        symbols = clip_allocation.at(fineness, rounding=rounding)
        error = squared_error(symbols, clip_allocation.network, clip_allocation.importance)
        rates.append((len(bitstream.encode(symbols, contexts=False)), -error))
    assert rates == sorted(rates, reverse=True)
    assert len(set(rates)) == len(rates)


@pytest.mark.parametrize("rounding", ["nearest", "rate"])
@pytest.mark.parametrize("fitted", ["fitted_clip", "fitted_picture"])
@pytest.mark.parametrize("mse", [1e-4, 1e-3])
def test_the_picture_loses_about_what_was_asked_for(
    request: pytest.FixtureRequest, fitted: str, mse: float, rounding: Rounding
) -> None:
    found: FittedNetwork = request.getfixturevalue(fitted)
    allocation = Allocation.of(found, CODECS[found.codec].sensitivity(found))
    symbols = allocation.at(allocation.fineness_for(mse), rounding=rounding)
    added = picture_error(symbols.dequantize()) - picture_error(found)
    assert mse / 2 < added < 2 * mse


@pytest.mark.parametrize("bits", [2.0, 3.5, 6.0])
def test_a_stream_takes_about_the_bits_that_were_asked_for(clip_allocation: Allocation, bits: float) -> None:
    wanted = bits * clip_allocation.weights
    symbols = clip_allocation.at(clip_allocation.fineness_at(wanted), rounding="nearest")
    assert 8 * len(bitstream.encode(symbols)) == pytest.approx(wanted, rel=0.2)


def test_rounding_by_rate_takes_fewer_bits_for_the_same_error() -> None:
    fitted = network(w=weights(40, 60))
    costs = {}
    for rounding, fineness in (("nearest", 0.9), ("rate", 0.9)):
        symbols = Allocation.of(fitted, {"w": even(40, 60)}).at(fineness, rounding=rounding)
        bits = 8 * len(bitstream.encode(symbols, contexts=False)) / 2400
        error = float(((symbols.tensors["w"].dequantize() - fitted.tensors["w"]) ** 2).mean())
        costs[rounding] = bits + 0.5 * np.log2(error)  # at the same error: 6 dB are worth a bit
    assert costs["rate"] < costs["nearest"] - 0.02


def test_the_trellis_takes_fewer_bits_for_the_same_error() -> None:
    fitted = network(w=weights(40, 60))
    costs = {}
    for rounding, fineness in (("nearest", -1.0), ("trellis", -2.0)):
        symbols = Allocation.of(fitted, {"w": even(40, 60)}).at(fineness, rounding=rounding)
        bits = 8 * len(bitstream.encode(symbols, contexts=False)) / 2400
        error = float(((symbols.tensors["w"].dequantize() - fitted.tensors["w"]) ** 2).mean())
        costs[rounding] = bits + 0.5 * np.log2(error)
    assert costs["trellis"] < costs["nearest"] - 0.05


def test_a_tensor_that_matters_more_gets_steps_as_much_finer() -> None:
    fitted = network(light=weights(20, 20), heavy=weights(20, 20, seed=1))
    allocation = Allocation.of(fitted, {"light": even(20, 20), "heavy": 16 * even(20, 20)})
    symbols = allocation.at(-3.0, rounding="nearest")
    assert symbols.tensors["light"].steps.tolist() == [2.0**-3]
    assert symbols.tensors["heavy"].steps.tolist() == [2.0**-5]


@pytest.mark.parametrize(("axis", "shape"), [(0, (30, 40, 3)), (1, (40, 30, 3))])
def test_rows_or_columns_get_steps_of_their_own_where_they_differ(axis: int, shape: tuple[int, ...]) -> None:
    spread = 4.0 ** np.random.default_rng(1).integers(-3, 4, 30)
    sensitivity = np.ones(shape) * np.expand_dims(spread, tuple(set(range(3)) - {axis}))
    quantized = Allocation.of(network(w=weights(*shape)), {"w": sensitivity.astype("f4")}).at(-4.0).tensors["w"]
    assert (quantized.axis, quantized.steps.size) == (axis, 30)
    by_worth = quantized.steps[np.argsort(spread)]
    assert (np.diff(by_worth) <= 0).all()
    assert by_worth[0] > 3 * by_worth[-1]


def test_where_rows_and_columns_do_not_differ_there_is_one_step() -> None:
    noisy = np.random.default_rng(2).exponential(1, (30, 40)).astype("f4")  # of each weight, not of whole rows
    assert Allocation.of(network(w=weights(30, 40)), {"w": noisy}).at(-4.0).tensors["w"].steps.size == 1


def test_a_vector_has_one_step_whatever_its_weights_are_worth() -> None:
    sensitivity = {"bias": 4.0 ** np.arange(8, dtype=np.float32)}
    assert Allocation.of(network(bias=weights(8)), sensitivity).at(-4.0).tensors["bias"].steps.size == 1


def test_without_sensitivity_steps_follow_the_spread() -> None:
    fitted = network(small=weights(20, 20) / 8, large=weights(20, 20) * 8)
    small, large = Allocation.of(fitted, None).at(-3.0, rounding="nearest").tensors.values()
    assert np.log2(large.steps / small.steps).tolist() == [6.0]
    assert np.array_equal(small.symbols, large.symbols)


def test_weights_that_seem_to_move_nothing_still_count() -> None:
    sensitivity = even(20, 20)
    sensitivity[:10] = 0
    allocation = Allocation.of(
        network(w=weights(20, 20), idle=weights(5)), {"w": sensitivity, "idle": np.zeros(5, "f4")}
    )
    assert all((value > 0).all() for value in allocation.importance.values())
    assert_survives_a_stream(allocation.at(-4.0))


ODD = {
    "constant": np.full((3, 4), 0.7, np.float32),
    "all zero": np.zeros((4, 4), np.float32),
    "empty": np.zeros((0, 4), np.float32),
    "empty vector": np.zeros(0, np.float32),
    "empty rows": np.zeros((3, 0), np.float32),
    "0-d": np.array(0.3, np.float32),
    "one element": np.array([[[-2.5]]], np.float32),
    "huge": np.array([[1e30, -3e29], [0, 1]], np.float32),
    "tiny": np.array([[1e-30, -3e-31], [0, 1e-33]], np.float32),
    "subnormal": np.array([1e-42, 0, -1e-44], np.float32),
    "largest": np.array([np.finfo(np.float32).max, 1.0], np.float32),
    "outlier": np.concatenate([weights(50), np.array([1e6], np.float32)]),
}


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("known", [True, False], ids=["sensitivity", "none"])
def test_odd_tensors_survive_a_stream(rounding: Rounding, known: bool) -> None:
    fitted = network(**ODD)
    sensitivity = {name: np.full(tensor.shape, 0.01, np.float32) for name, tensor in ODD.items()} if known else None
    allocation = allocated(fitted, sensitivity, rounding)
    for fineness in (-30.0, -4.0, 30.0):
        symbols = allocation.at(fineness, rounding=rounding)
        for tensor in symbols.tensors.values():
            assert step_exponents(tensor.steps) is not None
            assert np.abs(tensor.symbols).max(initial=0) <= MAX_SYMBOL
            assert np.isfinite(tensor.dequantize()).all()
        assert_survives_a_stream(symbols)


@settings(max_examples=30, deadline=None)
@given(
    tensor=arrays.arrays(
        np.float32,
        arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**100), max_value=2.0**100),
    ),
    scale=st.floats(-20, 20),
    fineness=st.floats(-25, 25),
    rounding=st.sampled_from(ROUNDINGS),
)
def test_any_tensor_survives_a_stream(tensor: FloatTensor, scale: float, fineness: float, rounding: Rounding) -> None:
    sensitivity = (2**scale * np.random.default_rng(1).exponential(1, tensor.shape)).astype(np.float32)
    symbols = allocated(network(w=tensor), {"w": sensitivity}, rounding).at(fineness, rounding=rounding)
    quantized = symbols.tensors["w"]
    assert quantized.symbols.shape == tensor.shape
    assert quantized.symbols.dtype == np.int32
    assert np.abs(quantized.symbols).max(initial=0) <= MAX_SYMBOL
    assert quantized.steps.shape in {(1,), tensor.shape[:1], tensor.shape[1:2]}
    assert step_exponents(quantized.steps) is not None
    assert not quantized.symbols[tensor == 0].any()
    assert_survives_a_stream(symbols)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_what_was_pruned_stays_zero(rounding: Rounding) -> None:
    tensor = weights(30, 40)
    tensor[np.abs(tensor) < 0.7] = 0
    for fineness in (-6.0, -2.0, 0.0):
        symbols = allocated(network(w=tensor), {"w": even(30, 40)}, rounding).at(fineness, rounding=rounding)
        quantized = symbols.tensors["w"]
        assert not quantized.symbols[tensor == 0].any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_tensor_that_is_not_finite_is_named(value: float) -> None:
    bad = weights(3, 3)
    bad[1, 2] = value
    with pytest.raises(ValueError, match=r"tensor 'blocks\.bad' holds NaN or infinity"):
        Allocation.of(network(good=weights(2), **{"blocks.bad": bad}), None)


@pytest.mark.parametrize("sensitivity", [{}, {"w": even(4)}, {"w": even(4, 3)}, {"v": even(3, 4)}])
def test_a_sensitivity_of_another_shape_is_refused(sensitivity: Mapping[str, FloatTensor]) -> None:
    with pytest.raises(ValueError, match=r"tensor 'w' has no sensitivity of its shape \(3, 4\)"):
        Allocation.of(network(w=weights(3, 4)), sensitivity)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_a_sensitivity_that_is_no_number_from_zero_up_is_refused(value: float) -> None:
    sensitivity = even(3, 4)
    sensitivity[0, 0] = value
    with pytest.raises(ValueError, match="'w'"):
        Allocation.of(network(w=weights(3, 4)), {"w": sensitivity})


def test_tensors_that_hardly_differ_from_the_parents_take_its_steps(fitted_clip: FittedNetwork) -> None:
    sensitivity = GridNerv().sensitivity(fitted_clip)
    base = Allocation.of(fitted_clip, sensitivity).at(-9.0, rounding="nearest")
    parent = Parent(payload=bitstream.encode(base), tensors=base.tensors)
    child = replace(base.dequantize(), parent=parent)
    symbols = Allocation.of(child, sensitivity).at(-9.0)
    assert symbols.parent is parent
    for name, tensor in symbols.tensors.items():
        assert np.array_equal(tensor.symbols, base.tensors[name].symbols)
        assert np.array_equal(tensor.steps, base.tensors[name].steps)
    assert len(bitstream.encode(symbols)) < len(parent.payload) / 5
