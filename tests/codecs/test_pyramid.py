import numpy as np
import pytest
import torch

from framefold.codecs import fitting
from framefold.codecs.base import FitSettings, RateSettings
from framefold.codecs.gridnerv import Grid
from framefold.codecs.metrics import psnr
from framefold.codecs.pyramid import Pyramid, PyramidConfig
from framefold.codecs.rate.rate_first import SEEN_EVERY, RateFirst
from framefold.codecs.rate.targets import RateTarget
from framefold.codecs.stream import bitstream
from framefold.codecs.testing import check_codec, make_clip, moving_shapes, run_fit

GRIDS = ((Grid(5, 2),), (Grid(2, 1), Grid(1, 1)), (Grid(1, 1),))
SMALL = PyramidConfig(widths=(6, 5), bottlenecks=(4, 5), grids=GRIDS)
SETTINGS = FitSettings(steps=150, seed=1)


@pytest.fixture(scope="module")
def clip():
    return make_clip(moving_shapes(5, 30, 44))


@pytest.fixture(scope="module")
def symbols(clip):
    return run_fit(Pyramid(SMALL).fit_for_rate(clip, RateSettings(bit_price=30.0), SETTINGS))


def drawn(symbols):
    return Pyramid().reconstruct(symbols.dequantize()).frames


def network_of(clip, config=SMALL):
    torch.manual_seed(0)
    codec = Pyramid(config)
    return codec.build(codec.resolve(config, clip.span), clip.span.shape)


def same_tensors(one, other):
    return all(
        np.array_equal(one.tensors[name].symbols, other.tensors[name].symbols)
        and np.array_equal(one.tensors[name].steps, other.tensors[name].steps)
        for name in one.tensors | other.tensors
    )


def test_the_shared_suite():
    check_codec(Pyramid, [PyramidConfig(), SMALL], steps=6)


@pytest.mark.parametrize(("side", "levels"), [(1080, 6), (720, 6), (216, 4), (180, 4), (30, 1), (1, 1)])
def test_levels_follow_from_the_smaller_side(side, levels):
    span = make_clip(np.zeros((1, 3, side, 2 * side), np.uint8)).span
    config = Pyramid().resolve(PyramidConfig(), span)
    assert len(config.widths) == len(config.bottlenecks) == len(config.grids) - 1 == levels


def test_larger_sizes_widen_the_decoder_alone():
    span = make_clip(np.zeros((8, 3, 60, 80), np.uint8)).span
    small, large = (Pyramid().resolve(PyramidConfig(size=size), span) for size in "SL")
    assert [2 * width for width in small.widths] == list(large.widths)
    assert [2 * width for width in small.bottlenecks] == list(large.bottlenecks)
    assert small.grids == large.grids


@pytest.mark.parametrize(
    "change",
    [{"bottlenecks": (4,)}, {"grids": GRIDS[:2]}, {"grids": (*GRIDS[:2], ())}, {"widths": (6, 5, 4)}],
)
def test_sizes_that_do_not_go_together_are_refused(clip, change):
    config = SMALL.model_copy(update=change)
    with pytest.raises(ValueError, match="pyramid: "):
        run_fit(Pyramid(config).fit(clip, SETTINGS))


def test_what_is_stored_gives_the_picture_that_was_learned(clip, symbols):
    payload = bitstream.encode(symbols)
    back = bitstream.decode(payload, span=symbols.span, codec=symbols.codec, config=symbols.config)
    assert same_tensors(back, symbols)
    assert psnr(drawn(back), clip.frames) > 22


def test_the_picture_while_it_learns_is_that_of_the_stored_network(clip):
    """Up to float rounding: there weights are products of torch's powers, here of the stream's table."""
    latent = RateFirst(network_of(clip), price=1e-9).eval()
    with torch.no_grad():
        for parameter in latent.grids.parameters():
            parameter.add_(torch.randn_like(parameter))
        learned = latent(torch.tensor([0, 3]))
    codec = Pyramid(SMALL)
    network = network_of(clip)
    with torch.no_grad():
        for name, tensor in latent.quantized().items():
            network.get_parameter(name).copy_(torch.from_numpy(tensor.dequantize()))
        stored = network(torch.tensor([0, 3]))
    assert codec.name == "pyramid"
    assert torch.allclose(learned, stored, atol=1e-4)
    assert learned.std() > 0.01


