"""pipeline repair ARCHIVE: what is whole of a damaged archive, verified, and what is lost, named."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framefold.pipeline.cli import screen
from framefold.pipeline.cli.local_place import local_place
from framefold.pipeline.cli.tables import counted
from framefold.pipeline.errors import EXIT_DONE, EXIT_PARTIAL, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from framefold.pipeline.archive.losses import Loss
    from framefold.pipeline.archive.repair import Repair
    from framefold.pipeline.archive.repair_folder import FolderRepair

SHOWN = 50
"""Losses that are printed; --json has all of them."""


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "repair",
        help="save what is whole of a damaged archive",
        description="Heal an archive by its parity, or write a new one of all that is whole. A damaged file stays as "
        "it is; in a folder, damaged shards are replaced by a new commit, and what dead writers left is taken in. "
        "Exit code 0: nothing is lost; 3: something is, and is named; 1: nothing could be saved.",
    )
    parser.add_argument("archive", help="a .fold archive: a file or a folder of this machine")
    parser.add_argument("--output", metavar="NEW", help="for a file: the archive to write (NAME.repaired.fold)")
    parser.add_argument("--parity", metavar="FILE", help="for a file: its parity file (ARCHIVE.parity)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """3 when anything is lost; `ArchiveError` if nothing can be saved."""
    archive = local_place(args.archive, "repair")
    return _folder(archive, args) if archive.is_dir() else _file(archive, args)


def _file(archive: Path, args: argparse.Namespace) -> int:
    from framefold.pipeline.archive.repair import output_beside, repair_file  # noqa: PLC0415 - `--help` is quicker so

    output = local_place(args.output, "repair") if args.output else output_beside(archive)
    if output.exists():
        raise UsageError(f"{output} is there already: name another file with --output, or move it away")
    repair = repair_file(archive, output, beside=Path(args.parity) if args.parity else None)
    if args.json:
        _write(_file_document(archive, output, repair))
    else:
        _show_file(screen.console(), archive, output, repair)
    return EXIT_PARTIAL if repair.losses else EXIT_DONE


def _folder(archive: Path, args: argparse.Namespace) -> int:
    from framefold.pipeline.archive.bag_check import is_sealed  # noqa: PLC0415
    from framefold.pipeline.archive.repair_folder import repair_folder  # noqa: PLC0415

    if args.output or args.parity:
        raise UsageError("a folder is repaired in place, with its own parity: leave out --output and --parity")
    repair = repair_folder(archive)
    seal_again = not repair.is_whole and is_sealed(archive)
    if args.json:
        _write(_folder_document(archive, repair, seal_again=seal_again))
    else:
        _show_folder(screen.console(), archive, repair, seal_again=seal_again)
    return EXIT_PARTIAL if repair.losses else EXIT_DONE


def _write(document: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def _file_document(archive: Path, output: Path, repair: Repair) -> Mapping[str, Any]:
    kept = repair.kept
    return {
        "archive": str(archive),
        "state": repair.state,
        "output": None if repair.state == "whole" else str(output),
        "findings": [{**asdict(finding), "remedy": finding.remedy} for finding in repair.findings],
        "healed_bytes": repair.healed_bytes,
        "kept": kept
        and {
            "units": kept.units,
            "frames": kept.frames,
            "packet_blocks": kept.packet_blocks,
            "attachments": kept.attachments,
        },
        "losses": [loss.document() for loss in repair.losses],
    }


def _folder_document(archive: Path, repair: FolderRepair, *, seal_again: bool) -> Mapping[str, Any]:
    return {
        "archive": str(archive),
        "state": "whole" if repair.is_whole else "repaired",
        "commit": repair.commit,
        "shards": [
            {
                "name": shard.sha256,
                "state": shard.state,
                "new_sha256": shard.new.sha256 if shard.new else None,
                "healed_bytes": shard.healed_bytes,
            }
            for shard in repair.shards
        ],
        "set_aside": list(repair.set_aside),
        "losses": [loss.document() for loss in repair.losses],
        "seal_again": seal_again,
    }


def _show_file(console: Console, archive: Path, output: Path, repair: Repair) -> None:
    if repair.state == "whole":
        console.print(f"ok: {archive} is whole, and nothing was written", soft_wrap=True)
        return
    console.print(f"{counted(len(repair.findings), 'finding')} in {archive}", soft_wrap=True)
    _show_losses(console, repair.losses)
    if repair.state == "healed":
        healed = f"healed by parity, {repair.healed_bytes:,} bytes of it"
        console.print(f"ok: {output} is the archive as it was: {healed}", soft_wrap=True)
    elif repair.kept:
        kept = f"{counted(repair.kept.units, 'unit')}, {counted(repair.kept.frames, 'frame')}"
        lost = f"{counted(len(repair.losses), 'thing')} lost" if repair.losses else "nothing is lost"
        console.print(f"written and verified: {output} with {kept}; {lost}", soft_wrap=True)


def _show_folder(console: Console, archive: Path, repair: FolderRepair, *, seal_again: bool) -> None:
    if repair.is_whole:
        console.print(f"ok: {archive} is whole, and nothing was changed", soft_wrap=True)
        return
    for name in repair.set_aside:
        console.print(f"{name}: a commit that is damaged, or follows one that is, set aside", soft_wrap=True)
    for shard in repair.shards:
        if shard.state != "whole":
            new = f", now {shard.new.sha256}" if shard.new else ""
            console.print(f"{shard.sha256}: {shard.state}{new}", soft_wrap=True)
    _show_losses(console, repair.losses)
    lost = f"{counted(len(repair.losses), 'thing')} lost" if repair.losses else "nothing is lost"
    console.print(f"repaired: {archive}, commit {repair.commit}; {lost}", soft_wrap=True)
    if seal_again:
        console.print("the archive was sealed: `pipeline seal` it again", soft_wrap=True)


def _show_losses(console: Console, losses: Sequence[Loss]) -> None:
    for loss in losses[:SHOWN]:
        console.print(f"lost: {loss}", style="red", soft_wrap=True)
    if len(losses) > SHOWN:
        console.print(f"lost: {len(losses) - SHOWN:,} more; --json lists them all", style="red", soft_wrap=True)
