"""The network that learns with its bits: it draws what is stored, stays on the grid, and steers its price."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from framefold.codecs.network import FittedNetwork, SymbolTensors
from framefold.codecs.quantizing.allocation import Allocation
from framefold.codecs.quantizing.steps import step_exponents
from framefold.codecs.rate.rate_aware import (
    EVERY,
    EXPECTED_DB,
    FURTHEST,
    RESTARTS,
    Grid,
    RateAwareNetwork,
    Steering,
)
from framefold.codecs.siren import Siren
from framefold.codecs.stream import bitstream
from framefold.codecs.stream.symbol_models import MAX_SYMBOL

FINENESS = -8.0
PRICE = 1e-7


@pytest.fixture(scope="module")
def allocation(fitted_picture: FittedNetwork) -> Allocation:
    return Allocation.of(fitted_picture, Siren().sensitivity(fitted_picture))


def wrapped(allocation: Allocation, fineness: float = FINENESS, **options: Any) -> RateAwareNetwork:
    grids = {
        name: Grid(exponents=allocation.exponents(name, fineness), axis=allocation.splits[name].axis)
        for name in allocation.network.tensors
    }
    _, module = Siren().load(allocation.network)
    return RateAwareNetwork(module, options.pop("grids", grids), price=PRICE, **options)


def stored(network: RateAwareNetwork, like: FittedNetwork) -> SymbolTensors:
    return SymbolTensors(span=like.span, codec=like.codec, config=like.config, tensors=network.quantized())


def drawn(network: RateAwareNetwork) -> np.ndarray:
    with torch.inference_mode():
        picture: np.ndarray = network(torch.tensor([0])).numpy()
    return picture


def as_bytes(picture: np.ndarray) -> np.ndarray:
    return np.rint(255 * picture).clip(0, 255).astype(np.uint8)


def disturb(network: RateAwareNetwork) -> None:
    """As if it had learned for a while: other weights, other steps."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in (*network.network.parameters(), *network.shifts):
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("fineness", [-12.0, -7.3, -5.0])
@pytest.mark.parametrize("log_price", [0.0, 1.7, -2.2])
def test_it_draws_the_picture_that_the_stored_integers_give(
    allocation: Allocation, fineness: float, log_price: float
) -> None:
    network = wrapped(allocation, fineness)
    disturb(network)
    with torch.no_grad():
        network.log_price.add_(log_price)
    symbols = stored(network, allocation.network)
    decoded = bitstream.decode(
        bitstream.encode(symbols, contexts=False), span=symbols.span, codec=symbols.codec, config=symbols.config
    )
    expected = Siren().reconstruct(decoded.dequantize()).frames
    assert np.array_equal(as_bytes(drawn(network.eval())), expected)
    network.train().begin_step(700, 0.75)
    assert np.array_equal(as_bytes(drawn(network)), expected)


def test_early_on_weights_are_blurred_as_the_number_of_the_step_says(allocation: Allocation) -> None:
    network = wrapped(allocation).train()
    network.begin_step(10, 0.1)
    first, again = drawn(network), drawn(network)
    network.begin_step(11, 0.11)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, drawn(network))
    assert not np.array_equal(drawn(wrapped(allocation, seed=1).train()), drawn(wrapped(allocation).train()))


@pytest.mark.parametrize("fraction", [0.1, 0.75])
def test_the_gradient_reaches_every_weight_and_step(allocation: Allocation, fraction: float) -> None:
    network = wrapped(allocation).train()
    network.begin_step(EVERY, fraction)
    loss = (network(torch.tensor([0])) - 0.3).square().mean() + network.penalty()
    loss.backward()
    learning = [*network.network.parameters(), *network.shifts]
    assert len(learning) == 2 * len(allocation.network.tensors)
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in learning)
    assert all(parameter.grad.any() for parameter in learning)


