import numpy as np
import pytest
import torch

from framefold.codecs.base import FitSettings
from framefold.codecs.clip import Source, Span
from framefold.codecs.coin import Coin
from framefold.codecs.gridnerv import GridNerv, GridNervConfig
from framefold.codecs.inr import estimated_bits
from framefold.codecs.nerv import Nerv
from framefold.codecs.network import FittedNetwork
from framefold.codecs.siren import Siren, SirenConfig
from framefold.codecs.testing import make_clip, moving_shapes, run_fit


def span(width, height, frames, kind="video"):
    source = Source(name="a", kind=kind, sha256="0" * 64, size_bytes=1, width=width, height=height)
    return Span(source=source, pts=tuple(range(frames)))


@pytest.fixture
def fitted():
    return run_fit(GridNerv(GridNervConfig(width=6)).fit(make_clip(moving_shapes(3, 20, 30)), FitSettings(steps=5)))


def changed(network, **config):
    return FittedNetwork(
        span=network.span, codec=network.codec, config={**network.config, **config}, tensors=network.tensors
    )


HOSTILE = [
    (Nerv, {"width": 2048, "stem_width": 2048, "strides": [8] * 3, "block_widths": [2048] * 3}, "parameters"),
    (
        Nerv,
        {"width": 2, "stem_width": 2, "strides": [8] * 6, "block_widths": [2] * 6},
        "bytes of activations",
    ),
    (
        GridNerv,
        {"width": 4, "strides": [2], "block_widths": [], "kernels": [3], "grids": [[[65536, 1024]]]},
        "parameters",
    ),
    (
        GridNerv,
        {"width": 9, "strides": [8] * 2, "block_widths": [2048], "kernels": [1] * 2, "grids": [[[1, 1]], []]},
        "bytes of activations",
    ),
]


@pytest.mark.parametrize(("codec", "config", "what"), HOSTILE)
def test_a_strangers_configuration_is_weighed_before_anything_is_built(codec, config, what):
    clip = span(8192, 4096, 2)
    full = codec.Config.model_validate(config).model_dump(mode="json")
    network = FittedNetwork(span=clip, codec=codec.name, config=full, tensors={})
    with pytest.raises(ValueError, match=rf"{codec.name} at 8192x4096.*{what}.*at most"):
        codec().reconstruct(network)


def test_frames_beyond_memory_are_refused():
    network = FittedNetwork(
        span=span(8000, 8000, 1000),
        codec="gridnerv",
        config=GridNerv().resolve(GridNervConfig(width=4), span(8000, 8000, 1000)).model_dump(mode="json"),
        tensors={},
    )
    with pytest.raises(ValueError, match="bytes of frames"):
        GridNerv().reconstruct(network)


def test_a_stored_configuration_must_leave_nothing_open(fitted):
    with pytest.raises(ValueError, match="leave sizes open"):
        GridNerv().reconstruct(changed(fitted, width=None, grids=None))
    short = {key: value for key, value in fitted.config.items() if key != "kernels"}
    with pytest.raises(ValueError, match=r"leave sizes open \(kernels\)"):
        GridNerv().reconstruct(FittedNetwork(span=fitted.span, codec="gridnerv", config=short, tensors=fitted.tensors))


def test_an_unknown_option_in_a_stored_configuration_is_refused(fitted):
    with pytest.raises(ValueError, match="magic"):
        GridNerv().reconstruct(changed(fitted, magic=1))


def test_a_network_of_another_codec_is_refused(fitted):
    with pytest.raises(ValueError, match="'gridnerv' given to 'nerv'"):
        Nerv().reconstruct(fitted)


def test_tensors_that_do_not_fit_are_named(fitted):
    name, value = next(iter(fitted.tensors.items()))
    cases = [
        ({key: tensor for key, tensor in fitted.tensors.items() if key != name}, "lacks the tensors"),
        ({**fitted.tensors, "extra": value}, "extra"),
        ({**fitted.tensors, name: value[..., :1]}, f"{name}.*needs float32"),
        ({**fitted.tensors, name: value.astype(np.float64)}, "float64"),
        ({**fitted.tensors, name: value * np.inf}, "not finite"),
    ]
    for tensors, message in cases:
        network = FittedNetwork(span=fitted.span, codec="gridnerv", config=fitted.config, tensors=tensors)
        with np.errstate(invalid="ignore"), pytest.raises(ValueError, match=message):
            GridNerv().reconstruct(network)


def test_fine_tuning_needs_the_pixels(fitted):
    bare = FittedNetwork(span=fitted.span, codec="gridnerv", config=fitted.config, tensors=fitted.tensors)
    with pytest.raises(ValueError, match="needs the pixels"):
        next(GridNerv().finetune(bare, {}, FitSettings(steps=1)))


def test_fine_tuning_leaves_the_network_it_was_given(fitted):
    before = {name: value.copy() for name, value in fitted.tensors.items()}
    run_fit(GridNerv().finetune(fitted, {}, FitSettings(steps=3)))
    assert all(np.array_equal(before[name], value) for name, value in fitted.tensors.items())


@pytest.mark.parametrize("codec", [Nerv, GridNerv, Siren, Coin])
def test_global_random_state_is_untouched(codec):
    kind = "video" if codec in (Nerv, GridNerv) else "image"
    state = torch.get_rng_state()
    network = run_fit(codec().fit(make_clip(moving_shapes(1, 12, 12), kind=kind), FitSettings(steps=2)))
    codec().reconstruct(network)
    assert torch.equal(state, torch.get_rng_state())


def test_another_seed_is_another_network():
    clip = make_clip(moving_shapes(1, 12, 12), kind="image")
    codec = Siren(SirenConfig(width=4, depth=1))
    one, two = (run_fit(codec.fit(clip, FitSettings(steps=2, seed=seed))) for seed in (0, 1))
    assert not np.array_equal(one.tensors["head.weight"], two.tensors["head.weight"])


def test_the_estimated_size_is_the_entropy_at_eight_bits() -> None:
    assert estimated_bits(np.zeros(100, np.float32)) == 0
    assert estimated_bits(np.repeat(np.float32([-1, 1]), 50)) == pytest.approx(100)
    uniform = np.linspace(-1, 1, 255, dtype=np.float32)
    assert estimated_bits(uniform) == pytest.approx(255 * np.log2(255))
    assert estimated_bits(np.float32([np.nan, 1])) == 0


def test_progress_says_what_the_network_would_take() -> None:
    codec = GridNerv(GridNervConfig(width=4))
    steps = list(codec.fit(make_clip(moving_shapes(4, 24, 32)), FitSettings(steps=20)))
    assert steps[-1].bits is not None
    assert 0 < steps[-1].bits < 8 * 10_000
