"""Structured pruning, the arithmetic of it: which channels of a network go, and the tensors without them.

A codec names the channels that its network could lose (`ChannelGroup`): where each of them lies in the tensors that
make it and in the one that reads it. What goes, goes from all of these: they become really smaller, no zeros are
stored. Decoding has less to do, though little less where most of it happens at full resolution (0 to 30 % of the time
measured, for 40 % of the weights). `narrowing` measures what each channel is worth, and does it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from framefold.codecs.network import FloatTensor

Indices = npt.NDArray[np.intp]
Kept = npt.NDArray[np.bool_]
"""(channels,): True for a channel that stays."""
Values = npt.NDArray[np.float64]
"""(channels,)."""
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Places:
    """Where a tensor holds the channels of a group: channel c owns `per` indices of `axis` from start + c * per."""

    tensor: str
    axis: int = 0
    per: int = 1
    start: int = 0
    bias: str | None = None
    """Of a weight that reads the channels: the bias, (shape[0],), that joins its product."""

    def of(self, channels: Indices) -> Indices:
        """Indices along `axis` of these channels, in order."""
        return (self.start + channels[:, None] * self.per + np.arange(self.per)).ravel()


@dataclass(frozen=True, kw_only=True)
class ChannelGroup:
    """Channels of one layer; any of them may go, but the last `least` ones stay."""

    size: str
    """The size in the configuration that counts them; groups of one size lose equally many."""
    channels: int
    layer: str
    """The module whose output has them at axis 1, each as one or several adjacent values."""
    made_by: tuple[Places, ...]
    """Rows of weights and biases, or channels of a stored map."""
    read_by: Places
    """Columns (axis 1) of the next layer's weight, its bias named."""
    least: int = 1

    @property
    def places(self) -> tuple[Places, ...]:
        """All that goes with a channel."""
        return (*self.made_by, self.read_by)


@dataclass(frozen=True)
class _Step:
    """One channel of each group of a size, those that are worth least."""

    gone: tuple[tuple[int, int], ...]
    """(group, channel)."""
    cost: float
    parameters: int
    """How many the network has afterwards."""


def worth_keeping(
    groups: Sequence[ChannelGroup], shapes: Shapes, costs: Sequence[Values], keep: float
) -> tuple[Kept, ...]:
    """Say per group which channels stay, so that about the share `keep` of all parameters is left.

    `costs` says per group what the loss of each channel costs. The one of least cost for each parameter saved goes
    first; it ends as near to `keep` as whole channels come. ValueError if the smallest network is larger.
    """
    kept = tuple(np.ones(group.channels, np.bool_) for group in groups)
    total = parameters = sum(map(math.prod, shapes.values()))
    goal = keep * total
    while parameters > goal:
        steps = _possible_steps(groups, shapes, costs, kept)
        if not steps:
            raise ValueError(
                f"keep is {keep}, but the smallest network of this kind has {parameters / total:.3f} of the "
                "parameters; set a larger keep, or fit a smaller network"
            )
        step = min(steps, key=lambda each: each.cost / (parameters - each.parameters))
        if goal - step.parameters > parameters - goal:
            break
        for group, channel in step.gone:
            kept[group][channel] = False
        parameters = step.parameters
    return kept


def _possible_steps(
    groups: Sequence[ChannelGroup], shapes: Shapes, costs: Sequence[Values], kept: Sequence[Kept]
) -> list[_Step]:
    members: dict[str, list[int]] = {}
    for i, group in enumerate(groups):
        if np.count_nonzero(kept[i]) > group.least:
            members.setdefault(group.size, []).append(i)
    sides = _sides(groups, shapes, kept)
    return [_step(groups, costs, kept, sides, each) for each in members.values()]


def _step(
    groups: Sequence[ChannelGroup],
    costs: Sequence[Values],
    kept: Sequence[Kept],
    sides: Mapping[str, list[int]],
    members: Sequence[int],
) -> _Step:
    gone = tuple((i, int(np.where(kept[i], costs[i], np.inf).argmin())) for i in members)
    after = {name: list(lengths) for name, lengths in sides.items()}
    for i in members:
        for places in groups[i].places:
            after[places.tensor][places.axis] -= places.per
    return _Step(gone, sum(float(costs[i][c]) for i, c in gone), sum(map(math.prod, after.values())))


def _sides(groups: Sequence[ChannelGroup], shapes: Shapes, kept: Sequence[Kept]) -> dict[str, list[int]]:
    """Shapes of the tensors without the channels that are gone."""
    sides = {name: list(shape) for name, shape in shapes.items()}
    for group, stays in zip(groups, kept, strict=True):
        for places in group.places:
            sides[places.tensor][places.axis] -= places.per * int(np.count_nonzero(~stays))
    return sides


def without(
    tensors: Mapping[str, FloatTensor], groups: Sequence[ChannelGroup], kept: Sequence[Kept], means: Sequence[Values]
) -> dict[str, FloatTensor]:
    """Tensors without the channels that do not stay, whose `means` move into the biases of what reads them.

    Evci, Le Roux, Castro, Bottou: Mean Replacement Pruning (2018). The picture is the same for a channel that is
    constant, up to a convolution's border, where a constant meets zeros.
    """
    left = {name: tensor.copy() for name, tensor in tensors.items()}
    for group, stays, mean in zip(groups, kept, means, strict=True):
        _fold(left, group.read_by, np.flatnonzero(~stays), mean)
    for name, axes in _all_kept(tensors, groups, kept).items():
        for axis, stays in axes.items():
            left[name] = np.ascontiguousarray(np.compress(stays, left[name], axis=axis))
    return left


def _fold(tensors: dict[str, FloatTensor], reader: Places, gone: Indices, means: Values) -> None:
    if reader.bias is not None and gone.size:
        columns = tensors[reader.tensor][:, reader.of(gone)].astype(np.float64)
        constant = columns.reshape(len(columns), gone.size, -1).sum(axis=2) @ means[gone]
        tensors[reader.bias] = (tensors[reader.bias] + constant).astype(np.float32)


def _all_kept(
    tensors: Mapping[str, FloatTensor], groups: Sequence[ChannelGroup], kept: Sequence[Kept]
) -> dict[str, dict[int, Kept]]:
    """Tensor -> axis -> (length of the axis,) True for what stays."""
    masks: dict[str, dict[int, Kept]] = {}
    for group, stays in zip(groups, kept, strict=True):
        for places in group.places:
            axes = masks.setdefault(places.tensor, {})
            mask = axes.setdefault(places.axis, np.ones(tensors[places.tensor].shape[places.axis], np.bool_))
            mask[places.of(np.flatnonzero(~stays))] = False
    return masks


def sizes_of(groups: Sequence[ChannelGroup], kept: Sequence[Kept]) -> dict[str, int]:
    """How many channels each size counts then; ValueError if groups of one size kept different numbers."""
    sizes: dict[str, int] = {}
    for group, stays in zip(groups, kept, strict=True):
        count = int(np.count_nonzero(stays))
        if sizes.setdefault(group.size, count) != count:
            raise ValueError(
                f"size {group.size!r} counts {sizes[group.size]} channels in one layer, {count} in another"
            )
    return sizes