def test_the_price_of_the_bits_is_paid_in_every_fourth_step_four_times_over(allocation: Allocation) -> None:
    network = wrapped(allocation).train()
    penalties = []
    for step in range(2 * EVERY):
        network.begin_step(step, step / 100)
        penalties.append(network.penalty())
    assert [penalty is not None for penalty in penalties] == [step % EVERY == 0 for step in range(2 * EVERY)]
    network.begin_step(0, 0.0)
    assert penalties[0] is not None
    assert float(penalties[0].detach()) == pytest.approx(EVERY * PRICE * float(network.bits().detach()), rel=1e-5)


def test_the_bits_are_about_those_of_the_stream(allocation: Allocation) -> None:
    network = wrapped(allocation)
    tables = 8 * 90  # of a stream of 387 weights
    assert float(network.bits().detach()) == pytest.approx(
        8 * len(bitstream.encode(stored(network, allocation.network))) - tables, rel=0.2
    )


def test_at_the_end_weights_are_drawn_to_the_symbols_where_they_stand(allocation: Allocation) -> None:
    network = wrapped(allocation).train()
    network.begin_step(1, 0.9)
    before = network.values()
    pull = network.penalty()
    assert pull is not None
    pull.backward()
    for name, parameter in network.network.named_parameters():
        assert parameter.grad is not None
        away = before[name] - np.rint(before[name])
        assert (parameter.grad.numpy() * away >= 0).all()
        assert parameter.grad.any()


def test_steps_stay_on_the_grid_of_the_stream_wherever_they_learn_to_be(allocation: Allocation) -> None:
    network = wrapped(allocation)
    for change in (0.0, 0.013, -0.4, 7.77, 300.0, -300.0):
        with torch.no_grad():
            for shifts in network.shifts:
                shifts.add_(change)
        for tensor in network.quantized().values():
            assert step_exponents(tensor.steps) is not None


def test_steps_grow_with_the_root_of_the_price(allocation: Allocation) -> None:
    network = wrapped(allocation)
    before = network.quantized()
    with torch.no_grad():
        network.log_price.add_(2.0)
    for name, tensor in network.quantized().items():
        assert np.array_equal(tensor.steps, 2 * before[name].steps)


def test_steps_never_become_so_fine_that_values_are_cut(allocation: Allocation) -> None:
    exact = wrapped(allocation, -12.0)
    network = wrapped(allocation, -22.0)
    with torch.no_grad():
        network.log_price.sub_(30.0)
    assert all(1000 < np.abs(tensor.symbols).max() < MAX_SYMBOL for tensor in network.quantized().values())
    assert drawn(network.eval()) == pytest.approx(drawn(exact.eval()), abs=0.01)


def octaves_moved(network: RateAwareNetwork, fraction: float) -> float:
    """By how much the price has changed after a step there."""
    before = float(network.log_price)
    network.begin_step(EVERY * 1000, fraction)
    network.penalty()
    return float(network.log_price) - before


@pytest.mark.parametrize(("share", "sign"), [(0.5, 1), (2.0, -1)])
def test_bits_become_dearer_where_there_are_too_many_and_cheaper_where_too_few(
    allocation: Allocation, share: float, sign: int
) -> None:
    wanted = share * float(wrapped(allocation).bits().detach())
    assert sign * octaves_moved(wrapped(allocation, steering=Steering(bits=wanted)), 0.4) > 0


def judged(allocation: Allocation, mse: float, **options: Any) -> RateAwareNetwork:
    """Its picture has this error whatever its weights; wanted is 1e-3."""
    return wrapped(allocation, steering=Steering(mse=1e-3), judge=lambda tensors: mse, **options)


@pytest.mark.parametrize(("mse", "sign"), [(1e-4, 1), (4e-3, -1)])
def test_at_a_restart_bits_become_cheaper_for_a_poor_picture_and_dearer_for_a_good_one(
    allocation: Allocation, mse: float, sign: int
) -> None:
    network = judged(allocation, mse)
    assert octaves_moved(network, RESTARTS[0] - 0.01) == 0
    assert sign * octaves_moved(network, RESTARTS[0]) > 0
    assert octaves_moved(network, RESTARTS[0] + 0.01) == 0
    assert sign * octaves_moved(network, RESTARTS[1] + 0.02) > 0


