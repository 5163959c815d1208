"""Video networks beside their authors' code: PSNR by CPU seconds, at equal parameters, on the same 16 frames.

    python benchmarks/video/speed.py [--clip FOLDER] [--peers FOLDER --peers-python PATH] [--only nerv enerv hnerv]
                                     [--rates X ...] [--shares X ...] [--quick] [--json FILE]

Each peer is run as published and with learning rates of 4, 6 and 2 times that (`--rates`); its best is the tuned peer.
Ours is fitted anew for each share of a peer's CPU seconds (`--shares`), since a schedule ends where its budget does;
so a row's seconds are all that its picture took. Whole processes are counted, starting Python included; of the peers
also with what they spend on measuring their own pictures, which their row says. `--clip` takes the first 16 PNGs
(320x180) of a folder; by default the frames are the bundled clip's. How peers are laid out is said in `peers.py`;
without them ours is fitted for the same numbers of steps. `--json` keeps every run as a line; what a machine has
measured today is taken over from there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from clips import Footage, bundled, pictures
from peers import EPOCHS, PEERS, Peer, Place, Tuning, python_of
from record import Log, Run, commit, machine, markdown

FRAMES = 16
CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "nerv": {"shape": "lean", "width": 28, "encoding_levels": 40},
    "enerv": {"width": 44, "block_widths": (64, 24, 12), "middle_width": 20},
    "hnerv": {"width": 44},
}
"""Ours with the parameters of each peer, within 3 %."""
RATE_FACTORS = (4.0, 6.0, 2.0)
SHARES = (1 / 8, 1 / 5, 1 / 3, 2 / 3, 1.0)
"""Of a peer's CPU seconds."""
BUSY = 4
"""Wall over CPU seconds above which a run has shared its core with too many others."""
PROBE_EPOCHS = 2
STARTING_S = 3.0
"""CPU seconds before the first step, about; the runs say what it really was."""
HEAD = (
    "| system | settings | parameters | steps | CPU s | of them own metrics | share | wall / CPU "
    "| PSNR dB | MS-SSIM | peak MB |"
)


@dataclass(frozen=True)
class Contest:
    """One peer and our codec of the same idea, on one clip."""

    peer: Peer
    footage: Footage
    log: Log
    place: Place | None
    epochs: int

    def peer_runs(self, factors: Sequence[float]) -> list[Run]:
        """As published, then with other rates; HNeRV's published batch of 2 is tried with 1, too."""
        if self.place is None:
            return []
        tunings = [Tuning(factor) for factor in (1.0, *factors)]
        tunings += [Tuning(4.0, 1)] if self.peer.batch > 1 else []
        return [self._peer_run(self.place, tuning) for tuning in tunings]

    def _peer_run(self, place: Place, tuning: Tuning) -> Run:
        key = ("T1", self.footage.name, self.peer.name, tuning.name)
        return self.log.measured(key, lambda: place.run(self.peer, tuning, self.footage, epochs=self.epochs))

    def our_runs(self, budget: float | None, shares: Sequence[float]) -> Iterator[Run]:
        """One fit per share of the budget in CPU seconds, or of the peer's steps where there is none."""
        steps = self.epochs * FRAMES
        per_step = self._per_step() if budget else 0.0
        for share in shares:
            if budget:
                steps = FRAMES * max(1, round((share * budget - STARTING_S) / per_step / FRAMES))
            preset = f"{share:.3f} of {budget:.0f} s" if budget else f"{share:.3f} of the steps"
            yield self.our_run(preset, steps if budget else max(FRAMES, round(share * steps)))

    def _per_step(self) -> float:
        probe = self.our_run(f"probe {PROBE_EPOCHS}", PROBE_EPOCHS * FRAMES)
        longer = self.our_run(f"probe {3 * PROBE_EPOCHS}", 3 * PROBE_EPOCHS * FRAMES)
        return max(1e-3, ((longer.enc_cpu_s or 0) - (probe.enc_cpu_s or 0)) / (2 * PROBE_EPOCHS * FRAMES))

    def our_run(self, preset: str, steps: int) -> Run:
        """One fit, in a process of its own."""
        codec = self.peer.ours
        key = ("T1", self.footage.name, f"framefold {codec}", preset)
        return self.log.measured(key, lambda: fitted(self.footage, key, codec, CONFIGS[codec], {"steps": steps}))


