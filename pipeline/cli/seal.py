"""pipeline seal ARCHIVE [OUT]: a BagIt bag that any archivist can check, with its own reader inside."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framefold.pipeline.cli import parity, screen
from framefold.pipeline.cli.local_place import local_place
from framefold.pipeline.cli.tables import counted
from framefold.pipeline.errors import EXIT_DONE, UsageError

if TYPE_CHECKING:
    from framefold.pipeline.archive.protect import Protection


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "seal",
        help="make a BagIt bag of an archive",
        description="Check an archive and make it a valid BagIt bag (RFC 8493) with the specification and a reader in "
        "plain Python inside. A folder is sealed in place; of a file a sealed folder is made beside it.",
    )
    parser.add_argument("archive", help="a .fold archive: a file or a folder of this machine")
    parser.add_argument("output", nargs="?", metavar="OUT", help="for a file: the folder to make (NAME.sealed.fold)")
    parser.add_argument("--parity", action="store_true", help="add parity files, as `pipeline parity` does")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Seal; `ArchiveError` names the first damage, or the writer that is at work."""
    folder = _begun(local_place(args.archive, "seal"), args.output)
    made = _protected(folder) if args.parity else ()
    document = _document(args.archive, folder, made)
    if args.json:
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        _show(folder, document, made)
    return EXIT_DONE


def _begun(archive: Path, output: str | None) -> Path:
    from framefold.pipeline.archive import bag  # noqa: PLC0415 - `pipeline --help` must not wait for it

    if archive.is_dir():
        if output is not None:
            raise UsageError(f"a folder is sealed in place: leave out {output}")
        return bag.seal(archive)
    default = archive.with_name(f"{archive.name.removesuffix('.fold')}.sealed.fold")
    return bag.seal_file(archive, local_place(output, "seal") if output else default)


def _protected(folder: Path) -> Sequence[Protection]:
    from framefold.pipeline.archive import bag  # noqa: PLC0415
    from framefold.pipeline.archive.protect import protect  # noqa: PLC0415

    made = protect(folder)
    bag.seal(folder)
    return made


def _document(archive: str, folder: Path, made: Sequence[Protection]) -> dict[str, Any]:
    from framefold.pipeline.archive.bag_check import payload_of  # noqa: PLC0415

    names = payload_of(folder)
    return {
        "archive": archive,
        "sealed": str(folder),
        "payload_files": len(names),
        "payload_bytes": sum((folder / name).stat().st_size for name in names),
        "parity": parity.documents(made),
        "unfinished": sorted(path.name for path in (folder / "open").glob("*.fold.open")),
    }


def _show(folder: Path, document: dict[str, Any], made: Sequence[Protection]) -> None:
    console = screen.console()
    if made:
        parity.show(made)
    held = f"{counted(document['payload_files'], 'file')}, {document['payload_bytes']:,} bytes"
    console.print(f"sealed: {folder} is a BagIt bag of {held}", soft_wrap=True)
    console.print("check it anywhere: sha256sum --check manifest-sha256.txt", soft_wrap=True)
    if document["unfinished"]:
        left = counted(len(document["unfinished"]), "unfinished file")
        console.print(f"{left} of writers that died are no part of it; `pipeline repair` takes them in", soft_wrap=True)
