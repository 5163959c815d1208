"""pipeline parity ARCHIVE: files from which a damaged archive can be healed bit for bit."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from framefold.pipeline.cli import screen
from framefold.pipeline.cli.local_place import local_place
from framefold.pipeline.cli.tables import counted
from framefold.pipeline.errors import EXIT_DONE, UsageError

if TYPE_CHECKING:
    from framefold.pipeline.archive.protect import Protection


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "parity",
        help="protect an archive against damage",
        description="Write Reed-Solomon parity beside an archive. With M parity blocks for every K blocks, any M of "
        "K + M may be lost or damaged; `pipeline repair` then gives the archive back bit for bit.",
    )
    parser.add_argument("archive", help="a .fold archive: a file or a folder of this machine")
    parser.add_argument("--data-blocks", type=int, default=20, metavar="K", help="of the archive (default: 20)")
    parser.add_argument("--parity-blocks", type=int, default=2, metavar="M", help="for these (default: 2)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make what is missing; `ArchiveError` if the archive is damaged already."""
    from framefold.pipeline.archive.protect import protect  # noqa: PLC0415 - `pipeline --help` must not wait for it

    archive = local_place(args.archive, "parity")
    if args.data_blocks < 1 or args.parity_blocks < 1 or args.data_blocks + args.parity_blocks > 255:
        got = f"{args.data_blocks} and {args.parity_blocks}"
        raise UsageError(
            f"--data-blocks and --parity-blocks are {got}; each is at least 1, and both at most 255 together"
        )
    made = protect(archive, data_blocks=args.data_blocks, parity_blocks=args.parity_blocks)
    if args.json:
        sys.stdout.write(json.dumps({"archive": str(archive), "files": documents(made)}, indent=2) + "\n")
    else:
        show(made)
    return EXIT_DONE


def documents(made: Sequence[Protection]) -> list[dict[str, Any]]:
    """As JSON: what is protected by what, and the promise in words."""
    return [
        {
            "file": str(one.path),
            "parity": str(one.parity),
            "parity_bytes": one.parity_bytes,
            "is_new": one.is_new,
            "data_blocks": one.plan.data_blocks,
            "parity_blocks": one.plan.parity_blocks,
            "block_bytes": one.plan.block_bytes,
            "guarantee": one.plan.guarantee,
        }
        for one in made
    ]


def show(made: Sequence[Protection]) -> None:
    """Say what was made, and what it promises."""
    console = screen.console()
    new = [one for one in made if one.is_new]
    size = sum(one.parity_bytes for one in new)
    kept = f", {len(made) - len(new):,} kept" if len(new) < len(made) else ""
    console.print(f"{counted(len(new), 'parity file')} of {size:,} bytes made{kept}", soft_wrap=True)
    for guarantee in dict.fromkeys(one.plan.guarantee for one in made):
        console.print(f"guarantee: {guarantee}; `pipeline repair` heals it bit for bit", soft_wrap=True)
