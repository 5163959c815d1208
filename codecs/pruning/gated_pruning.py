"""Pruning by learned gates, from a fitted network to the pruned one.

Fine-tuning in two phases, with gates (`gates.GatedNetwork`) and then with the masks that they settle on. Its state says
which phase it is in: it can be gone on with from anywhere.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from framefold.codecs.base import FitProgress, FitSettings, FitState, Fitting, Masks
from framefold.codecs.fit_state import Kind, own_state, state_of
from framefold.codecs.fitting import FitPlan, fit
from framefold.codecs.inr import NetworkCodec
from framefold.codecs.network import FittedNetwork, FloatTensor
from framefold.codecs.pruning.gates import GatedNetwork
from framefold.codecs.pruning.prune import (
    Scores,
    apply_masks,
    check_finite,
    check_keep,
    magnitude_scores,
    sensitivity_scores,
    size_normalised_scores,
    weights_of,
)

SHARE_WITH_GATES = 0.75
"""Of the budget; the rest tunes what stays, without noise."""
GATE_RATE = 0.15
"""Learning rate of the gates: their openness goes a few units in some hundred steps."""

AnyCodec = NetworkCodec[Any]
ResultT = TypeVar("ResultT")


def gate_pruned(
    codec: AnyCodec, network: FittedNetwork, keep: float, settings: FitSettings, *, rows: bool = False
) -> Fitting:
    """Fine-tune `network` to its `target` while gates learn which share `keep` of its weights stays.

    The budget of `settings` is for both phases; by default it is that of a fine-tuning. Vectors stay whole. With
    `rows` there is one gate for each index of axis 0 of a weight tensor, and as many rows stay as fit into the share.
    ValueError: no pixels, no weights, another `keep` than 0 < keep <= 1, NaN in a tensor, a state of other work.
    """
    check_keep(keep)
    check_finite(network.tensors)
    if network.target is None or not weights_of(network.tensors):
        raise ValueError(f"{network.span.label}: gates need weights, and the pixels that these were fitted to")
    kind = {"codec": codec.name, "work": "gates", "config": dict(network.config), "keep": keep, "rows": rows}
    masks, run = _where_it_was(own_state(settings.resume, kind), network)
    with_gates, with_masks = _budgets(codec.gentle_plan(network, settings), settings)
    if masks is None:
        module = _gated(codec, network, keep, rows, settings, new=run is None)
        target = network.target
        fitting = fit(module, target.frames, with_gates, pixels=target.pixels, resume=run)
        yield from _told(fitting, kind, None, 0.0, SHARE_WITH_GATES)
        tensors, masks = module.settled()
        network, run = replace(network, tensors=tensors), None
    tuning = codec.finetune(apply_masks(network, masks), masks, replace(with_masks, resume=run))
    return (yield from _told(tuning, kind, masks, SHARE_WITH_GATES, 1.0))


def _budgets(plan: FitPlan, settings: FitSettings) -> tuple[FitPlan, FitSettings]:
    """Share the budget out among the two phases."""
    steps = max(1, round(SHARE_WITH_GATES * plan.steps)) if plan.steps else None
    seconds = SHARE_WITH_GATES * plan.seconds if plan.seconds else None
    wrapped = plan.within("network.")
    factors = {**wrapped.rate_factors, "openness": GATE_RATE / plan.learning_rate}
    gates = replace(wrapped, steps=steps, seconds=seconds, rate_factors=factors, target_psnr_db=None)
    rest = max(1, plan.steps - steps) if plan.steps and steps else None
    return gates, replace(settings, steps=rest, seconds=plan.seconds - seconds if plan.seconds and seconds else None)


def _gated(
    codec: AnyCodec, network: FittedNetwork, keep: float, rows: bool, settings: FitSettings, *, new: bool
) -> GatedNetwork:
    """Wrap the network; the gates of a state come with it, `new` ones begin as the weights' importance says."""
    _, module = codec.load(network)
    scores = _importance(codec, network, settings.device) if new else magnitude_scores(network.tensors)
    return GatedNetwork(module, scores, keep, rows=rows, seed=settings.seed)


def _importance(codec: AnyCodec, network: FittedNetwork, device: str) -> Scores:
    """Per weight, in units of squared error if the codec measures that."""
    sensitivity = codec.sensitivity(network, device=device)
    if sensitivity is not None:
        return sensitivity_scores(network.tensors, sensitivity)
    return {name: np.square(score) for name, score in size_normalised_scores(network.tensors).items()}


def _told(
    fitting: Generator[FitProgress, None, ResultT], kind: Kind, masks: Masks | None, begin: float, end: float
) -> Generator[FitProgress, None, ResultT]:
    """Progress of one phase as that of the whole."""
    while True:
        try:
            progress = next(fitting)
        except StopIteration as stop:
            result: ResultT = stop.value
            return result
        state = partial(_state, progress, kind, masks)
        yield replace(progress, fraction=begin + (end - begin) * progress.fraction, state=state)


def _state(progress: FitProgress, kind: Kind, masks: Masks | None) -> FitState:
    packed = None if masks is None else {name: np.packbits(mask) for name, mask in masks.items()}
    return {**kind, "run": {"masks": packed, **state_of(progress, {})}}


def _where_it_was(state: FitState | None, network: FittedNetwork) -> tuple[Masks | None, FitState | None]:
    """Masks, if there were any yet, and the state of the phase; ValueError if that is no such state."""
    if state is None:
        return None, None
    match state:
        case {"masks": None, "run": {} as run}:
            return None, run
        case {"masks": {} as packed, "run": {} as run} if packed.keys() == weights_of(network.tensors).keys():
            return {name: _unpacked(name, packed[name], network.tensors[name]) for name in packed}, run
    raise ValueError("the state to go on from is of no pruning by gates of this network; prune from the start")


def _unpacked(name: str, packed: Any, tensor: FloatTensor) -> Any:
    if not isinstance(packed, np.ndarray) or packed.dtype != np.uint8 or packed.shape != (-(-tensor.size // 8),):
        raise ValueError(f"the state's mask of tensor {name!r} does not fit its shape {tensor.shape}")
    return np.unpackbits(packed, count=tensor.size).astype(np.bool_).reshape(tensor.shape)
