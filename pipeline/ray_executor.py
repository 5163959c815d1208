"""The only module that knows Ray: replicas are actors, payloads are object references.

Pinned to Ray 2.60; `_generator_backpressure_num_objects` is private there and a test holds it in place.
Restarts and task retries are ours (`max_restarts=0, max_task_retries=0`): Ray would re-run an hour-long fit
without a word. A call is a streaming method, so the driver sees each event as it comes, and takes only the
reference of a payload, never its bytes.
"""

from __future__ import annotations

import logging
import os
import time
import traceback
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# Ray reads these at import.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # what goes wrong we say ourselves, once

import ray
from ray.exceptions import RayError, RayTaskError, TaskCancelledError

from framefold.pipeline.errors import RunFailed, UsageError
from framefold.pipeline.events import Died, Event, Failed, Finished, Produced, Ready, Task
from framefold.pipeline.flow import Replica
from framefold.pipeline.worker import Blueprint, Worker, pin_threads

EVENTS_AHEAD = 6
"""Objects a call may have made that the driver has not taken: two outputs with their events."""
CLOSE_SECONDS = 10.0
"""For stages to end what they are at and to let go, before their actors are killed."""


@dataclass(frozen=True)
class _Delivered:
    """Follows a payload: without it, what stands in the payload's place is the error that ended the call."""


@dataclass(frozen=True)
class Reservation:
    """What Ray sets aside for one replica."""

    cpus: float = 0
    gpus: float = 0


class _Actor:
    """A worker inside an actor process."""

    def __init__(self, blueprint: Blueprint, folder: Path) -> None:
        """`folder` is the user's current one: relative paths start there, on any machine that has it too."""
        if folder.is_dir():
            os.chdir(folder)
        pin_threads(blueprint.context.cpus)
        self._worker = Worker(blueprint)
        self._blueprint = blueprint

    def setup(self) -> Failed | None:
        failed = self._worker.setup()
        pin_threads(self._blueprint.context.cpus)  # again: setting up imported torch
        return failed

    def run(self, task: Task, payload: Any) -> Iterator[Event | Any]:
        for event in self._worker.run(task, payload):
            yield event
            if not isinstance(event, Event):
                yield _Delivered()

    def close(self) -> None:
        self._worker.close()


class RayExecutor:
    """Actors on an embedded Ray, or on a cluster at `address`."""

    def __init__(self, reservations: Mapping[str, tuple[int, Reservation]], *, address: str | None = None) -> None:
        """`reservations` maps each node to its replicas and what each of them sets aside.

        RunFailed where the cluster is too small: Ray itself would wait for ever without a word.
        """
        self._reservations = reservations
        self._actors: dict[Replica, Any] = {}
        self._blueprints: dict[Replica, Blueprint] = {}
        self._streams: dict[Replica, Any] = {}
        self._setups: dict[Replica, Any] = {}
        _connect(reservations, address)

    def start(self, blueprints: Mapping[Replica, Blueprint]) -> None:
        """Ask Ray for every actor; they answer as they come up."""
        self._blueprints.update(blueprints)
        for replica in blueprints:
            self.restart(replica)

    def restart(self, replica: Replica) -> None:
        """A fresh actor."""
        reserved = self._reservations[replica[0]][1]
        options = {"num_cpus": reserved.cpus, "num_gpus": reserved.gpus, "max_restarts": 0, "max_task_retries": 0}
        actor = ray.remote(_Actor).options(**options).remote(self._blueprints[replica], Path.cwd())
        self._actors[replica] = actor
        self._setups[replica] = actor.setup.remote()

    def submit(self, replica: Replica, task: Task, handle: Any) -> None:
        """Begin a streaming call; a reference as argument arrives as the payload, zero-copy."""
        method = self._actors[replica].run.options(
            num_returns="streaming", _generator_backpressure_num_objects=EVENTS_AHEAD
        )
        self._streams[replica] = method.remote(task, handle)

    def poll(self, held: Collection[Replica], timeout: float) -> list[tuple[Replica, Event]]:
        """One event of each call that has one."""
        waiting = {stream: replica for replica, stream in self._streams.items() if replica not in held}
        waiting |= {ref: replica for replica, ref in self._setups.items()}
        if not waiting:
            time.sleep(timeout)
            return []
        ready, _ = ray.wait(list(waiting), num_returns=1, timeout=timeout, fetch_local=False)
        if ready:
            ready, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=0, fetch_local=False)
        return [(waiting[one], self._answer(waiting[one])) for one in ready]

    def stop(self) -> None:
        """End calls at their next event and close every stage, within a deadline; then end actors and Ray."""
        while self._streams:
            ray.cancel(self._streams.popitem()[1])
        closing = [actor.close.remote() for actor in self._actors.values()]
        if closing:
            ray.wait(closing, num_returns=len(closing), timeout=CLOSE_SECONDS)
        while self._actors:
            ray.kill(self._actors.popitem()[1])
        ray.shutdown()

    def _answer(self, replica: Replica) -> Event:
        try:
            if replica in self._setups:
                return ray.get(self._setups.pop(replica)) or Ready()
            return self._next_event(replica)
        except StopIteration:
            answer: Event = Died("the call ended without saying how")
        except TaskCancelledError as error:
            answer = Died(_cause(error))
        except RayTaskError as error:
            answer = _failure(error)
        except RayError as error:
            answer = Died(_cause(error))
        self._streams.pop(replica, None)
        return answer

    def _next_event(self, replica: Replica) -> Event:
        stream = self._streams[replica]
        event: Event = ray.get(next(stream))
        if isinstance(event, Produced):
            return replace(event, handle=_delivered(stream))
        if isinstance(event, Finished | Failed):
            del self._streams[replica]
        return event


