"""NNCodec, alone in its process: networks in, its bitstreams and what it decodes from them out.

    python weights_nncodec.py        in an environment of its own, which needs only `nncodec` and NumPy

It reads one JSON request per line from standard input and writes one JSON answer per line to standard output:

    {"tensors": "in.npz", "decoded": "out.npz", "settings": {...}, "search": false, "rounds": 1}
    -> {"bytes": 12345, "encode_s": 0.1, "decode_s": 0.05, "qp": {}}

`settings` are arguments of `nncodec.nnc.compress`; times are the best of the rounds. With `search` NNCodec searches one
QP per tensor first (its "inference-optimised quantisation"), which the answer's `qp` names. For that it asks back how
good a network is: `{"judge": "trial.npz"}` is answered by one JSON number, larger is better.
"""

from __future__ import annotations

import json
import math
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np

# nncodec.framework trains and evaluates torch and TensorFlow models, and imports torch, torchvision, OpenCV, pandas
# and scikit-learn for that. compress() and decompress() of NumPy arrays use nothing of it; empty modules stand in.
_framework = types.ModuleType("nncodec.framework")
for _name in ("tensorflow_model", "pytorch_model", "use_case_init"):
    setattr(_framework, _name, types.ModuleType(f"nncodec.framework.{_name}"))
sys.modules["nncodec.framework"] = _framework

from nncodec import nnc, nnc_core  # type: ignore[import-not-found] # noqa: E402 - after the stand-in
from nncodec.nnc_core.nnr_model import ModelExecute  # type: ignore[import-not-found] # noqa: E402

Tensors = dict[str, np.ndarray[Any, np.dtype[Any]]]


class Judge(ModelExecute):  # type: ignore[misc] # nncodec has no types
    """Asks the other side how good a network is."""

    def __init__(self, trial: Path) -> None:
        self._trial = trial

    def has_eval(self) -> bool:
        """Networks can be judged ..."""
        return True

    def has_test(self) -> bool:
        """... and nothing else."""
        return False

    def has_tune_ft(self) -> bool:
        """Nothing is trained here."""
        return False

    def has_tune_lsa(self) -> bool:
        """Nothing is trained here."""
        return False

    def eval_model(self, parameters: Tensors, *_: object) -> dict[str, float]:
        """One number, larger is better."""
        np.savez(self._trial, **parameters)  # type: ignore[arg-type] # no tensor is called allow_pickle
        _say({"judge": str(self._trial)})
        return {"quality": float(json.loads(_requests.readline()))}


class Noted:
    """NNCodec's search, with its findings kept."""

    def __init__(self) -> None:
        self.qp: dict[str, int] = {}
        self._search = nnc_core.approximator.inference_based_qp_opt
        nnc_core.approximator.inference_based_qp_opt = self

    def __call__(self, approx_info: dict[str, Any], *rest: Any, **more: Any) -> None:
        """Search; `approx_info` is changed in place."""
        self._search(approx_info, *rest, **more)
        self.qp = {name: int(qp) for name, qp in approx_info["qp"].items()}


def answer(request: dict[str, Any], noted: Noted) -> dict[str, Any]:
    """Code and decode."""
    tensors = dict(np.load(request["tensors"]))
    decoded_path = Path(request["decoded"])
    settings, noted.qp = dict(request["settings"]), {}
    if request["search"]:
        settings |= {"ioq": True, "model_executer": Judge(decoded_path.with_name("trial.npz"))}
    encode_s = decode_s = math.inf
    for _ in range(request["rounds"]):
        started = time.perf_counter()
        stream = bytes(nnc.compress(tensors, bitstream_path=None, return_bitstream=True, **settings))
        encode_s = min(encode_s, time.perf_counter() - started)
        started = time.perf_counter()
        decoded = nnc.decompress(bytearray(stream))
        decode_s = min(decode_s, time.perf_counter() - started)
    np.savez(decoded_path, **decoded)
    return {"bytes": len(stream), "encode_s": encode_s, "decode_s": decode_s, "qp": noted.qp}


def _say(message: dict[str, Any]) -> None:
    _answers.write(json.dumps(message) + "\n")
    _answers.flush()


if __name__ == "__main__":
    _requests, _answers = sys.stdin, sys.stdout
    sys.stdout = sys.stderr  # nncodec prints as it works
    _noted = Noted()
    for _line in _requests:
        _say(answer(json.loads(_line), _noted))
