"""A network whose weights are rounded while it learns, with the bits that they will take as a part of its loss.

After Gomes, Azevedo, Schroers: Video Compression with Entropy-Constrained Neural Representations (CVPR 2023), section
3.2, and Kwan, Gao, Zhang, Bull: NVRC (NeurIPS 2024), sections 3.2 and 3.3: learned steps, rate in the loss of every
n-th step. See `RateAwareNetwork` for what differs from both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from framefold.codecs.network import IntTensor, QuantizedTensor
from framefold.codecs.quantizing.steps import EXPONENTS_PER_OCTAVE, MAX_EXPONENT, MIN_EXPONENT, Exponents, step_values
from framefold.codecs.rate.rate_model import estimated_bits
from framefold.codecs.stream.symbol_models import MAX_SYMBOL

EVERY = 4
"""The rate joins the loss of every fourth step, four times over; in every step it costs time and gained nothing."""
HARD_FROM = 0.5
"""Share of the budget after which weights are rounded, no longer blurred by noise, ..."""
PULL = 1.0
"""... and drawn to the symbol they stand at, in the end with the force of the picture itself (h * step**2). Without it
they come to lie on the borders between symbols and flip for ever (Nagel et al. 2022, "Overcoming Oscillations in
Quantization-Aware Training", section 4.1): the picture of a gridnerv then was 0.25 dB worse, and a longer tuning made
it worse still."""
PRICE_TO_SQUARES = 6 / math.log(2)
"""h * step**2 over the price of a bit, for steps that suit the price: see `rate_tuning`."""
EXPONENT_RATE = 0.003
"""Learning rate of the steps, in octaves."""
STEERED = {"bits": (0.0, 0.9), "mse": (0.5, 0.95)}
"""Shares of the budget between which the price of a bit is adapted: not at the very end, since each change of a step
has to be learned anew; to the error not before the learning rate has fallen, for while it is high so is the error."""
GAIN = {"bits": 80.0, "mse": 10.0}
"""Octaves by which the price moves per octave off the target and per whole budget.

The bits move a quarter as far as the price, the error by the share of it that is rounding's (by which its gain is
divided): so a deviation lives for a twentieth and a tenth of the budget.
"""
LEAST_SHARE = 0.03
"""Rounding counts as at least this share of the error: a smaller one would make the gain swing."""
FURTHEST = 3.0
"""Octaves between the first price and any other."""
COUNTED_AT = (0.0, 0.3, 0.6, 0.8)
"""Shares of the budget at which the estimate of the bits is compared with a real stream."""
GROWTH = 4.0
"""By so much the largest weight of a tensor may grow before it is no symbol any more, however fine the steps."""
MEMORY, MEMORY_SHARE = 1 / 32, 0.03
"""What a step adds to the remembered mean squared error: at least this, or its part of this share of the budget."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Where a tensor's values may lie when the tuning begins."""

    exponents: Exponents
    """Of its steps, int32 (parts,); see `steps`."""
    axis: int | None = None
    """Along which each index has its own step; None for one step in all."""
    origin: IntTensor | None = field(default=None, repr=False)
    """Symbols of a parent that will be subtracted; then the steps stay as they are."""


@dataclass(frozen=True, kw_only=True)
class Steering:
    """What the price of a bit is adapted to; with neither it stays as it is."""

    bits: float | None = None
    """Wanted size of the stream."""
    mse: float | None = None
    """Wanted mean squared error, samples 0..1."""


