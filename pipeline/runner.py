"""Runs a checked pipeline: chooses the executor, shows progress, writes the report."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console

from framefold.pipeline.errors import FramefoldError
from framefold.pipeline.executor import Executor, LocalExecutor
from framefold.pipeline.outcome import Outcome, write_report
from framefold.pipeline.progress import Display, print_set_aside
from framefold.pipeline.scheduler import Scheduler

if TYPE_CHECKING:
    from framefold.pipeline.graph import Node
    from framefold.pipeline.spec import CheckedPipeline


def run(pipeline: CheckedPipeline, console: Console, *, local: bool = False, address: str | None = None) -> Outcome:
    """Run to the end and write `report.json`; RunFailed where no result came of it."""
    executor = _executor(pipeline, local=local, address=address)
    with _sigterm_closes_stages(), Display(console, pipeline.name) as display:
        scheduler = Scheduler(
            list(pipeline.graph),
            executor,
            seed=pipeline.seed,
            run_dir=pipeline.run_dir,
            watch=display,
        )
        try:
            return scheduler.run()
        except FramefoldError:
            print_set_aside(console, scheduler.outcome)
            raise
        finally:
            write_report(scheduler.outcome, pipeline.name, pipeline.run_dir)


@contextmanager
def _sigterm_closes_stages() -> Iterator[None]:
    """Entered after Ray has set its own handler: what stages hold must be closed on the way out."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _executor(pipeline: CheckedPipeline, *, local: bool, address: str | None) -> Executor:
    if local:
        return LocalExecutor()
    from framefold.pipeline.ray_executor import RayExecutor, Reservation  # noqa: PLC0415: Ray takes a second to import

    reservations = {
        node.name: (node.replicas, Reservation(_reserved_cpus(node), node.resources.gpus)) for node in pipeline.graph
    }
    return RayExecutor(reservations, address=address)


def _reserved_cpus(node: Node) -> float:
    """Only what the file asks for by name: a stage that says nothing takes turns on the cores there are."""
    return node.resources.cpus if "cpus" in node.resources.model_fields_set else 0
