"""The main job, killed wherever it writes anything down: the archive is that of a run that nobody disturbed."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import av
import pytest

from framefold.codecs.testing import moving_shapes
from framefold.pipeline.archive import ArchiveReader

KILLED_RUNS = Path(__file__).parent / "killed_runs.py"
PIPELINE = """
pipeline: little
seed: 3
run_dir: {folder}/run
checkpoint_seconds: 1000000
stages:
  frames: {{stage: video_source, path: {folder}/film.mkv}}
  clips: {{stage: segment, inputs: [frames], frames_per_clip: 4}}
  fitted: {{stage: fit, inputs: [clips], codec: {{name: gridnerv, size: S}}, budget: {{steps: 6}}}}
  pruned: {{stage: prune, inputs: [fitted], keep: 0.9, finetune: {{steps: 3}}}}
  symbols: {{stage: quantize, inputs: [pruned], bits: 6}}
  bits: {{stage: entropy_encode, inputs: [symbols]}}
  archive: {{stage: archive_sink, inputs: [bits], path: {archive}}}
"""
NEEDED = (
    "torch._dynamo",
    "torch._refs",
    "framefold.pipeline.cli.run",
    "framefold.pipeline.progress",
    "framefold.pipeline.profile",
    "framefold.stages.archive_sink",
    "framefold.stages.entropy_encode",
    "framefold.stages.fit",
    "framefold.stages.prune",
    "framefold.stages.quantize",
    "framefold.stages.segment",
    "framefold.stages.video_source",
)
"""What each child would otherwise take seconds to import."""
PROGRESS = 3 * (8 + 5)
"""How often an uninterrupted run hears of a fit or a fine-tuning of a clip: at each step, and twice more."""


Unit = tuple[Any, ...]


class Lab:
    """A folder with a film and a pipeline file."""

    def __init__(self, folder: Path, process: subprocess.Popen[str], name: str = "film.fold") -> None:
        self.folder, self._process, self.archive = folder, process, f"{folder}/{name}"
        write_film(folder / "film.mkv")
        (folder / "p.yaml").write_text(PIPELINE.format(folder=folder, archive=self.archive))

    def pipeline(self, *arguments: str, faults: tuple[dict[str, Any], ...] = ()) -> int:
        """The command in a child; its exit code, or the signal below 0."""
        constants = {"framefold.codecs.fitting:SECONDS_BETWEEN_REPORTS": 0}
        job = {"arguments": arguments, "faults": faults, "constants": constants, "output": str(self.folder / "output")}
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        ended: int = json.loads(self._process.stdout.readline())["ended"]
        return ended

    def run(self, *faults: dict[str, Any]) -> int:
        return self.pipeline("run", str(self.folder / "p.yaml"), "--local", faults=faults)

    def again(self, *faults: dict[str, Any]) -> int:
        """The command that the interrupted run has printed."""
        (command,) = re.findall(r"^to go on from here: pipeline (.*)$", self.output, re.MULTILINE)
        return self.pipeline(*shlex.split(command), faults=faults)

    def clean(self) -> None:
        shutil.rmtree(self.folder / "run", ignore_errors=True)
        for path in self.folder.glob("*film.fold*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    @property
    def output(self) -> str:
        return (self.folder / "output").read_text()

    @property
    def reused(self) -> dict[str, int]:
        stages = json.loads((self.folder / "run" / "report.json").read_text())["stages"]
        return {name: node["reused"] for name, node in stages.items() if node["reused"]}

    @property
    def content(self) -> list[Unit]:
        """All that a decoder gets of each unit, and what was measured of the frames that it gives."""
        with ArchiveReader.open(self.archive) as reader:
            records = [(reader.read_unit(unit.id), reader.quality(unit.id) or {}) for unit in reader.units]
        return sorted(
            (unit.key, unit.codec_name, unit.first_frame, unit.pts, unit.payload, measured["frames_sha256"])
            for unit, measured in records
        )

    def committed(self) -> dict[str, int]:
        """Items of each node whose work is done."""
        lines = [line for path in self.folder.glob("run/state/ledger/*") for line in path.read_text().splitlines(True)]
        sound = [json.loads(line[9:]) for line in lines if line.endswith("\n")]
        return dict(Counter(line["node"] for line in sound if line["outputs"]))

    def checkpoints(self) -> list[Path]:
        return list(self.folder.glob("run/state/checkpoints/*/*"))

    def check(self, content: list[Unit]) -> None:
        """The archive is whole, alone, and the one that is expected."""
        assert self.content == content
        assert self.pipeline("verify", self.archive) == 0, self.output
        assert {path.name for path in self.folder.iterdir()} == {"film.mkv", "p.yaml", "run", "output", "film.fold"}

    def frames(self) -> bytes:
        """What the real command decodes."""
        output = self.folder / "decoded"
        assert self.pipeline("decode", str(self.archive), str(output)) == 0, self.output
        pictures = b"".join(path.read_bytes() for path in sorted(output.rglob("*.png")))
        shutil.rmtree(output)
        return pictures


def write_film(path: Path) -> None:
    """Twelve frames, losslessly; the same bytes each time."""
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "bgr0"
        for number, picture in enumerate(moving_shapes(12, 32, 32).transpose(0, 2, 3, 1)):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="bgr0")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def kill(point: str, number: int, when: str = "before", by: signal.Signals = signal.SIGKILL) -> dict[str, Any]:
    return {"point": point, "number": number, "when": when, "signal": by}


@pytest.fixture(scope="module")
def process() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(KILLED_RUNS), *NEEDED]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        yield running


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, process: subprocess.Popen[str]) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"), process)


@pytest.fixture(scope="module")
def whole(lab: Lab) -> tuple[list[Unit], bytes]:
    """What an uninterrupted run puts into the archive, and the frames that come out of it."""
    assert lab.run() == 0, lab.output
    assert lab.committed() == {"fitted": 3, "pruned": 3}
    assert len(lab.content) == 3
    return lab.content, lab.frames()


@pytest.mark.parametrize("when", ["before", "torn", "after"])
def test_killed_at_any_write_of_the_ledger(lab: Lab, whole: tuple[list[Unit], bytes], when: str) -> None:
    content, frames = whole
    for number in count(1):
        lab.clean()
        if lab.run(kill("ledger", number, when)) == 0:
            break
        done = lab.committed()
        assert not Path(lab.archive).exists()
        assert lab.run() == 0, lab.output
        assert lab.reused == done
        lab.check(content)
    assert number > 6
    assert lab.frames() == frames
    assert lab.pipeline("verify", str(lab.archive), "--against", str(lab.folder / "film.mkv")) == 0, lab.output


def test_killed_before_anything_gets_its_name(lab: Lab, whole: tuple[list[Unit], bytes]) -> None:
    for number in count(1, 2):
        lab.clean()
        if lab.run(kill("rename", number)) == 0:
            break
        assert lab.run() == 0, lab.output
        lab.check(whole[0])
    assert number > 6


def test_told_to_stop_it_says_how_to_go_on_and_fits_go_on_where_they_were(
    lab: Lab, whole: tuple[list[Unit], bytes]
) -> None:
    lab.clean()
    assert lab.run(kill("progress", PROGRESS)) == -signal.SIGKILL
    for number, half_done in ((3, 1), (13, 2), (24, 2), (31, 1)):
        lab.clean()
        assert lab.run(kill("progress", number, "after", signal.SIGTERM)) == 128 + signal.SIGTERM
        assert len(lab.checkpoints()) == half_done
        # Whoever would begin a fit anew would come to that fault; the last step of one may be told again.
        assert lab.again(kill("progress", PROGRESS - number + 2)) == 0, lab.output
        lab.check(whole[0])
        assert lab.checkpoints() == []


@pytest.fixture(scope="module")
def folder_lab(tmp_path_factory: pytest.TempPathFactory, process: subprocess.Popen[str]) -> Lab:
    return Lab(tmp_path_factory.mktemp("folder"), process, "film.fold/")


@pytest.mark.parametrize("point", ["link", "rename"])
def test_in_the_folder_form_too_the_next_run_completes_the_archive(
    folder_lab: Lab, whole: tuple[list[Unit], bytes], point: str
) -> None:
    """A name is created by a link: of the README, of the first commit, of the shard, of its commit."""
    lab = folder_lab
    for number in count(1, 1 if point == "link" else 2):
        lab.clean()
        if lab.run(kill(point, number)) == 0:
            break
        done = lab.committed()
        assert lab.run() == 0, lab.output
        assert lab.reused == done
        lab.check(whole[0])
    assert number > 4
    assert lab.frames() == whole[1]
