"""Rows of plain values as tables for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

Row = Mapping[str, Any]
Columns = Sequence[tuple[str, Callable[[Row], str]]]
"""Heading, and what stands below it."""


def table(title: str, columns: Columns, rows: Sequence[Row], *, left: int = 3) -> Table:
    """The first `left` columns are text, the others numbers."""
    from rich.table import Table  # noqa: PLC0415 - `pipeline --help` must not wait for it
    from rich.text import Text  # noqa: PLC0415

    built = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for number, (name, _) in enumerate(columns):
        built.add_column(name, justify="left" if number < left else "right", overflow="fold")
    for row in rows:
        built.add_row(*(Text(cell(row)) for _, cell in columns))
    return built


def counted(count: int, noun: str) -> str:
    """`1 source`, `1,024 units`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def figure(value: object, form: str) -> str:
    """Format a number, or give a dash where nothing is known or a stranger wrote something else."""
    return format(value, form) if isinstance(value, int | float) else "-"


def text(value: object) -> str:
    """A stranger's text, or a dash."""
    return value if isinstance(value, str) and value else "-"


def time_range(row: Row) -> str:
    """`1.000000-1.960000`, as `--start` and `--end` take them."""
    if row["start_seconds"] is None:
        return "-"
    return f"{row['start_seconds']:.6f}-{row['end_seconds']:.6f}"


def frame_range(row: Row) -> str:
    """`24-47`, both included."""
    return f"{row['first_frame']}-{row['first_frame'] + row['frames'] - 1}"
