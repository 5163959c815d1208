"""Sensitivity: what small errors of each weight cost in the picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from framefold.codecs.gridnerv import GridNerv
from framefold.codecs.network import FittedNetwork
from framefold.codecs.quantizing.sensitivity import squared_gradients
from framefold.codecs.siren import Siren

FRAMES = 3
ROWS, COLUMNS = 4, 6


class Scaled(nn.Module):
    """Frame t is a sum of fixed patterns (3, 4, 6), each times its weight, and weight t once more on frame t."""

    def __init__(self) -> None:
        super().__init__()
        self.gains = nn.Parameter(torch.randn(5, generator=torch.Generator().manual_seed(1)))
        self.own = nn.Parameter(torch.ones(FRAMES, 1))
        self.idle = nn.Parameter(torch.ones(2, 2))
        patterns = torch.randn(5, 3, ROWS, COLUMNS, generator=torch.Generator().manual_seed(2))
        self.register_buffer("patterns", patterns * torch.tensor([0.1, 0.3, 1, 3, 10]).view(5, 1, 1, 1))

    def forward(self, indices: Tensor, rows: slice = slice(None), columns: slice = slice(None)) -> Tensor:
        picture = torch.einsum("p,pchw->chw", self.gains, self.get_buffer("patterns"))
        whole: Tensor = picture + self.own[indices].view(-1, 1, 1, 1) + 0 * self.idle.sum()
        return whole[:, :, rows, columns]


def exact() -> dict[str, np.ndarray]:
    """By hand: the mean square of the pattern; a frame's own weight moves one frame in three."""
    gains = Scaled().get_buffer("patterns").square().mean(dim=(1, 2, 3)).numpy()
    return {"gains": gains, "own": np.full((FRAMES, 1), 1 / FRAMES), "idle": np.zeros((2, 2))}


@pytest.mark.parametrize("lattice", [1, 2])
def test_of_a_linear_network_it_is_the_mean_square_of_what_each_weight_draws(
    monkeypatch: pytest.MonkeyPatch, lattice: int
) -> None:
    monkeypatch.setattr("framefold.codecs.quantizing.sensitivity.PROBES", 600)
    measured = squared_gradients(Scaled(), FRAMES, lattice=lattice)
    assert {name: (value.shape, value.dtype) for name, value in measured.items()} == {
        name: (value.shape, np.float32) for name, value in exact().items()
    }
    for name, value in exact().items():
        assert measured[name] == pytest.approx(value, rel=0.3)


def test_the_same_seed_gives_the_same_values_and_another_seed_others() -> None:
    one, same, other = (squared_gradients(Scaled(), FRAMES, seed=seed)["gains"] for seed in (4, 4, 5))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def mean_squared_error(network: FittedNetwork, moves: dict[str, np.ndarray], sign: int) -> float:
    """Of the network's frames, not rounded to bytes, once its weights have moved."""
    codec = {"gridnerv": GridNerv, "siren": Siren}[network.codec]()
    moved = {name: tensor + np.float32(sign) * moves[name] for name, tensor in network.tensors.items()}
    _, module = codec.load(replace(network, tensors=moved))
    assert network.target is not None
    with torch.inference_mode():
        drawn = module(torch.arange(network.span.frame_count)).double().numpy()
    return float(np.mean((drawn - network.target.frames / 255.0) ** 2))


@pytest.mark.parametrize("fitted", ["fitted_clip", "fitted_picture"])
@pytest.mark.parametrize("rise", [1e-6, 1e-4])
def test_it_foretells_the_squared_error_that_small_errors_of_the_weights_add(
    request: pytest.FixtureRequest, fitted: str, rise: float
) -> None:
    network: FittedNetwork = request.getfixturevalue(fitted)
    codec = {"gridnerv": GridNerv, "siren": Siren}[network.codec]()
    sensitivity = codec.sensitivity(network)
    share = rise / sum(tensor.size for tensor in network.tensors.values())
    rng, rises = np.random.default_rng(3), []
    for _ in range(4):
        moves = {
            name: (rng.choice([-1.0, 1.0], h.shape) * np.sqrt(share / np.maximum(h, 1e-3 * h.mean()))).astype("f4")
            for name, h in sensitivity.items()
        }
        foretold = sum(float((h * moves[name] ** 2).sum()) for name, h in sensitivity.items())
        before = mean_squared_error(network, moves, 0)  # both signs: what the gradient adds to one it takes from other
        rises.append((sum(mean_squared_error(network, moves, sign) for sign in (-1, 1)) / 2 - before) / foretold)
    assert 0.5 < np.mean(rises) < 2


def test_a_codec_measures_each_tensor_and_leaves_the_network_alone(fitted_picture: FittedNetwork) -> None:
    before = {name: tensor.copy() for name, tensor in fitted_picture.tensors.items()}
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    sensitivity = Siren().sensitivity(fitted_picture, device="cpu")
    assert torch.rand(1) == expected
    assert {name: value.shape for name, value in sensitivity.items()} == {
        name: value.shape for name, value in before.items()
    }
    assert all((value >= 0).all() and value.any() for value in sensitivity.values())
    assert all(np.array_equal(fitted_picture.tensors[name], value) for name, value in before.items())


def test_pixels_are_not_needed(fitted_picture: FittedNetwork) -> None:
    with_pixels, without = (
        Siren().sensitivity(each) for each in (fitted_picture, replace(fitted_picture, target=None))
    )
    assert all(np.array_equal(with_pixels[name], value) for name, value in without.items())
