import math

import numpy as np
import pytest
import torch

from framefold.codecs.attention import Attention
from framefold.codecs.base import FitSettings
from framefold.codecs.clip import Source, Span
from framefold.codecs.enerv import ENerv, ENervConfig, ENervNetwork, FactorisedUpBlock, TimedNorm
from framefold.codecs.pruning.narrowing import without_channels
from framefold.codecs.sizing import network_cost, network_parameters
from framefold.codecs.testing import check_codec, make_clip, moving_shapes, quality_of, run_fit

SMALL = ENervConfig(width=6, strides=(3, 2))


def span(width, height, frames):
    source = Source(name="a", kind="video", sha256="0" * 64, size_bytes=1, width=width, height=height)
    return Span(source=source, pts=tuple(range(frames)))


def parameters(config, clip):
    codec = ENerv()
    resolved = codec.resolve(config, clip)
    return network_parameters(lambda: codec.build(resolved, clip.shape))


@pytest.fixture(scope="module")
def fitted():
    return run_fit(ENerv(SMALL).fit(make_clip(moving_shapes(4, 25, 38)), FitSettings(steps=40, seed=1)))


def test_the_shared_suite():
    explicit = ENervConfig(
        width=4,
        stem_width=9,
        token_width=7,
        head_width=2,
        hidden_width=5,
        branch_width=6,
        middle_width=2,
        strides=(3, 2),
        block_widths=(5, 4),
        encoding_levels=12,
    )
    check_codec(ENerv, [ENervConfig(width=3), explicit], steps=6)


def test_the_papers_width_on_the_papers_clip_is_the_papers_network():
    """12.49 M parameters."""
    config = ENerv().resolve(ENervConfig(width=196), span(1280, 720, 132))
    assert (config.stem_width, config.token_width, config.head_width) == (512, 256, 64)
    assert (config.hidden_width, config.branch_width, config.middle_width) == (128, 128, 49)
    assert config.block_widths == (588, 294, 147, 96, 96)
    assert config.strides == (5, 2, 2, 2, 2)
    assert parameters(config, span(1280, 720, 132)) == 12_490_314


def test_the_small_network_of_the_authors_program_can_be_asked_for():
    """On 320x180 with stem 128, grid 9x16x32, tokens 64, expansion 1.5: it prints 0.379 M."""
    small = {"width": 32, "stem_width": 128, "token_width": 64, "head_width": 64, "hidden_width": 64}
    small |= {"branch_width": 128, "block_widths": (48, 24, 24), "encoding_levels": 40}
    assert parameters(ENervConfig(**small), span(320, 180, 16)) == pytest.approx(0.379e6, rel=0.03)


@pytest.mark.parametrize("size", ["S", "M", "L"])
@pytest.mark.parametrize("frame", [(1280, 720), (320, 180), (352, 288)])
def test_sizes_are_met_for_any_frame(size, frame):
    clip = span(*frame, 48)
    target = {"S": 0.026, "M": 0.052, "L": 0.103}[size] * 48 * math.prod(frame)
    assert parameters(ENervConfig(size=size), clip) == pytest.approx(target, rel=0.1)


@pytest.mark.parametrize("frame", [(1, 1), (1920, 1080), (33, 47), (4000, 3)])
def test_any_frame_size_resolves_and_stays_resolved(frame):
    clip = span(*frame, 5)
    config = ENerv().resolve(ENervConfig(), clip)
    assert None not in config.model_dump().values()
    assert ENerv().resolve(config, clip) == config


def test_a_frame_of_one_pixel_can_be_stored():
    """Its base grid has one place, whose variance is 0."""
    clip = make_clip(np.uint8([[10, 200, 90], [60, 20, 250]])[:, :, None, None])
    assert quality_of(ENerv(ENervConfig(width=4)), clip, FitSettings(steps=300, learning_rate=0.01)) > 25


def test_attention_is_the_textbooks():
    """As torch's own, given the same weights."""
    torch.manual_seed(0)
    attention = Attention(6, 3, 2)
    reference = torch.nn.MultiheadAttention(6, 3, bias=True, batch_first=True)
    with torch.no_grad():
        reference.in_proj_weight.copy_(attention.asked.weight[:, :, 0, 0])
        reference.in_proj_bias.zero_()
        reference.out_proj.weight.copy_(attention.out.weight[:, :, 0, 0])
        reference.out_proj.bias.copy_(attention.out.bias)
        x = torch.randn(2, 6, 3, 5)
        expected, _ = reference(*(x.flatten(2).transpose(1, 2),) * 3)
        assert torch.allclose(attention(x).flatten(2).transpose(1, 2), expected, atol=1e-6)


