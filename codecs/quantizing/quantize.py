"""Uniform quantization: float32 parameters to integers of 2 to 8 bits and their steps.

Symmetric and mid-tread: the value of symbol s is s * step, so zero stays zero and what was pruned stays
pruned. `bits` allows the symbols -(2**(bits - 1) - 1) .. 2**(bits - 1) - 1. The step is searched on the grid
of `steps` for the least squared error: from the one that covers the largest magnitude downwards, which
clamps a few outliers and serves the many better. At equal bytes a NeRV of 43 k parameters gains nothing by it
at 8 bits, up to 0.15 dB of the picture at 6, 0.5 dB at 4.

Vectors (biases, gains) and the smallest weights (the first and the last layer of a coordinate network) are
*fine*: a few more bits for them cost little, and each of them moves every pixel. Measured on a SIREN of 6.8 k
parameters, 32.4 dB before: all at 8 bits 27.1 dB in 6206 bytes, fine vectors 30.1 dB in 6281, fine small
weights too 31.8 dB in 6354. The NeRV pays 2 % of its bytes and gains nothing at 8 bits, 0.3 dB at 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

from framefold.codecs.network import FittedNetwork, FloatTensor, QuantizedTensor, SymbolTensors
from framefold.codecs.quantizing.parent_steps import on_parents_grid
from framefold.codecs.quantizing.steps import MIN_EXPONENT, Exponents, covering_exponents, step_values

Granularity = Literal["tensor", "channel"]

MIN_BITS, MAX_BITS = 2, 8
FINE_EXTRA_BITS = 3
"""Fine tensors get so many bits more than `bits`, ..."""
FINE_MIN_BITS = 8
"""... and at least these."""
FINE_SHARE = 1 / 32
"""A weight tensor with a larger share of all parameters is not fine ..."""
FINE_TOTAL_SHARE = 1 / 16
"""... and the fine weight tensors together hold at most this share, smallest first."""
MIN_CHANNEL_SIZE = 16
"""Channels with fewer weights share the tensor's step: theirs would cost more than they save."""

_SEARCHED = 24  # grid points, three octaves: at 2 bits the best step is a quarter of the largest magnitude
_LARGEST = float(np.finfo(np.float32).max)

Rows = npt.NDArray[np.float64]


def quantize(network: FittedNetwork, *, bits: int, granularity: Granularity) -> SymbolTensors:
    """Give every tensor of the network its integers and steps; where there is a parent, its steps if they fit.

    `granularity` "channel" gives each index of axis 0 of a weight its own step where each has at least
    MIN_CHANNEL_SIZE weights; vectors always have one step. ValueError for other bits, another granularity,
    and for a tensor with NaN or infinity, by name.
    """
    if not MIN_BITS <= bits <= MAX_BITS:
        raise ValueError(f"bits is {bits}, allowed is {MIN_BITS} .. {MAX_BITS}")
    if granularity not in ("tensor", "channel"):
        raise ValueError(f"granularity is {granularity!r}, allowed is 'tensor' or 'channel'")
    check_finite(network.tensors)
    fine, fine_bits = fine_tensors(network.tensors), max(bits + FINE_EXTRA_BITS, FINE_MIN_BITS)
    tensors = {
        name: _quantize(network, name, bits=fine_bits if name in fine else bits, granularity=granularity)
        for name in network.tensors
    }
    return network.as_symbols(tensors)


def check_finite(tensors: Mapping[str, FloatTensor]) -> None:
    """ValueError names a tensor with NaN or infinity."""
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise ValueError(f"tensor {name!r} holds NaN or infinity: the fit diverged; lower its learning rate")


def fine_tensors(tensors: Mapping[str, FloatTensor]) -> frozenset[str]:
    """Names of the tensors that get more bits: all vectors and scalars, and the smallest weights."""
    parameters = sum(tensor.size for tensor in tensors.values())
    fine = {name for name, tensor in tensors.items() if tensor.ndim < 2}
    total = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].size):
        if name in fine:
            continue
        total += tensor.size
        if tensor.size > FINE_SHARE * parameters or total > FINE_TOTAL_SHARE * parameters:
            break
        fine.add(name)
    return frozenset(fine)


def _quantize(network: FittedNetwork, name: str, *, bits: int, granularity: Granularity) -> QuantizedTensor:
    tensor = network.tensors[name]
    rows = tensor.astype(np.float64).reshape(_row_count(tensor, granularity), -1)
    largest_symbol = 2 ** (bits - 1) - 1
    steps = step_values(best_exponents(rows, largest_symbol))
    if shared := on_parents_grid(tensor, name, network.parent, steps):
        return shared
    symbols = _round(rows, steps, largest_symbol).astype(np.int32)
    return QuantizedTensor(symbols=symbols.reshape(tensor.shape), steps=steps)


def _row_count(tensor: FloatTensor, granularity: Granularity) -> int:
    """How many steps the tensor gets: one, or one for each index of axis 0."""
    if granularity == "tensor" or tensor.ndim < 2 or not tensor.size:
        return 1
    channels: int = tensor.shape[0]
    return channels if tensor.size // channels >= MIN_CHANNEL_SIZE else 1


def best_exponents(rows: Rows, largest_symbol: int) -> Exponents:
    """Per row of (rows, n) the step exponent of least squared error; int32 (rows,)."""
    peaks = np.abs(rows).max(axis=1, initial=0.0)
    covering = covering_exponents(np.where(peaks > 0, peaks, 1.0) / largest_symbol)
    # Near the end of float32 a covering step can be too large for its largest symbol.
    covering -= step_values(covering).astype(np.float64) * largest_symbol > _LARGEST
    best, least = covering, _squared_errors(rows, covering, largest_symbol)
    for lower in range(1, _SEARCHED):
        exponents = np.maximum(covering - lower, MIN_EXPONENT)
        errors = _squared_errors(rows, exponents, largest_symbol)
        best = np.where(errors < least, exponents, best)
        least = np.minimum(errors, least)
    return _without_empty(best, peaks)


def _without_empty(exponents: Exponents, peaks: npt.NDArray[np.float64]) -> Exponents:
    """Rows of zeros take the step of the first other row (or 1.0): any would do, an equal one is cheapest."""
    filled = exponents[peaks > 0]
    return np.where(peaks > 0, exponents, filled[0] if filled.size else 0).astype(np.int32)


def _squared_errors(rows: Rows, exponents: Exponents, largest_symbol: int) -> npt.NDArray[np.float64]:
    steps = step_values(exponents)
    errors = rows - _round(rows, steps, largest_symbol) * steps[:, None]
    squared: npt.NDArray[np.float64] = np.einsum("ij,ij->i", errors, errors)
    return squared


def _round(rows: Rows, steps: FloatTensor, largest_symbol: int) -> Rows:
    """Find the nearest allowed symbols, still as float64."""
    symbols: Rows = np.clip(np.rint(rows / steps[:, None]), -largest_symbol, largest_symbol)
    return symbols
