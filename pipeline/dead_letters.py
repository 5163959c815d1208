"""Items that were set aside: a folder each, with what happened, what the stage was given, and how to try again.

RUN_DIR/dead/NODE-KEY/letter.json     item, stage and options, cause, traceback, the command
RUN_DIR/dead/NODE-KEY/input.pickle    the item's payload; of a joined item all of them, by name
RUN_DIR/dead/NODE-KEY/side-NAME.pickle  a side input, where the node has any

`pipeline run --save-inputs NODE` writes the same under RUN_DIR/inputs, for every item and without a cause.
"""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from framefold.pipeline.events import Subject
from framefold.pipeline.graph import Node
from framefold.pipeline.notices import DeadLetter
from framefold.pipeline.worker import Blueprint

LETTER = "letter.json"
INPUT = "input.pickle"


@dataclass(frozen=True)
class Morgue:
    """The folder of a run's dead letters, or of the inputs that were asked for."""

    root: Path

    def clear(self) -> None:
        """A new run begins: what the one before left is kept once more, as `dead.old` or `inputs.old`."""
        old = self.root.with_name(f"{self.root.name}.old")
        if self.root.exists():
            shutil.rmtree(old, ignore_errors=True)
            self.root.rename(old)

    def folder(self, node: str, key: str) -> Path:
        """Where the letter of an item is."""
        return self.root / f"{node}-{key[:16]}"

    def write(self, folder: Path, letter: DeadLetter, node: Node, blueprint: Blueprint, subject: Subject) -> None:
        """Write all that a replay needs, beside the input."""
        folder.mkdir(parents=True, exist_ok=True)
        context = blueprint.context
        document: dict[str, Any] = {
            **asdict(letter),
            "stage_class": blueprint.stage_class,
            "config": json.loads(blueprint.config_json),
            "joins": list(node.ports.joins),
            "sides": list(node.ports.sides),
            "durable": blueprint.durable,
            "seq": list(subject.seq),
            "attempt": subject.attempt,
            "seconds": subject.seconds,
            "seed": context.seed,
            "cpus": context.cpus,
            "gpus": context.gpus,
        }
        draft = folder / f".{LETTER}.part"
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        draft.write_text(text, encoding="utf-8", errors="backslashreplace")  # names of files may be no text
        draft.replace(folder / LETTER)


def side_file(name: str) -> str:
    """Where a side input is, beside the letter."""
    return f"side-{name}.pickle"


def command(folder: Path) -> str:
    """What to type to do the item's work again."""
    return f"pipeline replay {shlex.quote(str(folder))}"
