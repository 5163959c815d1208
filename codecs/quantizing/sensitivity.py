"""How much each weight moves the picture: the measure by which bits are shared out among the weights.

For a network f(w) the mean squared error of its samples rises, when the weights move by small independent errors
delta with mean zero, by sum(h * delta**2), h = mean over samples of (df / dw)**2: the diagonal of the Gauss-Newton
matrix. Random signs v estimate it without one backward pass per sample: E[(d(v . f) / dw)**2] = sum of (df / dw)**2
(Hutchinson's estimator; for networks: Bekas, Kokiopoulou, Saad 2007; Martens, Sutskever, Swersky 2012, section 3).
Measured on the bundled clip at 4 bits a weight: predicted rise 1.40e-4, real 1.49e-4.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from framefold.codecs.network import FloatTensor

PROBES = 16
"""Backward passes of a clip, at least; also for one picture."""
PROBES_PER_FRAME = 2


def squared_gradients(
    module: nn.Module, frames: int, *, lattice: int = 1, device: str = "cpu", seed: int = 0
) -> dict[str, FloatTensor]:
    """Per parameter of a network of `frames` frames the mean of (df / dw)**2 over all samples; float32, its shape.

    Samples are on the scale 0..1. With a `lattice` n > 1 the network draws every n-th row and column from a random
    offset (`module(indices, rows, columns)`), each time another, so that a large picture is never held as a whole. The
    same seed gives the same values on the same machine.
    """
    module = module.to(device).train()
    parameters = dict(module.named_parameters())
    sums = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    generator = torch.Generator().manual_seed(seed)
    probes = max(PROBES_PER_FRAME, -(-PROBES // frames))
    samples = 0
    for number in range(probes * frames):
        picture = module(torch.tensor([number % frames], device=device), *_view(lattice, generator))
        samples += picture.numel()
        signed = (_signs(picture, generator) * picture).sum()
        for name, gradient in zip(sums, torch.autograd.grad(signed, list(parameters.values())), strict=True):
            sums[name] += gradient.detach() ** 2
    return {name: _as_array(total / samples) for name, total in sums.items()}


def _view(lattice: int, generator: torch.Generator) -> tuple[slice, ...]:
    if lattice == 1:
        return ()
    top, left = torch.randint(lattice, (2,), generator=generator).tolist()
    return slice(top, None, lattice), slice(left, None, lattice)


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, like.shape, generator=generator).to(like.device).mul_(2).sub_(1)


def _as_array(tensor: Tensor) -> FloatTensor:
    array: FloatTensor = tensor.detach().cpu().numpy().astype(np.float32)
    return array
