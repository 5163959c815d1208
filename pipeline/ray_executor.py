"""The only module that knows Ray: replicas are actors, payloads are object references.

Pinned to Ray 2.60; what is private there is used in few places, and a test holds it. Restarts and task retries
are ours (`max_restarts=0, max_task_retries=0`): Ray would re-run an hour-long fit without a word.

A call is a streaming method. What it streams are lists of events; a payload that follows its `Produced` stays
in the object store and only its reference comes to the driver, while one of a few bytes travels in the event.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

# Ray reads these at import.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # what goes wrong we say ourselves, once

import ray
from ray import cloudpickle
from ray.exceptions import (
    ActorUnavailableError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
)

from framefold.pipeline.errors import UsageError
from framefold.pipeline.events import (
    Advanced,
    Cause,
    Died,
    Event,
    Failed,
    Finished,
    Hinted,
    Produced,
    Ready,
    Reported,
    SetAside,
    Started,
    Stopped,
    Task,
)
from framefold.pipeline.executor import attached
from framefold.pipeline.placement import Demands, Machine, Reservation, plan
from framefold.pipeline.shape import Replica
from framefold.pipeline.worker import Blueprint, Worker, pin_threads, save_input

OBJECTS_AHEAD = 6
"""Objects a call may have made that the driver has not taken: two outputs with their events."""
INLINE_BYTES = 8192
"""Payloads up to this size travel inside their event."""
CLOSE_SECONDS = 10.0
"""For stages to let go, before their actors are killed."""
MANY_IN_BACKGROUND = 100
STORE_SHARE = 0.6
"""Of the object store may be under way by our count; what it frees lingers there a while."""
_PROMPT_FREES = {"free_objects_batch_size": 1, "free_objects_period_milliseconds": 50}
"""Ray frees objects a hundred at a time, or once a second: with frames of 8 MB that is all of the memory."""
SPILL_SECONDS = 20.0
"""Between two looks for objects that Ray moved to disk."""


@dataclass(frozen=True)
class _Inline:
    """A payload of few bytes, still packed: the driver passes it on unopened."""

    data: bytes


Method = TypeVar("Method", bound=Callable[..., Any])


def _beside(group: str) -> Callable[[Method], Method]:
    """The method runs in a thread of its group's own, also while a call is under way."""
    decorate: Callable[[Method], Method] = ray.method(concurrency_group=group)
    return decorate


@dataclass(frozen=True)
class _Beside:
    """The payload is the second thing that the call returned."""


class _Actor:
    """A worker inside an actor process."""

    def __init__(self, blueprint: Blueprint, folder: Path) -> None:
        """`folder` is the user's current one: relative paths start there, on any machine that has it too."""
        if folder.is_dir():
            os.chdir(folder)
        pin_threads(blueprint.context.cpus)
        self._worker = Worker(blueprint)
        self._blueprint = blueprint
        self._told: Iterator[Any] = iter(())

    def setup(self) -> Failed | str:
        """What went wrong; else the machine that it is on."""
        failed = self._worker.setup()
        pin_threads(self._blueprint.context.cpus)  # again: setting up imported torch
        return failed or str(ray.get_runtime_context().get_node_id())

    def attempt(self, task: Task, *handles: Any) -> tuple[list[Event], Any]:
        """A whole call that gives at most one large payload, and that payload; else its beginning, see `go_on`.

        An ordinary call costs a third of what a streaming one does.
        """
        self._told = self._tell(task, handles)
        events: list[Event] = []
        payload: Any = None
        for told in self._told:
            events += told
            announced = events[-1]
            if payload is None and _is_followed(told) and isinstance(announced, Produced):
                events[-1], payload = attached(announced, _Beside()), next(self._told)
            elif told and not _is_over(told):
                break  # another payload follows, or it is taking its time
        return events, payload

    def go_on(self) -> Iterator[Any]:
        """The rest of the call that `attempt` began."""
        yield from self._told

    def run(self, task: Task, *handles: Any) -> Iterator[Any]:
        """The whole of a call."""
        yield from self._tell(task, handles)

    def _tell(self, task: Task, handles: Sequence[Any]) -> Iterator[Any]:
        """Yield lists of events.

        One that ends with a `Produced` without handle is followed by the payload, and that by the next list, maybe
        empty: without it, what stands in the payload's place is the error that ended the call.
        """
        payloads = [cloudpickle.loads(one.data) if isinstance(one, _Inline) else one for one in handles]
        told: list[Event] = []
        stream = self._worker.run(task, payloads)
        for event in stream:
            told.append(event)
            if isinstance(event, Produced):
                payload = next(stream)
                try:
                    packed = _packed(payload)
                except Exception as error:
                    yield [*told[:-1], _unsendable(error)]
                    return
                if packed is None:
                    yield told
                    yield payload
                    told = []
                else:
                    told[-1] = attached(event, packed)
            if not told or not _can_wait(told[-1], task):
                yield told
                told = []

    def close(self) -> None:
        self._worker.close()

    @_beside("control")
    def stop_soon(self) -> None:
        self._worker.stop_soon()

    @_beside("control")
    def resume_work(self) -> None:
        self._worker.resume_work()

    @_beside("watch")
    def outlast(self) -> None:
        """Never returns: that it ends says that the actor is gone, also while nothing is asked of it."""
        threading.Event().wait()

    @_beside("control")
    def stacks(self) -> str:
        return "\n".join("".join(traceback.format_stack(frame)) for frame in sys._current_frames().values())


