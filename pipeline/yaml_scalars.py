"""The type of a YAML scalar, by the core schema of YAML 1.2, and `${NAME}` inside it.

Stricter than the schema in one place, where people are surprised: `010` is text (neither 8 nor 10).
Infinities, not-a-numbers and integers beyond 64 bits are refused, for no option means them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

Scalar = str | int | float | bool | None

_WORDS: Mapping[str, bool | None] = {
    "": None,
    "~": None,
    **dict.fromkeys(("null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_VARIABLE = re.compile(
    r"\$(?:(?P<escaped>\$)|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|(?P<bad>\{))"
)
_INTEGER_DIGITS = 20


class BadScalarError(ValueError):
    """A scalar that cannot be read; the message says why and what to write instead."""


def typed(text: str) -> Scalar:
    """Return the value of a plain (unquoted) scalar."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return _integer(text)
    if _FLOAT.fullmatch(text):
        return _finite(text)
    if _NOT_FINITE.fullmatch(text):
        raise BadScalarError(f"{text} is not a finite number; quote it if text is meant")
    return text


def substituted(text: str, environment: Mapping[str, str]) -> str:
    """Fill in `${NAME}`, and `${NAME:-default}` where the variable is unset or empty; `$$` is `$`."""
    return _VARIABLE.sub(lambda match: _value_of(match, environment), text)


def _value_of(match: re.Match[str], environment: Mapping[str, str]) -> str:
    if match["escaped"]:
        return "$"
    if match["bad"]:
        raise BadScalarError(
            "'${' begins no variable; write ${NAME}, ${NAME:-default}, or $${ for the characters themselves"
        )
    value = environment.get(match["name"])
    if match["default"] is not None:
        return value or str(match["default"])
    if value is None:
        name = match["name"]
        raise BadScalarError(f"environment variable {name} is not set; set it, or write ${{{name}:-default}}")
    return value


def _integer(text: str) -> int:
    if len(text) <= _INTEGER_DIGITS and -(2**63) <= (value := int(text, 0)) < 2**63:
        return value
    raise BadScalarError("an integer of more than 64 bits; quote it if text is meant")


def _finite(text: str) -> float:
    value = float(text)
    if abs(value) == float("inf"):
        raise BadScalarError(f"{text} is beyond the largest float, 1.8e308; quote it if text is meant")
    return value
