"""`pipeline info`: what an archive holds and what it costs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from framefold.pipeline.archive import describe
from framefold.pipeline.cli import screen
from framefold.pipeline.errors import EXIT_DONE

Row = Mapping[str, Any]


def add(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Register the subcommand."""
    parser = subparsers.add_parser("info", help="show what an archive holds: sources, chunks, sizes, quality")
    parser.add_argument("archive", metavar="ARCHIVE", help="a .fold file")
    parser.add_argument("--json", action="store_true", help="print one JSON object, with units in the names")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print to standard output; `ArchiveError` if the archive cannot be opened."""
    facts = describe(args.archive)
    if args.json:
        sys.stdout.write(json.dumps(facts, indent=2) + "\n")
    else:
        _show(facts, screen.console())
    return EXIT_DONE


def _show(facts: Row, console: Console) -> None:
    console.print(_table("source", _SOURCE_COLUMNS, facts["sources"]))
    console.print(_table("chunk", _CHUNK_COLUMNS, facts["chunks"]))
    bits = _figure(facts["bits_per_pixel"], ".4f")
    console.print(
        Text(f"{_safe(facts['archive'])}: {facts['bytes']:,} bytes, {bits} bits per pixel, "),
        Text(f"{facts['overhead_bytes']:,} bytes of them outside the chunks' payloads"),
        sep="",
    )
    console.print(Text(f"written {_safe(facts['created'])} by {_safe(facts['generator'])}"))


_SOURCE_COLUMNS = (
    ("name", lambda row: _safe(row["name"])),
    ("kind", lambda row: _safe(row["kind"])),
    ("size", lambda row: f"{row['width']}x{row['height']}"),
    ("frames", lambda row: f"{row['frames']:,}"),
    ("seconds", lambda row: _figure(row["duration_seconds"], ".3f")),
)
_CHUNK_COLUMNS = (
    ("id", lambda row: row["id"]),
    ("source", lambda row: _safe(row["source"])),
    ("codec", lambda row: _safe(row["codec"])),
    ("frames", lambda row: f"{row['first_frame']}-{row['first_frame'] + row['frames'] - 1}"),
    ("bytes", lambda row: f"{row['bytes']:,}"),
    ("PSNR dB", lambda row: _figure(row["psnr_db"], ".2f")),
    ("MS-SSIM", lambda row: _figure(row["ms_ssim"], ".4f")),
)


def _table(title: str, columns: Sequence[tuple[str, Any]], rows: Sequence[Row]) -> Table:
    table = Table(
        title=f"{len(rows)} {title}{'' if len(rows) == 1 else 's'}", title_justify="left", box=None, pad_edge=False
    )
    for number, (name, _) in enumerate(columns):
        table.add_column(name, justify="left" if number < 3 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(row)) for _, cell in columns))
    return table


def _figure(value: object, form: str) -> str:
    """Format a number, or give a dash where nothing was measured or a stranger wrote something else."""
    return format(value, form) if isinstance(value, int | float) else "-"


def _safe(value: object) -> str:
    """Rid a stranger's text of the control characters that would steer a terminal."""
    text = value if isinstance(value, str) else "-"
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
