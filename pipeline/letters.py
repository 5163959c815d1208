"""Writes down items that were set aside, and inputs that were asked for, with what a replay needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from framefold.pipeline.dead_letters import INPUT, Morgue, command, side_file
from framefold.pipeline.events import Failed, Subject
from framefold.pipeline.executor import Executor
from framefold.pipeline.graph import Node
from framefold.pipeline.home import Home
from framefold.pipeline.notices import DeadLetter
from framefold.pipeline.tickets import Ticket
from framefold.pipeline.worker import Blueprint


@dataclass(frozen=True)
class Case:
    """An item at a node."""

    node: Node
    ticket: Ticket
    subject: Subject
    blueprint: Blueprint
    sides: Mapping[str, Ticket]


class Letters:
    """Of one run; without a folder letters are told, not written."""

    def __init__(self, home: Home | None, executor: Executor) -> None:
        self._home, self._executor = home, executor
        self._saved: set[str] = set()

    def dead(self, case: Case, cause: Failed, attempts: int) -> DeadLetter:
        """The letter of an item that is given up."""
        morgue = self._home.morgue if self._home and case.ticket.handles else None
        letter = _letter(case, morgue, cause, attempts)
        if morgue:
            self._write(morgue, case, letter)
        return letter

    def keep_input(self, case: Case) -> None:
        """Write down what the node is given, each item once."""
        if self._home is not None and case.subject.work_key not in self._saved:
            self._saved.add(case.subject.work_key)
            self._write(self._home.inputs, case, _letter(case, self._home.inputs, Failed("", "", ""), 0))

    def _write(self, morgue: Morgue, case: Case, letter: DeadLetter) -> None:
        folder = Path(letter.folder)
        morgue.write(folder, letter, case.node, case.blueprint, case.subject)
        self._executor.save(folder / INPUT, case.ticket.handles, case.ticket.names)
        for name, side in case.sides.items():
            self._executor.save(folder / side_file(name), side.handles, ())


def _letter(case: Case, morgue: Morgue | None, cause: Failed, attempts: int) -> DeadLetter:
    folder = morgue.folder(case.node.name, case.subject.work_key) if morgue else None
    return DeadLetter(
        node=case.node.name,
        stage=case.node.stage,
        key=case.ticket.key,
        label=case.ticket.label,
        attempts=attempts,
        error=cause.error,
        message=cause.message,
        traceback=cause.traceback,
        folder=str(folder or ""),
        replay=command(folder) if folder else "",
    )
