"""What writer and reader of a stream of version 2 share: its first bytes, its flags, and how much it may ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Literal, Self, get_args

from framefold.codecs.network import IntTensor, Parent, QuantizedTensor
from framefold.codecs.stream import huffman, zstd_coder
from framefold.codecs.stream.directory import Entry
from framefold.codecs.stream.tensor_forms import Form, can_have_rule
from framefold.codecs.stream.varbits import BitReader, BitstreamError, BitWriter
from framefold.codecs.stream.varbytes import Cursor

VERSION = 2
Coder = Literal["range", "huffman", "zstd"]
"""What codes the symbols; steps and directory are stored alike with all of them."""
CODERS: tuple[Coder, ...] = get_args(Coder)
NAMED_CODERS: Mapping[str, ModuleType] = {"huffman": huffman, "zstd": zstd_coder}

FREE_ELEMENTS, ELEMENTS_PER_BYTE = 2**20, 2**12
"""A stream holds at most so many elements, and so many more for each of its bytes."""
FREE_SLICES, BYTES_PER_SLICE = 2**12, 8
"""A stream is decoded in at most so many slices, and one more for so many of its bytes."""
FREE_ENTRIES, ENTRIES_PER_BYTE = 2**22, 2**10
"""Its tables have at most so many entries, and so many more for each of its bytes."""

_PARENT_FLAG = 0x40
_HASH_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class Head:
    """The first bytes."""

    coder: Coder
    parent: bytes
    """SHA-256 of the parent's stream; empty if there is none."""

    def pack(self) -> bytes:
        """As bytes."""
        flags = VERSION | CODERS.index(self.coder) << 4 | (_PARENT_FLAG if self.parent else 0)
        return bytes([flags]) + self.parent

    @classmethod
    def read(cls, cursor: Cursor) -> Self | None:
        """From the start of a stream; None for version 1, BitstreamError for what is neither."""
        flags = cursor.byte("version")
        if flags == 1:
            return None
        version, coder, spare = flags & 0x0F, flags >> 4 & 3, flags & 0x80
        if version != VERSION or coder >= len(CODERS) or spare:
            raise BitstreamError(
                f"the stream is version {version} ({flags:#04x}), this program reads 1 and {VERSION}; "
                "read it with a newer framefold"
            )
        parent = cursor.take(_HASH_BYTES, "parent") if flags & _PARENT_FLAG else b""
        return cls(coder=CODERS[coder], parent=parent)


@dataclass(frozen=True, kw_only=True)
class Flags:
    """What holds for a whole stream, so that no tensor has to say it."""

    trellis: bool
    """Some tensors are on a trellis."""
    all_on_grid: bool
    """All steps are on the grid of `steps`."""
    neighbours: bool
    """Some tensors are coded from their neighbours."""
    own: bool
    """Some are coded by their codec's rule."""

    def write(self, bits: BitWriter, *, named: bool) -> None:
        """Write the flags; streams of the named coders have no rules."""
        bits.unsigned(self.trellis, width=1)
        bits.unsigned(self.all_on_grid, width=1)
        if not named:
            bits.unsigned(self.neighbours, width=1)
            bits.unsigned(self.own, width=1)

    @classmethod
    def read(cls, bits: BitReader, *, named: bool) -> Self:
        """Read the flags."""
        trellis, all_on_grid = bool(bits.unsigned(width=1)), bool(bits.unsigned(width=1))
        neighbours, own = (not named and bool(bits.unsigned(width=1)) for _ in range(2))
        return cls(trellis=trellis, all_on_grid=all_on_grid, neighbours=neighbours, own=own)

    def forms(self, entry: Entry, base: IntTensor | None) -> list[Form]:
        """The forms that a tensor may have, the first of them the shortest to write."""
        possible = {
            Form.PLAIN: True,
            Form.NEIGHBOURS: self.neighbours and can_have_rule(entry),
            Form.OWN: self.own and not entry.trellis,
            Form.DIFFERENCE: base is not None,
            Form.SYMBOLS: entry.trellis,
        }
        return [form for form, allowed in possible.items() if allowed]


def entry_of(name: str, tensor: QuantizedTensor) -> Entry:
    """The directory's line for a tensor that is well-formed."""
    axis = None if tensor.steps.shape == (1,) else tensor.axis
    return Entry(name=name, shape=tensor.symbols.shape, channel_axis=axis, trellis=tensor.trellis)


def base_entry(entry: Entry, parent: Parent | None) -> QuantizedTensor | None:
    """The parent's tensor of the same name and shape."""
    known = parent.tensors.get(entry.name) if parent else None
    return known if known is not None and known.symbols.shape == entry.shape else None


def least_bytes(elements: int, *, slices: int = 0, entries: int = 0) -> int:
    """How long a stream must be to be allowed so many elements, slices and entries of tables."""
    for_elements = -(-(elements - FREE_ELEMENTS) // ELEMENTS_PER_BYTE)
    for_entries = -(-(entries - FREE_ENTRIES) // ENTRIES_PER_BYTE)
    return max(for_elements, for_entries, (slices - FREE_SLICES) * BYTES_PER_SLICE, 0)
