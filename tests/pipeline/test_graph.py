import copy
import itertools
import pickle

import pytest

from framefold.pipeline import drawing, spec
from framefold.pipeline.graph import Edge
from framefold.pipeline.testing import TOYS

STAGES = {
    "out": {"stage": "collect", "inputs": ["plus", "twice"], "path": "o"},
    "twice": {"stage": "double", "inputs": ["nums"], "replicas": 2, "resources": {"gpus": 0.5}},
    "plus": {"stage": "add", "inputs": ["halves.even", "halves.odd"], "amount": 3},
    "halves": {"stage": "split", "inputs": ["nums"]},
    "nums": {"stage": "numbers", "count": 4},
}


def build(changes=(), **top):
    stages = copy.deepcopy(STAGES)
    return spec.from_mapping("toy", {"stages": stages, **top}, changes, extra_stages=TOYS).graph


def lineages(changes=(), **top):
    return {node.name: node.lineage for node in build(changes, **top)}


def changed_by(changes=(), **top):
    """Nodes whose lineage differs after the changes."""
    before, after = lineages(), lineages(changes, **top)
    return {name for name in before if before[name] != after[name]}


def test_nodes_stand_in_order_and_know_their_neighbours():
    graph = build()
    assert graph.order == ("nums", "twice", "halves", "plus", "out")
    assert graph["plus"].inputs == (Edge("halves", "even"), Edge("halves", "odd"))
    assert graph["halves"].consumers == (Edge("plus", "even"), Edge("plus", "odd"))
    assert graph["nums"].consumers == (Edge("twice", "out"), Edge("halves", "out"))
    assert (graph["nums"].is_source, graph["nums"].is_sink) == (True, False)
    assert (graph["out"].is_source, graph["out"].is_sink) == (False, True)
    assert (len(graph), graph.edge_count) == (5, 6)
    assert graph["halves"].signature == "int -> even: int, odd: int"
    assert graph["out"].signature == "int or str ->"


def test_lineage_is_the_same_in_every_run_and_different_for_every_node():
    assert lineages() == lineages()
    assert len(set(lineages().values())) == 5
    assert all(len(digest) == 64 for digest in lineages().values())


def test_lineage_is_the_same_in_every_version():
    """Keys in archives and in run folders are made of it: a change here makes strangers of all that is stored."""
    assert lineages() == {
        "nums": "5310a62c6e58100b8bfb57498e00d2ac6ef6456404c9b66670de1378e8de600c",
        "twice": "7402ada4094b87a62b47c7a49fd98ddac30008b89d486b22c7ef6a33273d6550",
        "halves": "a5a2ef1bb7a3ccafe321a6a81ab5cf4599dde8bdea5c969b3c4c1c6c2c5a0caf",
        "plus": "3e2ee2af8cd388429a7c0d9335755466743efb0d38fbe29a61a2dc1fc9e99844",
        "out": "7bd60dd7d9644eb6e837456e5fed4a8f9ede0606c888e3fff6a8f49d2f1aafbe",
    }


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["nums.count=5"], {"nums", "twice", "halves", "plus", "out"}),
        (["plus.amount=4"], {"plus", "out"}),
        (["plus.inputs=[halves.even]"], {"plus", "out"}),
        (["out.path=p"], {"out"}),
        (["twice.replicas=1", "twice.resources={cpus: 2}", "twice.retries=9"], set()),
        (["twice.replicas={min: 1, max: 8}", "twice.timeout=9", "twice.stall_timeout=9"], set()),
        (["twice.batch={items: 2}", "twice.store=true", "twice.resources.labels={a: b}", "fail_fast=true"], set()),
        (["plus.amount=3", "halves.parts=2"], set()),
        (["run_dir=elsewhere", "pipeline=other"], set()),
        (["seed=1"], {"nums", "twice", "halves", "plus", "out"}),
    ],
)
def test_lineage_follows_what_determines_the_result(changes, expected):
    assert changed_by(changes) == expected


def test_the_names_of_nodes_do_not_matter():
    renamed = {
        "n": {"stage": "numbers", "count": 4},
        "h": {"stage": "split", "inputs": ["n"]},
        "p": {"stage": "add", "inputs": ["h.even", "h.odd"], "amount": 3},
        "o": {"stage": "collect", "inputs": ["p"], "path": "o"},
    }
    graph = spec.from_mapping("other", {"stages": renamed}, extra_stages=TOYS).graph
    assert graph["p"].lineage == build()["plus"].lineage


def test_a_graph_travels_to_other_processes():
    graph = build()
    assert pickle.loads(pickle.dumps(graph)) == graph


def test_description_counts_what_is_asked_for():
    assert build().describe() == "5 nodes, 6 edges, 6 replicas, 1 GPU set aside"
    assert (
        build(["twice.resources.gpus=0", "twice.resources.cpus=1.5"])
        .describe()
        .endswith("6 replicas, 3 CPUs set aside")
    )


def test_description_counts_replicas_that_come_and_go():
    changes = ["twice.replicas={min: 1, max: 8}"]
    assert build(changes).describe() == "5 nodes, 6 edges, 5 to 12 replicas, 0.5 to 4 GPUs set aside"
    assert "(1 to 8 replicas x 0.5 GPU)" in drawing.text(build(changes))


def test_the_text_drawing_shows_every_node_once():
    assert drawing.text(build()).splitlines() == [
        "toy: 5 nodes, 6 edges, 6 replicas, 1 GPU set aside",
        "",
        "nums    numbers  -> int  (1 replica)",
        "├─ twice   double   int -> int  (2 replicas x 0.5 GPU)",
        "│  └─ out (below)",
        "└─ halves  split    int -> even: int, odd: int  (1 replica)",
        "   │ even and odd:",
        "   plus    add      int -> int  (1 replica)",
        "   │",
        "   out     collect  int or str ->  (1 replica)",
    ]


def test_a_long_chain_is_drawn_downwards():
    names = [f"n{i}" for i in range(1500)]
    stages = {"n0": {"stage": "numbers"}}
    stages |= {name: {"stage": "double", "inputs": [before]} for before, name in itertools.pairwise(names)}
    stages["out"] = {"stage": "collect", "inputs": [names[-1]], "path": "o"}
    graph = spec.from_mapping("long", {"stages": stages}, extra_stages=TOYS).graph
    lines = drawing.text(graph).splitlines()
    assert len([line for line in lines if "double" in line]) == 1499
    assert max(map(len, lines)) < 100


def test_graphviz_and_mermaid_name_every_node_and_edge():
    dot, mermaid = drawing.dot(build()), drawing.mermaid(build())
    assert dot.startswith('digraph "toy" {')
    assert '  "twice" [label="twice\\ndouble, 2 replicas x 0.5 GPU"];' in dot.splitlines()
    assert '  "halves" -> "plus" [label="odd: int"];' in dot.splitlines()
    assert dot.count("->") == mermaid.count("-->") == 6
    assert mermaid.startswith("flowchart LR\n")
    assert '  n2 -->|"odd: int"| n3' in mermaid.splitlines()
    assert '  n1["twice<br/>double, 2 replicas x 0.5 GPU"]' in mermaid.splitlines()
