"""pipeline check FILE: everything that can be known before a run, without starting anything."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from framefold.pipeline.cli import pipeline_file
from framefold.pipeline.errors import EXIT_DONE, EXIT_USAGE, Problem, SpecError

if TYPE_CHECKING:
    from framefold.pipeline.graph import Node


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "check",
        help="check a pipeline file without running it",
        description="Report every mistake of a pipeline file with its line and remedy, and start nothing.",
    )
    pipeline_file.declare(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print `ok` and a summary, or raise SpecError with all problems."""
    if args.json:
        return _run_json(args)
    checked = pipeline_file.load(args)
    pipeline_file.warn(checked)
    sys.stdout.write(f"ok: {checked.graph.describe()}\n")
    return EXIT_DONE


def _run_json(args: argparse.Namespace) -> int:
    try:
        checked = pipeline_file.load(args)
    except SpecError as error:
        _write({"ok": False, "file": args.file, "problems": _plain(error.problems), "warnings": []})
        return EXIT_USAGE
    summary: dict[str, Any] = {
        "ok": True,
        "file": args.file,
        "problems": [],
        "warnings": _plain(checked.warnings),
    }
    nodes = [_node(node) for node in checked.graph]
    _write({**summary, "pipeline": checked.name, "nodes": nodes, "edges": checked.graph.edge_count})
    return EXIT_DONE


def _node(node: Node) -> dict[str, Any]:
    replicas = {"replicas": node.replicas, "max_replicas": node.max_replicas}
    return {"name": node.name, "stage": node.stage, **replicas}


def _plain(problems: Sequence[Problem]) -> list[dict[str, str]]:
    return [asdict(problem) for problem in problems]


def _write(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer, indent=2, ensure_ascii=False) + "\n")
