"""The networks of `weights.py`: fitted here, for so many steps, and kept under out/bench-weights until they change."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from video.clips import BUNDLED, film_frames

from framefold.codecs.base import Codec, FitSettings
from framefold.codecs.clip import Clip, Frames
from framefold.codecs.metrics import psnr
from framefold.codecs.network import FittedNetwork, FloatTensor, SymbolTensors
from framefold.codecs.stream import bitstream
from framefold.codecs.testing import make_clip, run_fit
from framefold.pipeline.registry import load_codec

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "out" / "bench-weights"
FRAMES = 24


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is fitted to what, and where NNCodec is asked to code it."""

    title: str
    codec: str
    config: Mapping[str, Any]
    steps: int
    draw: Callable[[], Clip]
    qps: tuple[int, ...]
    """Quantisation parameters (four to the octave of the step) that cost the picture about 0.1 to 2 dB."""
    qps_dependent: tuple[int, ...]
    """The same with dependent quantisation."""
    opt_qp: bool = False
    """Whether NNCodec's search finds better QPs when it begins at those of `opt_qp`."""

    def fitted(self, *, quick: bool) -> Network:
        """The network, out of the folder or fitted now."""
        clip, steps = self.draw(), max(1, self.steps // 10) if quick else self.steps
        codec = load_codec(self.codec).from_config(self.config)
        made = {"codec": self.codec, "config": self.config, "steps": steps}
        digest = hashlib.sha256(json.dumps(made, sort_keys=True).encode() + clip.frames.tobytes())
        path = KEPT / f"{self.codec}-{digest.hexdigest()[:16]}.npz"
        if not path.exists():
            _fit(codec, clip, steps, path)
        with np.load(path) as stored:
            tensors = {name: stored[name] for name in stored.files if name != _CONFIG}
            config = json.loads(str(stored[_CONFIG]))
        network = FittedNetwork(span=clip.span, codec=self.codec, config=config, tensors=tensors, target=clip)
        return Network(subject=self, network=network, codec=load_codec(self.codec).from_config(config), steps=steps)


_CONFIG = "configuration of the network"


def _fit(codec: Codec, clip: Clip, steps: int, path: Path) -> None:
    print(f"fitting {codec.name} for {steps} steps ...", file=sys.stderr, flush=True)
    network = run_fit(codec.fit(clip, FitSettings(steps=steps)))
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {_CONFIG: np.array(json.dumps(dict(network.config))), **network.tensors}
    np.savez(path, **arrays)  # type: ignore[arg-type] # no tensor is called allow_pickle


@dataclass(frozen=True, kw_only=True)
class Network:
    """A fitted network and the one way in which every figure of it is measured."""

    subject: Subject
    network: FittedNetwork
    codec: Codec = field(repr=False)
    steps: int

    @property
    def weights(self) -> int:
        """How many there are."""
        return sum(tensor.size for tensor in self.network.tensors.values())

    @cached_property
    def before_db(self) -> float:
        """PSNR of the network with its float32 weights."""
        return self.psnr_db(self.network.tensors)

    @cached_property
    def digest(self) -> str:
        """Names what was fitted."""
        whole = b"".join(tensor.tobytes() for tensor in self.network.tensors.values())
        return hashlib.sha256(whole).hexdigest()[:16]

    def psnr_db(self, tensors: Mapping[str, FloatTensor]) -> float:
        """PSNR of the 8-bit frames that these weights give; they may come in another order or flattened."""
        own = self.network.tensors
        weights = {name: np.asarray(tensors[name], np.float32).reshape(own[name].shape) for name in own}
        return min(psnr(self._frames(weights), self._original), 100.0)

    def _frames(self, tensors: Mapping[str, FloatTensor]) -> Frames:
        return self.codec.reconstruct(replace(self.network, tensors=tensors)).frames

    @property
    def _original(self) -> Frames:
        if self.network.target is None:
            raise AssertionError("the network has lost its pixels")
        return self.network.target.frames

    def measured(self, symbols: SymbolTensors, coder: bitstream.Coder = "range") -> tuple[int, float]:
        """Bytes of the stream, and PSNR of what is decoded from it."""
        payload = encoded(self.codec, symbols, coder)
        decoded = decoded_from(payload, self)
        return len(payload), self.psnr_db(decoded.dequantize().tensors)


def encoded(codec: Codec, symbols: SymbolTensors, coder: bitstream.Coder = "range") -> bytes:
    """The stream as the stage `entropy_encode` makes it."""
    return bitstream.encode(symbols, coder=coder, rules=codec.context_rule)


def decoded_from(payload: bytes, network: Network) -> SymbolTensors:
    """What a reader makes of the stream."""
    one = network.network
    rules = network.codec.context_rule
    return bitstream.decode(payload, span=one.span, codec=one.codec, config=one.config, rules=rules)


def bunny() -> Clip:
    """The first frames of the bundled clip."""
    return make_clip(film_frames(BUNDLED)[:FRAMES], name="bunny.mp4")


def picture(name: str) -> Callable[[], Clip]:
    """One of the bundled pictures."""

    def draw() -> Clip:
        with Image.open(ROOT / "examples" / "images" / name) as image:
            pixels = np.array(image.convert("RGB")).transpose(2, 0, 1)
        return make_clip(np.ascontiguousarray(pixels)[None], kind="image", name=name)

    return draw
