"""Runs a checked pipeline: chooses the executor, shows progress, writes the report."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console

from framefold.pipeline.errors import FramefoldError, Interrupted, UsageError
from framefold.pipeline.executor import Executor, LocalExecutor
from framefold.pipeline.outcome import Outcome
from framefold.pipeline.progress import Display, print_set_aside
from framefold.pipeline.reports import write_report
from framefold.pipeline.scheduler import Scheduler

if TYPE_CHECKING:
    from framefold.pipeline.spec import CheckedPipeline


def run(
    pipeline: CheckedPipeline,
    console: Console,
    *,
    local: bool = False,
    address: str | None = None,
    report: bool = True,
) -> Outcome:
    """Run to the end and leave a report, if wanted, in the run's folder; RunFailed where no result came of it."""
    if report:
        _make_folder(pipeline.run_dir)  # before the work, which may take hours
    executor = _executor(pipeline, local=local, address=address)
    with _Signals() as signals, Display(console, pipeline.name) as display:

        def watch(outcome: Outcome) -> None:
            display(outcome)
            signals.check()

        scheduler = Scheduler(
            list(pipeline.graph),
            executor,
            seed=pipeline.seed,
            run_dir=pipeline.run_dir,
            watch=watch,
        )
        try:
            return scheduler.run()
        except BaseException as error:
            scheduler.outcome.ended_by(error)
            if isinstance(error, FramefoldError):
                print_set_aside(console, scheduler.outcome)
            raise
        finally:
            if report:
                write_report(scheduler.outcome, pipeline.name, pipeline.run_dir)


def _make_folder(run_dir: Path) -> None:
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"run_dir: {error}; name a folder that can be written, as in --set run_dir=PATH") from error


class _Signals:
    """SIGINT, SIGTERM and SIGHUP, heard between two steps: an exception out of a handler may end inside Ray.

    Entered after Ray has set its own handlers. The first signal ends the run in order, so that stages close
    what they hold; the same signal again ends the process at once. One that is ignored, as under nohup, stays so.
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


def _executor(pipeline: CheckedPipeline, *, local: bool, address: str | None) -> Executor:
    if local:
        return LocalExecutor()
    from framefold.pipeline.ray_executor import RayExecutor, Reservation  # noqa: PLC0415 - Ray takes a second to import

    reservations = {
        node.name: (node.replicas, Reservation(node.resources.cpus or 0, node.resources.gpus))
        for node in pipeline.graph
    }
    return RayExecutor(reservations, address=address)
