"""What a stream shall take, or how good its picture shall be; and what came of it.

All of it is said of one stream: the bytes of one clip or one picture, without what a container adds (about 100 bytes
for a chunk of its own, less where pictures share one).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self, get_args

from pydantic import BaseModel, Field, model_validator

from framefold.codecs.clip import Span

BYTES_MISSED = 0.03
"""A stream misses its target if its bytes differ by more than this share of it, ..."""
PSNR_MISSED_DB = 0.1
"""... or if its PSNR is lower by more than this."""

Kind = Literal["bpp", "bytes", "psnr_db", "bits_per_weight"]
_KINDS: tuple[Kind, ...] = get_args(Kind)
_FORMATS: dict[Kind, str] = {
    "bpp": "{:.4g} bpp",
    "bytes": "{:.0f} bytes",
    "psnr_db": "{:.2f} dB",
    "bits_per_weight": "{:.3g} bits per weight",
}


def _is_none(value: object) -> bool:
    """What is not stated is not written down: keys of units depend on all that is."""
    return value is None


class RateTarget(BaseModel, frozen=True, extra="forbid"):
    """A size or a quality of each clip's or picture's stream: exactly one of the four."""

    bpp: float | None = Field(
        default=None,
        gt=0,
        le=1000,
        exclude_if=_is_none,
        description="bits per pixel of one clip's or picture's stream: 8 * bytes / (width * height * frames)",
    )
    bytes: int | None = Field(
        default=None, ge=1, le=2**40, exclude_if=_is_none, description="of one clip's or picture's stream"
    )
    psnr_db: float | None = Field(default=None, gt=0, le=100, exclude_if=_is_none, description="of the decoded frames")
    bits_per_weight: float | None = Field(
        default=None,
        gt=0,
        le=64,
        exclude_if=_is_none,
        description="8 * bytes of the stream / parameters of the network, those pruned to zero included",
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if sum(getattr(self, kind) is not None for kind in _KINDS) != 1:
            raise ValueError(
                "give exactly one of bpp, bytes, psnr_db and bits_per_weight, as in {bpp: 0.05} or {psnr_db: 35}"
            )
        return self

    def __str__(self) -> str:
        return self.told(self.value)

    @property
    def kind(self) -> Kind:
        """Which one was given."""
        return next(kind for kind in _KINDS if getattr(self, kind) is not None)

    @property
    def value(self) -> float:
        """The number that was given."""
        return float(getattr(self, self.kind))

    def told(self, value: float) -> str:
        """Write a value in this target's unit: `0.05 bpp`."""
        return _FORMATS[self.kind].format(value)

    def bytes_for(self, span: Span, weights: int | None = None) -> float | None:
        """Bytes that the span's stream may take; None for a quality, or where the count of weights is not known."""
        return None if self.kind == "psnr_db" else self._per_unit(span, weights, self.value)

    def reached(self, span: Span, *, size: int, weights: int, psnr_db: float | None) -> float | None:
        """What a stream of `size` bytes has, in this target's unit; None if that was not measured."""
        unit = self._per_unit(span, weights, 1.0)
        return psnr_db if unit is None else size / unit

    def _per_unit(self, span: Span, weights: int | None, value: float) -> float | None:
        frames, _, height, width = span.shape
        match self.kind:
            case "bytes":
                return value
            case "bpp":
                return value * frames * height * width / 8
            case "bits_per_weight":
                return None if weights is None else value * weights / 8
        return None

    def missed_by(self, reached: float) -> float:
        """How far off: dB that are lacking (negative where there are more), or the relative difference in bytes."""
        return self.value - reached if self.kind == "psnr_db" else reached / self.value - 1

    def is_met_by(self, reached: float) -> bool:
        """Whether that counts as met: 3 % of the bytes either way, or no more than 0.1 dB below."""
        missed = self.missed_by(reached)
        return missed <= PSNR_MISSED_DB if self.kind == "psnr_db" else abs(missed) <= BYTES_MISSED


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a search for a target found out; travels with the stream to whoever reports."""

    target: RateTarget
    weights: int
    """Parameters of the network, pruned ones included."""
    evaluations: int
    """How many streams were made to find it."""
    reason: str = ""
    """Why the target was not reached; empty if it was."""

    def reached(self, span: Span, *, size: int, psnr_db: float | None) -> float | None:
        """What the span's stream of `size` bytes has, in the target's unit; None if that was not measured."""
        return self.target.reached(span, size=size, weights=self.weights, psnr_db=psnr_db)
