"""What `weights.py` compares with: NNCodec in a process and an environment of its own, and float16."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from framefold.codecs.network import FloatTensor

HERE = Path(__file__).resolve().parent
VENV = HERE.parent / "out" / "bench-venv" / "nncodec"
PEERS = ("nncodec==2.1.3", "numpy==1.26.4")
"""NNCodec says numpy<2; its other requirements (torch, torchvision, OpenCV, ...) are for models that it evaluates."""

Tensors = Mapping[str, npt.NDArray[Any]]
"""Float32 weights, or int32 symbols."""
Judge = Callable[[Mapping[str, FloatTensor]], float]


class PeerFailed(RuntimeError):
    """NNCodec cannot be installed, or has ended; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Coded:
    """What NNCodec made of a network."""

    bytes: int
    encode_s: float
    decode_s: float
    qp: Mapping[str, int]
    """What its search has found, per tensor."""
    tensors: Tensors
    """What it decoded from its bytes."""


class NNCodec:
    """The peer's process. Use it as a context manager."""

    def __enter__(self) -> Self:
        install()
        self._folder = tempfile.TemporaryDirectory(prefix="bench-weights-")
        path = Path(self._folder.name)
        self._tensors, self._decoded = path / "tensors.npz", path / "decoded.npz"
        self._errors = (path / "errors").open("w+")
        command = [str(_python()), str(HERE / "weights_nncodec.py")]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        return self

    def __exit__(self, *exc: object) -> None:
        if self._process.stdin and self._process.stdout:
            self._process.stdin.close()
            self._process.wait()
            self._process.stdout.close()
        self._errors.close()
        self._folder.cleanup()

    def code(
        self, tensors: Tensors, settings: Mapping[str, Any], *, judge: Judge | None = None, rounds: int = 1
    ) -> Coded:
        """Encode and decode; with `judge` it searches a QP per tensor first."""
        np.savez(self._tensors, **tensors)  # type: ignore[arg-type] # no tensor is called allow_pickle
        paths = {"tensors": str(self._tensors), "decoded": str(self._decoded)}
        reply = self._ask({**paths, "settings": dict(settings), "search": judge is not None, "rounds": rounds})
        while judge is not None and "judge" in reply:
            reply = self._ask(judge(_loaded(Path(reply["judge"]))))
        return Coded(**reply, tensors=_loaded(self._decoded))

    def _ask(self, message: object) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise PeerFailed("NNCodec's process has no pipes")
        stdin.write(json.dumps(message) + "\n")
        stdin.flush()
        if not (line := stdout.readline()):
            raise PeerFailed(f"NNCodec: {self._last_words()}")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors if line.strip()]
        return lines[-1] if lines else "ended without a word"


def install() -> None:
    """Make the environment on first use; PeerFailed says why that was not possible."""
    if not _python().exists():
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    pip = [str(_python()), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*pip, *PEERS], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise PeerFailed(f"NNCodec could not be installed: {lines[-1] if lines else 'without a word'}")


def _python() -> Path:
    return VENV / "bin" / "python"


def _loaded(path: Path) -> dict[str, npt.NDArray[Any]]:
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files}


def to_half(tensors: Mapping[str, FloatTensor]) -> bytes:
    """A complete stream of float16: names and shapes, then the numbers."""
    shapes = zlib.compress(json.dumps({name: tensor.shape for name, tensor in tensors.items()}).encode(), 9)
    return len(shapes).to_bytes(4, "little") + shapes + b"".join(t.astype("<f2").tobytes() for t in tensors.values())


def from_half(payload: bytes) -> dict[str, FloatTensor]:
    """Read what `to_half` wrote."""
    start = 4 + int.from_bytes(payload[:4], "little")
    tensors = {}
    for name, shape in json.loads(zlib.decompress(payload[4:start])).items():
        halves = np.frombuffer(payload, "<f2", math.prod(shape), start)
        tensors[name], start = halves.astype(np.float32).reshape(shape), start + halves.nbytes
    return tensors
