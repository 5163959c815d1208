"""The directory of a stream: which tensors follow, in which order, of which shape.

Everything a decoder allocates follows from these numbers, so each is checked before anything is allocated.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from framefold.codecs.varbits import BitstreamError
from framefold.codecs.varbytes import Cursor, pack_varint

MAX_TENSORS = 4096
MAX_RANK = 8
MAX_ELEMENTS = 2**28
"""Over all tensors of a stream; steps count as elements."""
MAX_NAME_BYTES = 255
MAX_DIRECTORY_BYTES = 2**21

_DICTIONARY = (
    b".gamma.beta.scale.table.latent.norm.embed.fc.decoder.encoder.stages.net.linear.grids.0.0.maps.grids.1.0.maps"
    b".up.stem.0.weight.stem.2.bias.layers.0.weight.layers.1.bias"
    b".blocks.0.conv.weight.blocks.1.conv.bias.head.weight.head.bias"
)
"""Where the compressor finds the usual names before it has seen any: part of version 1, not to be changed."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One tensor."""

    name: str
    shape: tuple[int, ...]
    channel_axis: int | None
    """The axis along which each index has its own step; None for one step in all."""

    @property
    def size(self) -> int:
        """Elements of the tensor."""
        return prod(self.shape)

    @property
    def step_count(self) -> int:
        """How many steps follow."""
        return 1 if self.channel_axis is None else self.shape[self.channel_axis]


def pack_directory(entries: Sequence[Entry]) -> bytes:
    """Directory as bytes; BitstreamError for what a reader would refuse."""
    check_entries(entries, MAX_ELEMENTS)
    plain = pack_varint(len(entries))
    for entry in entries:
        name = entry.name.encode()
        kind = len(entry.shape) << 4 | (0 if entry.channel_axis is None else entry.channel_axis + 1)
        plain += bytes([len(name)]) + name + bytes([kind]) + b"".join(map(pack_varint, entry.shape))
    packer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, _DICTIONARY)
    packed = packer.compress(plain) + packer.flush()
    stored = packed if len(packed) < len(plain) else plain
    return pack_varint(len(plain)) + pack_varint(len(stored)) + stored


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


def check_entries(entries: Sequence[Entry], max_elements: int) -> None:
    """BitstreamError, by the tensor's name, for what is beyond the limits of the format."""
    if len(entries) > MAX_TENSORS:
        raise BitstreamError(f"{len(entries)} tensors, allowed are {MAX_TENSORS}")
    if len({entry.name for entry in entries}) != len(entries):
        raise BitstreamError("two tensors have the same name")
    for entry in entries:
        _check_entry(entry)
    if (total := sum(entry.size + entry.step_count for entry in entries)) > max_elements:
        raise BitstreamError(f"{total} elements in all, allowed are {max_elements}")


def _check_entry(entry: Entry) -> None:
    if len(entry.name.encode()) > MAX_NAME_BYTES:
        raise BitstreamError(f"tensor {entry.name!r}: its name has more than {MAX_NAME_BYTES} bytes")
    if len(entry.shape) > MAX_RANK:
        raise BitstreamError(f"tensor {entry.name!r}: {len(entry.shape)} dimensions, allowed are {MAX_RANK}")
    if entry.channel_axis is not None and not 0 <= entry.channel_axis < len(entry.shape):
        raise BitstreamError(f"tensor {entry.name!r}: axis {entry.channel_axis} of {len(entry.shape)} dimensions")
    if prod(max(side, 1) for side in entry.shape) > MAX_ELEMENTS:  # numpy refuses (0, 2**62, 2**62) too
        raise BitstreamError(f"tensor {entry.name!r}: shape {entry.shape} is beyond {MAX_ELEMENTS} elements")


def _unpack_entry(plain: Cursor) -> Entry:
    try:
        name = plain.take(plain.byte("name length"), "name").decode()
    except UnicodeDecodeError as error:
        raise BitstreamError(f"a tensor's name is not UTF-8: {error}") from error
    rank, axis = divmod(plain.byte("kind"), 16)
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
