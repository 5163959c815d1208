"""What is printed cannot steer the terminal: names come out of strangers' archives and files."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment


class SafeConsole(Console):
    """Shows control characters by their escapes; its own colours and tables are as ever."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Rich's segments of text, made printable; what Rich itself says to the terminal is no text."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(printable(segment.text, keep="\n"), segment.style)


class _SafeFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), keep="\n")


def printable(text: str, *, keep: str = "") -> str:
    """The text, each character that cannot be seen by its escape."""
    return "".join(char if char.isprintable() or char in keep else ascii(char)[1:-1] for char in text)


def guard_logs() -> None:
    """Warnings that nobody handles are printed by `logging`: safely too, from now on."""
    if logging.lastResort:
        logging.lastResort.setFormatter(_SafeFormatter())
