"""A run's folder: locked while the run lives, with what the runs before it did."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from framefold.pipeline.dead_letters import Morgue
from framefold.pipeline.errors import UsageError
from framefold.pipeline.ledger import Ledger
from framefold.pipeline.state_folder import StateFolder


@dataclass(frozen=True, kw_only=True)
class Home:
    """What lies in it."""

    state: StateFolder
    ledger: Ledger
    morgue: Morgue
    inputs: Morgue
    """For `Policy.save_inputs`."""


@contextmanager
def home_of(run_dir: Path, *, fresh: bool = False, say: Callable[[str], None] = lambda text: None) -> Iterator[Home]:
    """A run's folder, locked; UsageError where it cannot be made or another run is at work in it."""
    make_folder(run_dir)  # before the work, which may take hours
    state = StateFolder((run_dir / "state").absolute())
    with state.lock():
        kept = state.set_apart() if fresh else None
        if kept is not None:
            say(f"beginning anew; what earlier runs did is kept in {kept}, delete it if you do not need it")
        dead, inputs = (Morgue((run_dir / name).absolute()) for name in ("dead", "inputs"))
        home = Home(state=state, ledger=Ledger(state.ledgers), morgue=dead, inputs=inputs)
        home.morgue.clear()
        if len(home.ledger):
            say(f"{len(home.ledger)} pieces of work are done already (--fresh to do them again)")
        try:
            yield home
        finally:
            home.ledger.close()


def make_folder(run_dir: Path) -> None:
    """Make the folder; UsageError where that cannot be."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"run_dir: {error}; name a folder that can be written, as in --set run_dir=PATH") from error
