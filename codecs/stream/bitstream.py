"""The bytes of one quantized network: names, shapes and steps, and the symbols, range-coded.

Version 2 is written; version 1 (`stream_v1`) is read too. A varint is LEB128, at most five bytes. Bits are written
most significant first; EGk and EGks are unsigned and signed Exp-Golomb codes of order k (`varbits`).

| bytes | field          | meaning                                                                        |
|-------|----------------|--------------------------------------------------------------------------------|
| 1     | head           | version 2 in the low four bits; 16 and 32: the coder, 0 range, 1 huffman,      |
|       |                | 2 zstd; 64: there is a parent; 128: 0                                          |
| 32    | parent         | only with a parent: the SHA-256 of its whole stream                            |
| v     | model size     | varint, bytes of the model section                                             |
| ...   | model section  | bits, zero-padded to a whole byte                                              |
| v     | words size     | varint, bytes of the next field; only with the coders huffman and zstd         |
| ...   | words          | the range coder's words, uint32 big-endian; zero bytes at the end say nothing, |
|       |                | so they may be left out or added                                               |
| ...   | arrays         | only with huffman and zstd: all arrays as `huffman` or `zstd_coder` stores them|

A parent is a stream of its own, of version 1 or 2, without a parent.

The model section and the words advance together. First comes what holds for the whole stream:

| bits  | field          | meaning                                                                        |
|-------|----------------|--------------------------------------------------------------------------------|
| 1     | known          | only with a parent: 1 if names, shapes and axes are the parent's, in its order |
| ...   | directory      | unless they are                                                                |
| 1     | trellis        | 1 if some tensors are on a trellis                                             |
| 1     | on the grid    | 1 if all steps are on the grid of `steps`                                      |
| 1     | neighbours     | only with the range coder: 1 if some tensors are coded by a rule of neighbours |
| 1     | own            | only with the range coder: 1 if some tensors are coded by their codec's rule   |
| n     | trellis flags  | only with trellis: for each tensor, 1 if it is on one                          |

The directory: EG3 number of tensors, and for each

| bits  | field          | meaning                                                                        |
|-------|----------------|--------------------------------------------------------------------------------|
| 1     | follows        | 1: the name is that of an earlier tensor, its last number (a part, between     |
|       |                | dots, that is a decimal number below 2**31 without leading zeros) one higher   |
| EG1   | back           | if it follows: on the tensor so many places before the latest one              |
| EG0   | shared         | else: how many parts it begins with as the latest name does                    |
| EG1   | more           | else: how many parts follow, less 1; each is a bit 0 and 5 bits of index into  |
|       |                | `directory.WORDS`, or bits 10 and a number EG1, or bits 11, a length EG3 and   |
|       |                | so many bytes UTF-8                                                            |
| 1     | same           | if it follows: 1 if shape and axis are those of the tensor that it follows on; |
|       |                | then the rest is left out                                                      |
| 4     | rank           | 0 .. 8                                                                         |
| EG0   | axis           | 0 for one step per tensor, or 1 + the axis along which each index has its own  |
| ...   | shape          | for each dimension a bit 1 and EG0, how many other dimensions have been        |
|       |                | written since this one (of the latest 16), or a bit 0 and the dimension EG5    |

For each tensor in order:

1. If the parent has a tensor of this name and shape: one bit, 1 if the steps are its steps too (the axis must be
   the same); then nothing else is written of them.
2. Else the steps: unless all are on the grid, one bit, 1 if these are. On the grid: each exponent minus a
   reference, as an array, or EG3s if there is one; the reference is -80 at first, later the first exponent of the
   latest tensor that wrote any. Not on the grid: each step as the 32 bits of its float32.
3. If it has elements: the form, as so many bits 1 and then a bit 0, which the last possible one does not have. The
   possible ones of these, in this order:

   | form       | possible                  | what is coded                                                   |
   |------------|---------------------------|-----------------------------------------------------------------|
   | plain      | always                    | the symbols in C order, of a trellis tensor its levels; an array|
   | neighbours | flag; 64 .. 2**24 elements| the same, by the rule that follows                              |
   | own        | flag; no trellis          | the symbols, by the codec's rule (`contexts`)                   |
   | difference | steps are the parent's    | the symbols less the parent's, an array                         |
   | symbols    | trellis                   | the symbols as they are, an array                               |

   With the coders huffman and zstd only the forms are here, all arrays with elements at the stream's end.

An array is a model (`symbol_models`) in the model section, its symbols in the words, its escaped symbols (EG8s) in
the model section; an array without elements is nothing at all. A curve's scale is written against that of the
stream's latest curve, 40 at first.

A rule of neighbours (`neighbours` says what it means):

| bits  | field          | meaning                                                                        |
|-------|----------------|--------------------------------------------------------------------------------|
| EG1   | neighbours     | how many; for each, by number:                                                 |
| EG0   | number         | less the number before (-1 at first), less 1                                   |
| EG2s  | weight         | of the prediction, in sixteenths, -64 .. 64                                    |
| 2     | energy         | weight in the local energy; 0 for the parent                                   |
| 4     | classes        | their number, less 1; the rest is left out if it is 1                          |
| 3 3 3 | activity       | weights of row, column and local energy                                        |
| 7     | prior          | of the mean error                                                              |
| 4     | middle         | the class of the prior                                                         |

Then, for both kinds of rule, the models of the classes (`class_parameters`; none where a codec's rule knows them),
and the symbols slice by slice, within a slice by class, within a class by place (`places`: where the prediction lies
between two symbols), within that in C order. Escaped symbols stand in the order in which they are coded.

A reader refuses, before it allocates, more than 4096 tensors, 8 dimensions, 255 bytes of a name and 2**28 elements
in all (steps count as elements). So that a short stream cannot cost much time, one of n bytes may hold 2**20 +
4096 * n elements, be decoded in 4096 + n / 8 slices, and have tables of 2**22 + 1024 * n entries; a writer adds zero
bytes to the words where this is not enough. A tensor coded by a rule of neighbours counts for its slices and one more
for each 256 elements, a plain one on a trellis for the columns that it is walked along; and no tensor has more than
65535 slices. Nothing here detects a changed word: the archive's checksums do. How it may grow: by another version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from framefold.codecs.clip import Span
from framefold.codecs.network import Parent, QuantizedTensor, SymbolTensors
from framefold.codecs.stream import stream_v1
from framefold.codecs.stream.contexts import ContextRules, no_rules
from framefold.codecs.stream.directory import MAX_ELEMENTS
from framefold.codecs.stream.model_choice import EFFORTS, Effort
from framefold.codecs.stream.stream_layout import CODERS, VERSION, Coder, Head
from framefold.codecs.stream.stream_reader import StreamReader
from framefold.codecs.stream.stream_writer import StreamWriter, WriterOptions
from framefold.codecs.stream.varbits import BitstreamError
from framefold.codecs.stream.varbytes import Cursor

__all__ = [
    "MAX_ELEMENTS",
    "VERSION",
    "BitstreamError",
    "Coder",
    "Effort",
    "decode",
    "encode",
    "parent_of",
    "read_parent",
]


def encode(
    symbols: SymbolTensors,
    *,
    coder: Coder = "range",
    rules: ContextRules = no_rules,
    contexts: bool = True,
    effort: Effort = "best",
) -> bytes:
    """Write a quantized network; ValueError names a tensor that the format cannot hold.

    The axis of a tensor with a single step says nothing and is not stored: it reads back as 0. A parent that would
    save nothing is not named. Without `contexts` no tensor is coded from its neighbours: four to ten times faster
    to write, and larger. With the effort fast they are not looked at either, and a model is one that quartiles and
    moments point to: three to five times faster again, and mostly less than 0.2 % larger.
    """
    if coder not in CODERS:
        raise ValueError(f"coder is {coder!r}, allowed is one of {', '.join(CODERS)}")
    if effort not in EFFORTS:
        raise ValueError(f"effort is {effort!r}, allowed is one of {', '.join(EFFORTS)}")
    parent = symbols.parent
    if parent is not None and parent_of(parent.payload) is not None:
        raise ValueError("the parent has a parent itself, which none may have; name that one instead")

    def write(parent: Parent | None) -> bytes:
        options = WriterOptions(coder=coder, rules=rules, contexts=contexts, effort=effort)
        return StreamWriter(symbols.tensors, parent, options).write()

    return min(write(parent), write(None), key=len) if parent else write(None)


def decode(
    payload: bytes,
    *,
    span: Span,
    codec: str,
    config: Mapping[str, Any],
    max_elements: int = MAX_ELEMENTS,
    parent: bytes | None = None,
    rules: ContextRules = no_rules,
) -> SymbolTensors:
    """Give back exactly what `encode` was given.

    BitstreamError (a ValueError) says why the bytes are no such stream, or that its `parent` (a whole stream) is
    absent or another one. `max_elements` bounds the memory that a stranger's stream may ask for (about 8 bytes
    each, 60 while a tensor is decoded from its neighbours), its parent's apart. `rules` are those of `encode`.
    """
    limit = min(max_elements, MAX_ELEMENTS)
    known = None
    if wanted := parent_of(payload):
        if parent is None:
            raise BitstreamError(f"the stream is the difference to a parent, SHA-256 {wanted}; give that stream too")
        if (got := hashlib.sha256(parent).hexdigest()) != wanted:
            raise BitstreamError(f"the stream is the difference to a parent, SHA-256 {wanted}; got {got}")
        known = read_parent(parent, max_elements=limit, rules=rules)
    tensors = _read(payload, limit, known, rules)
    return SymbolTensors(span=span, codec=codec, config=config, tensors=tensors, parent=known)


def parent_of(payload: bytes) -> str | None:
    """Hexadecimal SHA-256 of the stream that this one needs; None if it needs none."""
    head = Head.read(Cursor(payload))
    return head.parent.hex() if head and head.parent else None


def read_parent(payload: bytes, *, max_elements: int = MAX_ELEMENTS, rules: ContextRules = no_rules) -> Parent:
    """Read a stream that others may name as their parent; BitstreamError if it has a parent itself."""
    if (grandparent := parent_of(payload)) is not None:
        raise BitstreamError(f"a parent cannot have a parent; this one's is SHA-256 {grandparent}")
    return Parent(payload=payload, tensors=_read(payload, min(max_elements, MAX_ELEMENTS), None, rules))


def _read(payload: bytes, limit: int, parent: Parent | None, rules: ContextRules) -> dict[str, QuantizedTensor]:
    cursor = Cursor(payload)
    head = Head.read(cursor)
    if head is None:
        return stream_v1.read_stream(cursor, limit)
    return StreamReader(cursor, head, parent, size=len(payload), rules=rules).read(limit)
