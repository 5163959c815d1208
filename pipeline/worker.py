"""One replica of one node, wherever it runs: drives a stage and turns what it yields into events.

Everything a stage can do wrong ends here as a `Failed` event of plain strings. Native code may raise
exceptions that are no `Exception` (constriction's `PanicException`), so the net is wide.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from framefold.pipeline import keepsake
from framefold.pipeline.errors import FramefoldError, Transient
from framefold.pipeline.events import (
    Advanced,
    Checkpointed,
    Event,
    Failed,
    Finished,
    Hinted,
    Kept,
    Produced,
    Reported,
    SetAside,
    Started,
    Stopped,
    Subject,
    Task,
)
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Emit, Hint, Ports, Progress, Refused, Row, Stage, StageContext, types_of
from framefold.pipeline.state_folder import StateFolder

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Blueprint:
    """All that a worker needs to build its stage; small, and pickled by name."""

    stage_class: str
    """`package.module:Class`."""
    config_json: str
    context: StageContext
    state: StateFolder | None = None
    """Where checkpoints and kept outputs go; None: nowhere."""
    durable: bool = False
    """Outputs are kept."""
    checkpoint_seconds: float = 60.0

    def build(self) -> tuple[Stage, Ports]:
        """Import the class, validate its options, make the stage."""
        module, _, name = self.stage_class.partition(":")
        stage_class: type[Stage] = getattr(importlib.import_module(module), name)
        config = stage_class.Config.model_validate_json(self.config_json)
        return stage_class(config), stage_class.ports(config)

    @property
    def packages(self) -> tuple[str, ...]:
        """Whose classes may come back from disk."""
        return (self.stage_class.partition(".")[0].partition(":")[0],)


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
        self._stopping = threading.Event()

    def setup(self) -> Failed | None:
        """Build and set up the stage; what went wrong, or None."""
        try:
            self.begin()
        except BaseException as error:
            return failure(error)
        return None

    def begin(self) -> None:
        """The same, for who wants the exception itself."""
        self._stage, self._ports = self._blueprint.build()
        self._stage.setup(self._blueprint.context)

    def work(self, task: Task, payloads: Sequence[Any]) -> Iterator[Event | Any]:
        """The middle of what `run` gives; raises what the stage raises, so that a debugger finds its frames."""
        return self._events(task, payloads, _Clock())

    def stop_soon(self) -> None:
        """Ask the call under way to keep its state and end at its next progress; from any thread."""
        self._stopping.set()

    def resume_work(self) -> None:
        """Calls from now on run to their end again."""
        self._stopping.clear()

    def run(self, task: Task, payloads: Sequence[Any]) -> Iterator[Event | Any]:
        """The call's events; each `Produced` is followed by its payload."""
        clock = _Clock()
        yield from clock.paused(Started())
        try:
            for event in self._events(task, payloads, clock):
                yield from clock.paused(event)
        except GeneratorExit:
            raise
        except _Stop:
            yield Stopped()
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
            _log.exception("%s could not be closed", self._blueprint.context.node)

    def _events(self, task: Task, payloads: Sequence[Any], clock: _Clock) -> Iterator[Event | Any]:
        if self._stage is None:
            raise RuntimeError(f"{self._blueprint.context.node} was given work before it was set up")
        items = list(self._items(task, payloads)) if task.kind == "process" else []
        if task.kind == "receive":
            self._stage.receive(task.side, payloads[0])
        elif task.kept is not None:
            yield from self._restored(task.kept, items[0] if items else Item("", "", (), None))
        else:
            recorder = _Recorder(self._blueprint, task)
            for index, output in self._outputs(self._stage, task, items):
                yield from self._told(output, index, clock, recorder)

    def _items(self, task: Task, payloads: Sequence[Any]) -> Iterator[Item]:
        """The items of a call; the payloads of a joined one are put together."""
        rest = iter(payloads)
        checkpoint = self._checkpoint(task)
        for subject in task.subjects:
            payload = {name: next(rest) for name in subject.names} if subject.names else next(rest)
            self._check_accepted(payload)
            yield _item(subject, payload, checkpoint)

    def _checkpoint(self, task: Task) -> Any:
        state = self._blueprint.state
        path = state.checkpoint(self._blueprint.context.node, task.work_key) if state and task.work_key else None
        if path is None or not path.exists():
            return None
        try:
            return keepsake.read(path, packages=self._blueprint.packages)
        except keepsake.DamagedKeepsake as error:
            _log.warning("%s; the work on %s begins anew", error, task.subjects[0].label)
            return None

    def _outputs(self, stage: Stage, task: Task, items: Sequence[Item]) -> Iterator[tuple[int, Any]]:
        """What the stage gives, each with the place of its item in the batch."""
        if task.kind == "produce":
            return ((0, output) for output in self._iterated(stage.produce(), "produce"))
        if task.kind == "finish":
            return ((0, output) for output in self._iterated(stage.finish(), "finish"))
        if len(items) == 1 and type(stage).process_batch is Stage.process_batch:
            return ((0, output) for output in self._iterated(stage.process(items[0]), "process"))
        places = {item.key: index for index, item in enumerate(items)}
        outputs = self._iterated(stage.process_batch(items), "process_batch")
        return ((places[item.key], output) for item, output in outputs)

    def _iterated(self, outputs: Any, method: str) -> Iterator[Any]:
        """What the method gave, one by one; a method that yields nothing may well return None."""
        if outputs is not None and not isinstance(outputs, Iterable):
            kind = type(outputs).__name__
            raise TypeError(f"{self._blueprint.context.node}: {method} returned {kind}; let it yield what it gives")
        return iter(() if outputs is None else outputs)

    def _told(self, output: Any, index: int, clock: _Clock, recorder: _Recorder) -> Iterator[Event | Any]:
        match output:
            case Progress(fraction, values):
                yield Advanced(float(fraction), {name: float(value) for name, value in values.items()})
                yield from self._maybe_checkpoint(output, recorder)
            case Refused(label, reason):
                yield SetAside(label, reason)
            case Row(label, values):
                yield Reported(label, {name: _plain(value) for name, value in values.items()})
            case Hint(command):
                yield Hinted(command)
            case Emit(payload, identity, label, port):
                self._check_emitted(payload, port)
                kept = recorder.keep(self._stage, payload, index) if self._stage else None
                nbytes, label = _size_of(payload), label or _label_of(payload)
                yield Produced(port, identity, label, nbytes, clock.lap(), index, kept)
                yield payload
            case payload:
                yield from self._told(Emit(payload), index, clock, recorder)

    def _maybe_checkpoint(self, progress: Progress, recorder: _Recorder) -> Iterator[Event]:
        stopping = self._stopping.is_set()
        if progress.state is not None and (stopping or recorder.checkpoint_due):
            yield recorder.checkpoint(progress)
        if stopping:
            raise _Stop

    def _restored(self, kept: Sequence[Produced], item: Item) -> Iterator[Event | Any]:
        """Outputs of an earlier run: read, checked, and made whole with what the item holds."""
        state = self._blueprint.state
        for output in kept:
            if state is None or output.kept is None or self._stage is None:
                raise keepsake.DamagedKeepsake(f"{item.label} is not kept anywhere")
            path, digest = state.kept(output.kept.file), output.kept.sha256
            payload = self._stage.restored(item, keepsake.read(path, packages=self._blueprint.packages, sha256=digest))
            yield replace(output, nbytes=_size_of(payload), seconds=output.seconds)
            yield payload

    def _check_accepted(self, payload: Any) -> None:
        if self._ports.joins:
            for name, part in payload.items():
                self._check_type(part, self._ports.joins[name], f".{name}")
        elif self._ports.accepts is not None:
            self._check_type(payload, self._ports.accepts, "")

    def _check_type(self, payload: Any, accepts: Any, name: str) -> None:
        if not isinstance(payload, types_of(accepts)):
            raise TypeError(
                f"{self._blueprint.context.node}{name} takes {names_of(accepts)}, got {type(payload).__name__}: "
                "put a stage between that converts it, or choose another source"
            )

    def _check_emitted(self, payload: Any, port: str) -> None:
        node, emits = self._blueprint.context.node, self._ports.emits
        if port not in emits:
            raise TypeError(f"{node} has no output port {port!r}; its ports are {', '.join(emits) or 'none'}")
        if not isinstance(payload, types_of(emits[port])):
            raise TypeError(f"{node}.{port} gives {names_of(emits[port])}, got {type(payload).__name__}")


