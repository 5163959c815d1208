import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from framefold.codecs import fitting
from framefold.codecs.base import FitSettings, RateSettings
from framefold.codecs.clip import Source, Span
from framefold.codecs.convnext import ConvNextBlock, ConvNextEncoder
from framefold.codecs.hnerv import HNerv, HNervConfig, TaughtNetwork, paper_strides
from framefold.codecs.metrics import psnr
from framefold.codecs.pruning.narrowing import without_channels
from framefold.codecs.rate.targets import RateTarget
from framefold.codecs.sizing import network_parameters
from framefold.codecs.testing import check_codec, make_clip, moving_shapes, quality_of, run_fit
from framefold.codecs.warm_start import WarmStart

SMALL = HNervConfig(width=6, embedding_width=3, strides=(4, 2))


def span(width, height, frames):
    source = Source(name="a", kind="video", sha256="0" * 64, size_bytes=1, width=width, height=height)
    return Span(source=source, pts=tuple(range(frames)))


def parameters(codec, clip):
    config = codec.resolve(codec.config, clip)
    return network_parameters(lambda: codec.build(config, clip.shape))


@pytest.fixture(scope="module")
def clip():
    return make_clip(moving_shapes(5, 30, 44))


@pytest.fixture(scope="module")
def fitted(clip):
    return run_fit(HNerv(SMALL).fit(clip, FitSettings(steps=120, seed=1)))


def test_the_shared_suite():
    explicit = HNervConfig(width=4, embedding_width=2, strides=(3, 2), kernels=(3, 5), block_widths=(5, 3))
    check_codec(HNerv, [HNervConfig(width=5), explicit], steps=6)


@pytest.mark.parametrize(
    ("frame", "strides"),
    [((640, 1280), (5, 4, 4, 2, 2)), ((480, 960), (5, 4, 3, 2, 2)), ((960, 1920), (5, 4, 4, 3, 2)), ((2, 9), (1,))],
)
def test_strides_are_the_papers_on_its_sizes(frame, strides):
    assert paper_strides(*frame) == strides


@pytest.mark.parametrize("millions", [0.35, 0.75, 1.5, 3.0])
def test_the_papers_network_sizes_can_be_asked_for(millions):
    clip = span(1280, 640, 132)
    codec = HNerv().sized(clip, millions * 1e6)
    config = codec.resolve(codec.config, clip)
    assert parameters(codec, clip) == pytest.approx(millions * 1e6, rel=0.035)
    assert config.kernels == (1, 3, 5, 5, 5)
    assert codec.build(config, clip.shape).embeddings.maps.shape == (132, 16, 2, 4)
    for wider, narrower in zip((config.width, *config.block_widths), config.block_widths, strict=False):
        assert narrower == max(12, round(wider / 1.2))


def test_the_parameters_of_a_network_are_those_of_the_description():
    """Embeddings, stem, five blocks and head of the 1.5 M network, counted by hand."""
    clip = span(1280, 640, 132)
    widths = (68, 57, 48, 40, 33, 28)
    blocks = zip(widths, widths[1:], (1, 3, 5, 5, 5), (5, 4, 4, 2, 2), strict=False)
    convolutions = sum((n * kernel**2 + 1) * m * stride**2 for n, m, kernel, stride in blocks)
    expected = 132 * 16 * 2 * 4 + (16 + 1) * 68 + convolutions + (28 * 9 + 1) * 3
    assert parameters(HNerv(HNervConfig(width=68)), clip) == expected


@pytest.mark.parametrize("size", ["S", "M", "L"])
@pytest.mark.parametrize("frame", [(1280, 720), (320, 180), (351, 287)])
def test_sizes_are_met_for_any_frame(size, frame):
    clip = span(*frame, 48)
    target = {"S": 0.026, "M": 0.052, "L": 0.103}[size] * 48 * math.prod(frame)
    assert parameters(HNerv(HNervConfig(size=size)), clip) == pytest.approx(target, rel=0.1)


@pytest.mark.parametrize("frame", [(1, 1), (1920, 1080), (33, 47), (4000, 3)])
def test_any_frame_size_resolves_and_stays_resolved(frame):
    clip = span(*frame, 2)
    config = HNerv().resolve(HNervConfig(), clip)
    assert None not in config.model_dump().values()
    assert HNerv().resolve(config, clip) == config


def test_decoder_and_embeddings_are_stored_and_the_encoder_is_not(fitted):
    kinds = {name.split(".")[0] for name in fitted.tensors}
    assert kinds == {"embeddings", "stem", "blocks", "head"}
    assert fitted.tensors["embeddings.maps"].shape == (5, 3, 4, 6)


def test_what_is_stored_draws_what_was_fitted(clip):
    codec = HNerv(SMALL)
    config = codec.resolve(codec.config, clip.span)
    torch.manual_seed(0)
    taught = codec.scaffold(config, codec.build(config, clip.span.shape), clip)
    indices = torch.tensor([3, 0])
    with torch.no_grad():
        before, drawn = taught.network(indices), taught(indices)
        assert not torch.allclose(before, drawn, atol=1e-3)
        taught.settle()
        assert torch.allclose(taught.network(indices), drawn, atol=1e-6)


def test_the_encoder_sees_the_whole_frame_and_only_its_own(clip):
    codec = HNerv(SMALL)
    torch.manual_seed(0)
    config = codec.resolve(codec.config, clip.span)
    embeddings = []
    for change in (None, (0, 29, 43), (1, 0, 0)):
        frames = clip.frames.copy()
        if change is not None:
            frame, y, x = change
            frames[frame, :, y, x] ^= 255
        torch.manual_seed(0)
        taught = codec.scaffold(config, codec.build(config, clip.span.shape), replace(clip, frames=frames))
        taught.settle()
        embeddings.append(taught.network.embeddings.maps.detach())
    assert [not torch.equal(other[0], embeddings[0][0]) for other in embeddings[1:]] == [True, False]
    assert [not torch.equal(other[1], embeddings[0][1]) for other in embeddings[1:]] == [False, True]


