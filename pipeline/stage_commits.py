"""Of a sink that commits each item: whether that is there in time, and bears to be written again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from framefold.pipeline.sameness import same
from framefold.pipeline.stage_trial import Trial


class Left:
    """Looks at it several times in the two lives of `check_stage`; at other stages it does not look."""

    FIRST, AGAIN = "first", "again"

    def __init__(self, trial: Trial, written: Callable[[], Any] | None) -> None:
        self._name = trial.name
        self._is_asked = not trial.ports.emits and trial.stage_class.commits == "item" and bool(trial.items)
        paths = [value for _, value in trial.options if isinstance(value, Path)]
        if self._is_asked and written is None and not paths:
            raise AssertionError(
                f"{trial.name} commits each item, but none of its options is a Path; pass written=, a function that "
                "gives what it has left"
            )
        self._written = written or (lambda: _files_under(paths))
        self._seen: dict[str, Any] = {"": self._look()}

    def before_finish(self) -> None:
        """All items are processed."""
        self._seen["processed"] = self._look()

    def after(self, life: str) -> None:
        """The replica is closed."""
        self._seen[life] = self._look()
        early, late = self._seen["processed"], self._seen[life]
        if life == self.FIRST and same(early, self._seen[""]) and not same(late, early):
            raise AssertionError(
                f"{self._name} says commits='item', but leaves nothing before `finish`; write each item in `process`, "
                "or say commits='end'"
            )
        if life == self.AGAIN and not same(late, self._seen[self.FIRST]):
            raise AssertionError(
                f"{self._name} is not safe to repeat: the same items again leave something else; write each whole "
                "under a name made of item.key, then rename it"
            )

    def _look(self) -> Any:
        return self._written() if self._is_asked else None


def _files_under(paths: Sequence[Path]) -> dict[str, str]:
    """SHA-256 of every file by its path."""
    files = [file for path in paths for file in ([path] if path.is_file() else sorted(path.rglob("*")))]
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()}
