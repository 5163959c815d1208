import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from framefold.pipeline.errors import SpecError
from framefold.pipeline.yaml_loader import MAX_BYTES, read_file, read_text, read_value


def read(text, **environment):
    return read_text(text, name="p.yaml", environment=environment)


def problems(text, **environment):
    return [str(mistake.problem) for mistake in read(text, **environment).mistakes]


def fatal(text):
    with pytest.raises(SpecError) as caught:
        read(text)
    (problem,) = caught.value.problems
    return problem


def test_plain_data_comes_out_with_the_core_schema_of_yaml_1_2():
    document = read("rate: 5e-4\non: no\ntime: 22:30\nmode: 010\nsize: '8'\nlist: [1, true, ~, x]\nnone:\n")
    assert document.checked().data == {
        "rate": 5e-4,
        "on": "no",
        "time": "22:30",
        "mode": "010",
        "size": "8",
        "list": [1, True, None, "x"],
        "none": None,
    }


SAMPLE = """\
pipeline: bunny
stages:
  fit:
    inputs: [a, b]
    codec: {name: nerv,
            size: S}
  list:
    - one
    - two: 2
"""


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (("pipeline",), "1:11"),
        (("stages",), "2:1"),
        (("stages", "fit"), "3:3"),
        (("stages", "fit", "inputs"), "4:5"),
        (("stages", "fit", "inputs", 1), "4:17"),
        (("stages", "fit", "codec"), "5:5"),
        (("stages", "fit", "codec", "size"), "6:19"),
        (("stages", "list", 0), "8:7"),
        (("stages", "list", 1), "9:7"),
        (("stages", "list", 1, "two"), "9:12"),
        ((), "1:1"),
        (("stages", "fit", "codec", "nothing", "here"), "5:5"),
        (("nowhere",), "1:1"),
    ],
)
def test_every_value_knows_its_line_and_column(path, place):
    assert read(SAMPLE).where(path) == f"p.yaml:{place}"


def test_the_key_of_a_scalar_can_be_asked_for():
    document = read(SAMPLE)
    assert document.where(("pipeline",), key=True) == "p.yaml:1:1"
    assert document.where(("stages", "fit", "codec", "size"), key=True) == "p.yaml:6:13"


def test_repeated_keys_are_refused_with_both_lines_and_the_first_one_stands():
    document = read("a: 1\nb: 2\n\na: 3\n")
    assert [str(m.problem) for m in document.mistakes] == [
        "p.yaml:4:1: a: key 'a' on line 4 already stands on line 1; keep one of them"
    ]
    assert document.data == {"a": 1, "b": 2}


def test_all_mistakes_are_found_in_one_reading():
    text = "a: ${NO}\nb: !!python/name:os.system x\n1: x\n<<: {c: 1}\nd: .inf\n[e]: f\na: 2\n~: g\n"
    found = problems(text)
    assert len(found) == 8
    for place, word in [
        ("1:4", "NO is not set"),
        ("2:4", "!!python/name:os.system"),
        ("3:1", "key 1 is not text"),
        ("4:1", "merge keys"),
        ("5:4", "not a finite number"),
        ("6:1", "list or mapping as a key"),
        ("7:1", "line 1"),
        ("8:1", "key nothing is not text"),
    ]:
        assert any(line.startswith(f"p.yaml:{place}: ") and word in line for line in found), (
            place,
            word,
            found,
        )


@pytest.mark.parametrize("tag", ["!!str", "!!python/object/apply:os.system", "!custom", "!!binary"])
def test_explicit_tags_are_refused(tag):
    (line,) = problems(f"a: {tag} x\n")
    assert line.startswith("p.yaml:1:4: a: tag ")
    assert tag in line


def test_values_with_mistakes_are_known_to_be_spoiled():
    document = read("a: {b: ${X}, c: 1}\n".replace("${X}", '"${X}"'))
    assert document.is_spoiled(("a", "b"))
    assert document.is_spoiled(("a", "b", "deeper"))
    assert not document.is_spoiled(("a",))
    assert not document.is_spoiled(("a", "c"))


def test_variables_are_typed_when_plain_and_text_when_quoted():
    document = read("a: ${N}\nb: '${N}'\nc: ${N}${N}\nd: ${OFF:-false}\ne: $$5\n", N="8")
    assert document.checked().data == {"a": 8, "b": "8", "c": 88, "d": False, "e": "$5"}


def test_a_variable_inside_a_flow_mapping_gets_a_hint():
    problem = fatal("a: {path: ${IN}}\n")
    assert "must be quoted" in problem.message
    assert problem.where.startswith("p.yaml:1:")


def test_keys_are_left_alone():
    assert read("${A}: 1\n", A="x").checked().data == {"${A}": 1}


def test_aliases_are_values_of_their_own():
    data = read("a: &x {b: [1]}\nc: *x\n").checked().data
    assert data == {"a": {"b": [1]}, "c": {"b": [1]}}
    assert data["a"] is not data["c"]


