"""One fit in a process of its own: `python fit_once.py JOB.json`, which says what to fit, and gets what it cost.

CPU seconds are those of the whole process up to the end of the fit, starting Python and importing torch included.
Drawing and measuring come after, and are not counted.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from framefold.codecs.base import FitSettings
from framefold.codecs.clip import Frames
from framefold.codecs.network import FittedNetwork
from framefold.codecs.testing import make_clip, run_fit
from framefold.pipeline.registry import load_codec


def main() -> None:
    """Fit, note the cost, draw twice."""
    path = Path(sys.argv[1])
    job = json.loads(path.read_text())
    clip = make_clip(np.load(job["frames"]))
    codec = load_codec(job["codec"]).from_config(job["config"])
    start = time.monotonic()
    network = run_fit(codec.fit(clip, FitSettings(**job["settings"])))
    cost = {"cpu_s": time.process_time(), "wall_s": time.monotonic() - start}
    cost["peak_mem_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cost["params"] = sum(tensor.size for tensor in network.tensors.values())
    for name in ("dec_fps_first", "dec_fps_steady"):
        frames, seconds = _drawn(codec, network)
        cost[name] = len(frames) / seconds
    np.save(job["decoded"], frames)
    path.write_text(json.dumps({**job, "cost": cost}))


def _drawn(codec: Any, network: FittedNetwork) -> tuple[Frames, float]:
    start = time.process_time()
    frames = codec.reconstruct(network).frames
    return frames, time.process_time() - start


if __name__ == "__main__":
    main()
