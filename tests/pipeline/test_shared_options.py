"""Options at the top of a pipeline file: for every stage that shares them, with their own place in messages."""

import io
from collections.abc import Iterator
from typing import Self

import pytest
from pydantic import BaseModel, Field, model_validator
from rich.console import Console

from framefold.pipeline import runner, spec
from framefold.pipeline.errors import SpecError
from framefold.pipeline.item import Item
from framefold.pipeline.plugin_list import stages
from framefold.pipeline.stage import Options, Output, Stage
from framefold.pipeline.testing import TOYS


class Amount(BaseModel, frozen=True, extra="forbid"):
    """What is added."""

    units: int = Field(default=0, ge=0)
    tens: int = Field(default=0, ge=0)


class Raise(Stage):
    """Add an amount that may stand at the top of the file."""

    class Config(Options, frozen=True):
        """Options of `raise`."""

        amount: Amount | None = None
        bonus: int = 0

    config: Config
    accepts = int
    emits = {"out": int}
    shared = frozenset({"amount"})

    def process(self, item: Item) -> Iterator[Output]:
        """Add it."""
        amount = self.config.amount or Amount()
        yield item.payload + amount.units + 10 * amount.tens + self.config.bonus


class Units(BaseModel, frozen=True, extra="forbid"):
    """A narrower idea of the amount."""

    units: int = 0


class Small(Raise):
    """Add units."""

    class Config(Options, frozen=True):
        """Options of `small`."""

        amount: Units = Units()
        bonus: int = 0

        @model_validator(mode="after")
        def _not_much(self) -> Self:
            if self.amount.units + self.bonus > 99:
                raise ValueError("too much")
            return self

    config: Config


FILE = """\
pipeline: toy
amount: {tens: 1}
stages:
  nums: {stage: numbers, count: 2}
  raised: {stage: raise, inputs: [nums]}
  own: {stage: raise, inputs: [raised], amount: {units: 5}}
  none: {stage: raise, inputs: [own], amount: null, bonus: 3}
  out: {stage: collect, inputs: [none], path: out.txt}
"""


def load(tmp_path, text=FILE, *overrides):
    path = tmp_path / "p.yaml"
    path.write_text(text)
    return spec.load(path, overrides, extra_stages={**TOYS, "raise": Raise, "small": Small})


def problems(tmp_path, text, *overrides):
    with pytest.raises(SpecError) as caught:
        load(tmp_path, text, *overrides)
    return [str(problem).replace(f"{tmp_path}/p.yaml:", "") for problem in caught.value.problems]


def amounts(checked):
    return {name: checked.graph[name].config.amount for name in ("raised", "own", "none")}


def test_a_stage_takes_what_it_shares_unless_it_states_its_own(tmp_path):
    checked = load(tmp_path)
    assert amounts(checked) == {"raised": Amount(tens=1), "own": Amount(units=5), "none": None}
    assert checked.spec.stages["raised"].options == {"amount": {"tens": 1}}
    assert "amount" not in checked.graph["nums"].config.model_fields_set


def test_a_run_computes_with_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = runner.run(load(tmp_path), Console(file=io.StringIO()), runner.Manner(local=True))
    assert outcome.exit_code == 0
    assert (tmp_path / "out.txt").read_text().split()[1::2] == ["18", "19"]


def test_keys_of_work_are_those_of_an_option_that_is_stated(tmp_path):
    stated = load(
        tmp_path,
        FILE.replace("amount: {tens: 1}\n", "").replace(
            "raise, inputs: [nums]", "raise, inputs: [nums], amount: {tens: 1}"
        ),
    )
    shared, other = load(tmp_path), load(tmp_path, FILE.replace("tens: 1", "tens: 2"))
    names = ("raised", "own", "none", "out")
    assert [shared.graph[name].lineage for name in names] == [stated.graph[name].lineage for name in names]
    changed = [name for name in names if shared.graph[name].digest != other.graph[name].digest]
    assert changed == ["raised"]
    assert shared.graph["out"].lineage != other.graph["out"].lineage


