"""Channels go from all tensors that have them: the network is smaller, states it, and draws what it drew."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from framefold.codecs.coin import Coin, CoinConfig
from framefold.codecs.enerv import ENerv, ENervConfig
from framefold.codecs.fitting import tensors_of
from framefold.codecs.gridnerv import Grid, GridNerv, GridNervConfig
from framefold.codecs.hnerv import HNerv, HNervConfig
from framefold.codecs.inr import NetworkCodec
from framefold.codecs.nerv import Nerv, NervConfig
from framefold.codecs.network import FittedNetwork
from framefold.codecs.pruning import narrowing
from framefold.codecs.pruning.channels import ChannelGroup, Places, sizes_of, without, worth_keeping
from framefold.codecs.pruning.narrowing import without_channels
from framefold.codecs.siren import Siren, SirenConfig
from framefold.codecs.testing import make_clip, moving_shapes

CODECS = {
    "nerv": Nerv(NervConfig(width=4, stem_width=9, strides=(3, 2), block_widths=(5, 4))),
    "gridnerv": GridNerv(
        GridNervConfig(
            width=5, strides=(3, 2, 2), block_widths=(5, 4), grids=((Grid(3, 3), Grid(1, 2)), (Grid(2, 3),), ())
        )
    ),
    "enerv": ENerv(
        ENervConfig(width=5, stem_width=6, token_width=7, hidden_width=4, middle_width=3, strides=(3, 2, 2))
    ),
    "hnerv": HNerv(HNervConfig(width=6, embedding_width=4, strides=(3, 2))),
    "siren": Siren(SirenConfig(width=7, depth=3)),
    "coin": Coin(CoinConfig(width=7, depth=2)),
}


def untrained(codec: NetworkCodec, seed: int = 5) -> FittedNetwork:
    """Random weights draw a random picture; biases are made to matter."""
    pictures = codec.accepts.__name__ == "ImageBatch"
    clip = make_clip(moving_shapes(1 if pictures else 3, 25, 37), kind="image" if pictures else "video")
    config = codec.resolve(codec.config, clip.span)
    torch.manual_seed(seed)
    tensors = tensors_of(codec.build(config, clip.span.shape))
    random = np.random.default_rng(seed)
    for name, value in tensors.items():
        if name.endswith("bias"):  # some codecs begin with none
            tensors[name] = value + random.normal(0, 0.2, value.shape).astype(np.float32)
    return FittedNetwork(
        span=clip.span, codec=codec.name, config=config.model_dump(mode="json"), tensors=tensors, target=clip
    )


def idle(network: FittedNetwork, groups: list[ChannelGroup], channels: dict[str, list[int]]) -> FittedNetwork:
    """Channels that are the same for every pixel: no incoming weights, and no biases around a convolution."""
    tensors = {name: value.copy() for name, value in network.tensors.items()}
    for group in groups:
        for places in group.made_by:
            if tensors[places.tensor].ndim > 1 or "conv" in places.tensor + group.read_by.tensor:
                at = [slice(None)] * tensors[places.tensor].ndim
                at[places.axis] = places.of(np.array(channels.get(group.layer, []), np.intp))
                tensors[places.tensor][tuple(at)] = 0
    return replace(network, tensors=tensors)


def count(network: FittedNetwork) -> int:
    return sum(tensor.size for tensor in network.tensors.values())


IDLE = {
    "nerv": {"stem.1": [0, 4, 8], "stem.3": [2], "blocks.0": [0, 3], "blocks.1": [1]},
    "gridnerv": {"blocks.0": [4], "blocks.1": [0, 2], "grids.0.0": [1], "grids.0.1": [0], "grids.1.0": [2]},
    "enerv": {
        "stem.1": [5],
        "space.perceptron.1": [0],
        "fusion.perceptron.1": [2],
        "blocks.0.up": [1],
        "norms.0": [3],
        "norms.1": [0, 4],
        "norms.2": [2],
        "blocks.2": [1],
    },
    "hnerv": {"embeddings": [1], "stem": [0, 5], "blocks.0": [2], "blocks.1": [4]},
    "siren": {"layers.0": [6, 1], "layers.1": [0, 3], "layers.2": [2, 5]},
    "coin": {"layers.0": [3], "layers.1": [3]},
}


@pytest.fixture
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is worth how much need not be known well."""
    monkeypatch.setattr(narrowing, "SAMPLES", 9)


