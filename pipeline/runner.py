"""Runs a checked pipeline: chooses the executor, goes on where the last run stopped, writes the report."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console

from framefold.pipeline.errors import FramefoldError, Interrupted, UsageError
from framefold.pipeline.event_log import EventLog
from framefold.pipeline.executor import Executor, LocalExecutor
from framefold.pipeline.findings import listed, unknown
from framefold.pipeline.home import Home, home_of
from framefold.pipeline.notices import Listener
from framefold.pipeline.outcome import Outcome
from framefold.pipeline.policy import Policy
from framefold.pipeline.progress import Display, print_set_aside
from framefold.pipeline.reports import write_report
from framefold.pipeline.scheduler import Scheduler

if TYPE_CHECKING:
    from framefold.pipeline.spec import CheckedPipeline


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How a pipeline is run."""

    local: bool = False
    """In this process, without Ray."""
    address: str | None = None
    """A Ray cluster that runs already."""
    fresh: bool = False
    """Leave what earlier runs did aside."""
    report: bool = True
    """Keep a folder with report, log and what the next run can go on from."""
    metrics_port: int | None = None
    """Where Prometheus finds figures; None for nowhere."""
    save_inputs: Collection[str] = ()
    """Nodes whose every input is written down, for `pipeline replay`."""
    command: Sequence[str] = ()
    """What was typed, to be typed again after an interruption."""


def run(pipeline: CheckedPipeline, console: Console, manner: Manner | None = None) -> Outcome:
    """Run to the end and leave a report, if wanted, in the run's folder; RunFailed where no result came of it."""
    manner = manner or Manner()
    _check_saved(pipeline, manner.save_inputs)
    with _home(pipeline, console, manner) as home:
        executor = _executor(pipeline, manner)
        for note in executor.notes:
            console.print(f"note: {note}", soft_wrap=True)
        return _run(pipeline, console, manner, home, executor)


def _run(pipeline: CheckedPipeline, console: Console, manner: Manner, home: Home | None, executor: Executor) -> Outcome:
    listeners = list(_listeners(pipeline, manner))
    with _Signals() as signals, Display(console, pipeline.name) as display:

        def watch(outcome: Outcome) -> None:
            display(outcome)
            signals.check()

        scheduler = Scheduler(
            list(pipeline.graph),
            executor,
            seed=pipeline.seed,
            run_dir=pipeline.run_dir,
            home=home,
            policy=_policy(pipeline, manner),
            watch=watch,
            listeners=listeners,
        )
        try:
            return scheduler.run()
        except BaseException as error:
            scheduler.outcome.ended_by(error)
            if isinstance(error, FramefoldError):
                print_set_aside(console, scheduler.outcome)
            if isinstance(error, Interrupted) and home is not None and manner.command:
                error.add_remedy(f"to go on from here: {shlex.join(manner.command)}")
            raise
        finally:
            for listener in listeners:
                if isinstance(listener, EventLog):
                    listener.close()
            if manner.report:
                write_report(scheduler.outcome, pipeline.name, pipeline.run_dir)


def _check_saved(pipeline: CheckedPipeline, names: Collection[str]) -> None:
    known = [node.name for node in pipeline.graph if not node.is_source]
    for name in names:
        if name in pipeline.graph.order and name not in known:
            raise UsageError(f"--save-inputs {name}: it is a source and has no inputs; name {listed(known, last='or')}")
        if name not in known:
            raise UsageError(f"--save-inputs: {unknown('node', name, known)}")


def _policy(pipeline: CheckedPipeline, manner: Manner) -> Policy:
    return Policy(
        fail_fast=pipeline.fail_fast,
        checkpoint_seconds=pipeline.checkpoint_seconds,
        drain_seconds=pipeline.drain_seconds,
        save_inputs=manner.save_inputs,
    )


def _listeners(pipeline: CheckedPipeline, manner: Manner) -> Iterator[Listener]:
    if manner.report:
        yield EventLog(pipeline.run_dir / "events.jsonl")
    if manner.metrics_port is not None or manner.address is not None:  # a cluster may have an exporter of its own
        from framefold.pipeline.ray_metrics import RayMetrics  # noqa: PLC0415 - see _executor

        yield RayMetrics(pipeline.name)


@contextmanager
def _home(pipeline: CheckedPipeline, console: Console, manner: Manner) -> Iterator[Home | None]:
    """The run's folder; None where nothing is to be left behind."""
    if not manner.report:
        yield None
        return
    with home_of(pipeline.run_dir, fresh=manner.fresh, say=partial(console.print, soft_wrap=True)) as home:
        if manner.save_inputs:
            home.inputs.clear()
        yield home


class _Signals:
    """SIGINT, SIGTERM and SIGHUP, heard between two steps: an exception out of a handler may end inside Ray.

    Entered after Ray has set its own handlers. The first signal ends the run in order, so that work under way
    is kept; the same signal again ends the process at once. One that is ignored, as under nohup, stays so.
    """

    def __init__(self) -> None:
        self._came: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        self._came = number
        signal.signal(number, signal.SIG_DFL)

    def check(self) -> None:
        """Raise Interrupted if a signal has come."""
        if self._came is not None:
            raise Interrupted(self._came)


def _executor(pipeline: CheckedPipeline, manner: Manner) -> Executor:
    if manner.local:
        return LocalExecutor()
    from framefold.pipeline.placement import Reservation  # noqa: PLC0415
    from framefold.pipeline.ray_executor import RayExecutor  # noqa: PLC0415 - Ray takes a second to import

    demands = {
        node.name: (
            node.replicas,
            Reservation(node.resources.cpus or 0, node.resources.gpus, node.resources.labels),
        )
        for node in pipeline.graph
    }
    return RayExecutor(demands, address=manner.address, metrics_port=manner.metrics_port)
