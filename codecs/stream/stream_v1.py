"""Reading streams of version 1, which were written before there were parents, trellises and contexts.

A varint is LEB128, at most five bytes; bits are written most significant first.

| bytes | field          | meaning                                                                        |
|-------|----------------|--------------------------------------------------------------------------------|
| 1     | version        | 1                                                                              |
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
"""

from __future__ import annotations

import zlib

import numpy as np

from framefold.codecs.network import FloatTensor, QuantizedTensor
from framefold.codecs.quantizing.steps import MAX_EXPONENT, MIN_EXPONENT, step_values
from framefold.codecs.stream.directory import MAX_RANK, MAX_TENSORS, Entry, check_entries
from framefold.codecs.stream.entropy import SymbolReader
from framefold.codecs.stream.varbits import BitReader, BitstreamError
from framefold.codecs.stream.varbytes import Cursor

FIRST_EXPONENT = -80
"""2**-10: about where the first tensor's steps lie."""
MAX_DIRECTORY_BYTES = 2**21

_DICTIONARY = (
    b".gamma.beta.scale.table.latent.norm.embed.fc.decoder.encoder.stages.net.linear.grids.0.0.maps.grids.1.0.maps"
    b".up.stem.0.weight.stem.2.bias.layers.0.weight.layers.1.bias"
    b".blocks.0.conv.weight.blocks.1.conv.bias.head.weight.head.bias"
)
"""What the compressor had seen before the first name."""


def read_stream(cursor: Cursor, max_elements: int) -> dict[str, QuantizedTensor]:
    """Read all that follows the version byte; BitstreamError says why the bytes are no such stream."""
    entries = unpack_directory(cursor, max_elements)
    model_section = cursor.take(cursor.varint("model size"), "model section")
    reader = SymbolReader(model_section, cursor.rest(), version=1)
    tensors = {}
    exponent = FIRST_EXPONENT
    for entry in entries:
        steps, exponent = _read_steps(reader, entry, exponent)
        symbols = reader.read(entry.size).reshape(entry.shape)
        tensors[entry.name] = QuantizedTensor(symbols=symbols, steps=steps, axis=entry.channel_axis or 0)
    reader.finish()
    return tensors


def unpack_directory(cursor: Cursor, max_elements: int) -> list[Entry]:
    """Read the directory at the cursor; BitstreamError if it is damaged or beyond the limits."""
    size, stored_size = cursor.varint("directory size"), cursor.varint("stored directory size")
    if size > MAX_DIRECTORY_BYTES or stored_size > size:
        raise BitstreamError(f"the directory claims {size} bytes in {stored_size}, allowed are {MAX_DIRECTORY_BYTES}")
    stored = cursor.take(stored_size, "directory")
    plain = Cursor(stored if stored_size == size else _inflate(stored, size))
    count = plain.varint("tensor count")
    if count > MAX_TENSORS:
        raise BitstreamError(f"the directory claims {count} tensors, allowed are {MAX_TENSORS}")
    entries = [_unpack_entry(plain) for _ in range(count)]
    if plain.rest():
        raise BitstreamError("bytes are left over behind the directory's last tensor")
    check_entries(entries, max_elements)
    return entries


def _unpack_entry(plain: Cursor) -> Entry:
    try:
        name = plain.take(plain.byte("name length"), "name").decode()
    except UnicodeDecodeError as error:
        raise BitstreamError(f"a tensor's name is not UTF-8: {error}") from error
    rank, axis = divmod(plain.byte("kind"), 16)
    if rank > MAX_RANK:
        raise BitstreamError(f"tensor {name!r}: {rank} dimensions, allowed are {MAX_RANK}")
    shape = tuple(plain.varint("dimension") for _ in range(rank))
    return Entry(name=name, shape=shape, channel_axis=axis - 1 if axis else None)


def _inflate(stored: bytes, size: int) -> bytes:
    """Raw deflate, never more than `size` bytes of it."""
    unpacker = zlib.decompressobj(-15, _DICTIONARY)
    try:
        plain = unpacker.decompress(stored, size + 1)
    except zlib.error as error:
        raise BitstreamError(f"the directory is damaged: {error}") from error
    if len(plain) != size or not unpacker.eof or unpacker.unused_data:
        raise BitstreamError(f"the directory does not unpack to the {size} bytes that it claims")
    return plain


def _read_steps(reader: SymbolReader, entry: Entry, previous: int) -> tuple[FloatTensor, int]:
    if not reader.bits.unsigned(width=1):
        return read_plain_steps(reader.bits, entry), previous
    exponents = reader.read(entry.step_count) + np.int32(previous)
    if exponents.size and not MIN_EXPONENT <= exponents.min() <= exponents.max() <= MAX_EXPONENT:
        raise BitstreamError(f"tensor {entry.name!r}: a step is outside 2**-126 .. 2**128")
    return step_values(exponents), int(exponents[0]) if exponents.size else previous


def read_plain_steps(bits: BitReader, entry: Entry) -> FloatTensor:
    """Read steps that are stored as float32."""
    if 32 * entry.step_count > bits.bits_left:
        raise BitstreamError(f"tensor {entry.name!r} claims {entry.step_count} steps, {bits.bits_left} bits are left")
    words = [bits.unsigned(width=32) for _ in range(entry.step_count)]
    steps = np.array(words, dtype=np.uint32).view(np.float32)
    if not (np.isfinite(steps) & (steps > 0)).all():
        raise BitstreamError(f"tensor {entry.name!r}: a step is not a positive number")
    return steps
