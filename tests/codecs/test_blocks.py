import math

import pytest
import torch
from torch import nn

from framefold.codecs.blocks import TimeGrid, UpBlock, positional_encoding


def test_positional_encoding_is_equation_1():
    encoding = positional_encoding(8, 1.25, 80)
    assert encoding.shape == (8, 160)
    assert encoding[0].tolist() == [0.0] * 80 + [1.0] * 80
    phase = 1.25**70 * math.pi * 3 / 8
    assert encoding[3, 70].item() == pytest.approx(math.sin(phase), abs=1e-6)
    assert encoding[3, 150].item() == pytest.approx(math.cos(phase), abs=1e-6)


def test_up_block_grows_by_its_stride():
    block = UpBlock(4, 6, 3, 5, nn.GELU())
    assert block(torch.zeros(2, 4, 5, 7)).shape == (2, 6, 15, 21)


def test_time_grid_passes_through_its_nodes_and_is_linear_between():
    grid = TimeGrid(frames=9, nodes=3, channels=2, height=4, width=5)
    maps = grid.maps
    assert torch.allclose(grid(torch.tensor([0, 4, 8])), maps)
    assert torch.allclose(grid(torch.tensor([1]))[0], 0.75 * maps[0] + 0.25 * maps[1], atol=1e-6)


@pytest.mark.parametrize(("frames", "nodes"), [(1, 1), (1, 3), (5, 1)])
def test_time_grid_of_one_frame_or_one_node_gives_its_first_map(frames, nodes):
    grid = TimeGrid(frames, nodes, 2, 3, 3)
    for index in range(frames):
        assert torch.allclose(grid(torch.tensor([index]))[0], grid.maps[0])


def test_every_node_of_a_time_grid_can_learn():
    grid = TimeGrid(frames=7, nodes=4, channels=1, height=2, width=2)
    grid(torch.arange(7)).sum().backward()
    assert (grid.maps.grad.flatten(1).sum(1) > 0).all()
