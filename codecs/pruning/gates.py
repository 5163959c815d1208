"""Pruning by learned gates: which weights may go is found by descent, together with the weights that stay.

Louizos, Welling, Kingma: Learning Sparse Neural Networks through L0 Regularization (ICLR 2018), section 2: each
weight is multiplied by a gate, a random number of the hard concrete distribution, which is exactly 0 or exactly 1 with
positive probability; the chance of not being 0 is a smooth function of the gate's parameter. L0onie (Ramirez,
Gallego-Posada 2022, "Compressing COINs with L0-constraints") prunes pictures' networks with them under a constraint
instead of a penalty; so here: a multiplier rises while too many gates are open and falls while too few are.

Differences from both. The network is fitted already, and open noise in all its weights would destroy it: the gates
begin about as open as the measured importance of their weights says, with the asked-for share open in all, so that
only the doubtful ones are noisy. The multiplier moves by its logarithm and counts in units of the picture's squared
error. In the end exactly the asked-for share stays, the most open gates, and a last part of the fine-tuning goes
without noise.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import functional_call

from framefold.codecs.base import Masks
from framefold.codecs.fitting import tensors_of
from framefold.codecs.network import FloatTensor
from framefold.codecs.pruning.prune import Score, Scores

TEMPERATURE = 2 / 3
LOWEST, HIGHEST = -0.1, 1.1
"""The concrete distribution on 0..1 is stretched to these, then cut to 0..1; all three as in the paper."""
SHUT = TEMPERATURE * math.log(-LOWEST / HIGHEST)
"""A gate of openness a is not 0 with probability sigmoid(a - SHUT) (equation 12)."""
SLOPE = 3.0
"""Openness at the start rises so much for each factor e of importance."""
MOST = 12.0
"""Openness at the start is -MOST ... MOST."""
PRESSURE_RATE = 160.0
"""The multiplier's logarithm moves so fast per budget, at an excess of all that shall be closed."""

Flat = npt.NDArray[np.float64]


