"""The directory of a stream: which tensors follow, in which order, of which shape.

Everything a decoder allocates follows from these numbers, so each is checked before anything is allocated. A
name is mostly the successor of an earlier one (`layers.1.bias` of `layers.0.bias`), or made of usual words, and
a shape mostly an earlier one: a directory of twelve tensors takes some twenty bytes. `bitstream` has the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from framefold.codecs.stream.varbits import BitReader, BitstreamError, BitWriter

MAX_TENSORS = 4096
MAX_RANK = 8
MAX_ELEMENTS = 2**28
"""Over all tensors of a stream; steps count as elements."""
MAX_NAME_BYTES = 255

WORDS = (
    *("weight", "bias", "layers", "head", "blocks", "conv", "stem", "grids", "maps", "norm", "linear", "net"),
    *("decoder", "encoder", "stages", "embed", "latent", "latents", "table", "scale", "gamma", "beta", "up", "fc"),
    *("proj", "mlp", "in", "out", "depthwise", "pointwise", "gate", "code"),
)
"""Usual parts of names, by number: part of version 2, not to be changed."""

_WORD_BITS = 5
_REMEMBERED = 16  # dimensions
_LOOKED_BACK = 64  # tensors, by the writer


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One tensor."""

    name: str
    shape: tuple[int, ...]
    channel_axis: int | None
    """The axis along which each index has its own step; None for one step in all."""
    trellis: bool = False
    """Its symbols follow the paths of `trellis`; never in version 1."""

    @property
    def size(self) -> int:
        """Elements of the tensor."""
        return prod(self.shape)

    @property
    def step_count(self) -> int:
        """How many steps follow."""
        return 1 if self.channel_axis is None else self.shape[self.channel_axis]

    @property
    def form(self) -> tuple[tuple[int, ...], int | None]:
        """Shape and axis."""
        return self.shape, self.channel_axis


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


# ---- writing


def write_directory(bits: BitWriter, entries: Sequence[Entry]) -> None:
    """Write all but the trellis flags; BitstreamError for what a reader would refuse."""
    check_entries(entries, MAX_ELEMENTS)
    bits.exp_golomb(len(entries), order=3)
    dimensions: list[int] = []
    successors: list[str | None] = []  # of the latest names, the latest first
    for number, entry in enumerate(entries):
        back = _write_name(bits, entry.name, entries[number - 1].name if number else None, successors)
        successors = [successor(entry.name), *successors[: _LOOKED_BACK - 1]]
        if back and entry.form == entries[number - back].form:
            bits.unsigned(1, width=1)
            continue
        if back:
            bits.unsigned(0, width=1)
        _write_form(bits, entry, dimensions)


def _write_name(bits: BitWriter, name: str, latest: str | None, successors: list[str | None]) -> int:
    """Returns how far back the name is of which it is the successor; 0 if it is spelled."""
    if name in successors:
        bits.unsigned(1, width=1)
        bits.exp_golomb(successors.index(name), order=1)
        return successors.index(name) + 1
    bits.unsigned(0, width=1)
    parts, before = name.split("."), [] if latest is None else latest.split(".")
    shared = next((i for i, pair in enumerate(zip(parts[:-1], before, strict=False)) if pair[0] != pair[1]), None)
    shared = min(len(parts) - 1, len(before)) if shared is None else shared
    bits.exp_golomb(shared, order=0)
    bits.exp_golomb(len(parts) - shared - 1, order=1)
    for part in parts[shared:]:
        _write_part(bits, part)
    return 0


def _write_part(bits: BitWriter, part: str) -> None:
    if part in WORDS:
        bits.unsigned(0, width=1)
        bits.unsigned(WORDS.index(part), width=_WORD_BITS)
    elif _is_number(part):
        bits.unsigned(2, width=2)
        bits.exp_golomb(int(part), order=1)
    else:
        bits.unsigned(3, width=2)
        bits.exp_golomb(len(part.encode()), order=3)
        bits.raw(part.encode())


