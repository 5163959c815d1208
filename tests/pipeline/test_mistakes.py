"""Mistakes in pipeline files, each with the very lines that are printed: a test, and a page to read.

`pipeline.yaml:line:column: path: what is wrong, what is allowed, what to do`.
"""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import pytest
from pydantic import BaseModel

from framefold.pipeline import registry, spec
from framefold.pipeline.errors import SpecError
from framefold.pipeline.findings import listed
from framefold.pipeline.stage import Options, Ports, Stage
from framefold.pipeline.testing import TOYS


class Pair(Stage):
    """Joins a number and its spelling."""

    joins: ClassVar = {"number": int, "word": str}
    emits: ClassVar = {"out": str}


class Twins(Stage):
    """Joins two numbers."""

    joins: ClassVar = {"left": int, "right": int}
    emits: ClassVar = {"out": int}


class Halves(Stage):
    """A source with two outputs."""

    emits: ClassVar = {"low": int, "high": int}


class Shift(Stage):
    """Adds a number that it is given once."""

    accepts = int
    sides: ClassVar = {"key": int}
    emits: ClassVar = {"out": int}


class Brush(BaseModel, frozen=True, extra="forbid"):
    colour: Literal["red", "green"] = "red"
    size: int = 1


class Paint(Stage):
    """Has options in options, and looks for a file."""

    class Config(Options):
        brush: Brush = Brush()
        canvas: Path = Path()

    accepts = int
    emits: ClassVar = {"out": int}

    @classmethod
    def preflight(cls, config):
        return () if config.canvas.exists() else [("canvas", f"there is no file {config.canvas}; give another")]


class Greedy(Stage):
    """Its option would never reach it."""

    class Config(Options):
        timeout: int = 3

    accepts = int
    emits: ClassVar = {"out": int}


class Undecided(Stage):
    """Takes items in two ways."""

    accepts = int
    joins: ClassVar = {"left": int}
    emits: ClassVar = {"out": int}


class Portless(Stage):
    """Its ports are a riddle."""

    @classmethod
    def ports(cls, config) -> Ports:
        return cls.table["ports"]

    table: ClassVar[Mapping[str, Ports]] = {}


STAGES = {
    **TOYS,
    "pair": Pair,
    "twins": Twins,
    "halves": Halves,
    "shift": Shift,
    "paint": Paint,
    "greedy": Greedy,
    "undecided": Undecided,
    "portless": Portless,
}

PLUGINS = {
    "absent-plugin": ("absent = absentmod:Absent", {}),
    "broken-plugin": ("broken = brokenmod:Broken", {"brokenmod": "import surely_not_installed"}),
    "modest-plugin": ("no_stage = modestmod:Modest", {"modestmod": "class Modest: pass"}),
    "one-plugin": ("contested = onemod:One", {}),
    "other-plugin": ("contested = othermod:Other", {}),
}
"""Distributions by name: what they register, and their modules."""


class Mistake(NamedTuple):
    what: str
    text: str
    lines: tuple[str, ...]
    """`<all stages>` stands for their names."""


def mistake(what, text, *lines):
    return Mistake(what, text, lines)


