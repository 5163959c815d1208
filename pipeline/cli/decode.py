"""pipeline decode ARCHIVE OUT: the decode graph in short form."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from framefold.pipeline.cli import screen

Stages = dict[str, Mapping[str, Any]]


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "decode",
        help="give the pictures of an archive back",
        description="Decode an archive: to .mp4 (H.264), .mkv (FFV1, lossless), or a folder of PNGs.",
    )
    parser.add_argument("archive", help="a .fold archive")
    parser.add_argument("output", help="video.mp4, video.mkv, or a folder")
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that already holds something")
    parser.add_argument("--address", help="decode on a running Ray cluster instead of in this process")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Build the same graph that examples/decode.yaml declares, and run it."""
    from framefold.pipeline import runner, spec  # noqa: PLC0415 - `pipeline --help` must not wait for them
    from framefold.pipeline.archive import describe  # noqa: PLC0415
    from framefold.pipeline.progress import print_results  # noqa: PLC0415

    archive = Path(args.archive)
    kinds = sorted({source["kind"] for source in describe(archive)["sources"]})
    mapping = {"pipeline": "decode", "stages": stages(archive, args.output, kinds, overwrite=args.overwrite)}
    checked = spec.from_mapping(f"pipeline decode {archive}", mapping)
    manner = runner.Manner(local=args.address is None, address=args.address, report=False)
    outcome = runner.run(checked, screen.console(stderr=True), manner)
    print_results(screen.console(), outcome)
    return outcome.exit_code


def stages(archive: Path, output: str, kinds: list[str], *, overwrite: bool) -> Stages:
    """One chain per kind of source; `output` is a folder for both where there are both."""
    chains: Stages = {}
    for kind in kinds:
        chains[f"{kind}_bits"] = {"stage": "archive_source", "path": str(archive), "kind": kind}
        chains[f"{kind}_symbols"] = {"stage": "entropy_decode", "inputs": [f"{kind}_bits"]}
        chains[f"{kind}_frames"] = {"stage": "reconstruct", "inputs": [f"{kind}_symbols"]}
        sink = {"stage": f"{kind}_sink", "path": output, "overwrite": overwrite}
        chains[f"{kind}_files"] = {**sink, "inputs": [f"{kind}_frames"]}
    return chains
