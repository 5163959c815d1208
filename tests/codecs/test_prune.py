"""Pruning keeps exactly the asked-for number of weights, the largest ones, the same every time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefold.codecs.clip import Source, Span
from framefold.codecs.network import FittedNetwork
from framefold.codecs.pruning.prune import (
    apply_masks,
    magnitude_scores,
    masks_of,
    sensitivity_scores,
    size_normalised_scores,
)

SPAN = Span(source=Source(name="a.png", kind="image", sha256="0" * 64, size_bytes=1, width=1, height=1), pts=(0,))


def network(**tensors):
    return FittedNetwork(span=SPAN, codec="toy", config={}, tensors=tensors)


def f32(values):
    return np.array(values, dtype=np.float32)


def magnitude_masks(tensors, keep):
    return masks_of(tensors, magnitude_scores(tensors), keep)


def test_the_largest_weights_of_the_whole_network_stay():
    tensors = {"a": f32([[1, -5], [0.5, 3]]), "b": f32([[-4, 2]]), "bias": f32([0.01, 0.02])}
    masks = magnitude_masks(tensors, 0.5)
    assert masks["a"].tolist() == [[False, True], [False, True]]
    assert masks["b"].tolist() == [[True, False]]
    assert masks["bias"].tolist() == [True, True]


@given(st.integers(0, 40), st.integers(1, 30), st.floats(0.001, 1), st.integers(0, 3))
def test_count_is_exact_whatever_the_ties(rows, columns, keep, levels):
    rng = np.random.default_rng(rows * 100 + columns)
    first = rng.integers(-levels, levels + 1, (rows, columns)).astype(np.float32)
    second = rng.integers(-levels, levels + 1, (3, 2, columns)).astype(np.float32)
    masks = magnitude_masks({"first": first, "second": second}, keep)
    kept = int(masks["first"].sum() + masks["second"].sum())
    assert kept == max(round(keep * (first.size + second.size)), 1)
    magnitudes = np.concatenate([np.abs(first).ravel(), np.abs(second).ravel()])
    mask = np.concatenate([masks["first"].ravel(), masks["second"].ravel()])
    assert magnitudes[mask].min() >= magnitudes[~mask].max(initial=0)


def test_of_ties_the_earlier_stays():
    masks = magnitude_masks({"x": f32([[1, 1]]), "y": f32([[1, 1]])}, 0.75)
    assert masks["x"].tolist() == [[True, True]]
    assert masks["y"].tolist() == [[True, False]]


def test_degenerate_tensors():
    tensors = {"none": f32([]).reshape(0, 3), "zero": np.zeros((2, 2), np.float32), "scalar": f32(7)}
    masks = magnitude_masks(tensors, 0.25)
    assert {name: mask.shape for name, mask in masks.items()} == {
        "none": (0, 3),
        "zero": (2, 2),
        "scalar": (),
    }
    assert masks["zero"].sum() == 1
    assert magnitude_masks({"bias": f32([1, 2])}, 0.1)["bias"].all()
    assert magnitude_masks({}, 0.5) == {}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_tensor_that_diverged_is_named(bad):
    with pytest.raises(ValueError, match="'broken' holds NaN"):
        magnitude_masks({"fine": f32([[1]]), "broken": f32([bad])}, 0.5)


@pytest.mark.parametrize("keep", [0, -0.5, 1.01, float("nan")])
def test_keep_must_be_a_share(keep):
    with pytest.raises(ValueError, match="0 < keep <= 1"):
        magnitude_masks({"a": f32([[1]])}, keep)


def test_small_layers_are_spared_by_their_size():
    tensors = {"small": f32([[1.0, 1.1]]), "large": np.linspace(1.2, 2, 50, dtype=np.float32).reshape(5, 10)}
    assert not masks_of(tensors, magnitude_scores(tensors), 50 / 52)["small"].any()
    masks = masks_of(tensors, size_normalised_scores(tensors), 50 / 52)
    assert masks["small"].all()
    assert np.flatnonzero(~masks["large"]).tolist() == [0, 1]


def test_size_is_what_is_not_pruned_yet():
    scores = size_normalised_scores({"w": f32([[3, 0, -4, 0], [0, 0, 5, 6]]), "gone": f32([[0, 0]]), "bias": f32([1])})
    assert scores["w"].tolist() == [[1.5, 0, 2, 0], [0, 0, 2.5, 3]]
    assert scores["gone"].tolist() == [[0, 0]]
    assert "bias" not in scores


@given(st.floats(0.1, 1), st.integers(0, 5))
def test_equal_layers_are_pruned_by_magnitude_whatever_their_size(keep, seed):
    rng = np.random.default_rng(seed)
    tensors = {name: rng.normal(size=(4, 9)).astype(np.float32) for name in "abc"}
    by_size, by_magnitude = masks_of(tensors, size_normalised_scores(tensors), keep), magnitude_masks(tensors, keep)
    assert all(np.array_equal(by_size[name], by_magnitude[name]) for name in tensors)


def test_sensitive_weights_stay_though_they_are_small():
    tensors = {"a": f32([[0.1, 2]]), "b": f32([[-1, 1e-30]]), "bias": f32([7])}
    sensitivity = {"a": f32([[1000, 1]]), "b": f32([[3, 1e30]]), "bias": f32([1])}
    scores = sensitivity_scores(tensors, sensitivity)
    assert scores["a"] == pytest.approx(np.array([[10, 4]]), rel=1e-6)
    assert scores["b"] == pytest.approx(np.array([[3, 1e-30]]), rel=1e-6)  # too small for float32
    masks = masks_of(tensors, scores, 0.5)
    assert masks["a"].tolist() == [[True, True]]
    assert masks["b"].tolist() == [[False, False]]
    assert masks["bias"].all()


def test_sensitivity_must_fit_the_tensors():
    tensors = {"a": f32([[1, 2]])}
    with pytest.raises(ValueError, match=r"sensitivity of tensor 'a' is missing, the tensor is \(1, 2\)"):
        sensitivity_scores(tensors, {})
    with pytest.raises(ValueError, match=r"sensitivity of tensor 'a' is of shape \(2,\), the tensor is"):
        sensitivity_scores(tensors, {"a": f32([1, 2])})
    scores = sensitivity_scores(tensors, {"a": f32([[np.nan, 1]])})
    with pytest.raises(ValueError, match="scores of tensor 'a' hold NaN"):
        masks_of(tensors, scores, 0.5)


def test_masks_are_applied_without_touching_the_original():
    before = network(b=f32([[1, 2], [3, 4]]), a=f32([5]))
    after = apply_masks(before, {"b": np.array([[True, False], [False, True]])})
    assert list(after.tensors) == ["b", "a"]
    assert after.tensors["b"].tolist() == [[1, 0], [0, 4]]
    assert after.tensors["b"].dtype == np.float32
    assert before.tensors["b"].tolist() == [[1, 2], [3, 4]]


def test_masks_that_do_not_belong_are_refused():
    with pytest.raises(ValueError, match="unknown tensors \\['c'\\]"):
        apply_masks(network(a=f32([1])), {"c": np.array([True])})
    with pytest.raises(ValueError, match="'a' is \\(2,\\), the tensor is \\(1,\\)"):
        apply_masks(network(a=f32([1])), {"a": np.array([True, True])})
