"""Runs pipelines in forked children and ends them at points that are named by number, never by time.

A process of its own: it has no threads, so that its children are sound, and they start without importing anything.
The arguments are modules that all children need, and torch with them runs on one thread.
It reads one job per line, as JSON, and answers each with `{ended, stopped}`: the exit code (below 0: the signal),
or the process number of a child that a fault has stopped.

    pipeline    what a pipeline file holds, toys and all; or
    arguments   a command line, without `pipeline` in front; or
    wake        the process number of a child that is stopped, to let it go on
    manner      options of `runner.Manner`
    faults      [{point, number, when, signal}]: what comes over the child `before` or `after` the n-th call at a
                point; `torn`, of the ledger: with half of the line on disk
    constants   {module:NAME: value}, such as how often a fit reports
    output      a file for what the child prints
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from framefold.pipeline import cli, runner, spec
from framefold.pipeline.errors import FramefoldError
from framefold.pipeline.flow import Flow
from framefold.pipeline.item import Item
from framefold.pipeline.ledger import Ledger
from framefold.pipeline.stage import Output, Refused, Row
from framefold.pipeline.testing import TOYS, Gather, Steps
from framefold.pipeline.worker import Worker

Fault = Mapping[str, Any]

POINTS: Mapping[str, tuple[Any, str]] = {
    "ledger": (Ledger, "_append"),
    "rename": (os, "replace"),
    "link": (os, "link"),
    "output": (Flow, "output"),
    "step": (Steps, "_write"),
    "progress": (Worker, "_maybe_checkpoint"),
}
"""`rename`, `link`: all that has to be whole or not there. `output`: one is handed on. `step`: it is written down."""


class Tally(Gather):
    """`gather`, with a line in a file for every item that it takes, each time that it takes it."""

    class Config(Gather.Config):
        """Where."""

        log: Path

    def process(self, item: Item) -> Iterator[Output]:
        """Write the line, then do the work."""
        with self.config.log.open("a", encoding="utf-8") as file:
            file.write(f"{item.key}\n")
        yield from super().process(item)


def hurry() -> None:
    """Wait for no disk: what the system has been given outlives a process that is killed."""
    os.fsync = os.fdatasync = lambda fd: None


class Telling(Steps):
    """`steps` that says something to the report, too."""

    def process(self, item: Item) -> Iterator[Output]:
        """A row, and a refusal of part of the item; then the steps."""
        yield Row(item.label, {"value": item.payload})
        yield from super().process(item)
        yield Refused(f"{item.label}'s tail", "it is too short")


def arm(faults: Sequence[Fault]) -> None:
    """Put the faults in their places."""
    for point in {fault["point"] for fault in faults}:
        owner, name = POINTS[point]
        setattr(owner, name, faulty(getattr(owner, name), [fault for fault in faults if fault["point"] == point]))


def faulty(real: Callable[..., Any], faults: Sequence[Fault]) -> Callable[..., Any]:
    """The function, with what comes over it at some of its calls."""
    calls = 0

    def call(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        here = [fault for fault in faults if fault["number"] == calls]
        strike(fault for fault in here if fault["when"] == "before")
        answer = real(*args, **options)
        if any(fault["when"] == "torn" for fault in here):
            tear(args[0])
        strike(fault for fault in here if fault["when"] != "before")
        return answer

    return call


def strike(faults: Iterator[Fault]) -> None:
    for fault in faults:
        os.kill(os.getpid(), fault["signal"])


def tear(ledger: Any) -> None:
    """Leave half of the last line."""
    lines = ledger._path.read_bytes().splitlines(keepends=True)
    os.truncate(ledger._path, sum(map(len, lines[:-1])) + len(lines[-1]) // 2)


def work(job: Mapping[str, Any]) -> int:
    """What a child does; returns its exit code."""
    hurry()
    signal.alarm(100)  # a fault that makes a run endless must not outlive the tests
    for place, value in job.get("constants", {}).items():
        module, _, name = place.partition(":")
        setattr(importlib.import_module(module), name, value)
    arm(job.get("faults", ()))
    if "arguments" in job:
        return cli.main(job["arguments"])
    try:
        checked = spec.from_mapping("toys", job["pipeline"], extra_stages={**TOYS, "tally": Tally, "telling": Telling})
        manner = runner.Manner(local=True, **job.get("manner", {}))
        outcome = runner.run(checked, Console(file=sys.stdout, width=200), manner)
    except FramefoldError as error:
        sys.stdout.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(f"reused {outcome.reused}\n")
    return outcome.exit_code


def child(job: Mapping[str, Any]) -> None:
    """Work, print into a file, and be gone without a look at what the parent had open."""
    output = os.open(job.get("output", os.devnull), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    code = 70
    try:
        code = work(job)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def answer(job: Mapping[str, Any]) -> dict[str, int | None]:
    """Run a child, or let one go on, until it ends or stops."""
    number = job.get("wake")
    if number is None:
        number = os.fork()
        if not number:
            child(job)
    else:
        os.kill(number, signal.SIGCONT)
    _, status = os.waitpid(number, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        return {"ended": None, "stopped": number}
    return {"ended": os.waitstatus_to_exitcode(status), "stopped": None}


if __name__ == "__main__":
    for module in sys.argv[1:]:
        importlib.import_module(module)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)  # a thread would not survive the fork
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(json.loads(line))) + "\n")
        sys.stdout.flush()
