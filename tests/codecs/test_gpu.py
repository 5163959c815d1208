"""The same codecs on a GPU: as good a fit and tuning, and decoding that agrees with the CPU's to one level."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from framefold.codecs.base import Codec, FitSettings, RateSettings
from framefold.codecs.enerv import ENerv, ENervConfig
from framefold.codecs.gridnerv import GridNerv, GridNervConfig
from framefold.codecs.hnerv import HNerv, HNervConfig
from framefold.codecs.metrics import psnr
from framefold.codecs.nerv import Nerv, NervConfig
from framefold.codecs.pixel_format import PixelFormat
from framefold.codecs.pyramid import Pyramid, PyramidConfig
from framefold.codecs.rate.targets import RateTarget
from framefold.codecs.siren import Siren, SirenConfig
from framefold.codecs.stream import bitstream
from framefold.codecs.testing import make_clip, moving_shapes, run_fit

CODECS: list[tuple[Codec, int, str]] = [
    (GridNerv(GridNervConfig(width=8)), 4, "video"),
    (Nerv(NervConfig(width=4)), 4, "video"),
    (ENerv(ENervConfig(width=12)), 4, "video"),
    (HNerv(HNervConfig(width=12, embedding_width=4)), 4, "video"),
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


@pytest.mark.gpu
@pytest.mark.parametrize("codec", [CODECS[0][0], CODECS[3][0]], ids=lambda codec: codec.name)
def test_a_gpu_fits_ten_bits_of_coarse_chroma(gpu: str, codec: Codec) -> None:
    pixels = PixelFormat(model="yuv", depth=10, chroma=(2, 2))
    wide = moving_shapes(3, 45, 61).astype(np.uint16) * 4
    clip = make_clip(pixels.spread([plane.copy() for plane in pixels.stored(wide)], 45, 61), pixels=pixels)
    on_cpu, on_gpu = (run_fit(codec.fit(clip, FitSettings(steps=300, device=device))) for device in ("cpu", gpu))
    cpu_psnr, gpu_psnr = (psnr(codec.reconstruct(each).frames, clip.frames, pixels) for each in (on_cpu, on_gpu))
    assert gpu_psnr > cpu_psnr - 1
    there, here = codec.reconstruct(on_gpu, device=gpu).frames, codec.reconstruct(on_gpu).frames
    assert np.abs(there.astype(int) - here.astype(int)).max() <= 1


@pytest.mark.gpu
@pytest.mark.parametrize(("codec", "frames", "kind"), CODECS, ids=lambda value: getattr(value, "name", ""))
def test_a_gpu_tunes_for_rate_and_its_stream_holds_the_same_integers(
    gpu: str, codec: Codec, frames: int, kind: str
) -> None:
    clip = make_clip(moving_shapes(frames, 45, 60), kind=kind)
    network = run_fit(codec.fit(clip, FitSettings(steps=300, device=gpu)))
    rate, settings = RateSettings(target=RateTarget(bits_per_weight=5)), FitSettings(steps=100, device=gpu)
    tuned = run_fit(codec.tune_for_rate(network, rate, settings))
    stream = bitstream.encode(tuned)
    decoded = bitstream.decode(stream, span=tuned.span, codec=tuned.codec, config=tuned.config)
    for name, tensor in tuned.tensors.items():
        assert np.array_equal(decoded.tensors[name].symbols, tensor.symbols)
        assert np.array_equal(decoded.tensors[name].dequantize(), tensor.dequantize())
    assert 8 * len(stream) == pytest.approx(5 * sum(tensor.size for tensor in network.tensors.values()), rel=0.03)
    there, here = (
        psnr(codec.reconstruct(decoded.dequantize(), device=each).frames, clip.frames) for each in (gpu, "cpu")
    )
    assert there == pytest.approx(here, abs=0.05)
    assert here > psnr(codec.reconstruct(network).frames, clip.frames) - 2


@pytest.mark.gpu
def test_a_gpu_fits_with_bits_in_the_loss_from_the_start(gpu: str) -> None:
    codec = Pyramid(PyramidConfig(widths=(12, 8), bottlenecks=(6, 8)))
    clip = make_clip(moving_shapes(4, 45, 60))
    rate = RateSettings(bit_price=30.0)
    fits = (codec.fit_for_rate(clip, rate, FitSettings(steps=400, device=device)) for device in ("cpu", gpu))
    on_cpu, on_gpu = (run_fit(fitting) for fitting in fits)
    stream = bitstream.encode(on_gpu)
    decoded = bitstream.decode(stream, span=on_gpu.span, codec=on_gpu.codec, config=on_gpu.config).dequantize()
    assert len(stream) < 1.3 * len(bitstream.encode(on_cpu))
    there, here = (psnr(codec.reconstruct(decoded, device=each).frames, clip.frames) for each in (gpu, "cpu"))
    assert there == pytest.approx(here, abs=0.05)
    assert here > psnr(codec.reconstruct(on_cpu.dequantize()).frames, clip.frames) - 1
