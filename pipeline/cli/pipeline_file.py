"""What the commands that read a pipeline file have in common: its arguments, its loading, its warnings."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from framefold.pipeline.spec import CheckedPipeline


def declare(parser: argparse.ArgumentParser) -> None:
    """Add FILE and `--set`."""
    parser.add_argument("file", metavar="FILE", help="a pipeline file, such as pipeline.yaml")
    parser.add_argument(
        "--set",
        dest="overrides",
        metavar="NODE.OPTION=VALUE",
        action="append",
        default=[],
        help="override an option; VALUE is YAML (may be given several times)",
    )


def load(args: argparse.Namespace, *, preflight: bool = True) -> CheckedPipeline:
    """Read and check the file. SpecError with all its problems."""
    from framefold.pipeline import spec  # noqa: PLC0415 - `pipeline --help` must not wait for pydantic

    return spec.load(args.file, args.overrides, preflight=preflight)


def warn(checked: CheckedPipeline) -> None:
    """Print what looks odd to standard error, where it spoils no output."""
    for warning in checked.warnings:
        sys.stderr.write(f"{warning} (warning)\n")