class RateAwareNetwork(nn.Module):
    """Wraps a network: its weights are symbols times steps, and its penalty is price * bits.

    ```
    y = w / step                    the parameters proper, so that what they learn is counted in symbols
      | + noise, later round        straight-through: the gradient passes as if nothing had happened
      | * 2**(exponent / 8)         learned, and in step with the price; always on the grid of the stream
    the network's weights
    ```
    Differences from the papers. Steps begin where the measured sensitivity puts them. Scales are not learned: the
    best one follows from the values. What is rounded is what is stored: even a step that moves by a sixteenth of an
    octave afterwards costs a decibel, since the weights have learned to cancel each other's rounding.
    """

    def __init__(
        self,
        network: nn.Module,
        grids: Mapping[str, Grid],
        *,
        price: float,
        steering: Steering | None = None,
        count: Callable[[Mapping[str, QuantizedTensor]], float] | None = None,
        seed: int = 0,
    ) -> None:
        """`price`: mean squared error (samples 0..1) that one bit is worth; the network's weights become symbols.

        `count` gives the bits of the real stream, by which the estimate is corrected now and then.
        """
        super().__init__()
        self.network = network
        self.grids = grids
        self.steering = steering or Steering()
        self.count = count
        self.seed = seed
        self.names = [name for name, _ in network.named_parameters()]
        self.shifts = nn.ParameterList(
            nn.Parameter(torch.full((grids[name].exponents.size,), _offset(index)), grids[name].origin is None)
            for index, name in enumerate(self.names)
        )
        self.first_log_price = math.log2(price)
        self.log_price = nn.Parameter(torch.tensor(self.first_log_price), requires_grad=False)
        self.seen_mse = nn.Parameter(torch.zeros(()), requires_grad=False)
        self.excess = nn.Parameter(torch.zeros(()), requires_grad=False)
        self.counted = nn.Parameter(torch.zeros(()), requires_grad=False)
        self.step, self.fraction, self.stride = 0, 0.0, 0.0
        self.finest = [_finest(parameter) for parameter in network.parameters()]
        for index, parameter in enumerate(network.parameters()):
            grid = grids[self.names[index]]
            origin = np.zeros((), np.int32) if grid.origin is None else grid.origin
            start = torch.from_numpy(grid.exponents.astype(np.float32))
            self.register_buffer(f"start_{index}", start, persistent=False)
            self.register_buffer(f"origin_{index}", torch.from_numpy(origin.astype(np.float32)), persistent=False)
            steps = torch.from_numpy(step_values(grid.exponents))
            with torch.no_grad():
                parameter.div_(_along(grid, steps.to(parameter.device), parameter.ndim))
                if grid.origin is not None and np.array_equal(parameter.round().cpu().numpy(), grid.origin):
                    parameter.requires_grad_(False)  # it is the parent's own and costs nothing: so it stays

    def begin_step(self, step: int, fraction: float) -> None:
        """Remember where the tuning stands; compare the estimate with a real stream when that is due."""
        self.stride = fraction / max(1, step)
        self.step, self.fraction = step, fraction
        due = sum(fraction >= share for share in COUNTED_AT)
        if self.count is not None and self.steering.bits is not None and due > self.counted:
            with torch.no_grad():
                self.counted.fill_(due)
                self.excess.copy_(torch.log2(self.bits() / self.count(self.quantized())))

    def observe(self, mse: Tensor) -> None:
        """Take note of a step's mean squared error, and adapt the price to it if that is steered by."""
        with torch.no_grad():
            memory = min(1.0, max(MEMORY, self.stride / MEMORY_SHARE))
            first = self.seen_mse == 0
            self.seen_mse.copy_(torch.where(first, mse, torch.lerp(self.seen_mse, mse, memory)))
            if self.steering.mse is not None:
                off = torch.log2(self.steering.mse / self.seen_mse.clamp_min(1e-12))
                self._steer("mse", off / self._share_of_rounding(), 1)

    def forward(self, *inputs: Any) -> Tensor:
        """What the network gives with the rounded weights."""
        picture: Tensor = functional_call(self.network, self._weights(), inputs)
        return picture

    def penalty(self) -> Tensor | None:
        """Price times bits in every `EVERY`-th step; in each, once weights are rounded, what draws them to symbols."""
        pull = self._pull()
        if self.step % EVERY:
            return pull
        bits = self.bits()
        if self.steering.bits is not None:
            with torch.no_grad():
                self._steer("bits", torch.log2(bits / self.steering.bits) - self.excess, EVERY)
        rate = EVERY * torch.exp2(self.log_price) * bits
        return rate if pull is None else rate + pull

    def _pull(self) -> Tensor | None:
        """Squared distances to the nearest symbols, weighed by h * step**2, which the price tells."""
        if self.fraction < HARD_FROM:
            return None
        force = PULL * (self.fraction - HARD_FROM) / (1 - HARD_FROM)
        values = (self._values(index) for index in range(len(self.names)))
        distances = torch.stack([(each - each.detach().round()).square().sum() for each in values]).sum()
        return force * PRICE_TO_SQUARES * torch.exp2(self.log_price) * distances

    def bits(self) -> Tensor:
        """Estimate of what all symbols take; a scalar."""
        generator = self._generator(1)
        bits = [
            estimated_bits(self._noisy(self._values(index) - self._origin(index), generator))
            for index in range(len(self.names))
            if self._parameter(index).numel()
        ]
        return torch.stack(bits).sum()

    def values(self) -> dict[str, Any]:
        """Per tensor its weights in steps, not yet rounded: float32 of its shape."""
        with torch.no_grad():
            return {name: self._values(index).cpu().numpy() for index, name in enumerate(self.names)}

    def quantized(self) -> dict[str, QuantizedTensor]:
        """Per tensor what is stored."""
        return {name: self._quantized(index, values) for index, (name, values) in enumerate(self.values().items())}

    def _quantized(self, index: int, values: Any) -> QuantizedTensor:
        steps = step_values(self._exponents(index).detach().cpu().numpy().astype(np.int32))
        symbols = np.clip(np.rint(values), -MAX_SYMBOL, MAX_SYMBOL).astype(np.int32)
        return QuantizedTensor(symbols=symbols, steps=steps, axis=self.grids[self.names[index]].axis or 0)

    def _weights(self) -> dict[str, Tensor]:
        blurred = self.training and self.fraction < HARD_FROM
        generator = self._generator(0) if blurred else None
        weights = {}
        for index, name in enumerate(self.names):
            values = self._values(index)
            symbols = self._noisy(values, generator) if generator else _rounded(values)
            steps = torch.exp2(self._exponents(index) / EXPONENTS_PER_OCTAVE)
            weights[name] = symbols * _along(self.grids[name], steps, values.ndim)
        return weights

    def _values(self, index: int) -> Tensor:
        """A tensor's weights in its present steps."""
        parameter, grid = self._parameter(index), self.grids[self.names[index]]
        shrunk = torch.exp2((self._start(index) - self._exponents(index)) / EXPONENTS_PER_OCTAVE)
        return parameter * _along(grid, shrunk, parameter.ndim)

    def _exponents(self, index: int) -> Tensor:
        """The tensor's step exponents, whole numbers; the gradient passes on to their shifts."""
        start = self._start(index)
        if self.grids[self.names[index]].origin is not None:
            return start
        dearer = 0.5 * (self.log_price - self.first_log_price)  # squared steps grow with the price
        wanted = _rounded(start + EXPONENTS_PER_OCTAVE * (self.shifts[index] + dearer))
        return wanted.clamp(self.finest[index], MAX_EXPONENT)

    def _parameter(self, index: int) -> Tensor:
        return self.network.get_parameter(self.names[index])

    def _start(self, index: int) -> Tensor:
        return self.get_buffer(f"start_{index}")

    def _origin(self, index: int) -> Tensor:
        return self.get_buffer(f"origin_{index}")

    def _share_of_rounding(self) -> Tensor:
        """About how much of the squared error comes from rounding, LEAST_SHARE .. 1."""
        weights = sum(parameter.numel() for parameter in self.network.parameters())
        rounding = weights * PRICE_TO_SQUARES * torch.exp2(self.log_price) / 12
        return (rounding / self.seen_mse.clamp_min(1e-12)).clamp(LEAST_SHARE, 1)

    def _steer(self, goal: Literal["bits", "mse"], octaves_off: Tensor, steps: int) -> None:
        """Adapt the price of a bit to how far off the goal the network was in these steps."""
        begin, end = STEERED[goal]
        if begin <= self.fraction < end:
            change = (GAIN[goal] * steps * self.stride * octaves_off).clamp(-0.2, 0.2)
            nearest, furthest = self.first_log_price - FURTHEST, self.first_log_price + FURTHEST
            self.log_price.add_(change).clamp_(nearest, furthest)

    def _generator(self, use: int) -> torch.Generator:
        return torch.Generator().manual_seed(2 * (self.step + 1_000_003 * self.seed) + use)

    def _noisy(self, values: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.rand(values.shape, generator=generator).sub_(0.5)
        return values + noise.to(values.device)


def _along(grid: Grid, parts: Tensor, ndim: int) -> Tensor:
    """Give (parts,) the axes that multiply a tensor of `ndim` axes."""
    shape = [1] * ndim
    if grid.axis is not None:
        shape[grid.axis] = -1
    return parts.view(shape)


def _finest(parameter: Tensor) -> int:
    """The smallest exponent with which a tensor's largest value, grown, is a symbol: beyond it values would be cut."""
    peak = float(parameter.detach().abs().max()) if parameter.numel() else 0.0
    if peak == 0:
        return MIN_EXPONENT
    return max(MIN_EXPONENT, math.ceil(EXPONENTS_PER_OCTAVE * math.log2(GROWTH * peak / MAX_SYMBOL)))


def _offset(index: int) -> float:
    """Octaves, within half a place on the grid: so that steps which follow the price do not all change at once."""
    return ((index * 0.618) % 1 - 0.5) / EXPONENTS_PER_OCTAVE


def _rounded(values: Tensor) -> Tensor:
    """Nearest whole numbers; the gradient is that of the values (Bengio, Léonard, Courville 2013)."""
    return values + (values.round() - values).detach()
