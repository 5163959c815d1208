"""Beginning from a stored network: what is taken, what is held, and on which grid the new one is rounded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from framefold.codecs.base import FitSettings
from framefold.codecs.gridnerv import GridNerv, GridNervConfig
from framefold.codecs.network import FittedNetwork, Parent, QuantizedTensor
from framefold.codecs.pruning.prune import apply_masks, magnitude_scores, masks_of
from framefold.codecs.quantizing.parent_steps import on_parents_grid
from framefold.codecs.quantizing.quantize import quantize
from framefold.codecs.siren import Siren, SirenConfig
from framefold.codecs.stream import bitstream
from framefold.codecs.testing import make_clip, moving_shapes, run_fit
from framefold.codecs.warm_start import WarmStart

CODEC = Siren(SirenConfig(width=6, depth=3))
CLIP = make_clip(moving_shapes(1, 8, 12), kind="image")
SHORT = FitSettings(steps=4, seed=1)


@pytest.fixture(scope="module")
def base() -> FittedNetwork:
    """A stored network: what its stream gives back, and that as its own parent."""
    symbols = quantize(run_fit(CODEC.fit(CLIP, SHORT)), bits=8, granularity="channel")
    parent = bitstream.read_parent(bitstream.encode(symbols))
    return replace(symbols.dequantize(), parent=parent)


def differing(one: FittedNetwork, other: FittedNetwork) -> set[str]:
    return {name for name, tensor in one.tensors.items() if not np.array_equal(tensor, other.tensors[name])}


def test_what_is_taken_is_the_starts_and_the_rest_is_random_as_ever(base: FittedNetwork) -> None:
    slow = replace(SHORT, steps=1, learning_rate=1e-9)
    plain = run_fit(CODEC.fit(CLIP, slow))
    warm = run_fit(CODEC.fit(CLIP, replace(slow, start=WarmStart(network=base, taken=("layers.",)))))
    for name, tensor in warm.tensors.items():
        expected = base if name.startswith("layers.") else plain
        assert np.allclose(tensor, expected.tensors[name], atol=1e-6)


def test_what_is_held_does_not_move_and_all_else_does(base: FittedNetwork) -> None:
    held = ("layers.1.", "head.bias")
    warm = run_fit(CODEC.fit(CLIP, replace(SHORT, start=WarmStart(network=base, held=held))))
    assert differing(base, warm) == {name for name in base.tensors if not name.startswith(held)}


def test_the_parent_stays_until_the_stream(base: FittedNetwork) -> None:
    network = run_fit(CODEC.fit(CLIP, replace(SHORT, start=WarmStart(network=base))))
    masks = masks_of(network.tensors, magnitude_scores(network.tensors), 0.9)
    pruned = apply_masks(network, masks)
    tuned = run_fit(CODEC.finetune(pruned, masks, SHORT))
    symbols = quantize(tuned, bits=8, granularity="channel")
    for each in (network, pruned, tuned, symbols, symbols.dequantize()):
        assert each.parent is base.parent


def test_a_start_of_other_shapes_is_refused_by_the_tensors_that_differ() -> None:
    codec = GridNerv(GridNervConfig(width=4, strides=(2,)))
    short, long = (make_clip(moving_shapes(frames, 8, 12)) for frames in (3, 9))
    start = WarmStart(network=run_fit(codec.fit(short, SHORT)))
    with pytest.raises(ValueError, match=r"grids is .* there and .* here; give the codec the start's options"):
        run_fit(codec.fit(long, replace(SHORT, start=start)))
    misfit = r"do not fit this clip: grids\.0\.0\.maps is \(3, .*\) there and \(9, .*\) here"
    with pytest.raises(ValueError, match=misfit):
        run_fit(codec.fit(long, replace(SHORT, start=replace(start, taken=("grids.0.",)))))
    run_fit(codec.fit(long, replace(SHORT, start=replace(start, taken=("blocks.",)))))


def test_a_start_without_a_parent_is_only_a_start(base: FittedNetwork) -> None:
    alone = replace(base, parent=None)
    network = run_fit(CODEC.fit(CLIP, replace(SHORT, start=WarmStart(network=alone))))
    assert network.parent is None
    same = run_fit(CODEC.fit(CLIP, replace(SHORT, start=WarmStart(network=base))))
    assert not differing(network, same)


def test_the_fingerprint_tells_starts_apart(base: FittedNetwork) -> None:
    moved = {name: tensor + np.float32(name == "head.bias") for name, tensor in base.tensors.items()}
    starts = [
        WarmStart(network=base),
        WarmStart(network=base, held=("layers.",)),
        WarmStart(network=base, taken=("layers.",)),
        WarmStart(network=replace(base, codec="nerv")),
        WarmStart(network=replace(base, tensors=moved)),
    ]
    assert len({start.fingerprint for start in starts}) == len(starts)
    assert WarmStart(network=replace(base, target=None)).fingerprint == starts[0].fingerprint


# --- on which grid


def parent_of(symbols: np.ndarray, steps: np.ndarray, axis: int = 0) -> Parent:
    tensor = QuantizedTensor(symbols=symbols.astype(np.int32), steps=steps.astype(np.float32), axis=axis)
    return Parent(payload=b"", tensors={"w": tensor})


shapes = arrays.array_shapes(min_dims=1, max_dims=3, max_side=9)


@settings(max_examples=60, deadline=None)
@given(
    symbols=arrays.arrays(np.int32, shapes, elements=st.integers(-127, 127)),
    exponents=st.lists(st.integers(-16, 0), min_size=9, max_size=9),
    moved=st.floats(0, 1),
    data=st.data(),
)
def test_the_parents_grid_is_taken_only_where_it_costs_neither_quality_nor_bits(
    symbols: np.ndarray, exponents: list[int], moved: float, data: st.DataObject
) -> None:
    axis = data.draw(st.integers(0, symbols.ndim - 1))
    steps = 2.0 ** (np.array(exponents[: symbols.shape[axis]]) / 8)
    parent = parent_of(symbols, steps, axis)
    before = parent.tensors["w"].dequantize()
    noise = np.random.default_rng(symbols.size).normal(size=symbols.shape)
    tensor = (before + moved * 10 * noise).astype(np.float32)
    wanted = np.float32([2.0 ** data.draw(st.integers(-3, 3))])
    shared = on_parents_grid(tensor, "w", parent, wanted)
    if shared is None:
        return
    assert shared.axis == axis
    assert np.array_equal(shared.steps, parent.tensors["w"].steps)
    error = np.mean((shared.dequantize().astype(np.float64) - tensor) ** 2)
    assert error <= 2 ** (1 / 4) * float(wanted[0]) ** 2 / 12 * (1 + 1e-5)


def test_one_that_did_not_move_takes_its_parents_integers_again() -> None:
    symbols = np.random.default_rng(0).integers(-60, 60, (4, 25))
    parent = parent_of(symbols, np.array([0.25, 0.5, 0.125, 0.25]))
    still = parent.tensors["w"].dequantize()
    for wanted in (0.01, 0.25, 1.0):  # nothing is lost on its grid, though it is coarser than wanted
        shared = on_parents_grid(still, "w", parent, np.float32([wanted]))
        assert shared is not None
        assert np.array_equal(shared.symbols, symbols)


@pytest.mark.parametrize("case", ["coarser", "finer", "far", "other shape", "unknown", "no parent"])
def test_a_grid_that_does_not_pay_is_left(case: str) -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(20, 20)).astype(np.float32)
    step = {"coarser": 0.1, "finer": 0.0001}.get(case, 0.01)
    near = values + rng.normal(scale=0.02, size=values.shape).astype(np.float32)
    of = -7 * values if case == "far" else near[:19] if case == "other shape" else near
    parent = None if case == "no parent" else parent_of(np.rint(of / step), np.array([step]))
    name = "v" if case == "unknown" else "w"
    assert on_parents_grid(values, name, parent, np.float32([0.01])) is None
    fitting = parent_of(np.rint(near / 0.01), np.array([0.01]))
    assert on_parents_grid(values, "w", fitting, np.float32([0.01])) is not None
