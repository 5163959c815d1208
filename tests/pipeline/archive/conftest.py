"""A small archive with every chunk type in it, the same bytes each time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from framefold.pipeline.archive import ArchiveReader, ArchiveWriter

MANIFEST = {"generator": "framefold test", "created": "2026-01-31T12:00:00Z", "run": {"seed": 0}}


def _source(name: str, **changes: Any) -> dict[str, Any]:
    document = {
        "name": name,
        "kind": "video",
        "sha256": "ab" * 32,
        "width": 32,
        "height": 18,
        "time_base": [1, 600],
    }
    return document | changes


def _fill(writer: ArchiveWriter) -> list[str]:
    video = writer.add_source(_source("a.mp4"))
    image = writer.add_source(_source("b.png", kind="image", time_base=[1, 1]))
    nerv = writer.add_codec("nerv", {"size": "S", "rates": [1, 2.5, None]})
    coin = writer.add_codec("coin", {})
    ids = []
    for number in range(2):
        pts = [25 * frame for frame in range(24 * number, 24 * number + 24)]
        key = f"{number:064x}"
        unit = {"key": key, "source": video, "codec": nerv, "first_frame": 24 * number, "pts": pts}
        ids.append(writer.add_unit(**unit, duration_ticks=25, payload=bytes(range(50 + number))))
        writer.add_quality(ids[-1], {"psnr_db": 30.5 + number, "ms_ssim": 0.95, "frames_sha256": "cd" * 32})
    picture = {"key": "f" * 64, "source": image, "codec": coin, "first_frame": 0, "pts": [0]}
    return [*ids, writer.add_unit(**picture, duration_ticks=1, payload=b"picture")]


@pytest.fixture
def source() -> Callable[..., dict[str, Any]]:
    return _source


@pytest.fixture
def manifest() -> dict[str, Any]:
    return dict(MANIFEST)


@pytest.fixture
def fill() -> Callable[[ArchiveWriter], list[str]]:
    """Adds two sources, two codecs and three units to a writer; their ids."""
    return _fill


@pytest.fixture
def write_small() -> Callable[[Path], Path]:
    """Writes the small archive to a path."""

    def write(path: Path) -> Path:
        with ArchiveWriter(path, archive_id=bytes(range(16))) as writer:
            _fill(writer)
            return writer.commit(MANIFEST)

    return write


@pytest.fixture
def small(tmp_path: Path, write_small: Callable[[Path], Path]) -> Path:
    return write_small(tmp_path / "small.fold")


@pytest.fixture
def read_all() -> Callable[[Path], Any]:
    """Reads everything that a reader can be asked for, as plain values."""

    def read(path: Path) -> Any:
        with ArchiveReader.open(path) as reader:
            units = [(unit, reader.read_unit(unit.id), reader.quality(unit.id)) for unit in reader.units]
            return reader.sources, reader.codecs, units, reader.manifest

    return read
