"""Bytes that belong to originals, in pieces that travel: a colour profile, a font, a whole file.

A source gives them out by its port `rest`; their identities are made of their SHA-256, so they are the same in every
run, and equal ones are one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from io import BufferedReader, BytesIO

from framefold.codecs.carried import AttachmentRef
from framefold.codecs.rest import Attachment
from framefold.pipeline.errors import RefusedInput
from framefold.pipeline.stage import Emit

PIECE_BYTES = 32 * 2**20
"""At most this much of an attachment travels at once."""


def pieces_of(file: BufferedReader | BytesIO, sha256: str, size_bytes: int) -> Iterator[Attachment]:
    """Read an open file from its beginning and yield it in pieces of at most 32 MiB; an empty one is one empty piece.

    The last piece comes only if the bytes are those of `sha256`: RefusedInput says that the file has changed since that
    was computed. What is left without its end is no attachment, so nothing wrong is kept.
    """
    file.seek(0)
    digest = hashlib.sha256()
    for start in range(0, max(size_bytes, 1), PIECE_BYTES):
        length = min(PIECE_BYTES, size_bytes - start)
        data = file.read(length)
        digest.update(data)
        last = start + length == size_bytes
        if len(data) != length or (last and digest.hexdigest() != sha256):
            raise RefusedInput("the file changed while it was read; run again when nobody writes to it")
        yield Attachment(sha256=sha256, total_bytes=size_bytes, start=start, data=data)


def attached(data: bytes, kind: str, *, name: str = "", media_type: str = "") -> AttachmentRef:
    """Describe bytes in memory as an attachment of its source."""
    digest = hashlib.sha256(data).hexdigest()
    return AttachmentRef(kind=kind, sha256=digest, size_bytes=len(data), name=name, media_type=media_type)


def rest(piece: Attachment) -> Emit:
    """What a source yields for one piece."""
    return Emit(piece, identity=f"attachment:{piece.sha256}:{piece.start}", label=piece.label, port="rest")
