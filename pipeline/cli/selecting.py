"""Which part of an archive a command is about: `--source`, `--start`, `--end`, `--frames`."""

from __future__ import annotations

import argparse
import re
from typing import Any

from framefold.pipeline.errors import UsageError

_CLOCK = re.compile(r"(-?)(?:(?:(\d+):)?(\d{1,2}):)?(\d+(?:\.\d*)?|\.\d+)")
_RANGE = re.compile(r"(\d{0,15}):(\d{0,15})")


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--source", metavar="NAME", help="one source, by name or number (`pipeline ls` has both)")
    parser.add_argument("--start", metavar="TIME", help="from this time on: seconds, MM:SS or HH:MM:SS, as in `ls`")
    parser.add_argument("--end", metavar="TIME", help="up to this time; frames that begin then are left out")
    parser.add_argument("--frames", metavar="A:B", help="frames A up to B - 1; either may be left out")


def selection(args: argparse.Namespace) -> dict[str, Any]:
    """The options `frames` and `seconds` of the stages, only where they were given. UsageError for nonsense."""
    chosen: dict[str, Any] = {}
    if args.frames is not None:
        chosen["frames"] = _ordered("--frames", *_frames(args.frames))
    if args.start is not None or args.end is not None:
        start = None if args.start is None else _seconds("--start", args.start)
        chosen["seconds"] = _ordered("--end", start, None if args.end is None else _seconds("--end", args.end))
    return chosen


def source(args: argparse.Namespace) -> dict[str, Any]:
    """The option `source` of `archive_source`, if it was given."""
    return {} if args.source is None else {"source": args.source}


def _frames(text: str) -> tuple[int | None, int | None]:
    match = _RANGE.fullmatch(text)
    if not match:
        raise UsageError(f"--frames {text!r}: give two numbers such as 24:48, 24: or :48")
    first, stop = (int(digits) if digits else None for digits in match.groups())
    return first, stop


def _seconds(option: str, text: str) -> float:
    match = _CLOCK.fullmatch(text)
    if not match:
        raise UsageError(f"{option} {text!r}: give seconds such as 83.5, or a time such as 1:23.5 or 0:01:23.5")
    sign, hours, minutes, seconds = match.groups()
    total = float(seconds) if minutes is None else round(int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds), 6)
    return -total if sign else total


def _ordered(option: str, first: float | None, stop: float | None) -> list[float | None]:
    first = (0 if option == "--frames" else -(10**12)) if first is None else first
    if stop is not None and stop <= first:
        raise UsageError(f"{option}: the range from {first:g} to {stop:g} is empty; its end must be larger")
    return [first, stop]
