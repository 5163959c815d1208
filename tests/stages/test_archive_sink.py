"""`archive_sink` tried again after a failure half way: every unit once, with its true size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from framefold.pipeline import spec
from framefold.pipeline.archive import describe
from framefold.pipeline.executor import LocalExecutor
from framefold.pipeline.scheduler import Scheduler
from framefold.stages import archive_sink


def test_a_unit_whose_measuring_failed_once_is_stored_once_and_shown_with_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("x.png", 10), ("y.png", 200)):
        Image.new("RGB", (16, 16), (value,) * 3).save(tmp_path / name)
    measure, calls = archive_sink.measure, []

    def stumble(*pair: Any) -> Any:
        calls.append(pair)
        if len(calls) == 2:
            raise MemoryError("just now")
        return measure(*pair)

    monkeypatch.setattr(archive_sink, "measure", stumble)
    stages = {
        "pictures": {"stage": "image_source", "path": str(tmp_path)},
        "fitted": {"stage": "fit", "inputs": ["pictures"], "codec": {"name": "siren"}, "budget": {"steps": 2}},
        "symbols": {"stage": "quantize", "inputs": ["fitted"]},
        "bits": {"stage": "entropy_encode", "inputs": ["symbols"]},
        "archive": {"stage": "archive_sink", "inputs": ["bits"], "path": str(tmp_path / "x.fold")},
    }
    checked = spec.from_mapping("retried", {"stages": stages})
    outcome = Scheduler(list(checked.graph), LocalExecutor(), seed=0, run_dir=tmp_path).run()
    assert len(calls) == 3
    assert outcome.exit_code == 0
    shown = {row.label: row.values["bytes"] for row in outcome.rows}
    stored = describe(tmp_path / "x.fold")["chunks"]
    assert shown == {
        "x.png": stored[0]["bytes"],
        "y.png": stored[1]["bytes"],
        "x.fold": (tmp_path / "x.fold").stat().st_size,
    }
