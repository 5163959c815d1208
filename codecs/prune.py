"""Pruning: only the weights of largest magnitude stay, counted over the whole network.

Global magnitude pruning (Han et al. 2015, "Learning both Weights and Connections", section 3; NeRV, Chen et
al. 2021, section 3.3). Weights are tensors of two or more dimensions; vectors and scalars (biases, gains) are
never pruned: they are few and each of them moves a whole channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from framefold.codecs.base import Masks
from framefold.codecs.network import FittedNetwork, FloatTensor


def magnitude_masks(tensors: Mapping[str, FloatTensor], keep: float) -> Masks:
    """Per tensor a bool mask of its shape: True for the share `keep` (0 < keep <= 1) of largest weights.

    Exactly round(keep * weights) of the whole network are kept, never fewer than one; of equal magnitudes
    the earlier tensor and the earlier element stays. Vectors and scalars are kept whole. ValueError for
    another `keep`, and for a tensor with NaN or infinity.
    """
    if not 0 < keep <= 1:
        raise ValueError(f"keep is {keep}, allowed is 0 < keep <= 1: the share of weights that stays")
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise ValueError(f"tensor {name!r} holds NaN or infinity: the fit diverged; lower its learning rate")
    weights = {name: tensor for name, tensor in tensors.items() if tensor.ndim >= 2}
    kept = _keep_largest([np.abs(tensor).ravel() for tensor in weights.values()], keep)
    ends = np.cumsum([tensor.size for tensor in weights.values()])
    parts = dict(zip(weights, np.split(kept, ends[:-1]), strict=True)) if weights else {}
    return {
        name: parts[name].reshape(tensor.shape) if name in parts else np.ones(tensor.shape, dtype=np.bool_)
        for name, tensor in tensors.items()
    }


def _keep_largest(magnitudes: list[FloatTensor], keep: float) -> npt.NDArray[np.bool_]:
    """Flat mask over all magnitudes, exact in number in spite of ties."""
    flat = np.concatenate(magnitudes) if magnitudes else np.zeros(0, dtype=np.float32)
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
