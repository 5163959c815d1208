"""The same codecs on a GPU: as good a fit, and decoding that agrees with the CPU's to one level."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from framefold.codecs.base import Codec, FitSettings
from framefold.codecs.gridnerv import GridNerv, GridNervConfig
from framefold.codecs.metrics import psnr
from framefold.codecs.nerv import Nerv, NervConfig
from framefold.codecs.siren import Siren, SirenConfig
from framefold.codecs.testing import make_clip, moving_shapes, run_fit

CODECS: list[tuple[Codec, int, str]] = [
    (GridNerv(GridNervConfig(width=8)), 4, "video"),
    (Nerv(NervConfig(width=4)), 4, "video"),
    (Siren(SirenConfig(width=24)), 1, "image"),
]


@pytest.mark.gpu
@pytest.mark.parametrize(("codec", "frames", "kind"), CODECS, ids=lambda value: getattr(value, "name", ""))
def test_a_gpu_fits_as_well_and_decodes_alike(gpu: str, codec: Codec, frames: int, kind: str) -> None:
    clip = make_clip(moving_shapes(frames, 45, 60), kind=kind)
    on_cpu, on_gpu = (run_fit(codec.fit(clip, FitSettings(steps=300, device=device))) for device in ("cpu", gpu))
    cpu_psnr, gpu_psnr = (psnr(codec.reconstruct(network).frames, clip.frames) for network in (on_cpu, on_gpu))
    assert gpu_psnr > cpu_psnr - 1
    network = replace(on_gpu, target=None)
    there, here = codec.reconstruct(network, device=gpu).frames, codec.reconstruct(network).frames
    assert np.abs(there.astype(int) - here.astype(int)).max() <= 1
