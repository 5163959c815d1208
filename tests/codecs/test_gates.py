"""Gates: as open as the paper says, closed where nothing is lost, and gone on with from anywhere."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor, nn

from framefold.codecs import fitting
from framefold.codecs.base import FitSettings
from framefold.codecs.fitting import FitPlan, Penalised, fit
from framefold.codecs.gridnerv import GridNerv, GridNervConfig
from framefold.codecs.pruning.gated_pruning import gate_pruned
from framefold.codecs.pruning.gates import GatedNetwork, initial_openness
from framefold.codecs.siren import Siren, SirenConfig
from framefold.codecs.testing import make_clip, moving_shapes, run_fit


class Mixture(nn.Module):
    """Pictures mixed from 8 fixed ones; half of them add nothing to the target."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.basis = torch.rand(8, 12 * 16, generator=generator) - 0.5
        self.mix = nn.Parameter(torch.full((3, 8), 0.2))
        self.bias = nn.Parameter(torch.full((3,), 0.5))

    def forward(self, indices: Tensor) -> Tensor:
        picture = self.mix @ self.basis + self.bias[:, None]
        return picture.view(1, 3, 12, 16).expand(len(indices), -1, -1, -1)


NEEDED = torch.tensor([True, False, False, True, True, False, True, False])


def gated(keep: float = 0.5, *, rows: bool = False, seed: int = 0, scores: np.ndarray | None = None) -> GatedNetwork:
    return GatedNetwork(Mixture(), {"mix": np.ones((3, 8)) if scores is None else scores}, keep, rows=rows, seed=seed)


def test_gates_on_what_adds_nothing_close():
    network = gated()
    source = Mixture()
    with torch.no_grad():
        source.mix.copy_(torch.where(NEEDED, source.mix, torch.zeros(())))
        frames = source(torch.zeros(1, dtype=torch.long)).mul(255).round().to(torch.uint8).numpy()
    plan = FitPlan(steps=150, learning_rate=1e-3, rate_factors={"openness": 150.0})
    assert isinstance(network, Penalised)
    for _ in fit(network, frames, plan):
        pass
    tensors, masks = network.settled()
    assert np.array_equal(masks["mix"], np.broadcast_to(NEEDED.numpy(), (3, 8)))
    assert tensors["mix"][masks["mix"]] == pytest.approx(0.2, abs=0.02)
    assert not tensors["mix"][~masks["mix"]].any()
    assert network.density().item() == pytest.approx(0.5, abs=0.1)


def test_the_share_of_open_gates_is_the_one_that_is_charged_for():
    network = gated(scores=np.geomspace(1, 50, 24).reshape(3, 8))
    with torch.no_grad():
        network.control[0] = 0
    seen = []
    for step in range(500):
        network.begin_step(step, 0.0)
        gates = network.gates().detach()
        assert ((gates >= 0) & (gates <= 1)).all()
        seen.append((gates > 0).double().mean().item())
    assert np.mean(seen) == pytest.approx(network.density().item(), abs=4 * np.std(seen) / math.sqrt(len(seen)))
    network.observe(torch.tensor(0.25))
    assert network.penalty().item() == pytest.approx(0.25 * network.density().item())


def test_noise_follows_from_step_and_seed():
    first, same, other = gated(seed=3), gated(seed=3), gated(seed=4)
    drawn = {}
    for name, network, step in (("a", first, 7), ("b", same, 7), ("c", first, 8), ("d", other, 7)):
        network.begin_step(step, 0.0)
        drawn[name] = network.gates().detach()
    assert torch.equal(drawn["a"], drawn["b"])
    assert not torch.equal(drawn["a"], drawn["c"])
    assert not torch.equal(drawn["a"], drawn["d"])
    assert torch.equal(first.eval().gates(), same.eval().gates())


def test_the_multiplier_rises_while_too_many_are_open():
    network = gated(0.5)
    for openness, rises in ((4.0, True), (-4.0, False)):
        with torch.no_grad():
            network.openness.fill_(openness)
            network.control.zero_()
        network.begin_step(0, 0.0)
        network.begin_step(1, 0.01)
        assert (network.control[0].item() > 0) is rises
        assert network.control[0].item() != 0


@settings(max_examples=40)
@given(
    arrays(np.float64, st.integers(1, 60), elements=st.floats(0, 1e6)),
    st.floats(0.02, 0.98),
    st.sampled_from([1.0, 9.0]),
)
def test_at_first_the_share_is_open_and_importance_decides(importance, keep, weights):
    counts = np.full(len(importance), weights)
    openness = initial_openness(importance, counts, keep)
    assert np.isfinite(openness).all()
    order = np.argsort(importance)
    assert (np.diff(openness[order]) >= 0).all()
    shut = (2 / 3) * math.log(0.1 / 1.1)
    assert np.mean(1 / (1 + np.exp(shut - openness))) == pytest.approx(keep, abs=1e-3)


def test_rows_stay_whole_and_fit_into_the_share():
    tensor = np.arange(1, 25.0).reshape(3, 8)
    tensors, masks = gated(0.7, rows=True, scores=tensor).settled()
    assert masks["mix"].tolist() == [[False] * 8, [True] * 8, [True] * 8]
    assert not tensors["mix"][0].any()
    assert gated(0.1, rows=True, scores=tensor).settled()[1]["mix"].sum() == 8


