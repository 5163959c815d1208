"""Fits a pyramid of latents with their rounding and their bits in the loss from the first step on.

After Kim et al.: C3 (CVPR 2024), section 3.2, and Kwan et al.: NVRC (NeurIPS 2024), sections 3.2 and 3.3.

```
nodes (in steps) --- round ------- * step ---.
   |                                          >-- decoder --> picture --> mean squared error --.
weights --- / step, round, * step -----------'                                                  >-- loss
   |                                                                                           |
   '-- + noise --> bits, told from neighbours in space and time --> * price of a bit ----------'
```
See `RateFirst` for what differs from the papers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from framefold.codecs.base import FitSettings, RateSettings, RateTuning
from framefold.codecs.clip import Clip
from framefold.codecs.fit_state import Kind, own_state, state_of
from framefold.codecs.fitting import FitPlan, fit, schedule
from framefold.codecs.metrics import psnr
from framefold.codecs.network import FloatTensor, QuantizedTensor, SymbolTensors
from framefold.codecs.quantizing.steps import EXPONENTS_PER_OCTAVE, MAX_EXPONENT, MIN_EXPONENT, step_values
from framefold.codecs.rate.laplace_rate import SpaceTimeRate
from framefold.codecs.rate.rate_model import estimated_bits
from framefold.codecs.rate.rate_tuning import SURPLUS_DB
from framefold.codecs.rate.trim import Trim
from framefold.codecs.stream import bitstream
from framefold.codecs.stream.symbol_models import MAX_SYMBOL

if TYPE_CHECKING:
    from framefold.codecs.blocks import TimeGrid
    from framefold.codecs.pyramid import Pyramid, PyramidConfig, PyramidNetwork

BIT_PRICE = 300.0
"""Unless the user says otherwise, and with a target at first: see `RateSettings`."""
CHECKED_AT = (0.25, 0.4, 0.52, 0.62, 0.7, 0.77, 0.83, 0.88, 0.92)
"""Shares of the budget at which the price is corrected by what the stream would be, if it has a target."""
PRICE_PER_RATE, PRICE_PER_ERROR = 1.7, 2.4
"""Octaves of the price per octave of the bytes, and of the squared error: assumes that this falls as bytes**-0.7."""
LARGEST_CORRECTION = 2.0
"""Octaves."""
LEAST_RESPONSE = 0.25
"""The lower the learning rate, the less is left to follow the price: corrections grow by its root, up to fourfold."""
SURPLUS = 1.03
"""What is aimed at, of wanted bytes: after the last correction a stream shrinks a little, as it does by trimming."""
HALF_UNTIL = 0.8
"""Share of the budget in which the decoder works with bfloat16 where there are units for it: there a convolution takes
a quarter of the time. The rest of the budget is for what its rounding spoiled."""
LATENT_EXPONENT = -27
"""Of a latent's step at first, 0.096."""
WEIGHT_EXPONENT = -48
"""Of a weight's step at first, 2**-6."""
LATENT_RATE = 0.4
"""Learning rate of latents that are seen once an epoch, in steps; others learn slower by the root of how often."""
FLOOR = 1.0
"""Share of the mean squared gradient of all of a grid's latents that joins each one's own: see `FloorAdam`. Where
nothing moves gradients are but noise, which Adam alone blows up until it fills the grid with symbols."""
LEAST_FLOOR = 0.02
STEP_RATE = 0.003
"""Learning rate of steps, in octaves, ..."""
CURVE_RATE = 0.03
"""... and of what foretells latents."""
SEEN_EVERY = 2
"""The bits of the nodes that are seen join the loss of every n-th step, n times over, ..."""
STILL_NODES, STILL_EVERY = 8, 8
"""... those of all nodes, where a grid has fewer than so many, of other ones, ..."""
WEIGHTS_EVERY = 8
"""... and the weights' of others again: many small operations, which took a third of the time ..."""
LEARN_EVERY = 10
"""... as do those from which the curves learn. All are multiples of the first."""


OctavesOff = Callable[[Mapping[str, QuantizedTensor]], float]
"""By how many octaves the price of a bit should rise, judged by what would be stored."""


