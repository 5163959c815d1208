import math

import numpy as np
import pytest

from framefold.codecs.base import FitSettings
from framefold.codecs.clip import Source, Span
from framefold.codecs.nerv import Nerv, NervConfig
from framefold.codecs.sizing import network_parameters
from framefold.codecs.testing import check_codec, make_clip, moving_shapes, quality_of


def span(width, height, frames):
    source = Source(name="a", kind="video", sha256="0" * 64, size_bytes=1, width=width, height=height)
    return Span(source=source, pts=tuple(range(frames)))


def test_the_shared_suite():
    check_codec(Nerv, [NervConfig(width=3), NervConfig(strides=(3, 2), block_widths=(5, 4), width=2, stem_width=8)])
    check_codec(Nerv, [NervConfig(shape="lean", width=3)])


def test_a_lean_network_is_narrow_where_the_picture_is_large():
    config = Nerv().resolve(NervConfig(shape="lean", width=28), span(320, 180, 16))
    assert (config.stem_width, config.block_widths) == (96, (40, 20, 12))


def test_networks_of_before_there_were_shapes_say_nothing_of_theirs():
    config = Nerv().resolve(NervConfig(width=28), span(320, 180, 16))
    assert "shape" not in config.model_dump(mode="json")
    assert NervConfig.model_validate(config.model_dump(mode="json")) == config
    assert NervConfig(shape="lean").model_dump(mode="json")["shape"] == "lean"


def test_size_s_on_the_papers_clip_is_the_papers_network():
    config = Nerv().resolve(NervConfig(size="S"), span(1280, 720, 132))
    assert (config.width, config.stem_width) == (26, 512)
    assert config.block_widths == (26, 96, 96, 96, 96)
    assert config.strides == (5, 2, 2, 2, 2)


@pytest.mark.parametrize("size", ["S", "M", "L"])
@pytest.mark.parametrize("frame", [(1280, 720), (320, 180), (352, 288)])
def test_sizes_are_met_for_any_frame(size, frame):
    clip = span(*frame, 48)
    config = Nerv().resolve(NervConfig(size=size), clip)
    count = network_parameters(lambda: Nerv().build(config, clip.shape))
    target = {"S": 0.026, "M": 0.052, "L": 0.103}[size] * 48 * math.prod(frame)
    assert count == pytest.approx(target, rel=0.2)


def test_it_learns_a_clip():
    clip = make_clip(moving_shapes(4, 32, 48))
    codec = Nerv(NervConfig(width=6, stem_width=48, block_widths=(16, 12)))
    blind = 10 * math.log10(1 / np.var(clip.frames / 255))
    assert quality_of(codec, clip, FitSettings(steps=150)) > blind + 3


def test_strides_and_widths_that_do_not_match_are_refused():
    codec = Nerv(NervConfig(strides=(2, 2), block_widths=(4, 4, 4)))
    with pytest.raises(ValueError, match="2 strides, 3 block_widths"):
        codec.resolve(codec.config, span(32, 32, 2))


@pytest.mark.parametrize(
    "options", [{"width": 0}, {"width": 10**9}, {"strides": [2] * 15}, {"strides": [0]}, {"size": "XL"}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Nerv.from_config(options)
