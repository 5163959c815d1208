import json
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError, field_validator

from framefold.pipeline import spec
from framefold.pipeline.draft import Batch
from framefold.pipeline.errors import FramefoldError, SpecError
from framefold.pipeline.stage import Options, Ports, Stage
from framefold.pipeline.testing import TOYS, Collect, Double

GOOD = """\
pipeline: toy
seed: 3
stages:
  nums: {stage: numbers, count: 8}
  twice:
    stage: double
    inputs: [nums]
    replicas: 2
    resources: {gpus: 0.5}
    retries: 0
  out: {stage: collect, inputs: [twice], path: out.txt}
"""


def load(tmp_path, text, *overrides, **stages):
    path = tmp_path / "p.yaml"
    path.write_text(text)
    return spec.load(path, overrides, extra_stages={**TOYS, **stages})


def problems(tmp_path, text, *overrides, **stages):
    """`12:5 path: message` of every problem."""
    with pytest.raises(SpecError) as caught:
        load(tmp_path, text, *overrides, **stages)
    assert str(caught.value).splitlines() == [str(problem) for problem in caught.value.problems]
    return [str(problem).replace(f"{tmp_path}/p.yaml:", "") for problem in caught.value.problems]


def node(tmp_path, line, **stages):
    """The problems of one node `x` that takes `nums`, on line 4."""
    text = f"pipeline: toy\nstages:\n  nums: {{stage: numbers}}\n  x: {line}\n"
    text += "  out: {stage: collect, inputs: [x], path: o}\n"
    return problems(tmp_path, text, **stages)


def test_a_good_file_becomes_a_checked_pipeline(tmp_path):
    checked = load(tmp_path, GOOD)
    assert (checked.name, checked.seed, checked.run_dir) == ("toy", 3, Path("out/toy.run"))
    assert checked.file == str(tmp_path / "p.yaml")
    assert checked.warnings == ()
    assert checked.graph.order == ("nums", "twice", "out")
    twice = checked.graph["twice"]
    assert (twice.stage_class, twice.replicas, twice.retries) == (Double, 2, 0)
    assert (twice.resources.cpus, twice.resources.gpus) == (None, 0.5)
    assert checked.graph["out"].config == Collect.Config(path=Path("out.txt"))
    assert checked.spec.stages["nums"].options == {"count": 8}
    assert json.loads(checked.spec.model_dump_json())["stages"]["twice"]["inputs"] == ["nums"]


def test_words_of_the_engine_that_are_left_out_have_defaults(tmp_path):
    checked = load(tmp_path, GOOD)
    assert (checked.fail_fast, checked.checkpoint_seconds, checked.drain_seconds) == (False, 60, 30)
    nums, twice = checked.graph["nums"], checked.graph["twice"]
    assert (nums.replicas, nums.max_replicas, nums.retries, twice.max_replicas) == (1, 1, 2, 2)
    assert (twice.timeout, twice.stall_timeout, twice.batch, twice.durable) == (None, None, None, False)
    assert (twice.sides, twice.join, twice.resources.labels) == ((), None, {})


def test_words_of_the_engine_reach_the_graph(tmp_path):
    twice = """replicas: {min: 2, max: 8}
    timeout: 3600
    stall_timeout: 0.5
    batch: {items: 16, wait_seconds: 0}
    store: true
    resources: {labels: {tier: gpu, ray.io/accelerator-type: H100}}
"""
    text = GOOD.replace("replicas: 2\n    resources: {gpus: 0.5}\n", twice)
    checked = load(tmp_path, text, "fail_fast=true", "checkpoint_seconds=5", "drain_seconds=0")
    assert (checked.fail_fast, checked.checkpoint_seconds, checked.drain_seconds) == (True, 5, 0)
    node = checked.graph["twice"]
    assert (node.replicas, node.max_replicas, node.timeout, node.stall_timeout) == (2, 8, 3600, 0.5)
    assert (node.batch, node.durable) == (Batch(items=16, wait_seconds=0), True)
    assert node.resources.labels == {"tier": "gpu", "ray.io/accelerator-type": "H100"}


def test_a_stage_says_whether_its_outputs_are_kept_unless_the_file_does(tmp_path):
    class Dear(Double):
        durable = True

    text = GOOD.replace("stage: double", "stage: dear")
    assert load(tmp_path, text, dear=Dear).graph["twice"].durable is True
    assert load(tmp_path, text, "twice.store=false", dear=Dear).graph["twice"].durable is False


