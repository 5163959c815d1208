"""pipeline cat ARCHIVE: decoded frames to a player, through a pipe."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framefold.pipeline.cli import decoding, screen, selecting
from framefold.pipeline.errors import UsageError

if TYPE_CHECKING:
    from framefold.pipeline.archive import ArchiveReader, SourceEntry

_BY_SUFFIX = {".y4m": "y4m", ".nut": "nut", ".rgb": "rawvideo", ".raw": "rawvideo"}


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "cat",
        help="play an archive: decoded frames to standard output, as in `pipeline cat x.fold | mpv -`",
        description="Decode one source and write its frames while they come. y4m: 4:2:0 at a constant rate; rawvideo: "
        "RGB without any header; nut: RGB, each frame with its exact time. Only frames go to standard output.",
    )
    parser.add_argument("archive", help="a .fold archive: a file, a folder, or an s3:// or https:// address")
    parser.add_argument("-o", "--output", metavar="FILE", default="-", help="a file or FIFO; - is standard output")
    parser.add_argument("--format", choices=("y4m", "rawvideo", "nut"), help="by FILE's ending, else y4m")
    selecting.declare(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """3 when some units could not be shown."""
    from framefold.pipeline import runner, spec  # noqa: PLC0415 - `pipeline --help` must not wait for them
    from framefold.pipeline.progress import print_set_aside  # noqa: PLC0415

    form = args.format or _BY_SUFFIX.get(Path(args.output).suffix.lower(), "y4m")
    if args.output == "-" and sys.stdout.isatty():
        raise UsageError("frames are no text: pipe them into a player (| mpv -), or name a file with -o")
    console = screen.console(stderr=True, live=False)
    number, hints = _look(args, form)
    for hint in hints:
        console.print(hint, soft_wrap=True)
    stages = decoding.chain(args.archive, selection=selecting.selection(args), source=number, rest=False)
    stages["stream"] = {"stage": "pipe_sink", "inputs": ["frames"], "path": args.output, "format": form}
    checked = spec.from_mapping(f"pipeline cat {args.archive}", {"pipeline": "cat", "stages": stages})
    outcome = runner.run(checked, console, runner.Manner(local=True, report=False))
    print_set_aside(console, outcome)
    return outcome.exit_code


def _look(args: argparse.Namespace, form: str) -> tuple[int, list[str]]:
    """The source's number, and what a player has to be told."""
    from framefold.pipeline.archive import ArchiveReader  # noqa: PLC0415
    from framefold.pipeline.archive.describe_source import describe_source  # noqa: PLC0415

    with ArchiveReader.open(args.archive) as reader:
        source = _one_source(reader, args.source)
        units = [unit for unit in reader.units if unit.source == source.number]
        facts = describe_source(reader, source, units)
    return source.number, list(_hints(source, facts, form))


def _one_source(reader: ArchiveReader, wanted: str | None) -> SourceEntry:
    from framefold.pipeline.archive.choice import chosen_source  # noqa: PLC0415

    if wanted is not None:
        return chosen_source(reader.sources, wanted)
    videos = [source for source in reader.sources if source.kind == "video"]
    choices = videos or reader.sources
    if len(choices) != 1:
        names = ", ".join(f"{source.number} {source.name!r}" for source in choices[:5])
        more = f" and {len(choices) - 5} more" if len(choices) > 5 else ""
        raise UsageError(f"{len(choices)} sources, and one can be shown: choose it with --source; {names}{more}")
    return choices[0]


def _hints(source: SourceEntry, facts: Mapping[str, Any], form: str) -> Iterator[str]:
    from framefold.pipeline.archive.listing import rational  # noqa: PLC0415

    said = rational(source.document, "frame_rate")
    rate = str(Fraction(*said)) if said else f"{facts['frames_per_second'] or 1:g}"
    size = f"{source.width}x{source.height}"
    if form == "rawvideo":
        options = f"-f rawvideo -pixel_format rgb24 -video_size {size} -framerate {rate}"
        yield f"{size} pixels of rgb24, {3 * source.width * source.height} bytes a frame, {rate} frames per second"
        yield f"  ffplay {options} -"
    if form != "nut" and facts["is_constant_rate"] is False:
        yield f"its frames do not come at a constant rate, and {form} shows them so; --format nut keeps their times"
    if facts["rotation_degrees"] or facts["is_mirrored"]:
        mirrored = "mirrored left to right and then " if facts["is_mirrored"] else ""
        turn = facts["rotation_degrees"]
        meant = f"{mirrored}turned by {turn} degrees"
        yield f"frames come as stored; they are meant to be {meant} (mpv --video-rotate={turn})"
