"""Calibration after quantizing: the vectors of a network make up for what rounding did to its weights.

Biases and gains are few, so they keep fine steps and cost little; tuned to the pixels with every other symbol held,
they take back a part of the error at the price of a short fit and of no bits (Nagel et al. 2019, "Data-Free
Quantization through Weight Equalization and Bias Correction", section 4.2, does as much in closed form).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from framefold.codecs.base import FitProgress, FitSettings, RateTuning
from framefold.codecs.fitting import fit, tensors_of
from framefold.codecs.network import FloatTensor, QuantizedTensor, SymbolTensors
from framefold.codecs.stream.symbol_models import MAX_SYMBOL

if TYPE_CHECKING:
    from framefold.codecs.inr import NetworkCodec


def calibrated(codec: NetworkCodec[Any], symbols: SymbolTensors, settings: FitSettings) -> RateTuning:
    """Tune the tensors of one axis to the network's `target`; the symbols of all others stay as they are.

    ValueError for a network without pixels. `settings.resume` is not looked at: a calibration is short.
    """
    if symbols.target is None:
        raise ValueError(f"{symbols.span.label}: calibration needs the pixels the network was fitted to")
    network = symbols.dequantize()
    _, module = codec.load(network)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(symbols.tensors[name].symbols.ndim == 1)
    plan = codec.gentle_plan(network, settings)
    yield from _without_state(fit(module, symbols.target.frames, plan, pixels=symbols.target.pixels))
    tuned = tensors_of(module)
    tensors = {
        name: _on_its_grid(tensor, tuned[name]) if tensor.symbols.ndim == 1 else tensor
        for name, tensor in symbols.tensors.items()
    }
    return replace(symbols, tensors=tensors)


def _without_state(fitting: Generator[FitProgress, None, None]) -> Generator[FitProgress, None, None]:
    for progress in fitting:
        yield replace(progress, state=None)


def _on_its_grid(tensor: QuantizedTensor, values: FloatTensor) -> QuantizedTensor:
    nearest = np.clip(np.rint(values / tensor.steps), -MAX_SYMBOL, MAX_SYMBOL).astype(np.int32)
    return replace(tensor, symbols=nearest)
