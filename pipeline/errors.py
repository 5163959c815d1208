"""One tree of exceptions. Each message says what, got, allowed and the remedy."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_PARTIAL = 3
"""Done, but items were set aside or something was lost."""


class FramefoldError(Exception):
    """Anything that is explained to the user in one message, without a traceback."""

    exit_code = EXIT_FAILED


class UsageError(FramefoldError):
    """The command or the pipeline file cannot be run as written."""

    exit_code = EXIT_USAGE


@dataclass(frozen=True)
class Problem:
    """One mistake in a pipeline file."""

    where: str
    """`pipeline.yaml:12:5`, or empty when it belongs to no line."""
    path: str
    """`stages.fitted.codec.size`, or empty for the whole file."""
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.path, self.message) if part)


class SpecError(UsageError):
    """All mistakes of a pipeline file at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))

    def __reduce__(self) -> tuple[type[SpecError], tuple[tuple[Problem, ...]]]:
        return (SpecError, (self.problems,))


class RefusedInput(FramefoldError):
    """A file that cannot be ingested: set aside by name, the others go on."""


class RunFailed(FramefoldError):
    """The run ended without the result that was asked for."""


class Transient(FramefoldError):
    """Something outside the item went wrong for now: it is tried again, each time after a longer while."""


class Interrupted(FramefoldError):
    """The user, or the machine, asked the run to stop."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(f"stopped by {signal.Signals(number).name}; nothing was half-written under its final name")

    def add_remedy(self, remedy: str) -> None:
        """Say how to go on."""
        self.args = (f"{self}\n{remedy}",)

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # a class attribute everywhere else
        """128 and the signal's number, as shells have it."""
        return 128 + self.number
