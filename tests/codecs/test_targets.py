import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from framefold.codecs.clip import Source, Span
from framefold.codecs.rate.targets import Outcome, RateTarget
from framefold.pipeline import keepsake


def span(width=40, height=20, frames=5):
    source = Source(name="a", kind="video", sha256="0" * 64, size_bytes=1, width=width, height=height)
    return Span(source=source, pts=tuple(range(frames)))


@pytest.mark.parametrize("given_", [{}, {"bpp": 1, "bytes": 9}, {"psnr_db": 30, "bits_per_weight": 3}])
def test_a_target_is_exactly_one_thing(given_):
    with pytest.raises(ValidationError, match="exactly one of bpp, bytes, psnr_db and bits_per_weight"):
        RateTarget.model_validate(given_)


@pytest.mark.parametrize(
    "given_",
    [{"bpp": 0}, {"bytes": 0}, {"psnr_db": -1}, {"psnr_db": 101}, {"bits_per_weight": 65}, {"bits": 3}, {"bytes": 1.5}],
)
def test_a_target_out_of_range_is_refused(given_):
    with pytest.raises(ValidationError):
        RateTarget.model_validate(given_)


def test_what_is_not_stated_is_not_written_down():
    assert RateTarget(psnr_db=35).model_dump(mode="json") == {"psnr_db": 35.0}
    assert RateTarget(bytes=9).model_dump_json() == '{"bytes":9}'


@pytest.mark.parametrize(
    ("target", "size", "told"),
    [
        ({"bytes": 1000}, 1000, "1000 bytes"),
        ({"bpp": 0.5}, 0.5 * 40 * 20 * 5 / 8, "0.5 bpp"),
        ({"bits_per_weight": 3}, 3 * 200 / 8, "3 bits per weight"),
    ],
)
def test_a_size_in_bytes_and_back(target, size, told):
    wanted = RateTarget.model_validate(target)
    assert wanted.bytes_for(span(), 200) == size
    assert wanted.reached(span(), size=1000, weights=200, psnr_db=None) == pytest.approx(wanted.value * 1000 / size)
    assert str(wanted) == told


def test_bits_per_weight_need_a_network_and_a_quality_is_no_size():
    assert RateTarget(bits_per_weight=3).bytes_for(span()) is None
    assert RateTarget(psnr_db=30).bytes_for(span(), 200) is None
    assert RateTarget(psnr_db=30).reached(span(), size=9, weights=9, psnr_db=None) is None


@given(st.floats(0.5, 1.5))
def test_a_size_is_met_within_three_per_cent(ratio):
    assert RateTarget(bytes=1000).is_met_by(1000 * ratio) == (abs(1000 * ratio / 1000 - 1) <= 0.03)
    assert RateTarget(bytes=1000).missed_by(1000 * ratio) == pytest.approx(ratio - 1)


@given(st.floats(20, 40))
def test_a_quality_is_met_if_a_tenth_of_a_decibel_lacks_at_most(reached):
    assert RateTarget(psnr_db=30).is_met_by(reached) == (30 - reached <= 0.1)
    assert RateTarget(psnr_db=30).missed_by(reached) == 30 - reached


def test_an_outcome_measures_the_stream_that_came_of_it():
    outcome = Outcome(target=RateTarget(bits_per_weight=2), weights=100, evaluations=3)
    assert outcome.reached(span(), size=30, psnr_db=None) == pytest.approx(2.4)


def test_an_outcome_survives_the_run_folder(tmp_path):
    outcome = Outcome(target=RateTarget(bpp=0.05), weights=100, evaluations=3, reason="because")
    keepsake.write(tmp_path / "kept", outcome)
    assert keepsake.read(tmp_path / "kept") == outcome