@pytest.mark.parametrize(
    ("override", "amount"),
    [
        ("amount.tens=7", Amount(tens=7)),
        ("amount.units=2", Amount(tens=1, units=2)),
        ("amount={units: 4}", Amount(units=4)),
        ("amount=", None),
    ],
)
def test_it_is_set_from_the_command_line(tmp_path, override, amount):
    assert load(tmp_path, FILE, override).graph["raised"].config.amount == amount


def test_it_is_set_where_the_file_has_none(tmp_path):
    checked = load(tmp_path, FILE.replace("amount: {tens: 1}\n", ""), "amount.tens=7")
    assert checked.graph["raised"].config.amount == Amount(tens=7)


def test_a_node_of_that_name_comes_first(tmp_path):
    text = FILE.replace("raised", "amount")
    checked = load(tmp_path, text, "amount.bonus=7")
    assert checked.graph["amount"].config.bonus == 7


def test_a_wrong_override_is_told_by_its_own_words(tmp_path):
    assert problems(tmp_path, FILE, "amount.hundreds=7") == [
        "--set amount.hundreds=7: amount.hundreds: unknown option; known: tens and units (an option of raised)"
    ]
    (message,) = problems(tmp_path, FILE, "amonut.tens=7")
    assert message.startswith("--set amonut.tens=7: there is no node 'amonut', did you mean 'amount'?")


def test_a_mistake_in_it_is_told_once_and_at_its_place(tmp_path):
    text = FILE.replace("{tens: 1}", "{tens: -1, unit: 3}").replace("amount: {units: 5}", "bonus: 1")
    assert problems(tmp_path, text) == [
        "2:16: amount.tens: should be greater than or equal to 0, got -1 (an option of raised and own)",
        "2:20: amount.unit: unknown option, did you mean 'units'? known: tens and units (an option of raised and own)",
    ]


def test_a_stage_that_takes_less_is_named(tmp_path):
    text = FILE.replace(
        "own: {stage: raise, inputs: [raised], amount: {units: 5}}", "own: {stage: small, inputs: [raised]}"
    )
    assert problems(tmp_path, text) == ["2:10: amount.tens: unknown option; known: units (an option of own)"]


def test_what_a_stage_says_of_its_options_together_is_told_at_the_node(tmp_path):
    text = FILE.replace("tens: 1", "units: 90").replace("own: {stage: raise", "own: {stage: small")
    text = text.replace("amount: {units: 5}", "bonus: 10")
    assert problems(tmp_path, text) == ["6:3: stages.own: too much"]


def test_what_cannot_be_read_is_not_told_twice(tmp_path):
    (message,) = problems(tmp_path, FILE.replace("{tens: 1}", '{tens: "${NO_SUCH_VARIABLE}"}'))
    assert "NO_SUCH_VARIABLE" in message


def test_an_option_that_no_stage_of_the_file_has(tmp_path):
    text = (
        FILE.replace("stage: raise", "stage: add")
        .replace(", amount: {units: 5}", "")
        .replace(", amount: null, bonus: 3", "")
    )
    assert problems(tmp_path, text)[:1] == [
        "2:1: amount: no stage of this file has this option; stages that do: raise and small"
    ]


def test_it_is_not_doubted_while_a_stage_is_unknown(tmp_path):
    text = FILE.replace("stage: raise", "stage: rise")
    found = problems(tmp_path, text)
    assert len(found) == 3
    assert all("unknown stage 'rise'" in line for line in found)


def test_only_what_is_shared_may_stand_at_the_top(tmp_path):
    (message,) = problems(tmp_path, FILE.replace("amount: {tens: 1}", "bonus: 1"))
    assert message == (
        "2:1: bonus: unknown option; known: amount, checkpoint_seconds, drain_seconds, fail_fast, pipeline, run_dir, "
        "seed and stages"
    )


def test_a_misspelt_one_is_guessed(tmp_path):
    (message,) = problems(tmp_path, FILE.replace("amount: {tens: 1}", "amont: {tens: 1}"))
    assert message.startswith("2:1: amont: unknown option, did you mean 'amount'?")


def test_the_list_of_plugins_says_what_may_stand_at_the_top():
    told = {stage.name: stage.as_dict().get("shared") for stage in stages()}
    assert told["fit"] == ("target",)
    assert told["segment"] is None