@pytest.mark.parametrize("label", ["a", "A-1_b.c", "x" * 63])
def test_labels_are_such_as_a_cluster_knows(tmp_path, label):
    checked = load(tmp_path, GOOD, f"nums.resources={{labels: {{{label}: {label}}}}}")
    assert checked.graph["nums"].resources.labels == {label: label}


@pytest.mark.parametrize("label", ["-a", "a-", "a b", "x" * 64, "!gpu", "in(a)"])
def test_labels_that_no_cluster_knows(tmp_path, label):
    (found,) = problems(tmp_path, GOOD, f"nums.resources={{labels: {{tier: '{label}'}}}}")
    assert f"{label!r} is no label; use letters, digits and . _ -" in found
    (found,) = problems(tmp_path, GOOD, f"nums.resources={{labels: {{'{label}': gpu}}}}")
    assert f"{label!r} is no label's name; use letters, digits and . _ -" in found


def test_every_mistake_is_reported_at_once_in_the_order_of_the_file(tmp_path):
    text = """\
pipeline: toy
sed: 1
stages:
  nums: {stage: numbers, count: "8", refus: [1]}
  twice:
    stage: double
    inputs: [numz]
    replicas: 0
    retrys: 3
  both: {stage: splitt, inputs: [twice]}
  words: {stage: spell, inputs: [twice]}
  plus: {stage: add, inputs: [words, words], amount: 5e-4}
  out: {stage: collect, inputs: [plus], path: "${NO_SUCH_VARIABLE}"}
  out: {stage: collect}
"""
    found = problems(tmp_path, text, "plus.amount=x", "nowhere.amount=1")
    starts = [line.split(": ")[:2] for line in found]
    assert starts == [
        ["--set nowhere.amount=1", "there is no node 'nowhere'; nodes"],
        ["--set plus.amount=x", "stages.plus.amount"],
        ["2:1", "sed"],
        ["4:33", "stages.nums.count"],
        ["4:38", "stages.nums.refus"],
        ["7:14", "stages.twice.inputs.0"],
        ["8:15", "stages.twice.replicas"],
        ["9:5", "stages.twice.retrys"],
        ["10:17", "stages.both.stage"],
        ["12:31", "stages.plus.inputs.0"],
        ["12:38", "stages.plus.inputs.1"],
        ["13:47", "stages.out.path"],
        ["14:3", "stages.out"],
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stages: {a: {stage: numbers}}\n", "1:1: pipeline: is missing, and has no default"),
        ("pipeline: toy\n", "1:1: stages: is missing, and has no default"),
        ("pipeline: toy\nstages:\n", "2:8: stages: expected a mapping, got nothing"),
        ("pipeline: toy\nstages: {}\n", "2:1: stages: is empty"),
        ("pipeline: toy\nstages: [a]\n", "2:1: stages: expected a mapping, got a list"),
        ("- a\n", "1:1: expected `pipeline: NAME` and `stages:`, got a list"),
        ("just text\n", "1:1: expected `pipeline: NAME` and `stages:`, got 'just text'"),
        ("pipeline: toy\nseed: -1\nstages: {}\n", "2:7: seed: should be greater than or equal to 0, got -1"),
        ("pipeline: toy\nseed: true\nstages: {}\n", "2:7: seed: expected a whole number, got true"),
        ("pipeline: ../toy\nstages: {}\n", "1:11: pipeline: String should match pattern"),
        ("pipeline: 8\nstages: {}\n", '1:11: pipeline: expected text, got 8; quote it: "8"'),
        (
            "pipeline: toy\nstages: {}\nstage: {}\n",
            "3:1: stage: unknown option, did you mean 'stages'? known: checkpoint_seconds, drain_seconds",
        ),
        (
            "pipeline: toy\nstages:\n  My-Node: {stage: numbers}\n",
            "3:3: stages.My-Node: 'My-Node' is no name for a node",
        ),
        ("pipeline: toy\nstages:\n  n:\n", "3:5: stages.n: expected a mapping such as {stage: segment"),
        ("pipeline: toy\nstages:\n  n: numbers\n", "3:6: stages.n: expected a mapping such as"),
    ],
)
def test_mistakes_in_the_header(tmp_path, text, expected):
    assert any(line.startswith(expected) for line in problems(tmp_path, text)), problems(tmp_path, text)


