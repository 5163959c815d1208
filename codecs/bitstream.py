"""The bytes of one quantized network: names, shapes and steps, and the symbols, range-coded.

Version 1. A varint is LEB128, at most five bytes; bits are written most significant first.

| bytes | field          | meaning                                                                        |
|-------|----------------|--------------------------------------------------------------------------------|
| 1     | version        | 1; why first: a reader knows at once whether the rest means what is said here  |
| v     | directory size | varint, bytes of the directory once unpacked, at most 2**21                    |
| v     | stored size    | varint, bytes of the next field; equal sizes mean that it is stored as it is   |
| ...   | directory      | raw deflate (RFC 1951) with the dictionary of `directory`, or stored           |
| v     | model size     | varint, bytes of the model section                                             |
| ...   | model section  | bits, zero-padded to a whole byte                                              |
| 4 * n | words          | the range coder's words, uint32 little-endian, to the end of the stream        |

The directory: varint number of tensors, and for each tensor

| bytes | field          | meaning                                                                        |
|-------|----------------|--------------------------------------------------------------------------------|
| 1     | name length    | bytes of the name, 0 .. 255                                                    |
| ...   | name           | UTF-8, unique within the stream                                                |
| 1     | kind           | rank (0 .. 8) in the high four bits; in the low four 0 for one step per tensor,|
|       |                | or 1 + the axis along which each index has its own step                        |
| v ... | shape          | one varint per dimension                                                       |

The model section and the words advance together. For each tensor in order:

1. one bit: 1 if its steps are all on the grid of `steps`, else 0;
2. on the grid: each exponent minus a reference, coded as an array; the reference is -80 at first, later the
   first exponent of the latest tensor that had any. Else: each step as the 32 bits of its float32;
3. the symbols in C order, coded as an array.

An array is a model (`symbol_models`) in the model section, its symbols in the words, its escaped symbols
(signed Exp-Golomb of order 8) in the model section; an array without elements is nothing at all.

A reader refuses, before it allocates, more than 4096 tensors, 8 dimensions, 255 bytes of a name and 2**28
elements in all. Nothing here detects a changed word: the archive's checksums do. How it may grow: by another
version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from framefold.codecs.clip import Span
from framefold.codecs.directory import MAX_ELEMENTS, Entry, pack_directory, unpack_directory
from framefold.codecs.entropy import SymbolReader, SymbolWriter
from framefold.codecs.network import FloatTensor, QuantizedTensor, SymbolTensors
from framefold.codecs.steps import MAX_EXPONENT, MIN_EXPONENT, step_exponents, step_values
from framefold.codecs.symbol_models import MAX_SYMBOL
from framefold.codecs.varbits import BitstreamError
from framefold.codecs.varbytes import Cursor, pack_varint

__all__ = ["MAX_ELEMENTS", "VERSION", "BitstreamError", "decode", "encode"]

VERSION = 1
FIRST_EXPONENT = -80
"""2**-10: about where the first tensor's steps lie."""


def encode(symbols: SymbolTensors) -> bytes:
    """Write a quantized network; ValueError names a tensor that the format cannot hold.

    The axis of a tensor with a single step says nothing and is not stored: it reads back as 0.
    """
    entries = [_entry(name, tensor) for name, tensor in symbols.tensors.items()]
    directory = pack_directory(entries)
    writer = SymbolWriter()
    exponent = FIRST_EXPONENT
    for tensor in symbols.tensors.values():
        exponent = _write_steps(writer, tensor.steps, exponent)
        writer.write(tensor.symbols)
    model_section, words = writer.finish()
    return bytes([VERSION]) + directory + pack_varint(len(model_section)) + model_section + words


