"""Acts on what `flow` decides: submits calls, routes outputs, sets failures aside. Knows no executor by name."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framefold.pipeline.errors import RunFailed
from framefold.pipeline.events import (
    Advanced,
    Died,
    Event,
    Failed,
    Finished,
    Hinted,
    Produced,
    Ready,
    Reported,
    SetAside,
    Task,
)
from framefold.pipeline.executor import Executor
from framefold.pipeline.flow import Entry, Flow, NodeShape, Replica, Work
from framefold.pipeline.graph import Node
from framefold.pipeline.item import unit_key
from framefold.pipeline.outcome import DeadLetter, Outcome, Refusal, ResultRow, Running
from framefold.pipeline.stage import StageContext
from framefold.pipeline.worker import Blueprint

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class _Ticket:
    """An item without its payload: the driver never opens one."""

    key: str = ""
    label: str = ""
    seconds: float = 0.0
    handle: Any = None


class Scheduler:
    """One run of a checked graph on an executor."""

    def __init__(
        self,
        nodes: Sequence[Node],
        executor: Executor,
        *,
        seed: int,
        run_dir: Path,
        watch: Callable[[Outcome], None] = lambda outcome: None,
    ) -> None:
        """`nodes` in topological order; `watch` is called after every change, to show progress."""
        self._nodes = {node.name: node for node in nodes}
        self._executor = executor
        self._flow = Flow([_shape(node) for node in nodes])
        self._calls: dict[Replica, Work] = {}
        self._held: dict[Replica, Produced] = {}
        self._said: dict[Replica, list[SetAside | Reported | Hinted]] = {}
        self._seed, self._run_dir, self._watch = seed, run_dir, watch
        self.outcome = Outcome.of([node.name for node in nodes])

    def run(self) -> Outcome:
        """Run to the end. RunFailed if a stage cannot start, or a sink cannot finish."""
        started = time.monotonic()
        try:
            self._executor.start(self._blueprints())
            while not self._step():
                self._watch(self.outcome)
        finally:
            self.outcome.seconds = time.monotonic() - started
            for replica in list(self._said):
                self._tell(replica)
            self._executor.stop()
        return self.outcome

    def _blueprints(self) -> dict[Replica, Blueprint]:
        return {
            (node.name, number): Blueprint(
                stage_class=f"{node.stage_class.__module__}:{node.stage_class.__qualname__}",
                config_json=node.config.model_dump_json(),
                context=self._context(node, number),
            )
            for node in self._nodes.values()
            for number in range(node.replicas)
        }

    def _context(self, node: Node, number: int) -> StageContext:
        return StageContext(
            node=node.name,
            replica=number,
            cpus=node.resources.cpus or 1,
            gpus=node.resources.gpus,
            seed=self._seed,
            run_dir=self._run_dir,
        )

    def _step(self) -> bool:
        """Start what can start, hear what has come; True when the run is complete."""
        for work in self._flow.assignments():
            self._submit(work)
        self._release_held()
        if self._flow.complete:
            return True
        for replica, event in self._executor.poll(self._held.keys(), POLL_SECONDS):
            self._hear(replica, event)
        return False

    def _submit(self, work: Work) -> None:
        ticket: _Ticket = work.entry.ticket or _Ticket(label=work.replica[0])
        self._calls[work.replica] = work
        self.outcome.nodes[work.replica[0]].running[work.replica[1]] = Running(ticket.label)
        task = Task(
            kind=work.kind,
            key=ticket.key,
            label=ticket.label,
            seq=work.entry.seq,
            attempt=work.entry.attempt,
            seconds=ticket.seconds,
        )
        self._executor.submit(work.replica, task, ticket.handle)

    def _release_held(self) -> None:
        for replica, event in list(self._held.items()):
            if self._flow.room(replica, event.port):
                del self._held[replica]
                self._route(replica, event)

    def _hear(self, replica: Replica, event: Event) -> None:
        node = self.outcome.nodes[replica[0]]
        match event:
            case Ready():
                self._flow.ready(replica)
            case Advanced(fraction, values):
                node.running[replica[1]].advance(fraction, values)
            case Produced(port=port) if not self._flow.room(replica, port):
                self._held[replica] = event
            case Produced():
                self._route(replica, event)
            case SetAside() | Reported() | Hinted():
                self._said.setdefault(replica, []).append(event)
            case Finished():
                self._finished(replica, event)
            case Failed():
                self._failed(replica, event)
            case Died():
                self._died(replica, event)

    def _tell(self, replica: Replica) -> None:
        """Pass on what a call said; only now, for one that is tried again says it again."""
        for event in self._said.pop(replica, ()):
            match event:
                case SetAside(label, reason):
                    self.outcome.refused.append(Refusal(replica[0], label, reason))
                case Reported(label, values):
                    self.outcome.rows.append(ResultRow(replica[0], label, values))
                case Hinted(command):
                    self.outcome.hints.append(command)

    def _route(self, replica: Replica, event: Produced) -> None:
        work = self._calls[replica]
        ticket: _Ticket = work.entry.ticket or _Ticket(key=f"{work.kind}/{replica[1]}")
        node = self._nodes[replica[0]]
        number = self._flow.next_seq(replica)[-1]
        child = _Ticket(
            key=unit_key(node.lineage, event.identity or f"{ticket.key}/{event.port}/{number}"),
            label=event.label or ticket.label,
            seconds=ticket.seconds + event.seconds,
            handle=event.handle,
        )
        _, fresh = self._flow.output(replica, event.port, child, event.nbytes)
        self.outcome.nodes[replica[0]].given += fresh

    def _finished(self, replica: Replica, event: Finished) -> None:
        node = self.outcome.nodes[replica[0]]
        node.seconds += event.seconds
        node.cpu_seconds += event.cpu_seconds
        node.done += self._calls[replica].kind == "process"
        self._end_call(replica)
        self._tell(replica)
        self._flow.done(replica)

    def _failed(self, replica: Replica, event: Failed) -> None:
        work = self._end_call(replica)
        if work is None:
            raise RunFailed(f"{replica[0]} could not start: {_explained(event)}")
        self._settle(replica, work, self._flow.failed(replica, retry=event.retry), event)

    def _died(self, replica: Replica, event: Died) -> None:
        work = self._end_call(replica)
        if work is None:
            raise RunFailed(f"{replica[0]}: its worker died while starting: {event.cause}")
        if self._nodes[replica[0]].stage_class.stateful:
            lost = f"its worker died at {_name(work)} and what it held is lost; run again"
            raise RunFailed(f"{replica[0]}: {lost}: {event.cause}")
        entry = self._flow.failed(replica, alive=False)
        self._executor.restart(replica)
        self._settle(replica, work, entry, Failed("WorkerDied", event.cause, event.cause))

    def _settle(self, replica: Replica, work: Work, entry: Entry | None, cause: Failed) -> None:
        """The call is tried again, and what it said forgotten; or it is given up with its `entry`."""
        if entry is None:
            self._said.pop(replica, None)
        else:
            self._tell(replica)
            self._give_up(replica, work, entry, cause)

    def _give_up(self, replica: Replica, work: Work, entry: Entry, cause: Failed) -> None:
        if work.kind == "finish" and self._nodes[replica[0]].is_sink:
            raise RunFailed(f"{replica[0]} could not finish: {_explained(cause)}")
        ticket: _Ticket = entry.ticket or _Ticket(label=replica[0])
        self.outcome.nodes[replica[0]].failed += 1
        self.outcome.dead.append(
            DeadLetter(
                node=replica[0],
                stage=self._nodes[replica[0]].stage,
                key=ticket.key,
                label=ticket.label,
                attempts=entry.attempt + 1,
                error=cause.error,
                message=cause.message,
                traceback=cause.traceback,
            )
        )

    def _end_call(self, replica: Replica) -> Work | None:
        self._held.pop(replica, None)
        self.outcome.nodes[replica[0]].running.pop(replica[1], None)
        return self._calls.pop(replica, None)


def _shape(node: Node) -> NodeShape:
    return NodeShape(
        name=node.name,
        replicas=node.replicas,
        ordered=node.stage_class.stateful,
        inputs=tuple((edge.node, edge.port) for edge in node.inputs),
        retries=node.retries,
    )


def _explained(cause: Failed) -> str:
    """The message alone where the stage worded it for people, else with its traceback."""
    return f"{cause.message}\n{cause.traceback}".rstrip() if cause.retry else cause.message


def _name(work: Work) -> str:
    return work.entry.ticket.label if work.entry.ticket else work.kind
