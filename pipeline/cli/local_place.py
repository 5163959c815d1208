"""Commands that change an archive's files where they lie work on this machine's file systems only."""

from __future__ import annotations

from pathlib import Path

from framefold.pipeline.errors import UsageError


def local_place(text: str, command: str) -> Path:
    """The path that was given; usage error for an address."""
    if "://" in text:
        raise UsageError(
            f"`pipeline {command}` works on files of this machine and got {text}; copy the archive here, {command} it, "
            "and copy it back"
        )
    return Path(text)
