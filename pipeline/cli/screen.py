"""Where the commands print."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

LOG_COLUMNS = 160
"""Where nothing says how wide the output is: wide enough that no table is folded in a log or a pipe."""


def console(*, stderr: bool = False) -> Console:
    """The standard output, or error output, with everything printed as it is."""
    from rich.console import Console  # noqa: PLC0415 - `pipeline --help` must not wait for it

    screen = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not screen.file.isatty() and "COLUMNS" not in os.environ:
        screen.width = LOG_COLUMNS
    return screen
