"""What `archive_sink` says of targets: what each unit was to have and has, and how many missed it, and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from framefold.codecs.network import Bitstream
from framefold.stages.archive_totals import Quality

NAMED = 5
"""Units that missed their target and are told of one by one."""
_CODED_OTHERWISE = "its stream was coded otherwise than when the target was sought"


class TargetTotals:
    """Counts units that have a target."""

    def __init__(self) -> None:
        self._units = self._unknown = 0
        self._missed: list[str] = []

    def add(self, bits: Bitstream, quality: Quality | None) -> dict[str, Any]:
        """Count one unit, and give the columns of its row; none without a target."""
        if bits.outcome is None:
            return {}
        target = bits.outcome.target
        reached = bits.outcome.reached(bits.span, size=len(bits.payload), psnr_db=quality.psnr_db if quality else None)
        self._units += 1
        if reached is None:
            self._unknown += 1
            return {"target": str(target), "reached": "not measured"}
        if not target.is_met_by(reached):
            why = bits.outcome.reason or _CODED_OTHERWISE
            self._missed.append(f"{bits.span.label}: {target} wanted, {target.told(reached)} reached: {why}")
        return {"target": str(target), "reached": target.told(reached)}

    def columns(self) -> dict[str, Any]:
        """For the archive's row: how many units have what was wanted."""
        known = self._units - self._unknown
        return {"target": f"{known - len(self._missed)} of {known} met"} if known else {}

    def missed(self) -> Iterator[str]:
        """Say which units missed their target, and why."""
        if not self._missed:
            return
        yield f"{len(self._missed)} of {self._units} units missed their target (3 % in bytes, 0.1 dB)"
        yield from self._missed[:NAMED]
        if len(self._missed) > NAMED:
            yield f"{len(self._missed) - NAMED} more units: compare the columns `target` and `reached` of the report"
