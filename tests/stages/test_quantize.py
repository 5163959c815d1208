"""quantize: one precision as ever, or steps by sensitivity, with or without a target and calibration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from framefold.codecs.base import FitSettings
from framefold.codecs.gridnerv import GridNerv, GridNervConfig
from framefold.codecs.metrics import psnr
from framefold.codecs.network import FittedNetwork, SymbolTensors
from framefold.codecs.quantizing.quantize import quantize
from framefold.codecs.stream import bitstream
from framefold.codecs.testing import make_clip, moving_shapes, run_fit
from framefold.pipeline import spec
from framefold.pipeline.errors import SpecError
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Progress, StageContext
from framefold.pipeline.testing import check_stage
from framefold.stages.quantize import Quantize, QuantizeConfig


@pytest.fixture(scope="module")
def network() -> FittedNetwork:
    clip = make_clip(moving_shapes(2, 24, 32))
    return run_fit(GridNerv(GridNervConfig(width=8, strides=(2, 2))).fit(clip, FitSettings(steps=60)))


def outputs(network: FittedNetwork, **options: Any) -> list[Any]:
    made = Quantize(QuantizeConfig.model_validate(options))
    made.setup(StageContext("quantized", seed=3))
    return list(made.process(Item("key", "the item", (0,), network)))


def quantized(network: FittedNetwork, **options: Any) -> SymbolTensors:
    (symbols,) = (output for output in outputs(network, **options) if isinstance(output, SymbolTensors))
    return symbols


def bits_per_weight(symbols: SymbolTensors) -> float:
    weights = sum(tensor.symbols.size for tensor in symbols.tensors.values())
    return 8 * len(bitstream.encode(symbols)) / weights


def quality(symbols: SymbolTensors) -> float:
    assert symbols.target is not None
    return psnr(GridNerv().reconstruct(symbols.dequantize()).frames, symbols.target.frames)


def same(one: SymbolTensors, other: SymbolTensors) -> bool:
    return all(
        np.array_equal(tensor.symbols, other.tensors[name].symbols)
        and np.array_equal(tensor.steps, other.tensors[name].steps)
        for name, tensor in one.tensors.items()
    )


@pytest.mark.parametrize(
    ("options", "written"),
    [
        ({}, '{"bits":8,"granularity":"channel"}'),
        ({"bits": 6}, '{"bits":6,"granularity":"channel"}'),
        ({"bits": 4.0, "granularity": "tensor"}, '{"bits":4,"granularity":"tensor"}'),
        ({"precision": "equal", "target": None, "calibrate": None}, '{"bits":8,"granularity":"channel"}'),
        ({"bits": 2.5, "precision": "mixed"}, '{"bits":2.5,"granularity":"channel","precision":"mixed"}'),
    ],
)
def test_options_of_old_are_written_down_as_of_old(options: dict[str, Any], written: str) -> None:
    config = QuantizeConfig.model_validate(options)
    assert config.model_dump_json() == written
    assert QuantizeConfig.model_validate_json(written) == config
    assert type(config.model_dump(mode="json")["bits"]) is (float if "." in written else int)


@pytest.mark.parametrize("bits", [2, 5, 8])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_with_equal_precision_all_is_as_ever(network: FittedNetwork, bits: int, granularity: Any) -> None:
    (symbols,) = outputs(network, bits=bits, granularity=granularity)
    assert same(symbols, quantize(network, bits=bits, granularity=granularity))
    assert symbols.target is network.target


@pytest.mark.parametrize("rounding", [None, "nearest", "rate", "trellis"])
def test_mixed_precision_takes_about_the_bits_that_were_asked_for(network: FittedNetwork, rounding: Any) -> None:
    options = {"rounding": rounding} if rounding else {}
    symbols = quantized(network, precision="mixed", bits=3.5, **options)
    assert bits_per_weight(symbols) == pytest.approx(3.5, rel=0.25)
    assert any(tensor.trellis for tensor in symbols.tensors.values()) == (rounding == "trellis")


def test_mixed_precision_gives_a_better_picture_in_as_many_bytes(network: FittedNetwork) -> None:
    equal = quantized(network, bits=4)
    mixed = quantized(network, target={"bytes": len(bitstream.encode(equal))})
    assert len(bitstream.encode(mixed)) <= len(bitstream.encode(equal))
    assert quality(mixed) > quality(equal) + 0.1


def test_without_pixels_steps_follow_the_spread(network: FittedNetwork) -> None:
    symbols = quantized(replace(network, target=None), precision="mixed", bits=4)
    assert bits_per_weight(symbols) == pytest.approx(4, rel=0.25)


@pytest.mark.parametrize("target", [{"bytes": 700}, {"bits_per_weight": 3}, {"bpp": 3.5}])
def test_a_size_is_met_and_told(network: FittedNetwork, target: dict[str, float]) -> None:
    said = outputs(network, target=target)
    symbols = said[-1]
    assert symbols.outcome is not None
    assert symbols.outcome.reason == ""
    reached = symbols.outcome.reached(symbols.span, size=len(bitstream.encode(symbols)), psnr_db=None)
    assert reached == pytest.approx(next(iter(target.values())), rel=0.03)
    assert len(said) == symbols.outcome.evaluations + 1
    assert all(isinstance(output, Progress) for output in said[:-1])


def test_a_quality_is_met(network: FittedNetwork) -> None:
    own = psnr(GridNerv().reconstruct(network).frames, network.target.frames if network.target else None)
    assert own - 0.6 <= quality(quantized(network, target={"psnr_db": own - 0.5})) < own - 0.2


def test_calibration_betters_the_picture_and_is_repeatable(network: FittedNetwork) -> None:
    plain = quantized(network, bits=3)
    one, other = (quantized(network, bits=3, calibrate={"steps": 60}) for _ in range(2))
    assert same(one, other)
    assert quality(one) > quality(plain) + 0.02
    for name, tensor in plain.tensors.items():
        if tensor.symbols.ndim > 1:
            assert np.array_equal(one.tensors[name].symbols, tensor.symbols)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 2.5}, "bits is 2.5; with equal precision 2, 3, … 8 are allowed, else set precision: mixed"),
        ({"bits": 1}, "bits is 1; with equal precision 2, 3, … 8 are allowed"),
        ({"bits": 9}, "bits is 9; with equal precision 2, 3, … 8 are allowed"),
        ({"bits": 17, "precision": "mixed"}, "less than or equal to 16"),
        ({"rounding": "trellis"}, "rounding: trellis goes with precision: mixed, or with a target"),
        ({"rounding": "rate"}, "rounding: rate goes with precision: mixed, or with a target"),
        ({"target": {}}, "give exactly one of bpp, bytes, psnr_db and bits_per_weight"),
        ({"target": {"bpp": 1, "bytes": 5}}, "give exactly one of bpp, bytes, psnr_db and bits_per_weight"),
        ({"calibrate": {}}, "give either steps or seconds"),
        ({"precision": "high"}, "'equal' or 'mixed'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        QuantizeConfig.model_validate(options)
    assert message in str(caught.value)


def test_a_mistake_is_told_at_its_place_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (
        "pipeline: wrong\nstages:\n  pictures: {stage: image_source, path: .}\n"
        "  fitted: {stage: fit, inputs: [pictures], codec: {name: siren}}\n"
        "  small: {stage: quantize, inputs: [fitted], rounding: trellis}\n"
    )
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(SpecError) as caught:
        spec.load(tmp_path / "p.yaml")
    (problem,) = (each for each in caught.value.problems if ":5:" in each.where)
    assert "rounding: trellis goes with precision: mixed, or with a target" in str(problem)


@pytest.mark.parametrize("options", [{"bits": 6}, {"precision": "mixed", "bits": 3.5, "rounding": "trellis"}])
def test_it_keeps_the_promises_of_a_stage(network: FittedNetwork, options: dict[str, Any]) -> None:
    (symbols,) = check_stage(Quantize, options, [network])
    assert isinstance(symbols, SymbolTensors)
