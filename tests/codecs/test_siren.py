import math

import numpy as np
import pytest
import torch

from framefold.codecs.base import FitSettings
from framefold.codecs.clip import ImageBatch
from framefold.codecs.siren import POINTS_PER_PASS, Siren, SirenConfig, SirenNetwork
from framefold.codecs.testing import check_codec, make_clip, moving_shapes, quality_of


def picture(height, width):
    return make_clip(moving_shapes(1, height, width), kind="image")


def test_the_shared_suite():
    check_codec(Siren, [SirenConfig(width=6, depth=2), SirenConfig(width=5, depth=1, first_frequency=10, frequency=5)])


def test_it_takes_pictures_one_by_one():
    assert Siren.accepts is ImageBatch
    with pytest.raises(ValueError, match=r"shapes.*got 2 frames.*gridnerv"):
        next(Siren().fit(make_clip(moving_shapes(2, 8, 8)), FitSettings(steps=1)))


@pytest.mark.parametrize(("size", "per_pixel"), [("S", 0.05), ("M", 0.1), ("L", 0.2)])
def test_sizes_are_parameters_per_pixel(size, per_pixel):
    config = Siren().resolve(SirenConfig(size=size), picture(120, 160).span)
    network = SirenNetwork(config, (1, 3, 120, 160))
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(per_pixel * 120 * 160, rel=0.1)


def test_it_learns_a_picture():
    clip = picture(40, 60)
    blind = 10 * math.log10(1 / np.var(clip.frames / 255))
    assert quality_of(Siren(SirenConfig(width=24, depth=3)), clip, FitSettings(steps=300)) > blind + 6


def test_initial_activations_spread_as_the_paper_derives():
    torch.manual_seed(0)
    network = SirenNetwork(SirenConfig(width=256, depth=4), (1, 3, 64, 64))
    points = torch.rand(4096, 2) * 2 - 1
    for layer in network.layers:
        points = layer(points)
        assert points.std().item() == pytest.approx(math.sqrt(0.5), abs=0.05)  # arcsine distributed


def test_a_lattice_is_a_part_of_the_whole_picture():
    network = SirenNetwork(SirenConfig(width=8, depth=3), (1, 3, 20, 30))
    index = torch.zeros(1, dtype=torch.long)
    whole, part = network(index), network(index, slice(1, None, 3), slice(2, None, 4))
    assert torch.allclose(part, whole[:, :, 1::3, 2::4], atol=1e-5)


def test_a_picture_drawn_in_passes_is_the_same_picture():
    side = 300
    assert side * side > POINTS_PER_PASS
    network = SirenNetwork(SirenConfig(width=4, depth=2), (1, 3, side, side))
    index = torch.zeros(1, dtype=torch.long)
    with torch.no_grad():
        assert torch.allclose(network.train()(index), network.eval()(index), atol=1e-5)
