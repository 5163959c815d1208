"""What a run has done so far: counters, rows of the result table, refusals, dead letters."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from framefold.pipeline.errors import EXIT_DONE, EXIT_FAILED, EXIT_PARTIAL, FramefoldError


@dataclass
class Running:
    """One call under way."""

    label: str
    fraction: float = 0.0
    values: Mapping[str, float] = field(default_factory=dict)
    since: float = field(default_factory=time.monotonic)

    def advance(self, fraction: float, values: Mapping[str, float]) -> None:
        """Take note of progress."""
        self.fraction, self.values = fraction, values

    @property
    def seconds_left(self) -> float | None:
        """At the pace so far; None before anything is known."""
        if self.fraction <= 0:
            return None
        spent = time.monotonic() - self.since
        return spent / self.fraction * (1 - self.fraction)


@dataclass
class NodeState:
    """One node's counters."""

    done: int = 0
    """Items taken and finished."""
    given: int = 0
    """Outputs handed on."""
    failed: int = 0
    """Items set aside."""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    running: dict[int, Running] = field(default_factory=dict)


@dataclass(frozen=True)
class Refusal:
    """An input that a stage set aside by name."""

    node: str
    label: str
    reason: str


@dataclass(frozen=True)
class ResultRow:
    """A line of the result table."""

    node: str
    label: str
    values: Mapping[str, str | int | float | bool | None]


@dataclass(frozen=True)
class DeadLetter:
    """An item that was tried and set aside while the run went on."""

    node: str
    stage: str
    key: str
    label: str
    attempts: int
    error: str
    message: str
    traceback: str


@dataclass
class Outcome:
    """The run as it stands."""

    nodes: dict[str, NodeState]
    rows: list[ResultRow] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    seconds: float = 0.0
    error: str = ""
    """Why the run ended before its end, if it did."""
    error_code: int = EXIT_DONE

    @classmethod
    def of(cls, names: Sequence[str]) -> Outcome:
        """Nothing done yet."""
        return cls({name: NodeState() for name in names})

    @property
    def exit_code(self) -> int:
        """0, or 3 when something was set aside, or that of the error which ended the run."""
        return self.error_code or (EXIT_PARTIAL if self.refused or self.dead else EXIT_DONE)

    def ended_by(self, error: BaseException) -> None:
        """Take note that the run did not come to its end."""
        self.error = str(error) or type(error).__name__
        self.error_code = error.exit_code if isinstance(error, FramefoldError) else EXIT_FAILED

    def as_dict(self, pipeline: str) -> dict[str, Any]:
        """The content of `report.json`."""
        counters = {
            name: {
                "done": node.done,
                "given": node.given,
                "failed": node.failed,
                "seconds": round(node.seconds, 3),
                "cpu_seconds": round(node.cpu_seconds, 3),
            }
            for name, node in self.nodes.items()
        }
        return {
            "pipeline": pipeline,
            "exit_code": self.exit_code,
            "error": self.error or None,
            "seconds": round(self.seconds, 3),
            "stages": counters,
            "rows": [{"stage": row.node, "label": row.label, **row.values} for row in self.rows],
            "refused": [asdict(refusal) for refusal in self.refused],
            "set_aside": [asdict(letter) for letter in self.dead],
        }
