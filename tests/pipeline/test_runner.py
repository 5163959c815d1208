"""A run as the commands start it: its report, its folder, and the signals that end it."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from framefold.pipeline import runner, spec
from framefold.pipeline.errors import Interrupted, RunFailed, UsageError
from framefold.pipeline.spec import CheckedPipeline
from framefold.pipeline.stage import Output
from framefold.pipeline.testing import TOYS, Collect, Numbers


class BrokenSink(Collect):
    """Cannot finish."""

    def finish(self) -> Iterator[Output]:
        raise OSError("disk full")


class SignalledNumbers(Numbers):
    """Is told to stop after its second number, over and over."""

    number = signal.SIGTERM

    def produce(self) -> Iterator[Output]:
        for count, output in enumerate(super().produce()):
            if count == 2:
                os.kill(os.getpid(), self.number)
            yield output


class HungUpNumbers(SignalledNumbers):
    """Loses its terminal."""

    number = signal.SIGHUP


EXTRA = {**TOYS, "broken": BrokenSink, "signalled": SignalledNumbers, "hung_up": HungUpNumbers}


def checked(tmp_path: Path, *, source: str = "numbers", sink: str = "collect", **top: Any) -> CheckedPipeline:
    stages = {
        "numbers": {"stage": source, "count": 50, "refuse": [1]},
        "sink": {"stage": sink, "inputs": ["numbers"], "path": tmp_path / "out", "retries": 0},
    }
    return spec.from_mapping("toy", {"run_dir": tmp_path / "run", **top, "stages": stages}, extra_stages=EXTRA)


def run(pipeline: CheckedPipeline, **options: Any) -> str:
    text = io.StringIO()
    runner.run(pipeline, Console(file=text, width=200), runner.Manner(local=True, **options))
    return text.getvalue()


def report(tmp_path: Path) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads((tmp_path / "run" / "report.json").read_text())
    return answer


def test_a_run_that_ended_well_says_so(tmp_path: Path) -> None:
    run(checked(tmp_path))
    assert (report(tmp_path)["exit_code"], report(tmp_path)["error"]) == (3, None)
    assert "did not come to its end" not in (tmp_path / "run" / "report.html").read_text()


def test_the_report_of_a_run_that_failed_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunFailed):
        run(checked(tmp_path, sink="broken"))
    assert report(tmp_path)["exit_code"] == 1
    assert report(tmp_path)["error"].startswith("sink could not finish: disk full")
    assert [one["label"] for one in report(tmp_path)["refused"]] == ["n1"]
    assert "did not come to its end" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize(("source", "number"), [("signalled", signal.SIGTERM), ("hung_up", signal.SIGHUP)])
def test_a_signal_ends_the_run_in_order(tmp_path: Path, source: str, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as caught:
        run(checked(tmp_path, source=source))
    assert caught.value.exit_code == report(tmp_path)["exit_code"] == 128 + number
    assert signal.getsignal(number) == before


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run(checked(tmp_path, source="hung_up"))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert len((tmp_path / "out").read_text().splitlines()) == 49


def test_a_run_folder_that_cannot_be_made_is_named_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"run_dir: .*file.*--set run_dir=PATH"):
        run(checked(tmp_path, run_dir=tmp_path / "file" / "run"))
    assert not (tmp_path / "out").exists()


def test_no_report_is_left_where_none_is_wanted(tmp_path: Path) -> None:
    run(checked(tmp_path), report=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
