import itertools
import random
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framefold.pipeline import drawing, plugin_list, spec, wiring
from framefold.pipeline.errors import SpecError
from framefold.pipeline.graph import Edge, Join
from framefold.pipeline.joining import resolve
from framefold.pipeline.node_check import check_node
from framefold.pipeline.stage import Ports, Stage
from framefold.pipeline.testing import TOYS


class Pair(Stage):
    """Joins two numbers."""

    joins: ClassVar = {"left": int, "right": int}
    emits: ClassVar = {"out": int}


class Triple(Stage):
    """Joins three numbers."""

    joins: ClassVar = {"a": int, "b": int, "c": int}
    emits: ClassVar = {"out": int}


class Shift(Stage):
    """Adds a number that it is given once."""

    accepts = int
    sides: ClassVar = {"key": int}
    emits: ClassVar = {"out": int}


class Parted(Stage):
    """A source with two outputs."""

    emits: ClassVar = {"low": int, "high": int}


STAGES = {**TOYS, "pair": Pair, "triple": Triple, "shift": Shift, "parted": Parted}
NUMS = {"stage": "numbers"}


def toy(stage, *inputs, **options):
    return {"stage": stage, "inputs": list(inputs), **options}


def pair(left, right):
    return {"stage": "pair", "inputs": {"left": left, "right": right}}


def shift(node, key):
    return toy("shift", node, side_inputs={"key": key})


def build(changes=(), **stages):
    """The graph of these nodes; whatever nobody takes goes to a sink."""
    return spec.from_mapping("p", {"stages": with_sinks(stages)}, changes, extra_stages=STAGES).graph


def with_sinks(stages):
    taken = set()
    for node in stages.values():
        inputs = node.get("inputs", [])
        given = [*(inputs.values() if isinstance(inputs, dict) else inputs), *node.get("side_inputs", {}).values()]
        taken.update(reference.partition(".")[0] for reference in given)
    loose = [name for name in stages if name not in taken]
    return {**stages, "out": toy("collect", *loose, path="o")}


def found(**stages):
    with pytest.raises(SpecError) as caught:
        build(**stages)
    return [f"{problem.path}: {problem.message}" for problem in caught.value.problems]


# Where the joined items come from.


def test_the_fork_of_a_diamond_is_where_its_ways_part():
    graph = build(nums=NUMS, up=toy("add", "nums"), down=toy("double", "nums"), both=pair("up", "down"))
    assert graph["both"].join == Join("nums", 2)
    assert graph["up"].join is None


def test_a_way_may_be_of_any_length_or_none():
    graph = build(nums=NUMS, a=toy("add", "nums"), b=toy("add", "a"), c=toy("add", "b"), both=pair("a", "c"))
    assert graph["both"].join == Join("a", 3)


def test_what_lies_before_the_fork_makes_it_longer():
    graph = build(
        nums=NUMS,
        a=toy("add", "nums"),
        b=toy("add", "a"),
        up=toy("add", "b"),
        down=toy("double", "b"),
        both=pair("up", "down"),
    )
    assert graph["both"].join == Join("b", 4)


def test_the_fork_is_the_nearest_node_that_all_ways_pass():
    graph = build(
        nums=NUMS,
        a=toy("add", "nums"),
        up=toy("add", "a"),
        down=toy("double", "a"),
        far=toy("double", "nums"),
        all={"stage": "triple", "inputs": {"a": "up", "b": "down", "c": "far"}},
        two=pair("up", "down"),
    )
    assert graph["all"].join == Join("nums", 2)
    assert graph["two"].join == Join("a", 3)


def test_ways_that_leave_by_different_ports_meet_at_the_item_that_was_divided():
    graph = build(nums=NUMS, halves=toy("split", "nums"), both=pair("halves.even", "halves.odd"))
    assert graph["both"].join == Join("halves", 2)


def test_ways_that_leave_by_one_port_of_several_meet_at_the_output():
    graph = build(
        nums=NUMS,
        halves=toy("split", "nums"),
        up=toy("add", "halves.even"),
        both=pair("up", "halves.even"),
        rest=toy("add", "halves.odd"),
    )
    assert graph["both"].join == Join("halves", 3)