class LearnedSteps(nn.Module):
    """Steps on the stream's grid, eight to an octave; the gradient passes on to their shifts, in octaves."""

    def __init__(self, first: int, count: int = 1) -> None:
        super().__init__()
        self.first = first
        self.shifts = nn.Parameter(torch.zeros(count))

    def forward(self) -> Tensor:
        """(count,) float32."""
        return torch.exp2(self._exponents() / EXPONENTS_PER_OCTAVE)

    def stored(self) -> FloatTensor:
        """The same as a stream will have them."""
        return step_values(self._exponents().detach().cpu().numpy().astype(np.int32))

    def _exponents(self) -> Tensor:
        return rounded(self.first + EXPONENTS_PER_OCTAVE * self.shifts).clamp(MIN_EXPONENT, MAX_EXPONENT)


class LatentGrid(nn.Module):
    """The nodes of one `TimeGrid` on their way, in steps: only those that a frame needs are touched."""

    def __init__(self, grid: TimeGrid) -> None:
        super().__init__()
        nodes, *shape = grid.maps.shape
        self.nodes = nn.ParameterList(nn.Parameter(torch.zeros(shape)) for _ in range(nodes))
        self.rate = SpaceTimeRate()
        self.nodes_per_frame = grid.nodes_per_frame
        self.steps = LearnedSteps(LATENT_EXPONENT, shape[0])

    def at(self, frame: int) -> Tensor:
        """Features of a frame, (C, h, w), from rounded nodes."""
        left, share = self._place(frame)
        value: Tensor = rounded(self.nodes[left]) * (1 - share)
        if share:
            value = value + rounded(self.nodes[left + 1]) * share
        features: Tensor = value * self.steps().view(-1, 1, 1)
        return features

    def visited_bits(self, frame: int, number: int, generator: torch.Generator) -> Tensor | float:
        """Estimate of the whole grid's bits from the node that the frame sees, or all of few, now and then."""
        count = len(self.nodes)
        if count >= STILL_NODES:
            return SEEN_EVERY * count * self._bits(self._place(frame)[0], generator)
        if number % STILL_EVERY:
            return 0.0
        return STILL_EVERY * torch.stack([self._bits(node, generator) for node in range(count)]).sum()

    def learning_bits(self, node: int, generator: torch.Generator) -> Tensor:
        """The bits of a node as a function of the curves' parameters, times the number of nodes."""
        return len(self.nodes) * self.rate.learning_bits(*self._noisy(node, generator))

    def _place(self, frame: int) -> tuple[int, float]:
        """The node at or before a frame, and how far on to the next one it is."""
        position = frame * self.nodes_per_frame
        left = min(int(position), len(self.nodes) - 1)
        share = position - left
        return left, share if share > 1e-6 and left + 1 < len(self.nodes) else 0.0

    def _bits(self, node: int, generator: torch.Generator) -> Tensor:
        return self.rate.bits(*self._noisy(node, generator))

    def _noisy(self, node: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A node with noise, and the one before it, rounded; zeros before the first."""
        values = self.nodes[node]
        noisy = values + torch.rand(values.shape, generator=generator).sub_(0.5).to(values.device)
        before = self.nodes[node - 1].detach().round() if node else torch.zeros_like(noisy)
        return noisy, before


class RateFirst(nn.Module):
    """A pyramid that learns what it will be stored as: its penalty is price * bits.

    Differences from C3. The picture is that of rounded latents throughout, by the straight-through estimator, while
    the rate keeps its noise to the end: in a trial before this one, rounding both of a sudden multiplied the rate by
    five. The decoder's weights learn in the same way and together with the latents, as in NVRC.
    """

    def __init__(
        self, network: PyramidNetwork, *, price: float, octaves_off: OctavesOff | None = None, seed: int = 0
    ) -> None:
        """`price`: mean squared error (samples 0..1) that one bit is worth; `octaves_off` says how wrong it is."""
        super().__init__()
        self.grids = nn.ModuleList(nn.ModuleList(LatentGrid(grid) for grid in grids) for grids in network.time_grids())
        self.decoder = network.decoder
        self.crop = network.crop
        self.steps = nn.ModuleList(LearnedSteps(WEIGHT_EXPONENT) for _ in self.decoder.parameters())
        self.log_price = nn.Parameter(torch.tensor(math.log2(price)), requires_grad=False)
        self.checked = nn.Parameter(torch.zeros(()), requires_grad=False)
        self.bits = nn.Parameter(torch.zeros(()), requires_grad=False)
        """Estimate of the latents' bits, smoothed, for display: the stream's contexts will make less of them."""
        self.octaves_off = octaves_off
        self.seed = seed
        self.number, self.fraction = 0, 0.0
        self.frames: list[int] = []

    def begin_step(self, step: int, fraction: float) -> None:
        """Remember the number of the step, from which all noise follows; correct the price when that is due."""
        self.number, self.fraction = step, fraction
        due = sum(fraction >= share for share in CHECKED_AT)
        if self.octaves_off is not None and due > self.checked:
            octaves = self.octaves_off(self.quantized()) / max(LEAST_RESPONSE, schedule(fraction, 0.0) ** 0.5)
            with torch.no_grad():
                self.checked.fill_(due)
                self.log_price.add_(min(max(octaves, -LARGEST_CORRECTION), LARGEST_CORRECTION))

    def forward(self, indices: Tensor) -> Tensor:
        """LongTensor (B,) -> (B, C, H, W), drawn by what would be stored."""
        self.frames = indices.tolist()
        features = [self._features(grids) for grids in self.grids]
        with self._precision(indices.device):
            picture: Tensor = functional_call(self.decoder, self._rounded_weights(), (features,))
        return self.crop(picture.float())

    def penalty(self) -> Tensor | None:
        """Price times an estimate of the bits; every so often the curves learn, by a penalty of theirs."""
        if self.number % SEEN_EVERY:
            return None
        generator = torch.Generator().manual_seed(self.number + 1_000_003 * self.seed)
        bits = self._latent_bits(generator)
        with torch.no_grad():
            self.bits.lerp_(bits / SEEN_EVERY, 0.02 if self.number > 100 else 0.5)
        if self.number % WEIGHTS_EVERY == 0:
            bits = bits + WEIGHTS_EVERY * self._weight_bits(generator)
        if self.number % LEARN_EVERY == 0:
            bits = bits + self._learning_bits(generator)
        return torch.exp2(self.log_price) * bits

    def quantized(self) -> dict[str, QuantizedTensor]:
        """Per tensor of the network what is stored, in the network's order."""
        steps = [grid.steps.stored() for _, grid in self.named_grids()]
        steps += [own.stored() for own in self.steps.children() if isinstance(own, LearnedSteps)]
        values = self.values().items()
        return {name: _quantized(tensor, own) for (name, tensor), own in zip(values, steps, strict=True)}

    def values(self) -> dict[str, FloatTensor]:
        """Per tensor what `quantized` rounds: in steps, float32 of its shape."""
        with torch.no_grad():
            latents = {
                f"grids.{name}.maps": torch.stack(list(grid.nodes)).cpu().numpy() for name, grid in self.named_grids()
            }
            weights = {
                f"decoder.{name}": (weight / self._step(index)).cpu().numpy()
                for index, (name, weight) in enumerate(self.decoder.named_parameters())
            }
        return latents | weights

    def _features(self, grids: nn.Module) -> Tensor:
        own: list[LatentGrid] = list(grids.children())  # type: ignore[arg-type]
        features = torch.stack([torch.cat([grid.at(frame) for grid in own]) for frame in self.frames])
        return features.contiguous(memory_format=torch.channels_last)

    def _precision(self, device: torch.device) -> torch.autocast:
        """Half of it while the picture is far from done, where that is faster."""
        half = self.training and self.fraction < HALF_UNTIL and halves_are_fast(device)
        return torch.autocast(device.type, torch.bfloat16, enabled=half)

    def named_grids(self) -> list[tuple[str, LatentGrid]]:
        """All grids, each by its two numbers."""
        return [(f"{i}.{j}", grid) for i, grids in enumerate(self.grids) for j, grid in enumerate(grids.children())]  # type: ignore[misc]

    def _latent_bits(self, generator: torch.Generator) -> Tensor:
        bits = torch.zeros((), device=self.log_price.device)
        for _, grid in self.named_grids():
            for frame in self.frames:
                bits = bits + grid.visited_bits(frame, self.number, generator) / len(self.frames)
        return bits

    def _learning_bits(self, generator: torch.Generator) -> Tensor:
        drawn = torch.rand(len(self.named_grids()), generator=generator).tolist()
        bits = [
            grid.learning_bits(int(share * len(grid.nodes)), generator)
            for share, (_, grid) in zip(drawn, self.named_grids(), strict=True)
        ]
        return torch.stack(bits).sum()

    def _weight_bits(self, generator: torch.Generator) -> Tensor:
        bits = []
        for index, weight in enumerate(self.decoder.parameters()):
            noise = torch.rand(weight.shape, generator=generator).sub_(0.5).to(weight.device)
            bits.append(estimated_bits(weight / self._step(index) + noise))
        return torch.stack(bits).sum()

    def _rounded_weights(self) -> dict[str, Tensor]:
        weights = {}
        for index, (name, weight) in enumerate(self.decoder.named_parameters()):
            step = self._step(index)
            weights[name] = rounded(weight / step) * step
        return weights

    def _step(self, index: int) -> Tensor:
        step: Tensor = self.steps[index]()
        return step


def halves_are_fast(device: torch.device) -> bool:
    """Whether a device multiplies matrices of bfloat16 faster than of float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_amx_tile_supported())


def rounded(values: Tensor) -> Tensor:
    """Nearest whole numbers; the gradient is that of the values (Bengio, Léonard, Courville 2013)."""
    return values + (values.round() - values).detach()


def _quantized(values: FloatTensor, steps: FloatTensor) -> QuantizedTensor:
    """Symbols of values in their steps; several steps are those of the channels of a grid, axis 1."""
    symbols = np.clip(np.rint(values), -MAX_SYMBOL, MAX_SYMBOL).astype(np.int32)
    return QuantizedTensor(symbols=symbols, steps=steps, axis=1 if steps.size > 1 else 0)


@dataclass(frozen=True, kw_only=True)
class RateFirstFit:
    """How a clip becomes symbols at once."""

    codec: Pyramid
    config: PyramidConfig
    """Resolved."""
    clip: Clip
    rate: RateSettings
    kind: Kind
    """Labels the states."""

    def run(self, settings: FitSettings) -> RateTuning:
        """Fit, and trim to the target; ValueError if `settings.resume` is the state of other work."""
        run = own_state(settings.resume, self.kind)
        span, target = self.clip.span, self.rate.target
        price = replace(self.rate, bit_price=self.rate.bit_price or BIT_PRICE).price(span)
        judge = partial(self._octaves_off, device=settings.device) if target else None
        latent = RateFirst(self._network(settings.seed), price=price or 0, octaves_off=judge, seed=settings.seed)
        plan = _plan(self.codec.plan(self.config, span.shape).overridden(settings), latent, span.frame_count)
        for progress in fit(latent, self.clip.frames, plan, pixels=self.clip.pixels, resume=run):
            yield replace(progress, bits=latent.bits.item(), state=partial(state_of, progress, self.kind))
        tuned, values = self._symbols(latent.quantized()), latent.values()
        trim = Trim(tuned=tuned, values=values, origins=dict.fromkeys(values))
        return tuned if target is None else (yield from trim.to(target, self.codec, settings.device))

    def _octaves_off(self, tensors: Mapping[str, QuantizedTensor], *, device: str) -> float:
        symbols, target = self._symbols(tensors), self.rate.target
        if target is None:
            return 0.0
        weights = sum(tensor.symbols.size for tensor in tensors.values())
        if (wanted := target.bytes_for(self.clip.span, weights)) is not None:
            size = len(bitstream.encode(symbols, rules=self.codec.context_rule))
            return PRICE_PER_RATE * math.log2(size / (SURPLUS * wanted))
        frames = self.codec.reconstruct(symbols.dequantize(), device=device).frames
        surplus_db = psnr(frames, self.clip.frames, self.clip.pixels) - target.value - SURPLUS_DB
        return PRICE_PER_ERROR * surplus_db / (10 * math.log10(2))

    def _network(self, seed: int) -> PyramidNetwork:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            return self.codec.build(self.config, self.clip.span.shape)

    def _symbols(self, tensors: Mapping[str, QuantizedTensor]) -> SymbolTensors:
        return SymbolTensors(
            span=self.clip.span,
            codec=self.codec.name,
            config=self.config.model_dump(mode="json"),
            tensors=tensors,
            target=self.clip,
        )


def _plan(plan: FitPlan, latent: RateFirst, frames: int) -> FitPlan:
    """Latents learn at their own rate, the slower the more often they are seen."""
    rates, floors = {"steps.": STEP_RATE / plan.learning_rate}, {}
    for name, grid in latent.named_grids():
        seen = len(grid.nodes) / frames
        rates[f"grids.{name}.nodes."] = LATENT_RATE * math.sqrt(seen) / plan.learning_rate
        rates[f"grids.{name}.steps."] = STEP_RATE / plan.learning_rate
        rates[f"grids.{name}.rate."] = CURVE_RATE / plan.learning_rate
        floors[f"grids.{name}.nodes."] = FLOOR * max(seen, LEAST_FLOOR)
    return replace(plan, rate_factors=rates, floors=floors, warm_up=0.02, clip_norm=None)
