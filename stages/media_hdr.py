"""HDR10's static metadata: the display that a film was graded on, and its brightest pictures (ST 2086, CTA-861.3).

FFmpeg keeps them as structures in memory, and so do archives: 22 and 2 little-endian integers of 32 bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from struct import Struct

from framefold.stages.media_ebml import decimal, element, unsigned

MASTERING, LIGHT = "mastering_display_metadata", "content_light_level"
"""Names of the side data."""

_MASTERING, _LIGHT = Struct("<22i"), Struct("<2I")
_CHROMATICITY, _LUMINANCE = 50_000, 10_000
"""Steps per unit, in H.264's and H.265's messages."""
_MATROSKA_PRIMARIES = (0x55D1, 0x55D2, 0x55D3, 0x55D4, 0x55D5, 0x55D6, 0x55D7, 0x55D8)


@dataclass(frozen=True)
class Hdr:
    """Numbers of both kinds of metadata; what is absent or out of range is None."""

    primaries: tuple[Fraction, ...] | None = None
    """x and y of red, green, blue and white; 0..1."""
    luminance: tuple[Fraction, Fraction] | None = None
    """Smallest and largest, cd/m²."""
    light: tuple[int, int] | None = None
    """Brightest pixel, and brightest mean of a picture (MaxCLL, MaxFALL), cd/m²."""

    def __bool__(self) -> bool:
        return any((self.primaries, self.luminance, self.light))

    @property
    def x264(self) -> dict[str, str]:
        """Options of the encoder libx264."""
        parameters = []
        if self.primaries and self.luminance:
            red_x, red_y, green_x, green_y, blue_x, blue_y, *white = (round(p * _CHROMATICITY) for p in self.primaries)
            low, high = (round(value * _LUMINANCE) for value in self.luminance)
            pairs = zip("G B R WP".split(), ((green_x, green_y), (blue_x, blue_y), (red_x, red_y), white), strict=True)
            colors = "".join(f"{name}({x},{y})" for name, (x, y) in pairs)
            parameters.append(f"mastering-display={colors}L({high},{low})")
        if self.light:
            parameters.append(f"cll={self.light[0]},{self.light[1]}")
        return {"x264-params": ":".join(parameters)} if parameters else {}

    @property
    def matroska(self) -> bytes:
        """Elements that belong into Matroska's element Colour."""
        mastering = b"".join(self._mastering())
        light = zip((0x55BC, 0x55BD), self.light or (), strict=False)
        return (element(0x55D0, mastering) if mastering else b"") + b"".join(unsigned(i, n) for i, n in light)

    def _mastering(self) -> Iterator[bytes]:
        for identity, value in zip(_MATROSKA_PRIMARIES, self.primaries or (), strict=False):
            yield decimal(identity, float(value))
        if self.luminance:
            yield decimal(0x55D9, float(self.luminance[1])) + decimal(0x55DA, float(self.luminance[0]))


def hdr_of(side_data: Mapping[str, bytes]) -> Hdr:
    """Read FFmpeg's structures, which may come from a stranger's archive."""
    primaries, luminance = _mastering_of(side_data.get(MASTERING, b""))
    return Hdr(primaries, luminance, _light_of(side_data.get(LIGHT, b"")))


def _mastering_of(data: bytes) -> tuple[tuple[Fraction, ...] | None, tuple[Fraction, Fraction] | None]:
    if len(data) != _MASTERING.size:
        return None, None
    *numbers, has_primaries, has_luminance = _MASTERING.unpack(data)
    pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
    if any(below <= 0 or above < 0 for above, below in pairs):
        return None, None
    values = [Fraction(above, below) for above, below in pairs]
    primaries = tuple(values[:8]) if has_primaries and max(values[:8]) <= 1 else None
    in_range = has_luminance and 0 < values[9] <= 100_000 and values[8] <= values[9]
    return primaries, (values[8], values[9]) if in_range else None


def _light_of(data: bytes) -> tuple[int, int] | None:
    light = _LIGHT.unpack(data) if len(data) == _LIGHT.size else (0, 0)
    return (light[0], light[1]) if any(light) and max(light) <= 65_535 else None
