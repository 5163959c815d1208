"""Post-training quantization at any rate: steps shared out by sensitivity, symbols weighed against their bits.

Let h be how much each weight moves the picture (`sensitivity`). A step s adds about h * s**2 / 12 per weight to the
mean squared error and saves one bit per weight and octave; so bits are best shared out when every tensor has the
same h * s**2: s = 2**fineness / sqrt(h) (reverse water-filling; for networks the mixed precision of NeuroQuant,
arXiv 2502.11729, found there by search). Within a tensor each row or each column gets a step of its own where that
saves more than the steps cost. At a given step the symbols are chosen by `rounding` or `trellis`.

On a gridnerv of 113 k weights, 33.53 dB before, all in the same coder: one precision of 5 bits gives 32.13 dB in
58,723 bytes, steps by sensitivity 32.28 dB in 56,121; at 4 bits 30.10 dB in 47,419 against 30.68 dB in 45,685.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from framefold.codecs.network import FittedNetwork, FloatTensor, IntTensor, QuantizedTensor, SymbolTensors
from framefold.codecs.quantizing.curvature import Matrix
from framefold.codecs.quantizing.joint_rounding import JointRounding
from framefold.codecs.quantizing.parent_steps import on_parents_grid
from framefold.codecs.quantizing.quantize import check_finite
from framefold.codecs.quantizing.rounding import entropy_constrained_uniform
from framefold.codecs.quantizing.steps import EXPONENTS_PER_OCTAVE, MAX_EXPONENT, MIN_EXPONENT, Exponents, step_values
from framefold.codecs.quantizing.trellis import entropy_constrained
from framefold.codecs.rate.rate_model import estimated_bits
from framefold.codecs.stream.symbol_models import MAX_SYMBOL

if TYPE_CHECKING:
    from framefold.codecs.base import Codec

Rounding = Literal["nearest", "rate", "trellis", "joint"]
"""The nearest symbol; the cheaper of near ones; the cheapest path through two interleaved grids; all weights together,
each taking over the error of those before it."""

LONGEST_KERNEL = 8
"""A tensor of three and more axes whose last one is longer is a map of features, not a kernel."""
FLOOR = 1e-3
"""Weights that seem to move nothing count as if they did by at least this share of the tensor's mean."""
HELD = 1e6
"""In the trellis, what is exactly zero weighs so many times as much as any other weight."""
STEP_BITS = 4.0
"""What a further step costs in the stream, about."""

_Rows = npt.NDArray[np.float64]


LEAST_PATHS, LONGEST_PATH = 12, 2000
"""Rows and columns of a matrix on the trellis: few long paths would have to be decoded symbol by symbol."""


class _Way(NamedTuple):
    """How a tensor's values become symbols."""

    rounding: Rounding
    shift: float = 0.0
    """Octaves by which its steps are coarser (above 0) than those of plain rounding."""
    rate_weight: float = 0.0
    """Squared steps per bit."""


GENTLE = _Way("rate", 0.0, 0.04)
"""For maps, whose neighbours foretell them: the coder gains more from that than rounding can."""
FIRM = _Way("rate", 0.25, 0.08)
PATHS = _Way("trellis", -0.6, 0.3)
"""At equal slope of error over bits the trellis has steps of 0.66 of the uniform ones.

Measured on a gridnerv at 28, 29.5 and 31 dB, real bytes: plain rounding 29,757, 34,112, 40,185; FIRM with a shift of
0.2 octave 28,715, 33,583, 39,931, with 0.4 28,685, 33,368, 39,757; the trellis 27,921, 32,588, 38,883.
"""


