"""Symbols as bytes, compressed by zstd -19: what papers call "8 bit + zstd", to compare with.

| bytes         | field  | meaning                                                                           |
|---------------|--------|-----------------------------------------------------------------------------------|
| ceil(n / 8)   | widths | one bit for each of the n arrays, first array most significant, zero-padded: 0 if |
|               |        | its symbols are int8, 1 if int16. Why per array: biases often have more bits      |
| ...           | frame  | one zstd frame (RFC 8878) of all symbols in order, int16 little-endian, with its  |
|               |        | content size; absent if there are no symbols                                      |
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import zstandard

from framefold.codecs.network import IntTensor
from framefold.codecs.stream.symbol_lists import join, split
from framefold.codecs.stream.varbits import BitstreamError
from framefold.codecs.stream.varbytes import Cursor

LEVEL = 19
"""Of the compressor; a reader needs not know it."""

_WIDTHS = np.dtype(np.int8), np.dtype("<i2")


def encode(arrays: Sequence[IntTensor]) -> bytes:
    """Code int32 arrays, |symbol| < 2**15; their sizes are for the caller to remember."""
    join(arrays)
    wide = np.array([_needs_int16(array) for array in arrays], dtype=bool)
    raw = b"".join(array.astype(_WIDTHS[flag]).tobytes() for array, flag in zip(arrays, wide.tolist(), strict=True))
    frame = zstandard.ZstdCompressor(level=LEVEL).compress(raw) if raw else b""
    return np.packbits(wide).tobytes() + frame


def decode(data: bytes, sizes: Sequence[int]) -> list[IntTensor]:
    """Give back int32 arrays of these sizes, in one dimension; BitstreamError for other bytes.

    Memory is bounded by the sizes: a frame that claims another content size is refused before it is unpacked.
    """
    cursor = Cursor(data)
    flags = np.unpackbits(np.frombuffer(cursor.take(-(-len(sizes) // 8), "widths"), np.uint8))
    if flags[len(sizes) :].any():
        raise BitstreamError("the widths name more arrays than the stream has")
    widths = [_WIDTHS[flag] for flag in flags[: len(sizes)].tolist()]
    lengths = [size * width.itemsize for size, width in zip(sizes, widths, strict=True)]
    raw, parts, start = _unpack(cursor.rest(), sum(lengths)), [], 0
    for size, width, length in zip(sizes, widths, lengths, strict=True):
        parts.append(np.frombuffer(raw, width, count=size, offset=start).astype(np.int32))
        start += length
    return split(np.concatenate([np.zeros(0, np.int32), *parts]), sizes)


def _needs_int16(array: IntTensor) -> bool:
    limits = np.iinfo(np.int8)
    return bool(array.size) and (int(array.min()) < limits.min or int(array.max()) > limits.max)


def _unpack(frame: bytes, length: int) -> bytes:
    if not length:
        if frame:
            raise BitstreamError(f"{len(frame)} bytes are left over behind a stream without symbols")
        return b""
    try:
        claimed = zstandard.frame_content_size(frame)
        if claimed != length:
            raise BitstreamError(f"the zstd frame claims {claimed} bytes of symbols, expected are {length}")
        return zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise BitstreamError(f"the zstd frame is damaged: {error}") from error
