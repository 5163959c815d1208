"""Targets on a real network: its own bytes, its own picture, and the words where it cannot be."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from framefold.codecs.base import FitSettings
from framefold.codecs.gridnerv import GridNerv, GridNervConfig
from framefold.codecs.metrics import psnr
from framefold.codecs.network import QuantizedTensor, SymbolTensors
from framefold.codecs.quantizing.steps import EXPONENTS_PER_OCTAVE, step_values
from framefold.codecs.rate.rate_control import RateControl
from framefold.codecs.rate.rate_search import MAX_EVALUATIONS
from framefold.codecs.rate.targets import RateTarget
from framefold.codecs.stream import bitstream
from framefold.codecs.testing import make_clip, moving_shapes, run_fit


@pytest.fixture(scope="module")
def network():
    clip = make_clip(moving_shapes(2, 24, 36))
    return run_fit(GridNerv(GridNervConfig(width=10)).fit(clip, FitSettings(steps=60)))


def rounded(network, fineness):
    """Each tensor in steps of 2**fineness of its standard deviation."""

    def one(tensor):
        octaves = fineness + np.log2(max(float(tensor.std()), 1e-6))
        steps = step_values(np.array([round(EXPONENTS_PER_OCTAVE * octaves)], np.int32))
        symbols = np.rint(tensor.astype(np.float64) / steps).clip(-(2**15) + 1, 2**15 - 1).astype(np.int32)
        return QuantizedTensor(symbols=symbols, steps=steps)

    tensors = {name: one(tensor) for name, tensor in network.tensors.items()}
    return SymbolTensors(
        span=network.span, codec=network.codec, config=network.config, tensors=tensors, target=network.target
    )


coded = partial(bitstream.encode, contexts=False)


def control(network, **target):
    return RateControl(
        network=network,
        target=RateTarget.model_validate(target),
        codec=GridNerv(),
        quantize=lambda fineness: rounded(network, fineness),
        encode=coded,
    )


def decoded_psnr(symbols):
    return psnr(GridNerv().reconstruct(symbols.dequantize()).frames, symbols.target.frames)


def weights(network):
    return sum(tensor.size for tensor in network.tensors.values())


@pytest.mark.parametrize("bits", [1.5, 4.0])
def test_a_size_is_reached_and_told_in_any_unit(network, bits):
    size = int(bits * weights(network) / 8)
    bpp = 8 * size / (2 * 24 * 36)
    for target in ({"bytes": size}, {"bpp": bpp}, {"bits_per_weight": bits}):
        symbols = run_fit(control(network, **target).run())
        assert len(coded(symbols)) == pytest.approx(size, rel=0.03)
        outcome = symbols.outcome
        assert (outcome.reason, outcome.target.kind) == ("", *target)
        assert 1 <= outcome.evaluations <= MAX_EVALUATIONS
        reached = outcome.reached(symbols.span, size=len(coded(symbols)), psnr_db=None)
        assert outcome.target.is_met_by(reached)


@pytest.mark.parametrize("lost", [0.3, 2.0])
def test_a_quality_is_reached(network, lost):
    own = control(network, psnr_db=30).ceiling_db
    symbols = run_fit(control(network, psnr_db=own - lost).run())
    assert own - lost - 0.1 <= decoded_psnr(symbols) <= own - lost + 0.5
    assert symbols.outcome.reason == ""


def test_less_quality_takes_fewer_bytes(network):
    own = control(network, psnr_db=30).ceiling_db
    sizes = [len(coded(run_fit(control(network, psnr_db=own - lost).run()))) for lost in (0.3, 3.0)]
    assert sizes == sorted(sizes, reverse=True)


def test_a_quality_that_the_network_has_not_got(network):
    symbols = run_fit(control(network, psnr_db=80).run())
    own = control(network, psnr_db=80).ceiling_db
    assert symbols.outcome.reason == (
        f"the network itself gives {own:.2f} dB before rounding; take a larger size or a longer fit"
    )
    assert own - 0.15 < decoded_psnr(symbols)
    assert len(coded(symbols)) < 2 * weights(network)


def test_bytes_for_which_the_network_is_too_large(network):
    symbols = run_fit(control(network, bytes=20).run())
    size = len(coded(symbols))
    assert symbols.outcome.reason == f"the coarsest steps take {size} bytes; take a smaller network, or prune more"


def test_bytes_for_which_the_network_is_too_small(network):
    symbols = run_fit(control(network, bytes=10**6).run())
    size = len(coded(symbols))
    own = control(network, bytes=1).ceiling_db
    assert symbols.outcome.reason == (
        f"{size} bytes give the picture before rounding, {own:.2f} dB; take a larger network"
    )
    assert decoded_psnr(symbols) > own - 0.1


def test_steps_between_which_there_are_none(network):
    halves = control(network, bytes=int(2.1 * weights(network) / 8))
    whole = replace(halves, quantize=lambda fineness: rounded(network, 3.0 * round(fineness / 3)))
    symbols = run_fit(whole.run())
    assert symbols.outcome.reason.startswith("the nearest steps take ")
    assert not symbols.outcome.target.is_met_by(len(coded(symbols)))


def test_without_pixels_a_size_can_be_wanted_but_no_quality(network):
    bare = replace(network, target=None)
    size = int(3 * weights(network) / 8)
    assert len(coded(run_fit(control(bare, bytes=size).run()))) == pytest.approx(size, rel=0.03)
    with pytest.raises(ValueError, match="a target in dB needs the pixels the network was fitted to"):
        run_fit(control(bare, psnr_db=30).run())


def test_a_start_that_knows_the_error_saves_tries(network):
    own = control(network, psnr_db=30).ceiling_db
    asked = []

    def fineness_for(mse):
        asked.append(mse)
        return -2.0

    run_fit(replace(control(network, psnr_db=own - 1), fineness_for=fineness_for).run())
    assert asked == [pytest.approx(10 ** (-(own - 1) / 10) - 10 ** (-own / 10))]
