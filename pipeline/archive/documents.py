"""JSON, strictly: one spelling out, and no surprises in.

Python's reader keeps the last of two equal keys, takes NaN, and lets a few megabytes of brackets become
gigabytes of objects; none of that is wanted from a stranger's file.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from framefold.pipeline.archive.errors import ArchiveError, Code
from framefold.pipeline.archive.limits import MAX_JSON, MAX_JSON_DEPTH, MAX_JSON_VALUES, MAX_TICK

Document = Mapping[str, Any]

# A string is one token, so that brackets in it do not count; its end is optional, or an open
# string full of quotes would be searched again from each of them.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_NO_MARKS = bytes(set(range(256)) - set(b"[]{},"))
_STEPS = bytes.maketrans(b"[{]},", b"\1\1\xff\xff\0")
"""What a mark adds to the depth."""


def pack_document(document: Document) -> bytes:
    """Return ASCII JSON with sorted keys and no spaces: equal documents are equal bytes."""
    try:
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise ArchiveError(Code.JSON, f"the document cannot be written as JSON: {error}") from error
    data = text.encode("ascii")
    unpack_document(data)
    return data


def unpack_document(data: bytes, max_values: int = MAX_JSON_VALUES) -> dict[str, Any]:
    """Return the object in `data`; its size, depth and count of values are checked before it is parsed."""
    if len(data) > MAX_JSON:
        raise ArchiveError(Code.LIMIT, f"JSON of {len(data)} bytes; {MAX_JSON} are allowed")
    _check_shape(data, max_values)
    try:
        document = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_int=_integer,
            parse_float=_number,
        )
    except (ValueError, RecursionError) as error:
        raise ArchiveError(Code.JSON, f"not JSON as allowed here: {error}") from error
    if not isinstance(document, dict):
        raise ArchiveError(Code.JSON, f"a JSON {type(document).__name__} where an object is needed")
    return document


def _plain(value: object) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")


def _check_shape(data: bytes, max_values: int) -> None:
    steps = np.frombuffer(_STRING.sub(b"", data).translate(_STEPS, _NO_MARKS), np.int8)
    opened, closed = int(np.count_nonzero(steps == 1)), int(np.count_nonzero(steps == -1))
    if closed > opened:
        raise ArchiveError(Code.JSON, f"not JSON: {opened} brackets are opened and {closed} closed")
    if len(steps) - closed > max_values or _depth(steps) > MAX_JSON_DEPTH:
        limits = f"depth {MAX_JSON_DEPTH} and {max_values} values"
        raise ArchiveError(Code.LIMIT, f"JSON exceeds {limits}")


def _depth(steps: npt.NDArray[np.int8]) -> int:
    return int(np.cumsum(steps, dtype=np.int32).max()) if len(steps) > MAX_JSON_DEPTH else 0


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for key, value in pairs:
        if key in document:
            raise ValueError(f"key {key[:80]!r} appears twice")
        document[key] = value
    return document


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")


def _integer(text: str) -> int:
    if len(text) > 17 or abs(int(text)) > MAX_TICK:
        raise ValueError(f"integer {text[:20]} is beyond +-{MAX_TICK}")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"number {text[:20]} is too large")
    return value
