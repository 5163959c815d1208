from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from framefold.codecs.base import Codec, FitSettings, Loss, RateSettings
from framefold.codecs.clip import Clip, Source, Span
from framefold.codecs.coin import Coin, CoinConfig
from framefold.codecs.enerv import ENerv, ENervConfig
from framefold.codecs.fitting import FitPlan, fit
from framefold.codecs.gridnerv import GridNerv, GridNervConfig
from framefold.codecs.hnerv import HNerv, HNervConfig
from framefold.codecs.losses import loss_and_error, weighed_loss_and_error
from framefold.codecs.metrics import psnr
from framefold.codecs.nerv import Nerv, NervConfig
from framefold.codecs.pixel_format import GRAY_16, RGB, PixelFormat
from framefold.codecs.pruning.gated_pruning import gate_pruned
from framefold.codecs.pyramid import Pyramid, PyramidConfig
from framefold.codecs.quantizing.quantize import quantize
from framefold.codecs.quantizing.sensitivity import squared_gradients
from framefold.codecs.rate.targets import RateTarget
from framefold.codecs.siren import Siren, SirenConfig
from framefold.codecs.stored_samples import drawn_frames, on_device, stored_of, targets_of
from framefold.codecs.testing import run_fit

YUV420 = PixelFormat(model="yuv", chroma=(2, 2))
YUVA420_10 = PixelFormat(model="yuv", depth=10, chroma=(2, 2), alpha=True)
FORMATS = (YUV420, YUVA420_10, PixelFormat(model="yuv", depth=12, chroma=(1, 2)), GRAY_16, PixelFormat(alpha=True))
CODECS: tuple[tuple[type[Codec], Any], ...] = (
    (Nerv, NervConfig(width=6)),
    (ENerv, ENervConfig(width=8)),
    (HNerv, HNervConfig(width=6, embedding_width=3, strides=(4, 2))),
    (GridNerv, GridNervConfig(width=8)),
    (Pyramid, PyramidConfig()),
    (Siren, SirenConfig(width=10, depth=2)),
    (Coin, CoinConfig(width=8, depth=2)),
)


def clip_of(pixels: PixelFormat, frames: int = 3, height: int = 21, width: int = 33) -> Clip:
    t, c, y, x = np.ogrid[:frames, : pixels.channels, :height, :width]
    waves = 0.5 + 0.3 * np.sin((x + y * (c + 1) / 2 + 3 * t) / 9)
    full = np.round(waves * pixels.peak).astype(pixels.dtype)
    source = Source(name="a", kind="video", sha256="0" * 64, size_bytes=0, width=width, height=height, pixels=pixels)
    stored = pixels.spread([plane.copy() for plane in pixels.stored(full)], height, width)
    return Clip(span=Span(source=source, pts=tuple(range(frames))), frames=stored)


