"""pipeline plugins: every stage and codec that is installed, with what it takes, gives and can be told."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from framefold.pipeline.cli import screen
from framefold.pipeline.errors import EXIT_DONE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table
    from rich.text import Text

    from framefold.pipeline.plugin_list import Description


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "plugins",
        help="list the installed stages and codecs",
        description="List the installed stages and codecs: what they take, what they give, their options.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, with the options' JSON schemas")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print both lists; a plugin that cannot be loaded is a row with its error."""
    from framefold.pipeline import plugin_list  # noqa: PLC0415 - `pipeline --help` must not wait for pydantic

    stages, codecs = plugin_list.stages(), plugin_list.codecs()
    if args.json:
        answer = {
            "stages": [stage.as_dict() for stage in stages],
            "codecs": [codec.as_dict() for codec in codecs],
        }
        sys.stdout.write(json.dumps(answer, indent=2, ensure_ascii=False) + "\n")
    else:
        _print(_table("Stages", stages), _table("Codecs", codecs))
    return EXIT_DONE


def _print(*tables: Table) -> None:
    console = screen.console()
    for table in tables:
        console.print(table)


def _table(title: str, plugins: Sequence[Description]) -> Table:
    from rich import box  # noqa: PLC0415 - only the human form needs it
    from rich.table import Table  # noqa: PLC0415 - as above

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("takes -> gives", max_width=32)
    table.add_column("what it does, options, origin")
    for plugin in plugins:
        table.add_row(plugin.name, f"{plugin.takes} -> {plugin.gives}".strip(), _told(plugin))
    return table


def _told(plugin: Description) -> Text:
    from rich.text import Text  # noqa: PLC0415 - only the human form needs it

    if plugin.error:
        return Text(plugin.error, style="red")
    text = Text(plugin.summary)
    if plugin.option_names:
        text.append(f"\noptions: {', '.join(plugin.option_names)}", style="dim")
    if plugin.shared:
        text.append(f"\nalso at the top of the file: {', '.join(plugin.shared)}", style="dim")
    return text.append(f"\nfrom {plugin.distribution}", style="dim")
