"""A network's stream, with what its codec knows of its tensors: the one way in which stages write and read the bits."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from framefold.codecs.base import Codec
from framefold.codecs.network import Bitstream, SymbolTensors
from framefold.codecs.sizing import MAX_PARAMETERS
from framefold.codecs.stream import bitstream
from framefold.codecs.stream.bitstream import Coder, Effort
from framefold.codecs.stream.contexts import ContextRule, ContextRules
from framefold.stages.codec_choice import codec_of


def encoded(
    symbols: SymbolTensors, *, coder: Coder = "range", contexts: bool = True, effort: Effort = "best"
) -> Bitstream:
    """Write a quantized network; its parent goes along if the stream needs it."""
    rules = _rules(symbols.codec, symbols.config)
    payload = bitstream.encode(symbols, coder=coder, rules=rules, contexts=contexts, effort=effort)
    needs_parent = bitstream.parent_of(payload) is not None
    return Bitstream(
        span=symbols.span,
        codec=symbols.codec,
        config=symbols.config,
        payload=payload,
        target=symbols.target,
        parent=symbols.parent.payload if symbols.parent and needs_parent else None,
        outcome=symbols.outcome,
    )


def decoded(bits: Bitstream) -> SymbolTensors:
    """Read it back, within what a decoder may take; BitstreamError if the bytes are no such stream."""
    return bitstream.decode(
        bits.payload,
        span=bits.span,
        codec=bits.codec,
        config=bits.config,
        max_elements=MAX_PARAMETERS,
        parent=bits.parent,
        rules=_rules(bits.codec, bits.config),
    )


def _rules(name: str, config: Mapping[str, Any]) -> ContextRules:
    """The codec's rules; it is made when a tensor is asked for, for most streams of others need none."""

    @cache
    def codec() -> Codec:
        return codec_of(name, config)

    def rule(tensor: str, shape: tuple[int, ...]) -> ContextRule | None:
        return codec().context_rule(tensor, shape)

    return rule
