import pytest
import torch
from torch import nn

from framefold.codecs.optimizer import FloorAdam


def groups(parameters, floor):
    return [{"params": parameters, "lr": 0.1, "floor": floor}]


def test_without_a_floor_it_is_adam():
    mine, torchs = (nn.Parameter(torch.tensor([1.0, -2.0, 3.0])) for _ in range(2))
    ours = FloorAdam(groups([mine], 0.0), betas=(0.9, 0.99))
    adam = torch.optim.Adam([torchs], lr=0.1, betas=(0.9, 0.99), eps=1e-10, fused=True)
    for step in range(5):
        for parameter, optimizer in ((mine, ours), (torchs, adam)):
            parameter.grad = torch.tensor([0.3, -1e-6, 2.0]) * (step + 1)
            optimizer.step()
    assert torch.equal(mine, torchs)


def test_a_gradient_that_is_small_beside_the_others_moves_little():
    """Adam alone would move all three by the learning rate."""
    parameter = nn.Parameter(torch.zeros(3))
    optimizer = FloorAdam(groups([parameter], 1.0), betas=(0.9, 0.99))
    parameter.grad = torch.tensor([1.0, 0.01, 0.0])
    optimizer.step()
    floor = (1.0001 / 3) ** 0.5
    expected = [-0.1 / (1 + floor), -0.1 * 0.01 / (0.01 + floor), 0.0]
    assert parameter.tolist() == pytest.approx(expected, rel=1e-4)


def test_parameters_without_a_gradient_stay_and_do_not_count():
    seen, unseen = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = FloorAdam(groups([seen, unseen], 1.0), betas=(0.9, 0.99))
    seen.grad = torch.full((2,), 3.0)
    optimizer.step()
    assert torch.equal(unseen, torch.ones(2))
    total, weight = optimizer.mean_squares
    assert total / weight == pytest.approx(9.0)


def test_what_it_remembers_can_be_put_back():
    def run(optimizer, parameter, steps):
        for step in steps:
            parameter.grad = torch.tensor([1.0 + step, 0.1])
            optimizer.step()

    whole = nn.Parameter(torch.zeros(2))
    run(FloorAdam(groups([whole], 0.5), betas=(0.9, 0.99)), whole, range(6))
    parted = nn.Parameter(torch.zeros(2))
    first = FloorAdam(groups([parted], 0.5), betas=(0.9, 0.99))
    run(first, parted, range(3))
    second = FloorAdam(groups([parted], 0.5), betas=(0.9, 0.99))
    second.state[parted] = first.state[parted]
    second.mean_squares = first.mean_squares
    run(second, parted, range(3, 6))
    assert torch.equal(whole, parted)


def test_a_state_of_other_groups_is_refused():
    optimizer = FloorAdam(groups([nn.Parameter(torch.zeros(2))], 0.5), betas=(0.9, 0.99))
    with pytest.raises(ValueError, match="needed are 2"):
        optimizer.mean_squares = [1.0]
