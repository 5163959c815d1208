import numpy as np
import pytest
import torch

from framefold.codecs.rate.laplace_rate import SpaceTimeRate


@pytest.fixture
def rate():
    """One whose every parameter does something."""
    torch.manual_seed(3)
    made = SpaceTimeRate()
    with torch.no_grad():
        made.mean.normal_(0, 0.2)
        made.spread.normal_(-1, 0.5)
    return made


def nodes(shape=(2, 5, 6)):
    torch.manual_seed(4)
    return torch.randn(shape) * 2, torch.randn(shape).round()


def test_the_slope_is_that_of_the_bits_with_curves_held(rate):
    """By central differences: moving one value also moves the curves of others, which are held still here."""
    values, before = nodes()
    leaf = values.clone().requires_grad_()
    rate.bits(leaf, before).backward()
    mean, scale = (curve.detach().double() for curve in rate._curves(values, before))

    def bits(x):
        distance = (x - mean).abs()

        def laplace_cdf(v):
            return torch.where(v < 0, 0.5 * torch.exp(v / scale), 1 - 0.5 * torch.exp(-v / scale))

        return -torch.log2(laplace_cdf(distance + 0.5) - laplace_cdf(distance - 0.5) + 2.0**-24)

    tiny = 1e-4
    slope = (bits(values.double() + tiny) - bits(values.double() - tiny)) / (2 * tiny)
    near_a_kink = (values - mean).abs() < 1e-3
    assert not near_a_kink.any()
    np.testing.assert_allclose(leaf.grad, slope, rtol=2e-3, atol=2e-4)


def test_both_ways_of_counting_agree(rate):
    values, before = nodes()
    assert rate.bits(values, before).item() == pytest.approx(rate.learning_bits(values, before).item(), rel=1e-5)


def test_only_what_the_coder_knows_by_then_tells_of_a_place(rate):
    """A change at a place may change the curves of later places of its node, in C order, and of no others."""
    values, before = nodes((1, 5, 6))
    rate.level.data.fill_(-100)  # the mean of all errors tells of all: a scale that is learned, not a context
    changed = values.clone()
    changed[0, 2, 3] += 4
    curves = zip(rate._curves(values, before), rate._curves(changed, before), strict=True)
    differs = torch.stack([(one != other)[0] for one, other in curves]).any(0).reshape(-1)
    place = 2 * 6 + 3
    assert not differs[: place + 1].any()
    assert differs[place + 1 :].any()


def test_curves_learn_to_foretell(rate):
    """A node that repeats the one before costs little once that has been learned."""
    torch.manual_seed(5)
    before = (torch.randn(2, 8, 8) * 3).round()
    learning = SpaceTimeRate()
    learning.mean.data.zero_()
    optimizer = torch.optim.Adam(learning.parameters(), lr=0.05)
    first = learning.bits(before, before).item()
    for _ in range(150):
        optimizer.zero_grad()
        learning.learning_bits(before, before).backward()
        optimizer.step()
    assert learning.bits(before, before).item() < 0.3 * first
