"""The same bytes are the same integers everywhere: threads, vector instructions, oneDNN and GPUs do not matter."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from framefold.codecs.clip import Source, Span
from framefold.codecs.stream import bitstream

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = ["bitstream_v1_mixed", "bitstream_v2_mixed", "bitstream_v2_rules", "bitstream_v2_child"]
SPAN = Span(source=Source(name="a.png", kind="image", sha256="0" * 64, size_bytes=1, width=1, height=1), pts=(0,))

PROGRAM = """
import hashlib, json, sys
from pathlib import Path
from framefold.codecs.stream import bitstream
from framefold.codecs.clip import Source, Span
source = Source(name="a.png", kind="image", sha256="0" * 64, size_bytes=1, width=1, height=1)
parent = Path(sys.argv[1]).read_bytes()
found = []
for path in sys.argv[1:]:
    options = {"span": Span(source=source, pts=(0,)), "codec": "toy", "config": {}, "parent": parent}
    symbols = bitstream.decode(Path(path).read_bytes(), **options)
    found.append({name: hashlib.sha256(tensor.symbols.astype("<i4").tobytes()).hexdigest()
                  for name, tensor in symbols.tensors.items()})
assert "torch" not in sys.modules
print(json.dumps(found))
"""
"""Decodes without torch: what torch would do differently elsewhere cannot matter."""


def decode(name):
    parent = (GOLDEN / f"{NAMES[0]}.bin").read_bytes()
    payload = (GOLDEN / f"{name}.bin").read_bytes()
    return bitstream.decode(payload, span=SPAN, codec="toy", config={}, parent=parent)


def digests(symbols):
    return {
        name: hashlib.sha256(tensor.symbols.astype("<i4").tobytes()).hexdigest()
        for name, tensor in symbols.tensors.items()
    }


def recorded(name):
    if name == NAMES[0]:
        return digests(decode(name))
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    return {tensor: entry["symbols"] for tensor, entry in golden.items()}


OLD_MACHINE = {
    "OMP_NUM_THREADS": "2",
    "OPENBLAS_NUM_THREADS": "2",
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "NPY_DISABLE_CPU_FEATURES": " ".join(np._core._multiarray_umath.__cpu_dispatch__),
}


@pytest.mark.parametrize("machine", [{"OMP_NUM_THREADS": "1"}, OLD_MACHINE], ids=["one thread", "old machine"])
def test_other_machines_decode_the_same_integers(machine):
    paths = [str(GOLDEN / f"{name}.bin") for name in NAMES]
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, *paths]
    done = subprocess.run(command, env={**os.environ, **machine}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [recorded(name) for name in NAMES]


@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")  # torch sets that flag too, whatever it was
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("onednn", [True, False])
def test_torch_does_not_matter(threads, onednn):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.backends.mkldnn.flags(enabled=onednn):
            for name in NAMES:
                assert digests(decode(name)) == recorded(name)
    finally:
        torch.set_num_threads(before)


@pytest.mark.gpu
def test_a_gpu_sees_the_same_values(gpu):
    for name in NAMES:
        for tensor in decode(name).tensors.values():
            shape = [1] * tensor.symbols.ndim
            if tensor.steps.size > 1:
                shape[tensor.axis] = -1
            symbols = torch.from_numpy(tensor.symbols).to(gpu)
            steps = torch.from_numpy(tensor.steps).to(gpu).reshape(shape)
            values = symbols.float() * steps
            assert np.array_equal(values.cpu().numpy().reshape(tensor.symbols.shape), tensor.dequantize())
            assert np.array_equal(torch.round(values.double() / steps.double()).int().cpu().numpy(), tensor.symbols)
