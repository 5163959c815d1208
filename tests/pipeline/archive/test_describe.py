"""`describe` and `pipeline info`."""

from __future__ import annotations

import argparse
import json

import pytest

from framefold.pipeline.archive import ArchiveError, ArchiveWriter, describe
from framefold.pipeline.cli import info


@pytest.fixture
def run(capsys):
    """Runs `info` as the command does; what it printed."""
    parser = argparse.ArgumentParser()
    info.add(parser.add_subparsers(required=True))

    def run_info(*words: str) -> str:
        args = parser.parse_args(["info", *words])
        assert args.run(args) == 0
        return capsys.readouterr().out

    return run_info


def test_sources_and_chunks_are_described(small):
    facts = describe(str(small))
    assert facts["archive"] == str(small)
    assert facts["bytes"] == small.stat().st_size
    assert facts["bits_per_pixel"] == 8 * facts["bytes"] / (32 * 18 * 49)
    assert (facts["created"], facts["generator"]) == ("2026-01-31T12:00:00Z", "framefold test")
    video, image = facts["sources"]
    assert (video["name"], video["kind"], video["frames"]) == ("a.mp4", "video", 48)
    assert video["duration_seconds"] == 48 * 25 / 600
    assert video["sha256"] == "ab" * 32
    assert (image["name"], image["frames"], image["duration_seconds"]) == ("b.png", 1, None)
    assert [chunk["id"] for chunk in facts["chunks"]] == ["u000004", "u000006", "u000008"]
    assert [chunk["source"] for chunk in facts["chunks"]] == ["a.mp4", "a.mp4", "b.png"]
    assert [chunk["codec"] for chunk in facts["chunks"]] == ["nerv", "nerv", "coin"]
    assert [chunk["first_frame"] for chunk in facts["chunks"]] == [0, 24, 0]
    assert [chunk["frames"] for chunk in facts["chunks"]] == [24, 24, 1]
    assert [chunk["psnr_db"] for chunk in facts["chunks"]] == [30.5, 31.5, None]
    assert [chunk["ms_ssim"] for chunk in facts["chunks"]] == [0.95, 0.95, None]
    assert [chunk["bytes"] for chunk in facts["chunks"]] == [64 + 128, 64 + 128, 64 + 80]
    payloads = 3 * 72 + 50 + 51 + len(b"picture")
    assert facts["overhead_bytes"] == facts["bytes"] - payloads


def test_an_archive_without_pixels_has_no_rate(tmp_path, manifest, run):
    path = tmp_path / "a.fold"
    with ArchiveWriter(path) as writer:
        writer.commit(manifest)
    facts = describe(path)
    assert facts["bits_per_pixel"] is None
    assert facts["sources"] == facts["chunks"] == []
    assert "- bits per pixel" in run(str(path))


def test_json_is_the_description(small, run):
    assert json.loads(run(str(small), "--json")) == describe(str(small))


def test_the_table_shows_what_counts(small, run):
    text = run(str(small))
    for word in ("2 sources", "3 units", "a.mp4", "b.png", "32x18", "u000004", "24-47", "30.50", "framefold test"):
        assert word in text


def test_a_strangers_text_cannot_steer_the_terminal(tmp_path, source, manifest, run):
    path = tmp_path / "a.fold"
    with ArchiveWriter(path) as writer:
        writer.add_source(source("\x1b[2Jé\ud800[bold]"))
        writer.commit(manifest | {"generator": "\x1b]0;title\x07"})
    text = run(str(path))
    assert "\x1b" not in text
    assert "\\x1b[2Jé\\ud800[bold]" in text
    assert json.loads(run(str(path), "--json"))["sources"][0]["name"] == "\x1b[2Jé\ud800[bold]"


@pytest.mark.parametrize("value", ["high", None, True, [1], {"db": 1}, 10**6, -1.5])
def test_odd_measurements_are_shown_or_dashed(tmp_path, fill, manifest, run, value):
    path = tmp_path / "a.fold"
    with ArchiveWriter(path) as writer:
        writer.add_quality(fill(writer)[2], {"psnr_db": value})
        writer.commit(manifest)
    assert describe(path)["chunks"][2]["psnr_db"] == value
    assert "u000008" in run(str(path))


def test_what_is_no_archive_is_an_error_for_the_command_to_show(tmp_path, run):
    with pytest.raises(ArchiveError, match="F001"):
        run(str(tmp_path / "missing.fold"))
