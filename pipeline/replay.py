"""The work on one item again, alone and in this process: from a dead letter, or from what `--save-inputs` wrote.

The folder may be a stranger's. Its letter is checked field by field, the stage is found by its registered name and
never by a module that the letter names, and payloads are read by `keepsake`, which runs nothing. Beyond that it is
like a stranger's pipeline file: the stage does what its options say, and a sink writes where they say.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from framefold.pipeline import keepsake
from framefold.pipeline.dead_letters import INPUT, LETTER, side_file
from framefold.pipeline.document import Document
from framefold.pipeline.draft import Draft, EngineWords
from framefold.pipeline.errors import Problem, SpecError, UsageError
from framefold.pipeline.events import Event, Produced, Reported, SetAside, Subject, Task
from framefold.pipeline.findings import Finding, listed, shown
from framefold.pipeline.node_check import Extra, check_node
from framefold.pipeline.option_errors import findings
from framefold.pipeline.overrides import apply
from framefold.pipeline.stage import Ports, Stage, StageContext
from framefold.pipeline.state_folder import StateFolder
from framefold.pipeline.worker import Blueprint, Worker, pin_threads

MAX_LETTER_BYTES = 2**24
MAX_CPUS = 1024


class Letter(BaseModel, frozen=True):
    """What `letter.json` says, as far as a replay needs it."""

    node: str = Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=200)
    stage: str
    stage_class: str = ""
    """For people: which class it was then. Nothing is imported by it."""
    config: dict[str, Any]
    joins: tuple[str, ...] = ()
    sides: tuple[str, ...] = ()
    key: str = Field(pattern=r"^[0-9a-f]{64}$")
    label: str
    seq: tuple[int, ...] = (0, 0)
    attempt: int = Field(default=0, ge=0)
    seconds: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    durable: bool = False
    seed: int = Field(default=0, ge=0, lt=2**63)
    cpus: float = Field(default=1, gt=0, le=MAX_CPUS)
    gpus: float = Field(default=0, ge=0, allow_inf_nan=False)
    error: str = ""
    """Empty where the input was saved on request."""
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One item and the stage that is to work on it."""

    folder: Path
    letter: Letter
    stage_class: type[Stage]
    config: Any
    ports: Ports
    gpus: float

    @property
    def notes(self) -> list[str]:
        """How this differs from the run in which it was written."""
        return list(_notes(self))

    def blueprint(self, state: StateFolder) -> Blueprint:
        """The replica of then."""
        letter, kind = self.letter, self.stage_class
        context = StageContext(
            node=letter.node, cpus=letter.cpus, gpus=self.gpus, seed=letter.seed, run_dir=self.folder
        )
        return Blueprint(_class_name(kind), self.config.model_dump_json(), context, state, letter.durable)

    def payloads(self) -> list[Any]:
        """The item's, one for each joined input. UsageError if they cannot be read."""
        payload = self._read(INPUT)
        if not self.ports.joins:
            return [payload]
        if not isinstance(payload, dict) or set(payload) != set(self.ports.joins):
            names = listed(list(self.ports.joins))
            raise UsageError(f"{self.folder / INPUT} is damaged: it should hold {names}, by name")
        return [payload[name] for name in sorted(payload)]

    def side(self, name: str) -> Any:
        """A side input. UsageError if it cannot be read."""
        return self._read(side_file(name))

    def _read(self, name: str) -> Any:
        path = self.folder / name
        if not path.is_file():
            raise UsageError(f"{path} is not there: it could not be written, or was deleted; run the pipeline again")
        try:
            return keepsake.read(path, packages={self.stage_class.__module__.partition(".")[0]})
        except keepsake.DamagedKeepsake as error:
            raise UsageError(f"{error}; run the pipeline again to have it written anew") from error


@dataclass(frozen=True)
class Given:
    """One output, described."""

    port: str
    label: str
    type: str
    nbytes: int


