"""The differentiable estimate of bits: near the real entropy of rounded values, and a gradient that can be followed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from framefold.codecs.rate.rate_model import LEAST_PROBABILITY, estimated_bits, gaussian_bits, laplace_bits

COUNT = 40_000


def entropy(symbols: np.ndarray) -> float:
    """Order-0 entropy of all symbols, in bits."""
    _, counts = np.unique(symbols, return_counts=True)
    return float(np.sum(counts * np.log2(symbols.size / counts)))


@pytest.mark.parametrize("curve", ["laplace", "normal"])
@pytest.mark.parametrize("scale", [1.0, 4.0, 30.0, 300.0])
def test_the_estimate_is_near_the_entropy_of_the_rounded_values(curve: str, scale: float) -> None:
    rng = np.random.default_rng(1)
    values = getattr(rng, curve)(0, scale, COUNT)
    noisy = torch.from_numpy(values + rng.uniform(-0.5, 0.5, COUNT))
    assert float(estimated_bits(noisy)) == pytest.approx(entropy(np.rint(values)), rel=0.05)


@pytest.mark.parametrize("curve", ["laplace", "normal"])
@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0, 300.0])
def test_the_bits_of_whole_numbers_are_near_their_entropy(curve: str, scale: float) -> None:
    symbols = np.rint(getattr(np.random.default_rng(2), curve)(0, scale, COUNT))
    assert float(estimated_bits(torch.from_numpy(symbols))) == pytest.approx(entropy(symbols), rel=0.05)


@pytest.mark.parametrize(("curve", "own"), [("laplace", laplace_bits), ("normal", gaussian_bits)])
def test_the_better_of_the_two_curves_is_taken(curve: str, own: object) -> None:
    values = torch.from_numpy(getattr(np.random.default_rng(3), curve)(0, 5, COUNT))
    assert float(estimated_bits(values)) == min(float(laplace_bits(values)), float(gaussian_bits(values)))
    assert callable(own)
    assert float(estimated_bits(values)) == float(own(values))


@settings(max_examples=40, deadline=None)
@given(
    values=arrays.arrays(
        np.float32, st.integers(1, 20), elements=st.floats(-(2.0**40), 2.0**40, width=32) | st.sampled_from([0.0, 0.5])
    )
)
def test_bits_and_gradient_are_finite_for_any_values(values: np.ndarray) -> None:
    variable = torch.from_numpy(values).requires_grad_()
    bits = estimated_bits(variable)
    (gradient,) = torch.autograd.grad(bits, variable)
    assert gradient.isfinite().all()
    assert -1e-3 <= float(bits.detach()) <= -np.log2(LEAST_PROBABILITY) * values.size


@pytest.mark.parametrize("curve", ["laplace", "normal"])
def test_following_the_gradient_takes_values_towards_zero_and_bits_away(curve: str) -> None:
    values = torch.from_numpy(getattr(np.random.default_rng(4), curve)(0, 3, 2000)).requires_grad_()
    bits = estimated_bits(values)
    (gradient,) = torch.autograd.grad(bits, values)
    away = values.detach().abs() > 0.01
    assert (gradient * values.detach().sign())[away].gt(0).all()
    assert estimated_bits(values.detach() - 0.1 * gradient) < bits


def test_zeros_cost_next_to_nothing() -> None:
    assert float(estimated_bits(torch.zeros(10_000))) < 20
