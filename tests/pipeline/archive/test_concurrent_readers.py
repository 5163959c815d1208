"""Readers of an archive that grows: each sees whole commits only, and never an older one than before."""

from __future__ import annotations

import subprocess
import sys

from framefold.pipeline.archive import ArchiveReader

COMMITS = 40
STOPS = (10, 20, 30)
"""So many commits the writer makes before it waits to have been seen; in between both run as they please."""
WRITE = """
import hashlib, sys
from framefold.pipeline.archive.folder import FolderWriter

with FolderWriter(sys.argv[1]) as writer:
    print("begun", flush=True)
    for number in range(int(sys.argv[2])):
        if str(number) in sys.argv[3:]:
            sys.stdin.readline()
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
        writer.roll()
"""


def test_snapshots_only_grow(tmp_path, clips):
    place, seen, stops = tmp_path / "x.fold", [], list(STOPS)
    command = [sys.executable, "-c", WRITE, str(place), str(COMMITS), *map(str, STOPS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdout.readline() == "begun\n"
        first = ArchiveReader.open(place)
        while not seen or seen[-1] < COMMITS:
            found = clips.found(place)
            assert found == list(range(len(found)))
            assert len(found) >= (seen[-1] if seen else 0)
            seen.append(len(found))
            if stops and seen[-1] == stops[0]:
                process.stdin.write("\n")
                stops.pop(0)
    assert process.returncode == 0
    assert len(set(seen)) > 3
    with first:
        assert len(first.units) <= seen[0]
        assert [first.read_unit(unit.id).first_frame for unit in first.units] == list(range(len(first.units)))
