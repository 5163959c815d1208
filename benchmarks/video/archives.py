"""A clip to an archive file and back, through the real commands in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import yaml
from anchors import timed
from clips import Footage, film_frames
from record import Run, commit

from framefold.codecs.clip import Frames

PIPELINE = Path(sys.executable).parent / "pipeline"
FIT_SHARE = 0.75
"""Of a budget; the rest is for tuning with the bits in the loss."""


@dataclass(frozen=True)
class Recipe:
    """What one archive is made with."""

    codec: str
    bytes: int
    """Wanted of each clip's stream."""
    seconds: float
    """Wall-clock budget of each clip, fitting and tuning."""
    frames_per_clip: int

    @property
    def preset(self) -> str:
        """As the record has it."""
        return f"{self.bytes / 1000:g} kB, {self.seconds:g} s"

    def stages(self, source: Path, archive: Path) -> Mapping[str, Any]:
        """The pipeline, as its file would have it."""
        target = {"bytes": self.bytes}
        fit, tune = FIT_SHARE * self.seconds, (1 - FIT_SHARE) * self.seconds
        codec = {"name": self.codec}
        return {
            "frames": {"stage": "video_source", "path": str(source)},
            "clips": {"stage": "segment", "inputs": ["frames"], "frames_per_clip": self.frames_per_clip},
            "fitted": {
                "stage": "fit",
                "inputs": ["clips"],
                "codec": codec,
                "budget": {"seconds": fit},
                "target": target,
            },
            "symbols": {"stage": "finetune", "inputs": ["fitted"], "budget": {"seconds": tune}, "target": target},
            "bits": {"stage": "entropy_encode", "inputs": ["symbols"]},
            "archive": {"stage": "archive_sink", "inputs": ["bits"], "path": str(archive)},
        }


def write_lossless(frames: Frames, path: Path) -> None:
    """FFV1 of RGB, 25 frames/s: the input that the commands read; ValueError if it does not come back bit for bit."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = frames.shape[2], frames.shape[3], "bgr0"
        for index, picture in enumerate(frames.transpose(0, 2, 3, 1)):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    if not np.array_equal(film_frames(path, len(frames)), frames):
        raise ValueError(f"{path} does not hold the frames that were written")


def archive_run(tier: str, footage: Footage, recipe: Recipe) -> Run:
    """Encode to a file, decode that, measure: CPU seconds of the whole commands."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, archive, decoded = folder / "clip.mkv", folder / "clip.fold", folder / "decoded.mkv"
        write_lossless(footage.frames, source)
        document = {"pipeline": "clip", "seed": 0, "stages": recipe.stages(source, archive)}
        (folder / "pipeline.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
        cpu, wall = timed(lambda: command("run", "pipeline.yaml", "--local", folder=folder))
        decode_cpu, _ = timed(lambda: command("decode", str(archive), str(decoded), folder=folder))
        frames = film_frames(decoded, len(footage.frames))
        size = archive.stat().st_size
    run = Run(
        tier=tier,
        clip=footage.name,
        system=f"framefold {recipe.codec}",
        preset=recipe.preset,
        commit=commit(),
        bytes=size,
        enc_cpu_s=cpu,
        enc_wall_s=wall,
        dec_fps_first=len(frames) / decode_cpu,
        seed=0,
    )
    return run.showing(frames, footage.frames)


def command(*arguments: str, folder: Path) -> None:
    """Run `pipeline`, one thread; SystemExit with what it said if it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(PIPELINE), *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"pipeline {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
