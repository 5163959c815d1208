"""Where a stage's networks run."""

from __future__ import annotations

import torch

from framefold.pipeline.stage import StageContext


def device_of(context: StageContext) -> str:
    """`cuda` where the node was granted a share of a GPU and there is one, else `cpu`."""
    return "cuda" if context.gpus > 0 and torch.cuda.is_available() else "cpu"