class Canvas(nn.Module):
    """A network that can draw anything: its pixels are its weights."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.pixels = nn.Parameter(torch.rand(shape, generator=torch.Generator().manual_seed(1)))

    def forward(self, indices: Tensor, rows: slice = slice(None), columns: slice = slice(None)) -> Tensor:
        return self.pixels[indices][:, :, rows, columns]


@pytest.mark.parametrize(("codec", "config"), CODECS)
@pytest.mark.parametrize("pixels", FORMATS, ids=lambda pixels: pixels.name)
def test_every_codec_draws_every_format(codec: type[Codec], config: Any, pixels: PixelFormat) -> None:
    clip = clip_of(pixels, frames=1 if codec in (Siren, Coin) else 3)
    made = codec(config)
    network = run_fit(made.fit(clip, FitSettings(steps=60)))
    drawn = made.reconstruct(network)
    assert drawn.span == clip.span
    back = pixels.spread([*pixels.stored(drawn.frames)], *drawn.frames.shape[2:])
    np.testing.assert_array_equal(back, drawn.frames)  # samples that pixels share are the same at each
    flat = np.broadcast_to(clip.frames.mean((2, 3), keepdims=True), clip.frames.shape).astype(pixels.dtype)
    assert psnr(drawn.frames, clip.frames, pixels) > psnr(flat, clip.frames, pixels) - 3
    sensitivity = made.sensitivity(network)
    assert sensitivity is not None
    assert all(np.isfinite(values).all() and (values >= 0).all() for values in sensitivity.values())


@pytest.mark.parametrize(("codec", "config"), [CODECS[3], CODECS[5]])
def test_rate_aware_tuning_works_on_stored_samples(codec: type[Codec], config: Any) -> None:
    clip = clip_of(YUV420, frames=1)
    made = codec(config)
    network = run_fit(made.fit(clip, FitSettings(steps=150)))
    symbols = run_fit(made.tune_for_rate(network, RateSettings(), FitSettings(steps=50)))
    frames = [made.reconstruct(each).frames for each in (network, symbols.dequantize())]
    before, after = (psnr(each, clip.frames, YUV420) for each in frames)
    assert after > before - 1.5


def test_pruning_and_calibration_look_at_stored_samples() -> None:
    """Ten bits: a fit that took 255 for the largest sample, or chroma for full, would end below what it began with."""
    clip, codec = clip_of(YUVA420_10), GridNerv(GridNervConfig(width=8))
    network = run_fit(codec.fit(clip, FitSettings(steps=300)))
    pruned = run_fit(gate_pruned(codec, network, 0.8, FitSettings(steps=100)))
    coarse = quantize(pruned, bits=4, granularity="tensor")
    calibrated = run_fit(codec.calibrate(coarse, FitSettings(steps=60)))
    networks = (network, pruned, coarse.dequantize(), calibrated.dequantize())
    fitted, gated, rounded, tuned = (psnr(codec.reconstruct(each).frames, clip.frames, YUVA420_10) for each in networks)
    assert gated > fitted - 6
    assert tuned > rounded


def test_a_fit_with_its_bits_in_the_loss_works_on_stored_samples() -> None:
    clip, codec = clip_of(YUVA420_10), Pyramid(PyramidConfig())
    symbols = run_fit(codec.fit_for_rate(clip, RateSettings(), FitSettings(steps=150)))
    drawn = codec.reconstruct(symbols.dequantize())
    assert (drawn.pixels, drawn.frames.dtype) == (YUVA420_10, np.uint16)
    assert psnr(drawn.frames, clip.frames, YUVA420_10) > 20


def test_a_target_in_decibels_is_one_of_stored_samples() -> None:
    clip, codec = clip_of(YUVA420_10), GridNerv(GridNervConfig(width=8))
    network = run_fit(codec.fit(clip, FitSettings(steps=300)))
    fitted = psnr(codec.reconstruct(network).frames, clip.frames, YUVA420_10)
    target = RateTarget(psnr_db=round(fitted - 4, 1))
    symbols = run_fit(codec.tune_for_rate(network, RateSettings(target=target), FitSettings(steps=100)))
    reached = psnr(codec.reconstruct(symbols.dequantize()).frames, clip.frames, YUVA420_10)
    assert target.value - 0.1 <= reached < fitted
    assert symbols.outcome is not None
    assert symbols.outcome.reason == ""


@pytest.mark.parametrize("loss", ["l2", "l1", "l1_ssim"])
@pytest.mark.parametrize("pixels", FORMATS, ids=lambda pixels: pixels.name)
def test_a_loss_is_a_mean_over_stored_samples(pixels: PixelFormat, loss: Loss) -> None:
    clip = clip_of(pixels)
    drawn = torch.rand(clip.frames.shape, generator=torch.Generator().manual_seed(3))
    targets = targets_of(on_device(clip.frames), torch.arange(3), pixels)
    found, error = weighed_loss_and_error(stored_of(drawn, pixels), targets, pixels.shares(21, 33), loss)
    pairs = [*zip(stored_of(drawn, pixels), targets, strict=True)]
    squares = [(a - b).square().flatten() for a, b in pairs]
    assert error.item() == pytest.approx(torch.cat(squares).mean().item(), rel=1e-5)
    if loss != "l1_ssim":
        differences = torch.cat([(a - b).abs().flatten() for a, b in pairs])
        wanted = differences.mean() if loss == "l1" else differences.square().mean()
        assert found.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_of_one_plane_the_loss_is_what_it_was() -> None:
    a, b = torch.rand(2, 2, 3, 5, 7)
    assert torch.equal(weighed_loss_and_error([a], [b], [1.0], "l1_ssim")[0], loss_and_error(a, b, "l1_ssim")[0])
    assert stored_of(a, RGB)[0].equal(a)


def test_a_shared_sample_is_the_mean_of_what_was_drawn_at_its_pixels() -> None:
    drawn = torch.zeros(1, 3, 3, 5)
    drawn[0, 1, 2, 4] = 0.5  # a cell of one pixel, in the corner
    drawn[0, 1, 0, 2] = 0.5  # one of four
    drawn[0, 2, 0, 4] = 0.5  # one of two
    frames = drawn_frames(drawn, YUV420)[0]
    assert (frames[1, 2, 4], frames[2, 0, 4]) == (128, 64)
    assert (frames[1, :2, 2:4] == 32).all()
    assert frames[0].max() == 0


def test_what_is_drawn_is_rounded_and_held_in_range() -> None:
    drawn = torch.tensor([-0.5, 0.0, 0.5004, 1.0, 3.0]).view(1, 1, 1, 5)
    ten = PixelFormat(model="gray", depth=10)
    assert drawn_frames(drawn, ten).ravel().tolist() == [0, 0, 512, 1023, 1023]
    assert drawn_frames(drawn, ten).dtype == np.uint16


@pytest.mark.parametrize("lattice", [1, 2, 3])
@pytest.mark.parametrize("pixels", FORMATS, ids=lambda pixels: pixels.name)
def test_a_fit_finds_the_stored_samples(pixels: PixelFormat, lattice: int) -> None:
    clip = clip_of(pixels, frames=2)
    canvas = Canvas(*clip.frames.shape)
    for progress in fit(canvas, clip.frames, FitPlan(steps=900, learning_rate=0.03, lattice=lattice), pixels=pixels):
        last = progress
    drawn = drawn_frames(canvas(torch.arange(2)).detach(), pixels)
    assert psnr(drawn, clip.frames, pixels) > 35
    assert last.psnr_db is not None
    assert last.psnr_db == pytest.approx(psnr(drawn, clip.frames, pixels), abs=5) or last.psnr_db > 45


@pytest.mark.parametrize("lattice", [1, 2])
def test_sensitivity_is_that_of_stored_samples(lattice: int) -> None:
    """Of a canvas: of each frame's 36 samples the weights of Y move one by all, those of U a quarter of one."""
    canvas = Canvas(1, 3, 4, 6)
    found = squared_gradients(canvas, 1, pixels=YUV420, lattice=lattice)["pixels"]
    if lattice == 1:
        np.testing.assert_allclose(found[0, 0], 1 / 36, rtol=1e-5)
        np.testing.assert_allclose(found[0, 1:], 1 / 36 / 16, rtol=1e-5)
    assert found[0, 0].sum() == pytest.approx(24 / 36, rel=1e-5)
    assert (found[0, 1].sum() < found[0, 0].sum()) == (found[0, 2].sum() < found[0, 0].sum()) == True  # noqa: E712


@pytest.mark.parametrize("pixels", [YUV420, GRAY_16], ids=lambda pixels: pixels.name)
def test_the_curvature_of_a_small_network_foretells_the_error(pixels: PixelFormat) -> None:
    clip = clip_of(pixels, frames=1, height=80, width=120)
    codec = Siren(SirenConfig(width=8, depth=2))
    network = run_fit(codec.fit(clip, FitSettings(steps=300)))
    curvature = codec.curvature(network)
    assert curvature is not None
    sensitivity = codec.sensitivity(network)
    assert sensitivity is not None
    diagonal = np.concatenate([values.ravel() for values in sensitivity.values()])
    assert np.trace(curvature) == pytest.approx(float(diagonal.sum()), rel=0.35)


def test_a_half_done_fit_goes_on_bit_for_bit() -> None:
    clip, codec = clip_of(YUVA420_10), GridNerv(GridNervConfig(width=6))
    whole = run_fit(codec.fit(clip, FitSettings(steps=30)))
    progress = next(codec.fit(clip, FitSettings(steps=30)))
    assert progress.state is not None
    again = run_fit(codec.fit(clip, FitSettings(steps=30, resume=progress.state())))
    assert all(np.array_equal(again.tensors[name], value) for name, value in whole.tensors.items())
