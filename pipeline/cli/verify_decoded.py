"""The deepest level of `pipeline verify`: units are decoded and held against what was recorded when they were made.

Pixels may differ by one level between kinds of machines. So a unit that is not bit-exact is a problem only if nothing
else confirms it: the levels of its quarters, or, with the originals at hand, its recorded PSNR.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from framefold.pipeline import runner, spec
from framefold.pipeline.archive import ArchiveReader, Code, Finding, listing
from framefold.pipeline.archive.subset import Subset
from framefold.pipeline.cli import decoding, screen
from framefold.pipeline.cli.tables import Columns, counted, figure, table, text

if TYPE_CHECKING:
    from rich.table import Table

    from framefold.pipeline.outcome import Outcome

PSNR_TOLERANCE_DB = 0.05
"""A recorded PSNR must come back this closely."""
BATCH = 4096
"""Units decoded in one run: a run holds only so many rows in memory."""

Row = Mapping[str, Any]


@dataclass
class Decoded:
    """What decoding told."""

    findings: list[Finding] = field(default_factory=list)
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("units", "exact", "rounded", "different", "unrecorded"), 0)
    )
    """Of units: all, those that decode to the very frames recorded, to frames that are rounded otherwise, to others,
    those without a record."""
    compared: list[dict[str, Any]] = field(default_factory=list)
    """A row for each unit that was measured against its original."""
    notes: list[str] = field(default_factory=list)

    def table(self) -> Table:
        """The rows of `compared`."""
        return table(counted(len(self.compared), "unit") + " against the originals", _COLUMNS, self.compared, left=1)


def verify_decoded(archive: str, against: Sequence[str] | None, subset: Subset) -> Decoded:
    """Decode the units of a part in this process; all of them must be whole."""
    decoded = Decoded()
    with ArchiveReader.open(archive) as reader:
        units = [unit for unit in listing.units(reader) if subset.has_chunk(unit["id"])]
        units.sort(key=lambda unit: (unit["source_number"], unit["first_frame"]))
        for start in range(0, len(units), BATCH):
            _Batch(archive, against, reader, units[start : start + BATCH], decoded).run()
    decoded.notes += _summary(decoded, bool(against))
    return decoded


class _Batch:
    """Some units, decoded in one run."""

    def __init__(
        self, archive: str, against: Sequence[str] | None, reader: ArchiveReader, units: Sequence[Row], decoded: Decoded
    ) -> None:
        self._archive, self._against, self._units, self._decoded = archive, against, units, decoded
        self._by_id = {unit["id"]: unit for unit in units}
        self._by_label = {_label(unit): unit for unit in units}
        self._others: set[str] = set()
        """Sources whose originals are not at hand: said once of each."""
        self._recorded: defaultdict[str, list[float]] = defaultdict(list)
        for unit in units:
            psnr = (reader.quality(unit["id"]) or {}).get("psnr_db")
            if isinstance(psnr, int | float):
                self._recorded[_label(unit)].append(psnr)

    def run(self) -> None:
        """Add to what is known."""
        outcome = self._outcome()
        rows = [row for row in outcome.rows if row.node == "measured"]
        self._decoded.compared += [{"label": row.label, **row.values} for row in rows]
        confirmed: set[str] = set()
        for row in rows:
            problems = list(self._measured(row.label, row.values))
            self._decoded.findings += problems
            if not problems and self._recorded[row.label]:
                confirmed.add(row.label)
        self._decoded.findings += self._failed(outcome)
        self._decoded.findings += self._frames([row.values for row in outcome.rows if row.node == "fixity"], confirmed)

    def _outcome(self) -> Outcome:
        stages = decoding.chain(self._archive, rest=False, units=list(self._by_id))
        stages["fixity"] = {"stage": "fixity", "inputs": ["frames"], "path": self._archive}
        if self._against:
            stages["measured"] = {"stage": "quality", "inputs": ["frames"], "against": list(self._against)}
        checked = spec.from_mapping(f"pipeline verify {self._archive}", {"pipeline": "verify", "stages": stages})
        return runner.run(checked, screen.console(stderr=True), runner.Manner(local=True, report=False))

    def _frames(self, rows: Sequence[Row], confirmed: set[str]) -> Iterator[Finding]:
        counts = self._decoded.counts
        known = {finding.chunk for finding in self._decoded.findings}
        for row in rows:
            counts["units"] += 1
            counts[_kind(row)] += 1
            label = _label(self._by_id[row["unit"]])
            if _kind(row) == "different" and label not in confirmed and row["unit"] not in known:
                yield self._finding(Code.FRAMES_DIFFER, label, "its frames are not those whose SHA-256 was recorded")

    def _measured(self, label: str, values: Row) -> Iterator[Finding]:
        if not values["same_original"]:
            yield from self._other_original(str(self._by_label[label]["source"]))
            return
        if not values["same_times"]:
            yield self._finding(Code.FRAMES_DIFFER, label, "the frames' times differ from the original's")
        recorded = self._recorded[label]
        if recorded and min(abs(values["psnr_db"] - psnr) for psnr in recorded) > PSNR_TOLERANCE_DB:
            message = f"decodes to {values['psnr_db']:.2f} dB, {recorded[0]:.2f} dB were recorded"
            yield self._finding(Code.QUALITY_DIFFERS, label, message)

    def _other_original(self, source: str) -> Iterator[Finding]:
        if source not in self._others:
            self._others.add(source)
            message = f"{source}: this is not the original file that was archived (its SHA-256 differs)"
            yield Finding(code=Code.ORIGINAL_DIFFERS, chunk=None, offset=None, message=message)

    def _failed(self, outcome: Outcome) -> Iterator[Finding]:
        """What a stage set aside: a unit that cannot be decoded, or an original that is not there."""
        for refusal in outcome.refused:
            yield self._finding(Code.RECORD, refusal.label, refusal.reason)
        for letter in outcome.dead:
            code = Code.NO_SUCH if letter.node == "measured" else Code.FRAMES_DIFFER
            yield self._finding(code, letter.label, letter.message)

    def _finding(self, code: Code, label: str, message: str) -> Finding:
        """With the unit's id, where its label is one's alone."""
        ids = [unit["id"] for unit in self._units if label in (_label(unit), unit["id"])]
        return Finding(code=code, chunk=ids[0] if len(ids) == 1 else None, offset=None, message=f"{label}: {message}")


def _kind(row: Row) -> str:
    if row["bit_exact"] is None:
        return "unrecorded"
    return "exact" if row["bit_exact"] else "rounded" if row["alike"] else "different"


def _summary(decoded: Decoded, is_compared: bool) -> Iterator[str]:
    counts = decoded.counts
    parts = [f"{counts['exact']:,} of {counted(counts['units'], 'unit')} decoded bit-exact"]
    if counts["rounded"]:
        parts.append(f"{counts['rounded']:,} to the frames recorded but for rounding, as on another kind of machine")
    if counts["different"]:
        parts.append(f"{counts['different']:,} to other frames than were recorded")
    if counts["unrecorded"]:
        parts.append(f"of {counts['unrecorded']:,} nothing was recorded to compare with")
    yield ", ".join(parts)
    if counts["different"] and not is_compared:
        yield "whether the others differ by more than the rounding of another machine, --against ORIGINALS tells"


def _label(unit: Row) -> str:
    """The name that stages give a unit: `bunny.mp4[0:24]`, or a picture's own."""
    if unit["start_seconds"] is None:
        return str(unit["source"])
    return f"{unit['source']}[{unit['first_frame']}:{unit['first_frame'] + unit['frames']}]"


_COLUMNS: Columns = (
    ("unit", lambda row: text(row["label"])),
    ("frames", lambda row: f"{row['frames']:,}"),
    ("PSNR dB", lambda row: figure(row["psnr_db"], ".2f")),
    ("MS-SSIM", lambda row: figure(row["ms_ssim"], ".4f")),
    ("same times", lambda row: "yes" if row["same_times"] else "no"),
    ("same original", lambda row: "yes" if row["same_original"] else "no"),
)
