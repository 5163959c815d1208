"""The benchmark's chain in cosmos-xenna: the process of one of its rows; needs only `cosmos-xenna`.

Streaming mode with fixed numbers of workers. It takes a list of inputs and no generator, so the items are made
by its first stage from a list of numbers.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any

import engine

os.environ.setdefault("RAY_MAX_LIMIT_FROM_API_SERVER", "40000")  # as its own start of Ray sets them
os.environ.setdefault("RAY_MAX_LIMIT_FROM_DATA_SOURCE", "40000")

import ray  # Ray reads the lines above at import
from cosmos_xenna.pipelines import v1 as xenna


class _Stage(xenna.Stage):
    """A stage that notes when it works on what."""

    def __init__(self, folder: Path, node: str) -> None:
        self._folder, self._node = folder, node

    @property
    def required_resources(self) -> xenna.Resources:
        return xenna.Resources(cpus=1.0)

    def setup(self, worker_metadata: xenna.WorkerMetadata) -> None:
        """One file per worker."""
        self._mark = engine.Marks(self._folder, self._node)


class Source(_Stage):
    """Numbers to items."""

    def __init__(self, folder: Path, job: engine.Job) -> None:
        super().__init__(folder, "source")
        self._job = job

    def process_data(self, in_data: list[int]) -> list[Any]:
        """Make one item."""
        began = time.monotonic()
        item = self._job.make(in_data[0])
        self._mark(in_data[0], began)
        return [item]


class Pass(_Stage):
    """Hand an item on, after a while."""

    def __init__(self, folder: Path, node: str, seconds: float) -> None:
        super().__init__(folder, node)
        self._seconds = seconds

    def process_data(self, in_data: list[Any]) -> list[Any]:
        """Sleep, then give the item back."""
        began = time.monotonic()
        time.sleep(self._seconds)
        self._mark(engine.number_of(in_data[0]), began)
        return in_data


class Sink(_Stage):
    """Note what arrives."""

    def process_data(self, in_data: list[Any]) -> list[Any]:
        """Look at the number; nothing is left."""
        self._mark(engine.number_of(in_data[0]), time.monotonic())
        return []


def main() -> None:
    """Run one row."""
    job, folder = engine.Job.from_command_line()
    cpus = 2 * (3 + engine.SLOW_REPLICAS)  # it keeps some for itself
    ray.init(address="local", num_cpus=cpus, include_dashboard=True, log_to_driver=False, logging_level=logging.ERROR)
    stages = [
        xenna.StageSpec(Source(folder, job), num_workers=1),
        xenna.StageSpec(Pass(folder, "light", 0.0), num_workers=1),
        xenna.StageSpec(Pass(folder, "slow", job.slow_seconds), num_workers=engine.SLOW_REPLICAS),
        xenna.StageSpec(Sink(folder, "sink"), num_workers=1),
    ]
    config = xenna.PipelineConfig(mode_specific=xenna.StreamingSpecificSpec())
    xenna.run_pipeline(xenna.PipelineSpec(list(range(job.items)), stages, config))
    ray.shutdown()


if __name__ == "__main__":
    main()
