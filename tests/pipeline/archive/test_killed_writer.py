"""Writers killed with SIGKILL at random moments: nothing that they acknowledged is lost, and the next one goes on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from framefold.pipeline.archive.folder import open_shards

KILLS, ARCHIVES, UNITS = 60, 12, 150

# One process that has everything imported, and forks a writer for each folder that it is told.
NURSERY = """
import hashlib, os, sys
from framefold.pipeline.archive.folder import FolderWriter

def write(place):
    with FolderWriter(place, roll_bytes=12_000) as writer:
        for number in range(150):
            with writer.all_or_nothing():
                document = {"name": f"clip{number % 3}.mp4", "kind": "video", "sha256": "ab" * 32}
                size = {"width": 32, "height": 18, "time_base": [1, 600]}
                unit = writer.add_unit(
                    key=hashlib.sha256(b"unit %d" % number).hexdigest(),
                    source=writer.add_source(document | size),
                    codec=writer.add_codec("nerv", {"size": "S"}),
                    first_frame=number,
                    pts=[25 * number],
                    duration_ticks=25,
                    payload=hashlib.sha256(b"payload %d" % number).digest() * (1 + number % 4 * 40),
                )
                frames = hashlib.sha256(b"unit %d" % -number).hexdigest()
                writer.add_quality(unit, {"psnr_db": 20 + number / 8, "frames_sha256": frames})
            os.write(1, b"unit %d\\n" % number)
        writer.commit({"generator": "test", "created": "2026-01-31T12:00:00Z"})

for line in sys.stdin:
    child = os.fork()
    if not child:
        os.write(1, b"began %d\\n" % os.getpid())
        try:
            write(line.strip())
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    os.write(1, b"ended %d\\n" % os.waitstatus_to_exitcode(status))
"""


@pytest.fixture
def nursery() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", NURSERY]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        yield process
        process.stdin.close()


def kill_one(nursery: subprocess.Popen[str], place: str, after: int, seconds: float) -> tuple[set[int], bool]:
    """Kill a writer some time after it acknowledged so many units; all that it did acknowledge, and whether it died."""
    print(place, file=nursery.stdin)
    acknowledged, pid = set[int](), None
    for line in nursery.stdout:
        word, number = line.split()
        if word == "ended":
            return acknowledged, int(number) == -signal.SIGKILL
        if word == "began":
            pid = int(number)
        else:
            acknowledged.add(int(number))
        if len(acknowledged) == after:
            time.sleep(seconds)  # for nothing in particular: the kill is to come at any moment
            os.kill(pid, signal.SIGKILL)
            after = -1
    raise AssertionError("the nursery died")


def test_nothing_acknowledged_is_lost_and_the_rerun_completes_the_archive(tmp_path, clips, nursery):
    dice = random.Random(6)
    died = in_commits = in_open = 0
    for archive in range(ARCHIVES):
        place, acknowledged = tmp_path / f"{archive}.fold", set[int]()
        for _ in range(KILLS // ARCHIVES):
            after = len(acknowledged) + 1 + dice.randrange(20)
            told, was_killed = kill_one(nursery, str(place), after, 0.02 * dice.random())
            acknowledged |= told
            died += was_killed
            committed = set(clips.found(place)) if (place / "data/commits/00000001.json").exists() else set[int]()
            left = clips.left_open(place)
            assert acknowledged <= committed | left
            in_commits, in_open = in_commits + len(committed), in_open + len(left - committed)
        clips.write(place, range(UNITS), sync=False)
        assert clips.found(place) == list(range(UNITS))
        assert len(open_shards(place)[1]) > 5
    assert died == KILLS
    assert in_commits > 100
    assert in_open > 100
