"""Rate and distortion with real bytes: every video codec here beside x264, x265 and SVT-AV1, BD-rates at the end.

    python benchmarks/video/rates.py [--clips FOLDER] [--only V132 C128] [--codecs NAME ...] [--seconds N]
                                     [--anchors-only] [--json FILE]

Each codec is asked for archives of 40, 80, 160 and 320 kB, each of which gets `--seconds` of wall-clock time on one
thread; the whole clip is one network. Bytes are those of the file on disk. Every row is measured on 8-bit RGB frames
that were read back from it. CPU seconds are those of the whole commands, starting Python included. `--json` keeps each
finished run as a line; a later invocation of the same day goes on from there, so that many hours can be done in
pieces. `--clips` is the folder with the films (see `clips.py`); by default the bundled clip is measured.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from anchors import ANCHORS, anchor_run
from archives import Recipe, archive_run
from bd_rate import bd_rate
from clips import FILMS, Footage, bundled, film
from record import Log, Run, commit, machine, markdown

CODECS = ("gridnerv", "nerv", "enerv", "hnerv")
SIZES = (40_000, 80_000, 160_000, 320_000)
BUNDLED_FRAMES = 48
HEAD = "| system | settings | bytes | bpp | PSNR dB | MS-SSIM | encode CPU s | encode wall s | decode frames/CPU s |"


def anchor_runs(footage: Footage, log: Log) -> Iterator[Run]:
    """Every library at every quality."""
    with tempfile.TemporaryDirectory() as name:
        for anchor in ANCHORS:
            for crf in anchor.qualities:
                key = ("T2", footage.name, f"{anchor.library} {anchor.preset}", f"crf {crf:g}")
                yield log.measured(key, lambda a=anchor, c=crf: anchor_run(footage, a, c, Path(name)))


def codec_runs(footage: Footage, log: Log, codecs: Sequence[str], seconds: float) -> Iterator[Run]:
    """Every codec at every size."""
    for codec in codecs:
        for size in SIZES:
            recipe = Recipe(codec, size, seconds, len(footage.frames))
            key = ("T2", footage.name, f"framefold {codec}", recipe.preset)
            yield log.measured(key, lambda r=recipe: archive_run("T2", footage, r))


def report(footage: Footage, runs: Sequence[Run]) -> str:
    """One table, then how many more bytes each codec here takes than each anchor."""
    frames, _, height, width = footage.frames.shape
    about = f"{footage.name}: {frames} frames, {width}x{height}; the film itself is {footage.source_bytes:,} bytes."
    rows = [_row(run) for run in runs]
    return "\n".join([about, "", markdown(HEAD, rows), "", *comparisons(runs)])


def _row(run: Run) -> list[str]:
    return [
        run.system,
        run.preset,
        f"{run.bytes:,}",
        f"{run.bpp:.4f}",
        f"{run.psnr:.2f}",
        f"{run.msssim:.4f}",
        f"{run.enc_cpu_s:.1f}",
        f"{run.enc_wall_s:.1f}",
        f"{run.dec_fps_steady or run.dec_fps_first:.0f}",
    ]


def comparisons(runs: Sequence[Run]) -> Iterator[str]:
    """BD-rate of each system of ours against each other system."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for run in runs:
        curves.setdefault(run.system, []).append((float(run.bytes or 0), run.psnr or 0.0))
    for ours in (name for name in curves if name.startswith("framefold")):
        for anchor in (name for name in curves if not name.startswith("framefold")):
            try:
                yield f"- {ours} beside {anchor}: {bd_rate(curves[ours], curves[anchor])}"
            except ValueError as error:
                yield f"- {ours} beside {anchor}: {error}"


def main() -> None:
    """Print a table per clip."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, help="folder with bigbuckbunny.mp4 and car-detection.mp4")
    parser.add_argument("--only", nargs="+", choices=tuple(FILMS), default=tuple(FILMS))
    parser.add_argument("--codecs", nargs="+", choices=CODECS, default=CODECS)
    parser.add_argument("--seconds", type=float, default=120.0, help="wall-clock budget of each archive of ours")
    parser.add_argument("--anchors-only", action="store_true", help="x264, x265 and SVT-AV1 alone: a minute")
    parser.add_argument("--json", type=Path, help="keep runs here, and take over those of today")
    args = parser.parse_args()
    log = Log(args.json)
    print(f"{machine()}, commit {commit()}")
    clips = [film(name, args.clips) for name in args.only] if args.clips else [bundled(BUNDLED_FRAMES)]
    for footage in clips:
        runs = list(anchor_runs(footage, log))
        if not args.anchors_only:
            runs += codec_runs(footage, log, args.codecs, args.seconds)
        print(f"\n{report(footage, runs)}", flush=True)


if __name__ == "__main__":
    main()
