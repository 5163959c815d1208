"""The second and the third part of `weights.py`: how fast integers become bytes and return, and how near to ideal.

Every system codes the same integers, in rounds in which each has its turn; what is shown is the best of its rounds.
NNCodec is timed inside its own process, around its Python calls, ours and zstd around theirs.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard
from weights_networks import Network
from weights_peers import NNCodec
from weights_sizes import eight_bits

from framefold.codecs.network import FittedNetwork, IntTensor, QuantizedTensor, SymbolTensors
from framefold.codecs.quantizing.allocation import Allocation, Rounding
from framefold.codecs.stream import bitstream
from framefold.codecs.stream.entropy import SymbolWriter
from framefold.codecs.testing import make_clip

Row = dict[str, Any]
Symbols = Mapping[str, IntTensor]

MILLION = 1_000_000


@dataclass
class Times:
    """The best of the rounds."""

    bytes: int = 0
    encode_s: float = math.inf
    decode_s: float = math.inf

    def add(self, size: int, encode_s: float, decode_s: float) -> None:
        """Take note of a round."""
        self.bytes = size
        self.encode_s, self.decode_s = min(self.encode_s, encode_s), min(self.decode_s, decode_s)


class System(ABC):
    """One way from integers to bytes."""

    @abstractmethod
    def round(self, symbols: Symbols) -> tuple[int, float, float]:
        """Bytes, and seconds to encode and to decode; AssertionError if something else comes back."""


@dataclass(frozen=True)
class Ours(System):
    """A whole stream: directory, choice of models, symbols."""

    coder: bitstream.Coder = "range"
    contexts: bool = True
    effort: bitstream.Effort = "best"

    def round(self, symbols: Symbols) -> tuple[int, float, float]:
        """Encode, decode, compare."""
        whole = _as_network(symbols)
        started = time.perf_counter()
        payload = bitstream.encode(whole, coder=self.coder, contexts=self.contexts, effort=self.effort)
        encoded = time.perf_counter()
        back = bitstream.decode(payload, span=whole.span, codec=whole.codec, config=whole.config)
        decoded = time.perf_counter()
        _check(symbols, {name: tensor.symbols for name, tensor in back.tensors.items()})
        return len(payload), encoded - started, decoded - encoded


class PlainZstd(System):
    """The symbols alone as int8 where that is enough, else int16: what zstd itself does."""

    def round(self, symbols: Symbols) -> tuple[int, float, float]:
        """Encode, decode, compare."""
        types = {name: np.int8 if np.abs(array).max(initial=0) < 128 else np.int16 for name, array in symbols.items()}
        started = time.perf_counter()
        plain = b"".join(array.astype(types[name]).tobytes() for name, array in symbols.items())
        payload = zstandard.ZstdCompressor(level=19).compress(plain)
        encoded = time.perf_counter()
        plain, start, back = zstandard.ZstdDecompressor().decompress(payload), 0, {}
        for name, array in symbols.items():
            flat = np.frombuffer(plain, types[name], array.size, start)
            back[name], start = flat.astype(np.int32).reshape(array.shape), start + flat.nbytes
        decoded = time.perf_counter()
        _check(symbols, back)
        return len(payload), encoded - started, decoded - encoded


@dataclass(frozen=True)
class Theirs(System):
    """NNCodec, given the integers: it codes int32 tensors without quantising them."""

    peer: NNCodec
    param_opt: bool = True
    """Its default: it searches how fast its contexts adapt."""

    def round(self, symbols: Symbols) -> tuple[int, float, float]:
        """Encode, decode, compare."""
        coded = self.peer.code(symbols, {"param_opt": self.param_opt})
        _check(symbols, coded.tensors)
        return coded.bytes, coded.encode_s, coded.decode_s


def systems(peer: NNCodec) -> dict[str, System]:
    """All that take part."""
    return {
        "framefold": Ours(),
        "framefold, without contexts": Ours(contexts=False),
        "framefold, effort fast": Ours(effort="fast"),
        "NNCodec": Theirs(peer),
        "NNCodec, param_opt off": Theirs(peer, param_opt=False),
        "zstd -19 of the bare symbols": PlainZstd(),
        "framefold, `coder: zstd`": Ours("zstd"),
        "framefold, `coder: huffman`": Ours("huffman"),
    }


def speed(networks: Sequence[Network], peer: NNCodec, *, quick: bool) -> list[Row]:
    """The same integers through all systems, then float weights through the two that quantise."""
    rounds = 2 if quick else 7
    inputs = {
        f"{one.subject.title}, 8 bits": {
            name: tensor.symbols for name, tensor in eight_bits(one, "tensor").tensors.items()
        }
        for one in networks
    }
    inputs |= {
        f"{MILLION:,} {what}": {"weight": array.reshape(1000, -1)}
        for what, array in drawn(MILLION).items()
        if what in _TIMED
    }
    rows = [row for title, symbols in inputs.items() for row in _raced(title, symbols, systems(peer), rounds)]
    return rows + [row for one in networks for row in _quantised(one, peer, rounds)]


def _raced(title: str, symbols: Symbols, taking_part: Mapping[str, System], rounds: int) -> Iterator[Row]:
    times = {name: Times() for name in taking_part}
    for number in range(rounds):
        names = list(taking_part)
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            times[name].add(*taking_part[name].round(symbols))
    count = sum(array.size for array in symbols.values())
    for name, best in times.items():
        yield _speed_row(title, name, count, best, times["NNCodec"], part="integers")


def _speed_row(title: str, name: str, count: int, best: Times, theirs: Times, *, part: str) -> Row:
    return {
        "part": part,
        "input": title,
        "symbols": count,
        "system": name,
        "bytes": best.bytes,
        "encode_ms_s": count / best.encode_s / 1e6,
        "decode_ms_s": count / best.decode_s / 1e6,
        "encode_ratio": theirs.encode_s / best.encode_s,
        "decode_ratio": theirs.decode_s / best.decode_s,
    }


# From float weights.


@dataclass(frozen=True)
class _Way:
    """Float weights to bytes and back, at steps of about 1/128 of the largest weight."""

    network: FittedNetwork
    allocation: Allocation = field(repr=False)
    peer: NNCodec = field(repr=False)
    dependent: bool
    qp: int

    def ours(self) -> tuple[int, float, float]:
        """Our quantisation and coding; how bits are shared out is known before, as it is for many rates."""
        rounding: Rounding = "trellis" if self.dependent else "rate"
        fineness = self.allocation.fineness_at(6.0 * self.allocation.weights)
        started = time.perf_counter()
        symbols = self.allocation.at(fineness, rounding=rounding)
        payload = bitstream.encode(symbols)
        encoded = time.perf_counter()
        back = bitstream.decode(payload, span=symbols.span, codec=symbols.codec, config=symbols.config)
        weights = back.dequantize().tensors
        decoded = time.perf_counter()
        if any((weights[name] != tensor.dequantize()).any() for name, tensor in symbols.tensors.items()):
            raise AssertionError("other weights came back")
        return len(payload), encoded - started, decoded - encoded

    def theirs(self) -> tuple[int, float, float]:
        """NNCodec's, weighed against rate too."""
        settings = {"qp": self.qp, "nonweight_qp": self.qp - 4, "use_dq": self.dependent, "lambda_scale": 0.25}
        coded = self.peer.code(self.network.tensors, settings)
        return coded.bytes, coded.encode_s, coded.decode_s


