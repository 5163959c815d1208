"""pipeline verify ARCHIVE: whether every byte is as it was written, and still decodes to what was recorded."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from framefold.pipeline.cli import screen
from framefold.pipeline.cli.tables import counted
from framefold.pipeline.errors import EXIT_DONE, EXIT_FAILED, UsageError

if TYPE_CHECKING:
    from framefold.pipeline.archive import Finding
    from framefold.pipeline.archive.subset import Subset
    from framefold.pipeline.archive.verify_folder import Verified
    from framefold.pipeline.cli.verify_decoded import Decoded

LEVELS = ("fixity", "chunks", "decode")


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "verify",
        help="check an archive",
        description="Check an archive. fixity: the index, and every shard by its SHA-256; chunks: every chunk; decode: "
        "that units decode to the frames that were recorded, and with --against how they compare with the originals.",
    )
    parser.add_argument("archive", help="a .fold archive: a file, a folder, or an s3:// or https:// address")
    parser.add_argument("--level", choices=LEVELS, help="how deep; chunks by default, decode with --against")
    parser.add_argument("--against", metavar="PATH", nargs="+", help="the originals: files, folders or globs")
    parser.add_argument("--subset", metavar="K/N", help="only part K of N; all parts together are everything")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """1 when anything is wrong, naming each chunk."""
    from framefold.pipeline.archive.verify_folder import verify_archive  # noqa: PLC0415 - `--help` is quicker so

    level, subset = _level(args), _subset(args.subset)
    found = verify_archive(args.archive, level="fixity" if level == "fixity" else "chunks", subset=subset)
    decoded = _decoded(args, subset, found) if level == "decode" else None
    findings = [*found.findings, *(decoded.findings if decoded else ())]
    if args.json:
        document = _document(args, level, found, decoded, findings)
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        _show(args, level, found, decoded, findings)
    return EXIT_FAILED if findings else EXIT_DONE


def _level(args: argparse.Namespace) -> str:
    if args.against and args.level not in (None, "decode"):
        raise UsageError(f"--against compares decoded frames; leave out --level {args.level}, or give --level decode")
    return args.level or ("decode" if args.against else "chunks")


def _subset(text: str | None) -> Subset:
    from framefold.pipeline.archive.subset import ALL, Subset  # noqa: PLC0415

    if text is None:
        return ALL
    number, slash, count = text.partition("/")
    try:
        if not slash or not (number + count).isdigit():
            raise ValueError(f"{text!r}; give two numbers such as 3/20")
        return Subset(int(number), int(count))
    except ValueError as error:
        raise UsageError(f"--subset: {error}") from error


def _decoded(args: argparse.Namespace, subset: Subset, found: Verified) -> Decoded | None:
    from framefold.pipeline.cli.verify_decoded import verify_decoded  # noqa: PLC0415

    if found.findings:
        found.notes.append("no unit was decoded, for the archive is damaged")
        return None
    return verify_decoded(args.archive, args.against, subset)


def _document(
    args: argparse.Namespace, level: str, found: Verified, decoded: Decoded | None, findings: list[Finding]
) -> Mapping[str, Any]:
    return {
        "archive": args.archive,
        "level": level,
        "subset": args.subset,
        "ok": not findings,
        "files": found.files,
        "bytes": found.bytes,
        "problems": list(map(str, findings)),
        "findings": [
            {**asdict(one), "remedy": one.remedy, "affected": lost}
            for one, lost in zip(findings, _affected(args.archive, findings), strict=True)
        ],
        "decoded": decoded.counts if decoded else None,
        "compared": decoded.compared if decoded else [],
        "notes": found.notes + (decoded.notes if decoded else []),
        "next": list(_next(args.archive, findings)),
    }


def _show(
    args: argparse.Namespace, level: str, found: Verified, decoded: Decoded | None, findings: list[Finding]
) -> None:
    console = screen.console()
    if decoded and decoded.compared:
        console.print(decoded.table())
    for note in found.notes + (decoded.notes if decoded else []):
        console.print(f"note: {note}", soft_wrap=True)
    for finding, lost in zip(findings, _affected(args.archive, findings), strict=True):
        console.print(str(finding), style="red", soft_wrap=True)
        if lost:
            console.print(f"  this concerns {lost}", soft_wrap=True)
    part = f", part {args.subset}" if args.subset else ""
    if findings:
        console.print(f"{args.archive}{part}: {counted(len(findings), 'problem')}", soft_wrap=True)
    else:
        checked = f"{counted(found.files, 'file')} of {found.bytes:,} bytes"
        said = _said(level, decoded, is_folder=found.is_folder)
        console.print(f"ok: {said} {args.archive}{part} ({checked})", soft_wrap=True)
    for command in _next(args.archive, findings):
        console.print(f"  {command}", soft_wrap=True)


def _said(level: str, decoded: Decoded | None, *, is_folder: bool) -> str:
    """What is known now of an archive without a finding."""
    if level == "fixity":
        return "every shard has the SHA-256 that it is called by in" if is_folder else "header and index are whole in"
    if decoded is None:
        return "every chunk is as it was written in"
    compared = ", and compares with the originals as recorded," if decoded.compared else ""
    return f"every chunk is as it was written and decodes to what was recorded{compared} in"


def _affected(archive: str, findings: Sequence[Finding]) -> list[str]:
    """Which frames each finding is about: empty where it is about none, or nothing says so any more."""
    from framefold.pipeline.archive import ArchiveError, ArchiveReader, listing  # noqa: PLC0415

    if not findings:
        return []
    try:
        with ArchiveReader.open(archive) as reader:
            return listing.affected(reader, [finding.chunk or "" for finding in findings])
    except ArchiveError:  # what keeps it from being opened is among the findings
        return [""] * len(findings)


def _next(archive: str, findings: list[Finding]) -> Iterator[str]:
    """What to do about it: damage is mended, differences are looked at."""
    from framefold.pipeline.archive import Code  # noqa: PLC0415

    differences = {Code.FRAMES_DIFFER, Code.QUALITY_DIFFERS, Code.ORIGINAL_DIFFERS, Code.NO_SUCH}
    place = shlex.quote(archive)
    if any(finding.code == Code.BAG for finding in findings):
        yield f"pipeline seal {place}"
    if any(finding.code not in {*differences, Code.BAG} for finding in findings):
        yield f"pipeline repair {place}"
    elif any(finding.code in differences for finding in findings):
        yield f"pipeline info {place}"
