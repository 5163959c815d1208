"""The command `pipeline`: finds the subcommand, and turns every way to end into an exit code.

Only the subcommand that is named gets imported, so that `pipeline check` waits for neither torch nor Ray.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from framefold.pipeline.errors import EXIT_FAILED, FramefoldError, SpecError

COMMANDS = (
    *("run", "check", "graph", "plugins", "replay"),
    *("info", "ls", "decode", "cat", "verify"),
    *("repair", "parity", "seal", "gc"),
)
"""Each is a module beside this one, with `add(subparsers)`."""

EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (0 done, 1 failed, 2 usage, 3 done with losses)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
    except FramefoldError as error:
        sys.stderr.write(_printable(_explained(error)))
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _forget_output()
        return EXIT_BROKEN_PIPE
    except OSError as error:  # the machine's doing: a full disk, no permission, no cluster
        sys.stderr.write(f"pipeline: {error}\n")
        return EXIT_FAILED
    return code


def _dispatch(arguments: list[str]) -> int:
    try:
        options = _parser(arguments).parse_args(arguments)
    except SystemExit as ending:  # argparse has said what it had to say: help, or what is wrong
        return int(ending.code or 0)
    return int(options.run(options))


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pipeline",
        description="Store pictures and video as small fitted neural networks.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    named = arguments[0] if arguments else ""
    for name in (named,) if named in COMMANDS else COMMANDS:
        importlib.import_module(f"{__name__}.{name}").add(commands)
    return parser


class _Version(argparse.Action):
    """Prints the version; found only now, since it reads the installed metadata."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the version and leave")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from framefold import __version__  # noqa: PLC0415 - only this option needs it

        sys.stdout.write(f"framefold {__version__}\n")
        parser.exit()


def _explained(error: FramefoldError) -> str:
    """Word the error; problems of a file begin with file and line, as editors like it."""
    if not isinstance(error, SpecError):
        return f"pipeline: {error}\n"
    count = len(error.problems)
    return f"{error}\n{count} problem{'' if count == 1 else 's'}; nothing was started\n"


def _printable(text: str) -> str:
    """What is printed cannot steer the terminal: names come out of strangers' archives."""
    from framefold.pipeline.cli.safe_console import printable  # noqa: PLC0415 - `pipeline --help` must not wait for it

    return printable(text, keep="\n")


def _forget_output() -> None:
    """Nobody reads on (`pipeline plugins | head`); keep Python from complaining at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