class GatedNetwork(nn.Module):
    """The network with a gate on each weight, or on each row (index of axis 0) of weights.

    A `Penalised` module for `fitting.fit`. All its state is in its parameters: `network.*`, `openness` (gates,) and
    `control` (2,), the multiplier's logarithm and the fraction of the budget at which it was set. The noise of a step
    follows from the step's number and the seed.
    """

    def __init__(self, network: nn.Module, scores: Scores, keep: float, *, rows: bool = False, seed: int = 0) -> None:
        super().__init__()
        self.network, self.keep, self.seed = network, keep, seed
        self.shapes = {name: _gates_of(score.shape, rows=rows) for name, score in scores.items()}
        counts = {name: score.size // max(1, math.prod(self.shapes[name])) for name, score in scores.items()}
        weights = np.concatenate(
            [np.full(math.prod(shape), float(counts[name])) for name, shape in self.shapes.items()]
        )
        importance = np.concatenate([_pooled(score, rows=rows) for score in scores.values()])
        start = initial_openness(importance, weights, keep)
        self.register_buffer("weights", torch.from_numpy(weights.astype(np.float32)), persistent=False)
        self.openness = nn.Parameter(torch.from_numpy(start.astype(np.float32)))
        self.control = nn.Parameter(torch.zeros(2), requires_grad=False)
        self._noise: Tensor | None = None
        self._error: Tensor | float = 0.0

    def density(self) -> Tensor:
        """Share of the weights whose gate is expected to be open; a scalar."""
        weights = self.get_buffer("weights")
        return (torch.sigmoid(self.openness - SHUT) * weights).sum() / weights.sum()

    def begin_step(self, step: int, fraction: float) -> None:
        """Draw the noise of this step and move the multiplier."""
        device = self.openness.device
        generator = torch.Generator(device).manual_seed((self.seed * 1_000_003 + step) % 2**63)
        self._noise = torch.rand(self.openness.shape, generator=generator, device=device).clamp_(1e-6, 1 - 1e-6)
        with torch.no_grad():
            excess = ((self.density() - self.keep) / max(1 - self.keep, 1e-6)).clamp(-1, 1)
            self.control[0] += PRESSURE_RATE * (fraction - self.control[1]).clamp(min=0) * excess
            self.control[1] = fraction

    def observe(self, mse: Tensor) -> None:
        """Take the squared error of this step: the multiplier counts in it."""
        self._error = mse.detach()

    def penalty(self) -> Tensor:
        """Price of the open gates."""
        return self.control[0].exp() * self._error * self.density()

    def gates(self) -> Tensor:
        """(gates,), 0..1: drawn anew for each step of a fit (equations 10, 11), else the estimate (equation 13)."""
        if self.training and self._noise is not None:
            return _stretched(torch.sigmoid((self._noise.logit() + self.openness) / TEMPERATURE))
        return _stretched(torch.sigmoid(self.openness))

    def forward(self, indices: Tensor, *lattice: slice) -> Tensor:
        """As the network's own, its weights multiplied by their gates."""
        gated: dict[str, Tensor] = dict(self.network.named_parameters())
        for name, gates in self._split(self.gates()).items():
            gated[name] = gated[name] * gates
        picture: Tensor = functional_call(self.network, gated, (indices, *lattice))
        return picture

    def settled(self) -> tuple[dict[str, FloatTensor], Masks]:
        """Give the network's tensors with their gates multiplied in, and masks of what stays.

        That is the share `keep` of the weights, those whose gates are most open; of rows as many as fit into the share,
        at least one.
        """
        gates = self._split(_stretched(torch.sigmoid(self.openness.detach())))
        kept = self._split(self._most_open())
        tensors, masks = tensors_of(self.network), {}
        for name, gate in gates.items():
            masks[name] = np.broadcast_to(kept[name].cpu().numpy(), tensors[name].shape).copy()
            tensors[name] = np.where(masks[name], tensors[name] * gate.cpu().numpy(), np.float32(0))
        return tensors, masks

    def _most_open(self) -> Tensor:
        """(gates,) bool: as many as fit into the share, the earlier ones of equals."""
        order = torch.argsort(self.openness.detach(), descending=True, stable=True)
        filled = self.get_buffer("weights")[order].double().cumsum(0)
        count = int((filled <= round(self.keep * filled[-1].item())).sum())
        kept = torch.zeros(len(order), dtype=torch.bool, device=order.device)
        kept[order[: max(1, count)]] = True
        return kept

    def _split(self, gates: Tensor) -> dict[str, Tensor]:
        """Of (gates,): per weight tensor what can be multiplied with it."""
        parts = torch.split(gates, [math.prod(shape) for shape in self.shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}


def initial_openness(importance: Flat, weights: Flat, keep: float) -> Flat:
    """(gates,): rising with the logarithm of `importance` (gates,), >= 0; in all the share `keep` is open.

    `weights` (gates,) says how many weights each gate has.
    """
    order = np.argsort(importance, kind="stable")
    closed = np.searchsorted(np.cumsum(weights[order]), (1 - keep) * weights.sum())
    levels = np.log(np.maximum(importance, np.finfo(np.float64).tiny))
    openness = (SLOPE * (levels - levels[order[min(closed, len(order) - 1)]])).clip(-MOST, MOST)
    low, high = -2 * MOST, 2 * MOST
    for _ in range(40):
        middle = (low + high) / 2
        density = np.average(1 / (1 + np.exp(SHUT - openness - middle)), weights=weights)
        low, high = (middle, high) if density < keep else (low, middle)
    opened: Flat = openness + middle
    return opened


def _stretched(concrete: Tensor) -> Tensor:
    return (concrete * (HIGHEST - LOWEST) + LOWEST).clamp(0, 1)


def _gates_of(shape: tuple[int, ...], *, rows: bool) -> tuple[int, ...]:
    """Shape of a weight tensor's gates: it can be multiplied with the tensor."""
    return (shape[0], *(1 for _ in shape[1:])) if rows else shape


def _pooled(score: Score, *, rows: bool) -> Flat:
    """Importance per gate: a row counts as much as its weights do on average."""
    flat = score.astype(np.float64).reshape(len(score), -1) if rows else score.astype(np.float64).reshape(-1, 1)
    pooled: Flat = flat.mean(axis=1) if flat.size else np.zeros(len(flat))
    return pooled