@dataclass
class Result:
    """What came of it."""

    seconds: float = 0.0
    outputs: list[Given] = field(default_factory=list)
    rows: list[Reported] = field(default_factory=list)
    refused: list[SetAside] = field(default_factory=list)
    error: BaseException | None = None
    """What the stage raised; None if the work succeeded."""

    def hear(self, event: Event, payload: Any, label: str) -> None:
        """Take an event in; `label` is the item's."""
        match event:
            case Produced():
                given = Given(event.port, event.label or label, type(payload).__name__, event.nbytes)
                self.outputs.append(given)
            case Reported():
                self.rows.append(event)
            case SetAside():
                self.refused.append(event)


Hear = Callable[[Event, Any], None]
"""Takes each event, and with a `Produced` its payload."""
Steps = Iterator[tuple[Event, Any]]
"""Events, each with its payload."""


def opened(folder: Path, overrides: Sequence[str] = (), *, gpus: float | None = None, extra: Extra = None) -> Case:
    """Check a folder and its letter; nothing is set up yet.

    `overrides` are `option=value` in YAML, `gpus` stands for what the replica was granted, and `extra` holds stages
    that no distribution registers, by name. UsageError, with all mistakes at once, where it cannot be replayed.
    """
    letter = _letter(folder)
    draft = _draft(folder / LETTER, letter, overrides, extra)
    if draft.stage_class is None or draft.ports is None:
        raise UsageError(f"{folder}: {letter.stage} cannot say what it takes and gives")
    _check_ports(folder, letter, draft.ports)
    return Case(
        folder=folder,
        letter=letter,
        stage_class=draft.stage_class,
        config=draft.config,
        ports=draft.ports,
        gpus=letter.gpus if gpus is None else gpus,
    )


def perform(case: Case, hear: Hear, examine: Callable[[BaseException], None] = lambda error: None) -> Result:
    """Set the stage up, hand over side inputs, process the item, close; `finish` is not called.

    What the stage raises is in the result; `examine` sees it first, while the stage is still open.
    UsageError if a payload cannot be read.
    """
    result, began = Result(), time.monotonic()
    payloads, sides = case.payloads(), {name: case.side(name) for name in case.ports.sides}
    pin_threads(case.letter.cpus)
    with (
        tempfile.TemporaryDirectory(prefix="framefold-replay-") as scratch,
        closing(Worker(case.blueprint(StateFolder(Path(scratch))))) as worker,
    ):
        for event, payload in _caught(_work(worker, case, payloads, sides), result, examine):
            result.hear(event, payload, case.letter.label)
            hear(event, payload)
    result.seconds = time.monotonic() - began
    return result


def _caught(stream: Steps, result: Result, examine: Callable[[BaseException], None]) -> Steps:
    """The stream, which ends where it raises."""
    try:
        yield from stream
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # native code raises more than Exceptions
        result.error = error
        examine(error)


def _work(worker: Worker, case: Case, payloads: Sequence[Any], sides: dict[str, Any]) -> Steps:
    worker.begin()
    for name, payload in sides.items():
        yield from _events(worker, Task(kind="receive", side=name), [payload])
    letter = case.letter
    names = tuple(sorted(case.ports.joins))
    subject = Subject(letter.key, letter.label, letter.seq, letter.attempt, letter.seconds, letter.key, names)
    yield from _events(worker, Task(kind="process", subjects=(subject,), work_key=letter.key), payloads)


def _events(worker: Worker, task: Task, payloads: Sequence[Any]) -> Steps:
    stream = worker.work(task, payloads)
    for event in stream:
        yield event, next(stream) if isinstance(event, Produced) else None


# The letter.


