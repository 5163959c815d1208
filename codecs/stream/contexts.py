"""The hook for codecs that know more of an array than its neighbours do: a rule of their own.

A rule divides an array into slices and says of each symbol of the next slice, from all that is known by then, which
class it belongs to and where its middle is. Encoder and decoder both ask it, so it must be a function of its
arguments alone, in integer arithmetic: a float that differs in its last bit on another machine is a stream that
cannot be read there. What is written down is only that the rule was used, and the model of each class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from framefold.codecs.network import IntTensor
from framefold.codecs.stream.class_coding import Bytes, ClassCoder, Places
from framefold.codecs.stream.entropy import SymbolReader
from framefold.codecs.stream.neighbour_contexts import Contexts
from framefold.codecs.stream.places import MIDDLE
from framefold.codecs.stream.symbol_models import MAX_SYMBOL, Model

MAX_OWN_CLASSES = 64

ContextRules = Callable[[str, tuple[int, ...]], "ContextRule | None"]
"""Gives the rule for a tensor by its name and shape; None where the codec has none (`Codec.context_rule`)."""


class ContextRule(Protocol):
    """What a codec knows of one of its arrays."""

    @property
    def class_count(self) -> int:
        """How many classes there are, 1 .. MAX_OWN_CLASSES."""

    @property
    def models(self) -> Sequence[Model] | None:
        """The classes' models where both sides know them beforehand; None lets the encoder choose and store them."""

    def slices(self) -> Sequence[Places]:
        """Flat indices of the array's places, slice by slice; each place is in one slice."""

    def contexts(self, known: IntTensor, number: int) -> tuple[Bytes, IntTensor]:
        """Classes (uint8) and centres (int32) of the places of slice `number`, in their order.

        `known` is the array, flat int32, with 0 where it is not known yet; it must be left as it is.
        """


def no_rules(name: str, shape: tuple[int, ...]) -> None:
    """No tensor has a rule of its own."""


def contexts_of_rule(symbols: IntTensor, rule: ContextRule) -> tuple[Contexts, npt.NDArray[np.uint16]]:
    """What a codec's rule says of all symbols (flat int32), and the slice of each.

    ValueError if a place is in no slice or in two, or a class is none.
    """
    known = np.zeros_like(symbols)
    classes, centres = np.zeros(symbols.size, np.uint8), np.zeros(symbols.size, np.int32)
    numbers, times = np.zeros(symbols.size, np.uint16), np.zeros(symbols.size, np.uint8)
    for number, places in enumerate(rule.slices()):
        classes[places], centres[places] = rule.contexts(known, number)
        numbers[places] = number
        known[places] = symbols[places]
        times[places] += 1
    if not 1 <= rule.class_count <= MAX_OWN_CLASSES or (rule.models and len(rule.models) != rule.class_count):
        raise ValueError(
            f"the rule {rule} has {rule.class_count} classes, allowed are {MAX_OWN_CLASSES}, each with a model"
        )
    if (times != 1).any() or classes.max(initial=0) >= rule.class_count:
        raise ValueError(f"the rule {rule} must have each place in one slice, and classes below its class_count")
    return Contexts(
        classes=classes,
        centres=np.clip(centres, -MAX_SYMBOL, MAX_SYMBOL).astype(np.int32),
        places=np.full(symbols.size, MIDDLE, np.uint8),
        class_count=rule.class_count,
        quantizers=1,
    ), numbers


def decode_by_rule(reader: SymbolReader, coder: ClassCoder, rule: ContextRule, size: int) -> IntTensor:
    """Decode an array (flat int32) whose classes a codec's rule knows."""
    symbols = np.zeros(size, dtype=np.int32)
    for number, places in enumerate(rule.slices()):
        classes, centres = rule.contexts(symbols, number)
        keys = coder.keys(classes.astype(np.uint8), np.full(places.size, MIDDLE, np.uint8))
        centres = np.clip(centres, -MAX_SYMBOL, MAX_SYMBOL).astype(np.int32)
        symbols[places] = coder.read(reader, keys) + centres
    return symbols