def decode(
    payload: bytes, *, span: Span, codec: str, config: Mapping[str, Any], max_elements: int = MAX_ELEMENTS
) -> SymbolTensors:
    """Give back exactly what `encode` was given.

    BitstreamError (a ValueError) says why the bytes are no such stream. `max_elements` bounds the memory
    that a stranger's stream may ask for (about 8 bytes each).
    """
    cursor = Cursor(payload)
    if (version := cursor.byte("version")) != VERSION:
        raise BitstreamError(
            f"the stream is version {version}, this program reads {VERSION}; read it with a newer framefold"
        )
    entries = unpack_directory(cursor, min(max_elements, MAX_ELEMENTS))
    model_section = cursor.take(cursor.varint("model size"), "model section")
    reader = SymbolReader(model_section, cursor.rest())
    tensors = _read_tensors(reader, entries)
    reader.finish()
    return SymbolTensors(span=span, codec=codec, config=config, tensors=tensors)


def _entry(name: str, tensor: QuantizedTensor) -> Entry:
    """Make the directory's line for a tensor, once that is known to be well-formed."""
    symbols, steps = tensor.symbols, tensor.steps
    if symbols.dtype != np.int32 or (symbols.size and max(-int(symbols.min()), int(symbols.max())) > MAX_SYMBOL):
        raise ValueError(f"tensor {name!r}: symbols must be int32 within +-{MAX_SYMBOL}, got {symbols.dtype}")
    if steps.dtype != np.float32 or not (np.isfinite(steps) & (steps > 0)).all():
        raise ValueError(f"tensor {name!r}: steps must be float32, finite and positive")
    by_channel = steps.shape != (1,)
    if by_channel and (not 0 <= tensor.axis < symbols.ndim or steps.shape != (symbols.shape[tensor.axis],)):
        raise ValueError(
            f"tensor {name!r}: steps are {steps.shape} for axis {tensor.axis} of {symbols.shape}; "
            "allowed are one step, or one for each index of that axis"
        )
    return Entry(name=name, shape=symbols.shape, channel_axis=tensor.axis if by_channel else None)


def _write_steps(writer: SymbolWriter, steps: FloatTensor, previous: int) -> int:
    """Write a tensor's steps; returns its first exponent, from which the next tensor counts."""
    exponents = step_exponents(steps)
    writer.bits.unsigned(exponents is not None, width=1)
    if exponents is None:
        for word in steps.view(np.uint32).tolist():
            writer.bits.unsigned(word, width=32)
        return previous
    writer.write((exponents - previous).astype(np.int32))
    return int(exponents[0]) if exponents.size else previous


def _read_tensors(reader: SymbolReader, entries: list[Entry]) -> dict[str, QuantizedTensor]:
    tensors = {}
    exponent = FIRST_EXPONENT
    for entry in entries:
        steps, exponent = _read_steps(reader, entry, exponent)
        symbols = reader.read(entry.size).reshape(entry.shape)
        tensors[entry.name] = QuantizedTensor(symbols=symbols, steps=steps, axis=entry.channel_axis or 0)
    return tensors


def _read_steps(reader: SymbolReader, entry: Entry, previous: int) -> tuple[FloatTensor, int]:
    if not reader.bits.unsigned(width=1):
        return _read_plain_steps(reader, entry), previous
    exponents = reader.read(entry.step_count) + np.int32(previous)
    if exponents.size and not MIN_EXPONENT <= exponents.min() <= exponents.max() <= MAX_EXPONENT:
        raise BitstreamError(f"tensor {entry.name!r}: a step is outside 2**-126 .. 2**128")
    return step_values(exponents), int(exponents[0]) if exponents.size else previous


def _read_plain_steps(reader: SymbolReader, entry: Entry) -> FloatTensor:
    words = [reader.bits.unsigned(width=32) for _ in range(entry.step_count)]
    steps = np.array(words, dtype=np.uint32).view(np.float32)
    if not (np.isfinite(steps) & (steps > 0)).all():
        raise BitstreamError(f"tensor {entry.name!r}: a step is not a positive number")
    return steps
