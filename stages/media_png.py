"""Chunks of PNG files beside the pixels (PNG, third edition): found as they are, made, and put into a file.

Pillow gives a text or a colour chunk as values, and of several texts with one keyword only the last; here they are
bytes, so that what comes out is what went in. Pillow checks the files before.
"""

from __future__ import annotations

import shutil
import struct
import zlib
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import IO

Chunk = tuple[str, bytes]
"""Type, such as `gAMA`, and content."""

XMP_KEYWORD = b"XML:com.adobe.xmp"
MAX_INFLATED = 2**20
"""Of a colour profile or a text, as Pillow has it: it refuses files where one is longer."""

_SIGNATURE_AND_HEADER = 33
_LENGTHS = {"cHRM": 32, "gAMA": 4, "sRGB": 1, "cICP": 4, "tIME": 7, "pHYs": 9, "mDCV": 24, "cLLI": 8}
"""Of chunks that may stand in any picture, be it grey or RGB."""
TEXT = ("tEXt", "zTXt", "iTXt")


def ancillary_chunks(file: BufferedReader) -> Iterator[Chunk]:
    """Yield all chunks but those that make the pixels, in order."""
    file.seek(len(b"\x89PNG\r\n\x1a\n"))
    while len(header := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", header)
        if kind == b"IEND":
            return
        if kind[:1].islower():
            yield kind.decode("ascii"), file.read(length)
            file.seek(4, 1)
        else:
            file.seek(length + 4, 1)


def text_of(kind: str, content: bytes) -> tuple[str, str] | None:
    """Return keyword and text; None of a chunk that says more, such as a language, or that is not as it should be."""
    keyword, _, rest = content.partition(b"\0")
    if kind == "tEXt":
        text: bytes | None = rest
    elif kind == "zTXt":
        text = _inflated(rest[1:]) if rest[:1] == b"\0" else None
    else:
        text = _international(rest)
    if text is None or b"\0" in text or not is_keyword(name := keyword.decode("latin-1")):
        return None
    try:
        return name, text.decode("utf-8" if kind == "iTXt" else "latin-1")
    except UnicodeDecodeError:
        return None


def xmp_of(content: bytes) -> bytes | None:
    """Return the XMP packet that an `iTXt` chunk holds; None if it holds something else."""
    keyword, _, rest = content.partition(b"\0")
    return _international(rest) if keyword == XMP_KEYWORD else None


def profile_of(content: bytes) -> tuple[str, bytes] | None:
    """Return name and bytes of the colour profile in an `iCCP` chunk; None if they cannot be told."""
    name, _, rest = content.partition(b"\0")
    profile = _inflated(rest[1:]) if rest[:1] == b"\0" else None
    return None if not profile else (name.decode("latin-1"), profile)


def is_keyword(name: str) -> bool:
    """Whether text can stand under this name in a PNG."""
    plain = all(32 <= ord(each) <= 126 or 161 <= ord(each) <= 255 for each in name)
    return 1 <= len(name) <= 79 and plain and name == name.strip(" ") and "  " not in name


def text_chunk(keyword: str, text: str) -> Chunk:
    """Make a chunk of text: Latin-1 if that can hold it, else UTF-8."""
    try:
        return "tEXt", keyword.encode("latin-1") + b"\0" + text.encode("latin-1")
    except UnicodeEncodeError:
        return international_chunk(keyword.encode("latin-1"), text.encode())


def international_chunk(keyword: bytes, text: bytes) -> Chunk:
    """Make a chunk of UTF-8 text, not deflated, without a language."""
    return "iTXt", keyword + b"\0\0\0\0\0" + text


def profile_chunk(name: str, profile: bytes) -> Chunk:
    """Make a chunk of a colour profile."""
    keyword = name if is_keyword(name) else "ICC Profile"
    return "iCCP", keyword.encode("latin-1") + b"\0\0" + zlib.compress(profile, 9)


def may_stay(kind: str, content: bytes, *, channels: int) -> bool:
    """Whether a chunk of one picture is right in another one: text, colours, what is safe to copy."""
    if kind == "sBIT":
        return len(content) == channels
    if kind == "bKGD":
        return len(content) == (2 if channels < 3 else 6)
    if kind in _LENGTHS:
        return len(content) == _LENGTHS[kind]
    known = kind in (*TEXT, "sPLT", "iCCP", "eXIf")
    plain = len(kind) == 4 and kind.isascii() and kind.isalpha() and kind[0].islower()
    return known or (plain and kind[2:].isalpha() and kind[2].isupper() and kind[3].islower())


def insert(chunks: Iterable[Chunk], png: Path, target: IO[bytes]) -> None:
    """Copy a PNG as Pillow writes it, with chunks behind its header, where all that are ancillary may stand."""
    with png.open("rb") as file:
        target.write(file.read(_SIGNATURE_AND_HEADER))
        for kind, content in chunks:
            body = kind.encode("ascii") + content
            target.write(struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body)))
        shutil.copyfileobj(file, target)


def _international(rest: bytes) -> bytes | None:
    """Text of an `iTXt` chunk behind its keyword; None if a language stands there too."""
    language, _, tail = rest[2:].partition(b"\0")
    translated, end, text = tail.partition(b"\0")
    if rest[:2] not in (b"\0\0", b"\1\0") or language or translated or not end:
        return None
    return _inflated(text) if rest[0] else text


def _inflated(data: bytes) -> bytes | None:
    """None if that is damaged, ends too early, or is longer than MAX_INFLATED."""
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(data, MAX_INFLATED)
    except zlib.error:
        return None
    return plain if inflater.eof else None
