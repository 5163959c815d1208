import math
import sys
from pathlib import Path

import numpy as np
import pytest

# A benchmark is a script beside others, no package.
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "video"))

from bd_rate import bd_rate, pchip_slopes

LINE = [(100.0, 30.0), (200.0, 32.0), (400.0, 34.0), (800.0, 36.0)]


def scaled(points, factor):
    return [(rate * factor, psnr) for rate, psnr in points]


def test_a_fifth_fewer_bytes_everywhere_is_minus_20_percent():
    curve = [(90.0, 29.0), (150.0, 31.5), (420.0, 33.0), (1000.0, 37.0), (2500.0, 38.0)]
    result = bd_rate(scaled(curve, 0.8), curve)
    assert result.percent == pytest.approx(-20)
    assert (result.low_db, result.high_db) == (29, 38)


def test_curves_that_double_at_different_pace():
    # log2 of the rates: psnr/2 - c and psnr/4 - c'; both are lines, so PCHIP is exact. Overlap 30 to 36:
    # the first rises from 0 to 3, mean 1.5; the second from 1 to 2.5, mean 1.75, in units of log2(100).
    slow = [(100 * 2 ** (1 + (psnr - 30) / 4), psnr) for psnr in (30.0, 33.0, 36.0, 40.0)]
    result = bd_rate(LINE, slow)
    assert (result.low_db, result.high_db) == (30, 36)
    assert result.percent == pytest.approx(100 * (2**-0.25 - 1))


def test_only_the_common_psnr_counts():
    shifted = [(rate, psnr + 3) for rate, psnr in LINE]  # three dB more at the same rate: 2^-1.5 of the bytes
    result = bd_rate(shifted, LINE)
    assert (result.low_db, result.high_db) == (33, 36)
    assert result.percent == pytest.approx(100 * (2**-1.5 - 1))


def test_the_order_of_the_points_does_not_matter():
    assert bd_rate(LINE[::-1], scaled(LINE, 2)).percent == pytest.approx(-50)


@pytest.mark.parametrize(
    ("points", "said"),
    [
        (LINE[:3], "3 points"),
        ([*LINE[:3], (800.0, 33.0)], "better picture"),
        ([*LINE[:3], (400.0, 36.0)], "better picture"),
        ([(rate, psnr + 10) for rate, psnr in LINE], "no PSNR in common"),
    ],
)
def test_what_cannot_be_compared_is_refused(points, said):
    with pytest.raises(ValueError, match=said):
        bd_rate(points, LINE)


def test_slopes_by_hand():
    # Equal widths: harmonic means inside (1 and 3 -> 2 * 1 * 3 / 4 = 1.5), 0 at the turn; three points at the ends.
    x, y = np.array([0.0, 1, 2, 3]), np.array([0.0, 1, 4, 3])
    assert pchip_slopes(x, y) == pytest.approx([0.0, 1.5, 0.0, -3.0])


def test_between_two_points_the_curve_never_leaves_them():
    steps = [(100.0, 30.0), (101.0, 31.0), (400.0, 31.2), (401.0, 35.0)]
    result = bd_rate(steps, scaled(LINE, 1))
    assert math.isfinite(result.percent)
    assert -70 < result.percent < 100
