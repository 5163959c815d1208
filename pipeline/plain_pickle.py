"""Pickles that hold data and nothing else, so that one from a stranger can be read.

A pickle is a small program. Of it we follow only the steps that writing one takes (protocol 5), and each only on
what it is meant for:

- what is called makes plain values and arrays (`_MAKERS`), or looks up a member of an enum;
- what is made without a call, and then filled, is an instance of a dataclass, a pydantic model or a named tuple of
  the packages that are admitted. Their `__init__` is not run; their `__new__` and `__setstate__` are;
- their modules are imported, but never a package's `__main__`.

So reading runs no code of the writer, changes nothing outside what it returns, and takes no more than some thousand
bytes of memory for each byte read. Not promised: that what comes back makes sense to the code that uses it, nor that
a pickle made to be slow (keys that are tuples within tuples, shared many times over) is read in a moment.
"""

from __future__ import annotations

import ast
import io
import math
import pickle
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import is_dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from pydantic import BaseModel

LONGEST = 4096
"""Characters or bytes of a path, a number, a numpy scalar or a dtype: a few bytes can ask for one time and again."""


class NotAdmitted(Exception):
    """A step that writing data does not take, or a class that is no data."""


def dumped(payload: Any) -> memoryview:
    """The pickle of a payload; like `pickle.dumps`, it also writes what will not be read back."""
    file = io.BytesIO()
    _Pickler(file, protocol=5).dump(payload)
    return file.getbuffer()


def loaded(data: bytes, start: int, packages: Collection[str]) -> Any:
    """The payload whose pickle begins at `start`; NotAdmitted, or any Exception where the parts do not fit.

    `packages` are the top-level packages whose classes may be in it.
    """
    file = io.BytesIO(data)
    file.seek(start)
    return _Unpickler(file, frozenset(packages)).load()


class _Pickler(pickle.Pickler):
    """Writes arrays, paths and members of enums in forms of our own, which are safe to read."""

    def reducer_override(self, value: Any, /) -> Any:
        match value:
            case np.ndarray() if type(value) in (np.ndarray, np.memmap) and _is_plain(value.dtype):
                return _array, (_described(value.dtype), value.shape, *_values(value))
            case np.generic() if _is_plain(value.dtype):
                return _scalar, (_described(value.dtype), value.tobytes()[: value.itemsize])  # of '' numpy gives 4
            case np.dtype() if _is_plain(value):
                return _dtype, (_described(value),)
            case PurePath():
                return _path, ("Path" if isinstance(value, Path) else type(value).__name__, str(value))
            case Enum():
                return type(value), (value.value,)
        return NotImplemented


