"""The models of an array's classes as bits: each scale against that of the class before.

Where a prediction moves the models they are all plain curves: one bit for the family (0 Laplace, 1 Gaussian) and the
scale, signed EG1, against what is expected. Else each is a whole model as in `symbol_models`. What is expected: for
the first class the scale of the stream's latest curve; for the next one SCALES_PER_CLASS more than the latest
class's; for the second quantizer's model of a class as much as the first one's.
"""

from __future__ import annotations

from collections.abc import Sequence

from framefold.codecs.stream.entropy import SymbolReader, SymbolWriter
from framefold.codecs.stream.probability_tables import FAMILIES, SCALE_COUNT
from framefold.codecs.stream.symbol_models import Curve, Model, checked_scale

SCALES_PER_CLASS = 4
"""A class is half an octave above the one before."""


def next_near(model: Model, near: int, number: int, quantizers: int) -> int:
    """What the scale of the model after model `number` is written against."""
    near = model.scale if isinstance(model, Curve) else near
    step = 0 if (number + 1) % quantizers else SCALES_PER_CLASS
    return min(near + step, SCALE_COUNT - 1)


def write_class_models(writer: SymbolWriter, models: Sequence[Model], *, quantizers: int, moved: bool) -> None:
    """Write the models of all classes; `moved`: they are plain curves."""
    near = writer.near
    for number, model in enumerate(models):
        if moved and isinstance(model, Curve):
            writer.bits.unsigned(FAMILIES.index(model.family), width=1)
            writer.bits.signed(model.scale - near, order=1)
            writer.near = model.scale
        else:
            writer.write_model(model, near=near)
        near = next_near(model, near, number, quantizers)


def read_class_models(reader: SymbolReader, count: int, *, quantizers: int, moved: bool) -> tuple[Model, ...]:
    """Read so many models; BitstreamError names what is wrong."""
    near = reader.near
    models: list[Model] = []
    for number in range(count):
        if moved:
            family = FAMILIES[reader.bits.unsigned(width=1)]
            reader.near = checked_scale(near + reader.bits.signed(order=1))
            models.append(Curve(family=family, scale=reader.near))
        else:
            models.append(reader.read_model(near=near))
        near = next_near(models[-1], near, number, quantizers)
    return tuple(models)
