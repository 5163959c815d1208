"""Looks at the clock: calls that take too long or fall silent, and runs in which nothing happens."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from framefold.pipeline.calls import Call
from framefold.pipeline.errors import RunFailed
from framefold.pipeline.events import Cause
from framefold.pipeline.executor import Executor
from framefold.pipeline.graph import Node
from framefold.pipeline.notices import Listener, Warned


class Watchdog:
    """Of one run; times are the caller's."""

    def __init__(
        self,
        nodes: Mapping[str, Node],
        executor: Executor,
        tell: Listener,
        *,
        patience_seconds: float,
        stacks: Path,
        now: float,
    ) -> None:
        """`stacks` is the folder in which a silent worker's stack is written down."""
        self._nodes, self._executor, self._tell = nodes, executor, tell
        self._patience, self._stacks = patience_seconds, stacks
        self._heard = self._warned = now

    def heard(self, now: float) -> None:
        """Something has happened."""
        self._heard = now

    def look(self, calls: Collection[Call], down: Collection[str], now: float) -> None:
        """End what is overdue. RunFailed if nothing runs and nothing can: `down` are nodes without a worker."""
        for call in calls:
            self._check(call, now)
        if now - max(self._heard, self._warned) > self._patience:
            self._warned = now
            self._nothing_happens([call for call in calls if call.blocked_since is None], down, now)

    def _check(self, call: Call, now: float) -> None:
        node = self._nodes[call.replica[0]]
        limit = node.timeout * len(call.tickets) if node.timeout is not None else float("inf")
        if call.work.kind == "process" and call.seconds(now) > limit:
            self._end(call, "timeout", f"it took longer than timeout: {node.timeout:g} seconds", now)
        elif node.stall_timeout is not None and call.silent_seconds(now) > node.stall_timeout:
            self._dump(call, now)
            self._end(call, "stalled", f"not a word for stall_timeout: {node.stall_timeout:g} seconds", now)

    def _end(self, call: Call, cause: Cause, message: str, now: float) -> None:
        call.heard = call.began = self._heard = now  # killed once is enough
        self._executor.kill(call.replica, cause, message)

    def _nothing_happens(self, working: Collection[Call], down: Collection[str], now: float) -> None:
        if not working:
            raise RunFailed(
                f"nothing could be done for {now - self._heard:.0f} s: no worker came up for "
                f"{', '.join(down) or 'any node'}; a machine may be gone, or the cluster lacks what `resources` ask for"
            )
        for call in working:
            self._dump(call, now)

    def _dump(self, call: Call, now: float) -> None:
        """Tell of a silent call, and write down what its replica is at."""
        text = self._executor.stacks(call.replica)
        where = ""
        if text:
            path = self._stacks / f"{call.replica[0]}-{call.replica[1]}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{call.label}\n\n{text}", encoding="utf-8", errors="backslashreplace")
            where = f"; its stack is in {path}"
        seconds = now - call.heard
        self._tell(Warned(f"{call.replica[0]} has said nothing for {seconds:.0f} s at {call.label}{where}"))
