"""A fitted network, and what it shall take: the steps that give it, and why they do not where they cannot."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from framefold.codecs.base import Codec
from framefold.codecs.metrics import psnr
from framefold.codecs.network import FittedNetwork, SymbolTensors
from framefold.codecs.rate.rate_search import (
    BytesGoal,
    Candidate,
    Found,
    Goal,
    PsnrGoal,
    Search,
    search,
)
from framefold.codecs.rate.targets import Outcome, RateTarget

FINEST, COARSEST = -40.0, 40.0
"""Octaves either side of what a quantizer takes for 0: further than any goal lies."""
USUAL_MSE = 1e-4
"""Where to begin if bytes are wanted: what rounding adds, samples 0..1, at a few bits per weight."""
LEAST_LOSS_DB = 0.05
"""What rounding is always allowed: nearer to the network's own picture, bits are spent for nothing."""


@dataclass(frozen=True, kw_only=True)
class RateControl:
    """One network, one target, and how to get from a fineness to a stream and to a picture."""

    network: FittedNetwork
    target: RateTarget
    codec: Codec
    """The network's own, to draw its frames."""
    quantize: Callable[[float], SymbolTensors]
    """The network at a fineness: log2 of a scale that all steps share, smaller is finer."""
    encode: Callable[[SymbolTensors], bytes]
    """As the stream will be encoded."""
    device: str = "cpu"
    fineness_for: Callable[[float], float] | None = None
    """The fineness at which rounding adds about that mean squared error (samples 0..1), to begin near the goal ..."""
    fineness_at: Callable[[float], float] | None = None
    """... and the one at which symbols take about so many bits."""
    finest: float = FINEST
    coarsest: float = COARSEST

    def run(self) -> Generator[Candidate, None, SymbolTensors]:
        """Give each stream that was tried, then the best network; its `outcome` says what was reached.

        ValueError for a target in dB if the network came without its pixels.
        """
        found = yield from self.search()
        reason = "" if self._is_met(found.best) else self.reason(found)
        outcome = Outcome(target=self.target, weights=self._weights, evaluations=len(found.points), reason=reason)
        return replace(found.best.symbols, outcome=outcome)

    def _start(self) -> float:
        goal = self.goal
        if isinstance(goal, BytesGoal) and self.fineness_at is not None:
            return self.fineness_at(8 * goal.aim)
        if self.fineness_for is None:
            return 0.0
        return self.fineness_for(goal.added_mse if isinstance(goal, PsnrGoal) else USUAL_MSE)

    def search(self) -> Search:
        """Begin the search."""
        return search(self.candidate, self.goal, start=self._start(), finest=self.finest, coarsest=self.coarsest)

    @cached_property
    def goal(self) -> Goal:
        """What is searched for: for a quality that the network has not got, nearly the one that it has."""
        allowed = self.target.bytes_for(self.network.span, self._weights)
        if allowed is not None:
            return BytesGoal(bytes=allowed, ceiling_db=self._known_ceiling_db)
        attainable = min(self.target.value, self.ceiling_db - LEAST_LOSS_DB)
        return PsnrGoal(psnr_db=attainable, ceiling_db=self.ceiling_db)

    @cached_property
    def ceiling_db(self) -> float:
        """PSNR of the network before rounding."""
        return self._psnr_db(self.network)

    def _known_ceiling_db(self) -> float | None:
        return self.ceiling_db if self.network.target else None

    @cached_property
    def _weights(self) -> int:
        return sum(tensor.size for tensor in self.network.tensors.values())

    def candidate(self, fineness: float) -> Candidate:
        """Quantize and encode; the picture is drawn when somebody asks for it."""
        symbols = self.quantize(fineness)
        return Candidate(symbols=symbols, bytes=len(self.encode(symbols)), measure=partial(self._drawn, symbols))

    def _drawn(self, symbols: SymbolTensors) -> float:
        return self._psnr_db(symbols.dequantize())

    def _psnr_db(self, network: FittedNetwork) -> float:
        pixels = self.network.target
        if pixels is None:
            raise ValueError(
                f"{network.span.label}: a target in dB needs the pixels the network was fitted to; "
                "quantize in the pipeline that fits, or give a target in bytes"
            )
        frames = self.codec.reconstruct(network, device=self.device).frames
        return min(psnr(frames, pixels.frames, pixels.pixels), 100.0)

    def _is_met(self, best: Candidate) -> bool:
        quality = best.psnr_db if self.target.kind == "psnr_db" else None
        reached = self.target.reached(self.network.span, size=best.bytes, weights=self._weights, psnr_db=quality)
        return reached is not None and self.target.is_met_by(reached)

    def reason(self, found: Found) -> str:
        """Why the best that was found is not what was wanted, and what would help."""
        if isinstance(self.goal, PsnrGoal):
            return self._too_poor(found.best)
        sizes = [point.candidate.bytes for point in found.points]
        if found.saturated:
            return (
                f"{sizes[-1]} bytes give the picture before rounding, {self.ceiling_db:.2f} dB; take a larger network"
            )
        return _off(sizes, self.target.bytes_for(self.network.span, self._weights) or 0.0)

    def _too_poor(self, best: Candidate) -> str:
        own = f"the network itself gives {self.ceiling_db:.2f} dB before rounding"
        if self.ceiling_db < self.target.value + LEAST_LOSS_DB:
            return f"{own}; take a larger size or a longer fit"
        return f"the finest steps tried give {best.psnr_db:.2f} dB, {own}; allow finer steps"


def _off(sizes: Sequence[int], allowed: float) -> str:
    if min(sizes) > allowed:
        return f"the coarsest steps take {min(sizes)} bytes; take a smaller network, or prune more"
    if max(sizes) < allowed:
        return f"the finest steps take {max(sizes)} bytes; take a larger network"
    below, above = max(size for size in sizes if size <= allowed), min(size for size in sizes if size > allowed)
    return f"the nearest steps take {below} and {above} bytes; take a slightly larger or smaller network"