def test_a_frame_moves_only_the_nodes_that_it_is_drawn_from(clip):
    latent = RateFirst(network_of(clip), price=1e-9)
    latent.begin_step(1, 0.0)
    latent(torch.tensor([4])).sum().backward()
    first = latent.grids[0][0].nodes
    assert [node.grad is not None for node in first] == [False, False, False, False, True]


def test_the_rate_of_a_grid_is_expected_to_be_that_of_all_its_nodes(clip):
    """What single frames tell of a grid of many nodes, averaged over all frames, is what all nodes take."""
    config = PyramidConfig(widths=(6,), bottlenecks=(5,), grids=((Grid(10, 2),), (Grid(1, 1),)))
    latent = RateFirst(network_of(make_clip(moving_shapes(10, 16, 20)), config), price=1e-9)
    grid = latent.grids[0][0]
    with torch.no_grad():
        for node in grid.nodes:
            node.normal_(0, 2)
    told = [grid.visited_bits(frame, 2, torch.Generator().manual_seed(7)).item() for frame in range(10)]
    whole = [grid.rate.bits(*grid._noisy(node, torch.Generator().manual_seed(7))).item() for node in range(10)]
    assert np.mean(told) / SEEN_EVERY == pytest.approx(sum(whole), rel=1e-5)
    latent.begin_step(1, 0.0)
    latent(torch.tensor([4]))
    assert latent.penalty() is None, "nothing is asked in between, so n times as much is when it is asked"


def test_a_higher_price_makes_the_stream_smaller_and_the_picture_worse(clip, symbols):
    dear = run_fit(Pyramid(SMALL).fit_for_rate(clip, RateSettings(bit_price=3000.0), SETTINGS))
    assert len(bitstream.encode(dear)) < 0.9 * len(bitstream.encode(symbols))
    assert psnr(drawn(dear), clip.frames) < psnr(drawn(symbols), clip.frames)


def test_the_same_seed_gives_the_same_symbols_and_another_one_others(clip):
    short = FitSettings(steps=12, seed=5)
    rate = RateSettings()
    one, other = (run_fit(Pyramid(SMALL).fit_for_rate(clip, rate, short)) for _ in range(2))
    assert same_tensors(one, other)
    third = run_fit(Pyramid(SMALL).fit_for_rate(clip, rate, FitSettings(steps=12, seed=6)))
    assert not same_tensors(one, third)


@pytest.mark.parametrize("target", [None, {"bytes": 900}])
def test_a_resumed_fit_gives_the_same_symbols(clip, target, monkeypatch):
    monkeypatch.setattr(fitting, "SECONDS_BETWEEN_REPORTS", 0.0)
    rate = RateSettings(target=target and RateTarget(**target))
    settings = FitSettings(steps=40, seed=2)
    states = []
    running = Pyramid(SMALL).fit_for_rate(clip, rate, settings)
    while True:
        try:
            progress = next(running)
            if progress.state:
                states.append(progress.state())
        except StopIteration as end:
            whole = end.value
            break
    for at in (7, 23):
        resumed = FitSettings(steps=40, seed=2, resume=states[at])
        assert same_tensors(run_fit(Pyramid(SMALL).fit_for_rate(clip, rate, resumed)), whole)


def test_the_state_of_other_work_is_refused(clip):
    fitting_alone = Pyramid(SMALL).fit(clip, FitSettings(steps=5))
    state = next(fitting_alone).state()
    with pytest.raises(ValueError, match="fit from the start"):
        run_fit(Pyramid(SMALL).fit_for_rate(clip, RateSettings(), FitSettings(steps=5, resume=state)))


@pytest.mark.parametrize("wanted", [700, 1100])
def test_a_size_is_met(clip, wanted):
    rate = RateSettings(target=RateTarget(bytes=wanted))
    symbols = run_fit(Pyramid(SMALL).fit_for_rate(clip, rate, FitSettings(steps=600, seed=1)))
    assert 0.97 * wanted <= len(bitstream.encode(symbols)) <= wanted
    assert symbols.outcome.reason == ""


def test_a_quality_is_met(clip):
    rate = RateSettings(target=RateTarget(psnr_db=23.0))
    symbols = run_fit(Pyramid(SMALL).fit_for_rate(clip, rate, FitSettings(steps=400, seed=1)))
    assert 22.9 <= psnr(drawn(symbols), clip.frames) < 23.2
    assert symbols.outcome.reason == ""