def test_a_join_may_be_the_fork_of_another():
    graph = build(
        nums=NUMS,
        up=toy("add", "nums"),
        first=pair("nums", "up"),
        more=toy("add", "first"),
        second=pair("first", "more"),
    )
    assert graph["first"].join == Join("nums", 2)
    assert graph["second"].join == Join("first", 4)
    assert (graph["first"].depth, graph["more"].depth, graph["second"].depth) == (4, 5, 6)


def test_a_join_within_a_way_does_not_hide_the_fork():
    graph = build(
        nums=NUMS,
        up=toy("add", "nums"),
        a=toy("add", "up"),
        inner=pair("up", "a"),
        down=toy("double", "nums"),
        outer=pair("inner", "down"),
    )
    assert graph["inner"].join == Join("up", 3)
    assert graph["outer"].join == Join("nums", 2)


def test_sources_that_are_merged_before_the_fork_are_one_origin():
    graph = build(nums=NUMS, more=NUMS, any=toy("add", "nums", "more"), up=toy("add", "any"), both=pair("any", "up"))
    assert graph["both"].join == Join("any", 3)


def test_ports_that_are_merged_again_are_told_apart_by_their_number():
    graph = build(
        nums=NUMS,
        halves=toy("split", "nums"),
        any=toy("add", "halves.even", "halves.odd"),
        up=toy("add", "any"),
        both=pair("any", "up"),
    )
    assert graph["both"].join == Join("any", 4)


def test_ways_may_be_merged_between_the_fork_and_the_join():
    graph = build(
        nums=NUMS,
        a=toy("add", "nums"),
        b=toy("double", "a"),
        any=toy("add", "a", "b"),
        both=pair("any", "nums"),
    )
    assert graph["both"].join == Join("nums", 2)
    assert (graph["any"].depth, graph["both"].depth) == (None, 4)


def test_a_stateful_stage_may_stand_between():
    graph = build(nums=NUMS, held=toy("hold_back", "nums"), both=pair("held", "nums"))
    assert graph["both"].join == Join("nums", 2)


def test_a_side_input_is_no_way_of_items():
    graph = build(nums=NUMS, key=NUMS, up=shift("nums", "key"), both=pair("nums", "up"))
    assert graph["both"].join == Join("nums", 2)


# What cannot be joined.

UNKNOWABLE = "so nothing tells which items belong together"


def test_items_of_two_sources_have_no_common_origin():
    (problem,) = found(nums=NUMS, more=NUMS, both=pair("nums", "more"))
    assert problem == (
        f"stages.both.inputs: nums and more have no common origin, {UNKNOWABLE}; "
        "join outputs that descend from one node"
    )


def test_two_ways_from_two_sources_each_have_none_either():
    stages = {"any": toy("add", "nums", "more"), "other": toy("double", "nums", "more")}
    (problem,) = found(nums=NUMS, more=NUMS, **stages, both=pair("any", "other"))
    assert "any and other have no common origin" in problem


def test_a_source_that_gives_apart_what_belongs_together():
    (problem,) = found(nums={"stage": "parted"}, both=pair("nums.low", "nums.high"))
    assert f"the source 'nums' gives high and low apart, {UNKNOWABLE}" in problem


def test_one_port_of_such_a_source_can_be_joined():
    graph = build(
        nums={"stage": "parted"},
        up=toy("add", "nums.low"),
        both=pair("nums.low", "up"),
        rest=toy("add", "nums.high"),
    )
    assert graph["both"].join == Join("nums", 2)


def test_a_merge_of_twins_before_the_fork():
    stages = {"a": toy("add", "nums"), "b": toy("double", "nums"), "any": toy("add", "a", "b")}
    (problem,) = found(nums=NUMS, **stages, more=toy("add", "any"), both=pair("any", "more"))
    assert f"'any' merges a and b, which descend from the same items, {UNKNOWABLE}; join before" in problem


def test_a_merge_of_different_lengths_before_the_fork_even_a_while_before():
    stages = {"near": toy("add", "far"), "any": toy("add", "nums", "near"), "next": toy("add", "any")}
    (problem,) = found(nums=NUMS, far=NUMS, **stages, more=toy("add", "next"), both=pair("next", "more"))
    assert f"'any' merges nums and near, which are not equally far from their sources, {UNKNOWABLE}" in problem