class _Split(NamedTuple):
    """How a tensor is divided among steps."""

    axis: int | None
    """None: one step for all of it."""
    weight: _Rows
    """Mean sensitivity of each part, float64 (parts,)."""


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """A network and how bits are shared out among its weights; measured once, good for any rate."""

    network: FittedNetwork
    importance: Mapping[str, FloatTensor] = field(repr=False)
    """Per weight h > 0, float32."""
    splits: Mapping[str, _Split] = field(repr=False)
    joint: JointRounding | None = field(default=None, repr=False)
    """For the rounding of that name; then importance is what it says of the weights."""

    @classmethod
    def measured(cls, codec: Codec, network: FittedNetwork, *, jointly: bool = True, device: str = "cpu") -> Allocation:
        """Share out by what the weights do to the picture: all together where the codec can say and that is wanted."""
        curvature = codec.curvature(network, device=device) if jointly else None
        if curvature is not None:
            return cls.together(network, curvature)
        return cls.of(network, codec.sensitivity(network, device=device))

    @classmethod
    def together(cls, network: FittedNetwork, curvature: Matrix) -> Allocation:
        """Share out by the Gauss-Newton matrix (see `curvature`) of all weights; errors are those of `of`."""
        check_finite(network.tensors)
        joint = JointRounding.of(network.tensors, curvature, first=_known(network))
        return replace(cls.of(network, joint.free), joint=joint)

    @property
    def best_rounding(self) -> Rounding:
        """The one that gives most for its time."""
        return "joint" if self.joint else "rate"

    @classmethod
    def of(cls, network: FittedNetwork, sensitivity: Mapping[str, FloatTensor] | None) -> Allocation:
        """Share out by `sensitivity`; None: a tensor's step is proportional to its standard deviation.

        ValueError names a tensor with NaN or infinity, and one whose sensitivity is missing, of another shape, negative
        or not finite.
        """
        check_finite(network.tensors)
        given = _by_spread(network.tensors) if sensitivity is None else sensitivity
        for name, tensor in network.tensors.items():
            if name not in given or given[name].shape != tensor.shape:
                raise ValueError(f"tensor {name!r} has no sensitivity of its shape {tensor.shape}, one for each weight")
            if not (np.isfinite(given[name]) & (given[name] >= 0)).all():
                raise ValueError(
                    f"the sensitivity of tensor {name!r} is negative, NaN or infinite; allowed is 0 and more"
                )
        importance = {name: _smoothed(given[name]) for name in network.tensors}
        return cls(
            network=network,
            importance=importance,
            splits={name: _split(each) for name, each in importance.items()},
        )

    @property
    def weights(self) -> int:
        """Parameters of the network."""
        return sum(tensor.size for tensor in self.network.tensors.values())

    def fineness_for(self, mse: float) -> float:
        """Give the fineness at which rounding adds about `mse` (> 0, samples 0..1) to the mean squared error."""
        return 0.5 * float(np.log2(12 * mse / max(1, self.weights)))

    def exponents(self, name: str, fineness: float) -> Exponents:
        """Step exponents (see `steps`) of a tensor at a fineness; int32 (parts,)."""
        octaves = fineness - 0.5 * np.log2(self.splits[name].weight)
        wanted = np.rint(EXPONENTS_PER_OCTAVE * octaves)
        return np.maximum(np.clip(wanted, MIN_EXPONENT, MAX_EXPONENT).astype(np.int32), self._coarse_enough(name))

    def _coarse_enough(self, name: str) -> int:
        """The smallest exponent with which the tensor's largest value is a symbol."""
        peak = float(np.abs(self.network.tensors[name]).max(initial=0.0))
        if peak == 0:
            return MIN_EXPONENT
        return max(MIN_EXPONENT, int(np.ceil(EXPONENTS_PER_OCTAVE * np.log2(peak / (MAX_SYMBOL - 2)) + 1e-6)))

    def at(self, fineness: float, *, rounding: Rounding = "rate") -> SymbolTensors:
        """Quantize: `fineness` is log2 of a scale that all steps share, and the smaller the finer.

        ValueError for joint rounding without a curvature of all weights.
        """
        tensors = {
            name: self.on_parents_grid(name, fineness) or self._quantized(name, fineness, rounding)
            for name in self.network.tensors
        }
        return self.network.as_symbols(self._jointly(tensors) if rounding == "joint" else tensors)

    def _jointly(self, tensors: Mapping[str, QuantizedTensor]) -> dict[str, QuantizedTensor]:
        """The same steps, all weights rounded together."""
        if self.joint is None:
            raise ValueError("joint rounding needs the curvature of all weights; take rate or trellis")
        symbols = self.joint.rounded({name: tensor.spread_steps for name, tensor in tensors.items()})
        return {name: replace(tensor, symbols=symbols[name]) for name, tensor in tensors.items()}

    def on_parents_grid(self, name: str, fineness: float) -> QuantizedTensor | None:
        """Round a tensor on its parent's steps if there is one and they are about as fine as wanted."""
        tensor, mean = self.network.tensors[name], np.rint(self.exponents(name, fineness).mean())
        return on_parents_grid(tensor, name, self.network.parent, step_values(np.array([mean], np.int32)))

    def fineness_at(self, bits: float) -> float:
        """Give the fineness at which plainly rounded symbols take about so many bits, tables not counted."""
        finest, coarsest = -40.0, 40.0
        while coarsest - finest > 1 / 64:
            middle = (finest + coarsest) / 2
            finest, coarsest = (middle, coarsest) if self._estimated_bits(middle) > bits else (finest, middle)
        return (finest + coarsest) / 2

    def _estimated_bits(self, fineness: float) -> float:
        return sum(_entropy(self._values(name, self.exponents(name, fineness))) for name in self.network.tensors)

    def _values(self, name: str, exponents: Exponents) -> _Rows:
        """Give a tensor in units of its steps."""
        tensor, axis = self.network.tensors[name], self.splits[name].axis
        scaled: _Rows = tensor / _along(axis, step_values(exponents).astype(np.float64), tensor.ndim)
        return scaled

    def _quantized(self, name: str, fineness: float, rounding: Rounding) -> QuantizedTensor:
        tensor, split = self.network.tensors[name], self.splits[name]
        way = _way(tensor, rounding)
        exponents = self.exponents(name, fineness + way.shift)
        values = _matrix(self._values(name, exponents))
        importance = _matrix(self.importance[name] / _along(split.axis, split.weight, tensor.ndim))
        if way.rounding == "trellis":  # its paths would lead past zeros, and what was pruned stays pruned
            importance = np.where(values == 0, HELD * importance.max(), importance)
        return QuantizedTensor(
            symbols=_symbols(values, importance, way).reshape(tensor.shape),
            steps=step_values(exponents),
            axis=split.axis or 0,
            trellis=way.rounding == "trellis",
        )