@pytest.mark.parametrize(
    ("line", "marked", "expected"),
    [
        ("{inputs: [nums]}", "{inputs", "stages.x.stage: is missing, and has no default"),
        ("{stage: 8, inputs: [nums]}", "8", 'stages.x.stage: expected text, got 8; quote it: "8"'),
        (
            "{stage: add, inputs: nums}",
            "nums",
            "stages.x.inputs: expected a list or a mapping, got 'nums'; write [nums]",
        ),
        ("{stage: add, inputs: [1]}", "1]", "stages.x.inputs.0: expected text, got 1"),
        (
            "{stage: add, inputs: [nums], replicas: 1.5}",
            "1.5",
            "stages.x.replicas: expected a whole number or a mapping (min, max), got 1.5",
        ),
        (
            "{stage: add, inputs: [nums], replicas: 2.0}",
            "2.0",
            "stages.x.replicas: expected a whole number or a mapping (min, max), got 2.0; write 2",
        ),
        (
            "{stage: add, inputs: [nums], replicas: true}",
            "true",
            "stages.x.replicas: expected a whole number or a mapping (min, max), got true",
        ),
        (
            "{stage: add, inputs: [nums], retries: 11}",
            "11",
            "stages.x.retries: should be less than or equal to 10, got 11",
        ),
        (
            "{stage: add, inputs: [nums], resources: 2}",
            "2",
            "stages.x.resources: expected a mapping (cpus, gpus, labels), got 2",
        ),
        (
            "{stage: add, inputs: [nums], resources: {gpu: 1}}",
            "gpu: 1",
            "stages.x.resources.gpu: unknown option, did you mean 'gpus'?",
        ),
        (
            "{stage: add, inputs: [nums], resources: {gpus: 1.5}}",
            "1.5}",
            "stages.x.resources.gpus: 1.5 is neither a share",
        ),
        (
            "{stage: add, inputs: [nums], resources: {cpus: '2'}}",
            "'2'",
            "stages.x.resources.cpus: expected a number, got '2'; remove",
        ),
        (
            "{stage: ad, inputs: [nums]}",
            "ad,",
            "stages.x.stage: unknown stage 'ad', did you mean 'add'? known: add, ",
        ),
        ("{stage: qqqqqq, inputs: [nums]}", "qqqqqq", "stages.x.stage: unknown stage 'qqqqqq'; known: add, "),
        (
            "{stage: add, inputs: [nums], amunt: 1}",
            "amunt",
            "stages.x.amunt: unknown option, did you mean 'amount'? known: amount, batch",
        ),
        (
            "{stage: add, inputs: [nums], input: 1}",
            "input:",
            "stages.x.input: unknown option, did you mean 'inputs'?",
        ),
        (
            "{stage: double, inputs: [nums], colour: red}",
            "colour",
            "stages.x.colour: unknown option; known: batch, inputs, replicas",
        ),
    ],
)
def test_mistakes_in_a_node(tmp_path, line, marked, expected):
    """The problem stands where the first `marked` does."""
    (found,) = node(tmp_path, line)
    column = len("  x: ") + line.index(marked) + 1 if marked != "{inputs" else 3
    assert found.startswith(f"4:{column}: {expected}")


def test_an_unknown_stage_says_what_to_do_about_a_new_plugin(tmp_path):
    (found,) = node(tmp_path, "{stage: qqqqqq, inputs: [nums]}")
    assert found.endswith("installed a plugin? reinstall it, so that its entry point is seen")


class Inner(BaseModel, frozen=True, extra="forbid"):
    size: Literal["S", "M", "L"] = "S"
    depth: int = Field(default=2, ge=1, le=8)


