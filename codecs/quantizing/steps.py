"""Quantization steps on a grid of eight per octave, so that a step is one small integer.

The step of exponent e is 2**(e / 8), as float32. A step off by 1/16 octave changes the rate by 0.06 bits per
symbol and the error by 0.4 dB, along the same curve: nothing is lost by it, and a step costs a byte or less.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from framefold.codecs.network import FloatTensor

Exponents = npt.NDArray[np.int32]

EXPONENTS_PER_OCTAVE = 8
MIN_EXPONENT = -126 * EXPONENTS_PER_OCTAVE
"""2**-126, the smallest normal float32."""
MAX_EXPONENT = 128 * EXPONENTS_PER_OCTAVE - 1
"""2**127.875, within float32."""

_MANTISSAS = np.array(
    [1.0, 1.0905077, 1.1892071, 1.2968396, 1.4142135, 1.5422108, 1.6817929, 1.8340081], dtype=np.float32
)  # 2**(j / 8), written out: powers of floats may differ between machines


def step_values(exponents: Exponents) -> FloatTensor:
    """Float32 steps 2**(e / 8) for exponents MIN_EXPONENT .. MAX_EXPONENT."""
    octaves, eighths = np.divmod(exponents, EXPONENTS_PER_OCTAVE)
    return np.ldexp(_MANTISSAS[eighths], octaves.astype(np.int32)).astype(np.float32)


def step_exponents(steps: FloatTensor) -> Exponents | None:
    """Find the exponents of steps (float32, finite, > 0); None if one of them is not on the grid."""
    mantissas, octaves = np.frexp(steps)
    eighths = np.searchsorted(_MANTISSAS, 2 * mantissas)
    exponents = (EXPONENTS_PER_OCTAVE * (octaves - 1) + eighths).astype(np.int32)
    on_grid = (exponents >= MIN_EXPONENT) & (exponents <= MAX_EXPONENT)
    if not (on_grid.all() and np.array_equal(step_values(exponents), steps)):
        return None
    return exponents


def covering_exponents(values: npt.NDArray[np.float64]) -> Exponents:
    """Exponents of the smallest steps not below `values` (finite, > 0), as far as the grid reaches."""
    wanted = np.ceil(EXPONENTS_PER_OCTAVE * np.log2(values) - 1e-6).astype(np.int32)
    exponents = np.clip(wanted, MIN_EXPONENT, MAX_EXPONENT).astype(np.int32)
    too_small = (step_values(exponents) < values) & (exponents < MAX_EXPONENT)
    covering: Exponents = (exponents + too_small).astype(np.int32)
    return covering
