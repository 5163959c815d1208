from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framefold.pipeline import spec
from framefold.pipeline.errors import SpecError
from framefold.pipeline.stage import Options, Ports, Stage
from framefold.pipeline.testing import TOYS, Double, Spell
from framefold.pipeline.wiring import Wire, fits, topological


class Parse(Stage):
    """Text to number."""

    accepts = str
    emits: ClassVar = {"out": int}


class Letters(Stage):
    """Text to bytes."""

    accepts = str
    emits: ClassVar = {"out": bytes}


class Digest(Stage):
    """Takes bytes only."""

    accepts = bytes


STAGES = {**TOYS, "parse": Parse, "letters": Letters, "digest": Digest}
NUMS = {"stage": "numbers"}


def build(**stages):
    return spec.from_mapping("p", {"stages": stages}, extra_stages=STAGES)


def found(**stages):
    with pytest.raises(SpecError) as caught:
        build(**stages)
    return [f"{problem.path}: {problem.message}" for problem in caught.value.problems]


def toy(stage, *inputs, **options):
    return {"stage": stage, "inputs": list(inputs), **options}


def sink(*inputs):
    return toy("collect", *inputs, path="o")


def test_unknown_inputs_get_the_nearest_name_and_the_guess_counts_as_used():
    assert found(nums=NUMS, out=sink("numz")) == [
        "stages.out.inputs.0: there is no node 'numz', did you mean 'nums'? nodes: nums"
    ]


@pytest.mark.parametrize("reference", ["", ".", ".out", "nums nums", "NUMS."])
def test_references_that_are_none(reference):
    (problem,) = [line for line in found(nums=NUMS, out=sink("nums", reference)) if "inputs.1" in line]
    assert "there is no node" in problem or "has no output" in problem


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("halves", "'halves' has named outputs; write halves.even or halves.odd"),
        ("halves.evn", "'halves' has no output 'evn', did you mean 'even'? write halves.even or halves.odd"),
        ("halves.", "'halves' has no output ''; write halves.even or halves.odd"),
        (
            "halves.even.out",
            "'halves' has no output 'even.out', did you mean 'even'? write halves.even or halves.odd",
        ),
        ("nums.odd", "'nums' has no output 'odd'; write nums"),
        ("keep", "'keep' is a sink and gives nothing; take the output of the node before it"),
    ],
)
def test_ports_that_are_not_there(reference, message):
    lines = found(nums=NUMS, halves=toy("split", "nums"), keep=sink("nums"), out=sink("halves.odd", reference))
    assert lines == [f"stages.out.inputs.1: {message}"]


def test_the_unnamed_port_may_be_named():
    assert (
        build(nums=NUMS, out=sink("nums.out")).graph["out"].inputs
        == build(nums=NUMS, out=sink("nums")).graph["out"].inputs
    )


def test_an_input_named_twice():
    assert found(nums=NUMS, out=sink("nums", "nums.out")) == [
        "stages.out.inputs.1: 'nums.out' is named twice; every item would come twice"
    ]


def test_two_ports_of_one_node_are_two_inputs():
    graph = build(nums=NUMS, halves=toy("split", "nums"), out=sink("halves.even", "halves.odd")).graph
    assert [edge.port for edge in graph["out"].inputs] == ["even", "odd"]


def test_missing_inputs_name_the_nodes_that_would_do():
    (problem,) = found(nums=NUMS, words=toy("spell", "nums"), twice={"stage": "double"}, out=sink("words", "twice"))
    assert problem == "stages.twice.inputs: double needs inputs that give int, such as nums; write inputs: [NODE]"


def test_a_source_takes_no_inputs():
    (problem,) = found(nums=NUMS, more=toy("numbers", "nums"), out=sink("more"))
    assert problem == "stages.more.inputs: numbers is a source and takes no inputs; remove them"


def test_types_that_do_not_fit_are_told_with_what_would_stand_between():
    (problem,) = found(nums=NUMS, words=toy("spell", "nums"), twice=toy("double", "words"), out=sink("twice"))
    assert problem == (
        "stages.twice.inputs.0: words (spell) gives str, but twice (double) takes int; put parse between them"
    )
    (problem,) = found(nums=NUMS, out=toy("digest", "nums"))
    assert problem.endswith("nums (numbers) gives int, but out (digest) takes bytes; put spell -> letters between them")


def test_types_that_nothing_can_bridge(monkeypatch):
    class Sets(Stage):
        """Takes sets."""

        accepts = frozenset

    with pytest.raises(SpecError) as caught:
        spec.from_mapping(
            "p", {"stages": {"nums": NUMS, "out": toy("sets", "nums")}}, extra_stages={**TOYS, "sets": Sets}
        )
    assert "no stage turns one into the other" in str(caught.value)


class Animal: ...


class Cat(Animal): ...


class Dog(Animal): ...


@pytest.mark.parametrize(
    ("emitted", "accepted", "fit"),
    [
        (Cat, Cat, True),
        (Cat, Animal, True),
        (Animal, Cat, True),
        (Cat, Dog, False),
        (Cat | Dog, Dog, True),
        (Cat | int, Dog | str, False),
        (Cat, Dog | Animal, True),
        (object, Cat, True),
        (bool, int, True),
    ],
)
def test_types_fit_where_something_may_pass(emitted, accepted, fit):
    assert fits(emitted, accepted) is fit


