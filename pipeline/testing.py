"""Toy stages with integers as payloads; `check_stage`, which every stage should pass, is at hand here too.

They ship with the package because workers on other machines cannot import from a tests folder. No
distribution registers them: `spec.load(path, extra_stages=TOYS)` knows them for one file.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from framefold.pipeline.errors import Transient
from framefold.pipeline.item import Item
from framefold.pipeline.stage import (
    Emit,
    Hint,
    Options,
    Output,
    PortType,
    Progress,
    Refused,
    Row,
    Stage,
    StageContext,
)
from framefold.pipeline.stage_suite import check_stage


class Numbers(Stage):
    """The source 0, 1, … count - 1."""

    class Config(Options):
        """How many, and which of them cannot be read."""

        count: int = Field(default=5, ge=0)
        refuse: tuple[int, ...] = ()

    emits: ClassVar[Mapping[str, PortType]] = {"out": int}

    def produce(self) -> Iterator[Output]:
        """Yield the numbers, refusing some."""
        for number in range(self.config.count):
            if number in self.config.refuse:
                yield Refused(label=f"n{number}", reason="asked to refuse it")
            else:
                yield Emit(number, identity=str(number), label=f"n{number}")


class Double(Stage):
    """Twice the number."""

    accepts = int
    emits: ClassVar[Mapping[str, PortType]] = {"out": int}

    def process(self, item: Item) -> Iterator[Output]:
        """Yield one number."""
        yield item.payload * 2


class Add(Stage):
    """The number and a constant."""

    class Config(Options):
        """What to add."""

        amount: int = 1

    accepts = int
    emits: ClassVar[Mapping[str, PortType]] = {"out": int}

    def process(self, item: Item) -> Iterator[Output]:
        """Yield one number."""
        yield item.payload + self.config.amount


class Split(Stage):
    """Several outputs per number, on two ports: the even and the odd ones of n, n + 1, … n + parts - 1."""

    class Config(Options):
        """How many outputs."""

        parts: int = Field(default=2, ge=0)

    accepts = int
    emits: ClassVar[Mapping[str, PortType]] = {"even": int, "odd": int}

    def process(self, item: Item) -> Iterator[Output]:
        """Yield `parts` numbers."""
        for number in range(item.payload, item.payload + self.config.parts):
            yield Emit(number, port="odd" if number % 2 else "even")


class Spell(Stage):
    """The number as text, for connections that do not fit."""

    accepts = int
    emits: ClassVar[Mapping[str, PortType]] = {"out": str}

    def process(self, item: Item) -> Iterator[Output]:
        """Yield one string."""
        yield str(item.payload)


class Collect(Stage):
    """The sink: one line `label payload` per item, appended to a file, in source order."""

    class Config(Options):
        """The file."""

        path: Path

    accepts = int | str
    stateful = True

    def process(self, item: Item) -> Iterator[Output]:
        """Append a line, and report it."""
        with self.config.path.open("a", encoding="utf-8") as file:
            file.write(f"{item.label} {item.payload}\n")
        yield Row(item.label, {"value": item.payload})

    def finish(self) -> Iterator[Output]:
        """Say how to read the file."""
        yield Hint(f"cat {self.config.path}")


class _Picky(Stage):
    """A stage that misbehaves on some numbers and passes the others on."""

    class Config(Options):
        """Which numbers."""

        on: tuple[int, ...] = ()

    accepts = int
    emits: ClassVar[Mapping[str, PortType]] = {"out": int}

    def process(self, item: Item) -> Iterator[Output]:
        """Misbehave, or pass the number on."""
        if item.payload in self.config.on:
            self.misbehave(item)
        yield item.payload

    def misbehave(self, item: Item) -> None:
        """Do what the stage is there for."""


class FailOnce(_Picky):
    """Something outside fails at the first attempt of the numbers in `on`."""

    def misbehave(self, item: Item) -> None:
        """Raise unless this is a retry."""
        if item.attempt == 0:
            raise Transient(f"first attempt of {item.label}")


class Unreachable(_Picky):
    """Something outside fails at every attempt of the numbers in `on`."""

    def misbehave(self, item: Item) -> None:
        """Raise."""
        raise Transient(f"attempt {item.attempt} of {item.label}")


class FailAlways(_Picky):
    """Raises at every attempt of the numbers in `on`."""

    def misbehave(self, item: Item) -> None:
        """Raise."""
        raise ValueError(f"attempt {item.attempt} of {item.label}")


class Crash(_Picky):
    """Ends its process at the numbers in `on`: a real worker only, never in the test's own process."""

    class Config(_Picky.Config):
        """How, when, and how often."""

        attempts: int = Field(default=1, ge=1, description="attempts that crash before one succeeds")
        how: Literal["exit", "segv", "hang", "hog"] = "exit"
        after: bool = Field(default=False, description="once the number has been passed on, instead of before")
        pids: Path | None = Field(default=None, description="a folder: each replica leaves its process number there")

    def setup(self, context: StageContext) -> None:
        """Say who it is."""
        if self.config.pids is not None:
            self.config.pids.mkdir(parents=True, exist_ok=True)
            (self.config.pids / f"{context.node}-{context.replica}").write_text(str(os.getpid()))

    def process(self, item: Item) -> Iterator[Output]:
        """Misbehave before or after passing the number on."""
        if not self.config.after:
            yield from super().process(item)
            return
        yield item.payload
        if item.payload in self.config.on:
            self.misbehave(item)

    def misbehave(self, item: Item) -> None:
        """Leave without a word, never return, or take all memory."""
        if item.attempt >= self.config.attempts:
            return
        match self.config.how:
            case "exit":
                os._exit(17)
            case "segv":
                os.kill(os.getpid(), signal.SIGSEGV)
                threading.Event().wait()  # the signal may reach another thread first
            case "hang":
                threading.Event().wait()
            case "hog":
                hog = []
                while True:
                    hog.append(np.ones(2**24))


