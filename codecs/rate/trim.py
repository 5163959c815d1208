"""The last step to a target: values that learned to be symbols, rounded with more or less regard to what they cost."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from framefold.codecs.base import Codec, FitProgress, RateTuning
from framefold.codecs.network import FloatTensor, IntTensor, QuantizedTensor, SymbolTensors
from framefold.codecs.quantizing.rounding import BitTable, rate_aware_symbols
from framefold.codecs.quantizing.steps import EXPONENTS_PER_OCTAVE, MAX_EXPONENT, step_exponents, step_values
from framefold.codecs.rate.rate_control import RateControl
from framefold.codecs.rate.rate_search import Candidate
from framefold.codecs.rate.targets import RateTarget
from framefold.codecs.stream import bitstream
from framefold.codecs.stream.symbol_models import MAX_SYMBOL

TRIM = 1 / 16
"""Squared steps per bit, that trimming's knob counts in."""
HEAVIEST_TRIM = 12.0
COARSER_FROM = 4.0
"""Of trimming's knob: from here on steps grow too, by ..."""
COARSER = 2.0
"""... so many places on their grid each. Costs quality, and is for short tunings, which end far off their target."""


@dataclass(frozen=True, kw_only=True)
class Trim:
    """A tuned network, and the values that its symbols were rounded from."""

    tuned: SymbolTensors
    values: Mapping[str, FloatTensor] = field(repr=False)
    """Per tensor, in steps, of its shape."""
    origins: Mapping[str, IntTensor | None] = field(repr=False)
    """Symbols of a parent that will be subtracted; None where there is none."""

    def to(self, target: RateTarget, codec: Codec, device: str) -> RateTuning:
        """Trim until the stream meets the target: it can only become smaller."""
        pixels = self.tuned.target if target.kind == "psnr_db" else None  # for a size, its bytes alone decide
        control = RateControl(
            network=replace(self.tuned.dequantize(), target=pixels),
            target=target,
            codec=codec,
            quantize=self.at,
            encode=partial(bitstream.encode, rules=codec.context_rule),
            device=device,
            fineness_for=lambda mse: 0.0,
            finest=0.0,
            coarsest=HEAVIEST_TRIM,
        )
        return (yield from told(control.run()))

    def at(self, knob: float) -> SymbolTensors:
        """Symbols at a rate weight of `knob * TRIM`; 0 is plain rounding."""
        if knob <= 0:
            return self.tuned
        places, count = COARSER * max(0.0, knob - COARSER_FROM), len(self.tuned.tensors)
        tensors = {
            name: self._rounded(name, tensor, knob * TRIM, int(places + index / count))
            for index, (name, tensor) in enumerate(self.tuned.tensors.items())
        }
        return replace(self.tuned, tensors=tensors)

    def _rounded(self, name: str, tensor: QuantizedTensor, rate_weight: float, places: int) -> QuantizedTensor:
        origin, values = self.origins[name], self.values[name].astype(np.float64)
        if origin is None and (exponents := step_exponents(tensor.steps)) is not None and places:
            tensor = replace(tensor, steps=step_values(np.minimum(exponents + np.int32(places), MAX_EXPONENT)))
            values = values * 2 ** (-places / EXPONENTS_PER_OCTAVE)
        base = np.zeros((), np.int32) if origin is None else origin
        values = np.clip(values, -MAX_SYMBOL, MAX_SYMBOL) - base
        symbols = rate_aware_symbols(values, np.ones(()), BitTable.of(np.rint(values).astype(np.int32)), rate_weight)
        return replace(tensor, symbols=symbols + base)


def told(search: Generator[Candidate, None, SymbolTensors]) -> RateTuning:
    """Give a search as progress."""
    while True:
        try:
            candidate = next(search)
        except StopIteration as end:
            symbols: SymbolTensors = end.value
            return symbols
        yield FitProgress(fraction=1.0, step=0, bits=8.0 * candidate.bytes)