class Rich(Stage):
    """Has every kind of option."""

    class Config(Options):
        inner: Inner = Inner()
        inners: tuple[Inner, ...] = ()
        path: Path = Path("x")
        paths: str | tuple[str, ...] = "x"
        budget: Inner | int = 1
        flag: bool = False
        rate: float = Field(default=1.0, gt=0)
        codec: dict[str, object] = Field(default={})

        @field_validator("codec")
        @classmethod
        def _of_the_codec(cls, codec):
            if codec:
                Inner.model_validate_json(json.dumps({k: v for k, v in codec.items() if k != "name"}), strict=True)
            return codec

        @field_validator("rate")
        @classmethod
        def _not_thirteen(cls, rate):
            if rate == 13:
                raise ValueError("13 brings bad luck; take 12")
            return rate

    accepts = int
    emits: ClassVar = {"out": int}


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("inner: {size: XL}", "50: stages.x.inner.size: expected 'S', 'M' or 'L', got 'XL'"),
        ("inner: {size: m}", "50: stages.x.inner.size: expected 'S', 'M' or 'L', got 'm', did you mean 'M'?"),
        (
            "inner: {sise: S}",
            "44: stages.x.inner.sise: unknown option, did you mean 'size'? known: depth and size",
        ),
        ("inner: {depth: 9}", "51: stages.x.inner.depth: should be less than or equal to 8, got 9"),
        ("inner: S", "43: stages.x.inner: expected a mapping (size, depth), got 'S'"),
        ("inners: [{}, {sise: S}]", "50: stages.x.inners.1.sise: unknown option, did you mean 'size'?"),
        ("inners: [{depth: no}]", "53: stages.x.inners.0.depth: expected a whole number, got 'no'"),
        ("path: 8", '42: stages.x.path: expected text, got 8; quote it: "8"'),
        ("path: [a]", "36: stages.x.path: expected text, got a list"),
        ("paths: 8", '43: stages.x.paths: expected text or a list, got 8; quote it: "8" or write [8]'),
        ("budget: x", "44: stages.x.budget: expected a mapping (size, depth) or a whole number, got 'x'"),
        ("paths: {a: 1}", "36: stages.x.paths: expected text or a list, got a mapping"),
        ("budget: {depht: 2}", "45: stages.x.budget.depht: unknown option, did you mean 'depth'?"),
        ("flag: yes", "42: stages.x.flag: expected true or false, got 'yes'"),
        ("flag: 1", "42: stages.x.flag: expected true or false, got 1"),
        ("rate: 0", "42: stages.x.rate: should be greater than 0, got 0"),
        ("rate: '5e-4'", "42: stages.x.rate: expected a number, got '5e-4'; remove the quotes"),
        ("rate: 13", "42: stages.x.rate: 13 brings bad luck; take 12"),
        ("rate:", "41: stages.x.rate: expected a number, got nothing"),
        ("codec: {name: q, size: XL}", "59: stages.x.codec.size: expected 'S', 'M' or 'L', got 'XL'"),
        ("codec: {name: q, sizes: S}", "53: stages.x.codec.sizes: unknown option; remove it"),
    ],
)
def test_mistakes_in_a_stages_own_options(tmp_path, option, expected):
    (found,) = node(tmp_path, f"{{stage: rich, inputs: [nums], {option}}}", rich=Rich)
    assert found.startswith(f"4:{expected}")


def test_options_are_read_as_json_so_text_becomes_a_path_and_a_list_a_tuple(tmp_path):
    text = GOOD.replace(
        "stage: double",
        "stage: rich\n    path: a/b\n    paths: [c, d]\n    inners: [{depth: 3}]\n    rate: 1",
    )
    config = load(tmp_path, text, rich=Rich).graph["twice"].config
    assert (config.path, config.paths, config.inners, config.rate) == (
        Path("a/b"),
        ("c", "d"),
        (Inner(depth=3),),
        1.0,
    )


def test_the_options_of_a_codec_are_suggested_from_its_registration(tmp_path, monkeypatch):
    class Coder:
        Config = Inner

    monkeypatch.setattr("framefold.pipeline.registry.load_codec", lambda name: Coder)
    (found,) = node(tmp_path, "{stage: rich, inputs: [nums], codec: {name: q, sizes: S}}", rich=Rich)
    assert found.endswith("unknown option, did you mean 'size'? known: depth, name and size")


def test_one_wrong_option_does_not_hide_another_or_a_wrong_connection(tmp_path):
    found = node(tmp_path, "{stage: rich, inputs: [nums, numz], flag: 1, rate: 0, replicas: 0}", rich=Rich)
    assert [line.split(": ")[1] for line in found] == [
        "stages.x.inputs.1",
        "stages.x.flag",
        "stages.x.rate",
        "stages.x.replicas",
    ]


