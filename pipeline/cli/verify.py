"""pipeline verify ARCHIVE: whether every byte is as it was written, and still decodes to the original."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framefold.pipeline.cli import screen
from framefold.pipeline.errors import EXIT_DONE, EXIT_FAILED

if TYPE_CHECKING:
    from framefold.pipeline.archive import Finding
    from framefold.pipeline.outcome import Outcome

PSNR_TOLERANCE_DB = 0.05
"""Pixels may differ by one level between machines; a recorded PSNR must come back this closely."""


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "verify",
        help="check an archive",
        description="Check every byte of an archive; with --against, decode it and compare with the originals.",
    )
    parser.add_argument("archive", help="a .fold archive")
    parser.add_argument("--against", metavar="PATH", nargs="+", help="the originals: files, folders or globs")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """1 when anything is wrong, naming each chunk."""
    from framefold.pipeline.archive import verify  # noqa: PLC0415 - `pipeline --help` must not wait for it

    archive = Path(args.archive)
    findings = verify(archive)
    outcome = compare(archive, args.against) if args.against and not findings else None
    problems = [*map(str, findings), *(_problems(archive, outcome) if outcome else [])]
    if args.json:
        sys.stdout.write(json.dumps(_document(archive, findings, outcome, problems), indent=2) + "\n")
    else:
        _show(archive, outcome, problems)
    return EXIT_FAILED if problems else EXIT_DONE


def compare(archive: Path, against: Sequence[str]) -> Outcome:
    """Decode the archive in this process and measure it against the originals."""
    from framefold.pipeline import runner, spec  # noqa: PLC0415

    stages = {
        "bits": {"stage": "archive_source", "path": str(archive)},
        "symbols": {"stage": "entropy_decode", "inputs": ["bits"]},
        "frames": {"stage": "reconstruct", "inputs": ["symbols"]},
        "measured": {"stage": "quality", "inputs": ["frames"], "against": list(against)},
    }
    checked = spec.from_mapping(f"pipeline verify {archive}", {"pipeline": "verify", "stages": stages})
    return runner.run(checked, screen.console(stderr=True), runner.Manner(local=True, report=False))


def _problems(archive: Path, outcome: Outcome) -> list[str]:
    from framefold.pipeline.archive import describe  # noqa: PLC0415

    document = describe(archive)
    kinds = [source["kind"] for source in document["sources"]]
    recorded = {_label(chunk, kinds): chunk["psnr_db"] for chunk in document["chunks"]}
    problems = [f"{one.label}: {one.reason}" for one in outcome.refused]
    problems += [f"{one.label}: {one.message}" for one in outcome.dead]
    return problems + [text for row in outcome.rows for text in _row_problems(row.label, row.values, recorded)]


def _label(chunk: Mapping[str, Any], kinds: Sequence[str]) -> str:
    """The name that stages give a unit: `bunny.mp4[0:24]`, or a picture's own."""
    if kinds[chunk["source_number"]] == "image":
        return str(chunk["source"])
    first, frames = chunk["first_frame"], chunk["frames"]
    return f"{chunk['source']}[{first}:{first + frames}]"


def _row_problems(label: str, values: Mapping[str, Any], recorded: Mapping[str, float | None]) -> list[str]:
    problems = []
    if not values["same_times"]:
        problems.append(f"{label}: the frames' times differ from the original's")
    expected = recorded.get(label)
    if values["same_original"] and expected is not None and abs(values["psnr_db"] - expected) > PSNR_TOLERANCE_DB:
        problems.append(f"{label}: decodes to {values['psnr_db']:.2f} dB, {expected:.2f} dB were recorded")
    if not values["same_original"]:
        problems.append(f"{label}: this is not the original file that was archived (its SHA-256 differs)")
    return problems


def _document(
    archive: Path, findings: Sequence[Finding], outcome: Outcome | None, problems: Sequence[str]
) -> dict[str, Any]:
    return {
        "archive": str(archive),
        "ok": not problems,
        "problems": list(problems),
        "findings": [{**asdict(finding), "remedy": finding.remedy} for finding in findings],
        "compared": [{"label": row.label, **row.values} for row in outcome.rows] if outcome else [],
    }


def _show(archive: Path, outcome: Outcome | None, problems: Sequence[str]) -> None:
    from framefold.pipeline.progress import print_results  # noqa: PLC0415

    console = screen.console()
    if outcome:
        print_results(console, outcome)
    for problem in problems:
        console.print(problem, style="red", soft_wrap=True)
    if not problems:
        compared = " and decodes to what was recorded" if outcome else ""
        console.print(f"ok: every chunk of {archive} is as it was written{compared}", soft_wrap=True)