@pytest.mark.parametrize("keep", [0.01, 0.3, 0.5, 1.0])
def test_exactly_the_share_stays(keep):
    mask = gated(keep).settled()[1]["mix"]
    assert mask.sum() == max(1, round(24 * keep))
    assert mask.ravel()[: int(mask.sum())].all()  # of equals the earlier ones


# ---- the whole of it, on real codecs


@pytest.fixture
def every_step(monkeypatch):
    """A progress after each step."""
    monkeypatch.setattr(fitting, "SECONDS_BETWEEN_REPORTS", 0.0)


def small(name):
    if name == "gridnerv":
        codec, clip = GridNerv(GridNervConfig(width=5)), make_clip(moving_shapes(3, 20, 30))
    else:
        codec, clip = Siren(SirenConfig(width=6, depth=2)), make_clip(moving_shapes(1, 20, 30), kind="image")
    return codec, run_fit(codec.fit(clip, FitSettings(steps=20)))


def assert_same(one, other):
    assert one.config == other.config
    assert list(one.tensors) == list(other.tensors)
    assert all(np.array_equal(one.tensors[name], value) for name, value in other.tensors.items())


@pytest.mark.parametrize(("name", "rows"), [("gridnerv", False), ("siren", True)])
def test_it_goes_on_from_either_phase_as_if_it_had_not_been_broken_off(name, rows, every_step):
    codec, network = small(name)
    tuning = FitSettings(steps=24, seed=2)
    whole = run_fit(gate_pruned(codec, network, 0.6, tuning, rows=rows))
    states = [pickle.dumps(each.state()) for each in gate_pruned(codec, network, 0.6, tuning, rows=rows)]
    assert len(states) == (18 + 2) + (6 + 2)
    for at in (0, 11, 19, 20, 24, 27):
        resumed = replace(tuning, resume=pickle.loads(states[at]))
        assert_same(run_fit(gate_pruned(codec, network, 0.6, resumed, rows=rows)), whole)


def test_the_share_is_zero_and_the_progress_one():
    codec, network = small("gridnerv")
    under_way = gate_pruned(codec, network, 0.7, FitSettings(steps=12))
    fractions = []
    try:
        while True:
            fractions.append(next(under_way).fraction)
    except StopIteration as end:
        pruned = end.value
    assert fractions == sorted(fractions)
    assert fractions[0] == 0
    assert fractions[-1] == 1
    weights = [value for value in pruned.tensors.values() if value.ndim > 1]
    total = sum(value.size for value in weights)
    assert sum(np.count_nonzero(value) for value in weights) == round(0.7 * total)
    assert pruned.config == network.config
    assert pruned.target is network.target
    other = run_fit(gate_pruned(codec, network, 0.7, FitSettings(steps=12, seed=1)))
    assert not np.array_equal(pruned.tensors["blocks.0.conv.weight"], other.tensors["blocks.0.conv.weight"])


def test_what_does_not_belong_is_refused():
    codec, network = small("siren")
    state = next(gate_pruned(codec, network, 0.7, FitSettings(steps=4))).state()
    run = state["run"]["run"]
    masks = {name: np.zeros(1, np.uint8) for name, value in network.tensors.items() if value.ndim > 1}
    for wrong, message in (
        ({"made by": "nobody"}, "codec None, needed is 'siren'"),
        ({**state, "keep": 0.5}, "keep 0.5, needed is 0.7"),
        ({**state, "run": None}, "no pruning by gates of this network"),
        ({**state, "run": {"masks": None, "run": None}}, "no pruning by gates of this network"),
        ({**state, "run": {"masks": {"x": 1}, "run": run}}, "no pruning by gates of this network"),
        ({**state, "run": {"masks": masks, "run": run}}, r"mask of tensor '.*' does not fit its shape"),
        ({**state, "run": {"masks": None, "run": {}}}, "no state of a fit"),
    ):
        with pytest.raises(ValueError, match=message):
            next(gate_pruned(codec, network, 0.7, FitSettings(steps=4, resume=wrong)))
    with pytest.raises(ValueError, match=r"shapes: gates need weights, and the pixels"):
        next(gate_pruned(codec, replace(network, target=None), 0.7, FitSettings(steps=4)))
    with pytest.raises(ValueError, match="0 < keep <= 1"):
        next(gate_pruned(codec, network, 0.0, FitSettings(steps=4)))


class Blind(GridNerv):
    """A codec that measures no sensitivity."""

    def sensitivity(self, network, *, device="cpu"):
        return None


def test_magnitudes_serve_where_nothing_is_measured():
    codec, network = small("gridnerv")
    blind = run_fit(gate_pruned(Blind(codec.config), network, 0.5, FitSettings(steps=4)))
    seeing = run_fit(gate_pruned(codec, network, 0.5, FitSettings(steps=4)))
    zeros = [{name: value == 0 for name, value in each.tensors.items()} for each in (blind, seeing)]
    assert sum(each.sum() for each in zeros[0].values()) == sum(each.sum() for each in zeros[1].values())
    assert any(not np.array_equal(zeros[0][name], zeros[1][name]) for name in network.tensors)
