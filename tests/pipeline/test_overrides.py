import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framefold.pipeline.errors import SpecError
from framefold.pipeline.overrides import apply
from framefold.pipeline.yaml_loader import read_text

FILE = """\
pipeline: toy
stages:
  frames: {stage: video_source, path: "${NO_SUCH_VARIABLE}"}
  fitted:
    stage: fit
    inputs: [frames, more]
    codec: {name: nerv, size: S}
    budget:
"""

READABLE = FILE.replace("${NO_SUCH_VARIABLE}", "x")


def changed(*overrides, text=FILE):
    return apply(read_text(text, name="p.yaml", environment={}), overrides, top_level=("pipeline", "seed", "run_dir"))


def refused(override, text=READABLE):
    with pytest.raises(SpecError) as caught:
        changed(override, text=text).checked()
    (problem,) = caught.value.problems
    assert problem.where == f"--set {override}"
    return problem.message


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("fitted.codec.size=M", ("stages", "fitted", "codec", "size"), "M"),
        ("fitted.codec={name: siren}", ("stages", "fitted", "codec"), {"name": "siren"}),
        ("fitted.budget.steps=100", ("stages", "fitted", "budget", "steps"), 100),
        ("fitted.target.psnr_db=3e1", ("stages", "fitted", "target", "psnr_db"), 30.0),
        ("fitted.inputs=[frames]", ("stages", "fitted", "inputs"), ["frames"]),
        ("fitted.inputs.1=other", ("stages", "fitted", "inputs", 1), "other"),
        ("stages.fitted.replicas=2", ("stages", "fitted", "replicas"), 2),
        ("fitted.replicas.max=8", ("stages", "fitted", "replicas", "max"), 8),
        ("fitted.batch.items=16", ("stages", "fitted", "batch", "items"), 16),
        ("fitted.side_inputs.model=more", ("stages", "fitted", "side_inputs", "model"), "more"),
        ("fitted.loss=", ("stages", "fitted", "loss"), None),
        ("fitted.loss=a=b", ("stages", "fitted", "loss"), "a=b"),
        ("fitted.loss='8'", ("stages", "fitted", "loss"), "8"),
        ("fitted.loss=no", ("stages", "fitted", "loss"), "no"),
        ("seed=7", ("seed",), 7),
        ("run_dir=out/x", ("run_dir",), "out/x"),
    ],
)
def test_an_override_puts_a_yaml_value_in_its_place(override, path, value):
    document = changed(override)
    data = document.data
    for step in path:
        data = data[step]
    assert data == value
    assert type(data) is type(value)
    assert document.where(path) == document.where((*path, "below")) == f"--set {override}"


def test_everything_else_stays_as_and_where_it_was():
    document, before = changed("fitted.codec.size=M"), read_text(FILE, name="p.yaml", environment={})
    assert document.data["stages"]["fitted"]["codec"]["name"] == "nerv"
    assert document.where(("stages", "fitted", "codec", "name")) == "p.yaml:7:19"
    assert before.data["stages"]["fitted"]["codec"]["size"] == "S"


def test_later_overrides_see_earlier_ones():
    document = changed("fitted.codec={name: coin}", "fitted.codec.width=8", "fitted.codec.width=9")
    assert document.data["stages"]["fitted"]["codec"] == {"name": "coin", "width": 9}
    assert document.where(("stages", "fitted", "codec", "width")) == "--set fitted.codec.width=9"
    assert document.where(("stages", "fitted", "codec", "name")) == "--set fitted.codec={name: coin}"


def test_an_override_repairs_a_value_that_could_not_be_read():
    assert [m.path for m in changed().mistakes] == [("stages", "frames", "path")]
    assert changed("frames.path=in.mp4").checked().data["stages"]["frames"]["path"] == "in.mp4"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("fited.codec.size=M", "there is no node 'fited', did you mean 'fitted'? nodes: frames and fitted"),
        ("sed=7", "there is no node 'sed'"),
        ("fitted=M", "'fitted' is a node; name one of its options: write --set NODE.OPTION=VALUE"),
        ("stages=1", "there is no node 'stages'"),
        ("stages.fitted={}", "'fitted' is a node"),
        ("fitted.codec.size", "has no value; write --set NODE.OPTION=VALUE"),
        ("=M", "has no option to set"),
        ("fitted..size=M", "has no option to set"),
        ("fitted.stage.size=M", "stages.fitted.stage is 'fit', not a mapping; set it as a whole"),
        ("fitted.inputs.2=x", "stages.fitted.inputs is a list of 2"),
        ("fitted.inputs.one=x", "stages.fitted.inputs is a list of 2"),
        ("fitted.codec={name: ", "not valid YAML"),
        ("fitted.codec=!!str x", "tag !!str is not allowed"),
        ("fitted.codec={a: 1, a: 2}", "already stands on line 1"),
        ("fitted.rate=.nan", "not a finite number"),
    ],
)
def test_an_override_that_cannot_be_applied_is_a_problem_of_the_command_line(override, message):
    assert refused(override).startswith(message) or message in refused(override)


def test_a_file_without_stages_has_no_nodes_to_override():
    assert "nodes: none" in refused("a.b=1", text="pipeline: x\n")
    assert "nodes: none" in refused("a.b=1", text="pipeline: x\nstages: [a]\n")


def test_a_file_that_is_no_mapping_is_left_to_the_checks():
    assert changed("a.b=1", text="- x\n").data == ["x"]


@settings(deadline=None)
@given(st.text(max_size=30))
def test_any_override_is_applied_or_refused(text):
    document = changed(text, text="pipeline: x\nstages: {a: {b: [1, {c: 2}]}}\n")
    assert all(mistake.problem.where.startswith("--set ") for mistake in document.mistakes)


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["a", "b", "c", "0", "1", "stages", "x"]), max_size=6),
    st.sampled_from(["1", "{}", "[]", ""]),
)
def test_any_path_is_set_or_refused(keys, value):
    override = f"{'.'.join(keys)}={value}"
    document = changed(override, text="pipeline: x\nstages: {a: {b: [1, {c: 2}], c:}}\n")
    assert bool(document.mistakes) != (f"--set {override}" in {place.entry for place in document.places.values()})
