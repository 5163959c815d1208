"""How figures are worded for people, the same on the terminal and on the page."""

from __future__ import annotations

from framefold.pipeline.notices import DeadLetter

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


def attempts_of(letter: DeadLetter) -> str:
    """`1 attempt`, `3 attempts`."""
    return "1 attempt" if letter.attempts == 1 else f"{letter.attempts} attempts"


def told(letter: DeadLetter) -> str:
    """`n3: ValueError: bad number`."""
    return f"{letter.label}: {letter.error}: {letter.message}"
