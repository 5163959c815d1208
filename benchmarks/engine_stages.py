"""The benchmark's chain as framefold stages; `main` is the process of a framefold row."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import engine
import numpy as np
from rich.console import Console

from framefold.pipeline import runner, spec
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Emit, Options, Output, PortType, Stage, StageContext

Payload = np.ndarray | int


class _Marked(Stage):
    """A stage that notes when it works on what."""

    class Config(Options):
        """Where to note it."""

        folder: Path

    def setup(self, context: StageContext) -> None:
        """One file per worker."""
        self._mark = engine.Marks(self.config.folder, context.node)


class Source(_Marked):
    """The items of a job."""

    class Config(Options):
        """The job, but for what other nodes do."""

        folder: Path
        items: int
        nbytes: int

    emits: ClassVar[Mapping[str, PortType]] = {"out": Payload}

    def produce(self) -> Iterator[Output]:
        """Make one after the other."""
        job = engine.Job(self.config.items, self.config.nbytes)
        for number in range(job.items):
            began = time.monotonic()
            item = job.make(number)
            self._mark(number, began)
            yield Emit(item, identity=str(number), label=str(number))


class Pass(_Marked):
    """Hand an item on, after a while."""

    class Config(Options):
        """How long to sleep."""

        folder: Path
        seconds: float = 0.0

    accepts: ClassVar[PortType] = Payload
    emits: ClassVar[Mapping[str, PortType]] = {"out": Payload}

    def process(self, item: Item) -> Iterator[Output]:
        """Sleep, then yield the item."""
        began = time.monotonic()
        time.sleep(self.config.seconds)
        self._mark(engine.number_of(item.payload), began)
        yield item.payload


class Sink(_Marked):
    """Note what arrives."""

    accepts: ClassVar[PortType] = Payload

    def process(self, item: Item) -> Iterator[Output]:
        """Look at the number."""
        self._mark(engine.number_of(item.payload), time.monotonic())
        return iter(())


STAGES = {"source": Source, "pass": Pass, "sink": Sink}


def chain(job: engine.Job, folder: Path) -> dict[str, Any]:
    """The job as a pipeline file would say it; `cpus: 0` as nobody here computes."""
    light: dict[str, Any] = {"stage": "pass", "inputs": ["source"], "folder": folder}
    slow = light | {"inputs": ["light"], "seconds": job.slow_seconds, "replicas": engine.SLOW_REPLICAS}
    return {
        "run_dir": folder / "run",
        "stages": {
            "source": {"stage": "source", "folder": folder, "items": job.items, "nbytes": job.nbytes},
            "light": light,
            "slow": slow,
            "sink": {"stage": "sink", "inputs": ["slow"], "folder": folder},
        },
    }


def main() -> None:
    """Run one row; the exit code is the run's."""
    job, folder = engine.Job.from_command_line()
    checked = spec.from_mapping("chain", chain(job, folder), extra_stages=STAGES)
    sys.exit(runner.run(checked, Console(), runner.Manner(local=job.local)).exit_code)
