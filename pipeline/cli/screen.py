"""Where the commands print."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

LOG_COLUMNS = 160
"""Where nothing says how wide the output is: wide enough that no table is folded in a log or a pipe."""


def console(*, stderr: bool = False, live: bool = True) -> Console:
    """The standard output, or error output, with everything printed as it is, but control characters as escapes.

    Without `live` progress is lines, also on a terminal: others may be writing there too.
    """
    from framefold.pipeline.cli.safe_console import SafeConsole, guard_logs  # noqa: PLC0415 - `--help` is quicker

    guard_logs()
    plain = None if live else False
    screen = SafeConsole(stderr=stderr, markup=False, highlight=False, emoji=False, force_terminal=plain)
    if not screen.file.isatty() and "COLUMNS" not in os.environ:
        screen.width = LOG_COLUMNS
    return screen
