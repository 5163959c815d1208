"""`pipeline ls`: the units, tracks and attachments of an archive, or every chunk of it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from framefold.pipeline.cli import screen
from framefold.pipeline.cli.tables import Columns, counted, figure, frame_range, table, text, time_range
from framefold.pipeline.errors import EXIT_DONE


def add(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Register the subcommand."""
    parser = subparsers.add_parser("ls", help="list an archive: which frames and times are where")
    parser.add_argument("archive", metavar="ARCHIVE", help="a .fold file, a folder, or an s3:// or https:// address")
    parser.add_argument("--chunks", action="store_true", help="every chunk: type, place, bytes, SHA-256")
    parser.add_argument("--json", action="store_true", help="print one JSON object, with units in the names")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print to standard output; `ArchiveError` if the archive cannot be opened."""
    facts = _chunks(args.archive) if args.chunks else _contents(args.archive)
    if args.json:
        sys.stdout.write(json.dumps(facts, indent=2) + "\n")
        return EXIT_DONE
    console = screen.console()
    for name, (columns, left) in _TABLES.items():
        if facts.get(name):
            console.print(table(counted(len(facts[name]), name[:-1]), columns, facts[name], left=left))
    return EXIT_DONE


def _contents(archive: str) -> Mapping[str, Any]:
    from framefold.pipeline.archive import ArchiveReader, listing  # noqa: PLC0415 - `--help` must not wait for it

    with ArchiveReader.open(archive) as reader:
        return {
            "archive": archive,
            "units": sorted(listing.units(reader), key=lambda row: (row["source_number"], row["first_frame"])),
            "tracks": listing.tracks(reader),
            "attachments": listing.attachments(reader),
            "bases": listing.bases(reader),
            "problems": listing.problems(reader),
        }


def _chunks(archive: str) -> Mapping[str, Any]:
    from framefold.pipeline.archive import ArchiveReader, listing  # noqa: PLC0415

    with ArchiveReader.open(archive) as reader:
        return {"archive": archive, "chunks": list(listing.chunks(reader)), "problems": listing.problems(reader)}


_UNITS: Columns = (
    ("id", lambda row: row["id"]),
    ("source", lambda row: f"{row['source_number']} {text(row['source'])}"),
    ("codec", lambda row: text(row["codec"])),
    ("frames", frame_range),
    ("seconds", time_range),
    ("bytes", lambda row: f"{row['bytes']:,}"),
)
_TRACKS: Columns = (
    ("track of", lambda row: f"{row['source_number']} {text(row['source'])}"),
    ("kind", lambda row: text(row["kind"])),
    ("codec", lambda row: text(row["codec"])),
    ("language", lambda row: text(row["language"])),
    ("title", lambda row: text(row["title"])),
    ("packets", lambda row: f"{row['packets_held']:,} of {figure(row['packets'], ',')}"),
    ("seconds", time_range),
    ("bytes", lambda row: f"{row['bytes']:,}"),
)
_ATTACHMENTS: Columns = (
    ("attachment of", lambda row: f"{row['source_number']} {text(row['source'])}"),
    ("kind", lambda row: text(row["kind"])),
    ("name", lambda row: text(row["name"])),
    ("sha256", lambda row: text(row["sha256"])[:16]),
    ("", lambda row: "" if row["is_held"] else "not in the archive"),
    ("bytes", lambda row: figure(row["bytes"], ",")),
)
_BASES: Columns = (
    ("sha256", lambda row: text(row["sha256"])),
    ("", lambda row: "" if row["is_held"] else "not in the archive"),
    ("units", lambda row: f"{row['units']:,}"),
    ("bytes", lambda row: figure(row["bytes"], ",")),
)
_CHUNKS: Columns = (
    ("id", lambda row: "/".join((*([row["shard"][:8]] if "shard" in row else []), row["id"]))),
    ("type", lambda row: row["type"]),
    ("sha256", lambda row: row["sha256"]),
    ("offset", lambda row: f"{row['offset']:,}"),
    ("bytes", lambda row: f"{row['bytes']:,}"),
)
_PROBLEMS: Columns = (("problem", lambda row: row["problem"]),)
_TABLES: Mapping[str, tuple[Columns, int]] = {
    "units": (_UNITS, 3),
    "tracks": (_TRACKS, 5),
    "attachments": (_ATTACHMENTS, 5),
    "bases": (_BASES, 2),
    "chunks": (_CHUNKS, 3),
    "problems": (_PROBLEMS, 1),
}
"""What is shown, in this order: columns, and how many of them are text."""
