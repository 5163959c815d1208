"""Streams that are nearly right: bytes and bits changed, fields forged. They are read or refused, in bounded memory.

Some by default, always the same; `FRAMEFOLD_FUZZ_RUNS=50000 pytest tests/fuzz` tries that many. A failure
names the run, and `FRAMEFOLD_FUZZ_FIRST=12345 FRAMEFOLD_FUZZ_RUNS=1` repeats it alone.
"""

from __future__ import annotations

import os
import random
import tracemalloc
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

from framefold.codecs.clip import Source, Span
from framefold.codecs.stream import bitstream
from framefold.codecs.stream.bitstream import BitstreamError
from framefold.codecs.stream.class_parameters import write_class_models
from framefold.codecs.stream.directory import Entry
from framefold.codecs.stream.entropy import SymbolWriter
from framefold.codecs.stream.neighbours import PARENT, Neighbour, NeighbourRule
from framefold.codecs.stream.stream_layout import CODERS, Flags, Head
from framefold.codecs.stream.symbol_models import MAX_SYMBOL, Curve, Histogram, Model, Uniform
from framefold.codecs.stream.tensor_forms import Form, write_form
from framefold.codecs.stream.varbytes import Cursor, pack_varint

GOLDEN = Path(__file__).parents[1] / "golden"
Guard = Callable[[], AbstractContextManager[None]]
FIRST, RUNS = int(os.environ.get("FRAMEFOLD_FUZZ_FIRST", "0")), int(os.environ.get("FRAMEFOLD_FUZZ_RUNS", "150"))
MEMORY = 400 * 2**20
"""It may hold eight million elements."""
SPAN = Span(source=Source(name="a.png", kind="image", sha256="0" * 64, size_bytes=1, width=1, height=1), pts=(0,))
SIDES = (0, 1, 2, 3, 7, 63, 64, 65, 255, 4095, 4096, 2**14, 2**16 - 1, 2**16, 2**20, 2**24, 2**28, 2**31, 2**32 - 1)
SHAPES = ((1000, 1000), (2**20 - 9,), (1, 4000), (64,), (4, 2, 96, 160), (2, 2**18), (3, 3, 3, 3), (1, 1, 500, 500))
PARENT_STREAM = (GOLDEN / "bitstream_v1_mixed.bin").read_bytes()