class Slow(Stage):
    """Takes its time over every number."""

    class Config(Options):
        """How much."""

        seconds: float = Field(default=0.05, ge=0)

    accepts = int
    emits: ClassVar[Mapping[str, PortType]] = {"out": int}

    def process(self, item: Item) -> Iterator[Output]:
        """Sleep, then pass the number on."""
        time.sleep(self.config.seconds)
        yield item.payload


class HoldBack(Stage):
    """Keeps every number until the end, then hands all of them out."""

    accepts = int
    emits: ClassVar[Mapping[str, PortType]] = {"out": int}
    stateful = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._held: dict[str, Item] = {}

    def process(self, item: Item) -> Iterator[Output]:
        """Yield nothing."""
        self._held[item.key] = item
        return iter(())

    def finish(self) -> Iterator[Output]:
        """Yield everything, in the order of arrival."""
        for item in self._held.values():
            yield Emit(item.payload, identity=item.key, label=item.label)


class Progressing(Stage):
    """Reports progress in steps before passing the number on."""

    class Config(Options):
        """How finely."""

        steps: int = Field(default=4, ge=1)

    accepts = int
    emits: ClassVar[Mapping[str, PortType]] = {"out": int}

    def process(self, item: Item) -> Iterator[Output]:
        """Yield progress, then the number."""
        for step in range(1, self.config.steps + 1):
            yield Progress(step / self.config.steps, {"step": step})
        yield item.payload


class CollectOnce(Stage):
    """A sink that holds everything until the end, and loses it: its process ends at item `at`, the first time."""

    class Config(Options):
        """The file, and when; `apart` allows several replicas."""

        path: Path
        at: str
        apart: bool = False

    accepts = int
    stateful = True

    @classmethod
    def specialized(cls, config: Any) -> type[Stage]:
        """One replica that sees the items in order, or several."""
        return CollectApart if config.apart else cls

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._labels: list[str] = []

    def process(self, item: Item) -> Iterator[Output]:
        """Remember the label, or be lost."""
        died = self.config.path.with_suffix(".died")
        if item.label == self.config.at and not died.exists():
            died.touch()
            os._exit(17)
        self._labels.append(item.label)
        return iter(())

    def finish(self) -> Iterator[Output]:
        """Write them all."""
        self.config.path.write_text("\n".join(self._labels))
        return iter(())


class CollectApart(CollectOnce):
    """The same with any number of replicas: each writes what it held to `path.NUMBER` at its end."""

    stateful = False

    def setup(self, context: StageContext) -> None:
        """Learn its number."""
        self._replica = context.replica

    def finish(self) -> Iterator[Output]:
        """Write the labels."""
        self.config.path.with_name(f"{self.config.path.name}.{self._replica}").write_text("\n".join(self._labels))
        return iter(())


class Gather(Stage):
    """The sink that commits each item: a file `KEY` with `label payload` in a folder."""

    class Config(Options):
        """The folder."""

        path: Path

    accepts = int | str
    commits: ClassVar[Literal["item", "end"]] = "item"

    def process(self, item: Item) -> Iterator[Output]:
        """Write a file, whole or not at all, and report it."""
        self.config.path.mkdir(parents=True, exist_ok=True)
        draft = self.config.path / f".{item.key}.{os.getpid()}"
        draft.write_text(f"{item.label} {item.payload}")
        draft.replace(self.config.path / item.key)
        yield Row(item.label, {"value": item.payload})


class Pair(Stage):
    """The sum of two numbers that come from one item."""

    joins: ClassVar[Mapping[str, PortType]] = {"left": int, "right": int}
    emits: ClassVar[Mapping[str, PortType]] = {"out": int}

    def process(self, item: Item) -> Iterator[Output]:
        """Yield one number."""
        yield item.payload["left"] + item.payload["right"]


@dataclass(frozen=True)
class Model:
    """What `Learn` learns."""

    total: int


