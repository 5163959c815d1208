"""COIN: the SIREN of fixed small sizes with which storing pictures as networks began.

Dupont, Golinski, Alizadeh, Teh, Doucet: COIN: COmpression with Implicit Neural representations (2021,
arXiv 2103.03123), sections 2 and 3. See `Coin` for what differs from the paper.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from framefold.codecs.clip import Span
from framefold.codecs.siren import SineCodec, SineConfig, one_picture

PRESETS = {"5x20": (5, 20), "5x30": (5, 30), "10x28": (10, 28), "10x40": (10, 40), "13x49": (13, 49)}
"""Name -> (depth, width): 0.07, 0.15, 0.3, 0.6, 1.2 bits per pixel at 768x512 and 16 bits a weight."""


class CoinConfig(SineConfig):
    """Options of `coin`; a stored network states all of them."""

    preset: Literal["5x20", "5x30", "10x28", "10x40", "13x49"] = Field(
        "10x28",
        description="sine layers x features, whatever the picture's size; `depth` and `width` override it",
    )


class Coin(SineCodec[CoinConfig]):
    """COIN: one small SIREN per picture, of the paper's five sizes; its weights are the code.

    ```
    points (N, 2) -> layers: depth sine layers of width features -> head (N, C)
    ```
    The network is `siren.SirenNetwork` (its box diagram is there), the frequency 30 in every layer.

    Differences from the paper. The weights are float32; how many bits they get is decided after the fit (the
    paper casts them to 16 bits). The fit takes thousands of steps on lattices of the picture, at a rate that
    falls to zero (the paper: 50,000 steps on all pixels at 2e-4).
    """

    name: ClassVar[str] = "coin"
    Config = CoinConfig

    def resolve(self, config: CoinConfig, span: Span) -> CoinConfig:
        """Depth and width of the preset, where they are not given."""
        one_picture(self.name, span)
        depth, width = PRESETS[config.preset]
        return config.model_copy(update={"depth": config.depth or depth, "width": config.width or width})
