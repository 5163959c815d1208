"""Fine-tunes a fitted network for its rate, from its sensitivity to the symbols that meet a target.

```
network --> sensitivity --> Allocation: steps that come near the target
                              |
              RateAwareNetwork: weights, steps and the price of a bit learn together
                              |
        large |               | small enough for the curvature of all weights together
   rounded while it learned   blurred to the end: weights, no symbols yet
              |               |
   trimmed by rate-aware      rounded jointly, with the steps at which the stream meets the target
   rounding until the
   stream meets the target
```
A network that was rounded while it learned aims a little beyond a target in bytes, for trimming can only take away.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from framefold.codecs.base import FitProgress, FitSettings, Masks, RateSettings, RateTuning
from framefold.codecs.fit_state import Kind, own_state, state_of
from framefold.codecs.fitting import FitPlan, fit
from framefold.codecs.metrics import psnr
from framefold.codecs.network import FittedNetwork, QuantizedTensor, SymbolTensors
from framefold.codecs.quantizing.allocation import Allocation
from framefold.codecs.quantizing.steps import step_exponents, step_values
from framefold.codecs.rate.rate_aware import (
    EXPONENT_RATE,
    PRICE_TO_SQUARES,
    Grid,
    RateAwareNetwork,
    Steering,
)
from framefold.codecs.rate.rate_control import RateControl
from framefold.codecs.rate.targets import RateTarget
from framefold.codecs.rate.trim import Trim, told
from framefold.codecs.stream import bitstream

if TYPE_CHECKING:
    from framefold.codecs.inr import NetworkCodec

STEPS_SHARE = 5
"""Without a budget, one n-th of the steps of a fit."""
GAIN_DB = 0.3
"""What the tuning is expected to gain: a target in dB begins at steps that would miss it by this ..."""
GAIN_BYTES = 1.12
"""... and a target in bytes at steps that would exceed it by this factor."""
SURPLUS, SURPLUS_DB = 1.01, 0.02
"""How far beyond the target the tuning aims."""
ADDED_ERROR = 0.3
"""Without a target, rounding may add this share of the network's own squared error, before tuning."""
LEAST_ADDED = 0.08
"""With a target in dB, at least this share of what is wanted, or of the network's own where that is more."""
WEIGHT_RATE = 0.4
"""Learning rate of the weights, in those of a fit."""
WARM_UP = 0.03


def tune_for_rate(
    codec: NetworkCodec[Any], network: FittedNetwork, rate: RateSettings, settings: FitSettings, kind: Kind
) -> RateTuning:
    """Tune and quantize as `Codec.tune_for_rate` says; `kind` labels the states."""
    if network.target is None:
        raise ValueError(f"{network.span.label}: rate-aware tuning needs the pixels the network was fitted to")
    run = own_state(settings.resume, kind)
    yield FitProgress(fraction=0.0, step=0)  # what follows may take seconds
    wrapped = _wrapped(codec, network, rate, settings)
    plan = _plan(codec, network, settings, wrapped)
    target, masks = network.target, _zeros(network)
    for progress in fit(wrapped, target.frames, plan, pixels=target.pixels, masks=masks, resume=run):
        bits = _stream_bits(codec, network.as_symbols(wrapped.quantized())) if progress.fraction == 1 else None
        yield replace(progress, bits=bits, state=partial(state_of, progress, kind))
    finished = _trimmed if wrapped.rounds else _rounded_jointly
    return (yield from finished(codec, network, wrapped.eval(), rate.target, settings.device))


def _wrapped(
    codec: NetworkCodec[Any], network: FittedNetwork, rate: RateSettings, settings: FitSettings
) -> RateAwareNetwork:
    """The network with the steps, the price of a bit and the steering that suit the target."""
    allocation = Allocation.of(network, codec.sensitivity(network, device=settings.device))
    fitted_mse = _mse(_psnr_db(codec, network, settings.device))
    fineness = _first_fineness(allocation, rate, fitted_mse)
    _, module = codec.load(network)
    return RateAwareNetwork(
        module,
        {name: _grid(allocation, name, fineness) for name in network.tensors},
        price=4**fineness / PRICE_TO_SQUARES,  # -dD/dR of fine steps, where D = weights * 4**fineness / 12
        steering=_steering(allocation, rate.target),
        count=lambda tensors: _stream_bits(codec, network.as_symbols(tensors)),
        judge=lambda tensors: _mse(_psnr_db(codec, _decoded(network, tensors), settings.device)),
        rounds=not codec.has_curvature(network),
        seed=settings.seed,
    )


def _first_fineness(allocation: Allocation, rate: RateSettings, fitted_mse: float) -> float:
    target = rate.target
    if price := rate.price(allocation.network.span):
        return 0.5 * math.log2(price * PRICE_TO_SQUARES)
    if target is None:
        return allocation.fineness_for(ADDED_ERROR * fitted_mse)
    bytes_ = target.bytes_for(allocation.network.span, allocation.weights)
    if bytes_ is not None:
        return _fineness_with_tables(allocation, 8 * GAIN_BYTES * bytes_)
    least = LEAST_ADDED * max(_mse(target.value), fitted_mse)  # out of reach, more bits would be of no use
    return allocation.fineness_for(max(_mse(target.value - GAIN_DB) - fitted_mse, least))


