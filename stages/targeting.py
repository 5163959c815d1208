"""`target: {bpp: 0.05}` in the stages that quantize: finds the steps for it, and says how it comes on."""

from __future__ import annotations

from collections.abc import Callable, Generator

from framefold.codecs.network import FittedNetwork, SymbolTensors
from framefold.codecs.rate.rate_control import RateControl
from framefold.codecs.rate.rate_search import MAX_EVALUATIONS, Candidate
from framefold.codecs.rate.targets import RateTarget
from framefold.pipeline.stage import Progress
from framefold.stages.codec_choice import codec_of
from framefold.stages.streams import encoded


def quantized_to(
    network: FittedNetwork,
    target: RateTarget,
    quantize: Callable[[float], SymbolTensors],
    *,
    fineness_for: Callable[[float], float] | None = None,
    fineness_at: Callable[[float], float] | None = None,
    encode: Callable[[SymbolTensors], bytes] | None = None,
    device: str = "cpu",
) -> Generator[Progress, None, SymbolTensors]:
    """Find the steps for a target: a progress for each stream that is tried, at the end the quantized network.

    `quantize` gives the network at a fineness (log2 of a scale that all steps share), `fineness_for` the fineness at
    which that adds about a mean squared error and `fineness_at` the one at which it takes about so many bits, both to
    begin near the goal. `encode` gives the stream; None for the one that `entropy_encode` makes unless it is told
    otherwise. What comes back has an `outcome`, which travels to the report. ValueError for a target in dB if the
    network came without its pixels.
    """
    codec = codec_of(network.codec, network.config)
    control = RateControl(
        network=network,
        target=target,
        codec=codec,
        quantize=quantize,
        encode=encode or _payload,
        fineness_for=fineness_for,
        fineness_at=fineness_at,
        device=device,
    )
    search, tried = control.run(), 0
    while True:
        try:
            candidate = next(search)
        except StopIteration as end:
            symbols: SymbolTensors = end.value
            return symbols
        tried += 1
        yield Progress(tried / MAX_EVALUATIONS, _values(candidate))


def _payload(symbols: SymbolTensors) -> bytes:
    return encoded(symbols).payload


def _values(candidate: Candidate) -> dict[str, float]:
    return {"bits": 8.0 * candidate.bytes}
