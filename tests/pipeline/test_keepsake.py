"""What is kept comes back as it was, or not at all; a file from a stranger runs nothing."""

from __future__ import annotations

import hashlib
import math
import os
import pickle
import pickletools
import struct
import subprocess
import sys
import tracemalloc
from collections import OrderedDict, deque
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import BaseModel

from framefold.codecs.clip import Clip, ImageBatch, Source, Span
from framefold.codecs.gridnerv import Grid
from framefold.codecs.network import Bitstream, FittedNetwork, QuantizedTensor, SymbolTensors
from framefold.pipeline import keepsake, plain_pickle
from framefold.pipeline.archive.errors import Code
from framefold.pipeline.keepsake import DamagedKeepsake
from framefold.pipeline.testing import Model

MINE = (__name__.partition(".")[0],)
MAGIC = b"framefold keepsake 1\n"


class Colour(Enum):
    RED = "red"
    BLUE = ("blue", 2)


class Level(IntEnum):
    LOW = 1


class Name(StrEnum):
    ONE = "one"


class Right(Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: Any


class Settings(BaseModel, frozen=True):
    size: int
    levels: tuple[int, ...] = ()


class Loose(BaseModel, extra="allow"):
    size: int
    _secret: int = 5


@dataclass(slots=True)
class Slotted:
    x: int
    y: Any


@dataclass(frozen=True, slots=True)
class FrozenSlotted:
    x: int


@dataclass
class Tree:
    children: list[Tree]
    parent: Any = None


def path_of(folder: Path) -> Path:
    return folder / "new" / "folder" / "one.pickle"


def back(folder: Path, payload: Any) -> Any:
    size, digest = keepsake.write(path_of(folder), payload, sync=False)
    assert path_of(folder).stat().st_size == size
    assert [path.name for path in path_of(folder).parent.iterdir()] == ["one.pickle"], "a draft was left behind"
    return keepsake.read(path_of(folder), packages=MINE, sha256=digest)


def assert_same(got: Any, expected: Any) -> None:
    """Equal to the bit, and of the same types all the way down."""
    if not isinstance(expected, np.generic | np.dtype):  # int64 and longlong are one type of two names
        assert type(got) is type(expected)
    match expected:
        case np.ndarray():
            assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
            assert got.tobytes() == expected.tobytes()
            assert got.flags.writeable == expected.flags.writeable
        case np.generic():
            assert got.dtype == expected.dtype
            assert got.tobytes() == expected.tobytes()
        case dict():
            assert list(got) == list(expected)
            for key, value in expected.items():
                assert_same(got[key], value)
        case list() | tuple() | deque():
            assert len(got) == len(expected)
            for one, other in zip(got, expected, strict=True):
                assert_same(one, other)
        case float() if math.isnan(expected):
            assert math.isnan(got)
        case _:
            assert got == expected


SPAN = Span(
    source=Source(name="b.mp4", kind="video", sha256="0" * 64, size_bytes=9, width=4, height=2, time_base=(1, 25)),
    first_frame=3,
    pts=(0, 1, 2),
)
CLIP = Clip(span=SPAN, frames=np.arange(3 * 3 * 2 * 4, dtype=np.uint8).reshape(3, 3, 2, 4))
CONFIG = {"name": "nerv", "widths": [8, 16], "lr": 1e-3, "loss": {"kind": "l2"}, "seed": None}


def test_what_the_codecs_send_comes_back(tmp_path: Path) -> None:
    tensors = {"w": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4), "b": np.zeros(0, np.float32)}
    network = back(tmp_path, FittedNetwork(span=SPAN, codec="nerv", config=CONFIG, tensors=tensors, target=CLIP))
    assert isinstance(network, FittedNetwork)
    assert (network.span, network.codec, network.config) == (SPAN, "nerv", CONFIG)
    assert_same(dict(network.tensors), tensors)
    assert network.target is not None
    assert_same(network.target.frames, CLIP.frames)

    symbols = QuantizedTensor(symbols=np.arange(-3, 3, dtype=np.int32), steps=np.ones(1, np.float32))
    quantized = back(tmp_path, SymbolTensors(span=SPAN, codec="nerv", config=CONFIG, tensors={"w": symbols}))
    assert isinstance(quantized, SymbolTensors)
    assert_same(quantized.dequantize().tensors["w"], symbols.dequantize())

    stream = Bitstream(span=SPAN, codec="nerv", config=CONFIG, payload=b"\x00\xff" * 99)
    assert back(tmp_path, stream) == stream
    assert back(tmp_path, ImageBatch(pictures=())) == ImageBatch(pictures=())
    assert back(tmp_path, Model(7)) == Model(7)
    assert back(tmp_path, list(Code)) == list(Code)
    assert_same(back(tmp_path, Grid(*range(len(Grid._fields)))), Grid(*range(len(Grid._fields))))


