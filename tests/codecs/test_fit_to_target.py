"""Sizes that follow from a target, and the search for one where a quality is wanted."""

import pytest

from framefold.codecs import fitting
from framefold.codecs.base import Codec, FitSettings
from framefold.codecs.coin import Coin, CoinConfig
from framefold.codecs.gridnerv import GridNerv, GridNervConfig
from framefold.codecs.metrics import psnr
from framefold.codecs.nerv import Nerv
from framefold.codecs.rate import fit_to_target
from framefold.codecs.rate.fit_to_target import MAX_SIZES, ROUNDING_LOSS_DB, fit_to
from framefold.codecs.rate.targets import RateTarget
from framefold.codecs.siren import Siren, SirenConfig
from framefold.codecs.sizing import network_parameters
from framefold.codecs.testing import make_clip, moving_shapes, run_fit
from framefold.codecs.warm_start import WarmStart

CLIP = make_clip(moving_shapes(2, 24, 36))
PICTURE = make_clip(moving_shapes(1, 24, 36), kind="image")


@pytest.fixture
def every_step(monkeypatch):
    """A progress after each step."""
    monkeypatch.setattr(fitting, "SECONDS_BETWEEN_REPORTS", 0.0)


def weights(network):
    return sum(tensor.size for tensor in network.tensors.values())


def fitted(codec, clip, steps=1, target=None, **settings):
    return run_fit(
        fit_to(codec, target and RateTarget.model_validate(target), clip, FitSettings(steps=steps, **settings))
    )


def same(one, other):
    return one.config == other.config and all((one.tensors[name] == other.tensors[name]).all() for name in one.tensors)


@pytest.mark.parametrize(
    ("codec", "clip", "parameters"),
    [(GridNerv(), CLIP, 6000), (Nerv(), CLIP, 60_000), (Siren(), PICTURE, 3000), (Coin(), PICTURE, 3000)],
)
def test_a_codec_takes_about_the_size_that_it_is_given(codec, clip, parameters):
    sized = codec.sized(clip.span, parameters)
    config = sized.resolve(sized.config, clip.span)
    assert type(sized) is type(codec)
    count = network_parameters(lambda: sized.build(config, clip.span.shape))
    assert count == pytest.approx(parameters, rel=0.2)


@pytest.mark.parametrize(
    "codec",
    [
        GridNerv(GridNervConfig(size="S")),
        GridNerv(GridNervConfig(width=8)),
        Siren(SirenConfig(size="M")),
        Coin(CoinConfig(preset="5x20")),
    ],
)
def test_a_size_may_be_stated(codec):
    assert codec.states_size


def test_a_size_that_is_stated_stays_unless_the_caller_knows_better():
    codec = Siren(SirenConfig(size="M"))
    assert same(fitted(codec, PICTURE, target={"bytes": 999}), fitted(codec, PICTURE))
    free = run_fit(fit_to(codec, RateTarget(bytes=9999), PICTURE, FitSettings(steps=1), choose_size=True))
    assert weights(free) > weights(fitted(codec, PICTURE))


def test_null_states_no_size():
    assert not Siren(SirenConfig(width=None)).states_size
    assert not Siren(SirenConfig(depth=3)).states_size


def test_a_size_may_be_kept_where_none_is_stated():
    kept = run_fit(fit_to(Siren(), RateTarget(bytes=9999), PICTURE, FitSettings(steps=1), choose_size=False))
    assert same(kept, fitted(Siren(), PICTURE))


def test_a_codec_that_says_nothing_keeps_its_size():
    assert Codec.sized(GridNerv(), CLIP.span, 3000).config == GridNervConfig()
    assert Codec.states_size.fget(GridNerv())


def test_bytes_choose_the_size_for_the_bits_that_suit_the_codec():
    for bytes_ in (1500, 6000):
        network = fitted(Siren(), PICTURE, target={"bytes": bytes_})
        assert 8 * bytes_ / weights(network) == pytest.approx(Siren.bits_per_weight, rel=0.1)


