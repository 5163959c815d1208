"""The bundled clip: framefold beside x264 and x265 at the same bytes on disk, in one run.

    python benchmarks/video/main_job.py [--quick] [--json FILE]

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
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import av
import torch
from anchors import X264, X265, Anchor, encode, timed
from clips import BUNDLED, film_frames

from framefold.codecs.clip import Frames
from framefold.codecs.metrics import ms_ssim, psnr

ROOT = Path(__file__).parents[2]


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


def line(system: str, path: Path, original: Frames, encode: tuple[float, float]) -> Line:
    """Read the file back and measure it."""
    decode_cpu, _ = timed(lambda: film_frames(path))
    return _line(system, path.stat().st_size, film_frames(path), original, encode=encode, decode_cpu=decode_cpu)


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
    # What is compared is 8-bit RGB, so that is what is fitted, not the film's own 4:2:0.
    overrides = [f"archive.path={archive}", f"run_dir={run_dir}", "frames.pixels=rgb", *settings]
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
    size, frames = archive.stat().st_size, film_frames(decoded)
    return _line(f"framefold {name}", size, frames, original, encode=(cpu, wall), decode_cpu=decode_cpu)


def at_size(frames: Frames, anchor: Anchor, size: int, folder: Path) -> Line:
    """The best quality of a library whose whole file is not larger than `size`."""
    low, high = 0.0, 51.0
    path = folder / f"{anchor.library}.mp4"
    while high - low > 0.05:
        middle = (low + high) / 2
        encode(path, frames, anchor, middle)
        low, high = (low, middle) if path.stat().st_size <= size else (middle, high)
    cost = timed(lambda: encode(path, frames, anchor, high))
    return line(f"{anchor.library} {anchor.preset} crf {high:.1f}", path, frames, cost)


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
    original = film_frames(BUNDLED)
    quick = ["fitted.budget.seconds=10", "symbols.budget.seconds=5"] if args.quick else []
    nerv = ["fitted.codec={name: nerv, size: M}", *quick]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = [framefold_line("gridnerv", quick, folder, original), framefold_line("nerv", nerv, folder, original)]
        lines += [at_size(original, anchor, lines[0].bytes, folder) for anchor in (X264, X265)]
    stamp = datetime.now(UTC).isoformat(timespec="minutes")
    print(f"{stamp}, {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print(table(lines, BUNDLED.stat().st_size))
    if args.json:
        with args.json.open("a") as file:
            file.writelines(json.dumps({"at": stamp, **asdict(row)}) + "\n" for row in lines)


if __name__ == "__main__":
    main()
