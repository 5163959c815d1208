import math

import numpy as np
import pytest

from framefold.codecs.base import FitSettings
from framefold.codecs.clip import Source, Span
from framefold.codecs.gridnerv import GridNerv, GridNervConfig
from framefold.codecs.testing import check_codec, make_clip, moving_shapes, quality_of


def span(width, height, frames):
    source = Source(name="a", kind="video", sha256="0" * 64, size_bytes=1, width=width, height=height)
    return Span(source=source, pts=tuple(range(frames)))


def test_the_shared_suite():
    explicit = GridNervConfig(width=4, strides=(3, 2), block_widths=(6,), kernels=(1, 3), grids=(((2, 3), (1, 2)), ()))
    check_codec(GridNerv, [GridNervConfig(width=6), explicit])


def test_the_default_network_of_a_small_clip():
    config = GridNerv().resolve(GridNervConfig(), span(320, 180, 24))
    assert config.strides == (2, 2, 2, 2)
    assert config.block_widths == (24, 20, 16)
    assert config.grids == (((24, 3), (6, 3)), ((6, 2), (2, 4)), ((2, 2),), ((1, 1),))


@pytest.mark.parametrize("frame", [(1, 1), (1920, 1080), (33, 47), (4000, 3)])
def test_any_frame_size_resolves_and_stays_resolved(frame):
    clip = span(*frame, 5)
    config = GridNerv().resolve(GridNervConfig(), clip)
    assert None not in config.model_dump().values()
    assert GridNerv().resolve(config, clip) == config


def test_a_larger_size_has_more_parameters():
    clip = span(320, 180, 24)
    widths = [GridNerv().resolve(GridNervConfig(size=size), clip).width for size in ("S", "M", "L")]
    assert widths == sorted(set(widths))


def test_it_learns_a_clip():
    clip = make_clip(moving_shapes(4, 32, 48))
    blind = 10 * math.log10(1 / np.var(clip.frames / 255))
    assert quality_of(GridNerv(GridNervConfig(width=12)), clip, FitSettings(steps=150)) > blind + 6


@pytest.mark.parametrize(
    "options",
    [
        {"strides": (2, 2), "kernels": (3,)},
        {"strides": (2, 2), "grids": ((), ((1, 1),))},
        {"block_widths": (1,) * 9},
    ],
)
def test_parts_that_do_not_match_are_refused(options):
    codec = GridNerv(GridNervConfig(**options))
    with pytest.raises(ValueError, match=r"gridnerv: .* needed: one of each per block"):
        codec.resolve(codec.config, span(64, 64, 2))


@pytest.mark.parametrize(
    "options", [{"grids": [[[0, 1]]]}, {"grids": [[[1, 10**9]]]}, {"kernels": [2]}, {"width": 4.5}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        GridNerv.from_config(options)
