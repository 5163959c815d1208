import numpy as np
import pytest

from framefold.codecs.base import FitSettings
from framefold.codecs.gridnerv import GridNerv, GridNervConfig
from framefold.codecs.testing import make_clip, moving_shapes, run_fit
from framefold.pipeline.item import Item
from framefold.pipeline.stage import StageContext
from framefold.stages.reconstruct import Reconstruct


@pytest.fixture(scope="module")
def network():
    return run_fit(GridNerv(GridNervConfig(width=6)).fit(make_clip(moving_shapes(6, 20, 30)), FitSettings(steps=10)))


def clips(network, **options):
    stage = Reconstruct(Reconstruct.Config(**options))
    stage.setup(StageContext("node"))
    return list(stage.process(Item("key", "the item", (0,), network)))


def test_all_frames_are_one_clip(network):
    (clip,) = clips(network)
    assert clip.span == network.span


def test_only_wanted_frames_are_drawn(network, monkeypatch):
    (whole,) = clips(network)
    asked = []
    draw = GridNerv.draw
    monkeypatch.setattr(GridNerv, "draw", lambda self, *a, **k: asked.append(list(a[1])) or draw(self, *a, **k))
    (part,) = clips(network, frames=[2, 4])
    assert asked == [[2, 3]]
    assert part.span == whole.span.part(2, 4)
    assert np.array_equal(part.frames, whole.frames[2:4])


def test_a_clip_without_wanted_frames_gives_none(network):
    assert clips(network, frames=[6, 9]) == []


def test_what_is_not_said_is_no_part_of_a_key():
    assert Reconstruct.Config().model_dump(mode="json") == {}