@pytest.mark.parametrize("name", CODECS)
def test_without_channels_that_do_nothing_the_picture_is_the_same(name, few_samples):
    codec, channels = CODECS[name], IDLE[name]
    whole = untrained(codec)
    groups = list(codec.channel_groups(codec.load(whole)[0], whole.span.shape))
    whole = idle(whole, groups, channels)
    kept = [~np.isin(np.arange(group.channels), channels[group.layer]) for group in groups]
    by_hand = without(whole.tensors, groups, kept, [np.zeros(group.channels) for group in groups])
    small = without_channels(codec, whole, sum(tensor.size for tensor in by_hand.values()) / count(whole))
    assert {key: value.shape for key, value in small.tensors.items()} == {
        key: value.shape for key, value in by_hand.items()
    }
    made = {places.tensor for group in groups for places in group.made_by}
    unread = made - {group.read_by.tensor for group in groups}
    assert all(np.array_equal(small.tensors[key], by_hand[key]) for key in unread if "bias" not in key)
    before = codec.reconstruct(whole).frames.astype(int)
    after = codec.reconstruct(small).frames.astype(int)
    assert before.std() > 3
    assert np.abs(after - before).max() <= 1
    assert np.count_nonzero(after - before) < 0.01 * before.size


@pytest.mark.parametrize("name", CODECS)
def test_the_stored_configuration_states_the_new_sizes(name, few_samples):
    codec = CODECS[name]
    whole = untrained(codec)
    small = without_channels(codec, whole, 0.6)
    assert abs(count(small) / count(whole) - 0.6) < 0.15
    assert small.config.keys() == whole.config.keys()
    config = codec.Config.model_validate_json(json.dumps(dict(small.config)), strict=True)
    assert codec.resolve(config, small.span) == config
    stated = codec.build(config, small.span.shape).named_parameters()
    assert {key: tuple(value.shape) for key, value in stated} == {
        key: value.shape for key, value in small.tensors.items()
    }
    assert small.target is whole.target
    again = without_channels(codec, whole, 0.6)
    assert all(np.array_equal(again.tensors[key], value) for key, value in small.tensors.items())


def test_sizes_of_each_kind(few_samples):
    config = without_channels(CODECS["nerv"], untrained(CODECS["nerv"]), 0.5).config
    assert config["strides"] == [3, 2]
    assert 1 <= config["stem_width"] <= 9
    assert len(config["block_widths"]) == 2
    grid = without_channels(CODECS["gridnerv"], untrained(CODECS["gridnerv"]), 0.5).config
    assert [[nodes for nodes, _ in block] for block in grid["grids"]] == [[3, 1], [2], []]
    assert grid["width"] == grid["block_widths"][0]
    siren = without_channels(CODECS["siren"], untrained(CODECS["siren"]), 0.5).config
    assert siren["width"] < 7
    assert siren["depth"] == 3


def test_what_a_channel_costs_is_what_the_picture_loses():
    codec = Siren(SirenConfig(width=6, depth=2))
    network = untrained(codec)
    config, module = codec.load(network)
    groups = codec.channel_groups(config, network.span.shape)
    means, costs = narrowing._measured(module, groups, network.span.shape, 1)
    last = len(groups) - 1
    with torch.no_grad():
        whole = module(torch.zeros(1, dtype=torch.long))
        for channel in range(6):  # the head is linear: the first order is all there is
            kept = [np.ones(6, np.bool_) for _ in groups]
            kept[last][channel] = False
            tensors = without(network.tensors, groups[last:], kept[last:], means[last:])
            features = module.layers(torch.stack(torch.meshgrid(module.x, module.y, indexing="xy"), -1).flatten(0, 1))
            left = features[:, torch.from_numpy(kept[last])] @ torch.from_numpy(tensors["head.weight"]).T
            picture = (left + torch.from_numpy(tensors["head.bias"])).T.view_as(whole)
            real = (picture - whole).square().sum().item()
            assert costs[last][channel] == pytest.approx(real, rel=0.6)


@pytest.fixture
def toy() -> tuple[list[ChannelGroup], dict[str, np.ndarray]]:
    """4 channels of 2 rows each in `a`, read from column 1 of `b` on; 3 of one column in `c`, tied to nothing."""
    rng = np.random.default_rng(0)
    shapes = {"a": (8, 5), "a bias": (8,), "b": (3, 9), "b bias": (3,), "c": (2, 3), "d": (6, 3)}
    tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    first = ChannelGroup(
        size="first",
        channels=4,
        layer="one",
        made_by=(Places("a", per=2), Places("a bias", per=2)),
        read_by=Places("b", 1, per=2, start=1, bias="b bias"),
    )
    second = ChannelGroup(size="second", channels=3, layer="two", made_by=(Places("c", 1),), read_by=Places("d", 1))
    return [first, second], tensors


