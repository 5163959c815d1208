"""Acts on what `flow` decides: submits calls, routes outputs, answers failures. Knows no executor by name.

A run is one or more generations. What would leave the picture in doubt ends a generation: a stateful stage or a
source is lost, or a payload that was on a lost machine. Calls under way then keep their state, the sources
begin anew, and what the ledger knows to be done is not done again. That is also how an interrupted run is
resumed, so there is one way back and it is used often enough to be trusted.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from framefold.pipeline.calls import Call, ending
from framefold.pipeline.drain import POLL_SECONDS, Drain
from framefold.pipeline.errors import RunFailed
from framefold.pipeline.events import (
    Advanced,
    Cause,
    Checkpointed,
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
    Subject,
    Task,
)
from framefold.pipeline.executor import Executor
from framefold.pipeline.flow import Flow, SecondSide
from framefold.pipeline.graph import Node
from framefold.pipeline.home import Home
from framefold.pipeline.item import Seq, unit_key
from framefold.pipeline.ledger import Saying
from framefold.pipeline.letters import Case, Letters
from framefold.pipeline.notices import (
    CallAdvanced,
    CallBegan,
    CallBlocked,
    CallEnded,
    CheckpointWritten,
    DeadLetter,
    Gauged,
    GivenOut,
    HintGiven,
    Listener,
    Notice,
    Refusal,
    Restarted,
    ResultRow,
    Reused,
    Warned,
)
from framefold.pipeline.outcome import Outcome
from framefold.pipeline.policy import Policy
from framefold.pipeline.pool import Pool
from framefold.pipeline.records import Records, with_sides, work_key
from framefold.pipeline.scaling import Scaler
from framefold.pipeline.shape import Entry, Feed, NodeShape, Replica, Unjoined, Work
from framefold.pipeline.stage import StageContext
from framefold.pipeline.tickets import Consumed, Ticket, child, joined
from framefold.pipeline.watchdog import Watchdog
from framefold.pipeline.worker import Blueprint

GAUGE_SECONDS = 1.0
"""Between two looks at queues, deadlines and the number of replicas."""
MAX_IDLE_RESTARTS = 3
"""Generations in a row that may end without anything newly done."""


class _BeginAgain(Exception):
    """The generation is over."""


class Scheduler:
    """One run of a checked graph on an executor."""

    def __init__(
        self,
        nodes: Sequence[Node],
        executor: Executor,
        *,
        seed: int,
        run_dir: Path,
        home: Home | None = None,
        policy: Policy | None = None,
        watch: Callable[[Outcome], None] = lambda outcome: None,
        listeners: Sequence[Listener] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`nodes` in topological order; `watch` is called after every change, and may raise to end the run."""
        self._nodes = {node.name: node for node in nodes}
        self._executor, self._clock, self._watch = executor, clock, watch
        self._home, self._policy = home, policy or Policy()
        self._seed, self._run_dir = seed, run_dir
        self.outcome = Outcome.of(list(self._nodes))
        self.outcome.clock = clock
        self._listeners: list[Listener] = [self.outcome.hear, *listeners]
        self._pool = Pool(self._nodes, executor, self._tell, self._blueprint)
        self._records, self._letters = Records(home), Letters(home, executor)
        self._watchdog = Watchdog(
            self._nodes,
            executor,
            self._tell,
            patience_seconds=self._policy.patience_seconds,
            stacks=run_dir / "stacks",
            now=clock(),
        )
        self._charged: Counter[str] = Counter()
        """Failed attempts of each work key, over all generations."""
        self._losses: defaultdict[tuple[str, str], set[Replica]] = defaultdict(set)
        """For a work key and a machine that was lost: the replicas there that were at it."""
        self._furthest: Counter[str] = Counter()
        """The most outputs that a source had given when its worker died, by its work key."""
        self._dead: dict[str, tuple[Saying, ...]] = {}
        """Work keys that were set aside in this run, and what their last attempts said."""
        self._ending: Exception | None = None
        self._idle_restarts = self._progress = 0
        self._begin_flow()

    # The run.

    def run(self) -> Outcome:
        """Run to the end. RunFailed if a stage cannot start, or a sink cannot finish."""
        started = self._clock()
        try:
            self._pool.start([(node.name, number) for node in self._nodes.values() for number in range(node.replicas)])
            while not self._generation():
                pass
        except BaseException:
            under_way = list(self._calls.values())
            self._drain()
            for call in under_way:
                self._say(call)
            raise
        finally:
            self._gauge(self._clock())
            self.outcome.seconds = self._clock() - started
            self._executor.stop()
        return self.outcome

    def _generation(self) -> bool:
        """Go on until all is done, or it has to begin again."""
        try:
            while not self._step():
                self._watch(self.outcome)
        except _BeginAgain as reason:
            self._begin_again(str(reason))
            return False
        return True

    def _step(self) -> bool:
        """Start what can start, hear what has come; True when the run is complete."""
        now = self._clock()
        for work in self._flow.assignments(now):
            self._begin(work, now)
        for replica in sorted(self._held):
            self._work_off(self._calls[replica])
        for unjoined in self._flow.unjoined():
            self._set_group_aside(unjoined)
        if self._flow.complete:
            return True
        if now - self._gauged >= GAUGE_SECONDS:
            self._look_around(now)  # while all that can work is at work
        for replica, event in self._executor.poll(self._held, POLL_SECONDS):
            self._receive(replica, event)
        if self._ending is not None:
            reason, self._ending = self._ending, None
            raise reason
        return False

    def _look_around(self, now: float) -> None:
        self._gauge(now)
        for name, feed in self._flow.barren_sides():
            raise RunFailed(f"{name}: its side input {feed.name!r} never came: {feed.node} ended without giving it")
        self._watchdog.look(list(self._calls.values()), self._pool.nodes_down(), now)
        for node in self._nodes.values():
            if node.max_replicas > node.replicas:
                self._scale(node, now)

    def _gauge(self, now: float) -> None:
        self._gauged = now
        waiting = {name: self._flow.depth(name) for name in self._nodes}
        self._tell(Gauged(waiting, self._flow.bytes_under_way, self._executor.spilled_bytes()))

    def _scale(self, node: Node, now: float) -> None:
        load = self._flow.load(node.name)
        by = self._scaler.change(node, load, self._executor.places_left(node.name) if load.is_pressed else 0, now)
        if by > 0:
            self._pool.start([self._flow.add_replica(node.name) for _ in range(by)])
        elif by < 0:
            self._flow.retire_replica(node.name)

    # Generations.

    def _begin_flow(self) -> None:
        budget = self._executor.budget_bytes()
        shapes = [_shape(node, self._pool.blueprints, budget, len(self._nodes)) for node in self._nodes.values()]
        self._flow = Flow(shapes, budget_bytes=budget)
        self._calls: dict[Replica, Call] = {}
        self._held: set[Replica] = set()
        self._consumed: defaultdict[str, Consumed] = defaultdict(Consumed)
        self._sides: dict[str, dict[str, Ticket]] = {name: {} for name in self._nodes}
        self._missing: set[Seq] = set()
        """Places in source order of what was set aside."""
        self._scaler = Scaler()
        self._gauged = self._clock()

    def _begin_again(self, why: str) -> None:
        """A new generation: whatever holds something starts anew, the others stay."""
        self._idle_restarts = 0 if self._progress else self._idle_restarts + 1
        self._progress = 0
        if self._idle_restarts >= MAX_IDLE_RESTARTS:
            raise RunFailed(f"{why} (and {self._idle_restarts} times before without anything done in between)")
        unfinished = self._drain()
        self._tell(Restarted(f"{why}; the sources begin anew, what is done is kept"))
        self._begin_flow()
        for replica in self._pool.begin_anew(unfinished):
            self._pool.came_up(replica)
            self._flow.ready(replica)

    def _drain(self) -> set[Replica]:
        """Let calls keep what they have; returns the replicas that are at work even so."""
        drain = Drain(self._nodes, self._executor, self._pool, self._records, self._tell)
        calls, self._calls = self._calls, {}
        return drain.run(calls, self._policy.drain_seconds, self._clock)

    def _blueprint(self, node: Node, number: int) -> Blueprint:
        return Blueprint(
            stage_class=f"{node.stage_class.__module__}:{node.stage_class.__qualname__}",
            config_json=node.config.model_dump_json(),
            context=StageContext(
                node=node.name,
                replica=number,
                cpus=node.resources.cpus or 1,
                gpus=self._executor.gpus_of(node.name, node.resources.gpus),
                seed=self._seed,
                run_dir=self._run_dir,
            ),
            state=self._home.state if self._home else None,
            durable=node.durable,
            checkpoint_seconds=self._policy.checkpoint_seconds,
        )

    # Calls.

    def _begin(self, work: Work, now: float) -> None:
        """Make the call, or settle it at once where the ledger or an earlier failure already has."""
        node = self._nodes[work.replica[0]]
        tickets = tuple(self._ticket(work, entry) for entry in work.entries)
        subjects = tuple(self._subject(work, *pair) for pair in zip(tickets, work.entries, strict=True))
        if work.kind == "process" and node.name in self._policy.save_inputs:
            for ticket, subject in zip(tickets, subjects, strict=True):
                self._letters.keep_input(self._case(work.replica, ticket, subject))
        settled = [one.work_key in self._dead or self._records.is_done(node, one.work_key) for one in subjects]
        if len(subjects) > 1 and any(settled):
            self._flow.failed(work.replica)  # they come back one by one
        elif subjects[0].work_key in self._dead:
            self._skip(work, subjects[0])
        elif work.kind == "process" and node.is_sink and settled[0]:
            self._reuse(work, tickets[0], subjects[0])
        else:
            self._submit(work, tickets, subjects, now)

    def _submit(self, work: Work, tickets: tuple[Ticket, ...], subjects: tuple[Subject, ...], now: float) -> None:
        keys = [subject.work_key for subject in subjects]
        task = Task(
            kind=work.kind,
            subjects=subjects,
            side=work.side,
            work_key=keys[0] if len(keys) == 1 else unit_key("batch", "\n".join(keys)),
            kept=self._records.kept(self._nodes[work.replica[0]], work.kind, keys),
        )
        self._calls[work.replica] = Call(work, tickets, task, began=now, heard=now)
        self._tell(CallBegan(*work.replica, tickets[0].label, len(tickets), subjects[0].attempt))
        self._executor.submit(work.replica, task, [handle for ticket in tickets for handle in ticket.handles])

    def _subject(self, work: Work, ticket: Ticket, entry: Entry) -> Subject:
        name = work.replica[0]
        key = work_key(self._nodes[name], ticket, self._sides[name]) if work.kind != "receive" else ""
        return Subject(
            key=ticket.key,
            label=ticket.label,
            seq=entry.seq,
            attempt=self._charged[key],
            seconds=ticket.seconds,
            work_key=key,
            names=ticket.names,
        )

    def _ticket(self, work: Work, entry: Entry) -> Ticket:
        if isinstance(entry.ticket, dict):
            return joined(entry.ticket)
        if entry.ticket is not None:
            ticket: Ticket = entry.ticket
            return ticket
        name, number = work.replica
        return Ticket(key=self._consumed[name].key(number) if work.kind == "finish" else "", label=name)

    def _skip(self, work: Work, subject: Subject) -> None:
        """It was set aside before the generation began anew."""
        self._missing.add(work.entry.seq)
        for event in self._dead[subject.work_key]:
            self._pass_on(work.replica[0], event)
        self._flow.failed(work.replica, retry=False)

    def _reuse(self, work: Work, ticket: Ticket, subject: Subject) -> None:
        """The sink has it already."""
        name = work.replica[0]
        for event in self._records.said(subject.work_key):
            self._pass_on(name, event)
        self._consumed[name].add(ticket.key)
        self._flow.done(work.replica)
        self._tell(Reused(name, ticket.label))
        self._tell(CallEnded(*work.replica, "process", ticket.label))

    # What calls say.

    def _receive(self, replica: Replica, event: Event) -> None:
        """An event has come; those behind an output that cannot be admitted wait their turn."""
        now = self._clock()
        self._watchdog.heard(now)
        call = self._calls.get(replica)
        if call is None:
            self._hear(replica, event)
            return
        call.heard = now
        call.inbox.append(event)
        self._work_off(call)

    def _work_off(self, call: Call) -> None:
        replica = call.replica
        while call.inbox and self._calls.get(replica) is call:
            event = call.inbox[0]
            if isinstance(event, Produced) and not self._flow.room(replica, event.port, event.nbytes, event.index):
                self._hold(call)
                return
            call.inbox.popleft()
            self._hear(replica, event)
        while call.inbox:  # the call is over, and its replica died while the end was held back
            self._hear(replica, call.inbox.popleft())
        if replica in self._held:
            self._held.discard(replica)
            call.release(self._clock())
            self._tell(CallBlocked(*replica, False))

    def _hold(self, call: Call) -> None:
        if call.replica not in self._held:
            self._held.add(call.replica)
            call.hold(self._clock())
            self._tell(CallBlocked(*call.replica, True))

    def _hear(self, replica: Replica, event: Event) -> None:
        match event:
            case Ready():
                self._pool.came_up(replica)
                self._flow.ready(replica)
            case Started():
                pass
            case Advanced(fraction, values):
                self._tell(CallAdvanced(*replica, fraction, values))
            case Checkpointed(nbytes, fraction):
                self._records.checkpointed(self._calls[replica])
                self._tell(CheckpointWritten(replica[0], self._calls[replica].label, nbytes, fraction))
            case Produced():
                self._route(self._calls[replica], event)
            case SetAside() | Reported() | Hinted():
                self._calls[replica].said.append(event)
            case Finished():
                self._finished(self._calls[replica], event)
            case Stopped():
                self._stopped(self._calls[replica])
            case Failed():
                self._failed(replica, event)
            case Died():
                self._died(replica, event)

    def _route(self, call: Call, event: Produced) -> None:
        replica, name, node = call.replica, call.replica[0], self._nodes[call.replica[0]]
        number = self._flow.emitted(replica, event.index)
        digest, lineage = (with_sides(one, self._sides[name]) for one in (node.digest, node.lineage))
        ticket = child(call.tickets[event.index], event, number, digest=digest, lineage=lineage)
        call.outputs.append(replace(event, handle=None))
        now = self._clock()
        try:
            _, fresh = self._flow.output(replica, event.port, ticket, event.nbytes, index=event.index, now=now)
        except SecondSide as error:
            raise RunFailed(
                f"{name} gave a second payload for the side input {error.side!r} of {error.node}, which takes one "
                "before its first item; let the stage give it once, at its end"
            ) from error
        self._note_side(name, event.port, ticket)
        if fresh:
            self._tell(GivenOut(*replica, ticket.label, event.nbytes, self._flow.bytes_under_way))

    def _note_side(self, name: str, port: str, ticket: Ticket) -> None:
        for consumer in self._nodes.values():
            for edge in consumer.sides:
                if (edge.node, edge.port) == (name, port):
                    self._sides[consumer.name][edge.name] = ticket

    def _finished(self, call: Call, event: Finished) -> None:
        node = self._nodes[call.replica[0]]
        self._forget(call)
        if call.work.kind == "process":
            for ticket in call.tickets:
                self._consumed[node.name].add(ticket.key)
        if call.task.kept is None:
            self._records.commit(node, call)
        else:
            self._reused(call)
        self._progress += 1
        self._say(call)
        self._tell(ending(call, "done", event.seconds, event.cpu_seconds))
        if not self._flow.done(call.replica):
            self._pool.let_go(call.replica)

    def _reused(self, call: Call) -> None:
        if call.work.kind == "process" or call.outputs:  # an end that gave nothing is no work
            self._tell(Reused(call.replica[0], call.label))
        for event in self._records.said(call.task.work_key):
            self._pass_on(call.replica[0], event)

    def _stopped(self, call: Call) -> None:
        """Asked to stop in the generation before and only now heard of: done again."""
        self._forget(call)
        self._tell(ending(call, "again", why="it had been asked to stop"))
        self._flow.postpone(call.replica)

    def _say(self, call: Call) -> None:
        """Pass on what a call said; only at its end, for one that is tried again says it again."""
        for event in call.said:
            self._pass_on(call.replica[0], event)
        if any(isinstance(event, SetAside) for event in call.said):
            self._missing.update(entry.seq for entry in call.work.entries)

    def _pass_on(self, node: str, event: Saying) -> None:
        match event:
            case SetAside(label, reason):
                self._tell(Refusal(node, label, reason))
                self._fail_fast(f"{node} set {label} aside: {reason}")
            case Reported(label, values):
                self._tell(ResultRow(node, label, values))
            case Hinted(command):
                self._tell(HintGiven(command))

    # Failures.

    def _failed(self, replica: Replica, event: Failed) -> None:
        call = self._calls.get(replica)
        if call is None:
            self._end(RunFailed(f"{replica[0]} could not start: {_explained(event)}"))
            return
        self._forget(call)
        if event.kind == "input_lost":
            self._flow.postpone(replica)
            self._end(_BeginAgain(f"{call.label} was lost on its way to {replica[0]}: {event.message}"))
        elif event.kind == "keepsake" and call.task.kept is not None:
            self._make_again(call, event)
        elif call.work.kind == "receive":
            self._end(RunFailed(f"{replica[0]} could not take its side input: {_explained(event)}"))
        else:
            # A source, or a last call, stands for the whole node: another attempt costs less than to lose that.
            whole = event.kind == "item" and call.work.kind != "process"
            self._settle(call, event, retry=event.kind == "transient" or whole)

    def _make_again(self, call: Call, event: Failed) -> None:
        """What was kept is damaged."""
        self._tell(Warned(f"{event.message}; {call.label} is done again by {call.replica[0]}"))
        self._records.forget(call.task.work_key)
        self._tell(ending(call, "again", why=event.message))
        self._flow.postpone(call.replica)

    def _settle(self, call: Call, cause: Failed, *, retry: bool, alive: bool = True) -> None:
        """The call is tried again, and what it said forgotten; or it is given up."""
        if len(call.tickets) == 1:
            self._charged[call.task.work_key] += 1
        attempts = self._charged[call.task.work_key]
        retry = retry and attempts <= self._nodes[call.replica[0]].retries
        pause = self._policy.pause(attempts) if cause.kind == "transient" else 0.0
        entry = self._flow.failed(call.replica, retry=retry, alive=alive, not_before=self._clock() + pause)
        if entry is None:
            self._tell(ending(call, "again", why=f"{cause.error}: {cause.message}"))
        else:
            self._give_up(call, cause)

    def _died(self, replica: Replica, event: Died) -> None:
        call, was_up = self._calls.get(replica), replica in self._pool.up
        self._pool.died(replica, event)
        if call is not None:
            self._forget(call)
            self._died_at_work(call, event)
        elif was_up:
            self._died_idle(replica, event)
        elif not self._pool.start_again(replica):
            self._end(RunFailed(f"{replica[0]}: its worker died while starting: {event.message}"))

    def _died_idle(self, replica: Replica, event: Died) -> None:
        self._flow.lost(replica)
        if self._flow.closed(replica[0]):
            return
        if self._pool.is_singular(replica[0]):
            self._end(_BeginAgain(f"{replica[0]} was lost with what it held: {event.message}"))
        else:
            self._pool.restart(replica)

    def _died_at_work(self, call: Call, event: Died) -> None:
        name, key = call.replica[0], call.task.work_key or call.replica[0]
        cause = Failed("WorkerDied", f"{_CAUSES[event.cause]}: {event.message}", "")
        if not self._pool.is_singular(name) and call.work.kind != "receive":
            if event.cause == "node_lost" and self._is_charged_with(event.machine, call):
                self._tell(ending(call, "again", why=cause.message))
                self._flow.postpone(call.replica, alive=False)
            else:
                self._settle(call, cause, retry=True, alive=False)
            self._pool.restart(call.replica)
            return
        if call.work.kind != "receive" or self._ending is None:  # of replicas that are lost together one counts
            self._charged[key] = 1 if self._got_further(call) else self._charged[key] + 1
        if self._charged[key] > self._nodes[name].retries:
            self._give_up(call, cause)
        self._end(_BeginAgain(f"{name} was lost at {call.label}: {cause.message}"))

    def _got_further(self, call: Call) -> bool:
        """Whether a source has given more than ever before: then it did not die of the same thing again."""
        made = self._flow.emitted(call.replica) if call.work.kind == "produce" else 0
        before = self._furthest[call.task.work_key]
        self._furthest[call.task.work_key] = max(made, before)
        return made > before

    def _is_charged_with(self, machine: str, call: Call) -> bool:
        """Whether the loss of a machine has been charged to the item before.

        Work that comes back may be given to a replica on the same machine, which is not known to be gone yet. The
        same replica cannot be lost there twice, unless the machine was not lost at all.
        """
        at_it = self._losses[call.task.work_key, machine]
        before = bool(machine and at_it) and call.replica not in at_it
        at_it.add(call.replica)
        return before

    def _give_up(self, call: Call, cause: Failed) -> None:
        node, key = self._nodes[call.replica[0]], call.task.work_key
        whole = call.work.kind != "process" and (cause.error == "WorkerDied" or node.is_sink)
        if whole:
            self._end(RunFailed(f"{node.name} could not {call.work.kind}: {_explained(cause)}"))
            return
        self._say(call)
        self._dead[key] = tuple(call.said)
        self._missing.add(call.work.entry.seq)
        self._tell(ending(call, "failed", why=cause.message))
        case = self._case(call.replica, call.tickets[0], call.task.subjects[0])
        self._set_aside(self._letters.dead(case, cause, self._charged[key]))

    def _case(self, replica: Replica, ticket: Ticket, subject: Subject) -> Case:
        name = replica[0]
        return Case(self._nodes[name], ticket, subject, self._pool.blueprints[replica], self._sides[name])

    def _set_group_aside(self, unjoined: Unjoined) -> None:
        """Items that found no partner: by name, unless the reason has a name already."""
        key = unit_key("unjoined", f"{unjoined.node} {unjoined.seq}")
        named = any(seq[: len(unjoined.seq)] == unjoined.seq for seq in self._missing)
        if named or key in self._dead:
            return
        self._dead[key] = ()
        node = self._nodes[unjoined.node]
        ticket: Ticket = next(iter(unjoined.entries.values()))[0].ticket
        self._set_aside(
            DeadLetter(node.name, node.stage, ticket.key, ticket.label, 1, "JoinIncomplete", _lacking(unjoined), "")
        )

    def _set_aside(self, letter: DeadLetter) -> None:
        self._tell(letter)
        self._fail_fast(f"{letter.label} was set aside by {letter.node}: {letter.error}: {letter.message}")

    def _fail_fast(self, why: str) -> None:
        if self._policy.fail_fast:
            self._end(RunFailed(f"{why} (fail_fast is set)"))

    def _end(self, reason: Exception) -> None:
        """End the run or the generation once the events at hand are heard; the first failure counts."""
        if self._ending is None or (isinstance(self._ending, _BeginAgain) and not isinstance(reason, _BeginAgain)):
            self._ending = reason

    # Small things.

    def _tell(self, notice: Notice) -> None:
        for listener in self._listeners:
            listener(notice)

    def _forget(self, call: Call) -> None:
        """The call is over."""
        self._held.discard(call.replica)
        del self._calls[call.replica]


