"""An archive of this version, written once: every later reader must read it, every later writer write it so.

Written only on request: `FRAMEFOLD_WRITE_GOLDEN=1 pytest tests/pipeline/archive/test_golden.py`, and only where
it is missing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from framefold.pipeline.archive import ArchiveReader, describe, verify

GOLDEN = Path(__file__).parents[2] / "golden"
ARCHIVE, LISTING = GOLDEN / "archive_v1.fold", GOLDEN / "archive_v1.json"


@pytest.fixture(scope="module", autouse=True)
def _written() -> None:
    if not ARCHIVE.exists() and os.environ.get("FRAMEFOLD_WRITE_GOLDEN") != "1":
        pytest.fail(f"{ARCHIVE} is missing; if it never existed, write it with FRAMEFOLD_WRITE_GOLDEN=1")


def listing(path: Path) -> dict[str, Any]:
    """Everything that a reader gives, as JSON."""
    with ArchiveReader.open(path) as reader:
        units = []
        for unit in reader.units:
            record = asdict(reader.read_unit(unit.id))
            units.append({**record, "payload": record["payload"].hex(), "quality": reader.quality(unit.id)})
        document = {**describe(path), "archive": path.name, "manifest": dict(reader.manifest), "units": units}
    return json.loads(json.dumps(document))


def test_the_archive_of_version_1_still_reads_the_same(write_small: Callable[[Path], Path]) -> None:
    if not ARCHIVE.exists():
        write_small(ARCHIVE)
        LISTING.write_text(json.dumps(listing(ARCHIVE), indent=1) + "\n", encoding="utf-8")
    assert listing(ARCHIVE) == json.loads(LISTING.read_text(encoding="utf-8"))
    assert verify(ARCHIVE) == ()


def test_writing_it_again_gives_the_same_bytes(write_small: Callable[[Path], Path], tmp_path: Path) -> None:
    assert write_small(tmp_path / "again.fold").read_bytes() == ARCHIVE.read_bytes()