def fitted(
    footage: Footage, key: tuple[str, str, str, str], codec: str, config: Mapping[str, Any], settings: Mapping[str, Any]
) -> Run:
    """Fit a codec in a process of its own and measure what it draws."""
    with tempfile.TemporaryDirectory() as name:
        job, frames, decoded = (Path(name) / each for each in ("job.json", "frames.npy", "decoded.npy"))
        np.save(frames, footage.frames)
        paths = {"frames": str(frames), "decoded": str(decoded)}
        job.write_text(json.dumps({"codec": codec, "config": config, "settings": settings, **paths}))
        script = str(Path(__file__).with_name("fit_once.py"))
        subprocess.run([sys.executable, script, str(job)], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        cost, drawn = json.loads(job.read_text())["cost"], np.load(decoded)
    tier, clip, system, preset = key
    run = Run(
        tier=tier,
        clip=clip,
        system=system,
        preset=preset,
        commit=commit(),
        params=cost["params"],
        enc_cpu_s=cost["cpu_s"],
        enc_wall_s=cost["wall_s"],
        dec_fps_first=cost["dec_fps_first"],
        dec_fps_steady=cost["dec_fps_steady"],
        peak_mem_mb=cost["peak_mem_mb"],
        steps=settings.get("steps"),
        seed=settings.get("seed", 0),
    )
    return run.showing(drawn, footage.frames)


def report(peer_runs: Sequence[Run], our_runs: Sequence[Run]) -> str:
    """The table and what follows from it."""
    base = peer_runs[0].enc_cpu_s if peer_runs else None
    rows = [_row(run, base) for run in (*peer_runs, *our_runs)]
    return "\n".join([markdown(HEAD, rows), "", *(f"- {line}" for line in findings(peer_runs, our_runs))])


def _row(run: Run, base: float | None) -> list[str]:
    seconds = run.enc_cpu_s or 0.0
    return [
        run.system,
        run.preset,
        f"{run.params or 0:,}",
        str(run.steps),
        f"{seconds:.1f}",
        f"{run.own_metrics_cpu_s:.1f}" if run.own_metrics_cpu_s else "",
        f"{seconds / base:.2f}" if base else "",
        f"{(run.enc_wall_s or 0.0) / seconds:.1f}",
        f"{run.psnr:.2f}",
        f"{run.msssim:.4f}",
        f"{run.peak_mem_mb:.0f}",
    ]


def findings(peer_runs: Sequence[Run], our_runs: Sequence[Run]) -> Iterator[str]:
    """Seconds to a peer's picture, and the picture after a peer's seconds: as published, then tuned."""
    if not peer_runs:
        return
    published, tuned = peer_runs[0], max(peer_runs, key=lambda run: run.psnr or 0.0)
    if any((run.enc_wall_s or 0.0) > BUSY * (run.enc_cpu_s or 0.0) for run in (*peer_runs, *our_runs)):
        yield f"the machine was too busy: where wall / CPU is above {BUSY}, measure again before quoting"
    for run in dict.fromkeys((published, tuned)):
        seconds, wanted = run.enc_cpu_s or 0.0, run.psnr or 0.0
        net = seconds - (run.own_metrics_cpu_s or 0.0)
        equal = [each for each in our_runs if (each.enc_cpu_s or 0.0) <= seconds]
        reached = [each for each in our_runs if (each.psnr or 0.0) >= wanted]
        name = f"{run.system}, {run.preset}, {wanted:.2f} dB after {seconds:.1f} s"
        if reached:
            first = min(each.enc_cpu_s or 0.0 for each in reached)
            shares = f"{first / seconds:.2f} of them ({first / net:.2f} without its metrics)"
            yield f"{name}: ours has that after {first:.1f} s, {shares}"
        else:
            yield f"{name}: ours did not get there"
        if equal:
            best = max(each.psnr or 0.0 for each in equal)
            yield f"{name}: ours has {best:.2f} dB in no more seconds, {best - wanted:+.2f} dB"


def main() -> None:
    """Print a table per codec."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, help="folder of PNGs, 320x180; by default the bundled clip")
    parser.add_argument("--peers", type=Path, help="folder of the peers' checkouts")
    parser.add_argument("--peers-python", type=Path, help="Python of their environment; by default this one")
    parser.add_argument("--only", nargs="+", choices=tuple(CONFIGS), default=tuple(CONFIGS))
    parser.add_argument("--rates", nargs="*", type=float, default=RATE_FACTORS, help="factors of the published rate")
    parser.add_argument("--shares", nargs="*", type=float, default=SHARES, help="of a peer's CPU seconds, for ours")
    parser.add_argument("--quick", action="store_true", help="two epochs: to try the script, not to quote")
    parser.add_argument("--json", type=Path, help="keep runs here, and take over those of today")
    args = parser.parse_args()
    footage = pictures(args.clip, FRAMES) if args.clip else bundled(FRAMES)
    log = Log(args.json)
    print(f"{machine()}, clip {footage.name}, commit {commit()}")
    for peer in PEERS:
        if peer.ours not in args.only:
            continue
        if absent := peer.absent(args.peers):
            print(f"\n{absent}")
        place = None if absent else Place(args.peers.resolve(), python_of(args.peers_python))
        contest = Contest(peer, footage, log, place, 2 if args.quick else EPOCHS)
        theirs = contest.peer_runs(args.rates)
        ours = list(contest.our_runs(theirs[0].enc_cpu_s if theirs else None, args.shares))
        print(f"\n{report(theirs, ours)}", flush=True)


if __name__ == "__main__":
    main()
