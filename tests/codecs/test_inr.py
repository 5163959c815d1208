import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from framefold.codecs import fitting
from framefold.codecs.base import FitSettings
from framefold.codecs.clip import Source, Span
from framefold.codecs.coin import Coin, CoinConfig
from framefold.codecs.enerv import ENerv, ENervConfig
from framefold.codecs.gridnerv import GridNerv, GridNervConfig
from framefold.codecs.hnerv import HNerv, HNervConfig
from framefold.codecs.inr import estimated_bits
from framefold.codecs.nerv import Nerv, NervConfig
from framefold.codecs.network import FittedNetwork
from framefold.codecs.pruning.prune import magnitude_scores, masks_of
from framefold.codecs.pyramid import Pyramid, PyramidConfig
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


@pytest.mark.parametrize("codec", [Nerv, GridNerv, ENerv, HNerv, Siren, Coin])
def test_global_random_state_is_untouched(codec):
    kind = "image" if codec in (Siren, Coin) else "video"
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


# ---- broken off and gone on with


@pytest.fixture
def every_step(monkeypatch):
    """A progress after each step."""
    monkeypatch.setattr(fitting, "SECONDS_BETWEEN_REPORTS", 0.0)


SMALL = {
    "nerv": (Nerv(NervConfig(width=3)), "video"),
    "gridnerv": (GridNerv(GridNervConfig(width=6)), "video"),
    "enerv": (ENerv(ENervConfig(width=4)), "video"),
    "hnerv": (HNerv(HNervConfig(width=6, embedding_width=4)), "video"),
    "pyramid": (Pyramid(PyramidConfig(widths=(6, 5), bottlenecks=(4, 5))), "video"),
    "siren": (Siren(SirenConfig(width=6, depth=2)), "image"),
    "coin": (Coin(CoinConfig(width=6, depth=2)), "image"),
}


def states_of(under_way):
    """Step -> the state after it, as it comes back from a file."""
    return {each.step: pickle.loads(pickle.dumps(each.state(), protocol=5)) for each in under_way}


def assert_same(one, other):
    assert list(one.tensors) == list(other.tensors)
    assert all(np.array_equal(one.tensors[name], value) for name, value in other.tensors.items())


@pytest.fixture(params=SMALL)
def codec_and_clip(request):
    codec, kind = SMALL[request.param]
    return codec, make_clip(moving_shapes(3 if kind == "video" else 1, 20, 30), kind=kind)


def test_every_codec_goes_on_with_a_fit_as_if_it_had_not_been_broken_off(codec_and_clip, every_step):
    codec, clip = codec_and_clip
    settings = FitSettings(steps=60, seed=2)
    whole, states = run_fit(codec.fit(clip, settings)), states_of(codec.fit(clip, settings))
    for step in (0, 1, 33, 54, 60):
        assert_same(run_fit(codec.fit(clip, replace(settings, resume=states[step]))), whole)


def test_every_codec_goes_on_with_a_fine_tuning(codec_and_clip, every_step):
    codec, clip = codec_and_clip
    settings = FitSettings(steps=60, seed=2)
    network = run_fit(codec.fit(clip, FitSettings(steps=10)))
    masks = masks_of(network.tensors, magnitude_scores(network.tensors), 0.7)
    whole = run_fit(codec.finetune(network, masks, settings))
    states = states_of(codec.finetune(network, masks, settings))
    for step in (0, 1, 33, 54, 60):
        tuned = run_fit(codec.finetune(network, masks, replace(settings, resume=states[step])))
        assert_same(tuned, whole)
        assert not any(tuned.tensors[name][~mask].any() for name, mask in masks.items())


def test_a_state_of_other_work_is_refused_by_name():
    codec, clip = Siren(SirenConfig(width=6, depth=1)), make_clip(moving_shapes(1, 12, 12), kind="image")
    start = next(codec.fit(clip, FitSettings(steps=5))).state()
    network = run_fit(codec.fit(clip, FitSettings(steps=5)))
    tuning = FitSettings(steps=5, resume=start)
    with pytest.raises(ValueError, match="work 'fit', needed is 'finetune'"):
        next(codec.finetune(network, {}, tuning))
    with pytest.raises(ValueError, match="codec 'siren', needed is 'coin'"):
        next(Coin(CoinConfig(width=6, depth=1)).fit(clip, tuning))
    with pytest.raises(ValueError, match=r"config .*'frequency': 30.0.*, needed is .*'frequency': 20.0"):
        next(Siren(SirenConfig(width=6, depth=1, frequency=20)).fit(clip, tuning))
    with pytest.raises(ValueError, match="frames"):
        next(codec.fit(make_clip(moving_shapes(1, 12, 13), kind="image"), tuning))
    for none_at_all in (5, {}, {**start, "run": None}):
        with pytest.raises(ValueError, match="state"):
            next(codec.fit(clip, FitSettings(steps=5, resume=none_at_all)))


def test_a_fit_goes_on_in_another_process(tmp_path, every_step):
    codec, clip = SMALL["gridnerv"][0], make_clip(moving_shapes(3, 20, 30))
    settings = FitSettings(steps=40, seed=2)
    (tmp_path / "state").write_bytes(pickle.dumps(states_of(codec.fit(clip, settings))[17], protocol=5))
    code = f"""
import pickle, torch
from framefold.codecs.base import FitSettings
from framefold.codecs.gridnerv import GridNerv, GridNervConfig
from framefold.codecs.testing import make_clip, moving_shapes, run_fit
torch.set_num_threads({torch.get_num_threads()})
with open("state", "rb") as file:
    settings = FitSettings(steps=40, seed=2, resume=pickle.load(file))
network = run_fit(GridNerv(GridNervConfig(width=6)).fit(make_clip(moving_shapes(3, 20, 30)), settings))
with open("tensors", "wb") as file:
    pickle.dump(dict(network.tensors), file)
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    tensors = pickle.loads((tmp_path / "tensors").read_bytes())
    whole = run_fit(codec.fit(clip, settings))
    assert all(np.array_equal(tensors[name], value) for name, value in whole.tensors.items())


@pytest.mark.parametrize("name", [name for name, (_, kind) in SMALL.items() if kind == "video"])
def test_a_frame_alone_is_the_frame_among_all(name):
    """Every one of them: kernels that take several at once round differently."""
    codec, _ = SMALL[name]
    network = run_fit(codec.fit(make_clip(moving_shapes(7, 45, 60)), FitSettings(steps=20, seed=1)))
    whole = codec.reconstruct(network).frames
    for place in range(7):
        assert np.array_equal(codec.draw(network, [place])[0], whole[place])
    assert np.array_equal(codec.draw(network, range(2, 5)), whole[2:5])
