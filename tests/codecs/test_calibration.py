"""Calibration: vectors make up for what rounding did, at no cost in bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from framefold.codecs.base import FitSettings
from framefold.codecs.gridnerv import GridNerv
from framefold.codecs.metrics import psnr
from framefold.codecs.network import FittedNetwork, SymbolTensors
from framefold.codecs.quantizing.quantize import quantize
from framefold.codecs.stream import bitstream
from framefold.codecs.testing import run_fit

SETTINGS = FitSettings(steps=60)


def quality(symbols: SymbolTensors) -> float:
    assert symbols.target is not None
    return psnr(GridNerv().reconstruct(symbols.dequantize()).frames, symbols.target.frames)


@pytest.fixture(scope="module")
def coarse(fitted_clip: FittedNetwork) -> SymbolTensors:
    return quantize(fitted_clip, bits=3, granularity="tensor")


@pytest.fixture(scope="module")
def calibrated(coarse: SymbolTensors) -> SymbolTensors:
    return run_fit(GridNerv().calibrate(coarse, SETTINGS))


def test_only_symbols_of_vectors_change(coarse: SymbolTensors, calibrated: SymbolTensors) -> None:
    changed = {
        name
        for name, tensor in coarse.tensors.items()
        if not np.array_equal(calibrated.tensors[name].symbols, tensor.symbols)
    }
    assert changed == {"blocks.0.conv.bias", "blocks.1.conv.bias"}
    for name, tensor in coarse.tensors.items():
        assert np.array_equal(calibrated.tensors[name].steps, tensor.steps)
    assert replace(calibrated, tensors={}) == replace(coarse, tensors={})


def test_a_picture_spoilt_by_coarse_rounding_gets_better_in_as_many_bytes(
    coarse: SymbolTensors, calibrated: SymbolTensors
) -> None:
    assert quality(calibrated) > quality(coarse) + 0.05
    before, after = (len(bitstream.encode(symbols)) for symbols in (coarse, calibrated))
    assert after < 1.03 * before


def test_a_picture_that_rounding_has_not_spoilt_gets_no_worse(fitted_clip: FittedNetwork) -> None:
    fine = quantize(fitted_clip, bits=8, granularity="channel")
    assert quality(run_fit(GridNerv().calibrate(fine, SETTINGS))) > quality(fine) - 0.01


def test_the_same_seed_gives_the_same_symbols(coarse: SymbolTensors, calibrated: SymbolTensors) -> None:
    again = run_fit(GridNerv().calibrate(coarse, SETTINGS))
    assert all(
        np.array_equal(again.tensors[name].symbols, tensor.symbols) for name, tensor in calibrated.tensors.items()
    )


def test_its_progress_has_no_state(coarse: SymbolTensors) -> None:
    told = list(GridNerv().calibrate(coarse, FitSettings(steps=2)))
    assert [progress.state for progress in told] == [None] * len(told)
    assert (told[0].fraction, told[-1].fraction) == (0.0, 1.0)


def test_without_pixels_there_is_nothing_to_calibrate_to(coarse: SymbolTensors) -> None:
    with pytest.raises(ValueError, match="calibration needs the pixels"):
        run_fit(GridNerv().calibrate(replace(coarse, target=None), SETTINGS))
