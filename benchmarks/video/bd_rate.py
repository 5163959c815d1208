"""How many more bytes one codec takes than another for the same PSNR, as one number.

Bjontegaard: Calculation of average PSNR differences between RD-curves (VCEG-M33, 2001), with the logarithm of the rate
interpolated by PCHIP, which does not swing between points as one cubic through all of them does: Fritsch, Butland: A
method for constructing local monotone piecewise cubic interpolants (SIAM J. Sci. Stat. Comput. 5, 1984).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Points = Sequence[tuple[float, float]]
"""(rate, PSNR in dB) of one codec, in any order; the rate's unit does not matter."""
LEAST_POINTS = 4

_Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class BdRate:
    """Average over the PSNR that both codecs have."""

    percent: float
    """-20: the same picture for a fifth fewer bytes."""
    low_db: float
    high_db: float

    def __str__(self) -> str:
        return f"{self.percent:+.1f} % ({self.low_db:.2f} to {self.high_db:.2f} dB)"


def bd_rate(points: Points, anchor: Points) -> BdRate:
    """Rate of `points` over that of `anchor`; ValueError: too few points, not rising together, or no PSNR in common."""
    curves = [_Curve.of(each) for each in (points, anchor)]
    low = max(curve.psnr[0] for curve in curves)
    high = min(curve.psnr[-1] for curve in curves)
    if low >= high:
        raise ValueError(f"no PSNR in common: from {low:.2f} dB one, up to {high:.2f} dB the other")
    ours, theirs = (curve.integral(low, high) / (high - low) for curve in curves)
    return BdRate(100 * float(np.expm1(ours - theirs)), float(low), float(high))


@dataclass(frozen=True)
class _Curve:
    """Log rate as a function of PSNR."""

    psnr: _Array
    log_rate: _Array
    slopes: _Array

    @classmethod
    def of(cls, points: Points) -> _Curve:
        if len(points) < LEAST_POINTS:
            raise ValueError(f"{len(points)} points, at least {LEAST_POINTS} are needed")
        rate, psnr = np.array(sorted(points)).T
        if (np.diff(psnr) <= 0).any() or (np.diff(rate) <= 0).any() or rate[0] <= 0:
            raise ValueError(f"more bytes must give a better picture: {sorted(points)}")
        return cls(psnr, np.log(rate), pchip_slopes(psnr, np.log(rate)))

    def at(self, psnr: _Array) -> _Array:
        """Cubic Hermite polynomials between the points."""
        i = np.clip(np.searchsorted(self.psnr, psnr, side="right") - 1, 0, len(self.psnr) - 2)
        width = self.psnr[i + 1] - self.psnr[i]
        t = (psnr - self.psnr[i]) / width
        values = self.log_rate[i] * (1 + 2 * t) * (1 - t) ** 2 + self.log_rate[i + 1] * t**2 * (3 - 2 * t)
        return values + width * (self.slopes[i] * t * (1 - t) ** 2 - self.slopes[i + 1] * t**2 * (1 - t))

    def integral(self, low: float, high: float) -> float:
        """Simpson's rule on each piece, which is exact for cubics."""
        inner = self.psnr[(self.psnr > low) & (self.psnr < high)]
        knots = np.concatenate([[low], inner, [high]])
        begin, end = knots[:-1], knots[1:]
        thirds = self.at(begin) + 4 * self.at((begin + end) / 2) + self.at(end)
        return float(((end - begin) * thirds).sum() / 6)


def pchip_slopes(x: _Array, y: _Array) -> _Array:
    """Derivatives at the points: a weighted harmonic mean of the slopes beside each, 0 at a turn."""
    widths, rises = np.diff(x), np.diff(y) / np.diff(x)
    slopes = np.zeros_like(x)
    before, after = rises[:-1], rises[1:]
    weights = 2 * widths[1:] + widths[:-1], widths[1:] + 2 * widths[:-1]
    same = before * after > 0
    harmonic = sum(weights)[same] / (weights[0][same] / before[same] + weights[1][same] / after[same])
    slopes[1:-1][same] = harmonic
    slopes[0] = _end_slope(widths[0], widths[1], rises[0], rises[1])
    slopes[-1] = _end_slope(widths[-1], widths[-2], rises[-1], rises[-2])
    return slopes


def _end_slope(width: float, next_width: float, rise: float, next_rise: float) -> float:
    """Three-point formula, cut so that the curve keeps the shape of the points."""
    slope = ((2 * width + next_width) * rise - width * next_rise) / (width + next_width)
    if slope * rise <= 0:
        return 0.0
    if rise * next_rise < 0 and abs(slope) > 3 * abs(rise):
        return 3 * rise
    return slope