def _quantised(network: Network, peer: NNCodec, rounds: int) -> Iterator[Row]:
    allocation = Allocation.of(network.network, network.codec.sensitivity(network.network))
    for dependent in (False, True):
        qps = network.subject.qps_dependent if dependent else network.subject.qps
        way = _Way(network.network, allocation, peer, dependent, qps[0])
        times = {"framefold": Times(), "NNCodec": Times()}
        for _ in range(rounds):
            times["framefold"].add(*way.ours())
            times["NNCodec"].add(*way.theirs())
        title = f"{network.subject.title}, {'trellis' if dependent else 'uniform'}"
        for name, best in times.items():
            yield _speed_row(title, name, network.weights, best, times["NNCodec"], part="floats")


# How near to ideal.


def drawn(count: int, seed: int = 0) -> dict[str, IntTensor]:
    """Independent symbols of one distribution each; int32 (count,)."""
    dice = np.random.default_rng(seed)

    def rounded(values: npt.NDArray[np.float64], most: int) -> IntTensor:
        return np.rint(values).clip(-most, most).astype(np.int32)

    spread = dice.normal(0, 32, count)
    return {
        "normal, 8 bits": rounded(spread, 127),
        "Laplace, 4 bits": rounded(dice.laplace(0, 2, count), 7),
        "normal, sigma 3": rounded(dice.normal(0, 3, count), 127),
        "nine in ten zero": rounded(spread * (dice.random(count) < 0.1), 127),
        "evenly 0 to 9": dice.integers(0, 10, count).astype(np.int32),
    }