def _fineness_with_tables(allocation: Allocation, bits: float) -> float:
    """Where a stream takes about so many bits: in that of a small network symbols are but a part of them."""
    plain = allocation.at(allocation.fineness_at(bits), rounding="nearest")
    tables = max(0.0, 8.0 * len(bitstream.encode(plain, contexts=False)) - bits)
    return allocation.fineness_at(max(bits - tables, bits / 4))


def _steering(allocation: Allocation, target: RateTarget | None) -> Steering:
    if target is None:
        return Steering()
    bytes_ = target.bytes_for(allocation.network.span, allocation.weights)
    if bytes_ is not None:
        return Steering(bits=8 * SURPLUS * bytes_)
    return Steering(mse=_mse(target.value + SURPLUS_DB))


def _grid(allocation: Allocation, name: str, fineness: float) -> Grid:
    shared, parent = allocation.on_parents_grid(name, fineness), allocation.network.parent
    exponents = step_exponents(shared.steps) if shared else None
    if shared and parent and exponents is not None:
        axis = shared.axis if shared.steps.size > 1 else None
        return Grid(exponents=exponents, axis=axis, origin=parent.tensors[name].symbols)
    return Grid(exponents=allocation.exponents(name, fineness), axis=allocation.splits[name].axis)


def _plan(
    codec: NetworkCodec[Any], network: FittedNetwork, settings: FitSettings, wrapped: RateAwareNetwork
) -> FitPlan:
    """Say how the weights learn: as in a fit but more slowly, and counted in steps; steps have their own rate."""

    def factor(name: str) -> float:
        own = next((value for prefix, value in usual.rate_factors.items() if name.startswith(prefix)), 1.0)
        return own / float(step_values(wrapped.grids[name].exponents).astype(np.float64).mean())

    usual = codec.plan(codec.from_config(network.config).config, network.span.shape)
    budget = FitSettings(steps=max(1, (usual.steps or 1000) // STEPS_SHARE))
    plan = usual.overridden(budget).overridden(settings)
    peak = settings.learning_rate or WEIGHT_RATE * usual.learning_rate
    return replace(
        plan,
        learning_rate=peak,
        rate_factors={"shifts.": EXPONENT_RATE / peak} | {f"network.{name}": factor(name) for name in network.tensors},
        warm_up=WARM_UP,
        restarts=wrapped.restarts,
        clip_norm=None,
        target_psnr_db=None,
    )


def _zeros(network: FittedNetwork) -> Masks:
    """What was pruned stays pruned: tensors of two and more axes keep their exact zeros."""
    return {
        f"network.{name}": tensor != 0
        for name, tensor in network.tensors.items()
        if tensor.ndim > 1 and not tensor.all()
    }


def _trimmed(
    codec: NetworkCodec[Any],
    network: FittedNetwork,
    wrapped: RateAwareNetwork,
    target: RateTarget | None,
    device: str,
) -> RateTuning:
    """Round; with a target, let small gains in rate decide near ties until the stream meets it."""
    origins = {name: grid.origin for name, grid in wrapped.grids.items()}
    trim = Trim(tuned=network.as_symbols(wrapped.quantized()), values=wrapped.values(), origins=origins)
    return trim.tuned if target is None else (yield from trim.to(target, codec, device))


def _rounded_jointly(
    codec: NetworkCodec[Any],
    network: FittedNetwork,
    wrapped: RateAwareNetwork,
    target: RateTarget | None,
    device: str,
) -> RateTuning:
    """Round weights that were blurred to the end, with the steps at which they meet the target."""
    tuned = replace(network, tensors=wrapped.weights())
    curvature = codec.curvature(tuned, device=device)
    if curvature is None:
        raise ValueError(f"{network.span.label}: codec {codec.name!r} says it has a curvature, and has none")
    allocation = Allocation.together(tuned, curvature)
    quantize = partial(allocation.at, rounding="joint")
    if target is None:
        return quantize(0.5 * math.log2(PRICE_TO_SQUARES) + 0.5 * float(wrapped.log_price))
    control = RateControl(
        network=tuned,
        target=target,
        codec=codec,
        quantize=quantize,
        encode=partial(bitstream.encode, rules=codec.context_rule),
        device=device,
        fineness_for=allocation.fineness_for,
        fineness_at=allocation.fineness_at,
    )
    return (yield from told(control.run()))


def _decoded(network: FittedNetwork, tensors: Mapping[str, QuantizedTensor]) -> FittedNetwork:
    """The network with the tensors that a reader will see."""
    return replace(network, tensors={name: tensor.dequantize() for name, tensor in tensors.items()})


def _psnr_db(codec: NetworkCodec[Any], network: FittedNetwork, device: str) -> float:
    if network.target is None:
        raise ValueError(f"{network.span.label}: there are no pixels to compare with")
    return psnr(codec.reconstruct(network, device=device).frames, network.target.frames, network.target.pixels)


def _stream_bits(codec: NetworkCodec[Any], symbols: SymbolTensors) -> float:
    return 8.0 * len(bitstream.encode(symbols, rules=codec.context_rule))


def _mse(psnr_db: float) -> float:
    return float(10 ** (-psnr_db / 10))