class Learn(Stage):
    """The sum of all numbers, given once at the end: a toy that trains."""

    accepts = int
    emits: ClassVar[Mapping[str, PortType]] = {"out": Model}
    stateful = True
    durable = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._seen: dict[str, int] = {}

    def process(self, item: Item) -> Iterator[Output]:
        """Yield nothing."""
        self._seen[item.key] = item.payload
        return iter(())

    def finish(self) -> Iterator[Output]:
        """Yield the model."""
        yield Model(sum(self._seen.values()))


class Offset(Stage):
    """The number and what a model learned."""

    accepts = int
    emits: ClassVar[Mapping[str, PortType]] = {"out": int}
    sides: ClassVar[Mapping[str, PortType]] = {"model": Model}

    def receive(self, name: str, payload: Any) -> None:
        """Take the model."""
        self._model: Model = payload

    def process(self, item: Item) -> Iterator[Output]:
        """Yield one number."""
        yield item.payload + self._model.total


class Together(Stage):
    """Each number and how many came with it, as `number * 1000 + items`; a batch with a number in `on` fails."""

    class Config(Options):
        """Which numbers spoil their batch."""

        on: tuple[int, ...] = ()

    accepts = int
    emits: ClassVar[Mapping[str, PortType]] = {"out": int}

    def process_batch(self, items: Sequence[Item]) -> Iterator[tuple[Item, Output]]:
        """Yield one number per item."""
        for item in items:
            if item.payload in self.config.on:
                raise ValueError(f"{item.label} is in a batch of {len(items)}")
            yield item, item.payload * 1000 + len(items)


class Steps(Stage):
    """Takes several steps over every number, and can go on from a checkpoint; each step is a line in a file."""

    class Config(Options):
        """How many steps, how long, and where they are written down."""

        steps: int = Field(default=4, ge=1)
        seconds: float = Field(default=0.0, ge=0, description="of each step")
        log: Path | None = None
        amount: int = 0

    accepts = int
    emits: ClassVar[Mapping[str, PortType]] = {"out": int}
    durable = True

    def process(self, item: Item) -> Iterator[Output]:
        """Yield progress with a state, then the number."""
        for step in range(item.checkpoint or 0, self.config.steps):
            time.sleep(self.config.seconds)
            self._write(f"{item.label} {step}")
            yield Progress((step + 1) / self.config.steps, {"step": step + 1}, state=partial(int, step + 1))
        yield item.payload + self.config.amount

    def _write(self, line: str) -> None:
        if self.config.log is not None:
            with self.config.log.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


class Frames(Stage):
    """The source of `count` arrays of `nbytes` bytes each, full of their number modulo 256."""

    class Config(Options):
        """How many, how large."""

        count: int = Field(default=5, ge=0)
        nbytes: int = Field(default=2**20, ge=1)

    emits: ClassVar[Mapping[str, PortType]] = {"out": np.ndarray}

    def produce(self) -> Iterator[Output]:
        """Yield the arrays."""
        for number in range(self.config.count):
            array = np.full(self.config.nbytes, number % 256, np.uint8)
            yield Emit(array, identity=str(number), label=f"f{number}")


class Fill(Stage):
    """An array of `nbytes` bytes, full of the number."""

    class Config(Options):
        """How large."""

        nbytes: int = Field(default=2**20, ge=1)

    accepts = int
    emits: ClassVar[Mapping[str, PortType]] = {"out": np.ndarray}

    def process(self, item: Item) -> Iterator[Output]:
        """Yield one array."""
        yield np.full(self.config.nbytes, item.payload % 256, np.uint8)


class Mean(Stage):
    """The mean of an array, rounded; it may take its time."""

    class Config(Options):
        """How long."""

        seconds: float = Field(default=0.0, ge=0)

    accepts = np.ndarray
    emits: ClassVar[Mapping[str, PortType]] = {"out": int}

    def process(self, item: Item) -> Iterator[Output]:
        """Yield one number."""
        time.sleep(self.config.seconds)
        yield int(item.payload.mean())


TOYS: Mapping[str, type[Stage]] = {
    "numbers": Numbers,
    "double": Double,
    "add": Add,
    "split": Split,
    "spell": Spell,
    "collect": Collect,
    "collect_once": CollectOnce,
    "gather": Gather,
    "fail_once": FailOnce,
    "fail_always": FailAlways,
    "unreachable": Unreachable,
    "crash": Crash,
    "slow": Slow,
    "hold_back": HoldBack,
    "progressing": Progressing,
    "steps": Steps,
    "pair": Pair,
    "learn": Learn,
    "offset": Offset,
    "together": Together,
    "frames": Frames,
    "fill": Fill,
    "mean": Mean,
}
"""By the names that pipelines in tests use."""

__all__ = [
    "TOYS",
    "Add",
    "Collect",
    "CollectApart",
    "CollectOnce",
    "Crash",
    "Double",
    "FailAlways",
    "FailOnce",
    "Fill",
    "Frames",
    "Gather",
    "HoldBack",
    "Learn",
    "Mean",
    "Model",
    "Numbers",
    "Offset",
    "Pair",
    "Progressing",
    "Slow",
    "Spell",
    "Split",
    "Steps",
    "Together",
    "Unreachable",
    "check_stage",
]
