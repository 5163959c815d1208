"""Quantization: what comes back is near, pruned stays pruned, odd tensors have sane answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from framefold.codecs.clip import Source, Span
from framefold.codecs.network import FittedNetwork
from framefold.codecs.quantizing.quantize import fine_tensors, quantize
from framefold.codecs.quantizing.steps import step_exponents

SPAN = Span(source=Source(name="a.png", kind="image", sha256="0" * 64, size_bytes=1, width=1, height=1), pts=(0,))


def network(**tensors):
    return FittedNetwork(span=SPAN, codec="toy", config={"n": 1}, tensors=tensors)


def weights(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 0.05, shape).astype(np.float32)


def squared_error(tensor, quantized):
    return float(((tensor.astype(np.float64) - quantized.dequantize()) ** 2).sum())


@given(
    tensor=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6),
        elements=st.floats(allow_nan=False, allow_infinity=False, width=32),
    ),
    bits=st.integers(2, 8),
    granularity=st.sampled_from(["tensor", "channel"]),
)
@settings(deadline=None)
def test_any_finite_tensor(tensor, bits, granularity):
    quantized = quantize(network(x=tensor, ballast=weights(64, 64)), bits=bits, granularity=granularity).tensors["x"]
    assert quantized.symbols.dtype == np.int32
    assert quantized.symbols.shape == tensor.shape
    assert quantized.steps.shape in {(1,), tensor.shape[:1]}
    assert step_exponents(quantized.steps) is not None
    assert np.isfinite(quantized.dequantize()).all()
    assert not quantized.symbols[tensor == 0].any()
    assert squared_error(tensor, quantized) <= (tensor.astype(np.float64) ** 2).sum()


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("bits", range(2, 9))
def test_symbols_stay_within_the_bits(bits, granularity):
    tensor = weights(40, 50)
    quantized = quantize(network(w=tensor, other=weights(40, 50)), bits=bits, granularity=granularity).tensors["w"]
    assert np.abs(quantized.symbols).max() == 2 ** (bits - 1) - 1
    assert quantized.steps.shape == ((40,) if granularity == "channel" else (1,))
    assert squared_error(tensor, quantized) < 7.0 * 4.0**-bits * (tensor.astype(np.float64) ** 2).sum()


def test_more_bits_and_more_steps_are_nearer():
    tensor = weights(30, 100) * np.linspace(0.1, 3, 30, dtype=np.float32)[:, None]
    both = network(w=tensor, other=tensor)
    errors = [
        squared_error(tensor, quantize(both, bits=bits, granularity="tensor").tensors["w"]) for bits in range(2, 9)
    ]
    assert errors == sorted(errors, reverse=True)
    by_channel = quantize(both, bits=5, granularity="channel").tensors["w"]
    assert squared_error(tensor, by_channel) < 0.5 * errors[3]


@pytest.mark.parametrize("bits", [4, 5, 6])
def test_clamping_outliers_beats_covering_them(bits):
    tensor = np.random.default_rng(1).laplace(size=(100, 100)).astype(np.float32)
    quantized = quantize(network(w=tensor, other=tensor), bits=bits, granularity="tensor").tensors["w"]
    covering = np.abs(tensor).max() / (2 ** (bits - 1) - 1)
    naive = np.rint(tensor / covering) * covering
    assert squared_error(tensor, quantized) < 0.9 * ((tensor - naive) ** 2).sum()


def test_vectors_and_the_smallest_weights_are_fine():
    tensors = {"first": weights(40, 2), "bias": weights(40), "middle": weights(60, 60), "gain": weights()}
    assert fine_tensors(tensors) == {"first", "bias", "gain"}
    quantized = quantize(network(**tensors), bits=8, granularity="tensor").tensors
    peaks = {name: int(np.abs(tensor.symbols).max()) for name, tensor in quantized.items()}
    assert peaks["middle"] <= 127
    assert 127 < peaks["first"] <= 1023
    assert 127 < peaks["bias"] <= 1023


def test_many_small_weights_are_not_all_fine():
    tensors = {f"layer{i}": weights(16, 16, seed=i) for i in range(64)}
    assert len(fine_tensors(tensors)) == 4


def test_few_weights_in_a_channel_share_a_step():
    tensors = {"wide": weights(8, 16), "narrow": weights(8, 15), "bias": weights(8)}
    quantized = quantize(network(**tensors), bits=6, granularity="channel").tensors
    assert {name: tensor.steps.size for name, tensor in quantized.items()} == {
        "wide": 8,
        "narrow": 1,
        "bias": 1,
    }


def test_zero_empty_and_single():
    tensors = {
        "zero": np.zeros((4, 20), np.float32),
        "empty": np.zeros((0, 7), np.float32),
        "one": np.full((1, 1), -0.3, np.float32),
        "scalar": np.float32([2.5]).reshape(()),
        "some": np.concatenate([np.zeros((2, 20), np.float32), weights(2, 20)]),
    }
    result = quantize(network(**tensors), bits=8, granularity="channel")
    assert list(result.tensors) == list(tensors)
    assert result.config == {"n": 1}
    assert not result.tensors["zero"].dequantize().any()
    assert result.tensors["empty"].dequantize().shape == (0, 7)
    np.testing.assert_allclose(result.tensors["one"].dequantize(), -0.3, rtol=0.05)
    np.testing.assert_allclose(result.tensors["scalar"].dequantize(), 2.5, rtol=0.05)
    assert not result.tensors["some"].dequantize()[:2].any()
    assert result.tensors["some"].steps[0] == result.tensors["some"].steps[2]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_tensor_that_diverged_is_named(bad):
    with pytest.raises(ValueError, match="'broken' holds NaN"):
        quantize(network(fine=weights(2, 2), broken=np.float32([bad])), bits=8, granularity="tensor")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 1, "granularity": "tensor"}, "bits is 1, allowed is 2 .. 8"),
        ({"bits": 9, "granularity": "tensor"}, "bits is 9"),
        ({"bits": 8, "granularity": "row"}, "granularity is 'row', allowed is 'tensor' or 'channel'"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        quantize(network(a=weights(2, 2)), **options)
