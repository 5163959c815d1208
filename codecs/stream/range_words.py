"""The end of a range coder's output: any number within its last interval will do, so take a short one.

The coder ends with one or two 32-bit words. A decoder that runs out of words reads zeros, so the last words may
be any two that lie in the interval, and their trailing zero bytes need not be stored: five bytes less on average.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import constriction
import numpy as np
import numpy.typing as npt

_WINDOW = 2**64  # the coder's state: two words, as integers

Words = npt.NDArray[np.uint32]


def shortest_words(coder: Any) -> bytes:
    """The words of constriction's RangeEncoder, big-endian, without the bytes that a decoder can do without."""
    words: Words = coder.get_compressed().astype(np.uint32)
    for shorter in _candidates(words, *coder.pos()):
        decoder = constriction.stream.queue.RangeDecoder(shorter)
        decoder.seek(*coder.pos())
        if is_exhausted(decoder):
            words = shorter
            break
    return words.astype(">u4").tobytes().rstrip(b"\0")


def pad_words(data: bytes) -> Words:
    """The words for constriction's RangeDecoder."""
    return np.frombuffer(data + bytes(-len(data) % 4), ">u4").astype(np.uint32)


def is_exhausted(decoder: Any) -> bool:
    """Whether constriction's RangeDecoder has read all words that matter; it is of no use afterwards.

    Its own test wants the number that its encoder would have ended with: the lower end of the last interval.
    Halving the interval leads there wherever in it the number lies, before another word is read.
    """
    half = constriction.stream.model.Categorical(np.ones(2), perfect=False)
    try:
        for _ in range(32):
            if decoder.maybe_exhausted():
                return True
            decoder.decode(half, 1)
    except AssertionError:  # the number lies where the interval has no symbol
        return False
    return bool(decoder.maybe_exhausted())


def _candidates(words: Words, position: int, state: tuple[int, int]) -> Iterator[Words]:
    """The same words with other ends within the last interval, those with the most trailing zero bytes first."""
    (lower, width), tail = state, [*words[position:].tolist(), 0, 0]
    value = tail[0] << 32 | tail[1]
    above = (value - lower) % _WINDOW
    if above >= width:  # not the state that was expected: leave the words as they are
        return
    lowest, highest = max(value - above, 0), min(value - above + width, _WINDOW) - 1
    for unit in (1 << bits for bits in range(64, 0, -8)):
        if (number := -(-lowest // unit) * unit) <= highest:
            yield np.append(words[:position], np.array([number >> 32, number & 0xFFFFFFFF], dtype=np.uint32))
