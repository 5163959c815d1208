"""pipeline run FILE: run a pipeline to its end."""

from __future__ import annotations

import argparse

from framefold.pipeline.cli import pipeline_file, screen


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser("run", help="run a pipeline file", description="Run a pipeline file to its end.")
    pipeline_file.declare(parser)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--local", action="store_true", help="in this process, without Ray")
    where.add_argument("--address", help="a running Ray cluster, such as auto or HOST:6379")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check the file, run it, show the results; 3 when something was set aside."""
    from framefold.pipeline import runner  # noqa: PLC0415 - `pipeline --help` must not wait for them
    from framefold.pipeline.progress import print_results  # noqa: PLC0415

    checked = pipeline_file.load(args)
    pipeline_file.warn(checked)
    console = screen.console()
    outcome = runner.run(checked, console, local=args.local, address=args.address)
    print_results(console, outcome)
    console.print(f"{checked.name}: {outcome.seconds:.1f} s, report in {checked.run_dir}/report.html", soft_wrap=True)
    return outcome.exit_code
