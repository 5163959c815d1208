"""Where a run keeps what the next one can go on from: `RUN_DIR/state`.

    run.lock                            (beside it) held while a run lives
    state/ledger/000001.jsonl           what is done, one file per run, one writer each
    state/kept/NODE/WORK.0.pickle       outputs of durable nodes
    state/checkpoints/NODE/WORK.pickle  half-done work

WORK is the work key: a digest of the node, all it depends on, and the item. A changed option therefore finds
nothing, and what it does not touch is found again.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from framefold.pipeline.errors import UsageError


@dataclass(frozen=True)
class StateFolder:
    """Names in the folder; nothing is made before it is needed."""

    root: Path

    @property
    def ledgers(self) -> Path:
        """The folder of the ledgers."""
        return self.root / "ledger"

    def kept_name(self, node: str, work_key: str, number: int) -> str:
        """The name, relative to `kept`, of a node's n-th output for an item."""
        return f"{node}/{work_key}.{number}.pickle"

    def kept(self, name: str) -> Path:
        """Where a kept output is."""
        return self.root / "kept" / name

    def checkpoint(self, node: str, work_key: str) -> Path:
        """Where the half-done work on an item is."""
        return self.root / "checkpoints" / node / f"{work_key}.pickle"

    def checkpointed(self) -> set[str]:
        """Work keys of all half-done work."""
        return {path.stem for path in (self.root / "checkpoints").glob("*/*.pickle") if path.name[0] != "."}

    def size_bytes(self) -> int:
        """What all of it takes on disk."""
        return sum(_size(path) for path in self.root.rglob("*"))

    def set_apart(self) -> Path | None:
        """Begin anew: what is there is renamed, never deleted. Returns its new name, None if there was nothing."""
        if not self.root.exists():
            return None
        number = next(n for n in range(1, 10**6) if not self._old(n).exists())
        return self.root.rename(self._old(number))

    def _old(self, number: int) -> Path:
        return self.root.with_name(f"{self.root.name}.{number}")

    def lock(self) -> IO[str]:
        """Keep other runs away for as long as the returned file is open.

        UsageError if one is at work, or if nothing can be locked there.
        """
        path = self.root.parent / "run.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with ExitStack() as opened:
                file = opened.enter_context(path.open("a+", encoding="ascii"))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.truncate(0)
                file.write(str(os.getpid()))
                file.flush()
                opened.pop_all()
                return file
        except BlockingIOError as error:
            raise UsageError(
                f"{path.parent} is in use by another run (process {path.read_text().strip() or 'unknown'}); wait for "
                "it, stop it, or name another folder with --set run_dir=PATH"
            ) from error
        except OSError as error:
            raise UsageError(
                f"{path} cannot be locked: {error.strerror}; name a folder that can be, with --set run_dir=PATH"
            ) from error


def _size(path: Path) -> int:
    """Bytes of a file, which may be gone by now: workers write theirs under temporary names."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0