_TIMED = ("normal, 8 bits", "Laplace, 4 bits")


def excess(peer: NNCodec, *, quick: bool) -> list[Row]:
    """A million symbols, then few."""
    return [*_many(peer), *_few(50 if quick else 500)]


def _many(peer: NNCodec) -> Iterator[Row]:
    for what, array in drawn(MILLION).items():
        symbols = {"weight": array.reshape(1000, -1)}
        ideal = _empirical_bytes(array)
        for name, system in systems(peer).items():
            size, _, _ = system.round(symbols)
            yield {"part": "many", "input": what, "ideal": ideal, "system": name, "bytes": size, "over": size - ideal}


def _empirical_bytes(array: IntTensor) -> float:
    """What the counts of these very symbols allow, if a decoder knew them for nothing."""
    counts = np.unique(array, return_counts=True)[1]
    return float(-(counts * np.log2(counts / array.size)).sum() / 8)


def _few(draws: int) -> Iterator[Row]:
    """Tensors alone in their writer: model and words, and nothing around them."""
    for count in (1, 2, 4, 8, 16, 32, 64):
        over = {what: [_over(what, count, seed) for seed in range(draws)] for what in _CURVES}
        worst = {what: max(each) for what, each in over.items()}
        mean = {what: sum(each) / draws for what, each in over.items()}
        yield {"part": "few", "count": count, "draws": draws, "mean": mean, "worst": worst}


_CURVES = {"sigma 1": 1.0, "sigma 8": 8.0, "sigma 40": 40.0}


def _over(what: str, count: int, seed: int) -> float:
    """Bytes beyond the ideal code of the normal distribution from which the symbols are drawn."""
    sigma = _CURVES[what]
    array = np.rint(np.random.default_rng(seed).normal(0, sigma, count)).astype(np.int32)
    writer = SymbolWriter()
    writer.write(array)
    model_section, words = writer.finish()
    return len(model_section) + len(words) - _ideal_bits(array, sigma) / 8


def _ideal_bits(array: IntTensor, sigma: float) -> float:
    edges = (array[:, None] + np.array([-0.5, 0.5])) / (sigma * math.sqrt(2))
    shares = [(math.erf(high) - math.erf(low)) / 2 for low, high in edges.tolist()]
    return -sum(math.log2(share) for share in shares)


# Helpers.


def _as_network(symbols: Symbols) -> SymbolTensors:
    span = make_clip(np.zeros((1, 3, 1, 1), np.uint8), kind="image").span
    tensors = {name: QuantizedTensor(symbols=array, steps=np.ones(1, np.float32)) for name, array in symbols.items()}
    return SymbolTensors(span=span, codec="benchmark", config={}, tensors=tensors)


def _check(sent: Symbols, back: Mapping[str, npt.NDArray[Any]]) -> None:
    for name, array in sent.items():
        if not np.array_equal(array, back[name].reshape(array.shape)):
            raise AssertionError(f"{name}: other integers came back")
