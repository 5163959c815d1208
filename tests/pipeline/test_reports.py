"""The run's report: whole, escaped, and saying the same on the page as in the JSON."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from framefold.pipeline.notices import DeadLetter, Refusal, ResultRow
from framefold.pipeline.outcome import Outcome
from framefold.pipeline.reports import write_report

EVIL = "<script>alert(1)</script>.mp4"


class Page(HTMLParser):
    """Collects tags and text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def outcome() -> Outcome:
    result = Outcome.of(["frames", "archive"])
    result.hear(ResultRow("archive", EVIL, {"psnr_db": 31.5, "bytes": 71880, "same_times": True, "ms_ssim": None}))
    result.hear(Refusal("frames", EVIL, "it is no video"))
    result.hear(DeadLetter("archive", "archive_sink", "ab" * 32, EVIL, 3, "OSError", "disk full", "Traceback …"))
    return result


def test_the_page_shows_everything_and_runs_nothing(tmp_path: Path) -> None:
    write_report(outcome(), "bunny", tmp_path)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(html)
    assert "script" not in page.tags
    assert page.text.count(EVIL) == 3
    for text in ("31.50", "71,880", "PSNR dB", "it is no video", "disk full", "Traceback …", "2 set aside"):
        assert text in page.text
    assert "http" not in html  # self-contained


def test_the_json_says_the_same(tmp_path: Path) -> None:
    write_report(outcome(), "bunny", tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["exit_code"] == 3
    assert report["rows"][0]["psnr_db"] == 31.5
    assert report["set_aside"][0]["message"] == "disk full"
    assert report["stages"]["archive"]["failed"] == 1


def test_a_lossless_row_is_still_json(tmp_path: Path) -> None:
    """`Infinity` is no JSON: a strict reader would refuse the whole report."""
    result = outcome()
    result.hear(ResultRow("archive", "same", {"psnr_db": float("inf")}))
    write_report(result, "bunny", tmp_path)
    report = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert report["rows"][-1]["psnr_db"] == "inf"
