"""Several arrays of symbols as one, and back: for coders that know nothing of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from framefold.codecs.network import IntTensor
from framefold.codecs.stream.symbol_models import MAX_SYMBOL
from framefold.codecs.stream.varbits import BitstreamError


def join(arrays: Sequence[IntTensor]) -> IntTensor:
    """Put int32 arrays of any shapes behind one another, in C order; ValueError for symbols beyond MAX_SYMBOL."""
    for array in arrays:
        if array.dtype != np.int32:
            raise ValueError(f"symbols are {array.dtype}, the coder takes int32; convert them first")
    symbols = np.concatenate([np.zeros(0, np.int32), *(array.reshape(-1) for array in arrays)])
    if too_large(symbols):
        raise ValueError(f"symbols reach {np.abs(symbols).max()}, the coder takes {MAX_SYMBOL}; use a larger step")
    return symbols


def split(symbols: IntTensor, sizes: Sequence[int]) -> list[IntTensor]:
    """Cut int32 (sum of sizes,) into arrays; BitstreamError for symbols beyond MAX_SYMBOL."""
    if too_large(symbols):
        raise BitstreamError(f"a symbol is {np.abs(symbols).max()}, allowed is up to {MAX_SYMBOL}")
    return np.split(symbols, np.cumsum(sizes)[:-1]) if sizes else []


def too_large(symbols: IntTensor) -> bool:
    """Whether a symbol is beyond MAX_SYMBOL."""
    return bool(symbols.size) and (int(symbols.min()) < -MAX_SYMBOL or int(symbols.max()) > MAX_SYMBOL)
