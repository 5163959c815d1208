"""Pruning: of all weights only those of the highest score stay, counted over the whole network.

Weights are tensors of two or more dimensions; vectors and scalars (biases, gains) are never pruned: they are
few and each of them moves a whole channel. The scores of a weight w:

- magnitude, |w|: Han et al. 2015, "Learning both Weights and Connections", section 3; NeRV, Chen et al. 2021,
  section 3.3.
- size-normalised, |w| / n^0.5, n the weights of its tensor that are not zero: HiNeRV, Kwan et al. 2023
  (arXiv 2306.09818), its pruning step and the authors' setting of the exponent. Small layers, which have
  nothing to spare, are spared.
- sensitivity, h w^2, h the measured curvature (`Codec.sensitivity`): what the picture's squared error rises by
  if the weight becomes zero and no other changes; LeCun, Denker, Solla 1989, "Optimal Brain Damage", section 2.

What was pruned is a zero among the other symbols of its tensor, and coded as such: the positions of the zeros
are paid for in every figure, and a network that is pruned is smaller only as far as zeros are cheaper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from framefold.codecs.base import Masks
from framefold.codecs.network import FittedNetwork, FloatTensor

SIZE_EXPONENT = 0.5
"""HiNeRV's `prune-weight`: 0 would be plain magnitude."""

Score = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Scores = Mapping[str, Score]
"""Per weight tensor an array of its shape, >= 0: the lowest go first."""


def magnitude_scores(tensors: Mapping[str, FloatTensor]) -> Scores:
    """|w| of every weight."""
    return {name: np.abs(tensor) for name, tensor in weights_of(tensors).items()}


def size_normalised_scores(tensors: Mapping[str, FloatTensor]) -> Scores:
    """|w| / n^0.5 of every weight, n being how many of its tensor's weights are not zero yet."""
    return {
        name: np.abs(tensor, dtype=np.float64) / float(max(1, int(np.count_nonzero(tensor)))) ** SIZE_EXPONENT
        for name, tensor in weights_of(tensors).items()
    }


def sensitivity_scores(tensors: Mapping[str, FloatTensor], sensitivity: Mapping[str, FloatTensor]) -> Scores:
    """Give h w^2 of every weight, `sensitivity` being h; ValueError where it lacks a tensor or has another shape."""
    scores = {}
    for name, tensor in weights_of(tensors).items():
        curvature = sensitivity.get(name)
        if curvature is None or curvature.shape != tensor.shape:
            got = "missing" if curvature is None else f"of shape {curvature.shape}"
            raise ValueError(f"the sensitivity of tensor {name!r} is {got}, the tensor is {tensor.shape}")
        scores[name] = curvature * np.square(tensor, dtype=np.float64)
    return scores


def masks_of(tensors: Mapping[str, FloatTensor], scores: Scores, keep: float) -> Masks:
    """Per tensor a bool mask of its shape: True for the share `keep` (0 < keep <= 1) of weights that score highest.

    Exactly round(keep * weights) of the whole network are kept, never fewer than one; of equal scores the
    earlier tensor and the earlier element stays. Vectors and scalars are kept whole. `scores` has each weight
    tensor, in its shape. ValueError for another `keep`, and for a tensor or a score with NaN or infinity.
    """
    check_keep(keep)
    check_finite(tensors)
    weights = weights_of(tensors)
    for name in weights:
        if not np.isfinite(scores[name]).all():
            raise ValueError(f"the scores of tensor {name!r} hold NaN or infinity; take another pruning method")
    kept = _keep_largest([scores[name].ravel() for name in weights], keep)
    ends = np.cumsum([tensor.size for tensor in weights.values()])
    parts = dict(zip(weights, np.split(kept, ends[:-1]), strict=True)) if weights else {}
    return {
        name: parts[name].reshape(tensor.shape) if name in parts else np.ones(tensor.shape, dtype=np.bool_)
        for name, tensor in tensors.items()
    }


def weights_of(tensors: Mapping[str, FloatTensor]) -> dict[str, FloatTensor]:
    """Those tensors that are pruned: of two or more dimensions."""
    return {name: tensor for name, tensor in tensors.items() if tensor.ndim >= 2}


def check_keep(keep: float) -> None:
    """ValueError unless 0 < keep <= 1."""
    if not 0 < keep <= 1:
        raise ValueError(f"keep is {keep}, allowed is 0 < keep <= 1: the share of weights that stays")


def check_finite(tensors: Mapping[str, FloatTensor]) -> None:
    """ValueError names a tensor with NaN or infinity."""
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise ValueError(f"tensor {name!r} holds NaN or infinity: the fit diverged; lower its learning rate")


def _keep_largest(scores: list[Score], keep: float) -> npt.NDArray[np.bool_]:
    """Flat mask over all scores, exact in number in spite of ties."""
    flat = np.concatenate(scores) if scores else np.zeros(0, dtype=np.float32)
    if not flat.size:
        return np.zeros(0, dtype=np.bool_)
    count = max(round(keep * flat.size), 1)
    threshold = np.partition(flat, flat.size - count)[flat.size - count]
    kept: npt.NDArray[np.bool_] = flat > threshold
    ties = np.flatnonzero(flat == threshold)
    kept[ties[: count - np.count_nonzero(kept)]] = True
    return kept


def apply_masks(network: FittedNetwork, masks: Masks) -> FittedNetwork:
    """Put zeros where a mask is False; a tensor without a mask stays as it is.

    ValueError if a mask belongs to no tensor or has another shape.
    """
    if unknown := sorted(set(masks) - set(network.tensors)):
        raise ValueError(f"masks for unknown tensors {unknown}; the network has {sorted(network.tensors)}")
    return replace(network, tensors={name: _masked(name, network, masks) for name in network.tensors})


def _masked(name: str, network: FittedNetwork, masks: Masks) -> FloatTensor:
    tensor = network.tensors[name]
    if name not in masks:
        return tensor
    if masks[name].shape != tensor.shape:
        raise ValueError(f"the mask of tensor {name!r} is {masks[name].shape}, the tensor is {tensor.shape}")
    return np.where(masks[name], tensor, np.float32(0))