def test_what_hangs_on_a_mistake_is_not_judged():
    stages = {"up": toy("add", "numz"), "both": pair("up", "nums"), "again": pair("both", "nums")}
    (problem,) = found(nums=NUMS, **stages)
    assert "there is no node 'numz'" in problem
    (problem,) = found(nums=NUMS, more=NUMS, both=pair("nums", "more"), again=pair("both", "nums"))
    assert problem.startswith("stages.both.inputs: nums and more have no common origin")


def test_a_join_in_a_cycle_is_a_cycle():
    (problem,) = found(nums=NUMS, both=pair("nums", "up"), up=toy("add", "both"), end=toy("add", "up"))
    assert "the nodes both -> up -> both form a cycle" in problem


# A simulation: items are numbered as the engine numbers them, and what a join puts together is compared with where
# they really come from.


@st.composite
def graphs(draw):
    """Sources, chains, merges, divisions and joins of whatever is there already, sensible or not."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    stages, outputs = {}, []
    for number in range(draw(st.integers(3, 14))):
        name, kind = f"n{number}", rng.choice(["numbers", "add", "add", "merge", "split", "pair", "pair", "pair"])
        if number == 0 or (kind == "numbers" and rng.random() < 0.3):
            stages[name] = NUMS
        elif kind in {"merge", "pair"} and len(outputs) > 1:
            two = rng.sample(outputs, 2)
            stages[name] = pair(*two) if kind == "pair" else toy("add", *two)
        else:
            stages[name] = toy("split" if kind == "split" else "add", rng.choice(outputs))
        outputs += [f"{name}.even", f"{name}.odd"] if stages[name]["stage"] == "split" else [f"{name}.out"]
    return stages


@settings(deadline=None, max_examples=300)
@given(graphs())
def test_a_join_puts_together_what_descends_from_one_item_and_nothing_else(stages):
    drafts = {name: check_node(name, body, STAGES).draft for name, body in stages.items()}
    wires = wiring.connect(drafts).wires
    joining = resolve(drafts, wires)
    run = Simulation(joining.joins)
    for number, name in enumerate(wiring.topological(drafts, wires)):
        run.node(name, number, drafts[name], [wire for wire in wires if wire.target == name])
        lengths = {len(seq) for seq, _ in run.given[name]}
        assert lengths <= {joining.depths.get(name)} or name not in joining.depths


class Simulation:
    """Three items per source; everything that can be made of them."""

    def __init__(self, joins):
        self.joins = joins
        self.given = {}
        """Of each node, (seq, {(kind, node): serial numbers of the outputs and calls it descends from})."""
        self.ports = {}
        self.serial = itertools.count()

    def node(self, name, number, draft, wires):
        if draft.is_source:
            calls = [((number, item), {}) for item in range(3)]
            self.give(name, draft, [(seq[:-1], seq[-1:], origins) for seq, origins in calls])
        elif draft.ports.joins:
            self.give(name, draft, [((*seq, 0), (0,), origins) for seq, origins in self.joined(name, wires)])
        else:
            items = [item for wire in wires for item in self.ports[wire.source, wire.port]]
            self.give(name, draft, [(seq, (0,), origins) for seq, origins in items])

    def give(self, name, draft, calls):
        """Each call gives one output by each port."""
        self.given[name] = []
        for place, port in enumerate(draft.ports.emits):
            self.ports[name, port] = []
            for call, (seq, (first,), origins) in enumerate(calls):
                own = {("call", name): {call}, ("out", name): {next(self.serial)}}
                self.ports[name, port].append(((*seq, first + place), {**origins, **own}))
            self.given[name] += self.ports[name, port]

    def joined(self, name, wires):
        """What is put together, one item per group; nothing at a join that was refused."""
        join, groups = self.joins.get(name), {}
        for wire in wires if join else ():
            for seq, origins in self.ports[wire.source, wire.port]:
                groups.setdefault(seq[: join.length], []).append(origins)
        for kind in ("out", "call") if join else ():
            ancestors = [set().union(*(origins[kind, join.fork] for origins in group)) for group in groups.values()]
            if kind == "call" or join.length == self.depth(join.fork):
                assert all(len(one) == 1 for one in ancestors)
                assert len(set().union(*ancestors)) == len(ancestors)
        return [(seq, union(group)) for seq, group in groups.items()]

    def depth(self, name):
        return len(self.given[name][0][0])


def union(group):
    return {key: set().union(*(origins.get(key, set()) for origins in group)) for key in set().union(*group)}


# Side inputs that would never come.


def waits(**stages):
    (problem,) = found(**stages)
    return problem


def test_a_side_input_of_its_own_source_is_fine():
    graph = build(nums=NUMS, more=NUMS, key=toy("hold_back", "more"), coded=shift("nums", "key"))
    assert graph["coded"].sides == (Edge("key", "out", "key"),)
    assert graph["coded"].inputs == (Edge("nums", "out"),)
    assert graph["key"].consumers == ()


def test_two_nodes_may_share_a_side_input():
    graph = build(nums=NUMS, key=NUMS, up=shift("nums", "key"), down=shift("up", "key"))
    assert [graph[name].sides[0].node for name in ("up", "down")] == ["key", "key"]


def test_a_side_input_made_of_the_items_that_wait_for_it():
    assert waits(nums=NUMS, key=toy("hold_back", "nums"), coded=shift("nums", "key")) == (
        "stages.coded.side_inputs.key: key comes from nums, as do the items of coded, which wait for it; "
        "give it a source of its own: two nodes may read the same path"
    )


def test_a_side_input_that_is_the_input_too():
    assert "key comes from nums, as do the items" in waits(nums=NUMS, coded=shift("nums", "nums"))


def test_the_nearest_shared_node_is_named():
    stages = {"a": toy("add", "nums"), "b": toy("add", "a"), "key": toy("add", "b"), "up": toy("double", "b")}
    assert "key comes from b," in waits(nums=NUMS, **stages, coded=shift("up", "key"))


def test_a_side_input_that_needs_a_side_input_that_waits():
    stages = {"seed": toy("add", "nums"), "key": shift("more", "seed")}
    assert "key comes from nums," in waits(nums=NUMS, more=NUMS, **stages, coded=shift("nums", "key"))


def test_a_side_input_whose_source_is_held_up_by_a_stage_that_keeps_order():
    """The sink wants the items of nums first; they wait for the model, and that for the end of more."""
    learned = {"key": toy("hold_back", "more"), "up": shift("nums", "key")}
    ordered = {"k": toy("hold_back", "up", "more")}
    assert waits(nums=NUMS, more=NUMS, **learned, **ordered) == (
        "stages.up.side_inputs.key: k takes items in order, those of more and those that wait at up for all that more "
        "gives; give key a source of its own: two nodes may read the same path"
    )


def test_two_nodes_that_hold_up_each_others_side_inputs():
    assert waits(nums=NUMS, more=NUMS, a=shift("nums", "more"), b=shift("more", "nums")) == (
        "stages.a.side_inputs.key: a waits for items that b holds up, and b for items that a holds up; "
        "give one side input a source of its own: two nodes may read the same path"
    )


def test_a_side_input_from_further_down_is_a_cycle():
    stages = {"coded": shift("nums", "down"), "down": toy("add", "coded"), "end": toy("add", "down")}
    assert "the nodes coded -> down -> coded form a cycle" in waits(nums=NUMS, **stages)


def test_taking_an_output_as_a_side_input_is_taking_it():
    graph = build(nums=NUMS, halves=toy("split", "key"), key=NUMS, coded=shift("nums", "halves.odd"))
    assert graph["coded"].sides == (Edge("halves", "odd", "key"),)


# What becomes of names.

NAMED = {
    "nums": NUMS,
    "halves": toy("split", "nums"),
    "key": toy("numbers", count=1),
    "up": shift("halves.even", "key"),
    "both": pair("up", "halves.odd"),
}
del NAMED["key"]["inputs"]


def test_edges_have_the_names_of_the_stage_in_its_order():
    swapped = {**NAMED, "both": {"stage": "pair", "inputs": {"right": "halves.odd", "left": "up"}}}
    graph = build(**swapped)
    assert graph["both"].inputs == (Edge("up", "out", "left"), Edge("halves", "odd", "right"))
    assert graph["halves"].consumers == (Edge("up", "even"), Edge("both", "odd", "right"))
    assert graph.edge_count == 6
    assert graph["both"].lineage == build(**NAMED)["both"].lineage


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["key.count=2"], {"key", "kept", "up", "both", "out"}),
        (["both.inputs={left: halves.odd, right: up}"], {"both", "out"}),
        (["up.side_inputs.key=nums2"], {"up", "both", "out"}),
    ],
)
def test_lineage_follows_names_and_side_inputs(changes, expected):
    stages = {
        **NAMED,
        "nums2": {"stage": "numbers", "count": 7},
        "rest": toy("add", "nums2"),
        "kept": toy("add", "key"),
    }
    before, after = build(**stages), build(changes, **stages)
    assert {name for name in before.order if before[name].lineage != after[name].lineage} == expected


def test_signatures_name_what_is_joined():
    assert build(**NAMED)["both"].signature == "left: int, right: int -> int"


def test_drawings_show_names_and_side_inputs():
    graph = build(**NAMED)
    assert drawing.text(graph).splitlines()[2:] == [
        "nums    numbers  -> int  (1 replica)",
        "│",
        "halves  split    int -> even: int, odd: int  (1 replica)",
        "├─ even: up      shift    int -> int  (1 replica, key from key)",
        "│  └─ as left: both (below)",
        "└─ odd as right: both    pair     left: int, right: int -> int  (1 replica)",
        "   │",
        "   out     collect  int or str ->  (1 replica)",
        "",
        "key     numbers  -> int  (1 replica)",
        "└╌ as key: up (side input)",
    ]
    assert '  "key" -> "up" [label="as key: int", style=dashed];' in drawing.dot(graph).splitlines()
    assert '  "halves" -> "both" [label="odd as right: int"];' in drawing.dot(graph).splitlines()
    assert '  n2 -.->|"as key: int"| n3' in drawing.mermaid(graph).splitlines()
    assert '  n3 -->|"as left: int"| n4' in drawing.mermaid(graph).splitlines()


def test_plugins_are_listed_with_what_they_join_and_wait_for(tmp_path, monkeypatch):
    info = tmp_path / "joiners-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: joiners\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[framefold.stages]\nzip = joinersmod:Zip\n")
    (tmp_path / "joinersmod.py").write_text(
        "from framefold.pipeline.stage import Stage\n"
        "class Zip(Stage):\n"
        "    '''Joins.'''\n"
        "    joins = {'left': int, 'right': str}\n"
        "    sides = {'key': bytes}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    (plugin,) = [stage for stage in plugin_list.stages() if stage.name == "zip"]
    assert plugin.takes == "left: int, right: str with key: bytes"
    assert plugin.as_dict()["joins"] == {"left": ("int",), "right": ("str",)}
    assert plugin.as_dict()["sides"] == {"key": ("bytes",)}


def test_options_that_are_refused_do_not_hide_mistakes_in_joins_and_sides():
    class Picky(Pair):
        """Joins, under the class's own ports whatever the options."""

        sides: ClassVar = {"key": int}

    stages = {
        "nums": NUMS,
        "x": {"stage": "picky", "inputs": ["nums"], "amount": 1},
        "out": toy("collect", "x", path="o"),
    }
    with pytest.raises(SpecError) as caught:
        spec.from_mapping("p", {"stages": stages}, extra_stages={**STAGES, "picky": Picky})
    assert [problem.path for problem in caught.value.problems] == [
        "stages.x.amount",
        "stages.x.inputs",
        "stages.x.side_inputs",
    ]


def test_options_may_change_what_is_joined():
    class Wide(Pair):
        """Joins one more on request."""

        @classmethod
        def ports(cls, config):
            return Ports(joins={**cls.joins, "more": int}, emits=cls.emits)

    stages = {"nums": NUMS, "up": toy("add", "nums"), "x": {**pair("nums", "up"), "stage": "wide"}}
    with pytest.raises(SpecError, match=r"wide needs more \(int\) too; write more: NODE"):
        spec.from_mapping("p", {"stages": with_sinks(stages)}, extra_stages={**STAGES, "wide": Wide})
