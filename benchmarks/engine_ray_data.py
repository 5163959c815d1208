"""The benchmark's chain in Ray Data: the process of one of its rows; needs only `ray[data]`.

Written as for items that take long: actor pools of fixed size, one item a block, so that items flow and a lost
worker costs one item, and restarts that end (by default they do not). With no `nbytes` and `slow_seconds` the
same chain also runs with the block sizes that Ray Data chooses itself, `--own-blocks`.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import Any

import engine
import numpy as np
import ray
import ray.data

Batch = dict[str, np.ndarray]


class Source:
    """Numbers to items."""

    def __init__(self, job: engine.Job, folder: Path) -> None:
        self._job, self._mark = job, engine.Marks(folder, "source")

    def __call__(self, batch: Batch) -> Batch:
        """Make one item: (1, nbytes) uint8, or (1,) its number."""
        number, began = int(batch["id"][0]), time.monotonic()
        item = np.asarray(self._job.make(number))[None]
        self._mark(number, began)
        return {"item": item}


class Pass:
    """Hand an item on, after a while."""

    def __init__(self, folder: Path, node: str, seconds: float) -> None:
        self._seconds, self._mark = seconds, engine.Marks(folder, node)

    def __call__(self, batch: Batch) -> Batch:
        """Sleep, then give the item back."""
        began = time.monotonic()
        time.sleep(self._seconds)
        self._mark(_number(batch), began)
        return batch


class Sink:
    """Note what arrives."""

    def __init__(self, folder: Path) -> None:
        self._mark = engine.Marks(folder, "sink")

    def __call__(self, batch: Batch) -> Batch:
        """Look at the number; what is left has no rows."""
        self._mark(_number(batch), time.monotonic())
        return {"done": np.empty(0, np.int64)}


def _number(batch: Batch) -> int:
    item = batch["item"][0]
    return engine.number_of(item if item.ndim else int(item))


def main() -> None:
    """Run one row."""
    job, folder = engine.Job.from_command_line()
    workers = 3 + engine.SLOW_REPLICAS
    ray.init(
        address="local", num_cpus=workers + 1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
    )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    blocks = None if "--own-blocks" in sys.argv else job.items

    def each(data: ray.data.Dataset, stage: type, *args: Any, replicas: int = 1) -> ray.data.Dataset:
        return data.map_batches(
            stage,
            fn_constructor_args=args,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=replicas),
            num_cpus=1,
            max_restarts=2,
            max_task_retries=2,
        )

    items = each(
        ray.data.from_items([{"id": n} for n in range(job.items)], override_num_blocks=blocks), Source, job, folder
    )
    light = each(items, Pass, folder, "light", 0.0)
    slow = each(light, Pass, folder, "slow", job.slow_seconds, replicas=engine.SLOW_REPLICAS)
    each(slow, Sink, folder).materialize()


if __name__ == "__main__":
    main()
