"""All weights rounded together: the curvature is that of the picture, and errors make up for each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from framefold.codecs.coin import Coin
from framefold.codecs.gridnerv import GridNerv
from framefold.codecs.network import FittedNetwork, FloatTensor, Parent, SymbolTensors
from framefold.codecs.quantizing.allocation import Allocation
from framefold.codecs.quantizing.curvature import Matrix, gauss_newton, spread_points
from framefold.codecs.quantizing.joint_rounding import DAMPING, JointRounding
from framefold.codecs.siren import Siren
from framefold.codecs.stream import bitstream
from framefold.codecs.stream.symbol_models import MAX_SYMBOL


@pytest.fixture(scope="module")
def curvature(fitted_picture: FittedNetwork) -> Matrix:
    matrix = Siren().curvature(fitted_picture)
    assert matrix is not None
    return matrix


def flat(fitted: FittedNetwork) -> np.ndarray:
    return np.concatenate([tensor.ravel() for tensor in fitted.tensors.values()]).astype(np.float64)


def moved(fitted: FittedNetwork, by: np.ndarray) -> FittedNetwork:
    tensors, start = {}, 0
    for name, tensor in fitted.tensors.items():
        tensors[name] = (tensor + by[start : start + tensor.size].reshape(tensor.shape)).astype(np.float32)
        start += tensor.size
    return replace(fitted, tensors=tensors)


def samples(fitted: FittedNetwork) -> np.ndarray:
    _, module = Siren().load(fitted)
    with torch.inference_mode():
        picture: np.ndarray = module(torch.tensor([0])).double().numpy()
    return picture


def added(symbols: SymbolTensors, fitted: FittedNetwork) -> float:
    """Mean squared error that rounding brings into the picture."""
    return float(np.mean((samples(symbols.dequantize()) - samples(fitted)) ** 2))


def test_the_curvature_foretells_how_far_the_samples_move(fitted_picture: FittedNetwork, curvature: Matrix) -> None:
    assert np.allclose(curvature, curvature.T, rtol=1e-4, atol=1e-6 * curvature.max())
    before = samples(fitted_picture)
    for seed in range(3):
        by = 1e-4 * np.random.default_rng(seed).normal(size=len(curvature))
        real = np.mean((samples(moved(fitted_picture, by)) - before) ** 2)
        assert by @ curvature @ by == pytest.approx(real, rel=0.05)


def test_its_diagonal_is_what_the_sensitivity_estimates(fitted_picture: FittedNetwork, curvature: Matrix) -> None:
    estimated = Siren().sensitivity(fitted_picture)
    ratio = np.concatenate([each.ravel() for each in estimated.values()]).mean() / np.diag(curvature).mean()
    assert ratio == pytest.approx(1, rel=0.2)


def test_the_matrix_of_a_straight_line_is_known() -> None:
    inputs = torch.tensor([[1.0], [2.0], [4.0]])
    matrix = gauss_newton(lambda line, x: line["slope"] * x + line["height"], _line(), inputs)
    assert matrix == pytest.approx(np.array([[7.0, 7 / 3], [7 / 3, 1.0]]))


def _line() -> dict[str, torch.Tensor]:
    return {"slope": torch.tensor([0.5]), "height": torch.tensor([0.1])}


def test_only_so_many_points_are_looked_at_as_the_weights_need() -> None:
    points = torch.rand(10_000, 2)
    chosen = spread_points(points, 300, channels=3)
    assert len(chosen) == 800
    assert len(set(map(tuple, chosen.tolist())) & set(map(tuple, points.tolist()))) == 800
    assert len(spread_points(points[:50], 300, channels=3)) == 50


def test_larger_networks_and_other_codecs_have_none(fitted_picture: FittedNetwork, fitted_clip: FittedNetwork) -> None:
    assert GridNerv().curvature(fitted_clip) is None
    assert not GridNerv().has_curvature(fitted_clip)
    large = replace(fitted_picture, tensors={"weight": np.zeros((64, 65), np.float32)})
    assert Siren().curvature(large) is None
    assert Coin().has_curvature(fitted_picture)


@pytest.mark.parametrize("fineness", [-9.0, -8.0, -7.0])
def test_the_picture_moves_less_at_the_same_steps(
    fitted_picture: FittedNetwork, curvature: Matrix, fineness: float
) -> None:
    allocation = Allocation.together(fitted_picture, curvature)
    together, alone = (allocation.at(fineness, rounding=rounding) for rounding in ("joint", "nearest"))
    assert added(together, fitted_picture) < 0.75 * added(alone, fitted_picture)
    assert len(bitstream.encode(together)) < 1.02 * len(bitstream.encode(alone))
    for name, tensor in together.tensors.items():
        assert np.array_equal(tensor.steps, alone.tensors[name].steps)


def test_the_error_is_as_foretold(fitted_picture: FittedNetwork, curvature: Matrix) -> None:
    allocation = Allocation.together(fitted_picture, curvature)
    by = flat(allocation.at(-9.0, rounding="joint").dequantize()) - flat(fitted_picture)
    foretold = len(by) * 4.0**-9 / 12
    assert by @ curvature @ by == pytest.approx(foretold, rel=0.35)


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 12), rank=st.integers(0, 12), seed=st.integers(0, 1000))
def test_nothing_is_worse_than_half_a_step_in_each_direction_of_its_own(size: int, rank: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    root = generator.normal(size=(rank, size))
    weights = generator.normal(size=size).astype(np.float32) + np.float32(0.01)
    rounding = JointRounding.of({"w": weights}, root.T @ root)
    error = rounding.rounded({"w": np.full(1, 0.25, np.float32)})["w"] * 0.25 - weights.astype(np.float64)
    damped = root.T @ root + DAMPING * max(np.trace(root.T @ root) / size, 1e-12) * np.eye(size)
    bound = float((rounding.free["w"].astype(np.float64) * 0.125**2).sum())
    assert error @ damped @ error <= bound * (1 + 1e-4) + 1e-12


def test_weights_that_do_not_touch_each_other_are_rounded_plainly() -> None:
    tensors: dict[str, FloatTensor] = {
        name: np.random.default_rng(seed).normal(size=(7, 3)).astype(np.float32) for seed, name in enumerate("ab")
    }
    rounded = JointRounding.of(tensors, np.eye(42)).rounded(dict.fromkeys(tensors, np.full(1, 0.1, np.float32)))
    for name, tensor in tensors.items():
        assert np.array_equal(rounded[name], np.rint(tensor / np.float32(0.1)))


def test_zeros_stay_and_symbols_stay_within_bounds() -> None:
    tensor = np.array([[0.0, 1.0], [1e6, 0.0]], np.float32)
    generator = np.random.default_rng(0).normal(size=(4, 4))
    rounding = JointRounding.of({"w": tensor}, generator.T @ generator)
    symbols = rounding.rounded({"w": np.full(1, 1e-3, np.float32)})["w"]
    assert not symbols[tensor == 0].any()
    assert np.abs(symbols).max() == MAX_SYMBOL


def test_a_parents_own_tensors_stay(fitted_picture: FittedNetwork, curvature: Matrix) -> None:
    base = Allocation.of(fitted_picture, Siren().sensitivity(fitted_picture)).at(-9.0, rounding="nearest")
    own = base.dequantize()
    parent = Parent(payload=bitstream.encode(base), tensors=base.tensors)
    tensors = {**own.tensors, "head.weight": own.tensors["head.weight"] + np.float32(0.0123)}
    child = Allocation.together(replace(own, tensors=tensors, parent=parent), curvature).at(-9.0, rounding="joint")
    for name, tensor in base.tensors.items():
        assert np.array_equal(tensor.symbols, child.tensors[name].symbols) == (name != "head.weight")


def test_a_tensor_a_last_digit_away_from_its_parents_is_still_its_own(
    fitted_picture: FittedNetwork, curvature: Matrix
) -> None:
    base = Allocation.of(fitted_picture, Siren().sensitivity(fitted_picture)).at(-9.0, rounding="nearest")
    own = base.dequantize()
    parent = Parent(payload=bitstream.encode(base), tensors=base.tensors)
    tensors = {name: np.nextafter(tensor, np.float32(9)) for name, tensor in own.tensors.items()}
    tensors["layers.0.weight"] = own.tensors["layers.0.weight"] + np.float32(0.0123)
    child = Allocation.together(replace(own, tensors=tensors, parent=parent), curvature).at(-9.0, rounding="joint")
    for name, tensor in base.tensors.items():
        assert np.array_equal(tensor.symbols, child.tensors[name].symbols) == (name != "layers.0.weight")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_curvature_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="curvature of the network's weights is NaN or infinite"):
        JointRounding.of({"w": np.ones(2, np.float32)}, np.full((2, 2), value))


def test_without_a_curvature_it_is_refused(fitted_picture: FittedNetwork) -> None:
    with pytest.raises(ValueError, match="joint rounding needs the curvature of all weights; take rate or trellis"):
        Allocation.of(fitted_picture, None).at(-8.0, rounding="joint")
