"""Single frames out of a file, beside x264 in Matroska; and what more clips cost.

    python benchmarks/video/access.py [--clips FOLDER] [--codec NAME] [--seconds N] [--only seek growth] [--json FILE]

`seek`: 32 random frames, one by one, CPU milliseconds each. An archive is opened, its chunk read, decoded and built
anew for each frame (`cold`), or the network is kept after the first (`warm`); a Matroska file is opened once, then
sought and decoded from the key frame before. x264 has its default distance of key frames, and then none but key
frames. Every frame alone is compared with the same frame of the whole decode. `growth`: 1, 2, 4 and 8 clips of 16
frames in one run of the pipeline, each with the same budget in steps: CPU seconds and peak memory of the command.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import yaml
from anchors import X264, encode
from archives import PIPELINE, Recipe, command, write_lossless
from clips import Footage, bundled, film
from record import Log, Run, commit, machine, markdown

from framefold.codecs.clip import Frames
from framefold.codecs.network import FittedNetwork
from framefold.pipeline.archive import ArchiveReader
from framefold.stages.archive_source import stored_bitstream
from framefold.stages.codec_choice import codec_of
from framefold.stages.streams import decoded

SEEKS = 32
SEEK_FRAMES = 48
GROWTH = (1, 2, 4, 8)
GROWTH_FRAMES = 16
GROWTH_STEPS = 160

Draw = Callable[[int], Frames]
"""Frame number to its picture, (1, 3, H, W)."""


class OneFrame:
    """Frames of an archive with one clip, one at a time."""

    def __init__(self, archive: Path) -> None:
        with ArchiveReader.open(archive) as reader:
            symbols = decoded(stored_bitstream(reader, reader.units[0].id))
        self.network: FittedNetwork = symbols.dequantize()
        self.codec: Any = codec_of(self.network.codec, self.network.config)
        _, self.module = self.codec.load(self.network)
        self.module.eval()

    def __call__(self, number: int) -> Frames:
        """One pass through the network, rounded as `reconstruct` does."""
        with torch.inference_mode():
            picture = self.module(torch.tensor([number]))
        pixels: Frames = picture.float().mul(255).round_().clamp_(0, 255).to(torch.uint8).numpy()
        return pixels

    def all(self) -> Frames:
        """The whole clip."""
        frames: Frames = self.codec.reconstruct(self.network).frames
        return frames


def from_file(archive: Path, number: int) -> Frames:
    """One frame of a file that is not open yet."""
    return OneFrame(archive)(number)


def sought(path: Path) -> Draw:
    """Frames of a video file that stays open."""
    container = av.open(str(path))
    stream = container.streams.video[0]
    frame_time = 1 / (25 * stream.time_base)

    def draw(number: int) -> Frames:
        wanted = round(number * frame_time)
        container.seek(wanted, stream=stream)
        for frame in container.decode(stream):
            if frame.pts is not None and frame.pts >= wanted - frame_time / 2:
                return frame.to_ndarray(format="rgb24").transpose(2, 0, 1)[None]
        raise ValueError(f"{path} has no frame {number}")

    return draw


def milliseconds(draw: Draw, numbers: Sequence[int]) -> list[float]:
    """CPU time of each."""
    times = []
    for number in numbers:
        start = time.process_time()
        draw(number)
        times.append(1000 * (time.process_time() - start))
    return times


def seek(footage: Footage, codec: str, seconds: float) -> Iterator[str]:
    """Write the files, draw 32 frames from each, then compare all frames of ours with the whole decode."""
    frames = footage.frames[:SEEK_FRAMES]
    numbers = np.random.default_rng(0).integers(0, len(frames), SEEKS).tolist()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive = _archive(folder, frames, codec, seconds)
        warm = OneFrame(archive)
        rows = [
            _row(f"framefold {codec}, cold", archive, milliseconds(partial(from_file, archive), numbers)),
            _row(f"framefold {codec}, warm", archive, milliseconds(warm, numbers)),
        ]
        for said, options in (("", {}), (", key frames only", {"g": "1"})):
            path = folder / f"x264{options.get('g', '')}.mkv"
            encode(path, frames, replace(X264, options={**X264.options, **options}), 28)
            rows.append(_row(f"x264 crf 28 in Matroska{said}", path, milliseconds(sought(path), numbers)))
        apart = [int(np.abs(warm(i)[0].astype(int) - whole).max()) for i, whole in enumerate(warm.all())]
    yield f"{footage.name}[0:{len(frames)}], {SEEKS} random frames"
    yield ""
    yield markdown("| file | bytes | median CPU ms a frame | slowest |", rows)
    yield f"\n{apart.count(0)} of {len(frames)} frames of ours are alone just what they are in the whole decode, where"
    yield f"many are drawn at once; the others differ by at most {max(apart)} of 255."


def _archive(folder: Path, frames: Frames, codec: str, seconds: float) -> Path:
    source, archive = folder / "clip.mkv", folder / "clip.fold"
    write_lossless(frames, source)
    stages = Recipe(codec, 40_000, seconds, len(frames)).stages(source, archive)
    (folder / "pipeline.yaml").write_text(yaml.safe_dump({"pipeline": "clip", "stages": stages}, sort_keys=False))
    command("run", "pipeline.yaml", "--local", folder=folder)
    return archive


def _row(name: str, path: Path, times: Sequence[float]) -> list[str]:
    return [name, f"{path.stat().st_size:,}", f"{statistics.median(times):.1f}", f"{max(times):.1f}"]


def growth_run(footage: Footage, codec: str, clips: int) -> Run:
    """One run of the pipeline over so many clips."""
    frames = np.concatenate([footage.frames] * 8)[: clips * GROWTH_FRAMES]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_lossless(frames, folder / "clip.mkv")
        stages = {**Recipe(codec, 40_000, 1, GROWTH_FRAMES).stages(folder / "clip.mkv", folder / "clip.fold")}
        stages["fitted"] = {**_untargeted(stages["fitted"]), "budget": {"steps": GROWTH_STEPS}}
        stages["symbols"] = {**_untargeted(stages["symbols"]), "budget": {"steps": GROWTH_STEPS // 4}}
        (folder / "pipeline.yaml").write_text(yaml.safe_dump({"pipeline": "clip", "stages": stages}, sort_keys=False))
        cpu, wall, peak = _cost(folder)
        size = (folder / "clip.fold").stat().st_size
    return Run(
        tier="T2 growth",
        clip=footage.name,
        system=f"framefold {codec}",
        preset=f"{clips} clips",
        commit=commit(),
        bytes=size,
        enc_cpu_s=cpu,
        enc_wall_s=wall,
        peak_mem_mb=peak,
        steps=clips * GROWTH_STEPS,
    )


def _untargeted(node: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key != "target"}


def _cost(folder: Path) -> tuple[float, float, float]:
    """CPU seconds, wall seconds and peak memory in MB of the pipeline's process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    start = time.monotonic()
    process = subprocess.Popen(
        [str(PIPELINE), "run", "pipeline.yaml", "--local"], cwd=folder, env=environment, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"pipeline run ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime, time.monotonic() - start, usage.ru_maxrss / 1024


def growth(footage: Footage, codec: str, log: Log) -> Iterator[str]:
    """A row per number of clips, and what each further clip costs."""
    runs = []
    for clips in GROWTH:
        key = ("T2 growth", footage.name, f"framefold {codec}", f"{clips} clips")
        runs.append(log.measured(key, lambda c=clips: growth_run(footage, codec, c)))
    rows = [
        [str(clips), f"{run.enc_cpu_s:.1f}", f"{run.enc_cpu_s / clips:.1f}", f"{run.peak_mem_mb:.0f}", f"{run.bytes:,}"]
        for clips, run in zip(GROWTH, runs, strict=True)
    ]
    yield f"{footage.name}, clips of {GROWTH_FRAMES} frames, {GROWTH_STEPS} steps each"
    yield ""
    yield markdown("| clips | CPU s | CPU s a clip | peak MB | bytes |", rows)


def main() -> None:
    """Print both parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, help="folder with bigbuckbunny.mp4; by default the bundled clip")
    parser.add_argument("--codec", default="gridnerv")
    parser.add_argument("--seconds", type=float, default=60.0, help="budget of the archive that frames are sought in")
    parser.add_argument("--only", nargs="+", choices=("seek", "growth"), default=("seek", "growth"))
    parser.add_argument("--json", type=Path, help="keep runs of `growth` here, and take over those of today")
    args = parser.parse_args()
    torch.set_num_threads(1)
    footage = film("V132", args.clips) if args.clips else bundled(SEEK_FRAMES)
    print(f"{machine()}, commit {commit()}\n")
    parts = {
        "seek": lambda: seek(footage, args.codec, args.seconds),
        "growth": lambda: growth(footage, args.codec, Log(args.json)),
    }
    for part in args.only:
        for line in parts[part]():
            print(line, flush=True)
        print()


if __name__ == "__main__":
    main()
