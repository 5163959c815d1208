"""Putting one stream of version 2 together: first every tensor's form is chosen, then all is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from framefold.codecs.network import FloatTensor, IntTensor, Parent, QuantizedTensor
from framefold.codecs.stream.contexts import ContextRules, no_rules
from framefold.codecs.stream.directory import Entry, write_directory
from framefold.codecs.stream.entropy import FIRST_SCALE, SymbolWriter
from framefold.codecs.stream.model_choice import Effort
from framefold.codecs.stream.step_coding import StepWriter, exponents_of, same_steps
from framefold.codecs.stream.stream_layout import (
    BYTES_PER_SLICE,
    FREE_SLICES,
    NAMED_CODERS,
    Coder,
    Flags,
    Head,
    base_entry,
    entry_of,
    least_bytes,
)
from framefold.codecs.stream.symbol_models import MAX_SYMBOL
from framefold.codecs.stream.tensor_forms import Form, write_form
from framefold.codecs.stream.tensor_plans import Plan, PlanOptions, plan_tensor, write_tensor
from framefold.codecs.stream.varbytes import pack_varint


@dataclass(frozen=True, kw_only=True)
class WriterOptions:
    """How a stream is written, as `bitstream.encode` has it."""

    coder: Coder
    rules: ContextRules
    contexts: bool
    effort: Effort


class StreamWriter:
    """One stream, with or without a parent."""

    def __init__(self, tensors: Mapping[str, QuantizedTensor], parent: Parent | None, options: WriterOptions) -> None:
        self._tensors, self._parent, self._coder = tensors, parent, options.coder
        self._entries = [_checked_entry(name, tensor) for name, tensor in tensors.items()]
        self._known = [base_entry(entry, parent) for entry in self._entries]
        self._exponents = exponents_of([tensor.steps for tensor in tensors.values()])
        self._effort = options.effort
        self._rules = options.rules if options.coder == "range" else no_rules
        self._contexts = options.contexts and options.effort == "best" and options.coder == "range"
        self._writer = SymbolWriter(effort=options.effort)

    def write(self) -> bytes:
        """Give the stream."""
        plans = list(self._plans())
        flags = Flags(
            trellis=any(entry.trellis for entry in self._entries),
            all_on_grid=all(exponents is not None for exponents in self._exponents),
            neighbours=any(plan.rule is not None for plan in plans if plan),
            own=any(plan.form == Form.OWN for plan in plans if plan),
        )
        self._write_directory(flags)
        steps = StepWriter(self._writer, all_on_grid=flags.all_on_grid)
        for number, plan in enumerate(plans):
            self._write_steps(steps, number)
            if plan:
                write_form(self._writer.bits, plan.form, flags.forms(self._entries[number], self._base(number)))
                if self._coder == "range":
                    write_tensor(self._writer, plan)
        return self._joined([plan for plan in plans if plan])

    def _base(self, number: int) -> IntTensor | None:
        """The parent's symbols, if they may be subtracted."""
        entry, known = self._entries[number], self._known[number]
        steps = self._tensors[entry.name].steps
        return known.symbols if known is not None and same_steps(known, entry, steps) else None

    def _plans(self) -> Iterator[Plan | None]:
        """How to code each tensor; None for one without elements."""
        near, bits, slices = FIRST_SCALE, 0.0, 0
        for number, entry in enumerate(self._entries):
            if not entry.size:
                yield None
                continue
            options = PlanOptions(
                parent=self._base(number),
                own=self._rules(entry.name, entry.shape),
                contexts=self._contexts,
                modelled=self._coder == "range",
                effort=self._effort,
                near=near,
                slices=FREE_SLICES + int(bits) // (8 * BYTES_PER_SLICE) - slices,
            )
            plan = plan_tensor(entry, self._tensors[entry.name], options)
            near, bits, slices = plan.near, bits + plan.cost, slices + plan.slices
            yield plan

    def _write_directory(self, flags: Flags) -> None:
        bits = self._writer.bits
        forms = [(entry.name, entry.form) for entry in self._entries]
        if self._parent:
            theirs = [entry_of(name, tensor) for name, tensor in self._parent.tensors.items()]
            as_parent = forms == [(entry.name, entry.form) for entry in theirs]
            bits.unsigned(as_parent, width=1)
        if not (self._parent and as_parent):
            write_directory(bits, self._entries)
        flags.write(bits, named=self._coder != "range")
        if flags.trellis:
            for entry in self._entries:
                bits.unsigned(entry.trellis, width=1)

    def _write_steps(self, writer: StepWriter, number: int) -> None:
        entry = self._entries[number]
        if self._known[number] is not None:
            same = self._base(number) is not None
            self._writer.bits.unsigned(same, width=1)
            if same:
                return
        writer.write(self._tensors[entry.name].steps, self._exponents[number])

    def _joined(self, plans: Sequence[Plan]) -> bytes:
        section, words = self._writer.finish()
        parent = bytes.fromhex(self._parent.sha256) if self._parent else b""
        head = Head(coder=self._coder, parent=parent).pack() + pack_varint(len(section)) + section
        arrays = b""
        if self._coder != "range":
            arrays = NAMED_CODERS[self._coder].encode([plan.array for plan in plans])
        elements = sum(entry.size + entry.step_count for entry in self._entries)
        slices, entries = sum(plan.slices for plan in plans), self._writer.table_entries
        wanted = least_bytes(elements, slices=slices, entries=entries)
        words += bytes(max(wanted - len(head + words + arrays), 0))
        return head + (words if self._coder == "range" else pack_varint(len(words)) + words + arrays)


def _all_positive(steps: FloatTensor) -> bool:
    """Whether all are finite and > 0."""
    if steps.size == 1:  # the usual case, ten times as fast
        return 0 < steps.item() < inf
    return bool((np.isfinite(steps) & (steps > 0)).all())


def _checked_entry(name: str, tensor: QuantizedTensor) -> Entry:
    """Make the directory's line for a tensor, once that is known to be well-formed."""
    symbols, steps = tensor.symbols, tensor.steps
    if symbols.dtype != np.int32 or (symbols.size and max(-int(symbols.min()), int(symbols.max())) > MAX_SYMBOL):
        raise ValueError(f"tensor {name!r}: symbols must be int32 within +-{MAX_SYMBOL}, got {symbols.dtype}")
    if steps.dtype != np.float32 or not _all_positive(steps):
        raise ValueError(f"tensor {name!r}: steps must be float32, finite and positive")
    by_channel = steps.shape != (1,)
    if by_channel and (not 0 <= tensor.axis < symbols.ndim or steps.shape != (symbols.shape[tensor.axis],)):
        raise ValueError(
            f"tensor {name!r}: steps are {steps.shape} for axis {tensor.axis} of {symbols.shape}; "
            "allowed are one step, or one for each index of that axis"
        )
    return entry_of(name, tensor)