DTYPES = [*"?bBhHiIlLqQefdgFDG", ">f4", ">i8", "S5", "U3", ">U2", "V7", "M8[ns]", "m8[D]", ">M8[s]"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (5,), (2, 3, 4)], ids=str)
def test_arrays_of_every_type_come_back(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    size = math.prod(shape) * np.dtype(dtype).itemsize
    array: Any = np.ndarray(shape, dtype, buffer=bytearray(i % 2 for i in range(size)))
    assert_same(back(tmp_path, array), array)
    assert_same(back(tmp_path, array.dtype), array.dtype)
    if array.size:
        assert_same(back(tmp_path, array.reshape(-1)[0]), array.reshape(-1)[0])


STRUCTURED = [
    np.dtype([("a", "<i4"), ("b", ">f8", (2, 2))]),
    np.dtype([("a", "u1"), ("in", [("x", "<f4"), ("t", "<M8[s]")])]),
    np.dtype([("a", "u1"), ("b", "<f8")], align=True),
]


@pytest.mark.parametrize("dtype", STRUCTURED, ids=str)
def test_structured_arrays_come_back(tmp_path: Path, dtype: np.dtype[Any]) -> None:
    array = np.frombuffer(bytes(range(2 * dtype.itemsize)), dtype)
    got = back(tmp_path, array)
    assert got.dtype == np.lib.format.descr_to_dtype(np.lib.format.dtype_to_descr(dtype))
    assert got.tobytes() == array.tobytes()


@given(hnp.arrays(hnp.scalar_dtypes() | hnp.array_dtypes(), hnp.array_shapes(min_dims=0, min_side=0, max_dims=3)))
def test_any_array_comes_back(tmp_path_factory: pytest.TempPathFactory, array: np.ndarray[Any, Any]) -> None:
    assert_same(back(tmp_path_factory.getbasetemp() / "any", array), array)


def test_order_stride_and_writability_of_arrays(tmp_path: Path) -> None:
    plain = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
    frozen = plain.copy()
    frozen.flags.writeable = False
    for array in (plain, frozen, np.asfortranarray(plain), plain[:, ::2, ::-1], np.broadcast_to(np.int8(3), (4, 5))):
        got = back(tmp_path, array)
        assert np.array_equal(got, array)
        assert got.flags.f_contiguous == (array.flags.f_contiguous or array.size == 1)
    assert not back(tmp_path, frozen).flags.writeable
    assert back(tmp_path, plain).flags.writeable
    mapped = np.memmap(tmp_path / "mapped", np.uint8, "w+", shape=(3,))
    mapped[:] = (1, 2, 3)
    assert_same(back(tmp_path, mapped), np.array([1, 2, 3], np.uint8))


PLAIN: list[Any] = [
    None,
    True,
    0,
    -(2**31),
    2**2000,
    0.1,
    math.inf,
    math.nan,
    "näme\udcff",
    "x" * 70_000,
    b"",
    b"\x80" * 300,
    bytearray(b"abc"),
    bytearray(),
    1 - 2j,
    (),
    ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
    list(range(2000)),
    {"a": [1], 2: {"b": {}}, (1, 2): None},
    set(),
    {1, 2, "c"},
    frozenset({(1, "a")}),
    range(1, 9, 3),
    slice(None, 5),
    Fraction(-3, 7),
    Decimal("-1.50"),
    OrderedDict(b=1, a=OrderedDict()),
    deque([1, [2]]),
    deque([1, 2], maxlen=3),
    date(2020, 2, 29),
    datetime(2020, 2, 29, 12, 30, 1, 5, UTC),
    timedelta(days=-1, microseconds=5),
    Path("a") / "b c",
    Path("/"),
    PurePosixPath("x/y"),
    PureWindowsPath("C:/x"),
    Colour.RED,
    Colour.BLUE,
    Level.LOW,
    Name.ONE,
    Right.READ | Right.WRITE,
    Point(1, Point(2, [3])),
    Settings(size=3, levels=(1, 2)),
    Loose(size=1, more=[2]),
    Slotted(1, [2]),
    FrozenSlotted(1),
    np.float32(0.1),
    np.float64(0.1),
    np.bool(True),
    np.int64(-5),
    np.str_("näh"),
    np.str_(""),
    np.bytes_(b"ab"),
    np.datetime64("2020-01-01"),
    [{"deep": [(Point(1, {"x": {Colour.RED: deque([Fraction(1, 2)])}}),)]}],
]


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: type(value).__name__)
def test_plain_values_come_back(tmp_path: Path, value: Any) -> None:
    assert_same(back(tmp_path, value), value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.sampled_from(PLAIN),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=3), inner, max_size=4)
        | st.tuples(inner, inner)
        | st.builds(Point, st.integers(), inner)
        | st.builds(Slotted, st.integers(), inner)
    ),
    max_leaves=12,
)


