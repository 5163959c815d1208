"""Fits a network whose size follows from what its stream shall take, or how good its picture shall be.

Bytes and bits per pixel give the size at once: about so many weights as take them at the codec's `bits_per_weight`.
For a quality sizes are tried, from the codec's own on and each with the whole budget, until the network is as good as
was asked, and a little better, for rounding costs something; then the fit ends early. A size that the codec's options
fix, or that a start gives, stays.

How many bits suit a codec was measured by short fits of several sizes, quantized to the same bytes. gridnerv, 24
frames 320x180, 30,000 bytes: 29.7 dB with 2.5 bits a weight, 30.1 with 3.2, 29.5 with 4, 29.0 with 5. siren, a
picture 128x192, 2,000 bytes: 26.2 dB with 4, 28.7 with 5, 30.1 with 6, 29.1 with 8.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from framefold.codecs.base import Codec, FitProgress, FitSettings, FitState, Fitting
from framefold.codecs.clip import Clip
from framefold.codecs.metrics import psnr
from framefold.codecs.network import FittedNetwork
from framefold.codecs.rate.targets import RateTarget

ROUNDING_LOSS_DB = 0.5
"""By so much a network has to be better than its stream shall be: what rounding cost at the best of the sizes above."""
MAX_SIZES = 3
"""Sizes that are tried for a quality."""
DB_PER_DOUBLING = 2.0
"""What twice the weights give, about; a size is at most four times the one before."""
LEAST_GAIN_DB = 0.1
"""A larger size that gives less was for nothing: more of the same will not help."""
STREAM_BYTES = 64
"""Of a stream that no weight takes: names, shapes, steps."""

_log = logging.getLogger(__name__)


def fit_to(
    codec: Codec, target: RateTarget | None, clip: Clip, settings: FitSettings, *, choose_size: bool | None = None
) -> Fitting:
    """Fit a network to the clip; ValueError if `settings.resume` is the state of another fit.

    `choose_size`: whether the size follows from the target; None: unless the codec's options state one. A start has
    its own size.
    """
    free = settings.start is None and (not codec.states_size if choose_size is None else choose_size)
    if target is not None and target.psnr_db is not None:
        return _Climb(codec, clip, target.psnr_db + ROUNDING_LOSS_DB, MAX_SIZES if free else 1).run(settings)
    allowed = target.bytes_for(clip.span) if target else None
    if allowed is None or not free:
        return codec.fit(clip, settings)
    weights = 8 * max(allowed - STREAM_BYTES, 0.0) / codec.bits_per_weight
    return codec.sized(clip.span, weights).fit(clip, settings)


@dataclass(frozen=True, kw_only=True)
class _Rung:
    """A size, and what was reached below it."""

    number: int = 0
    weights: int | None = None
    """Asked for; None for the codec's own size."""
    best: FittedNetwork | None = None
    best_db: float = 0.0

    def state(self, fit: FitState | None) -> FitState:
        """As plain data."""
        best = self.best and {"config": dict(self.best.config), "tensors": dict(self.best.tensors)}
        return {"number": self.number, "weights": self.weights, "best": best, "best_db": self.best_db, "fit": fit}


@dataclass(frozen=True)
class _Climb:
    """From size to size, until the network is good enough."""

    codec: Codec
    clip: Clip
    wanted_db: float
    sizes: int
    """At most so many are tried."""

    def run(self, settings: FitSettings) -> Fitting:
        """Give the progress of one fit after the other; returns the best network."""
        rung, fit = self._resumed(settings.resume)
        settings = replace(settings, target_psnr_db=self.wanted_db)
        while True:
            network = yield from self._fitted(rung, replace(settings, resume=fit))
            fit = None
            quality = self._psnr_db(network, settings.device)
            _log.info("%s: %d weights give %.2f dB", self.clip.span.label, _weights(network), quality)
            higher = self._next(rung, network, quality)
            if higher is None:
                return network if quality >= rung.best_db or rung.best is None else rung.best
            rung = higher

    def _fitted(self, rung: _Rung, settings: FitSettings) -> Fitting:
        fitting = self._codec(rung).fit(self.clip, settings)
        while True:
            try:
                progress = next(fitting)
            except StopIteration as end:
                network: FittedNetwork = end.value
                return network
            yield self._told(rung, progress)

    def _told(self, rung: _Rung, progress: FitProgress) -> FitProgress:
        state = partial(_state, rung, progress) if progress.state else None
        return replace(progress, fraction=(rung.number + progress.fraction) / self.sizes, state=state)

    def _codec(self, rung: _Rung) -> Codec:
        return self.codec if rung.weights is None else self.codec.sized(self.clip.span, rung.weights)

    def _psnr_db(self, network: FittedNetwork, device: str) -> float:
        reader = type(self.codec).from_config(network.config)
        return min(psnr(reader.reconstruct(network, device=device).frames, self.clip.frames, self.clip.pixels), 100.0)

    def _next(self, rung: _Rung, network: FittedNetwork, quality: float) -> _Rung | None:
        """A larger size, unless this one will do, or a larger one promises nothing."""
        lacking = self.wanted_db - quality
        if lacking <= 0 or rung.number + 1 >= self.sizes or (rung.best and quality < rung.best_db + LEAST_GAIN_DB):
            return None
        weights = round(_weights(network) * 2 ** min(max(lacking / DB_PER_DOUBLING, 0.5), 2.0))
        return _Rung(number=rung.number + 1, weights=weights, best=network, best_db=quality)

    def _resumed(self, state: FitState | None) -> tuple[_Rung, FitState | None]:
        if state is None:
            return _Rung(), None
        match state:
            case {"number": int(number), "weights": weights, "best": best, "best_db": float(best_db), "fit": fit}:
                return _Rung(number=number, weights=weights, best=self._kept(best), best_db=best_db), fit
        raise ValueError("the state to go on from is not one of a fit with a target in dB; fit from the start")

    def _kept(self, best: Any) -> FittedNetwork | None:
        if not isinstance(best, Mapping):
            return None
        name, span = self.codec.name, self.clip.span
        return FittedNetwork(span=span, codec=name, config=best["config"], tensors=best["tensors"], target=self.clip)


def _state(rung: _Rung, progress: FitProgress) -> FitState:
    return rung.state(progress.state() if progress.state else None)


def _weights(network: FittedNetwork) -> int:
    return sum(tensor.size for tensor in network.tensors.values())
