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
from framefold.codecs.pixel_format import RGB, PixelFormat
from framefold.codecs.stored_samples import stored_of

PROBES = 16
"""Backward passes of a clip, at least; also for one picture."""
PROBES_PER_FRAME = 2


def squared_gradients(
    module: nn.Module,
    frames: int,
    *,
    pixels: PixelFormat = RGB,
    lattice: int = 1,
    device: str = "cpu",
    seed: int = 0,
) -> dict[str, FloatTensor]:
    """Per parameter of a network of `frames` frames the mean of (df / dw)**2 over stored samples; float32, its shape.

    Samples are on the scale 0..1. With a `lattice` n > 1 the network draws every n-th row and column from a random
    offset (`module(indices, rows, columns)`), each time another, so that a large picture is never held as a whole. The
    same seed gives the same values on the same machine.
    """
    module = module.to(device).train()
    parameters = dict(module.named_parameters())
    sums = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    generator = torch.Generator().manual_seed(seed)
    probes = max(PROBES_PER_FRAME, -(-PROBES // frames))
    samples = 0.0
    # On a lattice, a sample of coarser channels is seen at each of its pixels.
    repeats = [plane.rows * plane.columns if lattice > 1 else 1 for plane in pixels.planes]
    for number in range(probes * frames):
        picture = module(torch.tensor([number % frames], device=device), *_view(lattice, generator))
        planes = stored_of(picture, pixels, is_lattice=lattice > 1)
        samples += sum(plane.numel() / count for plane, count in zip(planes, repeats, strict=True))
        signs = [_signed(plane, generator) / count**0.5 for plane, count in zip(planes, repeats, strict=True)]
        signed = torch.stack(signs).sum()
        for name, gradient in zip(sums, torch.autograd.grad(signed, list(parameters.values())), strict=True):
            sums[name] += gradient.detach() ** 2
    return {name: _as_array(total / samples) for name, total in sums.items()}


def _view(lattice: int, generator: torch.Generator) -> tuple[slice, ...]:
    if lattice == 1:
        return ()
    top, left = torch.randint(lattice, (2,), generator=generator).tolist()
    return slice(top, None, lattice), slice(left, None, lattice)


def _signed(samples: Tensor, generator: torch.Generator) -> Tensor:
    signs = torch.randint(0, 2, samples.shape, generator=generator).to(samples.device).mul_(2).sub_(1)
    return (signs * samples).sum()


def _as_array(tensor: Tensor) -> FloatTensor:
    array: FloatTensor = tensor.detach().cpu().numpy().astype(np.float32)
    return array
