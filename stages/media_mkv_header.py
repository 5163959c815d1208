"""The finishing touch to a Matroska file: what FFmpeg's muxer knows how to write, but PyAV has no way to tell it.

That is the shape of the pixels and HDR metadata. Room for them is made by a title that is too long; when the file is
complete, the description of its picture track is written anew in the same number of bytes.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from framefold.stages.media_ebml import CRC32, EBML, SEGMENT, checked, element, elements, padding, text, unsigned
from framefold.stages.media_hdr import Hdr

ROOM = "·" * 150
"""What has to be appended to the picture track's title, for `mend` to take away."""

_TRACKS, _ENTRY, _NAME, _VIDEO, _COLOR = 0x1654AE6B, 0xAE, 0x536E, 0xE0, 0x55B0
_WIDTH, _HEIGHT = 0xB0, 0xBA
_DISPLAY = (_DISPLAY_WIDTH, _DISPLAY_HEIGHT, _DISPLAY_UNIT) = (0x54B0, 0x54BA, 0x54B2)
_AS_RATIO = 3
_MOST_OF_A_HEADER = 2**24


def mend(path: Path, *, aspect: Fraction, hdr: Hdr) -> None:
    """Rewrite the first track of a file that was just made with `ROOM` in its title.

    ValueError if the file is not as FFmpeg writes it, or the room does not suffice.
    """
    with path.open("r+b") as file:
        start, end = _find_tracks(file)
        file.seek(start)
        old = file.read(end - start)
        new = _mended_tracks(old, aspect, hdr)
        if len(new) != len(old):
            raise ValueError(f"{len(new)} bytes do not fit into {len(old)}")
        file.seek(start)
        file.write(new)


def _find_tracks(file: BinaryIO) -> tuple[int, int]:
    """Where the content of the element Tracks lies."""
    head = file.read(_MOST_OF_A_HEADER)
    for identity, start, _ in _sketched(head, 0):
        if identity == SEGMENT:
            return next((first, last) for kind, first, last in _sketched(head, start) if kind == _TRACKS)
        if identity != EBML:
            break
    raise ValueError("the file does not begin as Matroska does")


def _sketched(head: bytes, at: int) -> list[tuple[int, int, int]]:
    """As `elements`, of a file's beginning: the last one may go on behind it."""
    found = []
    while at < len(head) - 12:
        id_bytes = 9 - head[at].bit_length()
        size_bytes = 9 - head[at + id_bytes].bit_length()
        start = at + id_bytes + size_bytes
        size = int.from_bytes(head[at + id_bytes : start]) - (1 << 7 * size_bytes)
        found.append((int.from_bytes(head[at : at + id_bytes]), start, start + size))
        at = start + size
    return found


def _mended_tracks(tracks: bytes, aspect: Fraction, hdr: Hdr) -> bytes:
    entries = [(identity, tracks[start:end]) for identity, start, end in elements(tracks) if identity != CRC32]
    has_checksum = any(identity == CRC32 for identity, _, _ in elements(tracks))
    first = next(number for number, (identity, _) in enumerate(entries) if identity == _ENTRY)
    entries[first] = (_ENTRY, _mended_entry(entries[first][1], aspect, hdr))
    content = b"".join(element(identity, data) for identity, data in entries)
    content += padding(len(tracks) - len(content) - (6 if has_checksum else 0))
    return checked(content) if has_checksum else content


def _mended_entry(entry: bytes, aspect: Fraction, hdr: Hdr) -> bytes:
    parts = []
    for identity, start, end in elements(entry):
        data = entry[start:end]
        if identity == _NAME:
            title = data.decode().removesuffix(ROOM)
            parts.append(text(_NAME, title) if title else b"")
        elif identity == _VIDEO:
            parts.append(element(_VIDEO, _mended_video(data, aspect, hdr)))
        else:
            parts.append(element(identity, data))
    return b"".join(parts)


def _mended_video(video: bytes, aspect: Fraction, hdr: Hdr) -> bytes:
    parts = {identity: video[start:end] for identity, start, end in elements(video)}
    if hdr:
        parts[_COLOR] = parts.get(_COLOR, b"") + hdr.matroska
    if aspect != 1:
        width, height = (int.from_bytes(parts[side]) for side in (_WIDTH, _HEIGHT))
        shape = aspect * Fraction(width, height)
        parts = {identity: data for identity, data in parts.items() if identity not in _DISPLAY}
        shown = ((_DISPLAY_WIDTH, shape.numerator), (_DISPLAY_HEIGHT, shape.denominator), (_DISPLAY_UNIT, _AS_RATIO))
        display = b"".join(unsigned(identity, value) for identity, value in shown)
    else:
        display = b""
    return b"".join(element(identity, data) for identity, data in parts.items()) + display
