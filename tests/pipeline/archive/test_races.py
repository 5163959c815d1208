"""Many processes write one archive at the same time: one winner for each name, every unit once, no commit lost."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from framefold.pipeline.archive.chain import Chain
from framefold.pipeline.archive.layout import commit_name
from framefold.pipeline.archive.stores import LocalStore

RUN = """
import hashlib, json, multiprocessing, random, sys, traceback
from dataclasses import replace
from framefold.pipeline.archive.chain import Chain
from framefold.pipeline.archive.commits import Retired
from framefold.pipeline.archive.folder import FolderWriter
from framefold.pipeline.archive.layout import commit_name
from framefold.pipeline.archive.stores import LocalStore

place, count, rounds = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
context = multiprocessing.get_context("fork")
start, results = context.Barrier(count), context.Queue()

def claim(me):
    '''Race for each of so many numbers.'''
    store, won = LocalStore(place), []
    for number in range(1, rounds + 1):
        start.wait()
        if store.create(commit_name(number), b"%d" % me):
            won.append(number)
    results.put((me, won))

def write(me):
    '''Write units of which others write some too.'''
    numbers = list(range(5 * me, 5 * me + 25))
    random.Random(me).shuffle(numbers)
    start.wait()
    with FolderWriter(place, roll_bytes=12_000) as writer:
        for number in numbers:
            document = {"name": f"clip{number % 3}.mp4", "kind": "video", "sha256": "ab" * 32}
            size = {"width": 32, "height": 18, "time_base": [1, 600]}
            with writer.all_or_nothing():
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
        writer.commit({"generator": "test", "created": "2026-01-31T12:00:00Z"})
    results.put((me, None))

def retire(commit, mark):
    return replace(commit, retired=(*commit.retired, mark))

def append(me):
    '''Append commits, as `pipeline repair` does.'''
    start.wait()
    chain = Chain(LocalStore(place))
    chain.begin(bytes(16))
    for number in range(rounds):
        mark = Retired(sha256=hashlib.sha256(b"%d %d" % (me, number)).hexdigest(), reason=f"{me}")
        chain.append(lambda commit: commit if mark in commit.retired else retire(commit, mark))
    results.put((me, None))

def run(work, me):
    try:
        work(me)
    except BaseException:
        results.put((me, traceback.format_exc()))

work = {"claim": lambda me: claim, "write": lambda me: write if me < 8 else append}[sys.argv[1]]
racers = [context.Process(target=run, args=(work(me), me)) for me in range(count)]
for racer in racers:
    racer.start()
found = dict(results.get(timeout=100) for _ in racers)
for racer in racers:
    racer.join()
print(json.dumps(found))
"""


def race(what: str, place: Path, processes: int, rounds: int) -> dict[int, Any]:
    command = [sys.executable, "-c", RUN, what, str(place), str(processes), str(rounds)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    return {int(racer): found for racer, found in json.loads(answer.stdout).items()}


def test_one_of_four_processes_wins_each_number(tmp_path):
    won = race("claim", tmp_path, processes=4, rounds=50)
    assert sorted(number for numbers in won.values() for number in numbers) == list(range(1, 51))
    assert len([racer for racer, numbers in won.items() if numbers]) > 1
    for racer, numbers in won.items():
        assert {(tmp_path / commit_name(number)).read_bytes() for number in numbers} <= {b"%d" % racer}
    assert list((tmp_path / "open").iterdir()) == []


def test_eight_writers_and_two_committers_lose_nothing(tmp_path, clips):
    ended = race("write", tmp_path / "x.fold", processes=10, rounds=10)
    assert ended == dict.fromkeys(range(10))
    assert clips.found(tmp_path / "x.fold") == list(range(60))
    chain = Chain(LocalStore(tmp_path / "x.fold"))
    commits = list(chain.advance())
    chain.check_end()
    assert [commit.number for commit in commits] == list(range(1, len(commits) + 1))
    assert len({commit.archive_id for commit in commits}) == 1
    assert len(commits[-1].retired) == 20
    for earlier, later in pairwise(commits):
        assert later.shards[: len(earlier.shards)] == earlier.shards
        assert later.retired[: len(earlier.retired)] == earlier.retired
    assert len(commits) == 1 + len(commits[-1].shards) + 20
    assert list((tmp_path / "x.fold/open").iterdir()) == []
