"""The bundled clip: framefold beside x264 and x265 at the same bytes on disk, in one run.

    python benchmarks/video.py [--quick] [--json FILE]

Every row is measured on decoded 8-bit RGB frames read back from the file that was written. CPU seconds are
user + system time: of the stages' own work for framefold (Ray's start-up is in the wall column), of the
encoding call for x264 and x265, each on one thread. PSNR is the mean over frames.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from framefold.codecs.clip import Frames
from framefold.codecs.metrics import ms_ssim, psnr
from framefold.stages.video_source import VideoSource

ROOT = Path(__file__).parent.parent
CLIP = ROOT / "examples" / "bunny.mp4"


@dataclass(frozen=True)
class Line:
    """One row of the table."""

    system: str
    bytes: int
    bits_per_pixel: float
    psnr_db: float
    ms_ssim: float
    encode_cpu_s: float
    encode_wall_s: float
    decode_cpu_s: float


def read_frames(path: Path) -> Frames:
    """All frames as (T, 3, H, W) uint8 RGB, converted in the same way for every system."""
    source = VideoSource(VideoSource.Config(path=str(path)))
    return np.concatenate([emitted.payload.frames for emitted in source.produce()])


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """CPU and wall seconds of a call in this process."""
    cpu, wall = time.process_time(), time.monotonic()
    call()
    return time.process_time() - cpu, time.monotonic() - wall


def line(system: str, path: Path, original: Frames, encode: tuple[float, float]) -> Line:
    """Read the file back and measure it."""
    decode_cpu, _ = timed(lambda: read_frames(path))
    return _line(system, path.stat().st_size, read_frames(path), original, encode=encode, decode_cpu=decode_cpu)


def _line(
    system: str, size: int, decoded: Frames, original: Frames, *, encode: tuple[float, float], decode_cpu: float
) -> Line:
    pixels = original.shape[0] * original.shape[2] * original.shape[3]
    return Line(
        system=system,
        bytes=size,
        bits_per_pixel=8 * size / pixels,
        psnr_db=psnr(decoded, original),
        ms_ssim=ms_ssim(decoded, original),
        encode_cpu_s=encode[0],
        encode_wall_s=encode[1],
        decode_cpu_s=decode_cpu,
    )


def framefold_line(name: str, settings: list[str], folder: Path, original: Frames) -> Line:
    """Run the real command on the real pipeline file; decode with the real command."""
    archive, run_dir, decoded = folder / f"{name}.fold", folder / f"{name}.run", folder / f"{name}.mkv"
    overrides = [f"archive.path={archive}", f"run_dir={run_dir}", *settings]
    pipeline = Path(sys.executable).parent / "pipeline"
    start = time.monotonic()
    flags = [flag for override in overrides for flag in ("--set", override)]
    subprocess.run([pipeline, "run", ROOT / "pipeline.yaml", *flags], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    wall = time.monotonic() - start
    stages = json.loads((run_dir / "report.json").read_text())["stages"]
    cpu = sum(stage["cpu_seconds"] for stage in stages.values())
    before = os.times()
    subprocess.run([pipeline, "decode", archive, decoded], cwd=ROOT, check=True, capture_output=True)
    after = os.times()
    decode_cpu = after.children_user + after.children_system - before.children_user - before.children_system
    size, frames = archive.stat().st_size, read_frames(decoded)
    return _line(f"framefold {name}", size, frames, original, encode=(cpu, wall), decode_cpu=decode_cpu)


def encode(path: Path, frames: Frames, library: str, crf: float) -> None:
    """One thread, preset medium, yuv420p, BT.709, 25 frames/s, in MP4."""
    options = {"crf": f"{crf:.2f}", "preset": "medium", "threads": "1"}
    if library == "libx265":
        options["x265-params"] = "pools=none:frame-threads=1:log-level=error"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(library, rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = frames.shape[2], frames.shape[3], "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1
        for index, picture in enumerate(frames.transpose(0, 2, 3, 1)):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=1, dst_color_range=1)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def at_size(frames: Frames, library: str, size: int, folder: Path) -> Line:
    """The best quality of a library whose whole file is not larger than `size`."""
    low, high = 0.0, 51.0
    path = folder / f"{library}.mp4"
    while high - low > 0.05:
        middle = (low + high) / 2
        encode(path, frames, library, middle)
        low, high = (low, middle) if path.stat().st_size <= size else (middle, high)
    cost = timed(lambda: encode(path, frames, library, high))
    return line(f"{library} medium crf {high:.1f}", path, frames, cost)


def table(lines: list[Line], source_bytes: int) -> str:
    """Markdown, with ratios against the first row."""
    head = "| system | bytes | bpp | PSNR dB | MS-SSIM | encode CPU s | encode wall s | decode CPU s |"
    rows = [
        f"| {row.system} | {row.bytes:,} | {row.bits_per_pixel:.4f} | {row.psnr_db:.2f} | {row.ms_ssim:.4f} "
        f"| {row.encode_cpu_s:.1f} | {row.encode_wall_s:.1f} | {row.decode_cpu_s:.2f} |"
        for row in lines
    ]
    note = f"The source file itself is {source_bytes:,} bytes. torch {torch.__version__}, PyAV {av.__version__}."
    return "\n".join([head, "|---|---|---|---|---|---|---|---|", *rows, "", note])


def main() -> None:
    """Print the table; `--json` also writes one line per row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="ten seconds per fit: to try the script, not to quote")
    parser.add_argument("--json", type=Path, help="append the rows here")
    args = parser.parse_args()
    original = read_frames(CLIP)
    quick = ["fitted.budget.seconds=10", "symbols.budget.seconds=5"] if args.quick else []
    nerv = ["fitted.codec={name: nerv, size: M}", *quick]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = [framefold_line("gridnerv", quick, folder, original), framefold_line("nerv", nerv, folder, original)]
        lines += [at_size(original, library, lines[0].bytes, folder) for library in ("libx264", "libx265")]
    stamp = datetime.now(UTC).isoformat(timespec="minutes")
    print(f"{stamp}, {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print(table(lines, CLIP.stat().st_size))
    if args.json:
        with args.json.open("a") as file:
            file.writelines(json.dumps({"at": stamp, **asdict(row)}) + "\n" for row in lines)


if __name__ == "__main__":
    main()