def _is_number(part: str) -> bool:
    return part.isascii() and part.isdigit() and part == str(int(part)) and int(part) < 2**31


@lru_cache(maxsize=MAX_TENSORS)
def successor(name: str) -> str | None:
    """The name with its last number one higher; None for a name without a number."""
    parts = name.split(".")
    for place in reversed(range(len(parts))):
        if _is_number(parts[place]):
            parts[place] = str(int(parts[place]) + 1)
            return ".".join(parts)
    return None


def _write_form(bits: BitWriter, entry: Entry, dimensions: list[int]) -> None:
    bits.unsigned(len(entry.shape), width=4)
    bits.exp_golomb(0 if entry.channel_axis is None else entry.channel_axis + 1, order=0)
    for side in entry.shape:
        known = side in dimensions
        bits.unsigned(known, width=1)
        bits.exp_golomb(dimensions.index(side) if known else side, order=0 if known else 5)
        _remember(dimensions, side)


def _remember(dimensions: list[int], side: int) -> None:
    """Put a dimension first, the oldest is forgotten."""
    if side in dimensions:
        dimensions.remove(side)
    dimensions.insert(0, side)
    del dimensions[_REMEMBERED:]


# ---- reading


def read_directory(bits: BitReader, max_elements: int) -> list[Entry]:
    """Read what `write_directory` wrote; BitstreamError if it is damaged or beyond the limits."""
    count = bits.exp_golomb(order=3)
    if count > MAX_TENSORS:
        raise BitstreamError(f"the directory claims {count} tensors, allowed are {MAX_TENSORS}")
    entries: list[Entry] = []
    dimensions: list[int] = []
    for _ in range(count):
        name, back = _read_name(bits, entries)
        if len(name.encode()) > MAX_NAME_BYTES:
            raise BitstreamError(f"tensor {name!r}: its name has more than {MAX_NAME_BYTES} bytes")
        same = back and bits.unsigned(width=1)
        shape, axis = entries[-back].form if same else _read_form(bits, dimensions)
        entries.append(Entry(name=name, shape=shape, channel_axis=axis))
    check_entries(entries, max_elements)
    return entries


def _read_name(bits: BitReader, entries: list[Entry]) -> tuple[str, int]:
    if bits.unsigned(width=1):
        back = bits.exp_golomb(order=1) + 1
        name = successor(entries[-back].name) if back <= len(entries) else None
        if name is None:
            raise BitstreamError("a tensor's name follows on one that has no successor")
        return name, back
    before = entries[-1].name.split(".") if entries else []
    shared, count = bits.exp_golomb(order=0), bits.exp_golomb(order=1) + 1
    if shared > len(before) or count > MAX_NAME_BYTES + 1:
        raise BitstreamError(f"a tensor's name shares {shared} of {len(before)} parts, and has {count} more")
    return ".".join([*before[:shared], *(_read_part(bits) for _ in range(count))]), 0


def _read_part(bits: BitReader) -> str:
    if not bits.unsigned(width=1):
        return WORDS[bits.unsigned(width=_WORD_BITS)]
    if not bits.unsigned(width=1):
        return str(bits.exp_golomb(order=1))
    try:
        return bits.raw(bits.exp_golomb(order=3)).decode()
    except UnicodeDecodeError as error:
        raise BitstreamError(f"a tensor's name is not UTF-8: {error}") from error


def _read_form(bits: BitReader, dimensions: list[int]) -> tuple[tuple[int, ...], int | None]:
    rank, axis = bits.unsigned(width=4), bits.exp_golomb(order=0)
    shape = []
    for _ in range(rank):
        known = bits.unsigned(width=1)
        side = bits.exp_golomb(order=0 if known else 5)
        if known and side >= len(dimensions):
            raise BitstreamError(f"a tensor's dimension is the {side}th last, there were {len(dimensions)}")
        shape.append(dimensions[side] if known else side)
        _remember(dimensions, shape[-1])
    return tuple(shape), axis - 1 if axis else None