class _Stop(BaseException):
    """The call ends here because it was asked to."""


class _Recorder:
    """What one call leaves on disk: its outputs, if they are worth keeping, and its state."""

    def __init__(self, blueprint: Blueprint, task: Task) -> None:
        self._blueprint, self._task = blueprint, task
        self._outputs: Counter[str] = Counter()
        self._saved = time.monotonic()

    @property
    def checkpoint_due(self) -> bool:
        return time.monotonic() - self._saved >= self._blueprint.checkpoint_seconds

    def keep(self, stage: Stage, payload: Any, index: int) -> Kept | None:
        """Write an output of a durable node."""
        state, node = self._blueprint.state, self._blueprint.context.node
        work_key = self._task.subjects[index].work_key
        seen_again = stage.stateful and self._task.kind == "process"  # whatever is kept, it needs every item
        if state is None or not self._blueprint.durable or not work_key or seen_again:
            return None
        file = state.kept_name(node, work_key, self._outputs[work_key])
        self._outputs[work_key] += 1
        _, digest = keepsake.write(state.kept(file), stage.packed(payload))
        return Kept(file, digest)

    def checkpoint(self, progress: Progress) -> Checkpointed:
        """Write the state of the work."""
        state, node = self._blueprint.state, self._blueprint.context.node
        nbytes = 0
        if state is not None and self._task.work_key and progress.state is not None:
            nbytes, _ = keepsake.write(state.checkpoint(node, self._task.work_key), progress.state())
        self._saved = time.monotonic()
        return Checkpointed(nbytes, progress.fraction)


