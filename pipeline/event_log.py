"""`events.jsonl`: what happened in a run, one JSON object per line, with the seconds since its beginning.

Calls that went well in a moment are left out, and so is what their ends say anyway: a run of a million tiny
items leaves a log that can be read.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from framefold.pipeline.notices import CallAdvanced, CallBegan, CallBlocked, CallEnded, Gauged, GivenOut, Notice
from framefold.pipeline.plain_json import finite

MOMENT_SECONDS = 0.1
EVERY_SECONDS = 10.0
"""Progress and gauges come often; of each, one in so many seconds is logged."""
FLUSH_SECONDS = 1.0


class EventLog:
    """Listens, and writes; the log of the run before is kept as `events.old.jsonl`."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            path.replace(path.with_name(f"{path.stem}.old{path.suffix}"))
        self._file = path.open("w", encoding="utf-8", errors="backslashreplace")  # names of files may be no text
        self._clock, self._began = clock, clock()
        self._logged: dict[tuple[str, str, int], float] = {}
        self._flushed = self._began

    def __call__(self, notice: Notice) -> None:
        """Write one line, if it is worth reading."""
        now = self._clock()
        if not self._is_worth_a_line(notice, now):
            return
        fields = {name: finite(value) for name, value in vars(notice).items()}
        line = {"at_seconds": round(now - self._began, 3), "event": type(notice).__name__, **fields}
        self._file.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
        if now - self._flushed >= FLUSH_SECONDS:
            self._flushed = now
            self._file.flush()

    def close(self) -> None:
        """No more will come."""
        self._file.close()

    def _is_worth_a_line(self, notice: Notice, now: float) -> bool:
        match notice:
            case CallBegan() | CallBlocked() | GivenOut():
                return False
            case CallEnded(seconds=seconds, outcome="done"):
                return seconds >= MOMENT_SECONDS
            case CallAdvanced() | Gauged():
                return self._is_due(notice, now)
        return True

    def _is_due(self, notice: CallAdvanced | Gauged, now: float) -> bool:
        who = (notice.node, notice.replica) if isinstance(notice, CallAdvanced) else ("", 0)
        key = (type(notice).__name__, *who)
        if now - self._logged.get(key, float("-inf")) < EVERY_SECONDS:
            return False
        self._logged[key] = now
        return True
