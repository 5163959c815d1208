"""How figures are worded for people, the same on the terminal and on the page."""

from __future__ import annotations

_HEADINGS = {"psnr_db": "PSNR dB", "ms_ssim": "MS-SSIM", "encode_seconds": "encode s"}


def heading(column: str) -> str:
    """A column's name as it is read: `psnr_db` is `PSNR dB`, `bits_per_pixel` is `bits per pixel`."""
    return _HEADINGS.get(column, column.replace("_", " "))


def cell(column: str, value: str | int | float | bool | None) -> str:
    """A value of a column as it is read; an absent one is empty."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "NO"
        case float():
            return f"{value:.{_decimals(column, value)}f}"
        case int():
            return f"{value:,}"
    return value


def _decimals(column: str, value: float) -> int:
    if column.endswith("_seconds"):
        return 1
    return 4 if abs(value) < 1 else 2