_CAUSES: dict[Cause, str] = {
    "crash": "its worker died",
    "out_of_memory": "its worker ran out of memory",
    "node_lost": "its machine was lost",
    "timeout": "it was stopped",
    "stalled": "it was stopped",
}


def _shape(node: Node, replicas: Mapping[Replica, Blueprint], budget: int | None, nodes: int) -> NodeShape:
    shape = NodeShape(
        name=node.name,
        numbers=tuple(number for name, number in replicas if name == node.name) or tuple(range(node.replicas)),
        ordered=node.stage_class.stateful,
        inputs=tuple(Feed(edge.node, edge.port, edge.name) for edge in node.inputs),
        sides=tuple(Feed(edge.node, edge.port, edge.name) for edge in node.sides),
        join_length=node.join.length if node.join else None,
        join_fork=node.join.fork if node.join else "",
        depth=node.depth,
        retries=node.retries,
        batch_items=node.batch.items if node.batch else 1,
        batch_seconds=node.batch.wait_seconds if node.batch else 0.0,
    )
    return replace(shape, queue_bytes=max(1, budget // (2 * nodes))) if budget else shape


def _explained(cause: Failed) -> str:
    """The message alone where the stage worded it for people, else with its traceback."""
    return cause.message if cause.kind == "final" else f"{cause.message}\n{cause.traceback}".rstrip()


def _lacking(unjoined: Unjoined) -> str:
    left = ", ".join(f"{len(entries)} of {name}" for name, entries in unjoined.entries.items())
    return f"{left} left over, and nothing more comes: let the stages before give as many outputs on each way"