def test_bits_per_pixel_are_bytes():
    one = fitted(Siren(), PICTURE, target={"bytes": 1512})
    assert same(one, fitted(Siren(), PICTURE, target={"bpp": 8 * 1512 / (24 * 36)}))


def test_bits_per_weight_change_no_size():
    assert same(fitted(Siren(), PICTURE, target={"bits_per_weight": 3}), fitted(Siren(), PICTURE))


def test_a_start_has_a_size():
    start = fitted(Siren(SirenConfig(width=6)), PICTURE)
    codec = Siren(SirenConfig.model_validate(start.config))
    settings = FitSettings(steps=1, start=WarmStart(network=start))
    network = run_fit(fit_to(codec, RateTarget(bytes=9999), PICTURE, settings, choose_size=True))
    assert network.config == start.config


def quality(network, codec):
    return psnr(codec.reconstruct(network).frames, network.target.frames)


def small(monkeypatch):
    """A codec whose own size will not do."""
    monkeypatch.setattr("framefold.codecs.siren.PARAMETERS_PER_PIXEL", {"S": 0.1, "M": 0.1, "L": 0.1})
    return Siren(SirenConfig(depth=2))


def test_a_quality_that_is_soon_reached_ends_the_fit():
    codec = Siren(SirenConfig(width=16, depth=2))
    whole, early = fitted(codec, PICTURE, 200), fitted(codec, PICTURE, 200, {"psnr_db": 16})
    assert 16 + ROUNDING_LOSS_DB <= quality(early, codec) < quality(whole, codec)


@pytest.mark.usefixtures("every_step")
def test_a_quality_beyond_a_size_makes_the_network_larger(monkeypatch):
    codec = small(monkeypatch)
    own = fitted(codec, PICTURE, 30)
    sizes, fractions = set(), []
    fitting_ = fit_to(codec, RateTarget(psnr_db=60), PICTURE, FitSettings(steps=30))
    while True:
        try:
            progress = next(fitting_)
        except StopIteration as end:
            network = end.value
            break
        fractions.append(progress.fraction)
        sizes.add(progress.state()["weights"])
    assert len(sizes) == MAX_SIZES
    assert 4 * weights(own) in sizes
    assert quality(network, codec) > quality(own, codec)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_a_stated_size_is_fitted_once():
    codec = Siren(SirenConfig(width=5, depth=2))
    assert same(fitted(codec, PICTURE, 20, {"psnr_db": 60}), fitted(codec, PICTURE, 20))


def test_the_best_size_is_kept_where_a_larger_one_is_worse(monkeypatch):
    qualities = iter((24.0, 23.0))
    monkeypatch.setattr(fit_to_target._Climb, "_psnr_db", lambda *_: next(qualities))
    codec = small(monkeypatch)
    assert same(fitted(codec, PICTURE, 5, {"psnr_db": 60}), fitted(codec, PICTURE, 5))


@pytest.mark.usefixtures("every_step")
def test_a_fit_that_was_broken_off_goes_on_at_its_size(monkeypatch):
    codec, target = small(monkeypatch), RateTarget(psnr_db=60)
    fitting_, states = fit_to(codec, target, PICTURE, FitSettings(steps=10)), []
    while True:
        try:
            states.append(next(fitting_).state())
        except StopIteration as end:
            network = end.value
            break
    assert {state["number"] for state in states} == {0, 1, 2}
    for state in states[3::12]:
        resumed = FitSettings(steps=10, resume=state)
        assert same(network, run_fit(fit_to(codec, target, PICTURE, resumed)))


@pytest.mark.parametrize("state", [{}, {"made by": "nobody"}, {"number": "x"}])
def test_a_state_of_another_fit_is_refused(state):
    with pytest.raises(ValueError, match="the state to go on from"):
        run_fit(fit_to(Siren(), RateTarget(psnr_db=60), PICTURE, FitSettings(steps=2, resume=state)))