class Halves:
    """A rule for any tensor: two slices, two classes."""

    class_count = 2
    models = None

    def __init__(self, size: int) -> None:
        self.size = size

    def slices(self) -> tuple[np.ndarray, np.ndarray]:
        return np.arange(self.size // 2), np.arange(self.size // 2, self.size)

    def contexts(self, known: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
        count = self.slices()[number].size
        return np.full(count, number, np.uint8), np.zeros(count, np.int32)


def read(data: bytes) -> None:
    """Whatever is read is within the format."""
    symbols = bitstream.decode(
        data,
        span=SPAN,
        codec="toy",
        config={},
        parent=PARENT_STREAM,
        rules=lambda name, shape: Halves(int(np.prod(shape))),
    )
    for tensor in symbols.tensors.values():
        assert np.abs(tensor.symbols).max(initial=0) <= MAX_SYMBOL
        assert (np.isfinite(tensor.steps) & (tensor.steps > 0)).all()
        assert tensor.steps.size in (1, *tensor.symbols.shape)


# ---- bytes and bits


def change_bytes(data: bytes, dice: random.Random) -> bytes:
    """One byte changed, or some lost or added; half of the damage goes to the head, where the structure is."""
    at = dice.randrange(min(len(data), 400) if dice.random() < 0.5 else len(data))
    match dice.randrange(5):
        case 0:
            return data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :]
        case 1:
            return data[:at] + bytes([dice.randrange(256)]) + data[at + 1 :]
        case 2:
            return data[:at] + data[at + dice.randrange(1, 6) :]
        case 3:
            return data[:at] + dice.randbytes(dice.randrange(1, 9)) + data[at:]
        case _:
            return data[:at]


def change_bits(data: bytes, dice: random.Random) -> bytes:
    """The model section changed bit by bit, its size right again: damage then reaches single fields."""
    cursor = Cursor(data)
    head = cursor.take(33 if data[0] & 0x40 else 1, "head")
    section = cursor.take(cursor.varint("model size"), "model section")
    bits = "".join(f"{byte:08b}" for byte in section)
    at = dice.randrange(len(bits))
    match dice.randrange(4):
        case 0:
            bits = bits[:at] + "10"[int(bits[at])] + bits[at + 1 :]
        case 1:
            bits = bits[:at] + dice.choice("01") * dice.choice((1, 2, 9, 33, 80)) + bits[at:]
        case 2:
            bits = bits[:at] + bits[at + dice.randrange(1, 20) :]
        case _:
            bits = bits[:at] + "".join(dice.choices("01", k=40)) + bits[at + 40 :]
    packed = bytes(int(bits[start : start + 8].ljust(8, "0"), 2) for start in range(0, len(bits), 8))
    return head + pack_varint(len(packed)) + packed + cursor.rest()


def changed(seeds: list[bytes], dice: random.Random) -> bytes:
    data = dice.choice(seeds)
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        change = change_bits if dice.random() < 0.6 and data and data[0] & 15 == 2 else change_bytes
        try:
            data = change(data, dice)
        except (BitstreamError, ValueError, IndexError):  # an earlier change has left no such place
            return data
        if not data:
            return data
    return data


# ---- forged fields: right in form, wrong in size


def forged(dice: random.Random) -> bytes:
    """A stream written field by field, of tensors that nobody would store."""
    writer = SymbolWriter()
    coder = dice.choice(CODERS) if dice.random() < 0.2 else "range"
    has_parent = dice.random() < 0.3
    entries = [entry(number, dice) for number in range(dice.choice((1, 1, 2, 3, 40)))]
    flags = Flags(
        trellis=dice.random() < 0.4,
        all_on_grid=dice.random() < 0.8,
        neighbours=coder == "range" and dice.random() < 0.8,
        own=coder == "range" and dice.random() < 0.3,
    )
    if has_parent:
        writer.bits.unsigned(0, width=1)
    write_entries(writer, entries)
    flags.write(writer.bits, named=coder != "range")
    if flags.trellis:
        for _ in entries:
            writer.bits.unsigned(1, width=1)
    for item in entries:
        write_line(writer, item, flags, coder, dice)
    section, _ = writer.finish()
    words = dice.randbytes(dice.choice((0, 0, 4, 30, 2000)))
    parent = bytes.fromhex(bitstream.read_parent(PARENT_STREAM).sha256) if has_parent else b""
    head = Head(coder=coder, parent=parent).pack() + pack_varint(len(section)) + section
    return head + (words if coder == "range" else pack_varint(0) + words)


def entry(number: int, dice: random.Random) -> Entry:
    rank = dice.choice((0, 1, 2, 2, 3, 4, 4, 4, 8))
    shape = [dice.choice(SIDES[:8]) for _ in range(rank)]
    if rank and dice.random() < 0.3:
        shape[dice.randrange(rank)] = dice.choice(SIDES)
    if dice.random() < 0.3:
        shape = list(dice.choice(SHAPES))
        rank = len(shape)
    axis = dice.randrange(rank) if rank and dice.random() < 0.2 else None
    return Entry(name=f"layers.{number}.weight", shape=tuple(shape), channel_axis=axis)


def write_entries(writer: SymbolWriter, entries: list[Entry]) -> None:
    """As `write_directory`, without its limits; all names spelled."""
    bits = writer.bits
    bits.exp_golomb(len(entries), order=3)
    for item in entries:
        bits.unsigned(0, width=1)
        bits.exp_golomb(0, order=0)
        bits.exp_golomb(0, order=1)
        bits.unsigned(3, width=2)
        bits.exp_golomb(len(item.name), order=3)
        bits.raw(item.name.encode())
        bits.unsigned(len(item.shape), width=4)
        bits.exp_golomb(0 if item.channel_axis is None else item.channel_axis + 1, order=0)
        for side in item.shape:
            bits.unsigned(0, width=1)
            bits.exp_golomb(side, order=5)


def write_line(writer: SymbolWriter, item: Entry, flags: Flags, coder: str, dice: random.Random) -> None:
    bits = writer.bits
    if not flags.all_on_grid:
        bits.unsigned(1, width=1)
    if item.step_count == 1:
        bits.signed(dice.choice((0, 1, -900, 1023, 2000)), order=3)
    elif item.step_count:
        writer.write_model(model(dice))
    forms = flags.forms(item, None)
    form = dice.choice([*forms, Form.NEIGHBOURS]) if Form.NEIGHBOURS in forms else dice.choice(forms)
    write_form(bits, form, forms)
    if coder != "range":
        return
    if form == Form.NEIGHBOURS:
        rule = forged_rule(dice)
        rule.write(bits)
        quantizers = 1 + flags.trellis
        models = [model(dice, plain=rule.predicts) for _ in range(quantizers * rule.classes)]
        write_class_models(writer, models, quantizers=quantizers, moved=rule.predicts)
    else:
        writer.write_model(model(dice))


def forged_rule(dice: random.Random) -> NeighbourRule:
    numbers = sorted(dice.sample(range(PARENT + dice.randrange(2)), dice.choice((0, 1, 2, 5, PARENT - 1))))
    neighbours = tuple(
        Neighbour(
            number=number,
            weight=dice.choice((0, 1, 16, -64, 64)),
            energy=0 if number == PARENT else dice.randrange(4),
        )
        for number in numbers
    )
    classes = dice.choice((1, 2, 16))
    row, column, local = (dice.choice((0, 1, 7)) for _ in range(3))
    prior, middle = dice.randrange(128), dice.randrange(16)
    return NeighbourRule(
        neighbours=neighbours, row=row, column=column, local=local, prior=prior, classes=classes, middle=middle
    )


def model(dice: random.Random, *, plain: bool = False) -> Model:
    match 9 if plain else dice.randrange(6):
        case 0:
            return Uniform(lowest=dice.choice((0, 5, -MAX_SYMBOL)), symbol_count=dice.choice((1, 2, 300, 2**15)))
        case 1:
            return Histogram(lowest=-1, resolution=0, order=1, steps=(dice.randrange(9), 0, 40, 3))
        case 2:
            return Curve(family="laplace", scale=dice.randrange(128), centre=dice.choice((0, 9, MAX_SYMBOL)), spike=40)
        case _:
            return Curve(family=dice.choice(("laplace", "gaussian")), scale=dice.choice((0, 20, 40, 90, 127)))


# ---- the tests


@pytest.fixture(scope="module")
def seeds() -> list[bytes]:
    paths = sorted(GOLDEN.glob("bitstream_*.bin"))
    return [path.read_bytes() for path in paths if not path.stem.endswith("_own")]  # its rule is another test's


def test_all_seeds_are_read(seeds: list[bytes]) -> None:
    for data in seeds:
        read(data)


def test_what_is_nearly_right_is_read_or_refused_and_nothing_else(seeds: list[bytes], guarded: Guard) -> None:
    outcomes = {"read": 0, "refused": 0}
    for run in range(FIRST, FIRST + RUNS):
        dice = random.Random(run)
        data = forged(dice) if run % 3 == 0 else changed(seeds, dice)
        outcome = "read"
        if run % 3 == 0:
            tracemalloc.start()  # it takes time, and what is forged claims most
        try:
            with guarded():
                read(data)
        except BitstreamError:
            outcome = "refused"
        except BaseException as error:
            raise AssertionError(f"run {run}: {error!r}") from error
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        outcomes[outcome] += 1
        assert peak < MEMORY, f"run {run}"
    assert min(outcomes.values()) > 0 or RUNS < 150, outcomes


def test_a_claim_of_much_costs_nothing() -> None:
    for shape in ((2**28 - 1,), (2**14, 2**13), (1, 2**24), (2**22, 1, 1, 1), (3, 2**26)):
        for constant in (Uniform(lowest=0, symbol_count=1), Curve(family="laplace", scale=0)):
            writer = SymbolWriter()
            item = Entry(name="w", shape=shape, channel_axis=None)
            write_entries(writer, [item])
            Flags(trellis=False, all_on_grid=True, neighbours=False, own=False).write(writer.bits, named=False)
            writer.bits.signed(0, order=3)
            writer.write_model(constant)
            section, _ = writer.finish()
            with pytest.raises(BitstreamError, match="bytes at least"):
                read(Head(coder="range", parent=b"").pack() + pack_varint(len(section)) + section)