def _letter(folder: Path) -> Letter:
    text = _text(folder)
    try:
        data = json.loads(text)
        if not isinstance(data, dict):
            raise UsageError(f"{folder / LETTER} is damaged: expected a mapping, got {shown(data)}")
        return Letter.model_validate_json(text, strict=True)
    except ValidationError as error:
        problems = findings(error, data, lambda path: ())
        raise _spec_error(Document(name=str(folder / LETTER), data=data), problems) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{folder / LETTER} is damaged: {error}") from error


def _text(folder: Path) -> str:
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; give one that a run left, such as RUN_DIR/dead/NODE-KEY")
    try:
        with (folder / LETTER).open("rb") as file:
            raw = file.read(MAX_LETTER_BYTES + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"{folder / LETTER}: {reason}; give a folder that a run left, with its letter") from error
    if len(raw) > MAX_LETTER_BYTES:
        raise UsageError(f"{folder / LETTER} is larger than {MAX_LETTER_BYTES} bytes, so it is no letter")
    return raw.decode("utf-8", errors="replace")


def _draft(name: Path, letter: Letter, overrides: Sequence[str], extra: Extra) -> Draft:
    """The stage with its options, checked as a pipeline file is."""
    for text in overrides:
        _check_is_option(text, letter)
    body = {**_without_engine_words(letter.config), "stage": letter.stage}
    document = Document(name=str(name), data={"stages": {letter.node: body}})
    document = apply(document, [f"{letter.node}.{text.strip()}" for text in overrides], top_level=())
    check = check_node(letter.node, document.data["stages"][letter.node], extra)
    if check.findings or document.mistakes:
        raise _spec_error(document, check.findings, letter.node)
    return check.draft


def _without_engine_words(config: dict[str, Any]) -> dict[str, Any]:
    return {option: value for option, value in config.items() if option not in EngineWords.model_fields}


def _check_is_option(text: str, letter: Letter) -> None:
    word = text.partition("=")[0].strip().partition(".")[0]
    if word in EngineWords.model_fields:
        options = listed(sorted(letter.config))
        raise UsageError(f"--set {text}: {word} is for a run; here only options of {letter.stage} count: {options}")


def _spec_error(document: Document, found: Sequence[Finding], node: str = "") -> SpecError:
    """All that is wrong, worded for options that stand alone rather than below a node."""
    problems = [mistake.problem for mistake in document.mistakes]
    problems += [document.problem(one.path, one.message) for one in found if not document.is_spoiled(one.path)]
    return SpecError([_as_typed(problem, node) for problem in problems])


def _as_typed(problem: Problem, node: str) -> Problem:
    return replace(
        problem,
        where=problem.where.replace(f"--set {node}.", "--set ", 1),
        path=problem.path.removeprefix(f"stages.{node}").removeprefix("."),
        message=problem.message.replace("NODE.OPTION", "OPTION"),
    )


def _check_ports(folder: Path, letter: Letter, ports: Ports) -> None:
    if ports.is_source:
        raise UsageError(f"{folder}: {letter.stage} is a source, which takes no items")
    for word, then, now in (("joins", letter.joins, ports.joins), ("takes as side inputs", letter.sides, ports.sides)):
        if set(then) != set(now):
            changed = f"{letter.stage} {word} {listed(sorted(now))}; at the time {listed(sorted(then))}"
            raise UsageError(f"{folder}: {changed}; install that version of it, or run the pipeline again")


def _notes(case: Case) -> Iterator[str]:
    letter, kind = case.letter, case.stage_class
    if letter.stage_class not in ("", _class_name(kind)):
        yield f"{letter.stage} is {_class_name(kind)} here; it was {letter.stage_class} when the letter was written"
    if kind.stateful:
        yield f"{letter.stage} remembers what it has seen, and here it has seen nothing before this item"
    if not case.ports.emits:
        yield f"{letter.stage} is a sink, and writes where its options say: --set lets it write elsewhere"
    if letter.error == "WorkerDied":
        yield "its worker died of this item, so this process may die too"


def _class_name(kind: type[Stage]) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"
