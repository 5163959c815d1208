"""`report.html`: the run on one self-contained page, for whoever comes back to it later."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from string import Template

from framefold.pipeline.notices import DeadLetter, ResultRow
from framefold.pipeline.outcome import NodeState, Outcome
from framefold.pipeline.words import attempts_of, cell, heading, told

_PAGE = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>$title</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: .5rem 0 2rem; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
th { border-bottom: 2px solid #999; font-weight: 600 }
.bad { color: #a00 }
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto; font-size: 13px }
@media (prefers-color-scheme: dark) {
  body { background: #181818; color: #ddd } th, td { border-color: #444 } pre { background: #222 } .bad { color: #f88 }
}
</style>
<h1>$title</h1>
<p>$summary</p>
$body
</html>
""")


def render(outcome: Outcome, pipeline: str) -> str:
    """The page; everything that came from a file or a user is escaped."""
    parts = [_error(outcome.error)]
    parts += [_results(node, outcome.rows) for node in dict.fromkeys(row.node for row in outcome.rows)]
    parts += [_refused(outcome), _dead(outcome.dead), _warnings(outcome.warnings), _stages(outcome)]
    parts += [_hints(outcome.hints)]
    return _PAGE.substitute(
        title=escape(pipeline), summary=escape(_summary(outcome)), body="\n".join(filter(None, parts))
    )


def _summary(outcome: Outcome) -> str:
    ending = f"{outcome.set_aside:,} set aside" if outcome.set_aside else "nothing was set aside"
    reused = f", {outcome.reused:,} pieces of work reused" if outcome.reused else ""
    return f"{outcome.seconds:.1f} seconds, {ending}{reused}."


def _error(error: str) -> str:
    return f'<h2 class="bad">The run did not come to its end</h2><pre>{escape(error)}</pre>' if error else ""


def _results(node: str, rows: Sequence[ResultRow]) -> str:
    mine = [row for row in rows if row.node == node]
    columns = list(dict.fromkeys(column for row in mine for column in row.values))
    lines = [[row.label, *(cell(column, row.values.get(column)) for column in columns)] for row in mine]
    return f"<h2>{escape(node)}</h2>" + _table(["", *map(heading, columns)], lines)


def _stages(outcome: Outcome) -> str:
    now = outcome.clock()
    lines = [[name, *_figures(node, now)] for name, node in outcome.nodes.items()]
    head = ["stage", "in", "reused", "out", "set aside", "tried again", "seconds", "CPU seconds", "busy", "blocked"]
    return "<h2>Stages</h2>" + _table(head, lines) + f"<p>{escape(_memory(outcome))}</p>"


def _figures(node: NodeState, now: float) -> list[str]:
    counts = (node.done, node.reused, node.given, node.failed, node.again)
    shares = (node.timesheet.share("busy", now), node.timesheet.share("blocked", now))
    seconds = (f"{node.seconds:.1f}", f"{node.cpu_seconds:.1f}")
    return [*(f"{count:,}" for count in counts), *seconds, *(f"{share:.0%}" for share in shares)]


def _memory(outcome: Outcome) -> str:
    peak, spilled = outcome.peak_bytes / 2**20, outcome.spilled_bytes / 2**20
    moved = f"{spilled:,.0f} MiB were moved to disk" if spilled else "nothing was moved to disk"
    return f"Payloads under way took at most {peak:,.1f} MiB; {moved}."


def _warnings(warnings: Sequence[str]) -> str:
    lines = "".join(f"<li>{escape(text)}</li>" for text in warnings)
    return f"<h2>Notes</h2><ul>{lines}</ul>" if lines else ""


def _refused(outcome: Outcome) -> str:
    if not outcome.refused:
        return ""
    lines = [f"<li><b>{escape(one.label)}</b>: {escape(one.reason)}" for one in outcome.refused]
    return f'<h2 class="bad">Inputs set aside</h2><ul>{"".join(lines)}</ul>'


def _dead(letters: Iterable[DeadLetter]) -> str:
    parts = [
        f"<details><summary>at {escape(one.node)}, after {attempts_of(one)}: {escape(told(one))}</summary>"
        f"<pre>{escape(chr(10).join(filter(None, (one.traceback, one.replay))))}</pre></details>"
        for one in letters
    ]
    return '<h2 class="bad">Items set aside</h2>' + "".join(parts) if parts else ""


def _hints(hints: Sequence[str]) -> str:
    return f"<h2>Next</h2><pre>{escape(chr(10).join(hints))}</pre>" if hints else ""


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = ["".join(f"<td>{escape(text)}" for text in line) for line in lines]
    return f"<table><tr>{''.join(f'<th>{escape(text)}' for text in head)}<tr>{'<tr>'.join(rows)}</table>"
