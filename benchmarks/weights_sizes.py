"""The first part of `weights.py`: what a fitted network takes, and the picture that is decoded from it.

Every row is a complete stream, names, shapes and tables included, and the PSNR of 8-bit frames drawn from what was
decoded from that stream.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

from weights_networks import KEPT, Network
from weights_peers import Coded, NNCodec, from_half, to_half

from framefold.codecs.base import FitSettings, RateSettings
from framefold.codecs.network import SymbolTensors
from framefold.codecs.quantizing.allocation import Allocation, Rounding
from framefold.codecs.quantizing.quantize import Granularity, quantize
from framefold.codecs.rate.targets import RateTarget
from framefold.codecs.stream.bitstream import Coder
from framefold.codecs.testing import run_fit

Row = dict[str, Any]

NONWEIGHT_BELOW, LAMBDA_SCALE = 4, 0.25
"""NNCodec at its best: vectors one octave finer than weights (by default they take 17 bits a value), a little
rate-distortion optimised quantisation, and a QP per tensor by its own search, which sees the decoded picture."""
UNARY, UNARY_SMALL, SMALL = 10, 1, 20_000
"""Longest unary prefix, less one. Below so many weights the shorter is better: contexts learn in each tensor anew."""

CODERS: Mapping[Coder, str] = {"zstd": "zstd -19", "huffman": "Huffman as in NeRV", "range": "our coder"}
GENTLER = 5.0
"""Learning rate of further steps, in those of `finetune`: half of a fit's."""
GRID = 32
"""Parts of an octave in which the fineness is searched."""
STRIDE = GRID // 2
FINEST = -40 * GRID
MARGIN_DB = 0.02


@dataclass(frozen=True)
class Point:
    """One stream."""

    bytes: int
    psnr_db: float


# The named ways.


def named(network: Network) -> Iterator[Row]:
    """Half precision, then 8 bits with each coder."""
    payload = to_half(network.network.tensors)
    yield _row(network, "float16", Point(len(payload), network.psnr_db(from_half(payload))))
    for granularity in get_args(Granularity):
        symbols = eight_bits(network, granularity)
        for coder, name in CODERS.items():
            point = Point(*network.measured(symbols, coder))
            yield _row(network, f"8 bits, one step per {granularity}, {name}", point)


def eight_bits(network: Network, granularity: Granularity) -> SymbolTensors:
    """Post-training quantisation as most papers have it."""
    return quantize(network.network, bits=8, granularity=granularity)


def _row(network: Network, what: str, point: Point, **more: Any) -> Row:
    return {
        "network": network.subject.title,
        "what": what,
        "bytes": point.bytes,
        "bits_per_weight": 8 * point.bytes / network.weights,
        "psnr_db": point.psnr_db,
        **more,
    }


# Ours.


@dataclass
class PostTraining:
    """Our quantisation of one network at any rate; remembers what it has tried."""

    network: Network
    rounding: Rounding
    allocation: Allocation
    tried: dict[int, float] = field(default_factory=dict)
    """PSNR at a fineness of so many parts of an octave."""

    def reaching(self, psnr_db: float) -> Point:
        """The stream of the coarsest steps that were found to give at least this PSNR.

        The PSNR of small networks goes up and down with the steps: somewhat coarser ones are tried too.
        """
        fine, coarse = self._bracket(psnr_db)
        while coarse - fine > 1:
            middle = (fine + coarse) // 2
            fine, coarse = (middle, coarse) if self._psnr_db(middle) >= psnr_db else (fine, middle)
        if self.network.weights < SMALL:
            fine = max(place for place in range(fine, fine + STRIDE) if self._psnr_db(place) >= psnr_db)
        return Point(*self.network.measured(self._symbols(fine)))

    def _bracket(self, psnr_db: float) -> tuple[int, int]:
        """A place that is fine enough, and a coarser one that is not; the nearest that are known."""
        if not self.tried:
            lost = 10 ** (-psnr_db / 10) - 10 ** (-self.network.before_db / 10)
            self._psnr_db(round(GRID * self.allocation.fineness_for(max(lost, 1e-9))))
        while not (enough := [place for place, reached in self.tried.items() if reached >= psnr_db]):
            self._psnr_db(max(min(self.tried) - STRIDE, FINEST))
            if min(self.tried) == FINEST and self.tried[FINEST] < psnr_db:
                raise ValueError(f"no step is fine enough for {psnr_db:.3f} dB")
        fine = max(enough)
        while not (too_coarse := [place for place in self.tried if place > fine]):
            if self._psnr_db(max(self.tried) + STRIDE) >= psnr_db:
                fine = max(self.tried)
        return fine, min(too_coarse)

    def _symbols(self, place: int) -> SymbolTensors:
        return self.allocation.at(place / GRID, rounding=self.rounding)

    def _psnr_db(self, place: int) -> float:
        """Of the network that a decoder will see; the stream is made of the best."""
        if place not in self.tried:
            self.tried[place] = self.network.psnr_db(self._symbols(place).dequantize().tensors)
        return self.tried[place]


def post_training(network: Network) -> dict[str, PostTraining]:
    """One uniform step per tensor, row or column, and the trellis; small networks are rounded jointly."""
    uniform = Allocation.measured(network.codec, network.network)
    alone = Allocation.measured(network.codec, network.network, jointly=False)
    return {
        "uniform": PostTraining(network, uniform.best_rounding, uniform),
        "trellis": PostTraining(network, "trellis", alone),
    }


