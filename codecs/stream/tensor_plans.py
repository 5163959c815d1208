"""The cheapest form of a tensor, by exact cost, and writing it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from framefold.codecs.network import IntTensor, QuantizedTensor
from framefold.codecs.quantizing import trellis
from framefold.codecs.stream.class_coding import ClassCoder
from framefold.codecs.stream.class_models import choose_class_models, models_cost
from framefold.codecs.stream.class_parameters import write_class_models
from framefold.codecs.stream.contexts import ContextRule, contexts_of_rule
from framefold.codecs.stream.directory import Entry
from framefold.codecs.stream.entropy import FIRST_SCALE, SymbolWriter
from framefold.codecs.stream.model_choice import Effort, choose_model
from framefold.codecs.stream.neighbour_choice import candidates
from framefold.codecs.stream.neighbour_contexts import Contexts
from framefold.codecs.stream.neighbours import (
    MAX_SLICES,
    NeighbourRule,
    slice_cost,
    slice_count,
    slice_numbers,
    view_shape,
)
from framefold.codecs.stream.places import Flags
from framefold.codecs.stream.prepared_models import prepare
from framefold.codecs.stream.stream_layout import BYTES_PER_SLICE
from framefold.codecs.stream.symbol_counts import Counts
from framefold.codecs.stream.symbol_models import MAX_SYMBOL, Curve, Model
from framefold.codecs.stream.tensor_forms import Form, as_matrix, can_have_rule, trellis_slices
from framefold.codecs.stream.varbits import BitWriter

LEAST_BITS = 128
"""Less than a rule and its models cost."""
SLICE_BITS = 1.0
"""What a slice has to save: some 80 microseconds of the reader's time."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a tensor will be written."""

    form: Form
    cost: float
    """In bits, about."""
    slices: int
    """That a reader has to go through, and what else counts as some."""
    near: int
    """Scale of the latest curve when it is written."""
    array: IntTensor
    """Flat; what is coded, with a rule less its centres."""
    models: tuple[Model, ...]
    contexts: Contexts | None = None
    numbers: npt.NDArray[np.uint16] | None = None
    rule: NeighbourRule | None = None
    models_known: bool = False
    """The reader knows the models, they are not written."""


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """What the choice of a form may use."""

    parent: IntTensor | None = None
    """The symbols that may be subtracted."""
    own: ContextRule | None = None
    """The codec's rule for this tensor."""
    contexts: bool = True
    """Whether rules are tried."""
    modelled: bool = True
    """Whether the range coder will code it; else models are needed only to compare."""
    effort: Effort = "best"
    """How hard models are looked for."""
    near: int = FIRST_SCALE
    """What a first scale will be written against."""
    slices: int = MAX_SLICES
    """How many slices a reader may still go through."""


def plan_tensor(entry: Entry, tensor: QuantizedTensor, options: PlanOptions) -> Plan:
    """Choose the cheapest form of a tensor, at least one element."""
    coded, second = _coded(tensor)
    if not options.modelled and options.parent is None:
        return _unmodelled(entry, tensor, coded, options)
    plain = _plain(entry, tensor, coded, options)
    plans = [plain]
    if options.parent is not None and (difference := _difference(tensor, options.parent, options)):
        plans.append(difference)
    if options.own is not None and not tensor.trellis:
        plans.append(_own(tensor, options.own, options))
    if options.contexts and can_have_rule(entry) and plain.cost > LEAST_BITS:
        found = _by_neighbours(tensor, coded, second, options, limit=_affordable(options, plain.cost))
        plans += [plan for plan in found if plan.slices <= _affordable(options, plan.cost)]
    return min(plans, key=lambda plan: plan.cost + SLICE_BITS * plan.slices)


def _affordable(options: PlanOptions, cost: float) -> int:
    """How many slices a tensor of so many bits may take."""
    return options.slices + int(cost) // (8 * BYTES_PER_SLICE)


def _coded(tensor: QuantizedTensor) -> tuple[IntTensor, Flags | None]:
    """What is coded of a tensor, flat: symbols, or levels and where the trellis is in its second quantizer."""
    if not tensor.trellis:
        return np.ascontiguousarray(tensor.symbols).reshape(-1), None
    levels, states = trellis.levels_of(as_matrix(tensor.symbols))
    return np.ascontiguousarray(levels).reshape(-1), trellis.second_quantizer(states).reshape(-1)