def test_the_encoder_learns_and_the_stored_embeddings_wait(clip):
    codec = HNerv(SMALL)
    config = codec.resolve(codec.config, clip.span)
    taught = codec.scaffold(config, codec.build(config, clip.span.shape), clip)
    assert isinstance(taught, TaughtNetwork)
    taught(torch.tensor([2, 4])).mean().backward()
    gradients = {name: parameter.grad for name, parameter in taught.named_parameters()}
    assert [name for name, gradient in gradients.items() if gradient is None] == ["network.embeddings.maps"]
    assert all(gradients[name].abs().sum() > 0 for name in gradients if name.startswith("encoder."))


def test_a_convnext_block_begins_as_nothing_and_looks_seven_wide():
    torch.manual_seed(0)
    block, x = ConvNextBlock(3), torch.randn(1, 3, 9, 15)
    assert torch.allclose(block(x), x, atol=1e-4)
    block.scale.data.fill_(1.0)
    spot = x.clone()
    spot[0, :, 4, 7] += 1
    changed = (block(spot) - block(x)).abs().sum((0, 1)) > 1e-6
    assert changed[1:8, 4:11].all()
    assert changed.sum() == 49


def test_the_encoders_map_is_its_input_over_all_strides():
    encoder = ConvNextEncoder((3, 2, 1), (8, 8, 4))
    assert encoder(torch.rand(2, 3, 12, 18)).shape == (2, 4, 2, 3)


def test_a_fit_goes_on_with_its_encoder_as_if_it_had_not_been_broken_off(clip, monkeypatch):
    monkeypatch.setattr(fitting, "SECONDS_BETWEEN_REPORTS", 0.0)
    settings, codec = FitSettings(steps=30, seed=2), HNerv(SMALL)
    states = {each.step: each.state() for each in codec.fit(clip, settings)}
    assert any(name.startswith("encoder.") for name in states[17]["run"]["parameters"])
    whole = run_fit(codec.fit(clip, settings))
    for step in (0, 17, 30):
        again = run_fit(codec.fit(clip, replace(settings, resume=states[step])))
        assert all(np.array_equal(again.tensors[name], value) for name, value in whole.tensors.items())


def test_fine_tuning_and_rate_tuning_learn_the_embeddings_themselves(clip, fitted):
    codec = HNerv()
    before = psnr(codec.reconstruct(fitted).frames, clip.frames)
    tuned = run_fit(codec.finetune(fitted, {}, FitSettings(steps=100)))
    assert not np.array_equal(tuned.tensors["embeddings.maps"], fitted.tensors["embeddings.maps"])
    assert psnr(codec.reconstruct(tuned).frames, clip.frames) > before
    assert codec.sensitivity(fitted)["embeddings.maps"].min() > 0
    target = RateSettings(target=RateTarget(bits_per_weight=5))
    symbols = run_fit(codec.tune_for_rate(fitted, target, FitSettings(steps=60)))
    assert symbols.tensors["embeddings.maps"].symbols.any()
    assert psnr(codec.reconstruct(symbols.dequantize()).frames, clip.frames) > before - 1.5


def test_a_fit_from_a_start_needs_no_encoder(clip, fitted):
    start = WarmStart(network=fitted, held=("stem.", "blocks.", "head."))
    settings = FitSettings(steps=20, start=start)
    network = run_fit(HNerv(SMALL).fit(clip, settings))
    changed = [name for name, value in fitted.tensors.items() if not np.array_equal(network.tensors[name], value)]
    assert changed == ["embeddings.maps"]


def test_a_frame_alone_is_the_frame_of_the_whole_clip(clip, fitted):
    _, module = HNerv().load(fitted)
    with torch.inference_mode():
        whole = module(torch.arange(5))
        for index in range(5):
            assert torch.allclose(module(torch.tensor([index]))[0], whole[index], atol=1e-5)
    assert not torch.allclose(whole[0], whole[4], atol=0.05)


def test_channels_go_from_embeddings_and_blocks(fitted):
    small = without_channels(HNerv(), fitted, 0.5)
    assert small.tensors["embeddings.maps"].shape[1] == small.config["embedding_width"] <= 3
    assert sum(value.size for value in small.tensors.values()) == pytest.approx(
        0.5 * sum(value.size for value in fitted.tensors.values()), rel=0.2
    )
    assert HNerv().reconstruct(small).frames.shape == fitted.span.shape


def test_it_learns_a_clip():
    clip = make_clip(moving_shapes(4, 32, 48))
    blind = 10 * math.log10(1 / np.var(clip.frames / 255))
    codec = HNerv(HNervConfig(width=16, embedding_width=6, strides=(4, 2, 2)))
    assert quality_of(codec, clip, FitSettings(steps=150)) > blind + 5


@pytest.mark.parametrize("parts", [{"kernels": (1,)}, {"block_widths": (4, 4, 4)}])
def test_parts_that_do_not_match_are_refused(parts):
    codec = HNerv(HNervConfig(strides=(2, 2), **parts))
    with pytest.raises(ValueError, match=r"hnerv: 2 strides, .* one of each per block"):
        codec.resolve(codec.config, span(32, 32, 2))


@pytest.mark.parametrize(
    "options", [{"width": 0}, {"embedding_width": 10**9}, {"strides": [2] * 15}, {"kernels": [2]}, {"size": "XL"}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        HNerv.from_config(options)