def test_a_value_that_could_not_be_read_is_reported_once(tmp_path):
    (found,) = node(tmp_path, '{stage: add, inputs: [nums], amount: "${NO_SUCH_VARIABLE}"}')
    assert "NO_SUCH_VARIABLE is not set" in found
    (found,) = node(tmp_path, '{stage: "${NO_SUCH_VARIABLE}", inputs: [nums]}')
    assert "NO_SUCH_VARIABLE is not set" in found


class Preflight(Double):
    """Looks at the machine."""

    class Config(Options):
        path: str = "a"
        depth: int = 1
        inner: Inner = Inner()

    @classmethod
    def preflight(cls, config):
        if config.path == "broken":
            raise RuntimeError("no disk")
        if config.path == "explained":
            raise FramefoldError("the disk is full; empty it")
        return (
            [("path", "no such file; give another"), ("inner.size", "too large here")] if config.path == "none" else []
        )


def test_preflight_mistakes_have_the_place_of_their_option(tmp_path):
    found = node(tmp_path, "{stage: pre, inputs: [nums], path: none}", pre=Preflight)
    assert found == [
        "4:3: stages.x.inner.size: too large here",
        "4:41: stages.x.path: no such file; give another",
    ]


def test_preflight_is_asked_only_about_options_that_are_right(tmp_path):
    (found,) = node(tmp_path, "{stage: pre, inputs: [nums], path: none, depth: x}", pre=Preflight)
    assert "stages.x.depth" in found


def test_a_plugin_that_raises_is_a_problem_of_its_node(tmp_path):
    (found,) = node(tmp_path, "{stage: pre, inputs: [nums], path: broken}", pre=Preflight)
    assert found.startswith("4:3: stages.x: Preflight.preflight failed with RuntimeError: no disk; report it")
    (found,) = node(tmp_path, "{stage: pre, inputs: [nums], path: explained}", pre=Preflight)
    assert found == "4:3: stages.x: the disk is full; empty it"


def test_ports_and_validators_that_raise_are_problems_of_their_node(tmp_path):
    class Ported(Double):
        @classmethod
        def ports(cls, config) -> Ports:
            raise KeyError("width")

    class Validated(Double):
        class Config(Options):
            size: int = 0

            @field_validator("size")
            @classmethod
            def _fails(cls, size):
                raise LookupError("no table")

    (found,) = node(tmp_path, "{stage: bad, inputs: [nums]}", bad=Ported)
    assert "Ported.ports failed with KeyError: 'width'" in found
    (found,) = node(tmp_path, "{stage: bad, inputs: [nums], size: 1}", bad=Validated)
    assert "Validated.Config failed with LookupError: no table" in found


def test_a_mapping_is_checked_like_a_file():
    stages = {
        "nums": {"stage": "numbers"},
        "out": {"stage": "collect", "inputs": ["nums"], "path": Path("a/b.txt")},
    }
    checked = spec.from_mapping("pipeline decode", {"stages": stages, "seed": 5}, extra_stages=TOYS)
    assert (checked.name, checked.file, checked.seed) == ("pipeline-decode", "pipeline decode", 5)
    assert checked.graph["out"].config.path == Path("a/b.txt")
    stages["out"]["pth"] = 1
    with pytest.raises(SpecError) as caught:
        spec.from_mapping("pipeline decode", {"stages": stages}, ["nums.count=x"], extra_stages=TOYS)
    assert [str(problem).partition(" known")[0] for problem in caught.value.problems] == [
        "--set nums.count=x: stages.nums.count: expected a whole number, got 'x'",
        "pipeline decode: stages.out.pth: unknown option, did you mean 'path'?",
    ]


def test_a_mapping_that_no_file_could_hold_is_a_mistake_of_the_caller():
    with pytest.raises(TypeError):
        spec.from_mapping("x", {"stages": {"nums": {"stage": object()}}}, extra_stages=TOYS)


def test_a_checked_config_is_what_strict_validation_makes_of_the_options(tmp_path):
    with pytest.raises(ValidationError):
        TOYS["numbers"].Config.model_validate_json('{"count": "8"}', strict=True)
    (found,) = problems(tmp_path, GOOD.replace("count: 8", "count: '8'"))
    assert found.startswith("4:33: stages.nums.count: expected a whole number, got '8'")
