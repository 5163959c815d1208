import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from framefold.codecs.sizing import base_grid, frame_strides, network_cost, network_parameters, width_for


@pytest.mark.parametrize(
    ("size", "strides"),
    [
        ((720, 1280), (5, 2, 2, 2, 2)),
        ((1080, 1920), (5, 3, 2, 2, 2)),
        ((180, 320), (5, 2, 2)),
        ((3, 500), (1,)),
    ],
)
def test_strides_of_known_sizes(size, strides):
    assert frame_strides(*size, 9) == strides


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(4, 16))
def test_the_up_sampled_grid_covers_the_frame_with_less_than_one_cell_to_spare(height, width, short_side):
    strides = frame_strides(height, width, short_side)
    product = math.prod(strides)
    h, w = base_grid(height, width, strides)
    assert 0 <= h * product - height < product
    assert 0 <= w * product - width < product
    assert h <= max(2, 2 * short_side) or w <= max(2, 2 * short_side)


@given(st.floats(1, 1e6), st.integers(1, 50), st.integers(1, 200))
def test_no_other_width_is_nearer(parameters, smallest, extent):
    widths = range(smallest, smallest + extent + 1)
    chosen = width_for(parameters, lambda n: n * n + 3, smallest=smallest, largest=smallest + extent)
    assert abs(chosen**2 + 3 - parameters) == min(abs(n * n + 3 - parameters) for n in widths)


class Wide(nn.Module):
    """More memory than any machine has."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 2**20)
        self.second = nn.Linear(2**20, 2**30)

    def forward(self, indices):
        return self.second(self.first(torch.zeros(len(indices), 8)))


def test_the_cost_of_a_network_that_could_not_be_built():
    cost = network_cost(Wide)
    assert cost.parameters == network_parameters(Wide) == 9 * 2**20 + 2**30 * (2**20 + 1)
    assert cost.activation_bytes == 4 * (2**20 + 2**30)