def _delivered(stream: Any) -> Any:
    """The reference of the payload that comes next, never opened; the error where none could be sent."""
    payload = next(stream)
    confirmed = next(stream, None)
    ray.get(payload if confirmed is None else confirmed)
    return payload


def _failure(error: RayTaskError) -> Failed:
    """The call failed outside the stage, and its worker lives: something could not be sent or received."""
    cause = error.cause if isinstance(error.cause, BaseException) else error
    text = "".join(traceback.format_exception(error))
    return Failed(type(cause).__name__, f"could not be sent between workers: {cause}", text)


def _cause(error: RayError) -> str:
    """Ray's paragraph in one line: the error's class, then what it says of the worker's exit."""
    text = " ".join(str(error).split())
    _, marker, detail = text.partition("Worker exit type:")
    detail = detail.partition(" Some common causes")[0] if marker else text
    return f"{type(error).__name__}: {detail.strip()}"


def _connect(reservations: Mapping[str, tuple[int, Reservation]], address: str | None) -> None:
    if address is not None and address.startswith("ray://"):
        raise UsageError(f"--address {address}: Ray's client cannot stream; run on a node of the cluster with auto")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    cpus = sum(replicas * reserved.cpus for replicas, reserved in reservations.values())
    if address is None:
        # A laptop shares its cores where more are asked for; a cluster must really have them.
        cores = max(len(os.sched_getaffinity(0)), int(cpus + 0.999))
        ray.init(address="local", num_cpus=cores, include_dashboard=False, **quiet)
    else:
        ray.init(address=address, **quiet)
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if lacking := shortfall(reservations.values(), ray.cluster_resources()) or misfit(reservations, machines):
        ray.shutdown()
        raise RunFailed(lacking)


def shortfall(demands: Collection[tuple[int, Reservation]], available: Mapping[str, float]) -> str:
    """Why the cluster cannot hold all replicas at once, or an empty string."""
    asked: Sequence[tuple[str, str, float]] = [
        ("CPU", "cpus", sum(replicas * reserved.cpus for replicas, reserved in demands)),
        ("GPU", "gpus", sum(replicas * reserved.gpus for replicas, reserved in demands)),
    ]
    return "\n".join(
        f"the stages reserve {amount:g} {name} in total, the cluster has {available.get(resource, 0):g}: "
        f"lower `replicas` or `resources: {{{name}: …}}`, use a fraction, or run on a larger cluster (--address)"
        for resource, name, amount in asked
        if amount > available.get(resource, 0)
    )


def misfit(reservations: Mapping[str, tuple[int, Reservation]], machines: Collection[Mapping[str, float]]) -> str:
    """Which nodes have replicas that no single machine can hold, or an empty string."""
    return "\n".join(
        f"{name}: a replica reserves {reserved.cpus:g} cpus and {reserved.gpus:g} gpus, more than any one machine "
        "of the cluster has: lower its `resources`"
        for name, (_, reserved) in reservations.items()
        if not any(reserved.cpus <= one.get("CPU", 0) and reserved.gpus <= one.get("GPU", 0) for one in machines)
    )