MISTAKES = [
    # The text is not YAML, or not the YAML of a pipeline.
    mistake(
        "an empty file",
        "",
        "pipeline.yaml: is empty; a pipeline file begins with `pipeline: NAME` and lists its `stages:`",
    ),
    mistake(
        "a tab indents",
        """
        pipeline: toy
        stages:
        \tnums: {stage: numbers}
        """,
        "pipeline.yaml:3:1: not valid YAML: while scanning for the next token, found character '\\t' that "
        "cannot start any token; indent with spaces",
    ),
    mistake(
        "a bracket is never closed",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers
          out: {stage: collect, inputs: [nums], path: o}
        """,
        "pipeline.yaml:4:6: not valid YAML: while parsing a flow mapping, expected ',' or '}', but got ':'",
    ),
    mistake(
        "a variable in braces without quotes",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          out: {stage: collect, inputs: [nums], path: ${HOME}/o}
        """,
        "pipeline.yaml:4:48: not valid YAML: while parsing a flow mapping, expected ',' or '}', but got '{'; "
        "inside { } or [ ] a ${NAME} must be quoted",
    ),
    mistake(
        "a variable that is not set",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          out: {stage: collect, inputs: [nums], path: "${NO_SUCH_VARIABLE}/o"}
        """,
        "pipeline.yaml:4:47: stages.out.path: environment variable NO_SUCH_VARIABLE is not set; set it, or "
        "write ${NO_SUCH_VARIABLE:-default}",
    ),
    mistake(
        "two documents",
        """
        pipeline: toy
        stages: {}
        ---
        pipeline: toy
        """,
        "pipeline.yaml:3:1: a second document begins here; put each pipeline into a file of its own",
    ),
    mistake(
        "the same node twice",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          out: {stage: collect, inputs: [nums], path: o}
          out: {stage: collect, inputs: [nums], path: p}
        """,
        "pipeline.yaml:5:3: stages.out: key 'out' on line 5 already stands on line 4; keep one of them",
    ),
    mistake(
        "a tag",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          out: {stage: collect, inputs: [nums], path: !!python/name:os.sep o}
        """,
        "pipeline.yaml:4:47: stages.out.path: tag !!python/name:os.sep is not allowed; remove it (quotes "
        "make a value text)",
    ),
    mistake(
        "a merge key",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          out: {<<: {path: o}, stage: collect, inputs: [nums]}
        """,
        "pipeline.yaml:4:9: stages.out: merge keys (<<) are not supported; write the options out",
    ),
    mistake(
        "a list instead of nodes",
        """
        pipeline: toy
        stages: [numbers, collect]
        """,
        "pipeline.yaml:2:1: stages: expected a mapping, got a list",
    ),
    # What YAML 1.1 read as something else.
    mistake(
        "no is text, not false",
        """
        pipeline: toy
        fail_fast: no
        stages:
          nums: {stage: numbers}
          out: {stage: collect, inputs: [nums], path: o}
        """,
        "pipeline.yaml:2:12: fail_fast: expected true or false, got 'no'; write false",
    ),
    mistake(
        "a leading zero makes text, not an octal number",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers, count: 010}
          out: {stage: collect, inputs: [nums], path: o}
        """,
        "pipeline.yaml:3:33: stages.nums.count: expected a whole number, got '010'; write 10 or 0o10",
    ),
    mistake(
        "a time of day is text, not 1350 minutes",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          late: {stage: slow, inputs: [nums], seconds: 22:30}
          out: {stage: collect, inputs: [late], path: o}
        """,
        "pipeline.yaml:4:48: stages.late.seconds: expected a number, got '22:30'",
    ),
    mistake(
        "a quoted number is text, with or without an exponent",
        """
        pipeline: toy
        seed: "1"
        stages:
          nums: {stage: numbers}
          late: {stage: slow, inputs: [nums], seconds: "5e-4"}
          out: {stage: collect, inputs: [late], path: o}
        """,
        "pipeline.yaml:2:7: seed: expected a whole number, got '1'; remove the quotes",
        "pipeline.yaml:5:48: stages.late.seconds: expected a number, got '5e-4'; remove the quotes",
    ),
    mistake(
        "an infinite number",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          late: {stage: slow, inputs: [nums], timeout: .inf}
          out: {stage: collect, inputs: [late], path: o}
        """,
        "pipeline.yaml:4:48: stages.late.timeout: .inf is not a finite number; quote it if text is meant",
    ),
    mistake(
        "a number as the name of a file",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          out: {stage: collect, inputs: [nums], path: 8}
        """,
        'pipeline.yaml:4:47: stages.out.path: expected text, got 8; quote it: "8"',
    ),
    mistake(
        "a number as the name of a node",
        """
        pipeline: toy
        stages:
          1: {stage: numbers}
          nums: {stage: numbers}
          out: {stage: collect, inputs: [nums], path: o}
        """,
        "pipeline.yaml:3:3: stages: key 1 is not text; keys are names, quote it if it is one",
    ),
    # The top of the file.
    mistake(
        "a word that is not known, and one that is missing",
        """
        pipline: toy
        stages:
          nums: {stage: numbers}
          out: {stage: collect, inputs: [nums], path: o}
        """,
        "pipeline.yaml:1:1: pipeline: is missing, and has no default",
        "pipeline.yaml:1:1: pipline: unknown option, did you mean 'pipeline'? known: checkpoint_seconds, "
        "drain_seconds, fail_fast, pipeline, run_dir, seed and stages",
    ),
    mistake(
        "seconds out of range",
        """
        pipeline: toy
        checkpoint_seconds: 0
        drain_seconds: -1
        stages:
          nums: {stage: numbers}
          out: {stage: collect, inputs: [nums], path: o}
        """,
        "pipeline.yaml:2:21: checkpoint_seconds: should be greater than 0, got 0",
        "pipeline.yaml:3:16: drain_seconds: should be greater than or equal to 0, got -1",
    ),
    mistake(
        "a node's name",
        """
        pipeline: toy
        stages:
          Nums: {stage: numbers}
          out: {stage: collect, inputs: [Nums], path: o}
        """,
        "pipeline.yaml:3:3: stages.Nums: 'Nums' is no name for a node; use a-z, 0-9 and _, a letter first",
    ),
    # Words of the engine.
    mistake(
        "no replica",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          twice: {stage: double, inputs: [nums], replicas: 0}
          out: {stage: collect, inputs: [twice], path: o}
        """,
        "pipeline.yaml:4:52: stages.twice.replicas: should be greater than or equal to 1, got 0",
    ),
    mistake(
        "fewer replicas at most than at least",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          twice: {stage: double, inputs: [nums], replicas: {min: 4, max: 1}}
          out: {stage: collect, inputs: [twice], path: o}
        """,
        "pipeline.yaml:4:42: stages.twice.replicas: max is 1, which is less than min, 4; swap them",
    ),
    mistake(
        "a range of replicas without its end",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          twice: {stage: double, inputs: [nums], replicas: {min: 1, mx: 8}}
          out: {stage: collect, inputs: [twice], path: o}
        """,
        "pipeline.yaml:4:42: stages.twice.replicas.max: is missing, and has no default",
        "pipeline.yaml:4:61: stages.twice.replicas.mx: unknown option, did you mean 'max'? known: max and min",
    ),
    mistake(
        "replicas in words",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          twice: {stage: double, inputs: [nums], replicas: auto}
          out: {stage: collect, inputs: [twice], path: o}
        """,
        "pipeline.yaml:4:52: stages.twice.replicas: expected a whole number or a mapping (min, max), got 'auto'",
    ),
    mistake(
        "replicas of a stage that needs the order",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          out: {stage: collect, inputs: [nums], path: o, replicas: {min: 1, max: 2}}
        """,
        "pipeline.yaml:4:50: stages.out.replicas: collect sees all items in order, so it has 1 replica, got 1 to 2",
    ),
    mistake(
        "too many attempts",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          twice: {stage: double, inputs: [nums], retries: 100}
          out: {stage: collect, inputs: [twice], path: o}
        """,
        "pipeline.yaml:4:51: stages.twice.retries: should be less than or equal to 10, got 100",
    ),
    mistake(
        "no time at all, and time with a unit",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          twice: {stage: double, inputs: [nums], timeout: 0, stall_timeout: 10m}
          out: {stage: collect, inputs: [twice], path: o}
        """,
        "pipeline.yaml:4:51: stages.twice.timeout: should be greater than 0, got 0",
        "pipeline.yaml:4:69: stages.twice.stall_timeout: expected a number, got '10m'",
    ),
    mistake(
        "a batch that is only a number",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          twice: {stage: double, inputs: [nums], batch: 16}
          out: {stage: collect, inputs: [twice], path: o}
        """,
        "pipeline.yaml:4:49: stages.twice.batch: expected a mapping (items, wait_seconds), got 16",
    ),
    mistake(
        "a batch of nothing that waits for less",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          twice: {stage: double, inputs: [nums], batch: {items: 0, wait_seconds: -1}}
          out: {stage: collect, inputs: [twice], path: o}
        """,
        "pipeline.yaml:4:57: stages.twice.batch.items: should be greater than or equal to 1, got 0",
        "pipeline.yaml:4:74: stages.twice.batch.wait_seconds: should be greater than or equal to 0, got -1",
    ),
    mistake(
        "a batch for a source",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers, batch: {items: 16}}
          out: {stage: collect, inputs: [nums], path: o}
        """,
        "pipeline.yaml:3:26: stages.nums.batch: numbers is a source and takes no items that could be "
        "batched; remove it",
    ),
    mistake(
        "a sink's outputs kept",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          out: {stage: collect, inputs: [nums], path: o, store: true}
        """,
        "pipeline.yaml:4:57: stages.out.store: collect is a sink and gives nothing that could be kept; remove it",
    ),
    mistake(
        "a node without a stage, and one that is only its stage",
        """
        pipeline: toy
        stages:
          nums: {count: 8}
          more: numbers
          out: {stage: collect, inputs: [nums, more], path: o}
        """,
        "pipeline.yaml:3:3: stages.nums.stage: is missing, and has no default",
        "pipeline.yaml:4:9: stages.more: expected a mapping such as {stage: segment, inputs: [frames]}, got 'numbers'",
    ),
    # Resources.
    mistake(
        "a number instead of a mapping",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers, resources: 2}
          out: {stage: collect, inputs: [nums], path: o}
        """,
        "pipeline.yaml:3:37: stages.nums.resources: expected a mapping (cpus, gpus, labels), got 2",
    ),
    mistake(
        "a misspelt resource",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers, resources: {gpu: 1}}
          out: {stage: collect, inputs: [nums], path: o}
        """,
        "pipeline.yaml:3:38: stages.nums.resources.gpu: unknown option, did you mean 'gpus'? known: cpus, "
        "gpus and labels",
    ),
    mistake(
        "one and a half GPUs, and less than no core",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers, resources: {gpus: 1.5, cpus: -1}}
          out: {stage: collect, inputs: [nums], path: o}
        """,
        "pipeline.yaml:3:44: stages.nums.resources.gpus: 1.5 is neither a share of one GPU nor a whole "
        "number of them; round it",
        "pipeline.yaml:3:55: stages.nums.resources.cpus: should be greater than 0, got -1",
    ),
    mistake(
        "labels that no machine can carry",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers, resources: {labels: {tier: 1, zone: "", "a b": c, "x_/y": z}}}
          out: {stage: collect, inputs: [nums], path: o}
        """,
        'pipeline.yaml:3:53: stages.nums.resources.labels.tier: expected text, got 1; quote it: "1"',
        "pipeline.yaml:3:62: stages.nums.resources.labels.zone: '' is no label; use letters, digits and . _ "
        "- (at most 63, a letter or digit at both ends)",
        "pipeline.yaml:3:66: stages.nums.resources.labels.a b: 'a b' is no label's name; use letters, digits "
        "and . _ - (at most 63, a letter or digit at both ends)",
        "pipeline.yaml:3:76: stages.nums.resources.labels.x_/y: 'x_/y' is no label's name; what stands "
        "before the / is a domain, such as example.com",
    ),
    # Connections.
    mistake(
        "a node that is not there",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          out: {stage: collect, inputs: [numz], path: o}
        """,
        "pipeline.yaml:4:34: stages.out.inputs.0: there is no node 'numz', did you mean 'nums'? nodes: nums",
    ),
    mistake(
        "an output that is not there",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          halves: {stage: split, inputs: [nums]}
          out: {stage: collect, inputs: [halves, halves.od], path: o}
        """,
        "pipeline.yaml:5:34: stages.out.inputs.0: 'halves' has named outputs; write halves.even or halves.odd",
        "pipeline.yaml:5:42: stages.out.inputs.1: 'halves' has no output 'od', did you mean 'odd'? write "
        "halves.even or halves.odd",
    ),
    mistake(
        "the output of a sink",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          out: {stage: collect, inputs: [nums], path: o}
          more: {stage: collect, inputs: [out], path: p}
        """,
        "pipeline.yaml:5:35: stages.more.inputs.0: 'out' is a sink and gives nothing; take the output of the "
        "node before it",
    ),
    mistake(
        "one input twice",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          out: {stage: collect, inputs: [nums, nums], path: o}
        """,
        "pipeline.yaml:4:40: stages.out.inputs.1: 'nums' is named twice; every item would come twice",
    ),
    mistake(
        "one input without brackets",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          out: {stage: collect, inputs: nums, path: o}
        """,
        "pipeline.yaml:4:33: stages.out.inputs: expected a list or a mapping, got 'nums'; write [nums]",
    ),
    mistake(
        "no inputs",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          out: {stage: collect, path: o}
        """,
        "pipeline.yaml:3:3: stages.nums: nobody takes its output; name it in the inputs of another node, or remove it",
        "pipeline.yaml:4:3: stages.out.inputs: collect needs inputs that give int or str, such as nums; "
        "write inputs: [NODE]",
    ),
    mistake(
        "inputs of a source",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          more: {stage: numbers, inputs: [nums]}
          out: {stage: collect, inputs: [more], path: o}
        """,
        "pipeline.yaml:4:26: stages.more.inputs: numbers is a source and takes no inputs; remove them",
    ),
    mistake(
        "types that do not fit",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          words: {stage: spell, inputs: [nums]}
          twice: {stage: double, inputs: [words]}
          out: {stage: collect, inputs: [twice], path: o}
        """,
        "pipeline.yaml:5:35: stages.twice.inputs.0: words (spell) gives str, but twice (double) takes int; "
        "no stage turns one into the other",
    ),
    mistake(
        "a cycle",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          up: {stage: add, inputs: [nums, down]}
          down: {stage: double, inputs: [up]}
          out: {stage: collect, inputs: [down], path: o}
        """,
        "pipeline.yaml:4:35: stages.up.inputs.1: the nodes up -> down -> up form a cycle; items could never leave it",
    ),
    mistake(
        "a node that takes its own output",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          up: {stage: add, inputs: [nums, up]}
          out: {stage: collect, inputs: [up], path: o}
        """,
        "pipeline.yaml:4:35: stages.up.inputs.1: 'up' takes its own output; name another node",
    ),
    mistake(
        "useless nodes",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          plus: {stage: add, inputs: [nums]}
          twice: {stage: double, inputs: [plus]}
          out: {stage: collect, inputs: [nums], path: o}
        """,
        "pipeline.yaml:5:3: stages.twice: nobody takes its output, and plus works for it alone; name it in "
        "the inputs of another node, or remove it",
    ),
    mistake(
        "no sink",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          twice: {stage: double, inputs: [nums]}
        """,
        "pipeline.yaml:2:1: stages: no sink: the output of twice is never kept; end with one that writes it",
    ),
    mistake(
        "no source: what is left is unreachable",
        """
        pipeline: toy
        stages:
          twice: {stage: double}
          out: {stage: collect, inputs: [twice], path: o}
        """,
        "pipeline.yaml:2:1: stages: no source: nothing would ever reach twice and out; begin with a stage "
        "that takes no inputs",
        "pipeline.yaml:3:3: stages.twice.inputs: double needs inputs that give int; write inputs: [NODE]",
    ),
    # Inputs that are joined item by item.
    mistake(
        "a list, where the inputs have names",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          words: {stage: spell, inputs: [nums]}
          both: {stage: pair, inputs: [nums, words]}
          out: {stage: collect, inputs: [both], path: o}
        """,
        "pipeline.yaml:5:23: stages.both.inputs: pair joins number (int) and word (str), item by item; write "
        "inputs: {number: nums, word: words}",
    ),
    mistake(
        "names, where the inputs have none",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          plus: {stage: add, inputs: {left: nums}}
          out: {stage: collect, inputs: [plus], path: o}
        """,
        "pipeline.yaml:4:22: stages.plus.inputs: add merges its inputs, which have no names; write inputs: [nums]",
    ),
    mistake(
        "no inputs at all",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          both: {stage: pair}
          out: {stage: collect, inputs: [nums, both], path: o}
        """,
        "pipeline.yaml:4:3: stages.both.inputs: pair joins number (int) and word (str), item by item; write "
        "inputs: {number: NODE, word: NODE}",
    ),
    mistake(
        "an input that is missing",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          words: {stage: spell, inputs: [nums]}
          both: {stage: pair, inputs: {number: nums}}
          out: {stage: collect, inputs: [words, both], path: o}
        """,
        "pipeline.yaml:5:23: stages.both.inputs: pair needs word (str) too, such as words; write word: NODE",
    ),
    mistake(
        "an input that is misspelt",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          words: {stage: spell, inputs: [nums]}
          both: {stage: pair, inputs: {number: nums, wort: words}}
          out: {stage: collect, inputs: [both], path: o}
        """,
        "pipeline.yaml:5:46: stages.both.inputs.wort: pair takes nothing by this name, did you mean 'word'? "
        "known: number and word",
    ),
    mistake(
        "inputs that are swapped",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          words: {stage: spell, inputs: [nums]}
          both: {stage: pair, inputs: {number: words, word: nums}}
          out: {stage: collect, inputs: [both], path: o}
        """,
        "pipeline.yaml:5:40: stages.both.inputs.number: words (spell) gives str, but both.number (pair) "
        "takes int; no stage turns one into the other",
        "pipeline.yaml:5:53: stages.both.inputs.word: nums (numbers) gives int, but both.word (pair) takes "
        "str; put spell between them",
    ),
    mistake(
        "one output under two names",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          both: {stage: twins, inputs: {left: nums, right: nums}}
          out: {stage: collect, inputs: [both], path: o}
        """,
        "pipeline.yaml:4:52: stages.both.inputs.right: 'nums' is named twice, as left and right; name "
        "another output for one of them",
    ),
    mistake(
        "items of two sources",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          more: {stage: numbers}
          both: {stage: twins, inputs: {left: nums, right: more}}
          out: {stage: collect, inputs: [both], path: o}
        """,
        "pipeline.yaml:5:24: stages.both.inputs: nums and more have no common origin, so nothing tells which "
        "items belong together; join outputs that descend from one node",
    ),
    mistake(
        "a source that gives apart what belongs together",
        """
        pipeline: toy
        stages:
          nums: {stage: halves}
          both: {stage: twins, inputs: {left: nums.low, right: nums.high}}
          out: {stage: collect, inputs: [both], path: o}
        """,
        "pipeline.yaml:4:24: stages.both.inputs: the source 'nums' gives high and low apart, so nothing "
        "tells which items belong together; let it give one output, which a stage after it divides",
    ),
    mistake(
        "items that were merged under one number",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          plus: {stage: add, inputs: [nums]}
          twice: {stage: double, inputs: [nums]}
          any: {stage: add, inputs: [plus, twice]}
          more: {stage: add, inputs: [any]}
          both: {stage: twins, inputs: {left: any, right: more}}
          out: {stage: collect, inputs: [both], path: o}
        """,
        "pipeline.yaml:8:24: stages.both.inputs: 'any' merges plus and twice, which descend from the same "
        "items, so nothing tells which items belong together; join before they are merged",
    ),
    mistake(
        "items that were merged after different ways",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          far: {stage: numbers}
          near: {stage: double, inputs: [far]}
          any: {stage: add, inputs: [nums, near]}
          more: {stage: add, inputs: [any]}
          both: {stage: twins, inputs: {left: any, right: more}}
          out: {stage: collect, inputs: [both], path: o}
        """,
        "pipeline.yaml:8:24: stages.both.inputs: 'any' merges nums and near, which are not equally far from "
        "their sources, so nothing tells which items belong together; join before they are merged",
    ),
    # Side inputs.
    mistake(
        "a list of them",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          key: {stage: numbers}
          coded: {stage: shift, inputs: [nums], side_inputs: [key]}
          out: {stage: collect, inputs: [coded, key], path: o}
        """,
        "pipeline.yaml:5:41: stages.coded.side_inputs: expected a mapping, got a list; write {NAME: NODE}",
    ),
    mistake(
        "one that is missing",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          coded: {stage: shift, inputs: [nums]}
          out: {stage: collect, inputs: [coded], path: o}
        """,
        "pipeline.yaml:4:3: stages.coded.side_inputs: shift needs key (int) before its first item; write "
        "side_inputs: {key: NODE}",
    ),
    mistake(
        "one that is misspelt",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          key: {stage: numbers}
          coded: {stage: shift, inputs: [nums], side_inputs: {kye: key}}
          out: {stage: collect, inputs: [coded], path: o}
        """,
        "pipeline.yaml:5:55: stages.coded.side_inputs.kye: shift takes nothing by this name, did you mean "
        "'key'? known: key",
    ),
    mistake(
        "one that the stage does not take",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          key: {stage: numbers}
          twice: {stage: double, inputs: [nums], side_inputs: {key: key}}
          out: {stage: collect, inputs: [twice], path: o}
        """,
        "pipeline.yaml:5:42: stages.twice.side_inputs: double takes no side inputs; remove them",
    ),
    mistake(
        "one of another type",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          more: {stage: numbers}
          key: {stage: spell, inputs: [more]}
          coded: {stage: shift, inputs: [nums], side_inputs: {key: key}}
          out: {stage: collect, inputs: [coded], path: o}
        """,
        "pipeline.yaml:6:60: stages.coded.side_inputs.key: key (spell) gives str, but coded.key (shift) "
        "takes int; no stage turns one into the other",
    ),
    mistake(
        "one that waits for the items that wait for it",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          key: {stage: hold_back, inputs: [nums]}
          coded: {stage: shift, inputs: [nums], side_inputs: {key: key}}
          out: {stage: collect, inputs: [coded], path: o}
        """,
        "pipeline.yaml:5:60: stages.coded.side_inputs.key: key comes from nums, as do the items of coded, "
        "which wait for it; give it a source of its own: two nodes may read the same path",
    ),
    mistake(
        "two that wait for each other",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          more: {stage: numbers}
          plus: {stage: shift, inputs: [nums], side_inputs: {key: more}}
          minus: {stage: shift, inputs: [more], side_inputs: {key: nums}}
          out: {stage: collect, inputs: [plus, minus], path: o}
        """,
        "pipeline.yaml:5:59: stages.plus.side_inputs.key: plus waits for items that minus holds up, and "
        "minus for items that plus holds up; give one side input a source of its own: two nodes may read the "
        "same path",
    ),
    # Plugins.
    mistake(
        "a stage that is not installed",
        """
        pipeline: toy
        stages:
          nums: {stage: numbes}
          out: {stage: collect, inputs: [nums], path: o}
        """,
        "pipeline.yaml:3:17: stages.nums.stage: unknown stage 'numbes', did you mean 'numbers'? known: <all "
        "stages>; installed a plugin? reinstall it, so that its entry point is seen",
    ),
    mistake(
        "a module that is not there",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          x: {stage: absent, inputs: [nums]}
          out: {stage: collect, inputs: [x], path: o}
        """,
        "pipeline.yaml:4:14: stages.x.stage: stage 'absent' from absent-plugin (absentmod:Absent) cannot be "
        "loaded: ModuleNotFoundError: No module named 'absentmod'; reinstall or remove that distribution",
    ),
    mistake(
        "a module with a mistake",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          x: {stage: broken, inputs: [nums]}
          out: {stage: collect, inputs: [x], path: o}
        """,
        "pipeline.yaml:4:14: stages.x.stage: stage 'broken' from broken-plugin (brokenmod:Broken) cannot be "
        "loaded: ModuleNotFoundError: No module named 'surely_not_installed'; reinstall or remove that "
        "distribution",
    ),
    mistake(
        "a class that is no stage",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          x: {stage: no_stage, inputs: [nums]}
          out: {stage: collect, inputs: [x], path: o}
        """,
        "pipeline.yaml:4:14: stages.x.stage: stage 'no_stage' from modest-plugin (modestmod:Modest) cannot "
        "be loaded: that class is not a framefold.pipeline.stage.Stage; reinstall or remove that "
        "distribution",
    ),
    mistake(
        "two distributions with one name",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          x: {stage: contested, inputs: [nums]}
          out: {stage: collect, inputs: [x], path: o}
        """,
        "pipeline.yaml:4:14: stages.x.stage: stage 'contested' is registered by one-plugin and other-plugin; "
        "uninstall all but one",
    ),
    mistake(
        "an option that is a word of the engine",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          x: {stage: greedy, inputs: [nums]}
          out: {stage: collect, inputs: [x], path: o}
        """,
        "pipeline.yaml:4:14: stages.x.stage: Greedy has an option 'timeout', which is a word of the engine; "
        "ask the stage's author to rename it",
    ),
    mistake(
        "a stage that both takes and joins",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          x: {stage: undecided, inputs: [nums]}
          out: {stage: collect, inputs: [x], path: o}
        """,
        "pipeline.yaml:4:14: stages.x.stage: Undecided both accepts items and joins them; ask the stage's "
        "author to choose",
    ),
    mistake(
        "a stage that fails at its ports",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          x: {stage: portless, inputs: [nums]}
          out: {stage: collect, inputs: [x], path: o}
        """,
        "pipeline.yaml:4:3: stages.x: Portless.ports failed with KeyError: 'ports'; report it to the stage's author",
    ),
    # Options of stages.
    mistake(
        "an option that is not known",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers, cuont: 8}
          out: {stage: collect, inputs: [nums], path: o}
        """,
        "pipeline.yaml:3:26: stages.nums.cuont: unknown option, did you mean 'count'? known: batch, count, "
        "inputs, refuse, replicas, resources, retries, side_inputs, stage, stall_timeout, store and timeout",
    ),
    mistake(
        "an option that is missing",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          out: {stage: collect, inputs: [nums]}
        """,
        "pipeline.yaml:4:3: stages.out.path: is missing, and has no default",
    ),
    mistake(
        "an option out of range, and one of another type",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers, count: -1, refuse: 3}
          out: {stage: collect, inputs: [nums], path: o}
        """,
        "pipeline.yaml:3:33: stages.nums.count: should be greater than or equal to 0, got -1",
        "pipeline.yaml:3:45: stages.nums.refuse: expected a list, got 3; write [3]",
    ),
    mistake(
        "a whole number with a point",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers, count: 8.0}
          out: {stage: collect, inputs: [nums], path: o}
        """,
        "pipeline.yaml:3:33: stages.nums.count: expected a whole number, got 8.0; write 8",
    ),
    mistake(
        "an option below another, by a word that is not known",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          x: {stage: paint, inputs: [nums], brush: {colour: rde, sise: 3}}
          out: {stage: collect, inputs: [x], path: o}
        """,
        "pipeline.yaml:4:53: stages.x.brush.colour: expected 'red' or 'green', got 'rde', did you mean 'red'?",
        "pipeline.yaml:4:58: stages.x.brush.sise: unknown option, did you mean 'size'? known: colour and size",
    ),
    mistake(
        "what only a look at the machine shows",
        """
        pipeline: toy
        stages:
          nums: {stage: numbers}
          x: {stage: paint, inputs: [nums], canvas: nowhere.png}
          out: {stage: collect, inputs: [x], path: o}
        """,
        "pipeline.yaml:4:45: stages.x.canvas: there is no file nowhere.png; give another",
    ),
    mistake(
        "several mistakes are told at once, in the order of the file",
        """
        pipeline: toy
        seed: -1
        stages:
          nums: {stage: numbers, count: x}
          twice: {stage: double, inputs: [numz], replicas: 0}
          out: {stage: collect, inputs: [twice], pth: o}
        """,
        "pipeline.yaml:2:7: seed: should be greater than or equal to 0, got -1",
        "pipeline.yaml:4:33: stages.nums.count: expected a whole number, got 'x'",
        "pipeline.yaml:5:35: stages.twice.inputs.0: there is no node 'numz', did you mean 'nums'? nodes: nums and out",
        "pipeline.yaml:5:52: stages.twice.replicas: should be greater than or equal to 1, got 0",
        "pipeline.yaml:6:3: stages.out.path: is missing, and has no default",
        "pipeline.yaml:6:42: stages.out.pth: unknown option, did you mean 'path'? known: batch, inputs, "
        "path, replicas, resources, retries, side_inputs, stage, stall_timeout, store and timeout",
    ),
]


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    """Work where the file lies, with the plugins installed."""
    site = tmp_path / "site"
    for name, (stages, modules) in PLUGINS.items():
        info = site / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[framefold.stages]\n{stages}\n")
        for module, text in modules.items():
            (site / f"{module}.py").write_text(text)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delenv("NO_SUCH_VARIABLE", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.what)
def test_a_mistake_is_told_with_its_place_what_is_allowed_and_what_to_do(mistake):
    Path("pipeline.yaml").write_text(textwrap.dedent(mistake.text).removeprefix("\n"))
    with pytest.raises(SpecError) as caught:
        spec.load("pipeline.yaml", extra_stages=STAGES)
    stages = listed(sorted({*STAGES, *registry.stages()}))
    assert str(caught.value).splitlines() == [line.replace("<all stages>", stages) for line in mistake.lines]


def test_the_table_is_long_and_says_nothing_twice():
    assert len(MISTAKES) >= 40
    assert len({mistake.what for mistake in MISTAKES}) == len({mistake.text for mistake in MISTAKES}) == len(MISTAKES)