def _unmodelled(entry: Entry, tensor: QuantizedTensor, coded: IntTensor, options: PlanOptions) -> Plan:
    """The only form that there is, at a cost that nobody asks for."""
    slices = trellis_slices(entry.shape) if tensor.trellis else 0
    plan = Plan(form=Form.PLAIN, cost=0, slices=slices, near=options.near, array=coded, models=())
    if slices <= options.slices:
        return plan
    return replace(plan, form=Form.SYMBOLS, slices=0, array=np.ascontiguousarray(tensor.symbols).reshape(-1))


def _plain(entry: Entry, tensor: QuantizedTensor, coded: IntTensor, options: PlanOptions) -> Plan:
    plan = _one_model(Form.PLAIN, coded, options, trellis_slices(entry.shape) if tensor.trellis else 0)
    if plan.slices <= _affordable(options, plan.cost):
        return plan
    return _one_model(Form.SYMBOLS, tensor.symbols, options, 0)


def _difference(tensor: QuantizedTensor, parent: IntTensor, options: PlanOptions) -> Plan | None:
    array = tensor.symbols - parent
    inside = max(-int(array.min()), int(array.max())) <= MAX_SYMBOL
    return _one_model(Form.DIFFERENCE, array, options, 0) if inside else None


def _one_model(form: Form, array: IntTensor, options: PlanOptions, slices: int) -> Plan:
    model, cost = choose_model(Counts.of(array), options.near, effort=options.effort)
    return Plan(
        form=form,
        cost=cost,
        slices=slices,
        near=model.scale if isinstance(model, Curve) else options.near,
        array=np.ascontiguousarray(array).reshape(-1),
        models=(model,),
    )


def _own(tensor: QuantizedTensor, rule: ContextRule, options: PlanOptions) -> Plan:
    flat = np.ascontiguousarray(tensor.symbols).reshape(-1)
    contexts, numbers = contexts_of_rule(flat, rule)
    residuals = flat - contexts.centres
    if rule.models is None:
        return _by_classes(residuals, contexts, numbers, options, None)
    return Plan(
        form=Form.OWN,
        cost=models_cost(residuals, contexts, rule.models),
        slices=0,
        near=options.near,
        array=residuals,
        models=tuple(rule.models),
        contexts=contexts,
        numbers=numbers,
        models_known=True,
    )


def _by_neighbours(
    tensor: QuantizedTensor, coded: IntTensor, second: Flags | None, options: PlanOptions, *, limit: int
) -> Iterator[Plan]:
    shape = view_shape(tensor.symbols.shape)
    symbols = np.ascontiguousarray(tensor.symbols).reshape(shape)
    parent = None if options.parent is None else options.parent.reshape(shape)
    for candidate in candidates(symbols, parent, second):
        slices = slice_cost(shape, candidate.skew)
        if slices <= limit and slice_count(shape, candidate.skew) <= MAX_SLICES:
            numbers = slice_numbers(shape, candidate.skew)
            residuals = coded - candidate.contexts.centres
            plan = _by_classes(residuals, candidate.contexts, numbers, options, candidate.rule)
            yield replace(plan, slices=slices)


def _by_classes(
    residuals: IntTensor,
    contexts: Contexts,
    numbers: npt.NDArray[np.uint16],
    options: PlanOptions,
    rule: NeighbourRule | None,
) -> Plan:
    predicts = rule is not None and rule.predicts
    chosen = choose_class_models(residuals, contexts, options.near, predicts=predicts, effort=options.effort)
    parameters = BitWriter()
    if rule:
        rule.write(parameters)
    scales = [model.scale for model in chosen.models if isinstance(model, Curve)]
    return Plan(
        form=Form.NEIGHBOURS if rule else Form.OWN,
        cost=chosen.cost + parameters.bit_count + 2,
        slices=0,
        near=scales[-1] if scales else options.near,
        array=residuals,
        models=chosen.models,
        contexts=contexts,
        numbers=numbers,
        rule=rule,
    )


def write_tensor(writer: SymbolWriter, plan: Plan) -> None:
    """Write a tensor's models and what is coded of it."""
    if plan.contexts is None or plan.numbers is None:
        writer.write_model(plan.models[0])
        writer.put(plan.array, prepare(plan.models[0]))
        return
    if plan.rule:
        plan.rule.write(writer.bits)
    moved = plan.rule is not None and plan.rule.predicts
    if not plan.models_known:
        write_class_models(writer, plan.models, quantizers=plan.contexts.quantizers, moved=moved)
    coder = ClassCoder(plan.models, trellis=plan.contexts.quantizers > 1)
    keys = coder.keys(plan.contexts.classes, plan.contexts.places)
    coder.write(writer, plan.array, keys, plan.numbers)