def _item(subject: Subject, payload: Any, checkpoint: Any) -> Item:
    return Item(subject.key, subject.label, subject.seq, payload, subject.attempt, subject.seconds, checkpoint)


def names_of(port: Any) -> str:
    """`Clip or ImageBatch`."""
    return " or ".join(kind.__name__ for kind in types_of(port))


def failure(error: BaseException) -> Failed:
    """The exception as plain data; classes with odd constructors do not survive pickling."""
    text = "".join(traceback.format_exception(error))
    return Failed(type(error).__name__, str(error) or type(error).__name__, text, _kind_of(error))


def _kind_of(error: BaseException) -> Literal["item", "transient", "final", "keepsake"]:
    match error:
        case Transient() | ConnectionError() | TimeoutError():
            return "transient"
        case keepsake.DamagedKeepsake():
            return "keepsake"
        case FramefoldError():
            return "final"
    return "item"


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


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's own: rows go into JSON."""
    return value.item() if isinstance(value, np.generic) else value


def _size_of(payload: Any) -> int:
    return int(getattr(payload, "nbytes", 0)) or sys.getsizeof(payload)


def _label_of(payload: Any) -> str | None:
    span = getattr(payload, "span", None)
    return getattr(span, "label", None) or getattr(payload, "label", None)


def save_input(path: Path, payloads: Sequence[Any], names: Sequence[str]) -> None:
    """Write what a stage was given, so that its work can be replayed."""
    keepsake.write(path, dict(zip(names, payloads, strict=True)) if names else payloads[0])
