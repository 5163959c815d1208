"""Whether a file ends before the length that it states itself: the surest sign of a copy that broke off."""

from __future__ import annotations

import os
from io import BufferedReader

_EBML, _SEGMENT = bytes.fromhex("1a45dfa3"), bytes.fromhex("18538067")
_BOXES = frozenset((b"ftyp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"sidx", b"mfra", b"uuid", b"styp"))


def missing_tail(file: BufferedReader) -> str | None:
    """Say what is missing at the end of an ISO (MP4, MOV), RIFF (AVI) or EBML (Matroska) file."""
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(12)
    if head[4:8] in _BOXES:
        return _missing_boxes(file, end)
    if head[:4] == _EBML:
        return _missing_segment(file, end)
    if head[:4] == b"RIFF" and 8 + int.from_bytes(head[4:8], "little") > end:
        return f"{8 + int.from_bytes(head[4:8], 'little') - end} bytes are missing at the end"
    return None


def _missing_boxes(file: BufferedReader, end: int) -> str | None:
    """Walk the top-level boxes of ISO/IEC 14496-12, section 4.2; a size of 0 means up to the end."""
    position, kinds = 0, set()
    while position + 8 <= end:
        file.seek(position)
        header = file.read(16)
        kind, size = header[4:8], int.from_bytes(header[:4])
        size = int.from_bytes(header[8:16]) if size == 1 else size or end - position
        if kind not in _BOXES or size < 8:
            break  # what follows is not ISO; the demuxer says what it makes of it
        kinds.add(kind)
        position += size
        if position > end:
            return f"{position - end} bytes are missing at the end (box '{kind.decode()}')"
    return None if b"moov" in kinds or b"mdat" not in kinds else "it has no index (box 'moov')"


def _missing_segment(file: BufferedReader, end: int) -> str | None:
    """Add up the EBML header and the Segment behind it (RFC 8794, RFC 9559)."""
    position = 0
    for kind in (_EBML, _SEGMENT):
        file.seek(position)
        head = file.read(12)
        size = _ebml_size(head[4:])
        if head[:4] != kind or size is None:
            return None  # a live recording states no length
        position += 4 + sum(size)
        if position > end:
            return f"{position - end} bytes are missing at the end"
    return None


def _ebml_size(data: bytes) -> tuple[int, int] | None:
    """Return (bytes of the number, its value); None if all bits are set, for "unknown", or it is cut off."""
    length = 9 - data[0].bit_length() if data and data[0] else 0
    if not length or len(data) < length:
        return None
    value = int.from_bytes(data[:length]) - (1 << 7 * length)
    return None if value == (1 << 7 * length) - 1 else (length, value)