def test_options_change_ports():
    class Choosy(Double):
        """Gives text on request."""

        class Config(Options):
            text: bool = False

        @classmethod
        def ports(cls, config):
            return Ports(accepts=int, emits={"out": str if config.text else int})

    stages = {"nums": NUMS, "x": toy("choosy", "nums"), "y": toy("double", "x"), "out": sink("y")}
    extra = {**STAGES, "choosy": Choosy}
    assert len(spec.from_mapping("p", {"stages": stages}, extra_stages=extra).graph) == 4
    with pytest.raises(SpecError, match=r"x \(choosy\) gives str, but y \(double\) takes int"):
        spec.from_mapping("p", {"stages": stages}, ["x.text=true"], extra_stages=extra)


def test_cycles_are_named():
    lines = found(
        nums=NUMS,
        a=toy("add", "c", "nums"),
        b=toy("add", "a"),
        c=toy("add", "b"),
        d=toy("add", "c"),
        out=sink("d"),
    )
    assert lines == ["stages.a.inputs.0: the nodes a -> b -> c -> a form a cycle; items could never leave it"]


def test_two_cycles_are_two_problems_and_a_self_loop_is_its_own():
    lines = found(
        nums=NUMS,
        a=toy("add", "b"),
        b=toy("add", "a"),
        c=toy("add", "d", "a"),
        d=toy("add", "c"),
        e=toy("add", "nums", "e"),
        out=sink("b", "d", "e"),
    )
    assert sorted(line.partition(": ")[2].partition(" form")[0] for line in lines) == [
        "'e' takes its own output; name another node",
        "the nodes a -> b -> a",
        "the nodes c -> d -> c",
    ]


def test_output_that_nobody_takes():
    assert found(nums=NUMS, twice=toy("double", "nums"), out=sink("nums")) == [
        "stages.twice: nobody takes its output; name it in the inputs of another node, or remove it"
    ]


def test_nodes_that_work_for_such_output_alone_are_named_too():
    stages = {"plus": toy("add", "nums"), "more": toy("double", "plus"), "twice": toy("double", "more")}
    (problem,) = found(nums=NUMS, **stages, out=sink("nums"))
    assert problem.startswith("stages.twice: nobody takes its output, and plus and more work for it alone; name it in")


def test_a_pipeline_without_a_sink():
    assert found(nums=NUMS, twice=toy("double", "nums")) == [
        "stages: no sink: the output of twice is never kept; end with one that writes it"
    ]


def test_a_pipeline_without_a_source():
    lines = found(twice={"stage": "double"}, out=sink("twice"))
    assert "stages: no source: nothing would ever reach twice and out; begin with a stage that takes no inputs" in lines


def test_a_port_that_nobody_takes_is_only_a_warning():
    (warning,) = build(nums=NUMS, halves=toy("split", "nums"), out=sink("halves.odd")).warnings
    assert str(warning) == "p: stages.halves: nobody takes halves.even; what goes there is dropped"


def test_a_stateful_stage_has_one_replica():
    (problem,) = found(nums=NUMS, out={**sink("nums"), "replicas": 2})
    assert problem == "stages.out.replicas: collect sees all items in order, so it has 1 replica, got 2"


def test_refused_options_do_not_hide_wrong_connections():
    lines = found(nums=NUMS, words=toy("spell", "nums"), plus=toy("add", "words", amount="x"), out=sink("plus"))
    assert [line.partition(":")[0] for line in lines] == ["stages.plus.amount", "stages.plus.inputs.0"]


def test_stages_are_loaded_for_a_suggestion_only(monkeypatch):
    def refuse(extra):
        raise AssertionError("imported every stage")

    monkeypatch.setattr("framefold.pipeline.registry.loadable_stages", refuse)
    assert len(build(nums=NUMS, out=sink("nums")).graph) == 2
    assert found(nums=NUMS, out=sink("numz"))


@settings(deadline=None)
@given(
    st.integers(1, 12).flatmap(
        lambda n: st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=30).map(lambda e: (n, e))
    )
)
def test_the_order_puts_upstream_first_and_leaves_out_exactly_what_hangs_on_a_cycle(graph):
    count, edges = graph
    names = [f"n{i}" for i in range(count)]
    wires = [Wire(f"n{a}", "out", f"n{b}", ()) for a, b in dict.fromkeys(edges)]
    order = topological(names, wires)
    place = {name: i for i, name in enumerate(order)}
    assert all(place[w.source] < place[w.target] for w in wires if w.target in place)
    for name in set(names) - set(order):
        assert any(w.target == name and w.source not in place for w in wires)


def test_without_edges_the_order_is_the_files():
    assert topological(["b", "a", "c"], []) == ["b", "a", "c"]
    assert topological(["b", "a", "c"], [Wire("c", "out", "b", ())]) == ["a", "c", "b"]


def test_spell_is_the_odd_one_among_the_toys():
    assert Spell.emits == {"out": str}
