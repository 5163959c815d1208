"""pipeline run FILE: run a pipeline to its end."""

from __future__ import annotations

import argparse
import importlib.util

from framefold.pipeline.cli import pipeline_file, screen
from framefold.pipeline.errors import UsageError


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "run",
        help="run a pipeline file, or go on where it stopped",
        description="Run a pipeline file to its end. The same command after an interruption goes on from there.",
    )
    pipeline_file.declare(parser)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--local", action="store_true", help="in this process, without Ray: breakpoints work")
    where.add_argument("--address", help="a running Ray cluster, such as auto or HOST:6379")
    parser.add_argument("--fresh", action="store_true", help="do everything again; what was done before is set apart")
    parser.add_argument("--profile", action="store_true", help="say what held the run up, and what to change")
    parser.add_argument(
        "--save-inputs",
        metavar="NODE",
        action="append",
        default=[],
        help="write every input of a node under RUN_DIR/inputs, for `pipeline replay` (may be given several times)",
    )
    parser.add_argument("--metrics-port", type=int, metavar="PORT", help="show figures to Prometheus at this port")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check the file, run it, show the results; 3 when something was set aside."""
    from framefold.pipeline import runner  # noqa: PLC0415 - `pipeline --help` must not wait for them
    from framefold.pipeline.profile import print_profile  # noqa: PLC0415
    from framefold.pipeline.progress import print_results  # noqa: PLC0415

    if args.local and args.metrics_port is not None:
        raise UsageError("--metrics-port needs Ray, whose exporter it uses; leave out --local")
    if args.metrics_port is not None and importlib.util.find_spec("prometheus_client") is None:
        raise UsageError("--metrics-port needs Ray's exporter; install it with pip install 'ray[default]'")
    checked = pipeline_file.load(args)
    pipeline_file.warn(checked)
    console = screen.console()
    manner = runner.Manner(
        local=args.local,
        address=args.address,
        fresh=args.fresh,
        metrics_port=args.metrics_port,
        save_inputs=args.save_inputs,
        command=_again(args),
    )
    outcome = runner.run(checked, console, manner)
    print_results(console, outcome)
    if args.profile:
        print_profile(console, outcome, checked.graph)
    reused = f", {outcome.reused} pieces of work reused" if outcome.reused else ""
    summary = f"{checked.name}: {outcome.seconds:.1f} s{reused}, report in {checked.run_dir}/report.html"
    console.print(summary, soft_wrap=True)
    return outcome.exit_code


def _again(args: argparse.Namespace) -> list[str]:
    """The command that goes on from where this one stops."""
    command = ["pipeline", "run", args.file]
    for override in args.overrides:
        command += ["--set", override]
    for node in args.save_inputs:
        command += ["--save-inputs", node]
    command += ["--local"] if args.local else []
    command += ["--address", args.address] if args.address else []
    return command
