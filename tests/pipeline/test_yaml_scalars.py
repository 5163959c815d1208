import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framefold.pipeline.yaml_scalars import BadScalarError, substituted, typed


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-4", 5e-4),
        ("1e3", 1e3),
        ("1.5", 1.5),
        (".5", 0.5),
        ("5.", 5.0),
        ("-2.5E+3", -2500.0),
        ("7", 7),
        ("-7", -7),
        ("+7", 7),
        ("0", 0),
        ("0x1F", 31),
        ("0o17", 15),
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
    ],
)
def test_numbers_and_words_have_their_type(text, value):
    found = typed(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "no",
        "yes",
        "on",
        "off",
        "y",
        "n",
        "22:30",
        "010",
        "1_000",
        "0b101",
        "1e",
        "2026-01-01",
        "tRue",
        "=",
        "-",
        ".",
        "1.2.3",
    ],
)
def test_what_yaml_1_1_would_turn_into_something_else_is_text(text):
    assert typed(text) == text


@pytest.mark.parametrize("text", [".inf", "-.INF", ".nan", "1e999", str(2**63), "9" * 5000, "-" + "9" * 30])
def test_numbers_that_nothing_can_hold_are_refused(text):
    with pytest.raises(BadScalarError, match="quote it"):
        typed(text)


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_float_reads_back(number):
    assert typed(repr(number)) == number


@settings(deadline=None)
@given(st.integers(-(2**63), 2**63 - 1))
def test_every_64_bit_integer_reads_back(number):
    assert typed(str(number)) == number


@settings(deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_typed_or_refused_but_never_breaks(text):
    try:
        value = typed(text)
    except BadScalarError:
        return
    assert value is None or isinstance(value, str | bool | int) or math.isfinite(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${HOME_DIR}/in.mp4", "/films/in.mp4"),
        ("${MISSING:-out}", "out"),
        ("${EMPTY:-out}", "out"),
        ("${EMPTY}", ""),
        ("${MISSING:-}", ""),
        ("${HOME_DIR:-out}${HOME_DIR}", "/films/films"[:6] + "/films"),
        ("$$", "$"),
        ("$${HOME_DIR}", "${HOME_DIR}"),
        ("costs 5$", "costs 5$"),
        ("$HOME_DIR", "$HOME_DIR"),
    ],
)
def test_variables_are_filled_in(text, value):
    assert substituted(text, {"HOME_DIR": "/films", "EMPTY": ""}) == value


def test_the_value_of_a_variable_is_not_searched_for_variables():
    assert substituted("${A}", {"A": "${B}", "B": "no"}) == "${B}"


@pytest.mark.parametrize("text", ["${MISSING}", "${", "${1A}", "${A", "${A:+x}"])
def test_missing_and_malformed_variables_are_refused(text):
    with pytest.raises(BadScalarError, match=r"\$\{"):
        substituted(text, {"A": "x"})