def test_an_alias_bomb_is_refused():
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 20)]
    problem = fatal("\n".join(rows))
    assert "100000 values" in problem.message


def test_a_document_that_contains_itself_is_refused():
    assert "nested more than 64" in fatal("a: &a [*a]\n").message
    assert "nested more than 64" in fatal("a: &a {b: *a, c: *a}\n").message


@pytest.mark.parametrize(
    "text", ["[" * 5000, "{a: " * 5000, "\n".join(" " * i + "a:" for i in range(200)), "- " * 5000]
)
def test_deep_nesting_is_refused(text):
    assert "nested more than 64" in fatal(text).message


def test_nesting_up_to_the_limit_is_read():
    data = read("[" * 63 + "]" * 63).checked().data
    for _ in range(62):
        (data,) = data
    assert data == []


@pytest.mark.parametrize(
    ("text", "place", "word"),
    [
        ("a: 1\n---\nb: 2\n", "p.yaml:2:1", "second document"),
        ("a: [1, 2\nb: 3\n", "p.yaml:2:2", "not valid YAML"),
        ("a:\n\tb: 1\n", "p.yaml:2:1", "indent with spaces"),
        ("a: *nope\n", "p.yaml:1:4", "undefined alias"),
        ('a: "x\n', "p.yaml:2:1", "not valid YAML"),
        ("a: \x07\n", "p.yaml:1:4", "U+0007"),
        ("", "p.yaml", "is empty"),
        ("# only a comment\n", "p.yaml", "is empty"),
    ],
)
def test_what_is_no_document_is_one_clear_problem(text, place, word):
    problem = fatal(text)
    assert problem.where == place
    assert word in problem.message


def test_files_that_cannot_be_read(tmp_path):
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"a: 1\nb: caf\xe9\n")
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (MAX_BYTES + 1))
    for path, where, word in [
        (tmp_path / "missing.yaml", "missing.yaml", "no such file"),
        (tmp_path, str(tmp_path), "is a directory"),
        (latin, "latin.yaml:2:7", "0xe9 is not UTF-8"),
        (large, "large.yaml", "larger than"),
    ]:
        with pytest.raises(SpecError) as caught:
            read_file(path)
        (problem,) = caught.value.problems
        assert problem.where.endswith(where)
        assert word in problem.message


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    path = tmp_path / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    document = read_file(path)
    assert document.data == {"a": 1}
    assert document.where(("a",)) == f"{path}:1:4"


def test_single_values_follow_the_same_rules():
    values = {
        "M": "M",
        "5e-4": 5e-4,
        "{seconds: 60}": {"seconds": 60},
        "[a, 1]": ["a", 1],
        "": None,
        " no ": "no",
    }
    assert {text: read_value(text, name="--set") for text in values} == values


class _Quoting(yaml.SafeDumper):
    """Quotes all text, and never writes aliases."""

    def ignore_aliases(self, data):
        return True


_Quoting.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
DATA = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def _escaped(data):
    """The same data as it must be written: `$` in values doubled."""
    if isinstance(data, str):
        return data.replace("$", "$$")
    if isinstance(data, dict):
        return {key: _escaped(value) for key, value in data.items()}
    return [_escaped(item) for item in data] if isinstance(data, list) else data


def _paths(data, path=()):
    yield path
    steps = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for step, value in steps:
        yield from _paths(value, (*path, step))


@settings(deadline=None)
@given(DATA)
def test_whatever_pyyaml_writes_is_read_back_and_located(data):
    document = read(yaml.dump(_escaped(data), Dumper=_Quoting))
    assert document.checked().data == data
    assert {type(leaf) for leaf in _leaves(document.data)} == {type(leaf) for leaf in _leaves(data)}
    assert set(document.places) == set(_paths(data))


def _leaves(data):
    if isinstance(data, dict):
        data = list(data.values())
    if isinstance(data, list):
        return [leaf for item in data for leaf in _leaves(item)]
    return [data]


PUNCTUATION = [
    "a",
    ":",
    " ",
    "\n",
    "-",
    "[",
    "]",
    "{",
    "}",
    "&x",
    "*x",
    "<<",
    "!",
    "${",
    '"',
    "#",
    "?",
    "1",
    "---",
    "|",
    "\r",
    "\u2028",
    "\t",
]


def places_of_problems(text):
    """Where the problems of any text stand, whether or not it is YAML at all."""
    try:
        return [mistake.problem.where for mistake in read(text).mistakes]
    except SpecError as refusal:
        return [problem.where for problem in refusal.problems]


@settings(deadline=None)
@given(st.text(max_size=60) | st.lists(st.sampled_from(PUNCTUATION), max_size=25).map("".join))
def test_any_text_is_read_or_refused_with_a_place_inside_it(text):
    lines = text.splitlines() or [""]
    for where in places_of_problems(text):
        name, *numbers = where.split(":")
        assert name == "p.yaml"
        assert not numbers or 1 <= int(numbers[0]) <= len(lines) + 1
