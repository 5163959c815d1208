"""What the report says of targets, from the streams that were stored."""

import logging

import pytest

from framefold.codecs.network import Bitstream
from framefold.codecs.rate.targets import Outcome, RateTarget
from framefold.codecs.testing import make_clip, moving_shapes
from framefold.pipeline.item import Item
from framefold.pipeline.stage import Row, StageContext
from framefold.stages.archive_sink import ArchiveSink, ArchiveSinkConfig
from framefold.stages.archive_targets import NAMED, TargetTotals
from framefold.stages.archive_totals import Quality

SPAN = make_clip(moving_shapes(2, 8, 10)).span


def stream(size, target, reason=""):
    outcome = target and Outcome(target=RateTarget.model_validate(target), weights=400, evaluations=2, reason=reason)
    return Bitstream(span=SPAN, codec="none", config={}, payload=bytes(size), outcome=outcome)


def quality(psnr_db):
    return Quality(psnr_db=psnr_db, ms_ssim=1, frames_sha256="0" * 64, frames_levels="0" * 24, encode_seconds=0)


@pytest.mark.parametrize(
    ("size", "target", "told"),
    [
        (100, {"bytes": 102}, {"target": "102 bytes", "reached": "100 bytes"}),
        (100, {"bpp": 5}, {"target": "5 bpp", "reached": "5 bpp"}),
        (100, {"bits_per_weight": 2.04}, {"target": "2.04 bits per weight", "reached": "2 bits per weight"}),
        (100, {"psnr_db": 31.05}, {"target": "31.05 dB", "reached": "31.00 dB"}),
        (100, None, {}),
    ],
)
def test_a_row_says_what_was_wanted_and_reached(size, target, told):
    totals = TargetTotals()
    assert totals.add(stream(size, target), quality(31.0)) == told
    assert list(totals.missed()) == []
    assert totals.columns() == ({"target": "1 of 1 met"} if target else {})


def test_units_that_missed_are_counted_and_named():
    totals = TargetTotals()
    totals.add(stream(100, {"bytes": 100}), None)
    totals.add(stream(100, {"bytes": 80}, "the coarsest steps take 100 bytes"), None)
    totals.add(stream(100, {"psnr_db": 33}, "the network itself gives 31.5 dB"), quality(31.0))
    assert totals.columns() == {"target": "1 of 3 met"}
    assert list(totals.missed()) == [
        "2 of 3 units missed their target (3 % in bytes, 0.1 dB)",
        "shapes[0:2]: 80 bytes wanted, 100 bytes reached: the coarsest steps take 100 bytes",
        "shapes[0:2]: 33.00 dB wanted, 31.00 dB reached: the network itself gives 31.5 dB",
    ]


def test_a_quality_that_nobody_measured_is_neither_met_nor_missed():
    totals = TargetTotals()
    assert totals.add(stream(100, {"psnr_db": 33}), None) == {"target": "33.00 dB", "reached": "not measured"}
    assert (totals.columns(), list(totals.missed())) == ({}, [])


def test_a_stream_that_was_coded_otherwise_says_so():
    totals = TargetTotals()
    totals.add(stream(100, {"bytes": 80}), None)
    assert list(totals.missed())[1].endswith("its stream was coded otherwise than when the target was sought")


def test_of_many_the_first_are_named():
    totals = TargetTotals()
    for _ in range(NAMED + 3):
        totals.add(stream(100, {"bytes": 80}, "why"), None)
    lines = list(totals.missed())
    assert len(lines) == NAMED + 2
    assert lines[-1].startswith("3 more units")


def test_the_sink_reports_them(tmp_path, caplog):
    sink = ArchiveSink(ArchiveSinkConfig(path=str(tmp_path / "x.fold"), measure=False))
    sink.setup(StageContext("archive"))
    bits = stream(100, {"bytes": 80}, "too many weights")
    (row,) = sink.process(Item("0" * 64, "the item", (0,), bits))
    assert (row.values["target"], row.values["reached"]) == ("80 bytes", "100 bytes")
    with caplog.at_level(logging.WARNING):
        (total,) = (output for output in sink.finish() if isinstance(output, Row))
    assert total.values["target"] == "0 of 1 met"
    assert "1 of 1 units missed their target" in caplog.text
    assert "too many weights" in caplog.text
