"""How a run behaves, beside what each node says."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

MAX_BACK_OFF_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Policy:
    """One run's."""

    fail_fast: bool = False
    """End with the first item or input that is set aside."""
    checkpoint_seconds: float = 60.0
    drain_seconds: float = 30.0
    """How long calls may go on when the run is asked to stop."""
    back_off_seconds: float = 1.0
    """Before the first further attempt after a transient error; doubled each time, up to a minute."""
    patience_seconds: float = 600.0
    """How long nothing at all may happen before it is called a failure (nothing runs) or worth a warning."""
    save_inputs: Collection[str] = ()
    """Nodes whose every input is written down, so that they can be worked on alone."""

    def pause(self, attempts: int) -> float:
        """Seconds before the next attempt, after so many that met a transient error."""
        return min(self.back_off_seconds * 2.0 ** max(0, attempts - 1), MAX_BACK_OFF_SECONDS)
