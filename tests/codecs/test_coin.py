import pytest

from framefold.codecs.clip import ImageBatch
from framefold.codecs.coin import PRESETS, Coin, CoinConfig
from framefold.codecs.sizing import network_parameters
from framefold.codecs.testing import check_codec, make_clip, moving_shapes


def test_the_shared_suite():
    check_codec(Coin, [CoinConfig(preset="5x20"), CoinConfig(width=6, depth=2)])


@pytest.mark.parametrize(
    ("preset", "bits_per_pixel"),
    [("5x20", 0.07), ("5x30", 0.15), ("10x28", 0.3), ("10x40", 0.6), ("13x49", 1.2)],
)
def test_presets_cost_what_the_paper_says_on_kodak(preset, bits_per_pixel):
    clip = make_clip(moving_shapes(1, 512, 768), kind="image")
    config = Coin().resolve(CoinConfig(preset=preset), clip.span)
    count = network_parameters(lambda: Coin().build(config, clip.span.shape))
    assert 16 * count / (768 * 512) == pytest.approx(bits_per_pixel, rel=0.08)
    assert PRESETS[preset] == (config.depth, config.width)


def test_it_takes_pictures():
    assert Coin.accepts is ImageBatch


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"5x20.*13x49"):
        Coin.from_config({"preset": "6x6"})