def test_the_values_of_attention_are_weighed_though_no_layer_has_them_as_features():
    """N * N weights per head: what a stranger's large base grid would take."""
    config = ENerv().resolve(ENervConfig(width=2, strides=(1,)), span(300, 200, 1))
    cost = network_cost(lambda: ENerv().build(config, (1, 3, 200, 300)))
    assert cost.activation_bytes >= 4 * 8 * (200 * 300) ** 2


def test_a_timed_norm_takes_the_size_of_a_channel_away_and_gives_the_times():
    torch.manual_seed(0)
    norm, x, times = TimedNorm(3, 4), torch.randn(2, 4, 5, 6), torch.randn(2, 3)
    assert torch.allclose(norm(7 * x - 2, times), norm(x, times), atol=1e-4)
    scale, shift = norm.modulation(times).chunk(2, 1)
    out = norm(x, times)
    assert torch.allclose(out.mean((2, 3)), shift, atol=1e-5)
    assert torch.allclose(out.std((2, 3), correction=0), scale.abs(), atol=1e-4)


def test_the_first_block_grows_with_few_channels():
    block = FactorisedUpBlock(8, 2, 24, 5)
    assert block(torch.zeros(2, 8, 3, 4)).shape == (2, 24, 15, 20)
    assert sum(each.numel() for each in block.parameters()) == (8 * 9 + 1) * 2 * 25 + (2 * 9 + 1) * 24


def test_the_places_are_told_by_the_encodings_of_y_and_of_x():
    config = ENerv().resolve(ENervConfig(width=2, encoding_levels=3), span(320, 180, 2))
    places = ENervNetwork(config, (2, 3, 180, 320)).get_buffer("places")
    assert places.shape == (1, 12, 9, 16)
    assert places[0, :, 0, 0].tolist() == [0, 0, 0, 1, 1, 1] * 2
    y, x = (torch.tensor([1.25**k * math.pi * at for k in range(3)]) for at in (4 / 9, 5 / 16))
    expected = torch.cat((y.sin(), y.cos(), x.sin(), x.cos()))
    assert torch.allclose(places[0, :, 4, 5], expected, atol=1e-6)


def test_a_frame_alone_is_the_frame_of_the_whole_clip(fitted):
    _, module = ENerv().load(fitted)
    with torch.inference_mode():
        whole = module(torch.arange(4))
        for index in range(4):
            assert torch.allclose(module(torch.tensor([index]))[0], whole[index], atol=1e-5)


def test_channels_go_with_their_scales_and_shifts(fitted):
    small = without_channels(ENerv(), fitted, 0.7)
    config = small.config
    channels = [config["width"], *config["block_widths"][:-1]]
    for i, count in enumerate(channels):
        assert small.tensors[f"norms.{i}.modulation.weight"].shape == (2 * count, config["branch_width"])
    assert small.tensors["space.perceptron.0.weight"].shape[0] == config["hidden_width"]
    assert sum(value.size for value in small.tensors.values()) == pytest.approx(
        0.7 * sum(value.size for value in fitted.tensors.values()), rel=0.1
    )
    assert ENerv().reconstruct(small).frames.shape == fitted.span.shape


def test_groups_name_the_channels_of_their_layer_and_all_rows_that_make_them(fitted):
    codec = ENerv()
    config, module = codec.load(fitted)
    groups = {group.layer: group for group in codec.channel_groups(config, fitted.span.shape)}
    seen = {}
    for layer in groups:
        module.get_submodule(layer).register_forward_hook(
            lambda _module, _inputs, output, name=layer: seen.update({name: output})
        )
    module(torch.tensor([0, 3]))
    assert {name: output.shape[1] for name, output in seen.items()} == {
        name: group.channels for name, group in groups.items()
    }
    for group in groups.values():
        biases = [places for places in group.made_by if places.tensor.endswith("bias")]
        sizes = sum(module.get_parameter(name).numel() for name in {places.tensor for places in biases})
        assert sizes == group.channels * sum(places.per for places in biases)


def test_it_learns_a_clip():
    clip = make_clip(moving_shapes(4, 32, 48))
    blind = 10 * math.log10(1 / np.var(clip.frames / 255))
    assert quality_of(ENerv(ENervConfig(width=16)), clip, FitSettings(steps=150)) > blind + 3


def test_strides_and_widths_that_do_not_match_are_refused():
    codec = ENerv(ENervConfig(strides=(2, 2), block_widths=(4, 4, 4)))
    with pytest.raises(ValueError, match="enerv: 2 strides, 3 block_widths"):
        codec.resolve(codec.config, span(32, 32, 2))


@pytest.mark.parametrize(
    "options", [{"width": 0}, {"token_width": 10**9}, {"strides": [2] * 15}, {"strides": [0]}, {"size": "XL"}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ENerv.from_config(options)