def tuned_without_rate(network: Network, psnr_db: float, steps: int) -> Point:
    """As many further steps of the fit with no bits in the loss, then post-training: what more training alone gives."""
    rate = network.codec.gentle_plan(network.network, FitSettings()).learning_rate * GENTLER
    tuned = run_fit(network.codec.finetune(network.network, {}, FitSettings(steps=steps, learning_rate=rate)))
    ways = post_training(replace(network, network=tuned)).values()
    return min((way.reaching(psnr_db) for way in ways), key=lambda point: point.bytes)


def rate_aware(network: Network, psnr_db: float, steps: int) -> Point:
    """The bits in the loss of some further steps of the fit, at no less than this PSNR if it can be had.

    What misses it is tried again, aimed higher by as much.
    """
    found: list[Point] = []
    wanted = psnr_db
    while len(found) < 3 and not (found and found[-1].psnr_db >= psnr_db):
        target = RateTarget(psnr_db=wanted)
        tuning = network.codec.tune_for_rate(network.network, RateSettings(target=target), FitSettings(steps=steps))
        found.append(Point(*network.measured(run_fit(tuning))))
        wanted += psnr_db - found[-1].psnr_db + MARGIN_DB
    return max(found, key=lambda point: point.psnr_db)


def ours_beside_eight_bits(network: Network, ours: Mapping[str, PostTraining], steps: int) -> Iterator[Row]:
    """What the PSNR of 8 bits costs in our ways."""
    symbols = eight_bits(network, "tensor")
    reference = Point(*network.measured(symbols))
    usual = network.measured(symbols, "zstd")[0]
    ways: dict[str, Callable[[], Point]] = {
        "ours, post-training, uniform": lambda: ours["uniform"].reaching(reference.psnr_db),
        "ours, post-training, trellis": lambda: ours["trellis"].reaching(reference.psnr_db),
        f"ours, post-training after {steps} more steps": lambda: tuned_without_rate(network, reference.psnr_db, steps),
        f"ours, rate-aware, {steps} more steps": lambda: rate_aware(network, reference.psnr_db, steps),
    }
    for what, way in ways.items():
        started = time.process_time()
        point = way()
        missed = ", misses the PSNR" * (point.psnr_db < reference.psnr_db)
        below = {"below": 1 - point.bytes / reference.bytes, "below_zstd": 1 - point.bytes / usual}
        yield _row(network, what + missed, point, cpu_s=time.process_time() - started, **below)


# NNCodec.


def nncodec_points(network: Network, peer: NNCodec, *, dependent: bool) -> Iterator[Row]:
    """Its points as it comes, then at its best."""
    qps = network.subject.qps_dependent if dependent else network.subject.qps
    for qp in qps:
        coded = peer.code(network.network.tensors, {"qp": qp, "use_dq": dependent})
        yield _peer_row(network, "defaults", qp, coded, dependent=dependent)
    for qp in qps:
        settings = {
            "qp": qp,
            "use_dq": dependent,
            "opt_qp": network.subject.opt_qp,
            "nonweight_qp": qp - NONWEIGHT_BELOW,
            "lambda_scale": LAMBDA_SCALE,
            "cabac_unary_length_minus1": UNARY_SMALL if network.weights < SMALL else UNARY,
        }
        yield _peer_row(network, "tuned", qp, _tuned(network, peer, settings), dependent=dependent)


def _peer_row(network: Network, settings: str, qp: int, coded: Coded, *, dependent: bool) -> Row:
    point = Point(coded.bytes, network.psnr_db(coded.tensors))
    what = f"{settings}, QP {qp}, {'dependent' if dependent else 'uniform'}"
    return _row(network, what, point, dependent=dependent, settings=settings)


def _tuned(network: Network, peer: NNCodec, settings: Mapping[str, Any]) -> Coded:
    """Code with what the search has found, which is remembered: it takes a minute."""
    path = KEPT / f"nncodec-{network.digest}.json"
    known: dict[str, dict[str, int]] = json.loads(path.read_text()) if path.exists() else {}
    key = json.dumps(settings, sort_keys=True)
    tensors = network.network.tensors
    if key not in known:
        print(f"NNCodec searches: {network.subject.title} {key} ...", file=sys.stderr, flush=True)
        known[key] = dict(peer.code(tensors, settings, judge=network.psnr_db).qp)
        path.write_text(json.dumps(known, indent=1))
    return peer.code(tensors, {**settings, "opt_qp": False, "qp_per_tensor": known[key]})


def beside_nncodec(network: Network, peer: NNCodec, ours: Mapping[str, PostTraining]) -> Iterator[Row]:
    """Each point of NNCodec, and ours with no less PSNR."""
    for dependent in (False, True):
        for row in nncodec_points(network, peer, dependent=dependent):
            for name, way in ours.items():
                point = way.reaching(row["psnr_db"])
                row[f"{name}_bytes"], row[f"{name}_db"] = point.bytes, point.psnr_db
                row[f"{name}_ratio"] = point.bytes / row["bytes"]
            yield row


def sizes(networks: Sequence[Network], peer: NNCodec, *, quick: bool) -> list[Row]:
    """All rows of this part."""
    rows: list[Row] = []
    for network in networks:
        ours = post_training(network)
        steps = max(1, network.steps // (20 if quick else 1))
        rows += [{**row, "part": "ways"} for row in named(network)]
        rows += [{**row, "part": "ways"} for row in ours_beside_eight_bits(network, ours, steps)]
        rows += [{**row, "part": "nncodec"} for row in beside_nncodec(network, peer, ours)]
    return rows
