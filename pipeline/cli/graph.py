"""pipeline graph FILE: the checked graph as a drawing for the terminal, for Graphviz or for Mermaid."""

from __future__ import annotations

import argparse
import sys

from framefold.pipeline.cli import pipeline_file
from framefold.pipeline.errors import EXIT_DONE


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "graph",
        help="draw the graph of a pipeline file",
        description="Draw a pipeline: nodes, stages, what travels between them, replicas, resources.",
    )
    pipeline_file.declare(parser)
    parser.add_argument("--format", choices=("text", "dot", "mermaid"), default="text", help="text by default")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check the file, not the machine, and print the drawing."""
    from framefold.pipeline import drawing  # noqa: PLC0415 - `pipeline --help` must not wait for pydantic

    checked = pipeline_file.load(args, preflight=False)
    draw = {"text": drawing.text, "dot": drawing.dot, "mermaid": drawing.mermaid}[args.format]
    sys.stdout.write(draw(checked.graph))
    return EXIT_DONE
