"""Rate control: what was wanted of six clips and pictures, and what their streams have.

    python benchmarks/weights_targets.py [--quick]

For each target a network is fitted from nothing (the target chooses its size), quantized to it and coded; bytes are
those of the stream, PSNR is that of the frames decoded from it. A deviation in bytes is relative, one in PSNR in dB
(positive: better than wanted). `tries` are the streams that were made to find the steps; `seek s` is what that took on
one thread, the first measurement of the sensitivity included, and `fit s` the fit before it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from video.clips import BUNDLED, film_frames

from framefold.codecs.base import Codec, FitSettings
from framefold.codecs.clip import Clip, Frames
from framefold.codecs.gridnerv import GridNerv
from framefold.codecs.metrics import psnr
from framefold.codecs.network import FittedNetwork, SymbolTensors
from framefold.codecs.quantizing.allocation import Allocation
from framefold.codecs.rate.fit_to_target import fit_to
from framefold.codecs.rate.rate_control import RateControl
from framefold.codecs.rate.targets import RateTarget
from framefold.codecs.siren import Siren
from framefold.codecs.stream import bitstream
from framefold.codecs.testing import make_clip, run_fit

PICTURES = Path(__file__).parent.parent / "examples" / "images"
CLIP_TARGETS = (RateTarget(bpp=0.15), RateTarget(bytes=30_000), RateTarget(psnr_db=27))
PICTURE_TARGETS = (RateTarget(bpp=0.6), RateTarget(bytes=2500), RateTarget(psnr_db=28))


@dataclass(frozen=True)
class Line:
    """One row of the table."""

    name: str
    target: RateTarget
    weights: int
    bytes: int
    psnr_db: float
    reached: float
    tries: int
    fit_seconds: float
    seek_seconds: float
    reason: str

    @property
    def deviation(self) -> str:
        """`-0.4 %`, or `+0.02 dB`."""
        if self.target.kind == "psnr_db":
            return f"{self.reached - self.target.value:+.2f} dB"
        return f"{100 * (self.reached / self.target.value - 1):+.1f} %"

    @property
    def verdict(self) -> str:
        """Whether that is what was asked, and if not, why."""
        return "met" if self.target.is_met_by(self.reached) else f"missed: {self.reason}"


def inputs() -> Iterator[tuple[Clip, Codec, tuple[RateTarget, ...], int]]:
    """Two clips of 24 frames, three pictures and a crop; each with its codec, its targets and its steps."""
    frames = film_frames(BUNDLED)
    for first in (0, 24):
        clip = make_clip(frames[first : first + 24], name=f"bunny[{first}:{first + 24}]")
        yield clip, GridNerv(), CLIP_TARGETS, 720
    for path in sorted(PICTURES.glob("*.png")):
        yield make_clip(_pixels(path), kind="image", name=path.stem), Siren(), PICTURE_TARGETS, 3000
    crop = _pixels(PICTURES / "girl.png")[:, :, 16:112, 32:128]
    yield make_clip(np.ascontiguousarray(crop), kind="image", name="girl, 96x96"), Siren(), PICTURE_TARGETS, 3000


def _pixels(path: Path) -> Frames:
    return np.array(Image.open(path).convert("RGB"))[None].transpose(0, 3, 1, 2)


def measured(clip: Clip, codec: Codec, target: RateTarget, steps: int) -> Line:
    """Fit, quantize to the target, code, decode."""
    begun = time.monotonic()
    network = run_fit(fit_to(codec, target, clip, FitSettings(steps=steps)))
    fitted = time.monotonic()
    symbols = sought(network, type(codec).from_config(network.config), target)
    ended = time.monotonic()
    if (outcome := symbols.outcome) is None:
        raise ValueError("a network that was quantized to a target says what came of it")
    reader = type(codec).from_config(network.config)
    rules = reader.context_rule
    payload = bitstream.encode(symbols, rules=rules)
    stored = bitstream.decode(payload, span=clip.span, codec=network.codec, config=network.config, rules=rules)
    decoded = reader.reconstruct(stored.dequantize())
    quality = psnr(decoded.frames, clip.frames)
    return Line(
        name=clip.span.source.name,
        target=target,
        weights=outcome.weights,
        bytes=len(payload),
        psnr_db=quality,
        reached=outcome.reached(clip.span, size=len(payload), psnr_db=quality) or 0.0,
        tries=outcome.evaluations,
        fit_seconds=fitted - begun,
        seek_seconds=ended - fitted,
        reason=outcome.reason,
    )


def sought(network: FittedNetwork, codec: Codec, target: RateTarget) -> SymbolTensors:
    """The network in the steps that meet the target."""
    allocation = Allocation.measured(codec, network)
    control = RateControl(
        network=network,
        target=target,
        codec=codec,
        quantize=partial(allocation.at, rounding=allocation.best_rounding),
        encode=partial(bitstream.encode, rules=codec.context_rule),
        fineness_for=allocation.fineness_for,
        fineness_at=allocation.fineness_at,
    )
    return run_fit(control.run())


def lines(*, quick: bool = False) -> Iterator[Line]:
    """Every input with each of its targets; `quick`: a fifth of the steps."""
    for clip, codec, targets, steps in inputs():
        for target in targets:
            yield measured(clip, codec, target, steps // 5 if quick else steps)


def rows(*, quick: bool = False) -> Iterator[str]:
    """Give the lines of the table in Markdown, as they come."""
    head = ["input", "target", "reached", "deviation", "weights", "bytes", "PSNR dB", "tries", "fit s", "seek s", ""]
    for cells in (head, ["---"] * len(head)):
        yield _row(cells)
    for line in lines(quick=quick):
        yield _row(_cells(line))


def table(*, quick: bool = False) -> str:
    """Give the whole table."""
    return "\n".join(rows(quick=quick))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(line: Line) -> list[str]:
    return [
        line.name,
        str(line.target),
        line.target.told(line.reached),
        line.deviation,
        f"{line.weights:,}",
        f"{line.bytes:,}",
        f"{line.psnr_db:.2f}",
        str(line.tries),
        f"{line.fit_seconds:.1f}",
        f"{line.seek_seconds:.1f}",
        line.verdict,
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a fifth of the steps: a check, not a figure")
    torch.set_num_threads(1)
    for row in rows(quick=parser.parse_args().quick):
        print(row, flush=True)


if __name__ == "__main__":
    main()
