"""Runs a checked pipeline: chooses the executor, shows progress, writes the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from framefold.pipeline.executor import Executor, LocalExecutor
from framefold.pipeline.outcome import Outcome, write_report
from framefold.pipeline.progress import Display
from framefold.pipeline.scheduler import Scheduler

if TYPE_CHECKING:
    from framefold.pipeline.spec import CheckedPipeline


def run(pipeline: CheckedPipeline, console: Console, *, local: bool = False, address: str | None = None) -> Outcome:
    """Run to the end and write `report.json`; RunFailed where no result came of it."""
    executor = _executor(pipeline, local=local, address=address)
    with Display(console, pipeline.name) as display:
        scheduler = Scheduler(
            pipeline.graph.nodes,
            executor,
            seed=pipeline.seed,
            run_dir=pipeline.run_dir,
            watch=display,
        )
        try:
            return scheduler.run()
        finally:
            write_report(scheduler.outcome, pipeline.name, pipeline.run_dir)


def _executor(pipeline: CheckedPipeline, *, local: bool, address: str | None) -> Executor:
    if local:
        return LocalExecutor()
    from framefold.pipeline.ray_executor import RayExecutor, Reservation  # noqa: PLC0415: Ray takes a second to import

    reservations = {
        node.name: (node.replicas, Reservation(node.resources.cpus or 0, node.resources.gpus))
        for node in pipeline.graph.nodes
    }
    return RayExecutor(reservations, address=address)
