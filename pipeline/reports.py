"""What a run leaves behind in its folder, for programs and for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from framefold.pipeline.outcome import Outcome
from framefold.pipeline.plain_json import finite
from framefold.pipeline.report_page import render


def write_report(outcome: Outcome, pipeline: str, run_dir: Path) -> None:
    """Write `report.json` and `report.html`."""
    run_dir.mkdir(parents=True, exist_ok=True)
    _write_json(run_dir / "report.json", outcome.as_dict(pipeline))
    _write(run_dir / "report.html", render(outcome, pipeline))


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    _write(path, json.dumps(finite(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _write(path: Path, text: str) -> None:
    """Under a temporary name first: a report is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.part")
    draft.write_text(text, encoding="utf-8", errors="backslashreplace")
    draft.replace(path)
