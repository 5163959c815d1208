"""What the user sees while a pipeline runs, and the tables at its end.

On a terminal a live table, in a log one plain line per change worth reading. Both only read the `Outcome`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from framefold.pipeline.notices import ResultRow
from framefold.pipeline.outcome import NodeState, Outcome, Running
from framefold.pipeline.words import attempts_of, cell, heading, told

LOG_SECONDS = 10.0
REFRESH_SECONDS = 0.25


class Display:
    """Shows a run; use as a context manager, and call it with every change."""

    def __init__(self, console: Console, title: str) -> None:
        self._console, self._title = console, title
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._shown = self._started = time.monotonic()

    def __enter__(self) -> Display:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, outcome: Outcome) -> None:
        """Show the run as it stands, now and then."""
        now = time.monotonic()
        if now - self._shown < (REFRESH_SECONDS if self._live else LOG_SECONDS):
            return
        self._shown = now
        if self._live:
            self._live.update(self._table(outcome, now - self._started), refresh=True)
        else:
            self._console.print(self._line(outcome, now - self._started), highlight=False, soft_wrap=True)

    def _table(self, outcome: Outcome, seconds: float) -> Table:
        table = Table(title=f"{self._title}  {seconds:.0f} s", title_justify="left", box=None, pad_edge=False)
        table.add_column("stage")
        for name in ("waiting", "in", "reused", "out", "aside"):
            table.add_column(name, justify="right")
        table.add_column("now")
        for name, node in outcome.nodes.items():
            running = Text("\n").join(Text(_describe(one)) for one in node.running.values())
            counts = (node.waiting, node.done, node.reused, node.given, node.failed)
            table.add_row(name, *(f"{count:,}" if count else "" for count in counts), running)
        return table

    def _line(self, outcome: Outcome, seconds: float) -> str:
        done = ", ".join(filter(None, (_counted(name, node) for name, node in outcome.nodes.items())))
        running = "; ".join(f"{name}: {_describe(one)}" for name, one in _under_way(outcome.nodes))
        return f"[{seconds:4.0f} s] done: {done or 'nothing yet'}" + (f" | now: {running}" if running else "")


def _counted(name: str, node: NodeState) -> str:
    """`fitted 12 (8 reused)`; empty if there is nothing."""
    count = node.given or node.done
    reused = f" ({node.reused} reused)" if node.reused else ""
    return f"{name} {count}{reused}" if count else ""


def _under_way(nodes: Mapping[str, NodeState]) -> Iterable[tuple[str, Running]]:
    return [(name, one) for name, node in nodes.items() for one in node.running.values() if one.label != name]


def _describe(running: Running) -> str:
    """`bunny.mp4[0:24] 42% 28.1 dB 490 kbit 40 s left`."""
    parts = [running.label]
    if running.fraction:
        parts.append(f"{running.fraction:.0%}")
    if "psnr_db" in running.values:
        parts.append(f"{running.values['psnr_db']:.1f} dB")
    if "bits" in running.values:
        parts.append(f"{running.values['bits'] / 1000:.0f} kbit")
    if running.seconds_left is not None:
        parts.append(f"{running.seconds_left:.0f} s left")
    return " ".join(parts)


def print_results(console: Console, outcome: Outcome) -> None:
    """The result tables, what was set aside, and the commands worth typing next."""
    for node in dict.fromkeys(row.node for row in outcome.rows):
        console.print(_result_table(node, [row for row in outcome.rows if row.node == node]))
    print_set_aside(console, outcome)
    if outcome.hints:
        console.print("next:")
    for hint in outcome.hints:
        console.print(f"  {hint}", highlight=False, soft_wrap=True)


def print_set_aside(console: Console, outcome: Outcome) -> None:
    """Every input and item that the run went on without, and why."""
    for refusal in outcome.refused:
        console.print(f"set aside by {refusal.node}: {refusal.label}: {refusal.reason}", soft_wrap=True)
    for letter in outcome.dead:
        console.print(f"set aside at {letter.node} after {attempts_of(letter)}: {told(letter)}", soft_wrap=True)
        if letter.replay:
            console.print(f"  {letter.replay}", highlight=False, soft_wrap=True)
    unnamed = outcome.set_aside - len(outcome.refused) - len(outcome.dead)
    if unnamed > 0:
        console.print(f"and {unnamed:,} more, see events.jsonl")
    for warning in outcome.warnings:
        console.print(f"note: {warning}", soft_wrap=True)


def _result_table(node: str, rows: Sequence[ResultRow]) -> Table:
    columns = list(dict.fromkeys(column for row in rows for column in row.values))
    table = Table(title=node, title_justify="left")
    table.add_column("clip", overflow="fold")
    for column in columns:
        table.add_column(heading(column), justify="right")
    for row in rows:
        table.add_row(row.label, *(cell(column, row.values.get(column)) for column in columns))
    return table