@given(VALUES)
def test_anything_made_of_plain_values_comes_back(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    got = back(tmp_path_factory.getbasetemp() / "plain", value)
    assert repr(got) == repr(value)  # nan is not equal to itself


def test_what_was_shared_is_shared_again(tmp_path: Path) -> None:
    array = np.zeros(3)
    root = Tree([], array)
    root.children.append(Tree([root], array))
    got = back(tmp_path, root)
    assert got.children[0].children[0] is got
    assert got.parent is got.children[0].parent
    assert back(tmp_path, Colour.RED) is Colour.RED


def test_private_attributes_of_a_model_come_back(tmp_path: Path) -> None:
    loose = Loose(size=1)
    loose._secret = 9
    assert back(tmp_path, loose)._secret == 9


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises((pickle.PicklingError, AttributeError)):
        keepsake.write(tmp_path / "one", lambda: None)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        keepsake.write(tmp_path / "folder", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    keepsake.write(tmp_path / "one", [1] * 1000)
    size, digest = keepsake.write(tmp_path / "one", 2)
    assert (tmp_path / "one").stat().st_size == size
    assert keepsake.read(tmp_path / "one", sha256=digest) == 2


# Damage.


def test_a_missing_file_is_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(DamagedKeepsake, match="gone cannot be read: No such file"):
        keepsake.read(tmp_path / "gone")
    with pytest.raises(DamagedKeepsake, match="Is a directory"):
        keepsake.read(tmp_path)


def test_another_payload_under_the_name_is_found_out(tmp_path: Path) -> None:
    _, digest = keepsake.write(tmp_path / "one", [1])
    keepsake.write(tmp_path / "one", [2])
    with pytest.raises(DamagedKeepsake, match="one is not what was written: its SHA-256 differs"):
        keepsake.read(tmp_path / "one", sha256=digest)
    assert keepsake.read(tmp_path / "one") == [2]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "one"
    keepsake.write(path, [Model(3), {"a": np.arange(4)}, Colour.RED, Path("x")])
    return path.read_bytes()


def test_a_file_cut_short_anywhere_is_found_out_without_a_digest(tmp_path: Path, whole: bytes) -> None:
    for length in range(len(whole)):
        (tmp_path / "one").write_bytes(whole[:length])
        with pytest.raises(DamagedKeepsake):
            keepsake.read(tmp_path / "one", packages=MINE)


def test_a_flipped_bit_anywhere_is_found_out_without_a_digest(tmp_path: Path, whole: bytes) -> None:
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        (tmp_path / "one").write_bytes(changed)
        with pytest.raises(DamagedKeepsake):
            keepsake.read(tmp_path / "one", packages=MINE)


# Files made to hurt: whole, with the right digest.


def place(path: Path, pickled: bytes) -> Path:
    path.write_bytes(MAGIC + hashlib.sha256(pickled).digest() + pickled)
    return path


def text(value: str) -> bytes:
    data = value.encode()
    return pickle.SHORT_BINUNICODE + bytes([len(data)]) + data


def named(module: str, name: str) -> bytes:
    return text(module) + text(name) + pickle.STACK_GLOBAL


def program(*steps: bytes) -> bytes:
    return pickle.PROTO + b"\x05" + b"".join(steps) + pickle.STOP


def call(module: str, name: str, *arguments: bytes) -> bytes:
    return named(module, name) + pickle.MARK + b"".join(arguments) + pickle.TUPLE + pickle.REDUCE


MODEL = named("framefold.pipeline.testing", "Model")
NEW_MODEL = MODEL + pickle.EMPTY_TUPLE + pickle.NEWOBJ
NUMBER = pickle.BININT1 + b"\x07"
HUGE = pickle.LONG1 + b"\x06" + (10**12).to_bytes(6, "little")


def test_the_hand_made_programs_work_where_they_are_honest(tmp_path: Path) -> None:
    state = pickle.EMPTY_DICT + text("total") + NUMBER + pickle.SETITEM + pickle.BUILD
    assert keepsake.read(place(tmp_path / "one", program(NEW_MODEL, state))) == Model(7)
    fraction = call("fractions", "Fraction", NUMBER, NUMBER)
    assert keepsake.read(place(tmp_path / "one", program(fraction))) == 1


STRANGERS = [
    ("os", "system"),
    ("posix", "system"),
    ("nt", "system"),
    ("builtins", "eval"),
    ("builtins", "exec"),
    ("builtins", "getattr"),
    ("builtins", "open"),
    ("builtins", "list"),
    ("builtins", "bytearray"),
    ("builtins", "complex.__class__"),
    ("__builtin__", "eval"),
    ("subprocess", "Popen"),
    ("subprocess", "check_output"),
    ("importlib", "import_module"),
    ("operator", "attrgetter"),
    ("functools", "partial"),
    ("_codecs", "encode"),
    ("copyreg", "_reconstructor"),
    ("pickle", "loads"),
    ("numpy", "fromfile"),
    ("numpy", "load"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy", "memmap"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy.testing", "runstring"),
    ("torch", "load"),
    ("pathlib", "PosixPath"),
    ("collections", "deque.__class__"),
    ("fractions", "Fraction.from_float"),
    ("framefold.pipeline.archive.writer", "ArchiveWriter"),
    ("framefold.pipeline.ledger", "Ledger"),
    ("framefold.pipeline.ledger", "Done.__class__"),
    ("framefold.pipeline.ledger", "os.system"),
    ("framefold.pipeline.ledger", "Path"),
    ("framefold.pipeline.keepsake", "os.system"),
    ("framefold.pipeline.keepsake", "write"),
    ("framefold.pipeline.plain_pickle", "pickle.loads"),
    ("framefold.pipeline.plain_pickle", "_Unpickler"),
    ("framefold.pipeline.plain_pickle", "_values"),
    ("framefold.pipeline.plain_pickle", "_array.__class__"),
    ("framefold.pipeline.plain_pickle", "_array.__globals__"),
    ("framefold.pipeline.state_folder", "StateFolder.lock"),
    ("framefold.pipeline.state_folder", "StateFolder.lock.__globals__"),
    ("framefold.pipeline.errors", "RunFailed"),
    ("framefold.pipeline.keepsake", "BaseModel"),
    ("framefold.pipeline.nowhere", "Anything"),
    ("framefold", "pipeline.testing.Model"),
    ("framefold.pipeline.testing", "Learn"),
    ("framefold.pipeline.worker", "Produced"),
    ("framefoldx", "Model"),
    ("", "Model"),
    ("framefold..pipeline", "Model"),
]


@pytest.mark.parametrize(("module", "name"), STRANGERS, ids=".".join)
def test_what_is_no_data_is_refused(tmp_path: Path, module: str, name: str) -> None:
    witness = tmp_path / "witness"
    for argument in (text(f"touch {witness}"), text(str(witness)), NUMBER):
        for steps in (named(module, name), call(module, name, argument), call(module, name, argument, text("w"))):
            with pytest.raises(DamagedKeepsake):
                keepsake.read(place(tmp_path / "one", program(steps)), packages=MINE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one"]


def test_the_message_names_what_is_refused(tmp_path: Path) -> None:
    place(tmp_path / "one", program(call("os", "system", text("true"))))
    expected = r"one is not read: it holds os\.system; only plain values, .* of framefold and test\w* are read back"
    with pytest.raises(DamagedKeepsake, match=expected):
        keepsake.read(tmp_path / "one", packages=MINE)


class Exploit:
    """What `pickle.dumps` makes of an object that asks for a call."""

    def __init__(self, witness: Path) -> None:
        self._witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self._witness}",)


@pytest.mark.parametrize("protocol", range(6))
def test_an_ordinary_exploit_does_nothing(tmp_path: Path, protocol: int) -> None:
    place(tmp_path / "one", pickle.dumps([Exploit(tmp_path / "witness")], protocol))
    with pytest.raises(DamagedKeepsake):
        keepsake.read(tmp_path / "one", packages=MINE)
    assert not (tmp_path / "witness").exists()


def test_classes_of_other_packages_come_back_only_where_they_are_admitted(tmp_path: Path) -> None:
    keepsake.write(tmp_path / "one", Point(1, 2))
    with pytest.raises(DamagedKeepsake, match="Point; only plain values"):
        keepsake.read(tmp_path / "one")
    assert keepsake.read(tmp_path / "one", packages=MINE) == Point(1, 2)


@dataclass
class Eager:
    """Has effects when it is made in the ordinary way, or used as a container."""

    path: Path

    def __post_init__(self) -> None:
        self.path.touch()

    def __call__(self, *arguments: Any) -> None:
        self._touch()

    def __setitem__(self, key: Any, value: Any) -> None:
        self._touch()

    def append(self, value: Any) -> None:
        self._touch()

    def extend(self, values: Any) -> None:
        self._touch()

    add = update = append

    def _touch(self) -> None:
        self.path.touch()


def made_eager(path: Path) -> bytes:
    location = call("framefold.pipeline.plain_pickle", "_path", text("Path"), text(str(path)))
    state = pickle.EMPTY_DICT + text("path") + location + pickle.SETITEM
    return named(Eager.__module__, "Eager") + pickle.EMPTY_TUPLE + pickle.NEWOBJ + state + pickle.BUILD


GADGETS = {
    "init": lambda path: call(Eager.__module__, "Eager", text(str(path))),
    "call": lambda path: made_eager(path) + pickle.EMPTY_TUPLE + pickle.REDUCE,
    "append": lambda path: made_eager(path) + NUMBER + pickle.APPEND,
    "appends": lambda path: made_eager(path) + pickle.MARK + NUMBER + pickle.APPENDS,
    "setitem": lambda path: made_eager(path) + NUMBER + NUMBER + pickle.SETITEM,
    "setitems": lambda path: made_eager(path) + pickle.MARK + NUMBER + NUMBER + pickle.SETITEMS,
    "additems": lambda path: made_eager(path) + pickle.MARK + NUMBER + pickle.ADDITEMS,
}


@pytest.mark.parametrize("gadget", GADGETS)
def test_no_method_of_an_admitted_class_is_called(tmp_path: Path, gadget: str) -> None:
    honest = keepsake.read(place(tmp_path / "one", program(made_eager(tmp_path / "witness"))), packages=MINE)
    assert honest.path == tmp_path / "witness"
    place(tmp_path / "one", program(GADGETS[gadget](tmp_path / "witness")))
    with pytest.raises(DamagedKeepsake, match="on something that this is not meant for"):
        keepsake.read(tmp_path / "one", packages=MINE)
    assert not (tmp_path / "witness").exists()


SLOTS = pickle.NONE + pickle.EMPTY_DICT + text("evil") + NUMBER + pickle.SETITEM + pickle.TUPLE2
DICT = pickle.EMPTY_DICT + text("evil") + NUMBER + pickle.SETITEM
RED = call(Colour.__module__, "Colour", text("red"))


@pytest.mark.parametrize("state", [SLOTS, DICT], ids=["slots", "dict"])
@pytest.mark.parametrize(
    "target",
    [MODEL, RED, named("fractions", "Fraction"), named("framefold.pipeline.plain_pickle", "_array")],
    ids=["class", "member", "maker", "own maker"],
)
def test_nothing_that_others_share_is_changed(tmp_path: Path, target: bytes, state: bytes) -> None:
    place(tmp_path / "one", program(target, state, pickle.BUILD))
    with pytest.raises(DamagedKeepsake, match="the step BUILD"):
        keepsake.read(tmp_path / "one", packages=MINE)
    for one in (Model, Colour.RED, Colour, plain_pickle._array, Fraction):
        assert not hasattr(one, "evil")


def test_an_enum_makes_no_other_enum(tmp_path: Path) -> None:
    place(tmp_path / "one", program(call(Colour.__module__, "Colour", text("New"), text("A B"))))
    with pytest.raises(DamagedKeepsake, match="the step REDUCE"):
        keepsake.read(tmp_path / "one", packages=MINE)
    place(tmp_path / "one", program(call(Colour.__module__, "Colour", text("green"))))
    with pytest.raises(DamagedKeepsake, match="ValueError"):
        keepsake.read(tmp_path / "one", packages=MINE)


def test_a_packages_main_module_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "eager_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(f"open({str(tmp_path / 'witness')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    place(tmp_path / "one", program(named("eager_package.__main__", "Anything")))
    with pytest.raises(DamagedKeepsake, match=r"it holds eager_package\.__main__\.Anything"):
        keepsake.read(tmp_path / "one", packages=["eager_package"])
    assert not (tmp_path / "witness").exists()


OWN = "framefold.pipeline.plain_pickle"
BYTES = pickle.SHORT_BINBYTES + b"\x08" + b"\x41" * 8
RANGE = call("builtins", "range", HUGE)
SHAPE = pickle.MARK + HUGE + pickle.TUPLE
BOMBS = {
    "bytes": pickle.BINBYTES8 + struct.pack("<Q", 2**40) + b"abc",
    "bytearray": pickle.BYTEARRAY8 + struct.pack("<Q", 2**40) + b"abc",
    "text": pickle.BINUNICODE8 + struct.pack("<Q", 2**40) + b"abc",
    "frame": pickle.FRAME + struct.pack("<Q", 2**62),
    "long": pickle.LONG4 + struct.pack("<i", 2**31 - 1) + b"abc",
    "memo": pickle.NONE + pickle.LONG_BINPUT + b"\xff\xff\xff\x7f",
    "set of a range": named("builtins", "set") + RANGE + pickle.TUPLE1 + pickle.REDUCE,
    "deque of a range": named("collections", "deque") + RANGE + pickle.TUPLE1 + pickle.REDUCE,
    "ordered dict": named("collections", "OrderedDict") + RANGE + pickle.TUPLE1 + pickle.REDUCE,
    "list of a range": pickle.EMPTY_LIST + RANGE + pickle.APPENDS,
    "array": call(OWN, "_array", text("'<f8'"), SHAPE, text("C"), BYTES),
    "array of objects": call(OWN, "_array", text("'O'"), pickle.EMPTY_TUPLE, text("C"), BYTES),
    "array with objects": call(OWN, "_array", text("[('a', '|O')]"), pickle.EMPTY_TUPLE, text("C"), BYTES),
    "array of an array": call(OWN, "_array", text("'<f8'"), SHAPE, text("C"), RANGE),
    "scalar": call(OWN, "_scalar", text("'S9999999999'"), BYTES),
    "dtype of objects": call(OWN, "_dtype", text("'O'")),
    "dtype that is code": call(OWN, "_dtype", text("__import__('os').getpid()")),
    "dtype of a list": call(OWN, "_dtype", pickle.EMPTY_LIST),
    "fraction": call("fractions", "Fraction", text("1e999999999")),
    "path of paths": call(OWN, "_path", text("Path"), call(OWN, "_path", text("Path"), text("a"))),
    "other path": call(OWN, "_path", text("Popen"), text("a")),
    "persistent": text("x") + pickle.BINPERSID,
    "extension": pickle.EXT1 + b"\x01",
    "buffer": pickle.NEXT_BUFFER,
    "empty stack": pickle.REDUCE,
    "no mark": pickle.APPENDS,
    "unknown step": b"\xff",
    "instance": pickle.MARK + pickle.INST + b"os\nsystem\n",
    "object": pickle.MARK + MODEL + pickle.OBJ,
    "old name": pickle.GLOBAL + b"os\nsystem\n",
    "twice": NUMBER + pickle.DUP,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_no_claim_of_size_is_believed(tmp_path: Path, bomb: str) -> None:
    place(tmp_path / "one", program(BOMBS[bomb]))
    tracemalloc.start()
    try:
        with pytest.raises(DamagedKeepsake):
            keepsake.read(tmp_path / "one")
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("length", "is_read"), [(plain_pickle.LONGEST, True), (plain_pickle.LONGEST + 1, False)])
def test_what_a_few_bytes_can_ask_for_again_is_short(tmp_path: Path, length: int, is_read: bool) -> None:
    long = pickle.BINUNICODE + struct.pack("<I", length) + b"1" * length
    number = pickle.LONG4 + struct.pack("<i", length) + b"\x01" * length
    data = pickle.BINBYTES + struct.pack("<I", length) + b"a" * length
    for steps, kind in (
        (call(OWN, "_path", text("Path"), long), Path),
        (call("decimal", "Decimal", long), Decimal),
        (call("fractions", "Fraction", number, NUMBER), Fraction),
        (call(OWN, "_scalar", text(f"'S{length}'"), data), np.bytes_),
    ):
        place(tmp_path / "one", program(steps))
        if is_read:
            assert isinstance(keepsake.read(tmp_path / "one"), kind)
        else:
            with pytest.raises(DamagedKeepsake, match="too long"):
                keepsake.read(tmp_path / "one")


def test_doubling_by_reference_takes_no_memory(tmp_path: Path) -> None:
    steps = pickle.EMPTY_TUPLE + pickle.MEMOIZE
    for number in range(100):
        steps += pickle.BINGET + bytes([number]) + pickle.TUPLE2 + pickle.MEMOIZE
    tracemalloc.start()
    try:
        assert isinstance(keepsake.read(place(tmp_path / "one", program(steps))), tuple)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


@given(data=st.data())
def test_a_changed_program_with_a_right_digest_does_no_harm(
    tmp_path_factory: pytest.TempPathFactory, whole: bytes, data: st.DataObject
) -> None:
    body = whole[len(MAGIC) + 32 :]
    start = data.draw(st.integers(0, len(body)))
    stop = data.draw(st.integers(start, min(len(body), start + 8)))
    changed = body[:start] + data.draw(st.binary(max_size=8)) + body[stop:]
    path = place(tmp_path_factory.getbasetemp() / "changed", changed)
    try:
        keepsake.read(path, packages=MINE)
    except DamagedKeepsake as error:
        assert str(path) in str(error)


OPCODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]
PIECES = [*OPCODES, NUMBER, text("a"), MODEL, NEW_MODEL, RED, RANGE, BYTES, b"\x01"]


@given(st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join))
def test_no_program_does_harm(tmp_path_factory: pytest.TempPathFactory, steps: bytes) -> None:
    path = place(tmp_path_factory.getbasetemp() / "program", program(steps))
    before = dict(vars(Model))
    try:
        keepsake.read(path, packages=MINE)
    except DamagedKeepsake as error:
        assert str(path) in str(error)
    assert vars(Model) == before


def test_every_byte_flipped_under_a_right_digest(tmp_path: Path, whole: bytes) -> None:
    """In a process with little memory: a claim that is believed ends it."""
    body = whole[len(MAGIC) + 32 :]
    (tmp_path / "body").write_bytes(body)
    script = f"""
import hashlib, resource
from pathlib import Path
from framefold.pipeline import keepsake
folder = Path({str(tmp_path)!r})
body = (folder / "body").read_bytes()
resource.setrlimit(resource.RLIMIT_DATA, (2**31, 2**31))
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
for place in range(len(body)):
    for mask in (0x01, 0x80):
        changed = bytearray(body)
        changed[place] ^= mask
        (folder / "one").write_bytes({MAGIC!r} + hashlib.sha256(changed).digest() + changed)
        try:
            keepsake.read(folder / "one")
        except keepsake.DamagedKeepsake as error:
            assert "MemoryError" not in str(error), (place, mask)
print("survived", len(body))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == f"survived {len(body)}\n", done.stderr
