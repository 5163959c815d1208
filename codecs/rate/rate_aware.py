"""A network whose weights are rounded while it learns, with the bits that they will take as a part of its loss.

After Gomes, Azevedo, Schroers: Video Compression with Entropy-Constrained Neural Representations (CVPR 2023), section
3.2, and Kwan, Gao, Zhang, Bull: NVRC (NeurIPS 2024), sections 3.2 and 3.3: learned steps, rate in the loss of every
n-th step. See `RateAwareNetwork` for what differs from both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from framefold.codecs.fitting import cycle_at
from framefold.codecs.network import FloatTensor, IntTensor, QuantizedTensor
from framefold.codecs.quantizing.steps import EXPONENTS_PER_OCTAVE, MAX_EXPONENT, MIN_EXPONENT, Exponents, step_values
from framefold.codecs.rate.rate_model import estimated_bits
from framefold.codecs.stream.symbol_models import MAX_SYMBOL

EVERY = 4
"""The rate joins the loss of every fourth step, four times over; in every step it costs time and gained nothing."""
RESTARTS = (0.5, 0.8)
"""Shares of the budget at which the learning rate begins once more, lower, if the picture has a goal. Only here
is the price adapted to its error: while the rate is high the error is far above what it will be, and a price that
followed it made a gridnerv of 113 k weights 13 % larger at the same quality."""
EXPECTED_DB = (0.05, 0.02)
"""What the picture gains after each of them."""
HARD_FROM = (0.6, 0.3, 0.0)
"""Share of each part of the budget between restarts after which weights are rounded, no longer blurred by noise, ..."""
PULL = 1.0
"""... and drawn to the symbol they stand at, in the end with the force of the picture itself (h * step**2). Without it
they come to lie on the borders between symbols and flip for ever (Nagel et al. 2022, "Overcoming Oscillations in
Quantization-Aware Training", section 4.1): the picture of a gridnerv then was 0.25 dB worse, and a longer tuning made
it worse still."""
PRICE_TO_SQUARES = 6 / math.log(2)
"""h * step**2 over the price of a bit, for steps that suit the price: see `rate_tuning`."""
EXPONENT_RATE = 0.003
"""Learning rate of the steps, in octaves."""
STEERED_UNTIL = 0.9
"""Share of the budget up to which the price of a bit is adapted to the bits: each change of a step has to be learned
anew."""
GAIN = 80.0
"""Octaves by which the price then moves per octave off the target and per whole budget: as the bits move a quarter as
far as the price, a deviation lives for a twentieth of the budget."""
LARGEST_CORRECTION = 1.5
"""Octaves by which the price may change at a restart."""
FURTHEST = 3.0
"""Octaves between the first price and any other."""
COUNTED_AT = (0.0, 0.3, 0.6, 0.8)
"""Shares of the budget at which the estimate of the bits is compared with a real stream."""
GROWTH = 4.0
"""By so much the largest weight of a tensor may grow before it is no symbol any more, however fine the steps."""


Measure = Callable[[Mapping[str, QuantizedTensor]], float]
"""What is measured of the network as it would be stored."""


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
        count: Measure | None = None,
        judge: Measure | None = None,
        rounds: bool = True,
        seed: int = 0,
    ) -> None:
        """`price`: mean squared error (samples 0..1) that one bit is worth; the network's weights become symbols.

        `count` gives the bits of the real stream, by which the estimate is corrected now and then, `judge` the mean
        squared error of the real picture. Without `rounds` weights are blurred to the end: something else rounds them.
        """
        super().__init__()
        self.network = network
        self.grids = grids
        self.steering = steering or Steering()
        self.count, self.judge = count, judge
        self.rounds = rounds
        self.restarts = RESTARTS if rounds and self.steering.mse is not None else ()
        """Where the learning rate is to begin once more."""
        self.seed = seed
        self.names = [name for name, _ in network.named_parameters()]
        self.shifts = nn.ParameterList(
            nn.Parameter(torch.full((grids[name].exponents.size,), _offset(index)), grids[name].origin is None)
            for index, name in enumerate(self.names)
        )
        self.first_log_price = math.log2(price)
        self.log_price = nn.Parameter(torch.tensor(self.first_log_price), requires_grad=False)
        self.judged = nn.Parameter(torch.zeros(()), requires_grad=False)
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
        """Remember where the tuning stands; compare estimates with a real stream and picture when that is due."""
        self.stride = fraction / max(1, step)
        self.step, self.fraction = step, fraction
        due = sum(fraction >= share for share in COUNTED_AT)
        if self.count is not None and self.steering.bits is not None and due > self.counted:
            with torch.no_grad():
                self.counted.fill_(due)
                self.excess.copy_(torch.log2(self.bits() / self.count(self.quantized())))
        cycle, _ = cycle_at(fraction, self.restarts)
        if self.judge is not None and self.steering.mse is not None and cycle > self.judged:
            with torch.no_grad():
                self.judged.fill_(cycle)
                wanted = self.steering.mse * 10 ** (EXPECTED_DB[cycle - 1] / 10)
                self._correct(wanted, self.judge(self.quantized()))

    def forward(self, *inputs: Any) -> Tensor:
        """What the network gives with the rounded weights."""
        picture: Tensor = functional_call(self.network, self._weights_in_use(), inputs)
        return picture

    def penalty(self) -> Tensor | None:
        """Price times bits in every `EVERY`-th step; in each, once weights are rounded, what draws them to symbols."""
        pull = self._pull()
        if self.step % EVERY:
            return pull
        bits = self.bits()
        if self.steering.bits is not None:
            with torch.no_grad():
                self._steer(torch.log2(bits / self.steering.bits) - self.excess)
        rate = EVERY * torch.exp2(self.log_price) * bits
        return rate if pull is None else rate + pull

    def _pull(self) -> Tensor | None:
        """Squared distances to the nearest symbols, weighed by h * step**2, which the price tells."""
        hardness = self._hardness()
        if hardness is None:
            return None
        force = PULL * hardness
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

    def weights(self) -> dict[str, FloatTensor]:
        """The network's weights as they are, not rounded: float32 of their shapes."""
        with torch.no_grad():
            return {
                name: self._weight(index, self._values(index)).cpu().numpy() for index, name in enumerate(self.names)
            }

    def quantized(self) -> dict[str, QuantizedTensor]:
        """Per tensor what is stored."""
        return {name: self._quantized(index, values) for index, (name, values) in enumerate(self.values().items())}

    def _quantized(self, index: int, values: Any) -> QuantizedTensor:
        steps = step_values(self._exponents(index).detach().cpu().numpy().astype(np.int32))
        symbols = np.clip(np.rint(values), -MAX_SYMBOL, MAX_SYMBOL).astype(np.int32)
        return QuantizedTensor(symbols=symbols, steps=steps, axis=self.grids[self.names[index]].axis or 0)

    def _weights_in_use(self) -> dict[str, Tensor]:
        blurred = self.training and self._hardness() is None
        generator = self._generator(0) if blurred else None
        weights = {}
        for index, name in enumerate(self.names):
            values = self._values(index)
            weights[name] = self._weight(index, self._noisy(values, generator) if generator else _rounded(values))
        return weights

    def _weight(self, index: int, values: Tensor) -> Tensor:
        steps = torch.exp2(self._exponents(index) / EXPONENTS_PER_OCTAVE)
        return values * _along(self.grids[self.names[index]], steps, values.ndim)

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

    def _hardness(self) -> float | None:
        """How far the rounding has come in this part of the budget, 0..1; None while weights are blurred."""
        cycle, share = cycle_at(self.fraction, self.restarts)
        hard_from = HARD_FROM[cycle]
        return (share - hard_from) / (1 - hard_from) if self.rounds and share >= hard_from else None

    def _correct(self, wanted: float, mse: float) -> None:
        """Adapt the price to what rounding may add to the error: what it adds now is in proportion to the price."""
        weights = sum(parameter.numel() for parameter in self.network.parameters())
        added = weights * PRICE_TO_SQUARES * 2 ** float(self.log_price) / 12
        octaves = math.log2(max(added + wanted - mse, 1e-3 * added) / added)
        self._move_price(min(max(octaves, -LARGEST_CORRECTION), LARGEST_CORRECTION))

    def _steer(self, octaves_off: Tensor) -> None:
        """Adapt the price of a bit to how far off the goal the bits were in the last `EVERY` steps."""
        if self.fraction < STEERED_UNTIL:
            self._move_price((GAIN * EVERY * self.stride * octaves_off).clamp(-0.2, 0.2))

    def _move_price(self, octaves: Tensor | float) -> None:
        nearest, furthest = self.first_log_price - FURTHEST, self.first_log_price + FURTHEST
        self.log_price.add_(octaves).clamp_(nearest, furthest)

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
