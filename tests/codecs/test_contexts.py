"""Coding from neighbours: encoder and decoder see the same, and what pays is used."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framefold.codecs.network import QuantizedTensor
from framefold.codecs.quantizing import trellis
from framefold.codecs.stream.class_coding import ClassCoder
from framefold.codecs.stream.class_models import choose_class_models
from framefold.codecs.stream.class_parameters import read_class_models, write_class_models
from framefold.codecs.stream.contexts import contexts_of_rule, decode_by_rule
from framefold.codecs.stream.directory import Entry
from framefold.codecs.stream.entropy import SymbolReader, SymbolWriter
from framefold.codecs.stream.neighbour_contexts import (
    column_levels,
    contexts_of,
    energy_weights,
    local_levels,
    predict,
    row_levels,
)
from framefold.codecs.stream.neighbour_decoder import NeighbourDecoder
from framefold.codecs.stream.neighbours import (
    ACTIVITY,
    MAX_CLASSES,
    OFFSETS,
    PARENT,
    UNIT,
    Neighbour,
    NeighbourRule,
    prior_mean,
    skews,
    slice_count,
    slice_numbers,
    view_shape,
)
from framefold.codecs.stream.places import (
    MIDDLE,
    PLAIN_PLACES,
    ZERO,
    centre,
    coarse_place,
    effective_place,
    level_table,
    place_count,
    table_at,
)
from framefold.codecs.stream.symbol_models import Curve, Histogram
from framefold.codecs.stream.tensor_forms import Form
from framefold.codecs.stream.tensor_plans import PlanOptions, plan_tensor
from framefold.codecs.stream.tensor_reader import TensorReader
from framefold.codecs.stream.varbits import BitReader, BitstreamError, BitWriter

# ---- rules


@st.composite
def rules(draw, with_parent=True):
    numbers = draw(st.sets(st.integers(0, PARENT if with_parent else PARENT - 1), max_size=6))
    neighbours = tuple(
        Neighbour(
            number=number,
            weight=draw(st.sampled_from([0, 1, -3, 7, 16])),
            energy=0 if number == PARENT else draw(st.integers(0, 3)),
        )
        for number in sorted(numbers)
    )
    classes = draw(st.integers(1, MAX_CLASSES))
    if classes == 1:
        return NeighbourRule(neighbours=neighbours)
    row, column, local = (draw(st.integers(0, 7)) for _ in range(3))
    prior, middle = draw(st.integers(0, 127)), draw(st.integers(0, 15))
    return NeighbourRule(
        neighbours=neighbours, row=row, column=column, local=local, prior=prior, classes=classes, middle=middle
    )


@given(rules())
def test_a_rule_reads_back(rule):
    writer = BitWriter()
    rule.write(writer)
    reader = BitReader(writer.getvalue())
    assert NeighbourRule.read(reader) == rule
    reader.finish()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([(PARENT + 2, 1)], f"claims {PARENT + 2} neighbours"),
        ([(1, 1), (PARENT + 1, 0), (0, 2), (0, None)], "is none"),
        ([(1, 1), (0, 0), (2 * 65, 2), (0, None)], "is none"),
        ([(1, 1), (PARENT, 0), (0, 2), (1, None)], "is none"),
        ([(2, 1), (PARENT, 0), (0, 2), (0, None), (0, 0), (0, 2), (0, None)], "is none"),
    ],
)
def test_a_wrong_rule_is_refused(fields, message):
    bits = BitWriter()
    for value, order in fields:
        if order is None:
            bits.unsigned(value, width=2)
        else:
            bits.exp_golomb(value, order=order)
    bits.unsigned(0, width=4)
    with pytest.raises(BitstreamError, match=message):
        NeighbourRule.read(BitReader(bits.getvalue()))


def test_views():
    assert view_shape((7,)) == (1, 1, 1, 7)
    assert view_shape((7, 3)) == (7, 3, 1, 1)
    assert view_shape((7, 3, 5)) == (7, 1, 3, 5)
    assert view_shape((7, 2, 3, 5)) == (7, 2, 3, 5)
    assert view_shape((7, 2, 4, 3, 5)) == (7, 8, 3, 5)


@given(rules(), st.booleans())
def test_neighbours_lie_in_earlier_slices(rule, on_trellis):
    shape = (4, 3, 5, 6)
    skew = skews(rule, shape, trellis=on_trellis)
    numbers = slice_numbers(shape, skew).reshape(shape).astype(int)
    assert slice_count(shape, skew) == numbers.max() + 1
    for neighbour in rule.own:
        assert sum(step * back for step, back in zip(skew, OFFSETS[neighbour.number], strict=True)) >= 1
    if on_trellis:
        assert (np.diff(numbers.reshape(4, -1), axis=1) == 1).all()
    elif all(any(OFFSETS[neighbour.number][:1]) for neighbour in rule.own) and not (rule.classes > 1 and rule.row):
        assert skew[1:] == (0, 0, 0)  # nodes one after the other, each at once


# ---- encoder and decoder


def coded_by(rule, symbols, parent, on_trellis):
    """As the encoder does, for any rule: sections, and the skew."""
    skew = skews(rule, symbols.shape, trellis=on_trellis)
    predicted = predict(symbols, rule, parent)
    errors = np.abs(UNIT * symbols - predicted)
    activity = rule.row * row_levels(errors, rule.prior, skew).reshape(-1)
    activity = activity + rule.column * column_levels(errors, rule.prior, skew).reshape(-1)
    activity = activity + rule.local * local_levels(errors, rule.prior, energy_weights(rule)).reshape(-1)
    coded, second = symbols.reshape(-1), None
    if on_trellis:
        levels, states = trellis.levels_of(symbols.reshape(symbols.shape[0], -1))
        coded, second = levels.reshape(-1), trellis.second_quantizer(states).reshape(-1)
    contexts = contexts_of(predicted.reshape(-1), activity, rule, second)
    residuals = coded - contexts.centres
    models = choose_class_models(residuals, contexts, 40, predicts=rule.predicts).models
    writer = SymbolWriter()
    write_class_models(writer, models, quantizers=contexts.quantizers, moved=rule.predicts)
    coder = ClassCoder(models, trellis=on_trellis)
    numbers = slice_numbers(symbols.shape, skew)
    coder.write(writer, residuals, coder.keys(contexts.classes, contexts.places), numbers)
    return writer.finish(), skew


@given(
    rules(),
    st.tuples(st.integers(1, 9), st.integers(1, 3), st.integers(1, 4), st.integers(1, 5)),
    st.integers(0, 2**32),
    st.sampled_from([0.6, 4, 900]),
    st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_the_decoder_sees_what_the_encoder_saw(rule, shape, seed, width, on_trellis):
    rng = np.random.default_rng(seed)
    symbols = np.rint(rng.laplace(0, width, shape)).astype(np.int32)
    if on_trellis:
        symbols = trellis.symbols_of_levels(symbols.reshape(shape[0], -1)).reshape(shape)
    parent = symbols + rng.integers(-1, 2, shape).astype(np.int32)
    sections, skew = coded_by(rule, symbols, parent, on_trellis)
    reader = SymbolReader(*sections)
    quantizers = 1 + on_trellis
    models = read_class_models(reader, quantizers * rule.classes, quantizers=quantizers, moved=rule.predicts)
    decoder = NeighbourDecoder(rule, shape, skew, parent=parent, trellis=on_trellis)
    assert np.array_equal(decoder.decode(reader, ClassCoder(models, trellis=on_trellis)), symbols)
    reader.finish()


def test_chunks_are_seamless(monkeypatch):
    rng = np.random.default_rng(0)
    symbols = np.cumsum(np.rint(rng.normal(0, 2, (6, 2, 9, 8))), axis=3).astype(np.int32)
    neighbours = tuple(Neighbour(number=number, weight=4, energy=1) for number in (0, 1, 9, 13))
    rule = NeighbourRule(neighbours=neighbours, row=2, column=2, local=2, prior=60, classes=5, middle=2)
    sections, skew = coded_by(rule, symbols, None, on_trellis=False)
    monkeypatch.setattr("framefold.codecs.stream.neighbour_decoder._CHUNK", 7)
    reader = SymbolReader(*sections)
    models = read_class_models(reader, 5, quantizers=1, moved=True)
    decoder = NeighbourDecoder(rule, symbols.shape, skew, parent=None, trellis=False)
    assert np.array_equal(decoder.decode(reader, ClassCoder(models, trellis=False)), symbols)


# ---- what pays


def planned(symbols, parent=None, *, on_trellis=False):
    entry = Entry(name="w", shape=symbols.shape, channel_axis=None, trellis=on_trellis)
    tensor = QuantizedTensor(symbols=symbols, steps=np.ones(1, np.float32), trellis=on_trellis)
    plain = plan_tensor(entry, tensor, PlanOptions(contexts=False))
    return plan_tensor(entry, tensor, PlanOptions(parent=parent)), plain


def rounded(values):
    return np.rint(values).astype(np.int32)


def test_grids_are_predicted_from_the_node_before():
    rng = np.random.default_rng(1)
    nodes = np.cumsum(rng.normal(0, 3, (12, 2, 8, 10)), axis=0)
    plan, plain = planned(rounded(nodes))
    assert plan.form == Form.NEIGHBOURS
    assert plan.cost < 0.8 * plain.cost
    weights = {OFFSETS[neighbour.number]: neighbour.weight for neighbour in plan.rule.neighbours}
    assert weights[1, 0, 0, 0] >= 14


def test_a_matrix_of_uneven_rows_and_columns_gets_classes():
    rng = np.random.default_rng(2)
    scales = np.exp(rng.normal(0, 0.8, (60, 1)) + rng.normal(0, 0.8, (1, 50)))
    plan, plain = planned(rounded(4 * scales * rng.normal(size=(60, 50))))
    assert plan.form == Form.NEIGHBOURS
    assert plan.rule.classes > 4
    assert min(plan.rule.row, plan.rule.column) >= 2
    assert plan.cost < 0.9 * plain.cost


def test_a_trellis_has_models_for_both_quantizers():
    values = np.random.default_rng(3).laplace(0, 2, (40, 60))
    values[20:] *= 3
    symbols = trellis.entropy_constrained(values, np.ones_like(values), 0.2)
    plan, plain = planned(symbols, on_trellis=True)
    assert plan.form == Form.NEIGHBOURS
    assert plan.cost < plain.cost


def test_noise_is_coded_as_it_is():
    rng = np.random.default_rng(4)
    plan, plain = planned(rounded(rng.normal(0, 5, (30, 40))))
    assert plan.form == Form.PLAIN
    assert plan.cost == plain.cost


def test_a_parent_predicts_with_a_weight():
    rng = np.random.default_rng(5)
    parent = rounded(rng.normal(0, 30, (40, 40)))
    plan, _ = planned(rounded(0.5 * parent + rng.normal(0, 2, parent.shape)), parent)
    assert plan.form == Form.NEIGHBOURS
    assert plan.rule.parent_weight == 8
    closer, _ = planned(parent + rounded(rng.normal(0, 1, parent.shape)), parent)
    assert closer.form in (Form.DIFFERENCE, Form.NEIGHBOURS)
    assert closer.cost < 0.75 * plan.cost


# ---- refusals


def read_rule(rule, shape, on_trellis=False, slices=1000):
    writer = SymbolWriter()
    rule.write(writer.bits)
    write_class_models(
        writer, [Curve(family="laplace", scale=20)] * (1 + on_trellis), quantizers=1 + on_trellis, moved=rule.predicts
    )
    reader = TensorReader(SymbolReader(*writer.finish()), slices)
    entry = Entry(name="w", shape=shape, channel_axis=None, trellis=on_trellis)
    return reader.read(entry, Form.NEIGHBOURS, None, None)


def test_too_many_slices_are_refused():
    left = NeighbourRule(neighbours=(Neighbour(number=0, weight=16, energy=0),))
    with pytest.raises(BitstreamError, match="'w' takes 5019 slices, more than"):
        read_rule(left, (5000,))
    with pytest.raises(BitstreamError, match="'w' takes 70000 slices, allowed are 65535"):
        read_rule(left, (70_000,), slices=10**9)
    with pytest.raises(BitstreamError, match="'w' takes 2023 slices, more than"):
        read_rule(NeighbourRule(), (3, 2000), on_trellis=True)


def test_an_absent_parent_does_not_predict():
    rule = NeighbourRule(neighbours=(Neighbour(number=PARENT, weight=16, energy=0),))
    with pytest.raises(BitstreamError, match="'w' is predicted from a parent that it does not have"):
        read_rule(rule, (10, 10))


# ---- places


def test_centres_and_places_of_predictions():
    predicted = np.arange(-200, 201, dtype=np.int32)
    centres, places = centre(predicted, None, predicts=True)
    assert np.abs(centres + (places - float(MIDDLE)) / 4 - predicted / 16).max() <= 2 / 16
    assert set(places.tolist()) == set(range(PLAIN_PLACES))
    for second in (False, True):
        centres, places = centre(predicted, np.full(predicted.shape, second), predicts=True)
        near = places >= PLAIN_PLACES
        assert near.any() == second
        assert (centres[near] == 0).all()
        assert np.abs((places[near] - float(ZERO)) / 2 - predicted[near] / 16).max(initial=0) <= 4 / 16
        levels = centres + (places - float(MIDDLE)) / 4
        symbols = 2 * levels - second * np.sign(levels)
        assert np.abs(symbols - predicted / 16)[~near].max() <= 4 / 16
    still = centre(predicted, np.arange(predicted.size) % 2 > 0, predicts=False)
    assert not still[0].any()
    assert set(still[1].tolist()) == {MIDDLE, ZERO}


def test_level_tables_mirror_each_other():
    for scale in (0, 9, 30, 47, 60):
        for family in ("laplace", "gaussian"):
            curve = Curve(family=family, scale=scale)
            for place, mirrored in ((1, 3), (4, 20), (9, 15), (MIDDLE, MIDDLE), (ZERO, ZERO)):
                table, other = level_table(curve, place), level_table(curve, mirrored)
                assert np.array_equal(table.weights[:-1], other.weights[-2::-1])
                assert table.lowest == -(other.lowest + other.symbol_count - 1)


def test_wide_and_shaped_models_are_moved_less():
    wide, shaped = Curve(family="laplace", scale=60), Curve(family="laplace", scale=20, spike=9)
    for on_trellis in (False, True):
        for place in range(place_count(trellis=on_trellis)):
            assert effective_place(wide, place, trellis=on_trellis) == coarse_place(place)
            assert effective_place(shaped, place, trellis=on_trellis) == MIDDLE
            assert effective_place(Curve(family="laplace", scale=20), place, trellis=on_trellis) == place
    histogram = Histogram(lowest=0, resolution=0, order=0, steps=(1, 2, 3))
    assert np.array_equal(table_at(histogram, MIDDLE, trellis=True).weights, histogram.table().weights)


def test_the_integers_of_version_2_never_change():
    digest = hashlib.sha256(ACTIVITY.astype("<i8").tobytes())
    digest.update(np.array([prior_mean(prior) for prior in range(128)], "<i8").tobytes())
    for family in ("laplace", "gaussian"):
        for scale in (*range(0, 50, 3), 60, 90):
            curve = Curve(family=family, scale=scale)
            tables = [curve.table(quarter) for quarter in (-2, -1, 1)]
            tables += [level_table(curve, place) for place in range(place_count(trellis=True))]
            for table in tables:
                digest.update(np.append(table.weights, table.lowest).astype("<i8").tobytes())
    assert digest.hexdigest() == "638dc85c0d1bf8a80625410e9df2f2c238e9e6e898c3a23484a6c09e742b470f"


# ---- a codec's own rule


@dataclass(frozen=True)
class Halves:
    """The first half by itself, the second one from it."""

    size: int
    class_count = 2
    models = None

    def slices(self):
        return np.arange(self.size // 2), np.arange(self.size // 2, self.size)

    def contexts(self, known, number):
        count = self.slices()[number].size
        centres = known[:count] if number else np.zeros(count, np.int32)
        return np.full(count, number, np.uint8), centres.astype(np.int32)


def test_a_codecs_own_rule():
    rng = np.random.default_rng(6)
    first = rounded(rng.normal(0, 40, 300))
    symbols = np.concatenate([first, first + rounded(rng.normal(0, 1, 300))])
    contexts, numbers = contexts_of_rule(symbols, Halves(600))
    residuals = symbols - contexts.centres
    models = choose_class_models(residuals, contexts, 40, predicts=False).models
    writer = SymbolWriter()
    write_class_models(writer, models, quantizers=1, moved=False)
    coder = ClassCoder(models, trellis=False)
    coder.write(writer, residuals, coder.keys(contexts.classes, contexts.places), numbers)
    sections = writer.finish()
    assert sum(map(len, sections)) < 360
    reader = SymbolReader(*sections)
    coder = ClassCoder(read_class_models(reader, 2, quantizers=1, moved=False), trellis=False)
    assert np.array_equal(decode_by_rule(reader, coder, Halves(600), 600), symbols)
    reader.finish()
