"""Small networks, fitted once for all tests that quantize and tune."""

from __future__ import annotations

import pytest

from framefold.codecs.base import FitSettings
from framefold.codecs.gridnerv import GridNerv, GridNervConfig
from framefold.codecs.network import FittedNetwork
from framefold.codecs.siren import Siren, SirenConfig
from framefold.codecs.testing import make_clip, moving_shapes, run_fit


@pytest.fixture(scope="session")
def fitted_clip() -> FittedNetwork:
    """A gridnerv of 4 frames 32x24."""
    clip = make_clip(moving_shapes(4, 24, 32))
    codec = GridNerv(GridNervConfig(width=6, strides=(2, 2)))
    return run_fit(codec.fit(clip, FitSettings(steps=120, seed=1)))


@pytest.fixture(scope="session")
def fitted_picture() -> FittedNetwork:
    """A siren of a picture 24x16."""
    clip = make_clip(moving_shapes(1, 16, 24), kind="image")
    return run_fit(Siren(SirenConfig(width=12, depth=3)).fit(clip, FitSettings(steps=250, seed=1)))
