"""`pipeline info`: what an archive holds and what it costs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from framefold.pipeline.archive import describe
from framefold.pipeline.cli import screen
from framefold.pipeline.cli.tables import Columns, Row, counted, figure, frame_range, table, text
from framefold.pipeline.errors import EXIT_DONE

if TYPE_CHECKING:
    from rich.console import Console

DETAILED = 8
"""So many sources get a paragraph of their own; more of them only a row each."""
_LISTED_UNITS = 100


def add(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Register the subcommand."""
    parser = subparsers.add_parser("info", help="show what an archive holds: sources, tracks, sizes, quality")
    parser.add_argument("archive", metavar="ARCHIVE", help="a .fold file, a folder, or an s3:// or https:// address")
    parser.add_argument("--json", action="store_true", help="print one JSON object, with units in the names")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print to standard output; `ArchiveError` if the archive cannot be opened."""
    facts = describe(args.archive)
    if args.json:
        sys.stdout.write(json.dumps(facts, indent=2) + "\n")
    else:
        _show(facts, screen.console())
    return EXIT_DONE


def _show(facts: Row, console: Console) -> None:
    sources, chunks = facts["sources"], facts["chunks"]
    console.print(table(counted(len(sources), "source"), _SOURCE_COLUMNS, sources))
    for source in sources[:DETAILED] if len(sources) <= DETAILED else ():
        for line in (*_details(source), *map(_track, source["tracks"]), *map(_attachment, source["attachments"])):
            console.print(f"  {line}", soft_wrap=True)
    console.print(table(counted(len(chunks), "unit"), _CHUNK_COLUMNS, chunks[:_LISTED_UNITS]))
    if len(chunks) > _LISTED_UNITS:
        console.print(f"and {len(chunks) - _LISTED_UNITS:,} more: pipeline ls {facts['archive']}", soft_wrap=True)
    for line in _summary(facts):
        console.print(line, soft_wrap=True)


def _details(source: Row) -> Iterator[str]:
    """What `ffprobe` would say of the original, and what it took."""
    rates = {True: "constant", False: "variable", None: "unknown"}
    yield f"{text(source['name'])}: {', '.join(_original(source))}"
    if source["kind"] == "video":
        rate = (
            f"{figure(source['frames_per_second'], '.6g')} frames per second, {rates[source['is_constant_rate']]} rate"
        )
        yield f"  {rate}, begins at {figure(source['start_seconds'], '.6f')} s, colour {_color(source['color'])}"
    if source["sha256"]:
        yield f"  sha256: {text(source['sha256'])}"


def _color(tags: Row) -> str:
    """Code points of ISO/IEC 23091-2, those that say something."""
    said = {name: code for name, code in tags.items() if code not in (None, 0 if name == "range" else 2)}
    return ", ".join(f"{name} {code}" for name, code in said.items()) or "unspecified"


def _original(source: Row) -> Iterator[str]:
    yield f"{figure(source['size_bytes'], ',')} bytes"
    if source["container"]:
        yield source["container"] + (f" with {source['codec']}" if source["codec"] else "")
    if source["codec_bytes"]:
        yield f"{source['codec_bytes']:,} bytes of coded pictures, {source['bytes']:,} here"
    if source["pixel_format"]:
        yield f"{source['pixel_format']} of {figure(source['bits_per_sample'], 'd')} bits"
    if source["pixel_aspect"] != [1, 1]:
        yield f"pixels {source['pixel_aspect'][0]}:{source['pixel_aspect'][1]}"
    if source["rotation_degrees"] or source["is_mirrored"]:
        yield f"shown {'mirrored and ' if source['is_mirrored'] else ''}turned by {source['rotation_degrees']} degrees"
    if source["chapters"]:
        yield counted(source["chapters"], "chapter")


def _track(track: Row) -> str:
    names = ", ".join(filter(None, (track["language"], track["title"])))
    held = f"{track['packets_held']:,} of {figure(track['packets'], ',')} packets, {track['bytes']:,} bytes"
    return (
        f"  track {figure(track['index'], 'd')}: {text(track['kind'])} {text(track['codec'])} ({names or '-'}), {held}"
    )


def _attachment(attachment: Row) -> str:
    held = "" if attachment["is_held"] else ", not in the archive"
    name = f" {attachment['name']}" if attachment["name"] else ""
    return f"  attachment: {text(attachment['kind'])}{name}, {figure(attachment['bytes'], ',')} bytes{held}"


def _base(base: Row) -> str:
    held = f"{base['bytes']:,} bytes" if base["is_held"] else "not in the archive"
    return f"{counted(base['units'], 'unit')} built on {base['sha256'][:16]}…: {held}"


def _summary(facts: Row) -> Iterator[str]:
    bits = figure(facts["bits_per_pixel"], ".4f")
    sizes = f"{facts['bytes']:,} bytes, {bits} bits per pixel"
    yield f"{facts['archive']}: {_form(facts)}, {sizes}, {facts['overhead_bytes']:,} bytes of them outside the units"
    yield f"bytes: {_sizes(facts['bytes_by_kind'])}; by codec: {_sizes(facts['bytes_by_codec']) or '-'}"
    yield from map(_base, facts["bases"])
    hashed = sum(bool(source["sha256"]) for source in facts["sources"])
    of_units = f"of {facts['units_with_frame_hashes']:,} of {counted(len(facts['chunks']), 'unit')}"
    yield f"SHA-256 recorded: of {hashed:,} of {counted(len(facts['sources']), 'original')}, decoded frames {of_units}"
    yield f"written {text(facts['created'])} by {text(facts['generator'])}"
    for problem in facts["problems"]:
        yield f"not read: {problem['problem']}"


def _form(facts: Row) -> str:
    if facts["form"] == "file":
        return "one whole file"
    sealed = {True: ", sealed", False: ", not sealed", None: ""}[facts["is_sealed"]]
    return f"{counted(facts['shards'], 'shard')} in {counted(facts['commits'], 'commit')}{sealed}"


def _sizes(sizes: Row) -> str:
    return ", ".join(f"{name} {size:,}" for name, size in sizes.items() if size)


_SOURCE_COLUMNS: Columns = (
    ("name", lambda row: f"{row['number']} {text(row['name'])}"),
    ("kind", lambda row: text(row["kind"])),
    ("size", lambda row: f"{row['width']}x{row['height']}"),
    ("frames", lambda row: f"{row['frames']:,}"),
    ("seconds", lambda row: figure(row["duration_seconds"], ".3f")),
    ("bits per pixel", lambda row: figure(row["bits_per_pixel"], ".4f")),
)
_CHUNK_COLUMNS: Columns = (
    ("id", lambda row: row["id"]),
    ("source", lambda row: text(row["source"])),
    ("codec", lambda row: text(row["codec"])),
    ("frames", frame_range),
    ("bytes", lambda row: f"{row['bytes']:,}"),
    ("PSNR dB", lambda row: figure(row["psnr_db"], ".2f")),
    ("MS-SSIM", lambda row: figure(row["ms_ssim"], ".4f")),
)
