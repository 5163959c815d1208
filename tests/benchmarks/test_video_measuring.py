import sys
from pathlib import Path

import numpy as np
import pytest

# A benchmark is a script beside others, no package.
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "video"))

from clips import box_mean, pictures, write_pictures
from record import Log, Run


def run(preset, **fields):
    return Run(tier="T1", clip="V16", system="x", preset=preset, **fields)


def test_psnr_is_the_mean_of_the_frames_not_of_their_errors():
    original = np.full((2, 3, 8, 8), 100, np.uint8)
    decoded = original.copy()
    decoded[0] += 1  # 48.13 dB
    decoded[1] += 10  # 28.13 dB
    assert run("a").showing(decoded, original).psnr == pytest.approx(20 * np.log10(255) - 10)


def test_rate_is_that_of_the_whole_file():
    frames = np.zeros((4, 3, 10, 20), np.uint8)
    assert run("a", bytes=100).showing(frames, frames).bpp == 1.0
    assert run("a").showing(frames, frames).bpp is None


def test_a_second_log_takes_over_what_the_first_has_measured(tmp_path):
    path = tmp_path / "runs.jsonl"
    first = Log(path).measured(run("a").key, lambda: run("a", bytes=7))
    again = Log(path).measured(run("a").key, lambda: pytest.fail("measured twice"))
    assert again == first
    assert (again.bytes, again.run_id != "", again.load1 is not None) == (7, True, True)
    Log(path).measured(run("b").key, lambda: run("b"))
    assert len(path.read_text().splitlines()) == 2


def test_runs_of_another_machine_or_day_are_not_compared(tmp_path):
    path = tmp_path / "runs.jsonl"
    Log(path).measured(run("a").key, lambda: run("a"))
    other = Log(path)
    path.write_text(path.read_text().replace(other.run_id, "elsewhere"))
    assert Log(path).runs == {}


def test_a_run_is_filed_under_its_own_name():
    with pytest.raises(ValueError, match="asked for"):
        Log(None).measured(run("a").key, lambda: run("b"))


def test_means_of_blocks_round_half_up():
    frame = np.array([[0, 1, 4, 4], [1, 0, 4, 5], [9, 9, 0, 0], [9, 9, 0, 1]], np.uint8)
    frames = np.broadcast_to(frame, (1, 3, 4, 4))
    assert box_mean(frames, 2)[0, 0].tolist() == [[1, 4], [9, 0]]


def test_pictures_are_read_back_in_order(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (3, 3, 4, 6), dtype=np.uint8)
    write_pictures(frames, tmp_path)
    assert (pictures(tmp_path, 3).frames == frames).all()
    with pytest.raises(SystemExit, match="needed: 4"):
        pictures(tmp_path, 4)