def _is_plain(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "biufcmMSUV" and not dtype.hasobject


def _described(dtype: np.dtype[Any]) -> str:
    return repr(np.lib.format.dtype_to_descr(dtype))


def _values(array: np.ndarray[Any, Any]) -> tuple[str, Any]:
    """The order of the axes in memory, and the bytes, read-only or not as they are."""
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    flat: Any = np.ascontiguousarray(array.T if order == "F" else array).reshape(-1)
    return order, pickle.PickleBuffer(flat.view(np.uint8)) if flat.nbytes else bytearray()


# Makers: what a pickle may call. None gives back much more than it was given.


def _dtype(text: str) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.lib.format.descr_to_dtype(ast.literal_eval(_short(text)))
    return dtype if _is_plain(dtype) else _refuse(dtype)


def _array(text: str, shape: tuple[int, ...], order: Any, data: bytes | bytearray) -> np.ndarray[Any, Any]:
    dtype = _dtype(text)
    if not isinstance(data, bytes | bytearray) or math.prod(shape) * dtype.itemsize != len(data):
        raise NotAdmitted(f"it holds an array of {dtype} {shape} with too few or too many bytes")
    return np.ndarray(shape, dtype, buffer=data, order=order)


def _scalar(text: str, data: bytes) -> Any:
    return _array(text, (), "C", _short(data))[()]


def _path(kind: str, text: str) -> PurePath:
    kinds: Mapping[str, type[PurePath]] = {
        "Path": Path,
        "PurePosixPath": PurePosixPath,
        "PureWindowsPath": PureWindowsPath,
    }
    return kinds[kind](_short(text))


def _fraction(numerator: int, denominator: int) -> Fraction:
    return Fraction(_short(numerator), _short(denominator))


def _decimal(text: str) -> Decimal:
    return Decimal(_short(text))


def _deque(items: Any = (), maxlen: int | None = None) -> deque[Any]:
    return deque(maxlen=maxlen) if not items else _refuse(items)


def _ordered_dict() -> OrderedDict[Any, Any]:
    return OrderedDict()


def _short(value: Any) -> Any:
    length = len(value) if isinstance(value, str | bytes) else value.bit_length() / 8
    return value if length <= LONGEST else _refuse(value)


def _refuse(value: Any) -> Any:
    raise NotAdmitted(f"it makes something of a {type(value).__name__} that is too long, or not meant for this")


_MAKERS: Mapping[str, Callable[..., Any]] = {
    "builtins.complex": complex,
    "builtins.range": range,
    "builtins.slice": slice,
    "collections.OrderedDict": _ordered_dict,
    "collections.deque": _deque,
    "datetime.date": date,
    "datetime.datetime": datetime,
    "datetime.time": time,
    "datetime.timedelta": timedelta,
    "datetime.timezone": timezone,
    "decimal.Decimal": _decimal,
    "fractions.Fraction": _fraction,
    **{f"{__name__}.{maker.__name__}": maker for maker in (_array, _scalar, _dtype, _path)},
}
_MAKER_IDS = frozenset(map(id, _MAKERS.values()))


class _Unpickler(pickle._Unpickler):
    """The one in Python: that in C lets no one look at a step before it is taken."""

    stack: list[Any]
    metastack: list[list[Any]]

    def __init__(self, file: io.BytesIO, packages: frozenset[str]) -> None:
        super().__init__(file)
        self._packages = packages

    def find_class(self, module: str, name: str) -> Any:
        maker = _MAKERS.get(f"{module}.{name}")
        if maker is not None:
            return maker
        package, *inner = module.split(".")
        found: Any = super().find_class(module, name) if package in self._packages and "__main__" not in inner else None
        if _is_data(found) and (found.__module__, found.__qualname__) == (module, name):
            return found
        raise NotAdmitted(
            f"it holds {module}.{name}; only plain values, arrays, and dataclasses, pydantic models, named tuples "
            f"and enums of {' and '.join(sorted(self._packages))} are read back"
        )


def _is_data(kind: Any) -> bool:
    """Whether making one has no effect beyond it."""
    if not isinstance(kind, type):
        return False
    named_tuple = issubclass(kind, tuple) and hasattr(kind, "_fields")
    return named_tuple or is_dataclass(kind) or issubclass(kind, BaseModel | Enum)


def _is_made(kind: Any) -> bool:
    """Members of enums are not: they are there already, and everybody's."""
    return _is_data(kind) and not issubclass(kind, Enum)


def _is_called(maker: Any, arguments: Any) -> bool:
    if isinstance(maker, type) and issubclass(maker, Enum):
        return len(arguments) == 1  # with more, an enum makes another enum
    return id(maker) in _MAKER_IDS


_ORDINARY: Mapping[int, Any] = pickle._Unpickler.dispatch
_FREE = (
    "PROTO FRAME STOP MARK POP POP_MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT "
    "SHORT_BINBYTES BINBYTES BINBYTES8 SHORT_BINUNICODE BINUNICODE BINUNICODE8 EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 "
    "EMPTY_LIST EMPTY_DICT EMPTY_SET FROZENSET MEMOIZE BINGET LONG_BINGET STACK_GLOBAL"
)
"""Steps that concern nothing but new plain values."""
_CHECKED: Mapping[str, Callable[[_Unpickler], bool]] = {
    "REDUCE": lambda one: _is_called(*one.stack[-2:]),
    "NEWOBJ": lambda one: _is_made(one.stack[-2]),
    "BUILD": lambda one: _is_made(type(one.stack[-2])),
    "APPEND": lambda one: type(one.stack[-2]) in (list, deque),
    "APPENDS": lambda one: type(one.metastack[-1][-1]) in (list, deque),
    "SETITEM": lambda one: type(one.stack[-3]) in (dict, OrderedDict),
    "SETITEMS": lambda one: type(one.metastack[-1][-1]) in (dict, OrderedDict),
    "ADDITEMS": lambda one: type(one.metastack[-1][-1]) is set,
}
"""Steps that touch something, and what that has to be."""


def _checking(name: str, is_right: Callable[[_Unpickler], bool]) -> Callable[[_Unpickler], None]:
    take = _ORDINARY[getattr(pickle, name)[0]]

    def step(unpickler: _Unpickler) -> None:
        if not is_right(unpickler):
            raise NotAdmitted(f"it takes the step {name} on something that this is not meant for")
        take(unpickler)

    return step


def _bytearray8(unpickler: Any) -> None:
    """The ordinary step takes as much memory as is claimed before it looks whether there is as much to read."""
    data = unpickler.read(int.from_bytes(unpickler.read(8), "little"))
    unpickler.append(bytearray(data))


_STEPS: dict[int, Any] = {
    **{getattr(pickle, name)[0]: _ORDINARY[getattr(pickle, name)[0]] for name in _FREE.split()},
    **{getattr(pickle, name)[0]: _checking(name, is_right) for name, is_right in _CHECKED.items()},
    pickle.BYTEARRAY8[0]: _bytearray8,
}
_Unpickler.dispatch = _STEPS
