"""pipeline replay FOLDER: do the work on an item again, alone and in this process."""

from __future__ import annotations

import argparse
import faulthandler
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framefold.pipeline.cli import screen
from framefold.pipeline.errors import EXIT_DONE, EXIT_FAILED, FramefoldError

if TYPE_CHECKING:
    from rich.console import Console

    from framefold.pipeline.events import Event
    from framefold.pipeline.replay import Case, Result

STEP = 0.1
"""Progress is shown whenever so much more of the work is done."""


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "replay",
        help="do the work on a dead letter's item again",
        description="Do the work on an item again, in this process, so that a debugger can be put in. The folder is "
        "a dead letter's, RUN_DIR/dead/NODE-KEY, or one that `pipeline run --save-inputs NODE` left in RUN_DIR/inputs.",
    )
    parser.add_argument("folders", metavar="FOLDER", type=Path, nargs="+", help="one that holds a letter.json")
    parser.add_argument(
        "--set",
        dest="overrides",
        metavar="OPTION=VALUE",
        action="append",
        default=[],
        help="override an option of the stage; VALUE is YAML (may be given several times)",
    )
    parser.add_argument("--gpus", type=_gpus, metavar="N", help="what the stage is granted; by default as then")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="write the outputs there, as a pickled list")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="print one JSON object")
    how.add_argument("--pdb", action="store_true", help="if it fails, start the debugger where it failed")
    parser.set_defaults(run=run)


def _gpus(text: str) -> float:
    try:
        gpus = float(text)
    except ValueError:
        gpus = -1
    if not 0 <= gpus < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of GPUs, such as 0, 0.5 or 1, got {text!r}")
    return gpus


def run(args: argparse.Namespace) -> int:
    """Do one after the other; 1 if any failed again."""
    from framefold.pipeline import replay  # noqa: PLC0415 - `pipeline --help` must not wait for pydantic

    if not faulthandler.is_enabled():
        faulthandler.enable()  # native code may end the process
    cases = [replay.opened(folder, args.overrides, gpus=args.gpus) for folder in args.folders]
    teller = _Silent() if args.json else _Teller(screen.console(), debug=args.pdb)
    kept: list[dict[str, Any]] | None = [] if args.keep else None
    results = [_replayed(case, teller, kept) for case in cases]
    if args.json:
        answer = {"replays": [_plain(case, result) for case, result in zip(cases, results, strict=True)]}
        sys.stdout.write(json.dumps(answer, indent=2, ensure_ascii=False) + "\n")
    if kept is not None:
        _keep(args.keep, kept)
    return EXIT_FAILED if any(result.error is not None for result in results) else EXIT_DONE


def _replayed(case: Case, teller: _Silent, kept: list[dict[str, Any]] | None) -> Result:
    from framefold.pipeline.events import Produced  # noqa: PLC0415 - as above
    from framefold.pipeline.replay import perform  # noqa: PLC0415 - as above

    def hear(event: Event, payload: Any) -> None:
        teller.hear(event, payload)
        if kept is not None and isinstance(event, Produced):
            output = {"port": event.port, "label": event.label or case.letter.label, "payload": payload}
            kept.append({"folder": str(case.folder), **output})

    teller.begin(case)
    result = perform(case, hear, teller.examine)
    teller.end(result)
    return result


def _keep(path: Path, outputs: list[dict[str, Any]]) -> None:
    from framefold.pipeline import keepsake  # noqa: PLC0415 - as above

    try:
        keepsake.write(path, outputs)
    except OSError:
        raise
    except Exception as error:  # pickling runs the payload's own code
        raise FramefoldError(f"--keep {path}: the outputs cannot be pickled: {error}") from error


class _Silent:
    """Says nothing: the JSON object does."""

    def begin(self, case: Case) -> None:
        """Before the work."""

    def hear(self, event: Event, payload: Any) -> None:
        """At each event."""

    def examine(self, error: BaseException) -> None:
        """When it has failed."""

    def end(self, result: Result) -> None:
        """After the work."""


class _Teller(_Silent):
    """Says on the terminal what happens."""

    def __init__(self, console: Console, *, debug: bool) -> None:
        self._console, self._debug = console, debug
        self._shown = 0.0

    def begin(self, case: Case) -> None:
        """Name the item, and what became of it then."""
        letter = case.letter
        self._shown, self._label = 0.0, letter.label
        self._say(f"{letter.node}: {letter.label} (stage {letter.stage}, attempt {letter.attempt + 1})")
        if letter.error:
            self._say(f"  then:  {letter.error}: {letter.message}")
        for note in case.notes:
            self._say(f"  note:  {note}")

    def hear(self, event: Event, payload: Any) -> None:
        """A line for each; progress now and then."""
        from framefold.pipeline import events  # noqa: PLC0415 - as above

        match event:
            case events.Advanced(fraction, values) if fraction >= min(1.0, self._shown + STEP):
                self._shown = fraction
                self._say(f"  {fraction:4.0%}   {_told(values)}".rstrip())
            case events.Produced(port=port, label=label, nbytes=nbytes):
                self._say(f"  gives  {port}: {label or self._label}, {type(payload).__name__}, {nbytes:,} bytes")
            case events.Reported(label, values):
                self._say(f"  row    {label}: {_told(values)}")
            case events.SetAside(label, reason):
                self._say(f"  refuses {label}: {reason}")
            case events.Hinted(command):
                self._say(f"  next:  {command}")

    def examine(self, error: BaseException) -> None:
        """Show where it was raised; with `--pdb` the debugger starts there."""
        import pdb  # noqa: PLC0415 - the debugger is the option's very purpose
        import traceback  # noqa: PLC0415 - only a failure needs it

        self._say("".join(traceback.format_exception(error)).rstrip())
        if self._debug:
            pdb.post_mortem(error.__traceback__)

    def end(self, result: Result) -> None:
        """Say how it went."""
        count = len(result.outputs)
        outputs = f"{count} output{'' if count == 1 else 's'} in {result.seconds:.1f} s"
        if result.error is None:
            self._say(f"  done:  {outputs}")
        else:
            self._say(f"  failed: {type(result.error).__name__}: {result.error}, after {outputs}")

    def _say(self, text: str) -> None:
        self._console.print(_safe(text), soft_wrap=True)


def _told(values: Any) -> str:
    parts = (f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items())
    return ", ".join(parts)


def _safe(text: str) -> str:
    """Rid a stranger's text of the control characters that would steer a terminal."""
    return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)


def _plain(case: Case, result: Result) -> dict[str, Any]:
    from dataclasses import asdict  # noqa: PLC0415 - only this form needs it

    from framefold.pipeline.worker import failure  # noqa: PLC0415 - as above

    failed = failure(result.error) if result.error is not None else None
    error = {"error": failed.error, "message": failed.message, "traceback": failed.traceback} if failed else None
    return {
        "folder": str(case.folder),
        "node": case.letter.node,
        "stage": case.letter.stage,
        "label": case.letter.label,
        "notes": case.notes,
        "ok": failed is None,
        "seconds": round(result.seconds, 3),
        "outputs": [asdict(output) for output in result.outputs],
        "rows": [asdict(row) for row in result.rows],
        "refused": [asdict(refusal) for refusal in result.refused],
        "error": error,
    }
