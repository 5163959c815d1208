"""Draw what the figures mean: one frame of the bundled clip, original and decoded, side by side.

    python benchmarks/video/picture.py out/bunny.fold docs/bunny.png [--frame 36]

Left the original, in the middle framefold, right x264 with the whole file at the same bytes as the archive.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from anchors import X264
from clips import BUNDLED, film_frames
from main_job import at_size
from PIL import Image, ImageDraw

from framefold.codecs.clip import Frames
from framefold.codecs.metrics import psnr


def panel(frames: Frames, number: int, caption: str) -> Image.Image:
    """One frame, untouched, with a line of text below."""
    picture = Image.fromarray(np.ascontiguousarray(frames[number].transpose(1, 2, 0)))
    sheet = Image.new("RGB", (picture.width, picture.height + 24), "white")
    sheet.paste(picture)
    ImageDraw.Draw(sheet).text((4, picture.height + 5), caption, fill="black", font_size=14)
    return sheet


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--frame", type=int, default=36)
    args = parser.parse_args()
    original, size = film_frames(BUNDLED), args.archive.stat().st_size
    with tempfile.TemporaryDirectory() as name:
        decoded = Path(name) / "decoded.mkv"
        command = Path(sys.executable).parent / "pipeline"
        subprocess.run([command, "decode", args.archive, decoded], check=True, capture_output=True)
        ours = film_frames(decoded)
        peer = at_size(original, X264, size, Path(name))
        theirs = film_frames(Path(name) / "libx264.mp4")
    panels = [
        panel(original, args.frame, f"original, {BUNDLED.stat().st_size // 1000} KB"),
        panel(ours, args.frame, f"framefold, {size / 1000:.0f} KB, {psnr(ours, original):.1f} dB"),
        panel(theirs, args.frame, f"x264, {peer.bytes / 1000:.0f} KB, {peer.psnr_db:.1f} dB"),
    ]
    sheet = Image.new("RGB", (sum(one.width for one in panels) + 16, panels[0].height), "white")
    for index, one in enumerate(panels):
        sheet.paste(one, (index * (one.width + 8), 0))
    sheet.save(args.output, optimize=True)


if __name__ == "__main__":
    main()
