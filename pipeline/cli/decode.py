"""pipeline decode ARCHIVE OUT: the decode graph in short form."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import Any

from framefold.pipeline.cli import decoding, screen, selecting
from framefold.pipeline.cli.decoding import Stages
from framefold.pipeline.errors import UsageError


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "decode",
        help="give the pictures of an archive back",
        description="Decode an archive: to .mp4 (H.264), .mkv (FFV1, lossless), or a folder of PNGs; with the sound, "
        "subtitles and metadata that were copied, as far as the output can hold them.",
    )
    parser.add_argument("archive", help="a .fold archive: a file, a folder, or an s3:// or https:// address")
    parser.add_argument("output", help="video.mp4, video.mkv, or a folder")
    selecting.declare(parser)
    parser.add_argument("--originals", action="store_true", help="write the original files that were kept, undecoded")
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that already holds something")
    parser.add_argument("--address", help="decode on a running Ray cluster instead of in this process")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Build the same graph that examples/decode.yaml declares, and run it."""
    from framefold.pipeline import runner, spec  # noqa: PLC0415 - `pipeline --help` must not wait for them
    from framefold.pipeline.progress import print_results  # noqa: PLC0415

    mapping = {"pipeline": "decode", "stages": _graph(args)}
    checked = spec.from_mapping(f"pipeline decode {args.archive}", mapping)
    manner = runner.Manner(local=args.address is None, address=args.address, report=False)
    outcome = runner.run(checked, screen.console(stderr=True), manner)
    print_results(screen.console(), outcome)
    return outcome.exit_code


def _graph(args: argparse.Namespace) -> Stages:
    wanted, source = selecting.selection(args), selecting.source(args)
    if args.originals and wanted:
        raise UsageError("--originals gives whole files; leave out --start, --end and --frames")
    if args.originals:
        return originals(args.archive, args.output, overwrite=args.overwrite, **source)
    kinds = _kinds(args.archive, args.source, videos_only=bool(wanted))
    return stages(args.archive, args.output, kinds, overwrite=args.overwrite, selection=wanted, **source)


def stages(
    archive: str | os.PathLike[str],
    output: str,
    kinds: Sequence[str],
    *,
    overwrite: bool,
    selection: Mapping[str, Any] | None = None,
    **source: Any,
) -> Stages:
    """One chain per kind of source; `output` is a folder for both where there are both."""
    chains: Stages = {}
    for kind in kinds:
        takes_rest = decoding.accepts_rest(f"{kind}_sink")
        options = {"kind": kind, "rest": takes_rest, "originals": False, **source}
        chains |= decoding.chain(os.fspath(archive), f"{kind}_", selection=selection, **options)
        inputs = [f"{kind}_frames", *([f"{kind}_bits.rest"] if takes_rest else [])]
        sink = {"stage": f"{kind}_sink", "path": output, "overwrite": overwrite}
        chains[f"{kind}_files"] = {**sink, "inputs": inputs}
    return chains


def originals(archive: str, output: str, *, overwrite: bool, **source: Any) -> Stages:
    """Nothing is decoded: the bitstreams only say which sources there are."""
    sink = {"stage": "originals_sink", "inputs": ["bits", "bits.rest"], "path": output, "overwrite": overwrite}
    return {"bits": {"stage": "archive_source", "path": archive, **source}, "files": sink}


def _kinds(archive: str, source: str | None, *, videos_only: bool) -> list[str]:
    """The kinds of the sources that are wanted; a range of time or frames is of videos."""
    from framefold.pipeline.archive import ArchiveReader  # noqa: PLC0415 - `pipeline --help` must not wait for it
    from framefold.pipeline.archive.choice import chosen_source  # noqa: PLC0415

    with ArchiveReader.open(archive) as reader:
        chosen = reader.sources if source is None else (chosen_source(reader.sources, source),)
    kinds = sorted({entry.kind for entry in chosen if entry.kind in ("video", "image")})
    if videos_only and "video" not in kinds:
        raise UsageError("--start, --end and --frames choose parts of a video, and pictures have none; leave them out")
    if not kinds:
        raise UsageError(f"{archive} holds no video and no picture")
    return ["video"] if videos_only else kinds
