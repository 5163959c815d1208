"""What becomes of pixels: a fitted network, its quantized symbols, its bits. One small class per step."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from framefold.codecs.clip import Clip, Span
from framefold.codecs.rate.targets import Outcome

FloatTensor = npt.NDArray[np.float32]
IntTensor = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class Parent:
    """A stored network that others name by the SHA-256 of its bytes, to code no more than the difference."""

    payload: bytes = field(repr=False)
    """Its own stream; it has no parent itself."""
    tensors: Mapping[str, QuantizedTensor] = field(repr=False)
    """What the stream holds."""

    @cached_property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the payload: the parent's name."""
        return hashlib.sha256(self.payload).hexdigest()

    @property
    def nbytes(self) -> int:
        """Bytes of the stream and of the symbols."""
        return len(self.payload) + sum(tensor.symbols.nbytes for tensor in self.tensors.values())


@dataclass(frozen=True, kw_only=True)
class FittedNetwork:
    """A network that, evaluated, gives its span's frames back."""

    span: Span
    codec: str
    """Registered name of the codec that reads it."""
    config: Mapping[str, Any]
    """The codec's resolved options (JSON values): nothing in them depends on a default that may change."""
    tensors: Mapping[str, FloatTensor] = field(repr=False)
    """Named float32 parameters, in the order in which they are coded."""
    target: Clip | None = field(default=None, repr=False)
    """The pixels it was fitted to, for stages that fine-tune or measure; never written to an archive."""
    parent: Parent | None = field(default=None, repr=False)
    """The network from which the fit began, if what is stored shall be the difference."""

    @property
    def nbytes(self) -> int:
        """Bytes of parameters, and of the pixels and the parent that travel along."""
        return sum(tensor.nbytes for tensor in self.tensors.values()) + _along_with(self.target, self.parent)

    def as_symbols(self, tensors: Mapping[str, QuantizedTensor]) -> SymbolTensors:
        """Put integers in the place of its tensors."""
        return SymbolTensors(
            span=self.span,
            codec=self.codec,
            config=self.config,
            tensors=tensors,
            target=self.target,
            parent=self.parent,
        )


@dataclass(frozen=True, kw_only=True)
class QuantizedTensor:
    """Integers on a uniform grid: the value at index i is `symbols[i] * steps[channel of i]`."""

    symbols: IntTensor = field(repr=False)
    """int32, the parameter's own shape; |symbol| < 2**15."""
    steps: FloatTensor = field(repr=False)
    """float32, shape (1,) for one step per tensor, or (shape[axis],) for one per channel; finite, > 0."""
    axis: int = 0
    """The channel axis when there is one step per channel."""
    trellis: bool = False
    """The symbols were chosen along the paths of `trellis`, and are coded as its levels."""

    @property
    def spread_steps(self) -> FloatTensor:
        """The steps with the axes that broadcast to the symbols' shape."""
        shape = [1] * self.symbols.ndim
        if self.steps.size > 1:
            shape[self.axis] = -1
        return self.steps.reshape(shape)

    def dequantize(self) -> FloatTensor:
        """Float32 values of the parameter's shape."""
        return np.multiply(self.symbols.astype(np.float32), self.spread_steps, dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class SymbolTensors:
    """A quantized network: integers and their steps, from here on everything is lossless."""

    span: Span
    codec: str
    config: Mapping[str, Any]
    tensors: Mapping[str, QuantizedTensor] = field(repr=False)
    """In the order in which they are coded. The integers are whole, also where there is a parent."""
    target: Clip | None = field(default=None, repr=False)
    parent: Parent | None = field(default=None, repr=False)
    """Whose integers the stream may subtract: tensors of the same name, shape and steps."""
    outcome: Outcome | None = None
    """What a search for a target found out, for the report."""

    @property
    def nbytes(self) -> int:
        """Bytes of symbols, and of the pixels and the parent that travel along."""
        symbols = sum(tensor.symbols.nbytes for tensor in self.tensors.values())
        return symbols + _along_with(self.target, self.parent)

    def dequantize(self) -> FittedNetwork:
        """The network that a decoder will see."""
        return FittedNetwork(
            span=self.span,
            codec=self.codec,
            config=self.config,
            tensors={name: tensor.dequantize() for name, tensor in self.tensors.items()},
            target=self.target,
            parent=self.parent,
        )


@dataclass(frozen=True, kw_only=True)
class Bitstream:
    """A codec's bytes for one span: all that a decoder needs besides the span, the codec and its config."""

    span: Span
    codec: str
    config: Mapping[str, Any]
    payload: bytes = field(repr=False)
    """`codecs.bitstream` describes the bytes."""
    target: Clip | None = field(default=None, repr=False)
    parent: bytes | None = field(default=None, repr=False)
    """The stream of the network that this one names as its parent: needed to decode it."""
    outcome: Outcome | None = None
    """What a search for a target found out, for the report."""

    @property
    def nbytes(self) -> int:
        """Bytes of the stream, and of the pixels and the parent that travel along."""
        return len(self.payload) + len(self.parent or b"") + _along_with(self.target, None)


def _along_with(target: Clip | None, parent: Parent | None) -> int:
    pixels = target.nbytes if target else 0
    return pixels + (parent.nbytes if parent else 0)
