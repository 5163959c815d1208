"""Models as constriction wants them, and its errors as ours."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import constriction
import numpy as np

from framefold.codecs.stream.symbol_models import Model, Table
from framefold.codecs.stream.varbits import BitstreamError


class Prepared:
    """A model as the coder wants it."""

    def __init__(self, model: Model) -> None:
        table = model.table()
        self.lowest, self.symbol_count, self.escapes = table.lowest, table.symbol_count, table.escapes
        self.size = table.weights.size
        self.categorical = categorical(table)


@lru_cache(maxsize=128)
def prepare(model: Model) -> Prepared:
    """Prepare a model, or take it from those prepared lately."""
    return Prepared(model)


def categorical(table: Table) -> Any:
    """Constriction's model of a table; None for a constant."""
    if table.weights.size == 1:
        return None
    with coder_errors():
        return constriction.stream.model.Categorical(table.weights.astype(np.float64), perfect=False)


class coder_errors:  # noqa: N801 - used like a function, as contextlib.suppress is
    """Turn what the coder raises into BitstreamError, its PanicException (a BaseException) included."""

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Raise another error, but for those that are not the coder's."""
        if error is None or isinstance(error, MemoryError | KeyboardInterrupt | SystemExit | BitstreamError):
            return
        raise BitstreamError(f"the entropy coder refuses the stream: {error}") from error
