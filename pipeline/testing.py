"""Toy stages with integers as payloads; `check_stage`, which every stage should pass, is at hand here too.

They ship with the package because workers on other machines cannot import from a tests folder. No
distribution registers them: `spec.load(path, extra_stages=TOYS)` knows them for one file.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

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
    """Raises at the first attempt of the numbers in `on`."""

    def misbehave(self, item: Item) -> None:
        """Raise unless this is a retry."""
        if item.attempt == 0:
            raise ValueError(f"first attempt of {item.label}")


class FailAlways(_Picky):
    """Raises at every attempt of the numbers in `on`."""

    def misbehave(self, item: Item) -> None:
        """Raise."""
        raise ValueError(f"attempt {item.attempt} of {item.label}")


class Crash(_Picky):
    """Ends its process at the numbers in `on`: a real worker only, never in the test's own process."""

    class Config(_Picky.Config):
        """How often."""

        attempts: int = Field(default=1, ge=1, description="attempts that crash before one succeeds")

    def misbehave(self, item: Item) -> None:
        """Leave without a word."""
        if item.attempt < self.config.attempts:
            os._exit(17)


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


__all__ = [
    "TOYS",
    "Add",
    "Collect",
    "Crash",
    "Double",
    "FailAlways",
    "FailOnce",
    "HoldBack",
    "Numbers",
    "Progressing",
    "Slow",
    "Spell",
    "Split",
    "check_stage",
]

TOYS: Mapping[str, type[Stage]] = {
    "numbers": Numbers,
    "double": Double,
    "add": Add,
    "split": Split,
    "spell": Spell,
    "collect": Collect,
    "fail_once": FailOnce,
    "fail_always": FailAlways,
    "crash": Crash,
    "slow": Slow,
    "hold_back": HoldBack,
    "progressing": Progressing,
}
"""By the names that pipelines in tests use."""