def test_rows_columns_and_biases_of_a_channel_go_together(toy):
    groups, tensors = toy
    kept = [np.array([True, False, True, False]), np.array([False, True, True])]
    left = without(tensors, groups, kept, [np.array([9.0, 2.0, 9.0, -1.0]), np.array([7.0, 7.0, 7.0])])
    assert np.array_equal(left["a"], tensors["a"][[0, 1, 4, 5]])
    assert np.array_equal(left["a bias"], tensors["a bias"][[0, 1, 4, 5]])
    assert np.array_equal(left["b"], tensors["b"][:, [0, 1, 2, 5, 6]])
    moved = tensors["b"][:, [3, 4]].sum(1) * 2 - tensors["b"][:, [7, 8]].sum(1)
    assert left["b bias"] == pytest.approx(tensors["b bias"] + moved, rel=1e-5)
    assert np.array_equal(left["c"], tensors["c"][:, 1:])
    assert np.array_equal(left["d"], tensors["d"][:, 1:])
    assert all(value.dtype == np.float32 and value.flags.c_contiguous for value in left.values())
    assert sizes_of(groups, kept) == {"first": 2, "second": 2}


@given(st.integers(0, 1000), st.floats(0.5, 1))
def test_what_stays_is_the_asked_for_share_as_near_as_channels_come(seed, keep):
    rng = np.random.default_rng(seed)
    one, two = (
        ChannelGroup(size=size, channels=n, layer=size, made_by=(Places(f"{size} in"),), read_by=Places(reader, 1))
        for size, n, reader in (("p", 6, "q in"), ("q", 9, "out"))
    )
    tensors = {
        name: np.ones(shape, np.float32) for name, shape in {"p in": (6, 4), "q in": (9, 6), "out": (2, 9)}.items()
    }
    costs = [rng.exponential(size=6), rng.exponential(size=9)]
    shapes = {name: value.shape for name, value in tensors.items()}
    kept = worth_keeping((one, two), shapes, costs, keep)
    total, left = 96, without(tensors, (one, two), kept, [np.zeros(6), np.zeros(9)])
    largest_step = max(4 + 9, 6 + 2)
    assert abs(sum(value.size for value in left.values()) - keep * total) <= largest_step / 2 + 1e-9
    for cost, stays in zip(costs, kept, strict=True):  # within a group the cheapest go first
        assert cost[~stays].max(initial=0) <= cost[stays].min()


def test_all_is_kept_if_all_shall_be(toy):
    groups, tensors = toy
    kept = worth_keeping(groups, {name: value.shape for name, value in tensors.items()}, [np.ones(4), np.ones(3)], 1)
    assert all(stays.all() for stays in kept)


def test_cost_counts_per_parameter_saved(toy):
    groups, tensors = toy
    shapes = {name: value.shape for name, value in tensors.items()}
    total = sum(map(math.prod, shapes.values()))
    per_first, per_second = 2 * 5 + 2 + 3 * 2, 2 + 6
    costs = [np.array([1.0, 5, 5, 5]) * per_first, np.array([2.0, 9, 9]) * per_second]
    kept = worth_keeping(groups, shapes, costs, 1 - per_first / total)
    assert [stays.tolist() for stays in kept] == [[False, True, True, True], [True, True, True]]
    kept = worth_keeping(groups, shapes, costs, 1 - (per_first + per_second) / total)
    assert [stays.tolist() for stays in kept] == [[False, True, True, True], [False, True, True]]


def test_tied_sizes_lose_equally_many():
    codec = CODECS["siren"]
    network = untrained(codec)
    groups = codec.channel_groups(codec.load(network)[0], network.span.shape)
    shapes = {name: value.shape for name, value in network.tensors.items()}
    rng = np.random.default_rng(1)
    kept = worth_keeping(groups, shapes, [rng.exponential(size=7) for _ in groups], 0.5)
    assert len({int(stays.sum()) for stays in kept}) == 1
    uneven = [kept[0], np.ones(7, np.bool_), kept[2]]
    with pytest.raises(ValueError, match=r"'width' counts \d channels in one layer, 7 in another"):
        sizes_of(groups, uneven)


def test_what_cannot_be_is_refused(few_samples):
    codec = CODECS["siren"]
    network = untrained(codec)
    with pytest.raises(ValueError, match=r"keep is 0.01, but the smallest .* has 0\.\d+ of the parameters"):
        without_channels(codec, network, 0.01)
    with pytest.raises(ValueError, match="0 < keep <= 1"):
        without_channels(codec, network, 1.5)
    broken = {**network.tensors, "head.bias": np.full(3, np.nan, np.float32)}
    with pytest.raises(ValueError, match=r"'head.bias' holds NaN"):
        without_channels(codec, replace(network, tensors=broken), 0.9)


class Rigid(Siren):
    """A codec that names no channels."""

    def channel_groups(self, config, shape):
        return ()


def test_a_codec_without_groups_says_so():
    with pytest.raises(ValueError, match="codec 'siren' names no channels that could go"):
        without_channels(Rigid(SirenConfig(width=7, depth=3)), untrained(CODECS["siren"]), 0.9)
