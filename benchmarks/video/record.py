"""One JSON line per run: what was measured, and what a later invocation takes over."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from framefold.codecs.clip import Frames
from framefold.codecs.metrics import ms_ssim, psnr

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One system on one clip. PSNR and MS-SSIM are means over 8-bit RGB frames; None: not measured."""

    tier: str
    clip: str
    system: str
    preset: str
    """What makes this run another than the next one of the same system."""
    commit: str = ""
    params: int | None = None
    bytes: int | None = None
    """Of the whole file on disk."""
    bpp: float | None = None
    psnr: float | None = None
    msssim: float | None = None
    enc_cpu_s: float | None = None
    """User and system time of the process that encodes and its children, from its start."""
    enc_wall_s: float | None = None
    enc_gpu_s: float | None = None
    compile_s: float | None = None
    own_metrics_cpu_s: float | None = None
    """The part of `enc_cpu_s` in which a peer's program measures its own pictures."""
    dec_fps_first: float | None = None
    dec_fps_steady: float | None = None
    peak_mem_mb: float | None = None
    steps: int | None = None
    threads: int = 1
    load1: float | None = None
    device: str = "cpu"
    torch: str = torch.__version__
    seed: int | None = None
    run_id: str = ""
    """Machine and day; ratios are made within one only."""
    at: str = ""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What a run is known by."""
        return self.tier, self.clip, self.system, self.preset

    def showing(self, decoded: Frames, original: Frames) -> Run:
        """Add how good the picture is, and the rate if there are bytes."""
        pixels = original.shape[0] * original.shape[2] * original.shape[3]
        bpp = 8 * self.bytes / pixels if self.bytes is not None else None
        return replace(self, psnr=psnr(decoded, original), msssim=ms_ssim(decoded, original), bpp=bpp)


class Log:
    """The runs of a JSON-lines file, and a place for further ones; a path of None keeps them in memory only."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.run_id = f"{platform.node()}-{platform.machine()}-{os.cpu_count()}-{datetime.now(UTC):%Y%m%d}"
        lines = path.read_text().splitlines() if path and path.exists() else []
        runs = [Run(**json.loads(line)) for line in lines if line.strip()]
        self.runs = {run.key: run for run in runs if run.run_id == self.run_id}

    def measured(self, key: tuple[str, str, str, str], measure: Callable[[], Run]) -> Run:
        """Take over the run of this key, if this machine made it today; else measure and append it."""
        if key not in self.runs:
            load = os.getloadavg()[0]
            run = replace(measure(), load1=round(load, 2), run_id=self.run_id, at=now())
            if run.key != key:
                raise ValueError(f"measured {run.key}, asked for {key}")
            self.runs[key] = run
            self._append(run)
        return self.runs[key]

    def _append(self, run: Run) -> None:
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(json.dumps(asdict(run)) + "\n")


def now() -> str:
    """UTC, to the minute."""
    return datetime.now(UTC).isoformat(timespec="minutes")


def commit() -> str:
    """Short hash of what is checked out, with a + if files differ from it; empty outside a checkout."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False)
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def machine() -> str:
    """One line for the head of a table."""
    load = os.getloadavg()[0]
    return f"{now()}, {platform.machine()}, {os.cpu_count()} cores, load {load:.1f}, torch {torch.__version__}"


def markdown(head: str, rows: list[list[Any]]) -> str:
    """A table; `head` is its first line."""
    columns = head.strip("| ").split("|")
    lines = [head, "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])
