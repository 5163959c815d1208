"""One replica of one node, wherever it runs: drives a stage and turns what it yields into events.

Everything a stage can do wrong ends here as a `Failed` event of plain strings. Native code may raise
exceptions that are no `Exception` (constriction's `PanicException`), so the net is wide.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from framefold.pipeline.errors import FramefoldError
from framefold.pipeline.events import (
    Advanced,
    Event,
    Failed,
    Finished,
    Hinted,
    Produced,
    Reported,
    SetAside,
    Started,
    Task,
)
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Emit, Hint, Ports, Progress, Refused, Row, Stage, StageContext, types_of


@dataclass(frozen=True)
class Blueprint:
    """All that a worker needs to build its stage; small, and pickled by name."""

    stage_class: str
    """`package.module:Class`."""
    config_json: str
    context: StageContext

    def build(self) -> tuple[Stage, Ports]:
        """Import the class, validate its options, make the stage."""
        module, _, name = self.stage_class.partition(":")
        stage_class: type[Stage] = getattr(importlib.import_module(module), name)
        config = stage_class.Config.model_validate_json(self.config_json)
        return stage_class(config), stage_class.ports(config)


def pin_threads(cpus: float) -> None:
    """Limit native thread pools to the cores granted: oversubscribed fits run many times slower."""
    threads = max(1, int(cpus))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


class Worker:
    """A stage under supervision."""

    def __init__(self, blueprint: Blueprint) -> None:
        self._blueprint = blueprint
        self._stage: Stage | None = None
        self._ports = Ports()

    def setup(self) -> Failed | None:
        """Build and set up the stage; what went wrong, or None."""
        try:
            self._stage, self._ports = self._blueprint.build()
            self._stage.setup(self._blueprint.context)
        except BaseException as error:
            return failure(error)
        return None

    def run(self, task: Task, payload: Any) -> Iterator[Event | Any]:
        """The call's events; each `Produced` is followed by its payload."""
        clock = _Clock()
        yield from clock.paused(Started())
        try:
            for output in self._outputs(task, payload):
                for event in self._event(output, clock):
                    yield from clock.paused(event)
        except GeneratorExit:
            raise
        except BaseException as error:
            yield failure(error)
        else:
            yield Finished(clock.seconds, clock.cpu_seconds)

    def close(self) -> None:
        """Let the stage go. A stage that cannot even be closed must not cost the run its result."""
        try:
            if self._stage is not None:
                self._stage.close()
        except Exception:
            logging.getLogger(__name__).exception("%s could not be closed", self._blueprint.context.node)

    def _outputs(self, task: Task, payload: Any) -> Iterator[Any]:
        if self._stage is None:
            raise RuntimeError(f"{self._blueprint.context.node} was given work before it was set up")
        if task.kind == "produce":
            return self._iterated(self._stage.produce(), "produce")
        if task.kind == "finish":
            return self._iterated(self._stage.finish(), "finish")
        self._check_accepted(payload)
        item = Item(task.key, task.label, task.seq, payload, task.attempt, task.seconds)
        return self._iterated(self._stage.process(item), "process")

    def _iterated(self, outputs: Any, method: str) -> Iterator[Any]:
        """What the method gave, one by one; a method that yields nothing may well return None."""
        if outputs is not None and not isinstance(outputs, Iterable):
            kind = type(outputs).__name__
            raise TypeError(f"{self._blueprint.context.node}: {method} returned {kind}; let it yield what it gives")
        return iter(() if outputs is None else outputs)

    def _event(self, output: Any, clock: _Clock) -> Iterator[Event | Any]:
        match output:
            case Progress(fraction, values):
                yield Advanced(fraction, dict(values))
            case Refused(label, reason):
                yield SetAside(label, reason)
            case Row(label, values):
                yield Reported(label, dict(values))
            case Hint(command):
                yield Hinted(command)
            case Emit(payload, identity, label, port):
                self._check_emitted(payload, port)
                yield Produced(port, identity, label or _label_of(payload), _size_of(payload), clock.lap())
                yield payload
            case payload:
                yield from self._event(Emit(payload), clock)

    def _check_accepted(self, payload: Any) -> None:
        accepts = self._ports.accepts
        if accepts is not None and not isinstance(payload, types_of(accepts)):
            raise TypeError(
                f"{self._blueprint.context.node} takes {names_of(accepts)}, got {type(payload).__name__}: "
                "put a stage between that converts it, or choose another source"
            )

    def _check_emitted(self, payload: Any, port: str) -> None:
        node, emits = self._blueprint.context.node, self._ports.emits
        if port not in emits:
            raise TypeError(f"{node} has no output port {port!r}; its ports are {', '.join(emits) or 'none'}")
        if not isinstance(payload, types_of(emits[port])):
            raise TypeError(f"{node}.{port} gives {names_of(emits[port])}, got {type(payload).__name__}")


def names_of(port: Any) -> str:
    """`Clip or ImageBatch`."""
    return " or ".join(kind.__name__ for kind in types_of(port))


def failure(error: BaseException) -> Failed:
    """The exception as plain data; classes with odd constructors do not survive pickling."""
    text = "".join(traceback.format_exception(error))
    final = isinstance(error, FramefoldError)
    return Failed(type(error).__name__, str(error) or type(error).__name__, text, retry=not final)


class _Clock:
    """Working time of a call: the pauses in which it is held back, or others take their turn, do not count."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()
        self._lap = self._wall

    def paused(self, event: Event | Any) -> Iterator[Event | Any]:
        """Yield one event; the clock stands still until the call is taken up again."""
        wall, cpu = time.monotonic(), time.process_time()
        yield event
        wall = time.monotonic() - wall
        self._wall, self._lap, self._cpu = self._wall + wall, self._lap + wall, self._cpu + time.process_time() - cpu

    def lap(self) -> float:
        """Seconds since the call's output before."""
        now = time.monotonic()
        seconds, self._lap = now - self._lap, now
        return seconds

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._wall

    @property
    def cpu_seconds(self) -> float:
        return time.process_time() - self._cpu


def _size_of(payload: Any) -> int:
    return int(getattr(payload, "nbytes", 0)) or sys.getsizeof(payload)


def _label_of(payload: Any) -> str | None:
    span = getattr(payload, "span", None)
    return getattr(span, "label", None) or getattr(payload, "label", None)