def test_what_is_left_to_gain_is_counted_on(allocation: Allocation) -> None:
    assert octaves_moved(judged(allocation, 1e-3 * 10 ** (EXPECTED_DB[0] / 10)), RESTARTS[0]) == pytest.approx(
        0, abs=1e-4
    )


def test_weights_that_something_else_will_round_stay_blurred_and_their_picture_is_not_judged(
    allocation: Allocation,
) -> None:
    network = judged(allocation, 1e-4, rounds=False).train()
    assert octaves_moved(network, 0.95) == 0
    network.begin_step(1, 0.95)
    first = drawn(network)
    assert network.penalty() is None
    network.begin_step(2, 0.95)
    assert not np.array_equal(first, drawn(network))


def test_its_weights_unrounded_are_those_that_it_was_given(allocation: Allocation) -> None:
    for name, tensor in wrapped(allocation).weights().items():
        assert tensor == pytest.approx(allocation.network.tensors[name], rel=1e-5, abs=1e-7)


@pytest.mark.parametrize(("steering", "fraction"), [(Steering(), 0.7), (Steering(bits=1.0), 0.95)])
def test_the_price_stays_without_a_goal_and_near_the_end(
    allocation: Allocation, steering: Steering, fraction: float
) -> None:
    assert octaves_moved(wrapped(allocation, steering=steering), fraction) == 0


def test_the_price_never_goes_further_than_it_may(allocation: Allocation) -> None:
    network = wrapped(allocation, steering=Steering(bits=1.0))
    for _ in range(40):
        octaves_moved(network, 0.4)
    assert float(network.log_price) == pytest.approx(network.first_log_price + FURTHEST)


def test_the_estimate_is_corrected_by_real_streams(allocation: Allocation) -> None:
    estimate = float(wrapped(allocation).bits().detach())
    counted: list[int] = []

    def count(tensors: Any) -> float:
        counted.append(len(tensors))
        return 2 * estimate

    network = wrapped(allocation, steering=Steering(bits=2 * estimate), count=count)
    for step in range(100):
        network.begin_step(step, step / 100)
    assert counted == [len(allocation.network.tensors)] * 4
    assert float(network.excess) == pytest.approx(-1, abs=0.1)
    assert abs(octaves_moved(network, 0.85)) < 0.02


def child(allocation: Allocation, *, parent: bool) -> RateAwareNetwork:
    """The network is its own parent but for the head, which has moved by three steps."""
    base = allocation.at(FINENESS, rounding="nearest").tensors
    moved = {name: tensor.symbols + 3 * name.startswith("head") for name, tensor in base.items()}
    tensors = {name: replace(tensor, symbols=moved[name]).dequantize() for name, tensor in base.items()}
    grids = {}
    for name, tensor in base.items():
        exponents = step_exponents(tensor.steps)
        assert exponents is not None
        axis, origin = allocation.splits[name].axis, tensor.symbols if parent else None
        grids[name] = Grid(exponents=exponents, axis=axis, origin=origin)
    return wrapped(replace(allocation, network=replace(allocation.network, tensors=tensors)), grids=grids)


def test_a_parents_steps_stay_whatever_the_price(allocation: Allocation) -> None:
    network = child(allocation, parent=True)
    before = network.quantized()
    with torch.no_grad():
        network.log_price.add_(3.0)
        for shifts in network.shifts:
            shifts.add_(1.0)
    for name, tensor in network.quantized().items():
        assert np.array_equal(tensor.steps, before[name].steps)
        assert np.array_equal(tensor.symbols, before[name].symbols)
    assert not any(shifts.requires_grad for shifts in network.shifts)


def test_what_is_the_parents_own_stays_and_costs_nothing(allocation: Allocation) -> None:
    network, alone = (child(allocation, parent=parent) for parent in (True, False))
    assert {name for name, each in network.network.named_parameters() if each.requires_grad} == {
        "head.weight",
        "head.bias",
    }
    assert float(network.bits().detach()) < 0.25 * float(alone.bits().detach())
