"""pipeline gc ARCHIVE: remove what belongs to no archive and is old."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from framefold.pipeline.cli import screen
from framefold.pipeline.cli.tables import counted
from framefold.pipeline.errors import EXIT_DONE, UsageError

if TYPE_CHECKING:
    from framefold.pipeline.archive.gc import Removed

DAYS = 30.0


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "gc",
        help="remove what belongs to no archive",
        description="Remove from a folder archive the shards that no commit lists, and what writers that died left "
        "behind, if they are old. `pipeline repair` first takes in what dead writers had done.",
    )
    parser.add_argument("archive", help="a .fold folder, or an s3:// address")
    parser.add_argument("--older-than-days", type=float, default=DAYS, metavar="N", help="at least 1 (default: 30)")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Remove orphans and name them."""
    from framefold.pipeline.archive.gc import collect  # noqa: PLC0415 - `pipeline --help` must not wait for it

    if not args.older_than_days >= 1:
        raise UsageError(
            f"--older-than-days is {args.older_than_days:g}; at least 1, or living writers lose their work"
        )
    removed = collect(args.archive, args.older_than_days, args.dry_run)
    was_sealed = bool(removed) and not args.dry_run and _is_sealed(args.archive)
    if args.json:
        document = {
            "archive": args.archive,
            "dry_run": args.dry_run,
            "older_than_days": args.older_than_days,
            "removed": [{"name": one.name, "bytes": one.bytes} for one in removed],
            "seal_again": was_sealed,
        }
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        _show(removed, is_dry=args.dry_run, was_sealed=was_sealed)
    return EXIT_DONE


def _is_sealed(archive: str) -> bool:
    from framefold.pipeline.archive.bag_check import is_sealed  # noqa: PLC0415

    return "://" not in archive and is_sealed(Path(archive))


def _show(removed: list[Removed], *, is_dry: bool, was_sealed: bool) -> None:
    console = screen.console()
    for one in removed:
        console.print(f"{one.name}: {one.bytes:,} bytes", soft_wrap=True)
    total = f"{counted(len(removed), 'file')} of {sum(one.bytes for one in removed):,} bytes"
    console.print(f"{total} {'would be' if is_dry else 'were'} removed", soft_wrap=True)
    if was_sealed:
        console.print("the archive was sealed: `pipeline seal` it again", soft_wrap=True)