class RayExecutor:
    """Actors on an embedded Ray, or on a cluster at `address`."""

    def __init__(
        self, demands: Demands, *, address: str | None = None, metrics_port: int | None = None, **options: Any
    ) -> None:
        """RunFailed where the cluster is too small: Ray itself would wait for ever without a word.

        `metrics_port` and other `options` of `ray.init` are for a Ray of our own, not for one at `address`.
        """
        _connect(demands, address, {"_metrics_export_port": metrics_port, **options})
        try:
            decided = plan(demands, _machines())
        except BaseException:
            ray.shutdown()
            raise
        self.notes: Sequence[str] = decided.notes
        self._demands = decided.demands
        self._actors: dict[Replica, Any] = {}
        self._blueprints: dict[Replica, Blueprint] = {}
        self._streams: dict[Replica, Any] = {}
        self._attempts: dict[Replica, Any] = {}
        self._quick: set[str] = set()
        """Nodes whose last call told of no progress at its end: they are tried without a stream."""
        self._setups: dict[Replica, Any] = {}
        self._watches: dict[Replica, Any] = {}
        self._places: dict[Replica, str] = {}
        """The machine of each."""
        self._killed: dict[Replica, Died] = {}
        self._background: list[Any] = []
        self._spill = _SpillWatch()

    def start(self, blueprints: Mapping[Replica, Blueprint]) -> None:
        """Ask Ray for every actor; they answer as they come up."""
        self._blueprints.update(blueprints)
        for replica in blueprints:
            self._create(replica)

    def restart(self, replica: Replica) -> None:
        """A fresh actor, once the old one has let go."""
        self._end([replica])
        self._create(replica)

    def release(self, replica: Replica) -> None:
        """Close the stage and end its actor."""
        self._end([replica])

    def kill(self, replica: Replica, cause: Cause, message: str) -> None:
        """End the actor; what it was at answers with this cause."""
        if replica in self._actors:  # else it has died meanwhile, and that is on its way
            self._killed[replica] = Died(message, cause)
            ray.kill(self._actors[replica])

    def submit(self, replica: Replica, task: Task, handles: Sequence[Any]) -> None:
        """Begin a call; a reference as argument arrives as the payload, zero-copy."""
        actor = self._actors[replica]
        if task.kind == "process" and replica[0] in self._quick:
            self._attempts[replica] = actor.attempt.options(num_returns=2).remote(task, *handles)
        else:
            self._streams[replica] = _streaming(actor.run).remote(task, *handles)

    def poll(self, held: Collection[Replica], timeout: float) -> list[tuple[Replica, Event]]:
        """The next events of each call that has some."""
        waiting = {stream: replica for replica, stream in self._streams.items() if replica not in held}
        waiting |= {refs[0]: replica for replica, refs in self._attempts.items()}
        waiting |= {ref: replica for replica, ref in self._setups.items()}
        waiting |= {ref: replica for replica, ref in self._watches.items() if self._is_idle(replica)}
        if not waiting:
            time.sleep(timeout)
            return []
        ready, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=0, fetch_local=False)
        if not ready:
            ready, _ = ray.wait(list(waiting), num_returns=1, timeout=timeout, fetch_local=False)
        return [(waiting[one], event) for one in ready for event in self._answer(waiting[one])]

    def stop_soon(self, replicas: Collection[Replica]) -> None:
        """Reaches an actor beside the call that it is at."""
        for replica in replicas:
            self._leave_to_itself(self._actors[replica].stop_soon.remote())

    def resume_work(self, replicas: Collection[Replica]) -> None:
        """Before any call that comes after."""
        answers = [self._actors[replica].resume_work.remote() for replica in replicas]
        if answers:
            ray.wait(answers, num_returns=len(answers), timeout=CLOSE_SECONDS)

    def save(self, path: Path, handles: Sequence[Any], names: Sequence[str]) -> None:
        """Written by a task of its own: the payload never comes here."""
        task = ray.remote(_save).options(num_cpus=0, max_retries=0)
        self._leave_to_itself(task.remote(path.absolute(), tuple(names), *handles))

    def stacks(self, replica: Replica) -> str:
        """Asked beside the running call; empty if there is no answer in time."""
        ref = self._actors[replica].stacks.remote()
        ready, _ = ray.wait([ref], timeout=2.0)
        try:
            return str(ray.get(ref)) if ready else ""
        except RayError:
            return ""

    def budget_bytes(self) -> int | None:
        """A share of all object stores."""
        return int(STORE_SHARE * ray.cluster_resources().get("object_store_memory", 0)) or None

    def spilled_bytes(self) -> int:
        """The most that was seen on the disks of the machines, now and then."""
        return self._spill.look()

    def gpus_of(self, node: str, asked: float) -> float:
        """As planned."""
        return self._demands[node][1].gpus

    def is_starting(self, replica: Replica) -> bool:
        """It is being set up."""
        return replica in self._setups

    def places_left(self, node: str) -> int:
        """By what Ray has not set aside."""
        one, free = self._demands[node][1], ray.available_resources()
        places = [int(free.get(name, 0) / asked) for name, asked in (("CPU", one.cpus), ("GPU", one.gpus)) if asked]
        return min(places, default=sys.maxsize)

    def stop(self) -> None:
        """End calls at their next event and close every stage, within a deadline; then end actors and Ray."""
        if not ray.is_initialized():
            return
        ray.wait(self._background, num_returns=len(self._background), timeout=CLOSE_SECONDS) if self._background else ()
        self._spill.look(at_once=True)
        self._end(list(self._actors))
        ray.shutdown()

    def _leave_to_itself(self, ref: Any) -> None:
        """Only the end of the run waits for it."""
        self._background.append(ref)
        if len(self._background) > MANY_IN_BACKGROUND:
            _, self._background = ray.wait(self._background, num_returns=len(self._background), timeout=0)

    def _create(self, replica: Replica) -> None:
        reserved = self._demands[replica[0]][1]
        options: dict[str, Any] = {
            "num_cpus": reserved.cpus,
            "num_gpus": reserved.gpus,
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        if reserved.labels:
            options["label_selector"] = dict(reserved.labels)
        actor = _REMOTE_ACTOR.options(**options).remote(self._blueprints[replica], Path.cwd())
        self._actors[replica] = actor
        self._setups[replica] = actor.setup.remote()
        self._watches[replica] = actor.outlast.remote()

    def _is_idle(self, replica: Replica) -> bool:
        return not any(replica in calls for calls in (self._streams, self._attempts, self._setups))

    def _end(self, replicas: Sequence[Replica]) -> None:
        """Cancel what they are at, let them close, and end them."""
        for replica in replicas:
            for known in (self._setups, self._watches, self._killed):
                known.pop(replica, None)
            if replica in self._streams:
                ray.cancel(self._streams.pop(replica))
            if replica in self._attempts:
                ray.cancel(self._attempts.pop(replica)[0])
        actors = [self._actors.pop(replica) for replica in replicas if replica in self._actors]
        closing = [actor.close.remote() for actor in actors]
        if closing:
            ray.wait(closing, num_returns=len(closing), timeout=CLOSE_SECONDS)
        for actor in actors:
            ray.kill(actor)

    def _answer(self, replica: Replica) -> list[Event]:
        try:
            if replica in self._setups:
                return [self._set_up(replica)]
            if self._is_idle(replica):
                ray.get(self._watches.pop(replica))
            if replica in self._attempts:
                return self._attempted(replica)
            return self._next_events(replica)
        except StopIteration:
            answer: Event = Died("the call ended without saying how")
        except RayTaskError as error:
            answer = _input_lost(error) if isinstance(error, ObjectLostError) else _failure(error)
        except ObjectLostError as error:
            answer = _input_lost(error)
        except RayError as error:
            answer = Died(_one_line(error), _cause(error), self._places.get(replica, ""))
        self._streams.pop(replica, None)
        self._attempts.pop(replica, None)
        answer = self._killed.pop(replica, answer)
        if isinstance(answer, Died):
            self._bury(replica)
        return [answer]

    def _set_up(self, replica: Replica) -> Event:
        answer: Failed | str = ray.get(self._setups.pop(replica))
        if isinstance(answer, Failed):
            return answer
        self._places[replica] = answer
        return Ready()

    def _bury(self, replica: Replica) -> None:
        """It is not asked to close: on a machine that is gone it would not answer for many seconds."""
        self._watches.pop(replica, None)
        self._places.pop(replica, None)
        ray.kill(self._actors.pop(replica))

    def _attempted(self, replica: Replica) -> list[Event]:
        """What an attempt gave; if there is more to come, that is streamed."""
        told, payload = self._attempts[replica]
        events: list[Event] = [_placed(event, payload) for event in ray.get(told)]
        del self._attempts[replica]
        if _is_over(events):
            return events
        self._quick.discard(replica[0])
        self._streams[replica] = _streaming(self._actors[replica].go_on).remote()
        return self._with_payload(replica, events)

    def _next_events(self, replica: Replica) -> list[Event]:
        events: list[Event] = ray.get(next(self._streams[replica]))
        events = self._with_payload(replica, events)
        if _is_over(events):
            del self._streams[replica]
            if not any(isinstance(event, Advanced) for event in events):
                self._quick.add(replica[0])
        return events

    def _with_payload(self, replica: Replica, events: list[Event]) -> list[Event]:
        """The events, and the reference of the payload that the last of them announces."""
        if not _is_followed(events):
            return events
        stream, announced = self._streams[replica], events[-1]
        payload = next(stream)
        confirmed: list[Event] = ray.get(next(stream))
        return [*events[:-1], *([attached(announced, payload)] if isinstance(announced, Produced) else ()), *confirmed]


def _placed(event: Event, payload: Any) -> Event:
    beside = isinstance(event, Produced) and isinstance(event.handle, _Beside)
    return attached(event, payload) if isinstance(event, Produced) and beside else event


def _streaming(method: Any) -> Any:
    return method.options(num_returns="streaming", _generator_backpressure_num_objects=OBJECTS_AHEAD)


def _is_over(events: Sequence[Event]) -> bool:
    return bool(events) and isinstance(events[-1], Finished | Stopped | Failed)


def _is_followed(events: Sequence[Event]) -> bool:
    """By the payload of the last."""
    return bool(events) and isinstance(events[-1], Produced) and events[-1].handle is None


_REMOTE_ACTOR = ray.remote(concurrency_groups={"control": 1, "watch": 1})(_Actor)


class _SpillWatch:
    """Bytes in the folders to which Ray moves objects when memory is short."""

    def __init__(self) -> None:
        self._most = 0
        self._asked: list[Any] = []
        self._at = time.monotonic()

    def look(self, *, at_once: bool = False) -> int:
        """The most seen so far; asks the machines again now and then."""
        if self._asked:
            done, self._asked = ray.wait(self._asked, num_returns=len(self._asked), timeout=2.0 if at_once else 0)
            self._most = max([self._most, *map(_answered, done)])
        if at_once or time.monotonic() - self._at >= SPILL_SECONDS:
            self._at = time.monotonic()
            self._most = max(self._most, _spilled_here())
            self._asked = [] if at_once else [_ask_spilled(node) for node in ray.nodes()[1:] if node["Alive"]]
        return self._most


def _answered(ref: Any) -> int:
    try:
        return int(ray.get(ref))
    except RayError:
        return 0


def _ask_spilled(node: Mapping[str, Any]) -> Any:
    where = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    return ray.remote(_spilled_here).options(num_cpus=0, max_retries=0, scheduling_strategy=where).remote()


def _spilled_here() -> int:
    node = ray._private.worker._global_node
    folder = Path(node.get_session_dir_path()) if node is not None else Path("/nonexistent")
    total = 0
    for path in folder.glob("ray_spilled_objects*/*"):
        try:
            total += path.stat().st_size
        except OSError:  # taken back meanwhile
            continue
    return total


def _can_wait(event: Event, task: Task) -> bool:
    """Whether an event may go together with the next one: it comes soon, or nobody waits for this one."""
    if isinstance(event, Produced):
        return task.kind == "process" and event.handle is not None
    return isinstance(event, _UNHURRIED)


_UNHURRIED = (Started, SetAside, Reported, Hinted)


def _packed(payload: Any) -> _Inline | None:
    """The bytes of a small payload; None for a large one; raises where it cannot be sent at all."""
    buffers: list[Any] = []
    data = cloudpickle.dumps(payload, protocol=5, buffer_callback=buffers.append)
    if len(data) + sum(buffer.raw().nbytes for buffer in buffers) > INLINE_BYTES:
        return None
    return _Inline(cloudpickle.dumps(payload, protocol=5) if buffers else data)


def _save(path: Path, names: Sequence[str], *handles: Any) -> None:
    save_input(path, [cloudpickle.loads(one.data) if isinstance(one, _Inline) else one for one in handles], names)


def _unsendable(error: BaseException) -> Failed:
    text = "".join(traceback.format_exception(error))
    return Failed(type(error).__name__, f"could not be sent between workers: {error}", text)


def _failure(error: RayTaskError) -> Failed:
    """The call failed outside the stage, and its worker lives: something could not be sent or received."""
    return _unsendable(error.cause if isinstance(error.cause, BaseException) else error)


def _input_lost(error: BaseException) -> Failed:
    return Failed(type(error).__name__, _one_line(error), "", kind="input_lost")


def _cause(error: RayError) -> Cause:
    if isinstance(error, OutOfMemoryError):
        return "out_of_memory"
    text = str(error).lower()
    if isinstance(error, NodeDiedError | ActorUnavailableError) or "node has died" in text or "node died" in text:
        return "node_lost"
    return "crash"


_COLOR = re.compile(r"\x1b\[[0-9;]*m")


def _one_line(error: BaseException) -> str:
    """Ray's paragraph in one line: the error's class, then what it says of the worker's exit."""
    text = " ".join(_COLOR.sub("", str(error)).split())
    _, marker, detail = text.partition("Worker exit type:")
    detail = detail.partition(" Some common causes")[0] if marker else text
    return f"{type(error).__name__}: {detail.strip()}"


def _connect(demands: Demands, address: str | None, options: Mapping[str, Any]) -> None:
    if address is not None and address.startswith("ray://"):
        raise UsageError(f"--address {address}: Ray's client cannot stream; run on a node of the cluster with auto")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is not None:
        ray.init(address=address, **quiet)
        _hush()
        return
    # A laptop shares its cores where more are asked for; a cluster must really have them.
    cpus = sum(count * reserved.cpus for count, reserved in demands.values())
    cores = max(len(os.sched_getaffinity(0)), int(cpus + 0.999))
    ray.init(address="local", num_cpus=cores, include_dashboard=False, _system_config=_PROMPT_FREES, **quiet, **options)
    _hush()


def _hush() -> None:
    """Ray prints a paragraph for each worker that dies, whatever `log_to_driver` says; we say it in a line."""
    ray._private.worker.global_worker_stdstream_dispatcher.remove_handler("ray_print_logs")


def _machines() -> list[Machine]:
    return [
        Machine(node["Resources"].get("CPU", 0), node["Resources"].get("GPU", 0), node.get("Labels", {}))
        for node in ray.nodes()
        if node["Alive"]
    ]


__all__ = ["RayExecutor", "Reservation"]