def _known(network: FittedNetwork) -> list[str]:
    """The tensors that a parent has too, those that are its own still before all others: so they stay.

    A tuning works in units of steps: its own may come back a last digit away.
    """

    def has_moved(name: str) -> bool:
        own, theirs = network.tensors[name], parent[name].dequantize()
        return own.shape != theirs.shape or not np.allclose(own, theirs, rtol=1e-5, atol=0)

    parent = network.parent.tensors if network.parent else {}
    return sorted((name for name in network.tensors if name in parent), key=has_moved)


def _way(tensor: FloatTensor, rounding: Rounding) -> _Way:
    is_map = tensor.ndim > 2 and tensor.shape[-1] > LONGEST_KERNEL
    if rounding in ("nearest", "joint"):  # jointly they are rounded afterwards, at these steps
        return _Way("nearest")
    if is_map or tensor.ndim < 2 or not tensor.size:
        return GENTLE
    has_good_paths = tensor.shape[0] >= LEAST_PATHS and tensor[0].size <= LONGEST_PATH
    return PATHS if rounding == "trellis" and has_good_paths else FIRM


def _symbols(values: _Rows, importance: _Rows, way: _Way) -> IntTensor:
    if way.rounding == "trellis":
        return entropy_constrained(values, importance, way.rate_weight)
    if way.rounding == "rate":
        return entropy_constrained_uniform(values, importance, way.rate_weight)
    return np.rint(values).astype(np.int32)


def _entropy(values: _Rows) -> float:
    """Bits that the nearest symbols take under the better of a Laplace and a Gaussian curve."""
    return float(estimated_bits(torch.from_numpy(np.rint(values)))) if values.size else 0.0


def _matrix(values: npt.NDArray[np.floating]) -> _Rows:
    """Shape (shape[0], rest), and one row for what has less than two axes."""
    rows = values.shape[0] if values.ndim > 1 else 1
    return values.astype(np.float64).reshape(rows, -1 if values.size else 0)


def _along(axis: int | None, parts: _Rows, ndim: int) -> _Rows:
    """Give (parts,) the axes that multiply a tensor of `ndim` axes along `axis`."""
    shape = [1] * ndim
    if axis is not None:
        shape[axis] = -1
    return parts.reshape(shape)


def _by_spread(tensors: Mapping[str, FloatTensor]) -> dict[str, FloatTensor]:
    """As if every tensor moved the picture by its own size."""
    return {name: np.full(tensor.shape, _spread(tensor) ** -2, np.float32) for name, tensor in tensors.items()}


def _spread(tensor: FloatTensor) -> float:
    """Standard deviation, within what float32 can hold the square of."""
    return float(np.clip(tensor.std(dtype=np.float64), 1e-12, 1e12)) if tensor.size else 1.0


def _smoothed(sensitivity: FloatTensor) -> FloatTensor:
    """Between each weight's own estimate, which is noisy, and its tensor's mean; above zero."""
    mean = float(sensitivity.mean()) if sensitivity.size else 1.0
    if not mean > 0:
        return np.ones_like(sensitivity)
    return (np.maximum(sensitivity, FLOOR * mean) * 0.75 + 0.25 * mean).astype(np.float32)


def _split(importance: FloatTensor) -> _Split:
    """One step for the whole tensor, for each row or for each column: what saves most bits, steps paid."""
    whole = _Split(None, np.atleast_1d(np.float64(importance.mean() if importance.size else 1.0)))
    if importance.ndim < 2 or not importance.size:
        return whole
    splits = (_Split(axis, _mean_over_others(importance, axis)) for axis in (0, 1))
    best = max(splits, key=lambda split: _saved_bits(importance.size, split))
    return best if _saved_bits(importance.size, best) > 0 else whole


def _mean_over_others(importance: FloatTensor, axis: int) -> _Rows:
    others = tuple(other for other in range(importance.ndim) if other != axis)
    means: _Rows = importance.mean(axis=others, dtype=np.float64)
    return means


def _saved_bits(size: int, split: _Split) -> float:
    """What steps of their own save at equal error, less what they cost."""
    ratio = np.log2(split.weight.mean()) - np.log2(split.weight).mean()
    return float(0.5 * size * ratio - STEP_BITS * split.weight.size)
